"""What a lane's state looks up by key, wherever it is kept: in memory, or in the journal's tables."""

from __future__ import annotations

from typing import Protocol


class Keys(Protocol):
    """Keys -> seq. The gate backs it with the store, audit with a dict.

    ``id:ACTION`` is the newest decision about an action (or the end of its escalation), ``st:SEQ`` the newest outcome
    of the intent at that seq, ``ob:DIGEST`` what holds an obligation (an intent, or an import), ``es:ESCALATION`` what
    raised it, ``rv:ACTION`` the review of a flagged action, ``rd:NAME`` what redeemed an AP2 mandate or transaction,
    ``as:HEX`` which agents asked people about an obligation, ``ru:RUN`` where an open run of a definition began,
    ``wf:DIGEST`` where a definition stands, ``tr:...`` the run that an event started, ``ev:...`` the event's record.
    """

    def get(self, key: str) -> int | None: ...
    def put(self, key: str, seq: int | None) -> None: ...


class DictKeys(dict[str, int]):
    """Keys in memory, for audit and tests."""

    def put(self, key: str, seq: int | None) -> None:
        if seq is None:
            self.pop(key, None)
        else:
            self[key] = seq


class Streams(Protocol):
    """Stream name -> its newest place and the digest of the record there. There is one for every run that ever was,
    so the gate keeps them in the store, audit in a dict.
    """

    def get(self, name: str) -> tuple[int, str] | None: ...
    def put(self, name: str, place: tuple[int, str]) -> None: ...


class DictStreams(dict[str, tuple[int, str]]):
    """Streams in memory, for audit and tests."""

    def put(self, name: str, place: tuple[int, str]) -> None:
        self[name] = place
