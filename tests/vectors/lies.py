"""Attacks by an insider who holds every key of the gate and owns the heads that the auditor retained.

Each writes a history with one lie in it; digests, chain, tree, signatures and the trust file's head all agree with
the lie, so only checking again what the records mean can find it. Each function gets a gate with a run and answers the
lie's position, or UNSET where the specification does not say at which record it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from build import Key
from bundle import plain_bundle
from scribe import Story
from story import opened

FOREIGN = Key("foreign")
OTHER = "sha256:" + "ab" * 32


@dataclass(frozen=True)
class Attack:
    name: str
    codes: list[str]
    write: Callable[[Story], Any]
    opening: dict[str, Any] = field(default_factory=dict)
    people: dict[str, Any] = field(default_factory=dict)  # whose keys the auditor has beyond the usual ones


ATTACKS: list[Attack] = []
Write = Callable[[Story], Any]


def lie(*codes: str, people: dict[str, Any] | None = None, **opening: Any) -> Callable[[Write], Write]:
    """Register a lie under its function's name; `opening` says how the gate was opened, else with the plain bundle."""

    def register(write: Write) -> Write:
        ATTACKS.append(Attack(write.__name__.replace("_", "-"), list(codes), write, opening, people or {}))
        return write

    return register


def history(attack: Attack) -> tuple[Story, Any]:
    plain = {} if "bundle_tools" in attack.opening else {"bundle": plain_bundle()}
    story = opened(attack.name, **(plain | attack.opening))
    return story, attack.write(story)


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A falsification: sets the member at `path`."""

    def alter(body: dict[str, Any]) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = value

    return alter
