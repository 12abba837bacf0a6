"""What counts once: signed names that were used, remembered until their time is over, for everybody and for each."""

from __future__ import annotations

from countermark.model.errors import GateBusyError

ALL_MAX = 4_096
EACH_MAX = 512  # of one person: nobody keeps all the others out by signing again and again


class Once:
    """Runs on the gate's loop. Times are microseconds."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[str, int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def add(self, name: str, person: str, until: int, now: int) -> None:
        """Remember that a person used this until then. Raises ``GateBusyError`` when too much is remembered."""
        self._used = {one: found for one, found in self._used.items() if found[1] > now}
        own = sum(who == person for who, _ in self._used.values())
        if own >= EACH_MAX or len(self._used) >= ALL_MAX:
            raise GateBusyError("too much was signed here in the last minutes", hint="Try again in some minutes.")
        self._used[name] = (person, until)
