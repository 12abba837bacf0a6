"""Re-performance of what witnesses saw: every ``head.witnessed``, and that nothing which waits for them went before."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from countermark.audit.follow import Differs
from countermark.log import HASH_BYTES, TILE_WIDTH, TileRows, leaf_hash
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.policy import State, check_own, check_witnessed

_UNSENT = ("not_sent", "not_witnessed")


class Witnessed:
    """Checks each record against the state before it. ``intents`` are those without a final outcome."""

    def __init__(self, state: State, differs: Differs, intents: Mapping[int, Record]) -> None:
        self._state = state
        self._differs = differs
        self._intents = intents
        self._leaves = bytearray()
        self._rows = TileRows()
        self._lane_from = 0
        self._checks: Mapping[str, Callable[[Record], None]] = {
            "head.witnessed": self._witnessed,
            "action.settled": self._settled,
            "policy.activated": self._activated,
        }

    def check(self, record: Record) -> None:
        """Compare one record with what the records before it allow."""
        if record.kind in ("gate.started", "lane.succeeded"):
            self._lane_from = record.seq if record.kind == "lane.succeeded" else self._lane_from
        found = self._checks.get(record.kind)
        if found is not None:
            found(record)
        self._leaves += leaf_hash(record.raw)
        full = len(self._leaves) // HASH_BYTES // TILE_WIDTH * TILE_WIDTH
        if full > self._rows.size:
            self._rows.extend(self._between(self._rows.size, full))

    def _between(self, low: int, high: int) -> list[bytes]:
        return [bytes(self._leaves[at * HASH_BYTES : (at + 1) * HASH_BYTES]) for at in range(low, high)]

    def _witnessed(self, record: Record) -> None:
        body, bundle = record.body, self._state.bundle
        if not 0 < body["size"] <= record.seq:
            self._differs("size", f"at most {record.seq}", body["size"])
            return
        self._differs("root", self._rows.root(body["size"], self._between).hex(), body["root"])
        try:
            check_witnessed(
                None if bundle is None else bundle.compiled.witness, body, log_keys=self._state.log_keys,
                deployment=self._state.deployment, at=record.at, before=self._state.witnessed,
            )  # fmt: skip
        except CountermarkError as error:
            self._differs("note", "what a quorum of witnesses said then", str(error)[:300])

    def _activated(self, record: Record) -> None:
        bundle = self._state.bundle_of(record.body["activation"]["bundle"])
        try:
            check_own(bundle.compiled.witness, self._state.deployment)
        except CountermarkError as error:
            self._differs("bundle.witness", "a quorum of others", str(error)[:300])

    def _settled(self, record: Record) -> None:
        body = record.body
        intent = self._intents.get(body["intent"])
        if intent is None:
            return  # said elsewhere
        tool = self._state.bundle_of(intent.body["bundle"]).compiled.tools[body["tool"]]
        seen = self._state.witnessed
        covered = seen is not None and seen.size > intent.seq
        unsent = body["outcome"] == "failed" and body["attempts"] == 0 and body["code"] in _UNSENT
        if body["code"] == "not_witnessed" and (
            not tool.witness or covered or not unsent or record.at < intent.body["not_after"]
        ):
            self._differs("code", "not_witnessed only of what waited to the end of its time", body["code"])
        by_people = body["outcome"] == "failed" and body["via"] == "people"
        lost = intent.seq < self._lane_from
        if tool.witness and not (covered or unsent or by_people or lost):
            self._differs("outcome", "nothing sent before witnesses saw the intent", body["outcome"])
