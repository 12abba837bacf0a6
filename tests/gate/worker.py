"""A process that asks for payments and says what was answered; the crash tests kill it wherever they like.

``python worker.py ROOT ACKS FIRST COUNT [CALLERS]`` pays invoices FIRST..FIRST+COUNT-1, each under its own fixed
call_id, and appends one line per answer to ACKS before it goes on.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import countermark
from countermark.model.errors import CountermarkError

ACCOUNTS = ("acct_1NorthwindPaper", "acct_1HarborLogistics")


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
    return {"number": number, "status": result.status, "code": result.code, "ref": result.ref}


def main() -> None:
    root, acks, first, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    callers = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    amount = int(os.environ.get("WORKER_AMOUNT", "1000"))
    handle = countermark.open(root, agent="treasury")
    lock = threading.Lock()
    run_file = acks.with_suffix(".run")
    run = run_file.read_text() if run_file.exists() else ""
    if not run:
        run = handle.start_run()
        run_file.write_text(run)
    numbers = iter(range(first, first + count))

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            answer = pay(handle, run, number, amount)
            with lock, acks.open("a") as file:
                file.write(json.dumps(answer) + "\n")
                file.flush()
                os.fsync(file.fileno())

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.close()


if __name__ == "__main__":
    main()
