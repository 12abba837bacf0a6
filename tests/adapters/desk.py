"""What the adapters' tests share: a deployment whose support desk runs its own tools, and people who answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from observed import CALLER_TOOLS, make_desk
from rig import AGENT, Provider, signed_answer, unsound, waiting

import countermark
from countermark.adapters import Governor
from countermark.journal import SqliteStore
from countermark.wiring.deployment import take_lock

ACCOUNT, STRANGER = "acct_1AcmePaper", "acct_1Nobody"
SMALL, LARGE = 1_000, 600_000  # above 500,000 a person answers first


class Desk:
    """An open deployment, what its tools did, and the records."""

    def __init__(self, root: Path, handle: countermark.Deployment, made: Any, provider: Provider) -> None:
        self.root, self.gate, self.made, self.provider = root, handle, made, provider
        self.run = handle.start_run()
        self.done: list[tuple[str, int]] = []  # what the framework's own tool really did
        self.fails = False
        self.open = True

    def governor(self, **more: Any) -> Governor:
        tools = {"refund": "desk.refund", "note": "desk.note", "pay": "stripe.transfers.create"}
        return Governor(self.gate, run=self.run, tools=tools, **more)

    def refund(self, amount: int, account: str, ticket: str) -> str:
        """Refund an amount in minor units to an account, for a ticket."""
        self.done.append((ticket, amount))
        if self.fails:
            raise RuntimeError("the bank's line broke")
        return f'{{"receipt": "r-{ticket}"}}'

    def approve(self) -> None:
        for parked in waiting(self.gate):
            self.gate.call("answer", signed_answer(self.made, parked))

    @contextmanager
    def unreachable(self) -> Iterator[Governor]:
        """A governor that reaches the gate through its socket, whose owner then goes away and no other one answers."""
        client = countermark.open(self.root, agent=AGENT, connectors={})
        assert not client.owner
        self.gate.close()
        self.open = False
        lock = take_lock(client.config.lock)
        assert lock is not None
        try:
            with patch("countermark.wiring.deployment.OWNER_TRIES_MAX", 2):
                yield Governor(client, run=self.run, tools={"refund": "desk.refund"})
        finally:
            client.close()
            os.close(lock)

    def outcomes(self) -> list[tuple[str, str]]:
        """Outcome and code of every action that is settled, in order."""
        store = SqliteStore(self.root / "data" / "journal.db", readonly=True)
        try:
            found = list(store.records())
        finally:
            store.close()
        return [(r.body["outcome"], r.body["code"]) for r in found if r.kind == "action.settled"]

    def decisions(self) -> list[str]:
        store = SqliteStore(self.root / "data" / "journal.db", readonly=True)
        try:
            return [r.body["disposition"] for r in store.records() if r.kind == "action.decided"]
        finally:
            store.close()


@contextmanager
def desk_at(root: Path) -> Iterator[Desk]:
    """A desk; when it is left, its journal is checked."""
    provider = Provider()
    made = make_desk(root, provider, tools=CALLER_TOOLS)
    handle = countermark.open(root, agent=AGENT, connectors={"stripe": provider})
    found = Desk(root, handle, made, provider)
    try:
        yield found
    finally:
        if found.open:
            handle.close()
    assert unsound(root) == []


class Broken:
    """A gate that raises what nobody foresaw."""

    def __getattr__(self, name: str) -> Any:
        def crash(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the hook crashed")

        return crash


def asked(amount: int = SMALL, ticket: str = "T-1", account: str = ACCOUNT) -> dict[str, Any]:
    return {"amount": amount, "account": account, "ticket": ticket}


def in_docs(heading: str, **given: Any) -> dict[str, Any]:
    """What the lines under a heading of docs/adapters.md make, run with these names given."""
    page = (Path(__file__).resolve().parent.parent.parent / "docs" / "adapters.md").read_text("utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert code.count("\n") <= 6  # what a user adds is a few lines
    exec(code, given)
    return given
