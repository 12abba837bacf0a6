"""A successor lane, checked record by record: the succession, what the providers moved, and who accepted it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from countermark.audit.follow import Differs
from countermark.authority import verify_acceptance
from countermark.log import HASH_BYTES, Frontier, leaf_hash
from countermark.model.digest import ACTIVITY, digest_of
from countermark.model.errors import CountermarkError
from countermark.model.records import GENESIS, Record
from countermark.policy import State, imported_obligation

_LANE = b'"lane":"'


class Restored:
    """Follows ``lane.*`` records against the state before each.

    ``history`` yields the records before a seq, to hash them once more at a restore; without it every leaf is kept.
    """

    def __init__(self, state: State, differs: Differs, history: Callable[[int], Iterable[Record]] | None) -> None:
        self._state = state
        self._differs = differs
        self._activity: tuple[int, str, int] | None = None  # how many movements were promised, their digest, and where
        self._digest = GENESIS
        self._count = 0
        self._lane = b""
        self._history = history
        self._leaves = bytearray()  # their hashes, of every record before
        self._asked: frozenset[str] = frozenset()  # the connectors that the list is from

    def check(self, record: Record) -> None:
        """Compare one record of any kind; every other kind ends the list of movements."""
        lane = _lane(record.raw)
        if lane != self._lane and self._lane and record.kind != "lane.succeeded":
            self._differs("lane", _text(self._lane), _text(lane))
        self._check(record, _text(lane) if record.kind == "lane.succeeded" else "")
        self._lane = lane
        if self._history is None:
            self._leaves += leaf_hash(record.raw)

    def _check(self, record: Record, lane: str) -> None:
        if record.kind == "lane.imported":
            self._imported(record)
            return
        self.end()
        if record.kind == "lane.succeeded":
            self._succeeded(record, lane)
        elif record.kind == "lane.accepted":
            self._accepted(record)
        elif record.kind in ("kill.set", "kill.cleared") and (succession := self._state.succession) is not None:
            # Neither touches the stop of a restore, which two people's acceptances end and nothing else.
            kill = (record.body if record.kind == "kill.set" else record.body["clearance"])["kill"]
            if kill == succession.kill:
                self._differs("kill", "another one than the restore's", kill)

    def end(self) -> None:
        """The movements that follow a succession are those that it counted and digested."""
        if self._activity is not None:
            found, digest, seq = self._activity
            self._activity = None
            self._differs("activity.found", found, self._count, seq)
            self._differs("activity.digest", self._digest, digest, seq)

    def _succeeded(self, record: Record, lane: str) -> None:
        body, before = record.body, record.body["predecessor"]
        self._differs("predecessor.size", record.seq, before["size"])
        self._differs("predecessor.log_key", self._state.log_key, before["log_key"])
        self._differs("predecessor.root", self._root_at(record.seq), before["root"])
        self._differs("predecessor.lane", _text(self._lane), before["lane"])
        for given in (lane, body["lane"]):
            self._differs("lane", f"l{int(before['lane'][1:]) + 1}", given)
        origin = f"countermark/{self._state.deployment}/{lane}"
        self._differs("log_key", origin, body["log_key"].partition("+")[0])
        known = body["known"]
        if known is not None and known["size"] <= record.seq:  # a shorter head says nothing of the log's end
            self._differs("known.size", record.seq, known["size"])
            self._differs("known.root", before["root"], known["root"])
        self._asking(body["activity"])
        self._activity = (body["activity"]["found"], body["activity"]["digest"], record.seq)
        self._digest, self._count = GENESIS, 0

    def _root_at(self, size: int) -> str:
        tree = Frontier()
        if self._history is not None:
            for record in islice(self._history(size), size):
                tree.append(leaf_hash(record.raw))
            return tree.root().hex()
        for at in range(0, size * HASH_BYTES, HASH_BYTES):
            tree.append(bytes(self._leaves[at : at + HASH_BYTES]))
        return tree.root().hex()

    def _asking(self, activity: Mapping[str, Any]) -> None:
        """Every provider of the policy in force is named, and was asked since before all that was still under way."""
        bundle, asked, unasked = self._state.bundle, activity["asked"], activity["unasked"]
        tools = () if bundle is None else bundle.compiled.tools.values()
        names = sorted({tool.connector for tool in tools if tool.class_ == "money"})
        self._differs("activity.asked", sorted(set(asked)), asked)
        self._differs("activity.unasked", sorted(set(unasked)), unasked)
        self._differs("activity.connectors", names, sorted([*asked, *unasked]))
        since = min([self._state.at, *(intent.at for intent in self._state.open.values())])
        if activity["since"] > since:
            self._differs("activity.since", f"not after {since}", activity["since"])
        self._asked = frozenset(asked)

    def _imported(self, record: Record) -> None:
        body, bundle = record.body, self._state.bundle
        if self._activity is None:
            self._differs("place", "directly after lane.succeeded", record.kind)
        self._digest = digest_of(ACTIVITY, [self._digest, dict(body)])
        self._count += 1
        tool = None if bundle is None else bundle.compiled.tools.get(body["tool"])
        if tool is None or tool.class_ != "money" or tool.connector not in self._asked:
            self._differs("tool", "one whose provider was asked", body["tool"])
        if body["pairs"] is None or bundle is None:
            self._differs("obligation", None, body["obligation"])
            return
        try:
            payees = self._state.register.known.payees
            obligation = imported_obligation(bundle, body["tool"], body["pairs"], payees)
            self._differs("obligation", obligation, body["obligation"])
        except CountermarkError as error:
            self._differs("pairs", "those of the tool's business key", str(error)[:300])
        payee = body["terms"]["payee"]
        self._differs("pairs.payee", payee, dict(body["pairs"]).get("payee", payee))

    def _accepted(self, record: Record) -> None:
        state, order = self._state, record.body["acceptance"]
        waiting, bundle = state.succession, state.bundle
        if waiting is None or bundle is None:
            self._differs("acceptance", "a lane that waits for people", order["lane"])
            return
        asked = {"lane": waiting.lane, "succession": waiting.record, "imported": waiting.imported}
        for member, expected in {**asked, "bundle": bundle.digest}.items():
            self._differs(f"acceptance.{member}", expected, order[member])
        if order["person"] in waiting.people:
            self._differs("acceptance.person", "another person than before", order["person"])
        try:
            verify_acceptance(record.body, deployment=state.deployment, people=state.people)
        except CountermarkError as error:
            self._differs("acceptance", "a document that verifies", str(error)[:300])


def _text(lane: bytes) -> str:
    return lane.decode("ascii", "replace")


def _lane(raw: bytes) -> bytes:
    """The envelope's lane: in canonical bytes it follows the body, and no member after it has that name."""
    start = raw.rfind(_LANE) + len(_LANE)
    return raw[start : raw.index(b'"', start)]
