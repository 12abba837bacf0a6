"""What every route stands in: configuration, gate, authenticator, bounds, counters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from countermark.gate import Caller, Gate
from countermark.model.clock import SystemClock
from countermark.model.ports import Clock
from countermark.server.offers import Offers
from countermark.wiring import Config, ServeSettings

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case, as ASGI has them
WHOLE = "countermark.whole"  # in a scope: sends an answer in one piece, or answers False


class Authenticator(Protocol):
    """Who asks. Strangers leave no record: they are refused here, and counted."""

    async def authenticate(self, method: str, target: str, headers: Headers, body: bytes) -> Caller:
        """The agent behind a request. ``target`` is path and query as sent; ``body`` is whole.

        Raises:
            AuthorityError: nobody we know, or what was shown has expired or was revoked.
            SignatureError: a token or a signature does not verify.
        """
        ...


class Counters:
    """Numbers that only grow, by name and label values. They hold no argument, no agent's words and no secret."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], int] = {}

    def add(self, name: str, *labels: str, by: int = 1) -> None:
        """Count. Names and labels come from the code, never from a request."""
        key = (name, *labels)
        self.values[key] = self.values.get(key, 0) + by


async def _nothing() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Handed to every part of the server. All of it runs on ``gate.loop``.

    ``checks`` are further conditions of being ready, such as the witness rule: by name, each answers with why not, or
    with an empty string. ``trigger_faults`` tells which definitions and sources start nothing, and why, ``lacking``
    which connectors have no secret: the gate is ready all the same. ``offers`` are the passkeys that wait to be
    enrolled.
    """

    config: Config
    gate: Gate
    authenticator: Authenticator
    settings: ServeSettings
    counters: Counters = field(default_factory=Counters)
    clock: Clock = field(default_factory=SystemClock)
    checks: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    trigger_faults: Callable[[], Mapping[str, str]] = dict
    lacking: Callable[[], Awaitable[Mapping[str, str]]] = _nothing
    offers: Offers = field(init=False)

    def __post_init__(self) -> None:
        witnesses = {"witnesses": lambda: self.gate.lane.unwitnessed(self.clock.now_us())}
        object.__setattr__(self, "checks", {**witnesses, **self.checks})
        object.__setattr__(self, "offers", Offers(self.config.deployment, self.clock))
