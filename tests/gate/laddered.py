"""A deployment whose payments are put to two approvers, then to the board in its business hours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rig import Provider, make, signed_answer, waiting

from countermark import Deployment
from countermark.model.clock import FakeClock
from countermark.wiring.init import Made

LARGE = 600_000
HOUR = 3_600
OLD = """[ladder.finance]
roles = ["approver"]
quorum = 1
deadline = "4h"
"""
RUNGS = """
[[ladder.finance.rung]]
roles = ["approver"]
quorum = 2
deadline = "4h"

[[ladder.finance.rung]]
roles = ["board"]
deadline = "8h"
hours = "business"
"""
PEOPLE = {"anna": "approver", "clara": "board", "dora": "board", "emil": "clerk"}


def people() -> str:
    return "".join(
        f'\n[people.{name}]\nname = "{name.title()}"\nroles = ["{role}"]\nkey = "{{{{KEY:{name}}}}}"\n'
        for name, role in PEOPLE.items()
    )


def laddered(
    root: Path, provider: Provider, clock: FakeClock, rungs: str = RUNGS, changes: Mapping[str, str] | None = None
) -> Made:
    """Monday 16:13 in Berlin, when the first question is put; with ``changes`` of limits.toml."""
    return make(root, provider, clock=clock, changes={OLD: rungs + people(), **(changes or {})})


def tick(handle: Deployment) -> None:
    """What the gate does twice a second."""
    handle.gate.wait(handle.gate._expire())


def only(handle: Deployment) -> dict[str, Any]:
    """The one escalation that waits."""
    (found,) = waiting(handle)
    return found


def say(handle: Deployment, made: Made, person: str, verdict: str = "approve", **changes: Any) -> Any:
    """Answer the one escalation that waits, as it stands."""
    return handle.call("answer", signed_answer(made, only(handle), verdict, person, **changes))
