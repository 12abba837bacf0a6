"""Seeded fault schedule: what goes wrong with the n-th request of a kind is a function of the seed, or a script."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark.model.errors import ConfigError

FAULTS = (
    "ok",  # nothing goes wrong
    "reset_before",  # the connection is reset before anything is done
    "reset_after",  # committed, then the connection is reset without an answer
    "timeout_after_commit",  # committed, then no answer ever comes
    "http_500_before",  # no effect; the 500 is stored for the key
    "http_500_after",  # the effect happened; the stored answer for the key is a 500
    "http_409",  # a lock conflict; nothing is done or stored
    "http_429",  # rate limited; nothing is done or stored
    "slow",  # the request is held, its key in flight, until released or for ``SLOW_S_MAX`` seconds
)
KINDS = ("transfers.create", "refunds.create", "payouts.create")
MILLION = 1_000_000


@dataclass
class Faults:
    """The schedule of one simulator.

    ``rates`` are chances per million for each fault, for requests of ``kinds``. ``script`` maps a kind (or ``*``)
    to faults that come first, one a request, before the rates count. ``ordinals`` counts the requests drawn so far.
    """

    seed: int = 0
    rates: Mapping[str, int] = field(default_factory=dict)
    script: dict[str, list[str]] = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    ordinals: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [*self.rates, *(name for names in self.script.values() for name in names)]
        wrong = sorted(set(named) - set(FAULTS))
        if wrong:
            raise ConfigError(f"unknown fault {wrong[0]!r}", hint=f"Known: {', '.join(FAULTS)}.")
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > MILLION:
            raise ConfigError("fault rates are chances per million and add up to at most 1000000")

    def concerns(self, kind: str) -> bool:
        """Whether a request of this kind draws from the schedule."""
        return bool(self.script.get(kind) or self.script.get("*")) or (bool(self.rates) and kind in self.kinds)

    def draw(self, kind: str) -> str:
        """The fault of the next request of ``kind``; advances the schedule."""
        ordinal = self.ordinals.get(kind, 0)
        self.ordinals[kind] = ordinal + 1
        for name in (kind, "*"):
            if self.script.get(name):
                return self.script[name].pop(0)
        return self.at(kind, ordinal) if kind in self.kinds else "ok"

    def at(self, kind: str, ordinal: int) -> str:
        """The fault that the rates give the ``ordinal``-th request of ``kind``: a pure function of the seed."""
        raw = hashlib.sha256(f"{self.seed}|{kind}|{ordinal}".encode()).digest()
        point = int.from_bytes(raw[:8], "big") % MILLION
        for name in FAULTS:
            point -= self.rates.get(name, 0)
            if point < 0:
                return name
        return "ok"

    def document(self) -> dict[str, Any]:
        return {
            "seed": self.seed, "rates": dict(self.rates), "script": self.script, "kinds": list(self.kinds),
            "ordinals": self.ordinals,
        }  # fmt: skip


def faults_from(doc: Mapping[str, Any]) -> Faults:
    """Inverse of ``Faults.document``; every member is optional. Raises ``ConfigError``."""
    extra = sorted(set(doc) - {"seed", "rates", "script", "kinds", "ordinals"})
    if extra:
        raise ConfigError(f"unknown member {extra[0]!r} in a fault schedule")
    script = doc.get("script", {})
    if isinstance(script, Sequence):
        script = {"*": list(script)}
    try:
        return Faults(
            int(doc.get("seed", 0)),
            {str(k): int(v) for k, v in doc.get("rates", {}).items()},
            {str(k): [str(name) for name in v] for k, v in script.items()},
            tuple(doc.get("kinds", KINDS)),
            {str(k): int(v) for k, v in doc.get("ordinals", {}).items()},
        )
    except (AttributeError, TypeError, ValueError):
        raise ConfigError("a fault schedule has the wrong shape") from None


def faults_from_text(text: str, seed: int) -> Faults:
    """A schedule from a command line: JSON, or ``name=chance per million`` joined by commas. Raises ``ConfigError``."""
    if text.lstrip().startswith("{"):
        try:
            return faults_from({"seed": seed, **json.loads(text)})
        except ValueError:
            raise ConfigError("the fault schedule is not JSON") from None
    rates: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, rate = part.partition("=")
        rates[name.strip()] = rate.strip()
    return faults_from({"seed": seed, "rates": rates})
