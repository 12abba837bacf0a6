"""V08 over the log itself: every `head.witnessed`, and what it may be relied on for (docs/spec/record.md)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from countermark_verify import notes
from countermark_verify.cosigned import CosignerKey, times
from countermark_verify.crypto import parse_key
from countermark_verify.errors import Malformed
from countermark_verify.notes import Checkpoint
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.tree import Tree
from countermark_verify.trust import Trust
from countermark_verify.witness_policy import BEFORE, WitnessRule

DRIFT_S_MAX = 300  # between a witness's clock and the gate's
_US = 1_000_000
_UNSENT = ("not_sent", "not_witnessed")


@dataclass(frozen=True)
class Reach:
    """How far the log was seen by the auditor's witnesses: the largest such record, by whom, when by their clocks."""

    size: int
    seq: int
    operators: tuple[str, ...]
    at: int  # microseconds: when the last of them cosigned


def _bounds(body: dict[str, Any]) -> tuple[int, int]:
    """Between which times (microseconds) a cosignature was made, by the record and allowing for clocks."""
    return body["asked"] - DRIFT_S_MAX * _US, body["answered"] + DRIFT_S_MAX * _US


class Witnessed:
    """Judges `head.witnessed` records and what waits for them, against the state before each."""

    def __init__(
        self, ledger: Ledger, state: State, trust: Trust | None, tree: Tree | None, shown: Callable[[int, int], None]
    ) -> None:
        self._shown = shown  # told what the auditor's quorum showed: a size, and when it was there (microseconds)
        self._ledger = ledger
        self._state = state
        self._trust = trust
        self._tree = tree
        self._lane: str | None = None
        self._keys: tuple[notes.VerifierKey, ...] = ()  # the log's, and the one before it
        self._size = 0
        self.records = 0
        self.reach: Reach | None = None
        # Lines of witnesses that the policy names as the operator's own.
        self.own: Counter[str] = Counter()

    def check(self, position: int, record: dict[str, Any]) -> None:
        kind, body = record["kind"], record["body"]
        if kind in ("gate.started", "lane.succeeded"):
            self._lane = record["lane"] if kind == "gate.started" else body["lane"]
            self._take_key(body["log_key"])
        elif kind == "key.rotated":
            self._rotated(body["rotation"])
        elif kind == "policy.activated":
            self._activated(position, body["activation"]["bundle"])
        elif kind == "action.settled":
            self._settled(position, record, body)
        elif kind == "head.witnessed":
            self.records += 1
            self._ledger.ran("V08", 1)
            self._witnessed(position, record, body)

    def _take_key(self, text: str) -> None:
        try:
            self._keys = (notes.parse_verifier_key(text, notes.ED25519), *self._keys[:1])
        except Malformed:
            self._keys = ()

    def _rotated(self, said: dict[str, Any]) -> None:
        try:
            new = notes.verifier_key(f"countermark/{said['deployment']}/{said['lane']}", parse_key(said["new"]))
        except Malformed:
            return
        self._keys = (new, *self._keys[:1])

    def _activated(self, position: int, digest: str) -> None:
        """A quorum that nobody but the operator can reach is none."""
        bundle = self._state.bundles.get(digest)
        rule = bundle.witness if bundle is not None else None
        if rule is not None and not rule.enough(rule.witnesses, self._state.deployment):
            message = "its witness quorum cannot be reached without the operator's own witnesses"
            self._ledger.refute("V09.bundle", message, position, None, digest)

    def _settled(self, position: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """What waits for witnesses is not sent before they saw the intent."""
        intent = self._state.intents.get(body["id"])
        bundle = self._state.bundles.get(intent.bundle) if intent is not None else None
        if intent is None or bundle is None:
            return
        before = bundle.tools.get(body["tool"], {}).get("witness") == BEFORE
        covered = self._state.witnessed is not None and self._state.witnessed[0] > intent.seq
        unsent = body["outcome"] == "failed" and body["attempts"] == 0 and body["code"] in _UNSENT
        by_people = body["outcome"] == "failed" and body["via"] == "people"
        if body["code"] == "not_witnessed":
            late = intent.at + bundle.tools[body["tool"]]["dispatch_within_s"] * _US if before else 0
            if not before or covered or not unsent or record["at"] < late:
                message = "not_witnessed of what did not wait for witnesses to the end of its time"
                self._ledger.refute("V11.outcome", message, position, None, body["outcome"])
        # A restore may have lost the record that covered an intent of the lane before it.
        lost = self._state.succeeded_at is not None and intent.seq < self._state.succeeded_at
        if before and not covered and not unsent and not by_people and not lost:
            message = "an effect that waits for witnesses, and none had seen its intent"
            self._ledger.refute("V11.unwitnessed", message, position, None, body["outcome"])

    def _witnessed(self, position: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, size = self._ledger.refute, body["size"]
        if not body["asked"] <= body["answered"] <= record["at"]:
            times_said = [body["asked"], body["answered"], record["at"]]
            refute("V08.record", "asked, answered and recorded in another order", position, None, times_said)
        if not self._size < size <= position:
            refute("V08.record", "not a larger head than the one witnessed before", position, self._size, size)
            return
        self._size = size
        root = self._tree.root_at(size).hex() if self._tree is not None else body["root"]  # of an extract there is none
        if body["root"] != root:
            refute(
                "V08.root", "witnesses are said to have seen another log than this one", position, root, body["root"]
            )
            return
        head = self._note(position, body)
        if head is None:
            return
        rule = self._state.bundle.witness if self._state.bundle is not None else None
        if rule is None:
            refute("V08.record", "the policy in force names no witnesses", position)
        else:
            self._by_rule(position, body, head, rule)
        self._by_auditor(position, body, head)

    def _note(self, position: int, body: dict[str, Any]) -> Checkpoint | None:
        """The record's note: a checkpoint of this log with the log's own line first."""
        try:
            head = notes.parse_checkpoint(body["note"].encode())
        except (Malformed, UnicodeEncodeError) as error:
            self._ledger.refute("V08.record", f"the note {error}", position)
            return None
        origin = f"countermark/{self._state.deployment}/{self._lane}"
        said = [head.origin, head.size, head.root.hex()]
        if said != [origin, body["size"], body["root"]]:
            expected = [origin, body["size"], body["root"]]
            self._ledger.refute("V08.record", "the note is that of another head", position, expected, said)
            return None
        if not any(notes.log_signed(head, key) for key in self._keys):
            self._ledger.refute("V08.record", "the log's own line is missing or does not verify", position)
        return head

    def _cosigned(self, position: int, head: Checkpoint, key: CosignerKey) -> int | None:
        """When the key cosigned (seconds); a line that does not verify is refuted."""
        try:
            found = times(head, key)
        except Malformed as error:
            self._ledger.refute("V08.cosignature", f"the note {error}", position)
            return None
        return found[0] if found and found[0] else None

    def _by_rule(self, position: int, body: dict[str, Any], head: Checkpoint, rule: WitnessRule) -> None:
        """The policy's quorum, of now: what was signed long ago says nothing about this moment."""
        found: dict[str, int] = {}
        for name, key in rule.witnesses.items():
            at = self._cosigned(position, head, key)
            if at is not None:
                found[name] = at
        if not rule.enough(found, self._state.deployment):
            self._ledger.refute("V08.record", "the policy's quorum did not cosign", position, None, sorted(found))
        low, high = _bounds(body)
        for name, at in found.items():
            if not low <= at * _US <= high:
                message = f"{name} cosigned at another time than the record says"
                self._ledger.refute("V08.record", message, position, [body["asked"], body["answered"]], at * _US)

    def _by_auditor(self, position: int, body: dict[str, Any], head: Checkpoint) -> None:
        """How far the auditor's own witnesses saw the log: the bundle has no say in who they are."""
        trust = self._trust
        # In an extract nobody can tell whether the root was this log's: a note of another history would do.
        if trust is None or not trust.witnesses or self._tree is None:
            return
        found: dict[str, str] = {}
        last, (low, high) = 0, _bounds(body)
        for witness in trust.witnesses:
            at_s = self._cosigned(position, head, witness.key)
            if at_s is None:
                continue
            if witness.operator.casefold() == trust.deployment.casefold():
                self.own[witness.operator] += 1
            else:
                found[witness.operator.casefold()] = witness.operator
                last = max(last, at_s)
        if len(found) >= trust.quorum:
            operators = tuple(sorted(found.values()))
            if not low <= last * _US <= high:
                message = "the auditor's witnesses cosigned at another time than the record says"
                self._ledger.refute("V08.record", message, position, [body["asked"], body["answered"]], last * _US)
            self._shown(body["size"], last * _US)
            self.reach = Reach(body["size"], position, operators, last * _US)
