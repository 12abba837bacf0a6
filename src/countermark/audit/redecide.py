"""Past actions decided again under another policy, each in the state that the records before it make.

History stays what it was: what was paid then has been paid, what people refused stays refused. Only the policy is
another one, from the first record on, with its facts. Everything is decided by the gate's own pure code. Three views
stand on this one pass: what a draft changes (``changes``), the back-test, and paths against a rule written later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from countermark.audit.rebuild import Unseal, opened
from countermark.journal import SqliteStore
from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import EXECUTING
from countermark.policy import (
    Ask,
    Bundle,
    DictKeys,
    Judgement,
    State,
    ask_of,
    decided_body,
    judge,
    obligation_of,
)

Pseudonym = Callable[[str, str], str]
Wanted = Callable[[Record], bool]

_HIDDEN = {"$sd": "sha256:" + "0" * 64}  # stands for a sensitive value: no rule can read it
_DECIDED = b'"kind":"action.decided"'
_FIRST = b'"escalation":null'
_BLOCK = 4_096


@lru_cache(maxsize=64)
def unread(tool: ToolSpec) -> ToolSpec:
    """The tool as if nobody looked at what stands behind its arguments: past actions cannot be looked at again."""
    return replace(tool, resolve="")


@dataclass(frozen=True, slots=True)
class Again:
    """A recorded decision and what the other policy says in its place.

    ``body`` is the ``action.decided`` body that would have been recorded, terms and obligation as the other policy
    sees them. ``partial``: something could not be looked at again: a sensitive value that was not opened, or what stood
    behind an argument, where nobody read it then.
    """

    record: Record
    judgement: Judgement
    body: Mapping[str, Any]
    partial: bool = False


def is_first(record: Record) -> bool:
    """Whether this is the first decision about its action; a later one follows an approval."""
    return record.kind == "action.decided" and record.body["escalation"] is None


class Redecision:
    """One pass over all records of a lane. ``state`` is what they make when ``bundle`` was always in force."""

    def __init__(
        self, bundle: Bundle, bundle_of: Callable[[str], Bundle], pseudonymous: Pseudonym, unseal: Unseal | None = None
    ) -> None:
        self.bundle = bundle
        self.state = State(DictKeys(), lambda _: bundle)
        self._bundle_of = bundle_of
        self._pseudonymous = pseudonymous
        self._unseal = unseal
        self._alike = cache(self._is_alike)

    def run(self, records: Iterable[Record], wanted: Wanted = is_first) -> Iterator[Again]:
        """Fold every record from seq 0 on; decide those again that are ``wanted`` (deciding records only)."""
        for record in records:
            if record.kind == "action.decided":
                ask, refused, partial = self.asked(record)
                if wanted(record):
                    yield self._again(record, ask, refused, partial)
                if ask is not None:
                    changed = {"terms": ask.terms, "obligation": ask.obligation, "args": ask.args}
                    record = record._replace(body={**record.body, **changed})
            self._forgive(record)
            if record.kind != "policy.activated" or self.state.engine is None:
                self.state.apply(record, lambda: ())

    def _forgive(self, record: Record) -> None:
        """Before anybody was asked to witness, nobody can have been: only then is nothing too old."""
        if record.kind == "policy.activated":
            asked = self._bundle_of(record.body["activation"]["bundle"]).compiled.witness
            self.state.unwitnessed = asked is None

    def _again(self, record: Record, ask: Ask | None, refused: Judgement | None, partial: bool) -> Again:
        if ask is None or refused is not None:
            verdict = refused or Judgement("deny", "arguments", "bad_argument")
            return Again(record, verdict, {**record.body, **_said(verdict)}, partial)
        if ask.run not in self.state.runs:
            return Again(record, Judgement("deny", "mandate", "unknown_run"), record.body, partial)
        return self.judged(record, ask, record.at, partial)

    def judged(self, record: Record, ask: Ask, at: int, partial: bool = False) -> Again:
        """What the policy says about an ask now, in the state so far."""
        judgement = judge(self.state, ask, at)
        body = decided_body(ask, judgement, bundle=self.bundle.digest, not_after=at, escalation=None, lifted=[])
        return Again(record, judgement, body, partial)

    def asked(self, record: Record) -> tuple[Ask | None, Judgement | None, bool]:
        """The recorded action as this policy would have read it, or why it would not; whether values are missing."""
        body = record.body
        tool = self.bundle.compiled.tools.get(body["tool"])
        if tool is None:
            return None, Judgement("deny", "arguments", "unknown_tool", (body["tool"],)), False
        if body["agent"] not in self.bundle.compiled.agents:
            return ask_of(body, tool), Judgement("deny", "arguments", "unknown_agent", (body["agent"],)), False
        blind = bool(tool.resolve) and "reference" not in body
        tool = unread(tool) if blind else tool
        if self._alike(body["bundle"], tool.name):
            return ask_of(body, tool), None, blind
        hidden = any(type(value) is dict for value in body["args"].values())
        sealed = self._unseal(record.seq) if hidden and self._unseal is not None else None
        values = {alias: value for alias, value in body["args"].items() if type(value) is not dict}
        values |= {alias: value for alias, value in opened(body, sealed).items() if alias in body["args"]}
        partial = len(values) < len(body["args"])
        try:
            return self._read_again(body, tool, values, partial), None, partial or blind
        except ArgumentError as error:
            refused = Judgement("deny", "arguments", error.code, (error.field or body["tool"],))
            return ask_of(body, tool), refused, partial or blind

    def _is_alike(self, digest: str, name: str) -> bool:
        """Whether the policy that decided read this tool's arguments, payees and currencies exactly as this one."""
        if digest == self.bundle.digest:
            return True
        then, now = self._bundle_of(digest).compiled, self.bundle.compiled
        before, after = then.tools[name], now.tools[name]
        return (
            (before.args, before.once_per, before.once_scope, before.currency)
            == (after.args, after.once_per, after.once_scope, after.currency)
            and then.payee_by_account == now.payee_by_account
            and then.currencies == now.currencies
        )

    def _read_again(self, body: Mapping[str, Any], tool: ToolSpec, values: Mapping[str, Value], partial: bool) -> Ask:
        """The ask with this policy's aliases, terms and business key. Raises ``ArgumentError``."""
        then = self._bundle_of(body["bundle"]).compiled
        before = then.tools[body["tool"]]
        named = {before.by_alias[alias].name: value for alias, value in values.items()}
        if partial:
            decoded = {name: value for name, value in named.items() if name in tool.by_name}
        else:
            decoded = tool.decode(named)
        plain = {tool.by_name[name].alias: value for name, value in decoded.items()}
        terms = self._terms(body, tool, decoded, then)
        clear = {alias: value for alias, value in plain.items() if not tool.by_alias[alias].sensitive}
        obligation = body["obligation"] if partial else obligation_of(tool, terms, plain, self._pseudonymous)
        return ask_of(body, tool)._replace(
            args={**{alias: _HIDDEN for alias in plain if alias not in clear}, **clear}, clear=clear, terms=terms,
            obligation=obligation,
        )  # fmt: skip

    def _terms(self, body: Mapping[str, Any], tool: ToolSpec, args: Mapping[str, Value], then: Any) -> dict[str, Any]:
        """Amount, currency and payee as this policy names them; what cannot be read stays as it was recorded."""
        terms: dict[str, Any] = dict(body["terms"])
        amount, currency, payee = tool.one("amount"), tool.one("currency"), tool.one("payee")
        if amount is not None:
            terms["amount"] = amount.counted(args[amount.name]) if amount.name in args else terms["amount"]
            given = None if currency is None else args.get(currency.name)
            terms["currency"] = given or tool.currency or terms["currency"]
            self.bundle.compiled.check_currency(terms["currency"])
        if payee is not None and payee.name in args:
            account = str(args[payee.name])
            known = self.state.register.known.by_account.get(account)
            if known is not None:
                terms["payee"] = known
            elif account in then.payee_by_account:  # a payee of the policy of that time, and of this one no more
                terms["payee"] = "p:" + self._pseudonymous("payee", account)
        return terms


def counting(record: Record) -> bool:
    """What ``by_action`` looks at: the first decision about an action, and the one that carried it out."""
    if record.kind != "action.decided":
        return False
    return record.body["escalation"] is None or record.body["disposition"] in EXECUTING


def by_action(found: Iterable[Again]) -> Iterator[Again]:
    """One decision for each action, of decisions that are ``counting``: the first, in whose place stands the one after
    an approval when the policy then has something against it that it did not have when people were asked.
    """
    asked: dict[str, Again] = {}
    for one in found:
        body = one.record.body
        if body["escalation"] is None:
            if body["disposition"] == "escalate":
                asked[body["id"]] = one
            else:
                yield one
            continue
        first = asked.pop(body["id"], None)
        stopped = one.judgement.disposition in ("escalate", "deny")
        known = body["lifted"] if first is None else first.judgement.reasons
        if stopped and set(one.judgement.reasons) - set(known):
            yield one
        elif first is not None:  # else people were asked before the decisions that are looked at
            yield first
    yield from asked.values()


def _said(judgement: Judgement) -> dict[str, Any]:
    return {
        "disposition": judgement.disposition, "stage": judgement.stage, "code": judgement.code,
        "reasons": list(judgement.reasons), "facts": {},
    }  # fmt: skip


def start_of_last(store: SqliteStore, count: int) -> int:
    """The seq from which on there are at most ``count`` first decisions, read from the end of the journal."""
    stop = store.size()
    left = count
    while stop > 0 and left > 0:
        start = max(0, stop - _BLOCK)
        found = [seq for seq, raw in store.raw(start, stop) if _DECIDED in raw and _FIRST in raw]
        if len(found) >= left:
            return found[len(found) - left]
        left -= len(found)
        stop = start
    return stop if count > 0 else store.size()
