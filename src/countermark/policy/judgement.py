"""The one decision function: ``judge(state, ask, at)``, stage by stage as ``docs/spec/decision.md`` numbers them.

Pure: it reads the state, the ask and the record's time, changes nothing, and never raises for a bad ask; whatever
goes wrong inside a stage ends as a deny of that stage.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from countermark.facts import COUNT, subject_of
from countermark.model.digest import OBLIGATION, digest_of_fitting
from countermark.model.errors import ArgumentError, FactError
from countermark.model.request import text_of
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Disposition
from countermark.policy.bundle import REGISTERED_PAYEE
from countermark.policy.hours import local_day, local_time
from countermark.policy.parked import Escalation
from countermark.policy.runs import Boundary
from countermark.policy.state import State
from countermark.policy.witness import CLASSES, is_stale

# What a monitored tool's policy would have done, by the code of its verdict. An error of the policy is never waived.
WOULD: Mapping[str, str] = {
    "not_permitted": "would_deny", "denied_by_policy": "would_deny", "needs_approval": "would_escalate",
}  # fmt: skip

Pseudonym = Callable[[str, str], str]

_KEY_TEXT = re.compile(r"[\t\n -~]*[A-Za-z0-9][\t\n -~]*")  # nothing that cannot be seen, and something that can


class Ask(NamedTuple):
    """An action, decoded and prepared, as a decision sees it.

    ``args`` are the recorded form (alias -> value or ``{"$sd"}``), ``clear`` the values that stand clear.
    ``named`` maps aliases to pseudonyms of their values (kind ``named``), for ``instructed``. ``reference`` is what
    stands behind the argument that ``tool.resolve`` names, None when it could not be read.
    """

    id: str
    agent: str
    run: str
    call_id: str
    tool: ToolSpec
    args: Mapping[str, Any]
    clear: Mapping[str, Value]
    action: str
    request: str
    salt: str | None
    key: str
    terms: Mapping[str, Any]
    obligation: str | None
    claimed: Mapping[str, Any]
    named: Mapping[str, str]
    bundle: str
    tier: str
    reference: Mapping[str, str] | None = None


class Judgement(NamedTuple):
    """What was decided, at which stage and why. ``ladders`` maps a ladder to the forbids it may lift."""

    disposition: Disposition
    stage: str
    code: str
    reasons: tuple[str, ...] = ()
    mandates: tuple[str, ...] = ()
    budgets: tuple[tuple[str, int, int], ...] = ()
    facts: Mapping[str, Any] | None = None
    ladders: Mapping[str, tuple[str, ...]] | None = None


def judge(
    state: State, ask: Ask, at: int, escalation: Escalation | None = None, *, withdrawn: Escalation | None = None
) -> Judgement:
    """Decide ``ask`` at time ``at`` (microseconds); with ``escalation``, its approval is applied.

    ``withdrawn`` is a question about the same obligation that is to be withdrawn first.
    """
    run = state.runs[ask.run]
    mandates = state.chain(run.mandate)
    killed = killed_by(state, ask.agent, ask.tool.name, mandates, ask.terms["payee"])
    if killed:
        return Judgement("deny", "kill", "killed", killed, mandates)
    outside = None if run.boundary is None else _outside(run.boundary, ask, at, escalation is None)
    if outside is not None:
        return Judgement("deny", "boundary", outside[0], outside[1], mandates)
    if _unseen(state, ask, at):
        return Judgement("deny", "witness", "witness_stale", (), mandates)
    code, budgets, bad = _mandates(state, ask, mandates, at)
    if code:
        return Judgement("deny", "mandate", code, (bad,), mandates)
    wrong = _payee(state, ask)
    if wrong is not None:
        return Judgement("deny", "payee", wrong[0], wrong[1], mandates, budgets)
    taken = _obligation(state, ask, escalation or withdrawn)
    if taken is not None:
        return Judgement("deny", "obligation", taken[0], (f"seq:{taken[1]}",), mandates, budgets)
    try:
        facts = _facts(state, ask, mandates, at)
    except FactError as error:
        return Judgement("deny", "facts", "fact_missing", (error.message,), mandates, budgets)
    return _policy(state, ask, at, mandates, budgets, facts, escalation)


def killed_by(state: State, agent: str, tool: str, mandates: Sequence[str], payee: str | None) -> tuple[str, ...]:
    """Ids of the active kills that cover an action, sorted."""
    if not state.kills:
        return ()
    hit: list[str] = []
    for kill, scope in state.kills.items():
        kind, value = scope["kind"], scope["value"]
        covered = (
            kind == "deployment"
            or (kind == "agent" and value == agent)
            or (kind == "tool" and value == tool)
            or (kind == "payee" and value == payee)
            or (kind == "mandate" and value in mandates)
        )
        if covered:
            hit.append(kill)
    return tuple(sorted(hit))


def _outside(boundary: Boundary, ask: Ask, at: int, first: bool) -> tuple[str, tuple[str, ...]] | None:
    """Why an action does not stay inside what its run was opened for. ``ask.clear`` has no sealed arguments."""
    return boundary.refuses(ask.tool.name, ask.tool.class_ == "money", ask.terms, ask.clear, at, first=first)


def _unseen(state: State, ask: Ask, at: int) -> bool:
    """Whether the policy wants witnesses to have seen the log lately, and they have not."""
    rule = None if state.bundle is None else state.bundle.compiled.witness
    if rule is None or state.unwitnessed:
        return False
    return ask.tool.class_ in CLASSES and is_stale(rule, state.witnessed, at)


def _mandates(
    state: State, ask: Ask, mandates: tuple[str, ...], at: int
) -> tuple[str, tuple[tuple[str, int, int], ...], str]:
    amount, currency, payee = ask.terms["amount"], ask.terms["currency"], ask.terms["payee"]
    for digest in mandates:
        doc = state.mandates.get(digest)
        if doc is None or digest in state.revoked or not doc["not_before"] <= at < doc["not_after"]:
            return "mandate_not_in_force", (), digest
        if ask.tool.name not in doc["tools"] and "*" not in doc["tools"]:
            return "mandate_tool", (), digest
        if payee is not None and payee not in doc["payees"] and "*" not in doc["payees"]:
            return "mandate_payee", (), digest
        if amount is not None and not _granted_in(currency, doc["limits"]):
            return "mandate_currency", (), digest
    if amount is None:
        return "", (), ""
    used = state.budgets.used_after(mandates, currency, amount, at)
    for digest, index, total in used:
        if total > state.budgets.limit(digest, index):
            return "mandate_limit", (), digest
    return "", tuple((row[0], row[1], row[2]) for row in used), ""


def _granted_in(currency: str | None, limits: Sequence[Mapping[str, Any]]) -> bool:
    """Whether limits on amounts, if there are any, include one in this currency."""
    others = False
    for row in limits:
        if row["currency"] == currency:
            return True
        others = others or row["currency"] != COUNT
    return not others


def _payee(state: State, ask: Ask) -> tuple[str, tuple[str, ...]] | None:
    """An account that a payee had and has no longer; what stands behind an argument could not be read."""
    retired = state.register.retired.get(ask.terms["payee"] or "")
    if retired is not None:
        return "account_replaced", (retired[0], f"seq:{retired[1]}")
    return ("reference_unread", (ask.tool.resolve,)) if ask.tool.resolve and ask.reference is None else None


def _obligation(state: State, ask: Ask, escalation: Escalation | None) -> tuple[str, int] | None:
    if ask.obligation is None:
        return None
    refused = state.refused.get(ask.obligation)
    if refused is not None:
        return "refused_by_person", refused
    taken = state.keys.get("ob:" + ask.obligation)
    if taken is not None:
        return "duplicate_obligation", taken
    asked = state.waiting.get(ask.obligation)
    if asked is None or (escalation is not None and escalation.seq == asked):  # its own question is no other one
        return None
    return "already_waiting", asked


def _facts(state: State, ask: Ask, mandates: tuple[str, ...], at: int) -> dict[str, Any]:
    bundle = state.bundle
    if bundle is None:
        raise FactError("bundle")
    names = ask.tool.facts
    facts: dict[str, Any] = {}
    if names:
        subject = subject_of(
            {
                "agent": ask.agent, "run": ask.run, "tool": ask.tool.name, "terms": ask.terms, "args": ask.args,
                "mandates": mandates,
            }
        )  # fmt: skip
        facts = state.facts.compute(subject, ask.claimed["because"], at, names)
    facts["payee_known"] = ask.terms["payee"] in state.register.known.payees
    facts["local_minute"], facts["local_weekday"] = local_time(at, bundle.compiled.zone)
    if "facts.local_day" in ask.tool.reads:
        facts["local_day"] = local_day(at, bundle.compiled.zone)
    facts["instructed"] = instructed(state, mandates, ask.named)
    return facts


def instructed(state: State, mandates: tuple[str, ...], named: Mapping[str, str]) -> list[str]:
    """Aliases of the arguments whose value the principal named in the run's mandate."""
    doc = state.mandates[mandates[0]]
    if not doc["named"]:
        return []
    values = set(doc["named"])
    return sorted(alias for alias, value in named.items() if value in values)


def _policy(
    state: State,
    ask: Ask,
    at: int,
    mandates: tuple[str, ...],
    budgets: tuple[tuple[str, int, int], ...],
    facts: Mapping[str, Any],
    escalation: Escalation | None,
) -> Judgement:
    engine = state.engine
    if engine is None:
        return Judgement("deny", "policy", "policy_error", (), mandates, budgets, facts)
    monitor = ask.tool.monitor
    if monitor is not None and at >= monitor:
        return Judgement("deny", "monitor", "monitor_over", (), mandates, budgets, facts)
    payee = payee_of(state, ask)
    context = engine.context(ask.tool, ask.terms, ask.clear, facts)
    verdict = engine.decide(ask.tool.name, ask.agent, payee, context)
    if escalation is not None:
        asked = sorted({pid for ids in escalation.body["ladders"].values() for pid in ids})
        void = [
            name
            for name, changed in (
                ("bundle", engine.bundle.digest != escalation.body["bundle"]),
                ("payee", state.register.moved_since(ask.terms["payee"], escalation.body["decided"])),
                ("reasons", verdict.disposition != "escalate" or list(verdict.reasons) != asked),
                ("request", ask.request != escalation.body["request"] or ask.action != escalation.body["action"]),
            )
            if changed
        ]
        if void:
            return Judgement("deny", "approval", "approval_void", tuple(void), mandates, budgets, facts)
        verdict = engine.decide(ask.tool.name, ask.agent, payee, context, frozenset(asked))
    elif monitor is not None and verdict.code in WOULD and not engine.caps(verdict.reasons):
        return Judgement("allow", "monitor", WOULD[verdict.code], verdict.reasons, mandates, budgets, facts)
    return Judgement(
        verdict.disposition, "policy", verdict.code, verdict.reasons, mandates, budgets, facts, verdict.ladders
    )


def payee_of(state: State, ask: Ask) -> str | None:
    """The payee as policies know it: one that only the register knows is the same to them as any other of those."""
    payee, bundle = ask.terms["payee"], state.bundle
    if bundle is not None and payee in state.register.known.payees and payee not in bundle.compiled.payees:
        return REGISTERED_PAYEE
    return None if payee is None else str(payee)


def ask_of(body: Mapping[str, Any], tool: ToolSpec) -> Ask:
    """The ask of an ``action.decided`` body: what re-performance and an approved action decide again."""
    clear = {alias: value for alias, value in body["args"].items() if type(value) is not dict}
    return Ask(
        id=body["id"], agent=body["agent"], run=body["run"], call_id=body["call_id"], tool=tool, args=body["args"],
        clear=clear, action=body["action"], request=body["request"], salt=body["salt"], key=body["key"],
        terms=body["terms"], obligation=body["obligation"], claimed=body["claimed"], named=body["named"],
        bundle=body["bundle"], tier=body["tier"], reference=body.get("reference"),
    )  # fmt: skip


def decided_body(
    ask: Ask, judgement: Judgement, *, bundle: str, not_after: int, escalation: str | None, lifted: list[str]
) -> dict[str, Any]:
    """The body of the ``action.decided`` record that states this judgement (``docs/spec/record.md``)."""
    more = {"reference": None if ask.reference is None else dict(ask.reference)} if ask.tool.resolve else {}
    return {
        "id": ask.id, "agent": ask.agent, "run": ask.run, "call_id": ask.call_id, "tool": ask.tool.name,
        "args": dict(ask.args), "action": ask.action, "request": ask.request, "salt": ask.salt, "key": ask.key,
        "claimed": dict(ask.claimed), "terms": dict(ask.terms), "obligation": ask.obligation,
        "named": dict(ask.named), "mandates": list(judgement.mandates),
        "budgets": [list(row) for row in judgement.budgets], "bundle": bundle, "facts": dict(judgement.facts or {}),
        "disposition": judgement.disposition, "stage": judgement.stage, "code": judgement.code,
        "reasons": list(judgement.reasons), "escalation": escalation, "lifted": lifted, "not_after": not_after,
        "tier": ask.tier, **more,
    }  # fmt: skip


def normal(value: Value) -> str:
    """A reference as business keys compare it: NFKC, case-folded, without white space."""
    return "".join(unicodedata.normalize("NFKC", text_of(value)).casefold().split())


def _check_key_text(tool: ToolSpec, alias: str, value: Value) -> None:
    if type(value) is str and _KEY_TEXT.fullmatch(value) is None:
        raise ArgumentError(
            f"{tool.by_alias[alias].name} must be printable ASCII with a letter or a digit",
            field=tool.by_alias[alias].name,
        )


def obligation_of(
    tool: ToolSpec, terms: Mapping[str, Any], plain: Mapping[str, Value], pseudonym: Pseudonym
) -> str | None:
    """Business key of an action, or None for a tool without ``once_per``. ``plain`` maps aliases to real values.

    Raises:
        ArgumentError: a text in the key has characters that cannot be seen, or nothing that could tell it apart.
    """
    if not tool.once_per:
        return None
    pairs: list[list[str]] = []
    for name in sorted(tool.once_per):
        if name == "payee":
            pairs.append([name, terms["payee"] or ""])
        elif name not in plain:
            pairs.append([name, ""])
        else:
            _check_key_text(tool, name, plain[name])
            text = normal(plain[name])
            pairs.append([name, "p:" + pseudonym("payee", text) if tool.by_alias[name].sensitive else text])
    return digest_of_fitting(OBLIGATION, [tool.once_scope or tool.name, pairs])
