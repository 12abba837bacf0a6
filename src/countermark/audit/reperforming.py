"""Re-performance: every recorded decision is made again from the records before it, and compared field by field.

Nothing recorded is believed: identities, digests, order, facts, budgets, verdicts, approvals and outcomes are derived
anew by the code that decides, and each difference is named with the record, what differs, and both values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from countermark.audit.asked import Asked
from countermark.audit.epochs import Epochs
from countermark.audit.follow import Follow
from countermark.audit.life import Life
from countermark.audit.order import Order
from countermark.audit.payees import Accounts, Payees
from countermark.audit.rebuild import is_decided, request_of
from countermark.audit.restored import Restored
from countermark.model.clock import US
from countermark.model.digest import ACTION, PROVIDER_KEY, digest_of_fitting
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.records import Record
from countermark.model.tool import ToolSpec
from countermark.model.values import EXECUTING, action_id
from countermark.policy import (
    Bundle,
    DictKeys,
    Escalation,
    Judgement,
    State,
    ask_of,
    compile_bundle,
    judge,
    normal,
    obligation_of,
)

MISMATCHES_MAX = 1_000  # kept; the rest is counted
_DAMAGE = (CountermarkError, KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
_FOLDED = ("action.decided", "action.settled")  # what a new fact definition is backfilled from

Drafts = Mapping[str, Sequence[ToolSpec]]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A record says something else than what follows from the records before it.

    ``what`` is a path in the record (``facts.spent_day``, ``reasons``, ``streams``); ``expected`` is what was derived,
    ``actual`` what is recorded.
    """

    seq: int
    what: str
    expected: Any
    actual: Any

    def __str__(self) -> str:
        return f"#{self.seq} {self.what}: expected {self.expected!r}, recorded {self.actual!r}"


@dataclass(slots=True)
class Report:
    """What was made again, and where it differs. ``stopped`` is the seq of a record that could not be read on.

    ``erased``: subject -> values that were erased since: what they were is not made again, and the records say by whom.
    ``waived`` counts what the policy would have refused or asked about, and was done since it only monitors the tool.
    """

    records: int = 0
    decisions: int = 0
    facts: int = 0
    budgets: int = 0
    requests: int = 0
    bundles: int = 0
    recompiled: int = 0
    waived: int = 0
    erased: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    stopped: int | None = None
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything recorded is what follows."""
        return self.counted == 0

    def document(self) -> dict[str, Any]:
        """JSON form, for ``--json``."""
        return {
            "ok": self.ok, "records": self.records, "decisions": self.decisions, "facts": self.facts,
            "budgets": self.budgets, "requests": self.requests, "bundles": self.bundles,
            "recompiled": self.recompiled, "waived": self.waived, "erased": self.erased,
            "mismatches": self.counted, "stopped": self.stopped,
            "found": [
                {"seq": m.seq, "what": m.what, "expected": m.expected, "actual": m.actual} for m in self.mismatches
            ],
        }  # fmt: skip


def reperform(
    records: Iterable[Record],
    bundle_of: Callable[[str], Bundle],
    drafts: Drafts | None = None,
    history: Callable[[int], Iterable[Record]] | None = None,
) -> Report:
    """Make every decision of a lane again.

    Args:
        records: all records from seq 0, in order.
        bundle_of: bundle by digest; raises ``KeyError`` for one that is not there.
        drafts: the connectors' tools; with them each bundle's sources are compiled again and compared.
        history: records before a seq, for bundles that define new facts; without it they are kept in memory.
    """
    return _Reperformance(bundle_of, drafts, history).run(records)


class _Reperformance:
    """One pass over the records: check each against the state so far, then fold it."""

    def __init__(
        self,
        bundle_of: Callable[[str], Bundle],
        drafts: Drafts | None,
        history: Callable[[int], Iterable[Record]] | None,
    ) -> None:
        self.report = Report()
        self.state = State(DictKeys(), bundle_of)
        self._drafts = drafts
        self._history = history
        self._past: list[Record] = []
        self._named_of: dict[str, str] = {}
        self._value_of: dict[str, str] = {}
        self._seq = 0
        self._order = Order(self._differs)
        self._follow = Follow(self.state, self._differs)
        self._life = Life(self.state, self._differs)
        self._restored = Restored(self.state, self._differs, history)
        self._asked = Asked(self.state, self._differs)
        self._payees = Payees(self.state, Accounts(), self._differs)
        self._epochs = Epochs(self.state, self._differs)

    def run(self, records: Iterable[Record]) -> Report:
        for record in records:
            self._seq = record.seq
            try:
                self._order.check(record, self.state)
                self._follow.check(record)
                self._restored.check(record)
                self._asked.check(record)
                self._payees.check(record)
                self._epochs.check(record)
                self._check(record)
                self.state.apply(record, self._earlier)
            except _DAMAGE as error:
                self._differs("record", "one that can be folded", f"{type(error).__name__}: {error}"[:300])
                self.report.stopped = record.seq
                return self.report
            if self._history is None and record.kind in _FOLDED:
                self._past.append(record)
            self.report.records += 1
        self._follow.end()
        self._restored.end()
        self._life.end()
        self._again(records)
        self.report.erased = self._life.erasing.values
        return self.report

    def _again(self, records: Iterable[Record]) -> None:
        """Epochs need the records a second time: from the history, or where they are all in memory."""
        if self._history is not None:
            self._epochs.end(self._history)
        elif isinstance(records, Sequence):
            self._epochs.end(lambda stop: records[:stop])

    def _earlier(self) -> Iterable[Record]:
        return self._past if self._history is None else self._history(self._seq)

    def _differs(self, what: str, expected: Any, actual: Any, seq: int | None = None) -> None:
        """Record a difference; equal values are none."""
        if expected == actual:
            return
        self.report.counted += 1
        if len(self.report.mismatches) < MISMATCHES_MAX:
            self.report.mismatches.append(Mismatch(self._seq if seq is None else seq, what, expected, actual))

    def _check(self, record: Record) -> None:
        if record.kind == "action.decided":
            self._life.passed(record)
            self._decided(record)
        else:
            self._life.check(record)
            if record.kind == "policy.activated":
                self._recompile(record)

    def _recompile(self, record: Record) -> None:
        """The compiled part is a pure function of the sources and the connectors' drafts."""
        self.report.bundles += 1
        if self._drafts is None:
            return
        document = self.state.bundle_of(record.body["activation"]["bundle"]).document
        try:
            again = compile_bundle(tuple((path, text) for path, text in document["source"]), self._drafts)
        except CountermarkError as error:
            self._differs("source", "sources that compile", str(error)[:300])
            return
        self.report.recompiled += 1
        for member, value in again.document["compiled"].items():
            self._differs(f"compiled.{member}", value, document["compiled"].get(member))

    def _decided(self, record: Record) -> None:
        body, state = record.body, self.state
        self.report.decisions += 1
        self.report.waived += body["stage"] == "monitor" and body["disposition"] == "allow"
        bundle = state.bundle
        tool = None if bundle is None else bundle.compiled.tools.get(body["tool"])
        run = state.runs.get(body["run"])
        self._differs("bundle", None if bundle is None else bundle.digest, body["bundle"])
        if bundle is None or tool is None:
            self._differs("tool", "a tool of the bundle in force", body["tool"])
            return
        if run is None or run.agent != body["agent"]:
            self._differs("run", f"an open run of {body['agent']}", body["run"])
            return
        parked = self._parked(body)
        # An approved action is decided again as it was asked: its terms are those of the policy that people saw.
        asked = bundle if parked is None else self.state.bundle_of(parked.body["bundle"])
        declared = asked.compiled.tools[body["tool"]]
        self._identity(body)
        self._arguments(body, declared)
        self._terms(body, declared, asked)
        self._payees.reference(body, tool, parked)
        judgement = judge(state, ask_of(body, tool), record.at, parked)
        self._compare(body, judgement, declared)
        lifts = parked is not None and judgement.disposition in EXECUTING
        lifted = sorted({pid for ids in parked.body["ladders"].values() for pid in ids}) if lifts and parked else []
        self._differs("lifted", lifted, body["lifted"])
        self._differs("not_after", record.at + tool.dispatch_within_s * US, body["not_after"])
        self._life.decided(record, judgement)

    def _parked(self, body: Mapping[str, Any]) -> Escalation | None:
        """The escalation behind a decision after an approval; a first decision takes a fresh identity."""
        name = body["escalation"]
        if name is None:
            self._differs("id", None, self.state.keys.get("id:" + body["id"]))
            return None
        parked = self.state.parked.get(name)
        if parked is None:
            self._differs("escalation", "one that waits", name)
            return None
        self._differs("escalation.state", "approved", parked.state)
        for member in ("id", "agent", "run", "terms"):
            self._differs(member, parked.body[member], body[member])
        return parked

    def _identity(self, body: Mapping[str, Any]) -> None:
        agent, run, call_id, tool = body["agent"], body["run"], body["call_id"], body["tool"]
        self._differs("id", action_id(agent, run, call_id), body["id"])
        action = digest_of_fitting(ACTION, {"run": run, "call_id": call_id, "tool": tool, "args": body["args"]})
        self._differs("action", action, body["action"])
        key = "cm_" + digest_of_fitting(PROVIDER_KEY, [self.state.deployment, agent, run, call_id, action])[7:55]
        self._differs("key", key, body["key"])

    def _arguments(self, body: Mapping[str, Any], tool: ToolSpec) -> None:
        """Every required argument, no unknown one, and clear values that fit, by the code that the gate refuses with.

        What a sensitive argument holds is not in the records; that it is sealed is compared with the terms.
        """
        args, specs = body["args"], tool.by_alias
        for alias, value in args.items():
            spec = specs.get(alias)
            if spec is None:
                self._differs(f"args.{alias}", f"no argument of {tool.name}", value)
            elif type(value) is not dict:
                try:
                    spec.check(value)
                except ArgumentError as error:
                    self._differs(f"args.{alias}", f"a value that fits: {error.message}", value)
        for spec in tool.args:
            if spec.required and spec.alias not in args:
                self._differs(f"args.{spec.alias}", "a required argument", None)

    def _terms(self, body: Mapping[str, Any], tool: ToolSpec, bundle: Bundle) -> None:
        """Terms, obligation and request follow from the arguments as far as these stand clear."""
        args, terms = body["args"], body["terms"]
        clear = {alias: value for alias, value in args.items() if type(value) is not dict}
        if tool.has_sensitive or len(clear) < len(args):
            self._differs("args", sorted(arg.alias for arg in tool.args if arg.sensitive and arg.alias in args),
                          sorted(args.keys() - clear.keys()))  # fmt: skip
        if (body["salt"] is None) != (len(clear) < len(args)):
            self._differs("salt", "null exactly when an argument is sealed", body["salt"])
        amount, currency, payee = tool.one("amount"), tool.one("currency"), tool.one("payee")
        if amount is None or amount.alias not in args:
            self._differs("terms.amount", None, terms["amount"])
            self._differs("terms.currency", None, terms["currency"])
        elif amount.alias in clear:
            self._differs("terms.amount", amount.counted(clear[amount.alias]), terms["amount"])
            code = tool.currency if currency is None or currency.alias not in args else clear.get(currency.alias)
            if code is not None:
                self._differs("terms.currency", code, terms["currency"])
        self._movable(terms, tool, bundle)
        if payee is None or payee.alias not in args:
            self._differs("terms.payee", None, terms["payee"])
        elif payee.alias in clear and body["escalation"] is None:  # later on the terms stay those that people saw
            self._differs("terms.payee", self._payees.payee(str(clear[payee.alias]), terms["payee"]), terms["payee"])
        if not any(name in args and name not in clear for name in tool.once_per):
            self._differs("obligation", _obligation(tool, terms, clear), body["obligation"])
        if len(clear) == len(args):
            found = request_of(body, tool)
            self.report.requests += 1
            if found is None or not is_decided(body, found[0]):
                self._differs("request", "the request of these arguments", body["request"])

    def _movable(self, terms: Mapping[str, Any], tool: ToolSpec, bundle: Bundle) -> None:
        """Money moves as an amount in a currency of the bundle: also where the arguments are sealed."""
        if terms["amount"] is None:
            if tool.class_ == "money":
                self._differs("terms.amount", "an amount, since the tool moves money", None)
        elif type(terms["amount"]) is not int:
            self._differs("terms.amount", "an integer", terms["amount"])
        elif terms["currency"] not in bundle.compiled.currencies:
            self._differs("terms.currency", f"one of {', '.join(bundle.compiled.currencies)}", terms["currency"])

    def _compare(self, body: Mapping[str, Any], judgement: Judgement, declared: ToolSpec) -> None:
        facts, recorded = judgement.facts or {}, body["facts"]
        self.report.facts += len(recorded)
        if facts != recorded:
            for name in sorted(facts.keys() | recorded.keys()):
                self._differs(f"facts.{name}", facts.get(name), recorded.get(name))
        self.report.budgets += len(body["budgets"])
        self._differs("budgets", [list(row) for row in judgement.budgets], body["budgets"])
        self._differs("mandates", list(judgement.mandates), body["mandates"])
        self._differs("disposition", judgement.disposition, body["disposition"])
        self._differs("stage", judgement.stage, body["stage"])
        self._differs("code", judgement.code, body["code"])
        self._differs("reasons", list(judgement.reasons), body["reasons"])
        mandate = self.state.mandates.get(judgement.mandates[0]) if judgement.mandates else None
        wanted = sorted(body["args"]) if mandate is not None and mandate["named"] else []
        wanted = [alias for alias in wanted if declared.by_alias[alias].type != "boolean"]
        self._differs("named", wanted, sorted(body["named"]))
        for alias, pseudonym in body["named"].items():
            value = body["args"].get(alias)
            if value is not None and type(value) is not dict:
                self._named(alias, normal(value), pseudonym)

    def _named(self, alias: str, value: str, pseudonym: str) -> None:
        """One pseudonym for each value, and one value for each pseudonym: their key is not here."""
        known = self._named_of.setdefault(value, pseudonym)
        if known != pseudonym:
            self._differs(f"named.{alias}", known, pseudonym)
        elif self._value_of.setdefault(pseudonym, value) != value:
            self._differs(f"named.{alias}", "a pseudonym of its own", pseudonym)


def _obligation(tool: ToolSpec, terms: Mapping[str, Any], clear: Mapping[str, Any]) -> str | None:
    """The business key; an argument that can be in none is a difference, and no reason to stop."""
    try:
        return obligation_of(tool, terms, clear, _no_pseudonym)
    except ArgumentError as error:
        return error.message


def _no_pseudonym(kind: str, value: str) -> str:
    raise CountermarkError("a sensitive part of a business key stands in the clear", code="bad_encoding")
