"""`verify`: one pass over the records, every step in its order, one report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countermark_verify import steps
from countermark_verify.authority import Authority
from countermark_verify.axes import derive_axes
from countermark_verify.canon import digest as digest_of
from countermark_verify.climbs import Climbs
from countermark_verify.container import DISCLOSURES, open_pack
from countermark_verify.counts import Counts
from countermark_verify.decide import Decider
from countermark_verify.envelope import parse_record, writer
from countermark_verify.errors import Malformed, Unreadable
from countermark_verify.hindsight import Hindsight
from countermark_verify.identity import Disclosures, Identity, read_disclosures
from countermark_verify.life import Life
from countermark_verify.manifest import Manifest
from countermark_verify.notes import Checkpoint
from countermark_verify.order import Order
from countermark_verify.people import People
from countermark_verify.report import Finding, Ledger, Report
from countermark_verify.signed import Signed
from countermark_verify.state import State
from countermark_verify.succession import Succession
from countermark_verify.tree import Tree, leaf_hash
from countermark_verify.trust import Trust
from countermark_verify.wellformed import Shelf

# A log of which so much cannot be read is not read to its end.
UNREADABLE_MAX = 1_000
_STREAMED = ("V04", "V05", "V06", "V09", "V10", "V11", "V12", "V13", "V14")


def verify(pack: bytes | str | Path, trust: Trust | None = None) -> Report:
    """Check an evidence pack (its bytes, or the path of its file) against what the auditor trusts.

    Never raises for what a pack contains: whatever is wrong with it is in the report.
    """
    ledger = Ledger()
    try:
        members = open_pack(pack)
    except Unreadable as error:
        ledger.unreadable = True
        ledger.steps["V01"].status = "refuted"
        ledger.steps["V01"].findings.append(Finding(error.code, error.message))
        return ledger.report({}, {}, {"size": None, "root": None, "origin": None})
    ledger.ran("V01", len(members))
    return _Pass(ledger, members, trust).run()


@dataclass
class _Pass:
    """One verification: the members, and what the steps hand to each other."""

    ledger: Ledger
    members: steps.Members
    trust: Trust | None
    counts: Counts = field(init=False)

    def run(self) -> Report:
        ledger, trust = self.ledger, self.trust
        manifest = steps.v02_manifest(ledger, self.members, trust)
        head = steps.v03_head(ledger, self.members, manifest, trust)
        size = head.size if head is not None else steps.present_size(self.members)
        tree = Tree(item.size for item in (*trust.heads, *trust.foreign)) if trust else Tree()
        self._records(tree, size, manifest, head)
        steps.v05_tree(ledger, self.members, head, tree, size)
        cosigned = steps.v08_witnesses(ledger, head, trust)
        if steps.of_another_log(head, trust):
            ledger.lack("V07.no_trust", "the heads of the trust file are those of another log")
        else:
            steps.v07_trusted_heads(ledger, tree, size, trust, cosigned)
        heads_agree = trust is not None and bool(trust.heads) and ledger.status("V07") == "ok"
        axes = derive_axes(ledger, self.counts, heads_agree, cosigned)
        shown: dict[str, Any] = {"size": size, "root": None, "origin": None}
        if head is not None:
            shown |= {"root": steps.text64(head.root), "origin": head.origin}
        return ledger.report(axes, self.counts.as_dict(), shown)

    def _records(self, tree: Tree, size: int, manifest: Manifest | None, head: Checkpoint | None) -> None:
        """One pass: every step judges a record against the state before it, then the record is folded."""
        ledger = self.ledger
        for step in _STREAMED:
            ledger.ran(step)
        shelf = Shelf(ledger, self.members)
        state = State(shelf.bundles)
        disclosures = self._disclosures()
        order = Order(ledger)
        identity = Identity(ledger, state, disclosures)
        life = Life(ledger, state, self._retained(head))
        decider = Decider(ledger, state)
        signed = Signed(ledger, state)
        self.counts = Counts(disclosed=len(disclosures.fields))
        authority = Authority(ledger, self.trust, state)
        succession = Succession(ledger, authority, state, head, self.trust, tree)
        checks: tuple[Callable[[int, dict[str, Any]], None], ...] = (
            authority.check,
            succession.check,
            Hindsight(ledger, authority, state).check,
            People(ledger, authority, state).check,
            signed.check,
            life.check,
            Climbs(ledger, state).check,
            identity.check,
            decider.check,
            self.counts.check,
        )
        unreadable = 0
        for position, raw in enumerate(steps.entries(ledger, self.members, size)):
            tree.append(leaf_hash(raw))
            digest = digest_of("record", raw)
            ledger.ran("V04", 1)
            try:
                record = parse_record(raw)
            except Malformed as error:
                ledger.refute("V04.record", f"the record {error}", position)
                order.unreadable(position, digest)
                life.unreadable()
                unreadable += 1
                if unreadable == UNREADABLE_MAX:
                    ledger.refute("V04.record", f"{unreadable} records cannot be read; the rest was not", position)
                    break
                continue
            if record["by"] != (by := writer(record["kind"], record["body"])):
                ledger.refute("V04.record", f"the record is not by {by}", position, by, record["by"])
            order.check(position, record, digest)
            self._opening(position, record, head, succession)
            if record["kind"] == "policy.activated":
                shelf.activate(position, record["body"]["activation"]["bundle"])
            for check in checks:
                check(position, record)
            state.apply(record, digest)
        shelf.finish()
        life.finish()
        succession.finish()
        identity.finish()
        decider.finish()
        self.counts.finish(ledger, state, identity, manifest)
        self.counts.vouched, self.counts.asked, self.counts.proved = authority.listed(), signed.asked, signed.proved

    def _opening(self, position: int, record: dict[str, Any], head: Checkpoint | None, succession: Succession) -> None:
        """Seq 0 starts the gate, and the log is the one that the head names."""
        if position == 0 and record["kind"] != "gate.started":
            self.ledger.refute("V04.record", "the first record is not gate.started", 0, "gate.started", record["kind"])
        if record["kind"] != "gate.started":
            return
        if (found := record["body"]["recovered"]) != record["seq"]:
            self.ledger.refute("V03.mismatch", "the gate found another log than this one", position, position, found)
        if head is not None and not succession.precedes(record["lane"]):
            origin = f"countermark/{record['body']['deployment']}/{record['lane']}"
            keys = {key.text for key in self.trust.log_keys} if self.trust else set()
            if keys and record["body"]["log_key"] not in keys:
                key = record["body"]["log_key"]
                self.ledger.refute("V03.mismatch", "another log key than the trusted ones", position, sorted(keys), key)
            if origin != head.origin:
                self.ledger.refute("V03.origin", "the record opens another log", position, head.origin, origin)

    def _retained(self, head: Checkpoint | None) -> set[int]:
        """Sizes of the heads that the auditor retained of this log."""
        if self.trust is None or steps.of_another_log(head, self.trust):
            return set()
        return {item.size for item in self.trust.heads}

    def _disclosures(self) -> Disclosures:
        try:
            return read_disclosures(bytes(self.members[DISCLOSURES]))
        except Malformed as error:
            self.ledger.refute("V12.disclosure", f"{DISCLOSURES} {error}")
            return Disclosures()
