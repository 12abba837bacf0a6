"""How far a clock is from another one, as far as one exchange between the two can tell.

Somebody was asked at ``asked`` and had answered at ``answered``, both by our clock. In between they read their own
clock; it said something from ``earliest`` to ``latest``, and ours then something from ``asked`` to ``answered``.
"""

from __future__ import annotations

from typing import NamedTuple


class Offset(NamedTuple):
    """Our clock minus theirs, in microseconds: not below ``low``, not above ``high``."""

    low: int
    high: int

    @property
    def ahead(self) -> int:
        """How much our clock is ahead at the least; 0 when it need not be."""
        return max(0, self.low)

    @property
    def behind(self) -> int:
        """How much our clock is behind at the least; 0 when it need not be."""
        return max(0, -self.high)


def offset_of(asked: int, answered: int, earliest: int, latest: int) -> Offset:
    """What one exchange bounds; all times in microseconds. A wide answer says little, and says so."""
    return Offset(asked - latest, answered - earliest)
