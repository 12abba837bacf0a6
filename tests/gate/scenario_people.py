"""A short day of people, run in a process of its own that dies at a crash point, then run again.

``python scenario_people.py ROOT ACKS TAG [HABIT]``: a key is enrolled and removed, a payee is set, a quorum of two
answers, a rung that nobody was reached on gives way to the next, and somebody refuses. Every step may be repeated.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from laddered import OLD, people
from paying import order
from scenario import HABITS, LARGE, pay

import countermark
from countermark.authority import (
    build_approval,
    generate,
    load_private,
    public_of,
    save_private,
    sign_approval,
    sign_enrolment,
    sign_removal,
)
from countermark.gate import caches
from countermark.model.clock import US, SystemClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

RUNGS = """
[[ladder.finance.rung]]
roles = ["approver"]
quorum = 2
deadline = "4h"

[[ladder.finance.rung]]
roles = ["board"]
deadline = "8h"
"""
LADDERED = {OLD: RUNGS + people().replace('roles = ["clerk"]', 'roles = ["payees", "principal"]')}
PAID, REFUSED = (0, 1, 2), 3


class Day:
    """One run of it."""

    def __init__(self, handle: countermark.Deployment, root: Path, acks: Path, tag: str) -> None:
        self.handle, self.root, self.acks, self.tag = handle, root, acks, tag
        keys = {path.stem: path for path in (root / "people").iterdir()}
        self.made = Made(root, "test", keys, "", "", {})
        self.run = self._kept("run", handle.start_run)

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        file = self.acks.with_suffix("." + name)
        if not file.exists():
            fresh = file.with_suffix(f".{name}-new")
            fresh.write_text(make())
            fresh.replace(file)
        return file.read_text()

    def pay(self, number: int, amount: int) -> None:
        pay(self.handle, self.run, self.tag, number, amount, self.acks)

    def answer(self, number: int, person: str, verdict: str = "approve") -> None:
        """Where it still waits for this person; a second answer of somebody who gave theirs is refused."""
        for asked in self.handle.call("escalations", {}):
            if asked["values"]["invoice"] != f"{self.tag}-{number}":
                continue
            document = build_approval(
                asked, deployment=asked["deployment"], ladder="finance", verdict=verdict, person=person
            )
            with suppress(CountermarkError):
                self.handle.call("answer", sign_approval(document, self._key(person)))

    def _key(self, person: str) -> Any:
        return load_private(self.root / "people" / f"{person}.pem")

    def enrolled(self) -> Path:
        """A second key of Clara's, which signs from then on."""
        path = self.acks.with_suffix(".pem")
        if not path.exists():
            save_private(path, generate())
        key = str(public_of(load_private(path)))
        document = {
            "v": 1, "deployment": self.made.deployment, "person": "clara", "key": key, "label": "phone",
            "nonce": secrets.token_hex(16), "not_after": SystemClock().now_us() + 3_600 * US,
        }  # fmt: skip
        signed = [sign_enrolment(document, "clara", self._key("clara"))]
        try:
            self.handle.call("key.enrol", {"enrolment": document, "signed": signed, "proof": None})
        except CountermarkError as error:  # on the second run it is Clara's, or was
            if error.code != "key_taken":
                raise
        return path

    def removed(self, path: Path) -> None:
        key = str(public_of(load_private(path)))
        document = {"v": 1, "deployment": self.made.deployment, "person": "clara", "key": key, "by": "clara",
                    "reason": "lost"}  # fmt: skip
        known = {row["key"] for one in self.handle.call("people", {}) for row in one["keys"]}
        if key in known:
            self.handle.call("key.remove", sign_removal(document, self._key("clara")))

    def payee(self) -> None:
        if "new-one" not in {row["payee"] for row in self.handle.call("payees", {})}:
            soon = SystemClock().now_us()
            self.handle.call("payee.set", order(self.handle, self.made, "new-one", "acct_1New", person="emil",
                                                now_us=soon))  # fmt: skip

    def unreachable(self, number: int) -> None:
        for asked in self.handle.call("escalations", {}):
            if asked["values"]["invoice"] == f"{self.tag}-{number}":
                told = {"escalation": asked["escalation"], "ladder": "finance", "rung": 1}
                self.handle.call("escalation.unreachable", told)

    def whole(self) -> None:
        path = self.enrolled()
        self.payee()
        self.pay(0, 1_000)
        self.pay(1, LARGE)
        self.answer(1, "anna")
        self.answer(1, "controller")
        self.pay(1, LARGE)
        self.pay(2, LARGE)
        self.answer(2, "anna")
        self.unreachable(2)
        self.answer(2, "clara")
        self.pay(2, LARGE)
        self.removed(path)
        self.pay(REFUSED, LARGE)
        self.answer(REFUSED, "anna", "refuse")
        self.pay(REFUSED, LARGE)


def day(root: Path, acks: Path, tag: str, habit: str = "snapshots") -> None:
    before = caches.SNAPSHOT_RECORDS, caches.SNAPSHOT_PART, caches.DIRTY_MAX
    caches.SNAPSHOT_PART = 0
    caches.SNAPSHOT_RECORDS, caches.DIRTY_MAX = HABITS[habit]
    try:
        with countermark.open(root, agent="treasury") as handle:
            handle.call("recover", {})
            Day(handle, root, acks, tag).whole()
            handle.call("recover", {})
    finally:
        caches.SNAPSHOT_RECORDS, caches.SNAPSHOT_PART, caches.DIRTY_MAX = before


if __name__ == "__main__":
    day(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
