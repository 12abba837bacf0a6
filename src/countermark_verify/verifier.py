"""`verify`: one pass over the records, every step in its order, one report."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countermark_verify import notes, steps
from countermark_verify.anchors import Anchors
from countermark_verify.authority import Authority
from countermark_verify.axes import derive_axes
from countermark_verify.canon import digest as digest_of
from countermark_verify.canon import value_of
from countermark_verify.certificate import Certificate, split
from countermark_verify.climbs import Climbs
from countermark_verify.container import DISCLOSURES, INDEX, POPULATION, open_pack
from countermark_verify.counts import Counts
from countermark_verify.decide import Decider
from countermark_verify.disclosures import Disclosures, read_disclosures
from countermark_verify.effects import Effects
from countermark_verify.envelope import parse_record, writer
from countermark_verify.epochs import Epochs, Presence
from countermark_verify.erasure import Erasures
from countermark_verify.errors import Malformed, Unreadable
from countermark_verify.extract import Extract, comparable, only_whole, verified
from countermark_verify.hindsight import Hindsight
from countermark_verify.identity import Identity
from countermark_verify.life import Life
from countermark_verify.manifest import Manifest
from countermark_verify.notes import Checkpoint
from countermark_verify.order import Order
from countermark_verify.payees import Payees
from countermark_verify.people import People
from countermark_verify.population import check_page
from countermark_verify.recomputed import BUDGET_TICKS
from countermark_verify.recorded import Recorded
from countermark_verify.report import ONLY, Finding, Ledger, Narrow, Report
from countermark_verify.rotation import MARK, Compromise, Rotations, reached, second_line
from countermark_verify.scope import scope_of
from countermark_verify.signed import Signed
from countermark_verify.stamps import Stamps
from countermark_verify.state import State
from countermark_verify.succession import Succession
from countermark_verify.tree import Tree, leaf_hash
from countermark_verify.trust import Trust
from countermark_verify.vouching import Voucher
from countermark_verify.wellformed import Shelf
from countermark_verify.witnessed import Witnessed
from countermark_verify.workers import Examiner
from countermark_verify.workflows import Workflows

# A log of which so much cannot be read is not read to its end.
UNREADABLE_MAX = 1_000
PROGRESS_RECORDS = 5_000
_COLLECTED = 500_000  # objects more than before, until somebody looks for cycles among them
_STREAMED = ("V04", "V05", "V06", "V09", "V10", "V11", "V12", "V13", "V14", "V19", "V21")
# What the steps V01 to V08 need folded: the log's keys and lanes, and the policy that names witnesses.
_OF_THE_LOG = frozenset(("gate.started", "policy.activated", "key.rotated", "lane.succeeded", "head.witnessed"))


Progress = Callable[[int], None]
# Seq and bytes of a record; when it was read and found in its order before, its digest, and what holds of it by itself.
Place = tuple[int, bytes, str, int]


def verify(
    pack: bytes | str | Path, trust: Trust | None = None, nodes: Mapping[int, Voucher] | None = None,
    progress: Progress | None = None, only: str | None = None, examiner: Examiner | None = None,
    ticks: int = BUDGET_TICKS, require: str | None = None,
) -> Report:  # fmt: skip
    """Check an evidence pack (its bytes, or the path of its file) against what the auditor trusts.

    `nodes`: by chain id, who is asked for blocks of that chain; without them nothing here uses a network.
    `progress` is told from time to time how many records were read.
    `only`: one of `report.ONLY`, whose steps are then the only ones. They can refute, and never verify.
    `examiner`: who looks at bundles of records ahead (`workers.py`); without one every record is read here, one by one.
    `ticks`: what executing pure steps again may take in all; what takes more is not executed, and leaves it incomplete.
    `require`: one of `report.REQUIRED`; a pack of which that cannot be said is incomplete.
    Never raises for what a pack contains: whatever is wrong with it is in the report. `WorkerError`: a process of the
    examiner ended.
    """
    ledger = Ledger() if only is None else Narrow(ONLY[only])
    try:
        members = open_pack(pack)
    except Unreadable as error:
        ledger.unreadable = True
        ledger.steps["V01"].status = "refuted"
        ledger.steps["V01"].findings.append(Finding(error.code, error.message))
        return ledger.report({}, {}, {"size": None, "root": None, "origin": None})
    ledger.ran("V01", len(members))
    with _seldom_collected():
        asked = nodes if nodes and only is None else {}
        return _Pass(ledger, members, trust, asked, progress, only, examiner, ticks, require).run()


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """What is kept of a log grows and holds no cycles: to look through it for some, again and again, finds nothing."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECTED, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _nothing(seq: int, record: dict[str, Any], digest: str) -> None:
    """A whole pack keeps no rows of its records."""


@dataclass
class _Pass:
    """One verification: the members, and what the steps hand to each other."""

    ledger: Ledger
    members: steps.Members
    trust: Trust | None
    nodes: Mapping[int, Voucher]
    progress: Progress | None = None
    only: str | None = None
    examiner: Examiner | None = None
    ticks: int = BUDGET_TICKS
    require: str | None = None
    deployment: str = ""  # that the head names
    log_keys: frozenset[str] = frozenset()  # the trusted ones, and those that rotated into them
    counts: Counts = field(init=False)
    compromise: Compromise = field(init=False)
    witnessed: Witnessed = field(init=False)
    unreadable: int = 0

    def run(self) -> Report:
        ledger = self.ledger
        size = steps.present_size(self.members)
        chosen = Extract(Ledger(), self.members, size) if INDEX in self.members else None
        raws = steps.entries(self.members, size, MARK) if chosen is None else (raw for _, raw in chosen.entries())
        heads = comparable(self.members, self.trust, whole=chosen is None)
        self.trust, self.log_keys = reached(self.trust, raws, heads)
        trust, self.compromise = self.trust, Compromise(ledger, self.trust, heads)
        manifest = steps.v02_manifest(ledger, self.members, trust)
        head = steps.v03_head(ledger, self.members, manifest, trust)
        size = head.size if head is not None else steps.present_size(self.members)
        self.deployment = head.origin.split("/")[1] if head is not None and head.origin.count("/") == 2 else ""
        tree = Tree(item.size for item in (*trust.heads, *trust.foreign)) if trust else Tree()
        scope = scope_of(manifest.predicate["scope"]) if manifest and "scope" in manifest.predicate else None
        extract = None if scope is None else Extract(ledger, self.members, size)
        epochs, presence = Epochs(ledger), None
        for step in _STREAMED:
            ledger.ran(step)
        zones = self._records(tree, size, manifest, head, epochs, extract)
        if scope is None or extract is None:
            steps.v05_tree(ledger, self.members, head, tree, size)
            only_whole(ledger, self.members)
            if self.only is None:
                epochs.whole(lambda: steps.entries(self.members, tree.size), tree, self.unreadable)
        else:
            extract.v05_tree(head)
            self.counts.extract = True
            if self.only is None:
                presence = Presence(ledger, epochs, scope, self.members, extract.rows)
                presence.check(zones, verified(head, trust))
        cosigned = steps.v08_witnesses(ledger, head, trust)
        if head is not None and trust is not None:
            second_line(ledger, head, trust)
            self.compromise.head(size, [key.text for key in trust.log_keys if notes.log_signed(head, key)])
        self.compromise.finish()
        if steps.of_another_log(head, trust):
            ledger.lack("V07.no_trust", "the heads of the trust file are those of another log")
        elif extract is not None:
            extract.v07_trusted_heads(head, trust, cosigned, {item.size: item.root for item in epochs.claims})
        else:
            reach = self.witnessed.reach.size if self.witnessed.reach is not None else 0
            steps.v07_trusted_heads(ledger, tree, size, trust, cosigned, reach)
        heads_agree = trust is not None and bool(trust.heads) and ledger.status("V07") == "ok"
        shown: dict[str, Any] = {"size": size, "root": None, "origin": None}
        if head is not None:
            shown |= {"root": steps.text64(head.root), "origin": head.origin}
        axes = derive_axes(ledger, self.counts, heads_agree, cosigned, self.witnessed.reach)
        if self.only is not None:  # the other axes and the counts would rest on steps that did not run
            return ledger.report({self.only: axes[self.only]}, {}, shown | {"only": self.only})
        if scope is not None and presence is not None:
            shown["scope"] = {**scope.document, "records": presence.records, "inside": presence.inside}
        self.counts.population.finish(ledger, self.members)
        check_page(ledger, self.members, shown, self.counts.as_dict(), self.counts.population)
        axes = derive_axes(ledger, self.counts, heads_agree, cosigned, self.witnessed.reach)
        return ledger.report(axes, self.counts.as_dict(), shown)

    def _records(
        self, tree: Tree, size: int, manifest: Manifest | None, head: Checkpoint | None, epochs: Epochs,
        extract: Extract | None,
    ) -> list[str]:  # fmt: skip
        """One pass: every step judges a record, then it is folded. Answers with the time zones of the policies."""
        ledger = self.ledger
        shelf = Shelf(ledger, self.members)
        state = State(shelf.bundles)
        disclosures = self._disclosures()
        whole, known, noted = (True, tree, _nothing) if extract is None else (False, None, extract.note)
        order, identity = Order(ledger, whole=whole), Identity(ledger, state, disclosures)
        life, signed = Life(ledger, state, self._retained(head) if whole else ()), Signed(ledger, state)
        whole_seen = None if whole else verified(head, self.trust)
        decider = Decider(ledger, state) if whole_seen is None else Recorded(ledger, state, whole_seen)
        self.counts = Counts(len(disclosures.fields), lines=POPULATION in self.members)
        authority = Authority(ledger, self.trust, state)
        erasures = Erasures(ledger, authority, state, identity, disclosures, order, whole_seen)
        self.witnessed = Witnessed(ledger, state, self.trust, known, self.compromise.add)
        succession = Succession(ledger, authority, state, head, self.trust, known)
        stamps = Stamps(ledger, state, self.trust, known, self.counts, self.compromise.add)
        anchors = Anchors(ledger, known, self.trust, self.counts, self.nodes)
        effects = Effects(ledger, state, self.trust, self.nodes)
        pinned = {chain.chain_id: chain.blocks for chain in self.trust.chains} if self.trust else {}
        workflows = Workflows(ledger, state, authority, disclosures, whole_seen, self.ticks, pinned)
        workflows.recomputed.required = self.require is not None
        checks: tuple[Callable[[int, dict[str, Any]], None], ...] = (
            authority.check, succession.check, Hindsight(ledger, authority, state, whole=whole).check, epochs.check,
            People(ledger, authority, state).check, Payees(ledger, authority, state).check,
            Rotations(ledger, authority, state).check, self.compromise.check, signed.check, life.check,
            Climbs(ledger, state).check, identity.check, erasures.check, decider.check, self.witnessed.check,
            stamps.check, self.counts.check, anchors.check, effects.check,
            workflows.check,
        )  # fmt: skip
        if self.only is not None:
            checks = (succession.check, self.witnessed.check)
        every = self._bundles(size, tree, order) if extract is None else self._chosen(extract)
        for position, record, digest, aside, raw in self._followed(every, order, life, succession, head, known):
            state.aside = aside if aside and self._of_force(record["body"], state) else 0
            state.raw = raw
            if record["kind"] == "policy.activated":
                shelf.activate(position, record["body"]["activation"]["bundle"])
            for check in checks:
                check(position, record)
            state.apply(record, digest)
            noted(position, record, digest)
        for part in (shelf, life, succession, identity, decider, erasures, stamps, anchors, workflows):
            part.finish()
        self.counts.finish(ledger, state, identity, manifest, erasures)
        self.counts.effects, self.counts.workflows = effects.levels, workflows
        self.counts.vouched, self.counts.asked, self.counts.proved = authority.listed(), signed.asked, signed.proved
        return [bundle.zone for bundle in shelf.bundles.values()]

    def _followed(
        self, entries: Iterator[Place], order: Order, life: Life, succession: Succession, head: Checkpoint | None,
        tree: Tree | None,
    ) -> Iterator[tuple[int, dict[str, Any], str, int, bytes]]:  # fmt: skip
        """What can be read and is to be judged, once it stands in its order: and what holds of it by itself."""
        for position, raw, digest, aside in entries:
            if digest:  # an examiner has read it, and it stands in its order
                record: dict[str, Any] | None = value_of(raw)
                order.newest = digest if self.only is None else order.newest
            else:
                digest, record = digest_of("record", raw), self._read(position, raw)
                if tree is not None:
                    tree.append(leaf_hash(raw))
                if record is not None:
                    order.check(position, record, digest)
            if record is None:
                order.unreadable(position, digest)
                life.unreadable()
                if self.unreadable == UNREADABLE_MAX:
                    break
                continue
            self._opening(position, record, head, succession)
            if self.only is None or record["kind"] in _OF_THE_LOG:
                yield position, record, digest, aside, raw

    def _read(self, position: int, raw: bytes) -> dict[str, Any] | None:
        """V04: a record and its writer; None when it cannot be read."""
        self.ledger.ran("V04", 1)
        try:
            record = parse_record(raw)
        except Malformed as error:
            self.ledger.refute("V04.record", f"the record {error}", position)
            self.unreadable += 1
            if self.unreadable == UNREADABLE_MAX:
                message = f"{self.unreadable} records cannot be read; the rest was not"
                self.ledger.refute("V04.record", message, position)
            return None
        return record

    def _of_force(self, body: Mapping[str, Any], state: State) -> bool:
        """Was the record looked at by itself as one of this deployment, under the bundle that is in force?"""
        same = state.bundle is not None and body.get("bundle", state.activated) == state.bundle.digest
        return same and state.deployment == self.deployment

    def _chosen(self, extract: Extract) -> Iterator[Place]:
        for place, raw in extract.entries():
            extract.add(place, raw)
            yield place, raw, "", 0

    def _bundles(self, size: int, tree: Tree, order: Order) -> Iterator[Place]:
        """Each record that has to be looked at; its digest where a certificate says all else of its form and order."""
        bundles = steps.bundles(self.members, size)
        examined: Iterator[Certificate | None] = iter(())
        if self.examiner is not None:
            policies = {name: bytes(data) for name, data in self.members.items() if name.startswith("policy/")}
            about = (self.deployment, policies) if self.only is None else None
            examined = self.examiner.examine((bundle[:3] for bundle in bundles), about)
        for first, width, data, name in bundles:
            certificate = next(examined, None)
            if self.progress is not None and (told := -(-first // PROGRESS_RECORDS) * PROGRESS_RECORDS) < first + width:
                self.progress(told)
            if certificate is not None and order.take(certificate):
                self.ledger.ran("V04", certificate.count)
                yield from self._certified(certificate, width, bytes(data), tree)
            elif not (yield from steps.bundle_entries(self.ledger, first, width, name, data)):
                return
        steps.missing(self.ledger, self.members, size)

    def _certified(self, certificate: Certificate, width: int, data: bytes, tree: Tree) -> Iterator[Place]:
        """Records of runs say nothing that the log itself depends on; the others are taken one by one."""
        if not certificate.kept:
            tree.extend(certificate.leaves, certificate.top)
        if self.only is not None and not certificate.kept:
            return
        kept, none = frozenset(certificate.kept), bytes(width)
        for offset, raw in enumerate(split(data, width) or ()):
            if kept:
                tree.append(certificate.leaf(offset))
            if self.only is None or offset in kept:
                yield certificate.first + offset, raw, certificate.digest(offset), (certificate.aside or none)[offset]

    def _opening(self, position: int, record: dict[str, Any], head: Checkpoint | None, succession: Succession) -> None:
        """Who wrote the record; seq 0 starts the gate, and the log is the one that the head names."""
        if record["by"] != (by := writer(record["kind"], record["body"])):
            self.ledger.refute("V04.record", f"the record is not by {by}", position, by, record["by"])
        if position == 0 and record["kind"] != "gate.started":
            self.ledger.refute("V04.record", "the first record is not gate.started", 0, "gate.started", record["kind"])
        if record["kind"] != "gate.started":
            return
        if (found := record["body"]["recovered"]) != record["seq"]:
            self.ledger.refute("V03.mismatch", "the gate found another log than this one", position, position, found)
        if head is not None and not succession.precedes(record["lane"]):
            origin = f"countermark/{record['body']['deployment']}/{record['lane']}"
            keys = self.log_keys
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
