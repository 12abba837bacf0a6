"""Who an agent says it acts for: the chain of a delegated token (RFC 8693 section 4.1), held against its mandates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

ACTORS_MAX = 8


@dataclass(frozen=True, slots=True)
class Behalf:
    """``principal`` is the person for whom ``actors`` act: the calling agent first, the first delegate last."""

    principal: str
    actors: tuple[str, ...]

    def fits(self, chain: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these mandates, from the run's own up to the root, are the same chain of delegation.

        Two mandates of one agent in a row, the second only narrower, are one step. Every mandate names the principal.
        """
        agents = tuple(agent for agent, _ in groupby(mandate["agent"] for mandate in chain))
        return agents == self.actors and all(mandate["principal"] == self.principal for mandate in chain)
