"""Closed epochs, made again: what each ``epoch.closed`` says follows from the records that it covers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from countermark.log import EpochManifest, Frontier, leaf_hash, touch
from countermark.model.records import Record
from countermark.policy import State

Differs = Callable[[str, Any, Any, int], None]


class Epochs:
    """Gathers what epochs say in the pass over the records; ``end`` makes them again in a second one."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self._claims: list[tuple[int, dict[str, Any]]] = []

    def check(self, record: Record) -> None:
        """An epoch goes on where the one before ended, and covers what was there."""
        if record.kind != "epoch.closed":
            return
        body, closed = record.body, self._state.epoch
        if (found := [body["epoch"], body["from"]]) != (expected := [closed.number, closed.size]):
            self._differs("epoch", expected, found, record.seq)
        elif not closed.size < body["size"] <= record.seq or body["until"] <= closed.until:
            self._differs("size", f"more than {closed.size}, and no more than {record.seq}", body["size"], record.seq)
        else:
            self._claims.append((record.seq, dict(body)))

    def end(self, records: Callable[[int], Iterable[Record]]) -> None:
        """Compare roots and manifests; ``records(stop)`` are those before a seq."""
        if not self._claims:
            return
        claims, stop = iter(self._claims), self._claims[-1][1]["size"] + 1
        seq, claim = next(claims)
        frontier, newest = Frontier(), 0
        rows: dict[str, list[Any]] = {}
        for record in records(stop):
            if record.seq == claim["size"]:
                self._compare(seq, claim, frontier, rows)
                if record.at < claim["until"]:
                    self._differs("until", f"no later than {record.at}", claim["until"], seq)
                rows = {}
                following = next(claims, None)
                if following is None:
                    return
                seq, claim = following
            frontier.append(leaf_hash(record.raw))
            touch(rows, record.streams, record.digest)
            newest = record.at
            if newest >= claim["until"]:
                self._differs("until", f"later than {newest}", claim["until"], seq)
                return

    def _compare(self, seq: int, claim: dict[str, Any], frontier: Frontier, rows: dict[str, list[Any]]) -> None:
        manifest = EpochManifest(rows)
        self._differs("root", frontier.root().hex(), claim["root"], seq)
        self._differs("streams", manifest.streams, claim["streams"], seq)
        self._differs("manifest", manifest.root().hex(), claim["manifest"], seq)
