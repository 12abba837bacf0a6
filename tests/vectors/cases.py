"""Attacks on a pack or on the database behind it, against an auditor who kept heads of the honest log.

Each function takes nothing and answers a `Case`: the bytes, what a verifier must say, and the trust file when it is
not the shared one. The honest log is `small` or `tiny`; an attacker who holds the gate's log key signs what he changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from build import (
    ORIGIN,
    Key,
    Pack,
    canonical,
    head_of,
    trust_file,
    verifier_key,
)
from bundle import PEOPLE, person_key, plain_bundle
from scribe import Story
from story import opened, pack_of, pay, small

PEOPLE_KEYS = {person: person_key(person).text for person in sorted(PEOPLE)}
LOG_KEYS = [verifier_key(ORIGIN, Key("log"))]
TINY_ENTRIES = "log/tile/entries/000.p/6"
UNSET = object()


@dataclass(frozen=True)
class Case:
    data: bytes
    verdict: str | list[str]
    codes: list[str]
    first_bad_seq: Any = None  # UNSET: the specification does not determine it
    trust: dict[str, Any] | None = None


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    """Register a case under its function's name."""
    CASES[make.__name__.replace("_", "-")] = make
    return make


def trust(
    heads: list[Any], keys: list[str] | None = None, people: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The auditor's trust file; `people` are keys beyond the usual ones, or instead of them."""
    known = PEOPLE_KEYS | (people or {})
    document: dict[str, Any] = trust_file(known, heads, LOG_KEYS if keys is None else keys, **more)
    return document


def tiny_story(amount: int = 10_000, log_key: Key | None = None) -> Story:
    """The smallest honest history with a payment; most attacks on packs need no more."""
    story = opened("tiny", None, log_key, bundle=plain_bundle())
    story.settle(pay(story, 1, amount))
    return story


def tiny() -> Pack:
    return pack_of(tiny_story())


def tiny_trust() -> dict[str, Any]:
    return trust([head_of(tiny_story().log.leaves)])


def leaves() -> list[bytes]:
    return small().log.leaves


def unreadable(data: bytes) -> Case:
    return Case(data, "unreadable", ["V01"], trust=tiny_trust())


def refuted(pack: Pack, *codes: str, seq: Any = None, **more: Any) -> Case:
    return Case(pack.write(), "refuted", list(codes), seq, **more)


def canonical_trust(document: dict[str, Any]) -> bytes:
    return canonical(document) + b"\n"
