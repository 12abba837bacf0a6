"""A run's state, made from its records; what a run says of itself is read from them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model.errors import ArgumentError
from countermark.model.ports import Store
from countermark.model.records import Record
from countermark.model.sealing import ERASED
from countermark.workflow.commands import CANCELLED
from countermark.workflow.definition import Definition
from countermark.workflow.live import Live
from countermark.workflow.migration import may_migrate
from countermark.workflow.projection import Projection
from countermark.workflow.registry import Registry
from countermark.workflow.sealing import Seals


class Folder:
    """Which runs are in memory is not its business."""

    def __init__(self, store: Store, rows: Projection, seals: Seals, registry: Registry) -> None:
        self._store = store
        self._rows = rows
        self._seals = seals
        self._registry = registry

    def fold_anew(self, live: Live, seqs: Sequence[int]) -> None:
        """Make a run's state from its records, and from what happened that it waits for."""
        self.fold(live, [self._store.record(seq) for seq in sorted(seqs)])
        for place in live.waits:
            self.look(live, place)

    def look(self, live: Live, place: str) -> None:
        """An event that is waited for may have come before that, or before anybody was told."""
        seq = self._rows.happened(*live.waits[place], live.started, live.before[place])
        if seq is not None:
            live.woken(self._store.record(seq), place)

    def fold(self, live: Live, sealed: Sequence[Record]) -> None:
        """Make a run's state from its records alone."""
        records = self._seals.opened(sealed)
        started = next(record for record in records if record.kind == "run.started" and record.body["run"] == live.run)
        workflow = started.body["workflow"]
        digest = workflow["definition"]
        for record in records:
            if record.kind == "run.migrated":
                digest = record.body["to"]
        live.begin(
            self._registry.definition(digest), started.body, started.at, self.event_of(workflow["trigger"]["record"])
        )
        for record in records:
            live.fold(record)

    def unfit(self, live: Live, new: Definition, order: Mapping[str, Any]) -> str | None:
        """Why a run cannot go on by another definition."""
        if order["from"] != live.definition.digest:
            return "it goes by another one than the order says"
        if new.digest == live.definition.digest:
            return "it is the one that it goes by"
        records = self._seals.opened([self._store.record(seq) for seq in sorted(live.seqs)])
        own = [(one.kind, one.body, one.at, one.seq) for one in records if one.body.get("run") == live.run]
        event = self.event_of(own[0][1]["workflow"]["trigger"]["record"])
        return may_migrate(own, live.definition, new, event=event)

    def result(self, ended: Record) -> dict[str, Any]:
        """How a run ended (as ``shown``), with places ``undone`` and ``left``; ``erased`` when values are gone."""
        workflow = ended.body["workflow"]
        shown = {"run": ended.body["run"], "status": workflow["status"], "until": None, "undone": workflow["undone"],
                 "left": workflow["left"]}  # fmt: skip
        try:
            (plain,) = self._seals.opened([ended])
        except ArgumentError as error:
            if error.code != ERASED:
                raise
            return {**shown, "outputs": {}, "erased": True}
        return {**shown, "outputs": plain.body["workflow"]["outputs"]}

    def event_of(self, seq: int | None) -> Any:
        """The payload of a recorded event."""
        return None if seq is None else self._store.record(seq).body["payload"]

    def withdrawn(self, live: Live, action: str) -> dict[str, Any]:
        """The record by which people are not asked about an action any more."""
        records = (self._store.record(seq) for seq in reversed(live.seqs))
        raised = next(one.body for one in records if one.kind == "escalation.raised" and one.body["id"] == action)
        return {**{name: raised[name] for name in ("escalation", "id", "agent", "run", "terms")}, "because": CANCELLED}
