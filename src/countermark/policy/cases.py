"""``tests/*.toml``: an action, what happened before it, and the decision that the policy should give.

A case runs the stages `facts` and `policy`; mandates, kills and business keys are not policy and are tested elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args
from zoneinfo import ZoneInfo

from countermark.facts import FactMachine, MissingFactError, subject_of
from countermark.model.clock import US
from countermark.model.errors import ArgumentError, PolicyError
from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Disposition
from countermark.model.words import nearest
from countermark.policy.bundle import Bundle
from countermark.policy.engine import Engine, Verdict
from countermark.policy.findings import Findings
from countermark.policy.hours import local_day, local_time
from countermark.policy.toml import Source, Table

CASES_MAX = 1_000
HISTORY_MAX = 200
FOLDER = "tests/"

_DISPOSITIONS: tuple[str, ...] = get_args(Disposition)
_OUTCOMES = ("confirmed", "failed", "unknown")
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}")
_AT_DEFAULT = "2026-03-03 10:00"  # a Tuesday
_RUN = "run_" + "0" * 32


@dataclass(frozen=True, slots=True)
class Step:
    """An earlier action of a case. ``ago_s`` seconds before the case's own."""

    agent: str
    tool: str
    args: Mapping[str, Any]
    ago_s: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation. ``at`` is local time in the bundle's zone; ``reasons`` None means: any."""

    file: str
    line: int
    name: str
    agent: str
    tool: str
    args: Mapping[str, Any]
    at: str
    instructed: tuple[str, ...]
    history: tuple[Step, ...]
    expect: str
    reasons: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of a case. ``verdict`` is what the policy says now."""

    case: Case
    verdict: Verdict

    @property
    def passed(self) -> bool:
        case = self.case
        return self.verdict.disposition == case.expect and case.reasons in (None, self.verdict.reasons)

    def __str__(self) -> str:
        case, verdict = self.case, self.verdict
        place = f"{case.file}:{case.line}: {case.name}"
        if self.passed:
            return f"{place}: {verdict.disposition}"
        wanted = case.expect if case.reasons is None else f"{case.expect} by {', '.join(case.reasons) or 'nothing'}"
        got = f"{verdict.disposition} ({verdict.code}) by {', '.join(verdict.reasons) or 'nothing'}"
        return f"{place}: expected {wanted}, got {got}"


def read_cases(source: Source, tools: Mapping[str, ToolSpec], agents: Mapping[str, Any]) -> list[Case]:
    """The cases of one file; what is wrong goes to the source's findings."""
    root = source.root()
    root.only("case")
    cases = [_case(table, tools, agents) for table in root.array("case")]
    if len(cases) > CASES_MAX:
        root.error("case", "too_many", f"more than {CASES_MAX} cases in one file")
    return cases


def _case(table: Table, tools: Mapping[str, ToolSpec], agents: Mapping[str, Any]) -> Case:
    table.only("name", "agent", "tool", "args", "at", "instructed", "history", "expect", "reasons")
    agent = _agent(table, agents)
    history = tuple(_step(step, agent, tools, agents) for step in table.array("history"))
    if len(history) > HISTORY_MAX:
        table.error("history", "too_many", f"more than {HISTORY_MAX} earlier actions")
    return Case(
        table.source.file,
        table.line,
        table.text("name"),
        agent,
        _tool(table, tools),
        table.table("args").value,
        _local(table),
        tuple(sorted(table.texts("instructed", ()))),
        history,
        table.choice("expect", _DISPOSITIONS),
        tuple(sorted(table.texts("reasons"))) if "reasons" in table else None,
    )


def _local(table: Table) -> str:
    text = table.text("at", _AT_DEFAULT, form=_AT, form_hint="Write local time, like 2026-03-03 10:00.")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        table.error("at", "bad_value", f"there is no such time: {text}")
        return _AT_DEFAULT
    return text


def _agent(table: Table, agents: Mapping[str, Any], default: str = "") -> str:
    agent = table.text("agent", default or next(iter(sorted(agents)), ""))
    if agent not in agents:
        table.error("agent", "unknown_agent", f"there is no agent {agent!r}", nearest(agent, agents))
    return agent


def _tool(table: Table, tools: Mapping[str, ToolSpec]) -> str:
    name = table.text("tool")
    if name and name not in tools:
        table.error("tool", "unknown_tool", f"there is no tool {name!r}", nearest(name, tools))
    return name


def _step(table: Table, agent: str, tools: Mapping[str, ToolSpec], agents: Mapping[str, Any]) -> Step:
    table.only("agent", "tool", "args", "ago", "outcome")
    return Step(
        _agent(table, agents, agent),
        _tool(table, tools),
        table.table("args").value,
        table.duration_s("ago"),
        table.choice("outcome", _OUTCOMES, "confirmed"),
    )


def run_cases(bundle: Bundle) -> tuple[CaseResult, ...]:
    """Run every case of a bundle's own tests against it.

    Raises:
        PolicyError: a test file of the bundle is not one.
    """
    findings = Findings()
    engine = Engine(bundle)
    compiled = bundle.compiled
    results: list[CaseResult] = []
    for path, text in bundle.document["source"]:
        if path.startswith(FOLDER):
            for case in read_cases(Source(path, text, findings), compiled.tools, compiled.agents):
                results.append(CaseResult(case, _run(engine, case)))
    findings.refuse()
    return tuple(results)


def _run(engine: Engine, case: Case) -> Verdict:
    compiled = engine.bundle.compiled
    tool = compiled.tools.get(case.tool)
    if tool is None:
        return Verdict("deny", "unknown_tool")
    at = int(datetime.fromisoformat(case.at).replace(tzinfo=ZoneInfo(compiled.zone)).astimezone(UTC).timestamp()) * US
    machine = FactMachine(compiled.facts)
    _fold(engine.bundle, machine, case, at)
    try:
        body = _body(engine.bundle, tool, case.agent, case.args, "allow")
        facts = machine.compute(subject_of(body), (), at, tool.facts)
    except ArgumentError as error:
        return Verdict("deny", error.code, (error.field,))
    except MissingFactError as error:
        return Verdict("deny", error.code, (error.fact,))
    facts["payee_known"] = body["terms"]["payee"] in compiled.payees
    facts["local_minute"], facts["local_weekday"] = local_time(at, compiled.zone)
    if "facts.local_day" in tool.reads:
        facts["local_day"] = local_day(at, compiled.zone)
    facts["instructed"] = list(case.instructed)
    clear = {alias: value for alias, value in body["args"].items() if type(value) is not dict}
    return engine.decide(
        tool.name, case.agent, body["terms"]["payee"], engine.context(tool, body["terms"], clear, facts)
    )


def _fold(bundle: Bundle, machine: FactMachine, case: Case, at: int) -> None:
    """Apply the case's history in order of time: each action's intent, and its outcome in the same moment."""
    for seq, step in enumerate(sorted(case.history, key=lambda step: -step.ago_s)):
        tool = bundle.compiled.tools.get(step.tool)
        if tool is None:
            continue
        try:
            body = _body(bundle, tool, step.agent, step.args, "allow")
        except ArgumentError as error:
            raise PolicyError(f"{case.file}:{case.line}: history of {case.name!r}: {error.message}") from None
        moment = at - step.ago_s * US
        outcome = {
            "intent": 2 * seq, "id": f"act_{seq}", "tool": tool.name, "terms": body["terms"], "outcome": step.outcome,
            "settled": None, "output": {}, "tier": "enforcing",
        }  # fmt: skip
        for number, kind, content in ((2 * seq, "action.decided", body), (2 * seq + 1, "action.settled", outcome)):
            machine.apply(Record(number, kind, moment, "gate", content, "", {}, b"", ""))


def _body(bundle: Bundle, tool: ToolSpec, agent: str, args: Mapping[str, Any], disposition: str) -> dict[str, Any]:
    """As much of an ``action.decided`` body as facts and policies look at. Raises ``ArgumentError``."""
    plain = tool.decode(dict(args))
    amount, currency, payee = tool.one("amount"), tool.one("currency"), tool.one("payee")
    terms: dict[str, Value | None] = {"amount": None, "currency": None, "payee": None}
    if amount is not None:
        terms["amount"] = amount.counted(plain[amount.name]) if amount.name in plain else None
        terms["currency"] = plain.get(currency.name, tool.currency) if currency is not None else tool.currency
        bundle.compiled.check_currency(terms["currency"])
    if payee is not None and payee.name in plain:
        account = str(plain[payee.name])
        terms["payee"] = bundle.compiled.payee_by_account.get(account, "p:" + account)
    recorded: dict[str, Any] = {
        tool.by_name[name].alias: {"$sd": ""} if tool.by_name[name].sensitive else value
        for name, value in plain.items()
    }
    return {
        "agent": agent, "run": _RUN, "tool": tool.name, "args": recorded, "terms": terms, "mandates": ["case"],
        "disposition": disposition,
    }  # fmt: skip
