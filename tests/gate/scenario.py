"""A short day of one deployment, run in a process of its own that dies at a crash point, then run again.

``python scenario.py ROOT ACKS TAG [HABIT]``. Every step may be repeated: call ids are fixed, invoices carry TAG.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import countermark
from countermark.authority import build_approval, load_private, sign_approval
from countermark.gate import caches
from countermark.model.errors import CountermarkError

ACCOUNTS = ("acct_1AcmePaper", "acct_1BorealisHosting")
# What the provider does with the requests, in order: fine, fine, done but a stored 500, done but no answer.
FAULTS = ["ok", "ok", "http_500_after", "timeout_after_commit"]
LARGE = 600_000
INVOICES = 7


def say(acks: Path, answer: dict[str, object]) -> None:
    with acks.open("a") as file:
        file.write(json.dumps(answer) + "\n")
        file.flush()
        os.fsync(file.fileno())


def pay(handle: countermark.Deployment, run: str, tag: str, number: int, amount: int, acks: Path) -> None:
    args = {
        "amount": amount, "currency": "eur", "destination": ACCOUNTS[number % 2],
        "metadata[invoice]": f"{tag}-{number}",
    }  # fmt: skip
    try:
        # The reason is sealed in the vault, so each payee's first payment makes a new key there.
        result = handle.act("stripe.transfers.create", args, run=run, call_id=f"c-{number}", reason=f"invoice {number}")
    except CountermarkError as error:
        say(acks, {"number": number, "status": "error", "code": error.code})
        return
    say(acks, {"number": number, "status": result.status, "ref": result.ref, "code": result.code})


def approve(handle: countermark.Deployment, root: Path) -> None:
    for asked in handle.call("escalations", {}):
        document = build_approval(
            asked, deployment=asked["deployment"], ladder="finance", verdict="approve", person="controller"
        )
        handle.call("answer", sign_approval(document, load_private(root / "people" / "controller.pem")))


NEVER = 1 << 40
# Records from one snapshot to the next, and changed keys from one ``save`` to the next, so that a day of thirty records
# has several of each.
HABITS = {
    "snapshots": (5, NEVER), "keys": (NEVER, 3), "both": (13, 2), "nothing": (NEVER, NEVER),
}  # fmt: skip


def day(root: Path, acks: Path, tag: str, habit: str = "snapshots") -> None:
    """Four payments, one of them asked for and approved, a restart, two more."""
    before = caches.SNAPSHOT_RECORDS, caches.SNAPSHOT_PART, caches.DIRTY_MAX
    caches.SNAPSHOT_PART = 0
    caches.SNAPSHOT_RECORDS, caches.DIRTY_MAX = HABITS[habit]
    try:
        _day(root, acks, tag)
    finally:
        caches.SNAPSHOT_RECORDS, caches.SNAPSHOT_PART, caches.DIRTY_MAX = before


def _day(root: Path, acks: Path, tag: str) -> None:
    run_file = acks.with_suffix(".run")
    with countermark.open(root, agent="treasury") as handle:
        if not run_file.exists():
            fresh = run_file.with_suffix(".fresh")
            fresh.write_text(handle.start_run())
            fresh.replace(run_file)
        run = run_file.read_text()
        for number in range(4):
            pay(handle, run, tag, number, 1000, acks)
        pay(handle, run, tag, 4, LARGE, acks)
        approve(handle, root)
        pay(handle, run, tag, 4, LARGE, acks)
    with countermark.open(root, agent="treasury") as handle:
        for number in (5, 6):
            pay(handle, run, tag, number, 1000, acks)
        handle.call("recover", {})


if __name__ == "__main__":
    day(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
