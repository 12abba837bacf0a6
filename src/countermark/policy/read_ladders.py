"""``[ladder.NAME]`` of ``limits.toml`` and ``ladders.toml``: the rungs, and whether anybody can answer them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from countermark.authority import RUNG_MAX
from countermark.model.values import NAME
from countermark.policy.bundle import Agent
from countermark.policy.hours import SPAN_DAYS_MAX, BusinessHours
from countermark.policy.ladders import DEADLINE_S_MAX, Ladder, Rung
from countermark.policy.toml import Table

QUORUM_MAX = 16
KEYS = ("roles", "quorum", "deadline", "hours")


def read_ladders(root: Table, known: Mapping[str, Ladder], business: BusinessHours) -> dict[str, Ladder]:
    """The ladders below ``root``; ``known`` are those of another file, ``business`` what ``hours`` refers to."""
    found: dict[str, Ladder] = {}
    for name, table in root.tables("ladder"):
        if name in known:
            table.error("", "duplicate", f"ladder {name!r} is defined twice")
        if NAME.fullmatch(name) is None:
            table.error("", "bad_name", f"{name[:70]!r} is not a valid id",
                        "Use a-z, 0-9, _, . and -, at most 64, starting with a letter or digit.")  # fmt: skip
            continue
        rungs = _rungs(table, business)
        if rungs:
            found[name] = Ladder(name, rungs)
    return found


def _rungs(table: Table, business: BusinessHours) -> tuple[Rung, ...]:
    if "rung" not in table:
        table.only(*KEYS)
        return (_rung(table, business),)
    table.only("rung")
    rungs = tuple(_rung(below, business) for below in table.array("rung") if _only(below))
    if not 1 <= len(rungs) <= RUNG_MAX:
        table.error("rung", "bad_value", f"a ladder has 1 to {RUNG_MAX} rungs")
    return rungs


def _only(table: Table) -> bool:
    table.only(*KEYS)
    return True


def _rung(table: Table, business: BusinessHours) -> Rung:
    roles = table.texts("roles")
    if "roles" in table and not roles:
        table.error("roles", "bad_value", "a rung names at least one role")
    hours = business if table.choice("hours", ("business", "all"), "all") == "business" else None
    rung = Rung(roles, table.integer("quorum", 1, low=1, high=QUORUM_MAX), table.duration_s("deadline"), hours)
    if rung.deadline_s > DEADLINE_S_MAX:
        table.error("deadline", "bad_value", "a deadline is at most 30d")
    elif not rung.fits:
        table.error("deadline", "bad_value", f"in business hours this would take more than {SPAN_DAYS_MAX} days")
    return rung


def warn_of_people(
    table: Table, ladder: Ladder, able: Mapping[str, frozenset[str]], agents: Iterable[Agent], author: str
) -> None:
    """Warn of rungs with fewer people than their quorum, and of those that ask nobody new.

    ``able`` maps people with a key to their roles. An approver has a key and a role of the rung, did not write the
    policy, and does not own the agent.
    """
    before: tuple[frozenset[str], int] | None = None
    for number, rung in enumerate(ladder.rungs, 1):
        name = f"ladder {ladder.id!r}" + (f", rung {number}," if len(ladder.rungs) > 1 else "")
        people = frozenset(p for p, roles in able.items() if not roles.isdisjoint(rung.roles) and p != author)
        if len(people) < rung.quorum:  # said once, not for every agent
            _nobody(table, f"{name} needs {rung.quorum}, but {len(people)} can answer, whichever agent asks")
        else:
            for agent in agents:
                left = len(people - {agent.owner})
                if left < rung.quorum:
                    _nobody(table, f"{name} needs {rung.quorum}, but {left} can answer for agent {agent.id!r}")
        if before is not None and rung.quorum <= len(people) and people <= before[0] and rung.quorum >= before[1]:
            table.warn(
                "", "rung_asks_nobody_new", f"{name} asks nobody whom the rung before it did not ask",
                "Give it other roles or a smaller quorum, or leave it out and make the deadline longer.",
            )  # fmt: skip
        before = people, rung.quorum


def _nobody(table: Table, message: str) -> None:
    table.warn(
        "", "nobody_answers", message,
        "An approver has a key and a role of the rung, is not the policy's author and not the agent's owner.",
    )  # fmt: skip
