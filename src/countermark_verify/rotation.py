"""The log's key changes hands, and keys that somebody else may have (docs/spec/record.md, docs/spec/verify.md).

A rotation is signed by the old key of the log: whoever trusts that one knows the new one from there on. Of a key that
the auditor's trust file names as compromised, only what existed before that time counts, by the word of somebody else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from countermark_verify import canon, notes
from countermark_verify.authority import Authority
from countermark_verify.cosigned import times
from countermark_verify.crypto import parse_key, signed_text
from countermark_verify.envelope import parse_record
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.trust import Trust, TrustedHead

OVERLAP_US_MAX = 400 * 86_400_000_000
ROTATIONS_MAX = 1_000
_ROLES = frozenset(("principal", "operator"))
MARK = b'"kind":"key.rotated"'


def reached(
    trust: Trust | None, entries: Iterator[bytes], heads: tuple[TrustedHead, ...]
) -> tuple[Trust | None, frozenset[str]]:
    """The trust file with every key of its log that rotations lead to from one that it has; and the keys before those.

    A key before a trusted one signed what it signed then, and no head now. From a key that others may have nothing is
    reached, unless a head that the auditor took in time holds the rotation: one of `heads`, which are of this history.
    """
    if trust is None or not trust.log_keys:
        return trust, frozenset()
    keys = list(trust.log_keys)
    steps: list[tuple[int, notes.VerifierKey, notes.VerifierKey]] = []
    for raw in entries:
        if MARK not in raw or len(steps) == ROTATIONS_MAX:
            continue
        try:
            record = parse_record(raw)
            step = _step(record, trust.origin)
        except Malformed:
            continue
        if step is not None:
            steps.append((record["seq"], *step))
    since = dict(trust.compromised)
    for seq, old, new in steps:
        late = old.text in since and not any(head.size > seq and 0 < head.at <= since[old.text] for head in heads)
        if old in keys and new not in keys and not late:
            keys.append(new)
    before = {key.text for key in keys}
    for _, old, new in reversed(steps):
        if new.text in before:
            before.add(old.text)
    return replace(trust, log_keys=tuple(keys)), frozenset(before)


def _step(record: dict[str, Any], origin: str) -> tuple[notes.VerifierKey, notes.VerifierKey] | None:
    """Both keys of a rotation of this log that both signed."""
    body = record["body"]
    if record["kind"] != "key.rotated" or not _proved(body):
        return None
    said = body["rotation"]
    if f"countermark/{said['deployment']}/{said['lane']}" != origin:
        return None
    return notes.verifier_key(origin, parse_key(said["old"])), notes.verifier_key(origin, parse_key(said["new"]))


def second_line(ledger: Ledger, head: notes.Checkpoint, trust: Trust) -> None:
    """V03: where the auditor has a key of the log by ML-DSA-44, the head carries its line too, and it verifies."""
    if not trust.second_keys:
        return
    found = False
    for key in trust.second_keys:
        try:
            found = bool(times(head, key)) or found
        except Malformed as error:
            ledger.refute("V03.signature", f"the head {error}")
            return
    if not found:
        ledger.lack("V03.second", "the head has no line of the log's ML-DSA-44 key")


def _proved(body: Mapping[str, Any]) -> bool:
    """Both keys signed the document."""
    said = body["rotation"]
    message = canon.signing_bytes("rotation", said)
    return all(signed_text(said[name], body["proofs"][name], message) for name in ("old", "new"))


class Rotations:
    """Checks each record before it is folded: V10."""

    def __init__(self, ledger: Ledger, authority: Authority, state: State) -> None:
        self._ledger = ledger
        self._authority = authority
        self._state = state
        self._log_key = ""
        self._until = 0

    def check(self, position: int, record: dict[str, Any]) -> None:
        kind, body = record["kind"], record["body"]
        if kind in ("gate.started", "lane.succeeded"):
            self._until = self._until if kind == "gate.started" else 0
            self._log_key = body["log_key"]
        elif kind == "key.rotated":
            self._ledger.ran("V10", 1)
            self._rotated(position, record["lane"], record["at"], body)

    def _rotated(self, seq: int, lane: str, at: int, body: dict[str, Any]) -> None:
        said, refute, bundle = body["rotation"], self._ledger.refute, self._state.bundle
        self._authority.deployment("V10.rotation", seq, said)
        if said["lane"] != lane:
            refute("V10.rotation", "made for another lane", seq, lane, said["lane"])
        if said["until"] > at + OVERLAP_US_MAX or at < self._until:
            refute("V10.rotation", "the overlap is too long, or that of the rotation before is not over", seq)
        if not _proved(body) or said["old"] == said["new"]:
            refute("V10.rotation", "not signed by two different keys of the log", seq)
        origin = f"countermark/{said['deployment']}/{said['lane']}"
        keys = []
        for name in ("old", "new"):
            try:
                keys.append(notes.verifier_key(origin, parse_key(said[name])).text)
            except Malformed as error:
                refute("V10.rotation", f"the {name} key {error}", seq)
                return
        if keys[0] != self._log_key:
            refute("V10.rotation", "does not begin with the log's key", seq, self._log_key, keys[0])
        message = canon.signing_bytes("rotation", said)
        rows = body["signed"]
        for row in rows:
            self._authority.enrolled("V10.rotation", seq, row["person"], row["key"])
            self._authority.by_person("V10", "V10.rotation", seq, row["person"], row, message)
        people = {row["person"] for row in rows}
        known = {} if bundle is None else bundle.people
        if len(people) < 2 or any(one in known and _ROLES.isdisjoint(known[one]["roles"]) for one in people):
            refute("V10.rotation", "not signed by two people who may", seq, None, sorted(people))
        self._log_key, self._until = keys[1], said["until"]


class Compromise:
    """What a compromised key signed counts where somebody else shows that it existed before (``add``)."""

    def __init__(self, ledger: Ledger, trust: Trust | None, heads: tuple[TrustedHead, ...]) -> None:
        """`heads`: those of the auditor that are of this history, or are refuted elsewhere."""
        self._ledger = ledger
        self._since = dict(trust.compromised) if trust else {}
        self._uses: list[tuple[int, str]] = []
        self._shown = sorted((head.size, head.at) for head in heads if head.at)

    def add(self, size: int, at_us: int) -> None:
        """Somebody whom the auditor trusts says that the log of this size existed at this time (microseconds)."""
        self._shown.append((size, at_us))

    def check(self, position: int, record: dict[str, Any]) -> None:
        """Remember what these keys signed in a record."""
        if self._since:
            self._uses += [(position, key) for key in sorted(set(_signing(record["body"])) & self._since.keys())]

    def head(self, size: int, lines: list[str]) -> None:
        """The head itself: at least one trusted key that signed it is not compromised, or it existed in time."""
        self._ledger.ran("V03")
        bad = [key for key in lines if key in self._since]
        if lines and len(bad) == len(lines) and not all(self._in_time(size - 1, key) for key in bad):
            self._ledger.lack(
                "V03.compromised", "the head is signed by a key that others may have, and not shown to be older"
            )

    def finish(self) -> None:
        late = [(seq, key) for seq, key in self._uses if not self._in_time(seq, key)]
        for seq, key in late:
            message = f"signed by a key that others may have, and not shown to be older: {key}"
            self._ledger.lack("V10.compromised", message, seq)

    def _in_time(self, seq: int, key: str) -> bool:
        return any(size > seq and at <= self._since[key] for size, at in self._shown)


def _signing(value: Any) -> Iterator[str]:
    """Every key that stands beside a signature of its own."""
    if type(value) is dict:
        if "key" in value and "sig" in value and type(value["key"]) is str:
            yield value["key"]
        for item in value.values():
            yield from _signing(item)
    elif type(value) is list:
        for item in value:
            yield from _signing(item)
