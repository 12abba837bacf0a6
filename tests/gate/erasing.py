"""What the tests of erasure share: a deployment whose payments have sealed values, and people's signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rig import ACME, TOOL, Provider, args_for, make
from test_gate_sensitive import NOTE, SENSITIVE, WHY

import countermark
from countermark.audit import erasure_document
from countermark.authority import load_private, sign_erasure, sign_hold, sign_release
from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.wiring.init import Made

DAY_S = 86_400
KEEP = '[retention]\nkeep = "30d"\n'


def deploy(root: Path, provider: Provider, clock: FakeClock, retention: str = KEEP, **more: Any) -> Made:
    """A deployment with sensitive descriptions, and a retention rule."""
    return make(root, provider, clock=clock, tools=SENSITIVE, changes={"[payment]": f"{retention}\n[payment]"}, **more)


def pay(handle: countermark.Deployment, number: int, amount: int = 1000, destination: str = ACME) -> Any:
    args = {**args_for(number, amount, destination), "description": f"{NOTE} {destination}"}
    return handle.act(TOOL, args, call_id=f"c-{number}", reason=WHY)


def document(root: Path, subject: str = "acme-paper", reason: str = "the person asked for it") -> dict[str, Any]:
    """What two people sign to erase the subject as it is now."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return erasure_document(store, subject, reason)
    finally:
        store.close()


def order(made: Made, doc: Mapping[str, Any], people: Sequence[str] = ("treasurer", "controller")) -> dict[str, Any]:
    """An erasure, signed."""
    return {"erasure": doc, "signed": [sign_erasure(doc, who, load_private(made.people[who])) for who in people]}


def held(made: Made, kind: str, value: str = "", number: int = 1, person: str = "controller") -> dict[str, Any]:
    """A legal hold, signed."""
    doc = {
        "v": 1, "deployment": made.deployment, "hold": f"hold_{number:016x}", "scope": {"kind": kind, "value": value},
        "reason": "a lawsuit", "person": person,
    }  # fmt: skip
    return sign_hold(doc, load_private(made.people[person]))


def released(made: Made, number: int = 1, people: Sequence[str] = ("treasurer", "controller")) -> dict[str, Any]:
    """The end of a hold, signed."""
    doc = {"v": 1, "deployment": made.deployment, "hold": f"hold_{number:016x}", "reason": "it is over"}
    return {"release": doc, "signed": [sign_release(doc, who, load_private(made.people[who])) for who in people]}
