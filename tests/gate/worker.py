"""A process that asks for payments and says what was answered; the crash tests kill it wherever they like.

``python worker.py ROOT ACKS FIRST COUNT [CALLERS]`` pays invoices FIRST..FIRST+COUNT-1, each under its own fixed
call_id, and appends one line per answer to ACKS before it goes on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import countermark
from countermark.model.errors import CountermarkError

ACCOUNTS = ("acct_1AcmePaper", "acct_1BorealisHosting")
FINAL = ("confirmed", "failed", "denied")
TRIES_MAX = 200


def pay(handle: countermark.Deployment, run: str, number: int, amount: int) -> dict[str, object]:
    """One payment; errors are answers too."""
    args = {
        "amount": amount, "currency": "eur", "destination": ACCOUNTS[number % len(ACCOUNTS)],
        "metadata[invoice]": f"INV-{number}",
    }  # fmt: skip
    try:
        result = handle.act("stripe.transfers.create", args, run=run, call_id=f"pay-{number}")
    except CountermarkError as error:
        return {"number": number, "status": "error", "code": error.code}
    return {
        "number": number, "status": result.status, "code": result.code, "ref": result.ref, "action": result.action,
    }  # fmt: skip


def open_run(handle: countermark.Deployment, run_file: Path) -> str:
    """The run that every process of a test shares; the first one mints it."""
    if run_file.exists():
        return run_file.read_text()
    run = handle.start_run()
    fresh = run_file.with_suffix(f".{os.getpid()}")
    fresh.write_text(run)
    fresh.replace(run_file)
    return run


def work(root: Path, acks: Path, first: int, count: int, callers: int, amount: int, *, settle: bool = False) -> None:
    """Pay with ``callers`` threads; with ``settle`` ask again until every answer is final."""
    handle = countermark.open(root, agent="treasury")
    lock = threading.Lock()
    run = open_run(handle, acks.parent / "run")
    numbers = iter(range(first, first + count))

    def caller() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            answer = pay(handle, run, number, amount)
            for _ in range(TRIES_MAX if settle else 0):
                if answer["status"] in FINAL:
                    break
                time.sleep(0.02)
                handle.call("recover", {})
                answer = pay(handle, run, number, amount)
            with lock, acks.open("a") as file:
                file.write(json.dumps(answer) + "\n")
                file.flush()
                os.fsync(file.fileno())

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if os.environ.get("WORKER_LINGER"):
        print("waiting", flush=True)
        sys.stdin.read()
    handle.close()


def main() -> None:
    root, acks, first, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    callers = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    amount = int(os.environ.get("WORKER_AMOUNT", "1000"))
    work(root, acks, first, count, callers, amount, settle=bool(os.environ.get("WORKER_SETTLE")))


if __name__ == "__main__":
    main()
