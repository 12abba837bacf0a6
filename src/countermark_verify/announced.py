"""V21: definitions and events, as the general stream of the log has them (docs/spec/workflow.md)."""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import Any

from countermark_verify import calls, canon, chain_events, evm
from countermark_verify.definition import PURE, Definition, read_definition
from countermark_verify.errors import Malformed
from countermark_verify.evaluate import short
from countermark_verify.recomputed import Recomputed
from countermark_verify.report import Ledger


class Announced:
    """What runs may be of, and what they may wait for."""

    def __init__(
        self, ledger: Ledger, recomputed: Recomputed, whole: bool, pinned: Mapping[int, Mapping[int, bytes]]
    ) -> None:
        """`whole`: nothing is left out. `pinned`: blocks of chains that the auditor knows."""
        self._ledger, self._recomputed, self._whole, self._pinned = ledger, recomputed, whole, pinned
        self.definitions: dict[str, Definition | None] = {}
        self._reach: dict[str, tuple[int, int]] = {}  # of a definition: how deep it calls, how many runs in all
        self._events: dict[tuple[str, str], int] = {}
        self._event_at: dict[int, bytes] = {}
        self._by_key: dict[tuple[str, str], list[int]] = {}
        self.unproved = self._blind = 0

    def finish(self) -> None:
        if self._blind:
            message = f"{self._blind} events of chains cannot be checked: pycryptodome is not installed"
            self._ledger.lack("V21.no_evm", message)

    def defined(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V21", 1)
        refute, digest = self._ledger.refute, body["digest"]
        if digest in self.definitions:
            refute("V21.definition", "this definition was recorded before", seq, None, digest)
        if (found := canon.digest("workflow", canon.render(body["document"]))) != digest:
            refute("V21.definition", "the definition has another digest", seq, found, digest)
        self.definitions.setdefault(digest, None)
        try:
            definition = read_definition(body["document"])
        except Malformed as error:
            refute("V21.definition", f"the definition {error}", seq)
            return
        if definition.digest == digest:
            self.definitions[digest] = definition
            self._reaches(seq, definition)
        for job in definition.jobs:
            for step in job.document["steps"]:
                if step["kind"] == PURE:
                    self._recomputed.defined(seq, f"{job.id}.{step['id']}", step["code"])

    def _reaches(self, seq: int, definition: Definition) -> None:
        """What a definition calls was recorded before, and one start of it leads to so many runs at most."""
        refute = self._ledger.refute
        unknown = calls.called_by(definition) - self.definitions.keys()
        if self._whole and unknown:
            refute("V21.definition", "calls definitions not recorded before", seq, None, sorted(unknown))
        if calls.mixed(definition, self.definitions):
            refute("V21.definition", "of it and a definition that it calls one is sealed", seq)
        reach = self._reach[definition.digest] = calls.reach_of(definition, self._reach)
        if calls.too_far(reach):
            refute("V21.definition", "its calls reach too deep, or start too many runs", seq, None, list(reach))

    def event(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V21", 1)
        name = (body["source"], body["event"])
        if (before := self._events.setdefault(name, seq)) != seq:
            self._ledger.refute("V21.event", "this event was received before", seq, None, f"seq:{before}")
        if not short(body["payload"]):
            self._ledger.refute("V21.event", "the payload is too long", seq)
        if body["scheme"] == chain_events.RECEIPT:
            self._on_chain(seq, body)
        self.unproved += body["scheme"] == chain_events.CHECKED
        self._event_at[seq] = canon.render(
            {"at": record["at"]} | {name: body[name] for name in ("source", "event", "payload", "scheme")}
        )
        if body["key"]:
            self._by_key.setdefault((body["source"], body["key"]), []).append(seq)

    def _on_chain(self, seq: int, body: dict[str, Any]) -> None:
        try:
            if reason := chain_events.misfit(body, self._pinned):
                self._ledger.refute("V21.event", reason, seq)
        except evm.NoKeccak:
            self._blind += 1

    def event_of(self, seq: int | None) -> dict[str, Any] | None:
        """The event of this place."""
        raw = self._event_at.get(-1 if seq is None else seq)
        return None if raw is None else canon.parse(raw)  # type: ignore[return-value]

    def received(
        self, source: str, key: str, after: int, taken: Collection[int]
    ) -> tuple[int, Mapping[str, Any]] | None:
        """The first event of this source and key after a record, that is not among those taken."""
        there = self._by_key.get((source, key), [])
        for number in range(bisect_right(there, after), len(there)):
            seq = there[number]
            if seq not in taken and (event := self.event_of(seq)) is not None:
                return seq, event
        return None
