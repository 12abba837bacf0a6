"""The back-test: what a policy would have said to payments that were made, from the journal or from a list.

From the journal every action is decided again in the state that it really had. A list of payments has no journal: it
runs through an empty one under a made-up mandate without limits, as if the gate had been there; what the policy denies
has no effect on what follows, what it asks about counts as approved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from countermark.audit.payments import Payment
from countermark.audit.preview import LISTED_MAX, deal, row_of
from countermark.audit.rebuild import Unseal
from countermark.audit.redecide import (
    Again,
    Pseudonym,
    Redecision,
    by_action,
    counting,
    start_of_last,
    unread,
)
from countermark.audit.rules import rules_of
from countermark.audit.sources import bundles_of
from countermark.audit.trial import ask_for
from countermark.audit.words import safe, when
from countermark.journal import SqliteStore
from countermark.model.clock import US
from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.model.tool import ArgClass
from countermark.model.values import EXECUTING
from countermark.policy import Bundle, DictKeys, Judgement, State, decided_body, judge

SYNTHETIC = "synthetic, for a back-test: nobody granted it"
_ORDER = ("allow", "flag", "escalate", "deny")
_TERMS: tuple[ArgClass, ...] = ("amount", "currency", "payee")
_FAR_US = 1 << 52


def backtest(
    store: SqliteStore, bundle: Bundle, pseudonymous: Pseudonym, *, last: int | None = None, since: int | None = None,
    unseal: Unseal | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The journal's own actions under ``bundle``, each in the state that the records before it make.

    Returns:
        ``{"source": "journal", "bundle", "zone", "payments", "others", "counts": {disposition: n}, "weekdays",
        "a_weekday": {disposition: tenths}, "from", "to", "listed": [row], "more", "partial", "assumed": [text]}``;
        ``from`` and ``to`` are microseconds, rows as in ``policy_diff``. Payments are actions with an amount.
    """
    with store.steady():
        start = 0 if last is None else start_of_last(store, last)
        again = Redecision(bundle, bundles_of(store), pseudonymous, unseal)
        found = again.run(
            store.records(), lambda r: r.seq >= start and counting(r) and (since is None or r.at >= since)
        )
        return {"source": "journal", **_Tally(bundle).of(by_action(found)).document(), "assumed": []}


def backtest_list(payments: Iterable[Payment], bundle: Bundle, pseudonymous: Pseudonym) -> dict[str, Any]:
    """A list of payments (``read_payments``) under ``bundle``; the same document, ``line`` in place of ``seq``."""
    world = _World(bundle, pseudonymous)
    tally = _Tally(bundle).of(world.run(payments))
    rows = tally.document()
    for row in rows["listed"]:
        row["line"] = world.line_of[row.pop("seq")]
        row["words"] = [world.by_line(text) for text in row["words"]]
        row["now"]["reasons"] = [world.by_line(text) for text in row["now"]["reasons"]]
        del row["was"]
    assumed = [
        f"the mandate is {SYNTHETIC}, and has no limits",
        "every allowed payment was confirmed at once; what is asked was approved; what is denied was not paid",
    ]
    return {"source": "list", **rows, "assumed": assumed}


class _Tally:
    """Counts and rows of decisions made again."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._rules = rules_of(bundle.document["compiled"])
        self._counts: Counter[str] = Counter()
        self._listed: list[dict[str, Any]] = []
        self._not_allowed = self._others = self._partial = 0
        self._span: tuple[int, int] | None = None

    def of(self, found: Iterable[Again]) -> _Tally:
        """Take everything in."""
        for one in found:
            at = one.record.at
            if one.record.body["terms"]["amount"] is None:
                self._others += 1
                continue
            first, last = (at, at) if self._span is None else self._span
            self._span = (min(first, at), max(last, at))
            self._partial += one.partial
            self._counts[one.judgement.disposition] += 1
            if one.judgement.disposition != "allow":
                self._not_allowed += 1
                if len(self._listed) < LISTED_MAX:
                    self._listed.append(row_of(one, self._rules, self._bundle))
        return self

    def document(self) -> dict[str, Any]:
        self._listed.sort(key=lambda row: row["seq"])
        zone = self._bundle.compiled.zone
        days = 0 if self._span is None else weekdays(*self._span, zone)
        counts = {name: self._counts[name] for name in _ORDER}
        return {
            "bundle": self._bundle.digest, "zone": zone, "payments": sum(counts.values()), "others": self._others,
            "counts": counts, "weekdays": days,
            "a_weekday": {name: _tenths(count, days) for name, count in counts.items()},
            "from": None if self._span is None else self._span[0], "to": None if self._span is None else self._span[1],
            "listed": self._listed, "more": self._not_allowed - len(self._listed), "partial": self._partial,
        }  # fmt: skip


def weekdays(first_us: int, last_us: int, zone: str) -> int:
    """Mondays to Fridays from one moment's day to another's, both included, in a zone; at least 1."""
    first, last = (
        datetime.fromtimestamp(at // US, UTC).astimezone(ZoneInfo(zone)).date() for at in (first_us, last_us)
    )
    whole, rest = divmod((last - first).days + 1, 7)
    days = (date.fromordinal(first.toordinal() + n) for n in range(rest))
    return max(1, 5 * whole + sum(day.isoweekday() <= 5 for day in days))


def _tenths(count: int, days: int) -> int:
    """A rate in tenths, rounded half up, in integers."""
    return (20 * count + days) // (2 * days) if days else 0


class _World:
    """A journal of nothing but made-up records, kept in memory, through which a list of payments runs."""

    def __init__(self, bundle: Bundle, pseudonymous: Pseudonym) -> None:
        self.line_of: dict[int, int] = {}
        self._bundle = bundle
        self._pseudonymous = pseudonymous
        self._state = State(DictKeys(), lambda _: bundle)
        self._seq = 0
        self._runs: set[str] = set()

    def by_line(self, text: str) -> str:
        """``seq:12`` or ``#12`` as the line of the list that it stands for."""
        for mark in ("seq:", "#"):
            number = text.removeprefix(mark)
            if number != text and number.isdecimal() and int(number) in self.line_of:
                return f"line {self.line_of[int(number)]}"
        return text

    def run(self, payments: Iterable[Payment]) -> Iterator[Again]:
        for payment in payments:
            if self._state.engine is None:
                self._put(
                    "policy.activated", payment.at, {"activation": {"bundle": self._bundle.digest, "activator": ""}}
                )
            run = self._run(payment)
            yield self._one(payment, run)

    def _put(self, kind: str, at: int, body: Mapping[str, Any]) -> Record:
        record = Record(self._seq, kind, at, "synthetic", body, "", {}, b"", f"synthetic:{self._seq}")
        self._state.apply(record, lambda: ())
        self._seq += 1
        return record

    def _run(self, payment: Payment) -> str:
        """A run for each agent and day, under the agent's made-up mandate."""
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=payment.at)).astimezone(
            ZoneInfo(self._bundle.compiled.zone)
        )
        mandate = f"synthetic:{payment.agent}"
        run = f"run_{payment.agent}_{day:%Y%m%d}"
        if mandate not in self._state.mandates:
            self._put("mandate.granted", payment.at, {"digest": mandate, "mandate": _mandate(payment.agent)})
        if run not in self._runs:
            self._runs.add(run)
            self._put("run.started", payment.at, {"run": run, "agent": payment.agent, "mandate": mandate,
                                                  "purpose": SYNTHETIC})  # fmt: skip
        return run

    def _one(self, payment: Payment, run: str) -> Again:
        self.line_of[self._seq] = payment.line
        try:
            if payment.agent not in self._bundle.compiled.agents:
                raise ArgumentError("the policy has no such agent", field=payment.agent, code="unknown_agent")
            ask = ask_for(
                self._bundle, agent=payment.agent, run=run, call_id=f"line-{payment.line}", tool_name=payment.tool,
                args=dict(payment.args), pseudonymous=self._pseudonymous,
            )  # fmt: skip
        except ArgumentError as error:
            judgement = Judgement("deny", "arguments", error.code, (error.field,))
            refused = _refused(payment, run, self._bundle, judgement)
            return Again(self._put("action.refused", payment.at, refused), judgement, refused)
        ask = ask._replace(tool=unread(ask.tool))
        judgement = judge(self._state, ask, payment.at)
        body = decided_body(
            ask, judgement, bundle=self._bundle.digest, not_after=payment.at, escalation=None, lifted=[]
        )
        if judgement.disposition == "deny":
            return Again(self._put("action.decided", payment.at, body), judgement, body)
        executed = body if judgement.disposition in EXECUTING else {**body, "disposition": "allow"}
        record = self._put("action.decided", payment.at, executed)
        self._put("action.settled", payment.at, {
            "intent": record.seq, "id": ask.id, "agent": ask.agent, "run": run, "tool": ask.tool.name,
            "terms": ask.terms, "outcome": "confirmed", "settled": None, "output": {}, "tier": "enforcing",
        })  # fmt: skip
        return Again(record, judgement, body)


def _mandate(agent: str) -> dict[str, Any]:
    return {
        "v": 1, "deployment": "", "parent": None, "principal": "synthetic", "agent": agent, "agent_key": None,
        "tools": ["*"], "payees": ["*"], "limits": [], "named": [], "purpose": SYNTHETIC, "not_before": -_FAR_US,
        "not_after": _FAR_US, "nonce": "",
    }  # fmt: skip


def _refused(payment: Payment, run: str, bundle: Bundle, judgement: Judgement) -> dict[str, Any]:
    """As much of a decision's body as rows show, for arguments that the tool would not take."""
    tool = bundle.compiled.tools[payment.tool]
    given = {class_: payment.args.get(spec.name) for class_ in _TERMS if (spec := tool.one(class_)) is not None}
    account, amount = given.get("payee"), given.get("amount", 0)
    return {
        "id": "", "agent": payment.agent, "run": run, "call_id": f"line-{payment.line}", "tool": payment.tool,
        "facts": {}, "args": {tool.by_name[name].alias: value for name, value in payment.args.items()},
        "disposition": judgement.disposition, "code": judgement.code, "reasons": list(judgement.reasons),
        "terms": {
            "amount": amount if type(amount) is int else 0, "currency": given.get("currency") or tool.currency,
            "payee": None if account is None else bundle.compiled.payee_by_account.get(str(account), "unknown"),
        },
    }  # fmt: skip


def summary(found: Mapping[str, Any]) -> str:
    """``412 payments: 389 allow, 21 escalate (1.6 a weekday), 2 deny``."""
    counts, rates = found["counts"], found["a_weekday"]
    said = [f"{counts['allow']:,} allow"]
    for name in _ORDER[1:]:
        if counts[name]:
            rate = f" ({rates[name] // 10}.{rates[name] % 10} a weekday)" if name in ("flag", "escalate") else ""
            said.append(f"{counts[name]:,} {name}{rate}")
    payments = found["payments"]
    return f"{payments:,} payment{'' if payments == 1 else 's'}: {', '.join(said)}"


def backtest_lines(found: Mapping[str, Any], shown_max: int = 200) -> list[str]:
    """The document for a terminal: the sentence, then each payment that would not simply pass."""
    lines = [summary(found)]
    if found["from"] is not None:
        span = f"{when(found['from'])} to {when(found['to'])}"
        lines.append(f"  {span}; {_weekdays(found['weekdays'])} in {found['zone']}; policy {found['bundle'][7:19]}")
    lines += [f"  assumed: {text}" for text in found["assumed"]]
    if found["others"]:
        lines.append(f"  {found['others']:,} other actions move no money and are not counted")
    if found["partial"]:
        lines.append(f"  of {found['partial']:,} not everything could be looked at again")
    lines += [_line(row) for row in found["listed"][:shown_max]]
    rest = len(found["listed"]) - min(len(found["listed"]), shown_max) + found["more"]
    return [*lines, f"  and {rest:,} more"] if rest else lines


def _weekdays(count: int) -> str:
    return f"{count:,} weekday{'' if count == 1 else 's'}"


def _line(row: Mapping[str, Any]) -> str:
    place = f"line {row['line']}" if "line" in row else f"#{row['seq']}"
    now = row["now"]["disposition"]
    was = f" (was {row['was']['disposition']})" if "was" in row and row["was"]["disposition"] != now else ""
    return f"  {now:<8}  {place:<8}  {when(row['at'])}  {deal(row)}: {safe('; '.join(row['words']))}{was}"
