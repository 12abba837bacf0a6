"""V13 and V14: every recorded fact, budget and decision, computed again (docs/spec/facts.md, decision.md)."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from countermark_verify import rules
from countermark_verify.bundle import Bundle
from countermark_verify.errors import Malformed
from countermark_verify.facts import COUNT, MISSING
from countermark_verify.report import Ledger
from countermark_verify.rules import UNSURE, Answer, Rules, rules_of
from countermark_verify.state import JUDGED, Mandate, State, action_fields
from countermark_verify.witness_policy import CLASSES

# What a monitored tool's policy would have done, by the code of the strict decision.
_WOULD = {"not_permitted": "would_deny", "denied_by_policy": "would_deny", "needs_approval": "would_escalate"}
_SHIPPED = "limits."  # what the `@id`s of hard limits begin with
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Decision:
    """What one function decides: the four members that a record carries of it."""

    disposition: str
    stage: str
    code: str
    reasons: list[str]

    def as_list(self) -> list[Any]:
        return [self.disposition, self.stage, self.code, self.reasons]


def deny(stage: str, code: str, reasons: list[str]) -> Decision:
    return Decision("deny", stage, code, reasons)


class Decider:
    """Recomputes each `action.decided` from the state that earlier records left."""

    def __init__(self, ledger: Ledger, state: State) -> None:
        self._ledger = ledger
        self._state = state
        self._rules: dict[str, Rules | None] = {}
        self._zones: dict[str, ZoneInfo | None] = {}
        self._unasked = 0

    def check(self, position: int, record: dict[str, Any]) -> None:
        if record["kind"] == "policy.activated" and rules.installed():
            activated = self._state.bundles.get(record["body"]["activation"]["bundle"])
            if activated is not None:
                self._load(position, activated)
        if record["kind"] == "escalation.raised":
            self._ladders(position, record["body"])
        if record["kind"] != "action.decided":
            return
        body, now = record["body"], record["at"]
        bundle = self._state.bundle
        self._ledger.ran("V14", 1)
        if body["bundle"] != self._state.activated:
            self._ledger.refute(
                "V14.decision", "not the bundle in force", position, self._state.activated, body["bundle"]
            )
        self._ledger.ran("V13", 1)
        early = self._before_facts(position, body, now)
        self._members(position, body, now)
        if early is not None:
            self._no_facts(position, body)
            self._compare(position, body, early)
            return
        if bundle is None or body["tool"] not in bundle.tools:
            # A missing bundle is V09's finding; a tool that the bundle does not have can never be decided.
            self._ledger.refute(
                "V14.decision", "the bundle in force does not have this tool", position, None, body["tool"]
            )
            return
        missing = self._check_facts(position, body, now, bundle)
        if missing:
            named = body["reasons"][0] if body["reasons"] and body["reasons"][0] in missing else missing[0]
            self._compare(position, body, deny("facts", "fact_missing", [named]))
        elif now >= bundle.tools[body["tool"]].get("monitor", now + 1):
            self._compare(position, body, deny("monitor", "monitor_over", []))
        elif rules.installed():
            self._by_policy(position, body, bundle)
        else:
            self._unasked += 1

    def finish(self) -> None:
        if self._unasked:
            self._ledger.lack("V14.no_cedar", f"cedarpy is not installed: {self._unasked} decisions not recomputed")

    def _no_facts(self, seq: int, body: dict[str, Any]) -> None:
        if body["facts"]:
            self._ledger.refute("V14.decision", "facts of a decision that has none", seq, {}, body["facts"])

    def _members(self, seq: int, body: dict[str, Any], now: int) -> None:
        """What follows from the decision itself: the policies lifted, and until when the effect may start."""
        escalation = self._state.escalations.get(body["escalation"]) if body["escalation"] else None
        lifted = _escalated(escalation.body) if escalation and body["disposition"] in ("allow", "flag") else []
        if body["lifted"] != lifted:
            self._ledger.refute("V14.decision", "lifts other policies than were approved", seq, lifted, body["lifted"])
        tool = self._state.bundle.tools.get(body["tool"]) if self._state.bundle else None
        if tool is not None and body["not_after"] != (until := now + tool["dispatch_within_s"] * 1_000_000):
            self._ledger.refute("V14.decision", "another not_after than the tool's", seq, until, body["not_after"])

    def _ladders(self, seq: int, body: dict[str, Any]) -> None:
        """Every escalated policy goes to the ladder that it names itself."""
        bundle = self._state.bundles.get(body["bundle"])
        policies = self._load(seq, bundle) if bundle is not None and rules.installed() else None
        if policies is None:
            return
        for ladder, ids in body["ladders"].items():
            for policy in ids:
                if (own := policies.annotation(policy, "escalate")) != ladder:
                    self._ledger.refute("V14.decision", f"{policy} asks another ladder", seq, own, ladder)

    def _compare(self, seq: int, body: dict[str, Any], expected: Decision, *others: Decision) -> None:
        actual = recorded(body)
        if actual not in (expected, *others):
            self._ledger.refute(
                "V14.decision",
                "the recorded decision is not the recomputed one",
                seq,
                expected.as_list(),
                actual.as_list(),
            )

    # The stages before the facts.

    def _before_facts(self, seq: int, body: dict[str, Any], now: int) -> Decision | None:
        if kills := self._state.killing(body):
            self._no_budgets(seq, body)
            return deny("kill", "killed", kills)
        if (outside := self._by_boundary(body, now)) is not None:
            self._no_budgets(seq, body)
            return outside
        if self._unseen(body, now):
            self._no_budgets(seq, body)
            return deny("witness", "witness_stale", [])
        refusal = self._by_mandates(body, now)
        if refusal is not None:
            self._no_budgets(seq, body)
            if body["disposition"] in ("allow", "flag") and refusal.code == "mandate_limit":
                limit, used = self._exceeded(refusal.reasons[0], body["terms"], now) or (None, None)
                self._ledger.refute("V13.limit", f"an intent beyond a limit of {refusal.reasons[0]}", seq, limit, used)
            return refusal
        self._check_budgets(seq, body, now)
        if (wrong := self._by_payee(body)) is not None:
            return wrong
        return self._by_obligation(seq, body)

    def _by_boundary(self, body: dict[str, Any], now: int) -> Decision | None:
        """What the run was given to its agent for does not cover this."""
        run, bundle = self._state.runs.get(body["run"]), self._state.bundle
        if run is None or run.bounds is None or bundle is None:
            return None
        money = bundle.tools.get(body["tool"], {}).get("class") == "money"
        refusal = run.bounds.refuses(body, now, money=money)
        return None if refusal is None else deny("boundary", *refusal)

    def _by_obligation(self, seq: int, body: dict[str, Any]) -> Decision | None:
        obligation = body["obligation"]
        if obligation is not None and obligation in self._state.refused:
            return deny("obligation", "refused_by_person", [f"seq:{self._state.refused[obligation]}"])
        if obligation is not None and obligation in self._state.held:
            return deny("obligation", "duplicate_obligation", [f"seq:{self._state.held[obligation]}"])
        if waiting := self._state.waiting.get(obligation or ""):
            return deny("obligation", "already_waiting", [f"seq:{waiting[0]}"])
        return None

    def _unseen(self, body: dict[str, Any], now: int) -> bool:
        """Does the policy want witnesses to have seen the log lately, and they have not?"""
        bundle = self._state.bundle
        rule, seen = (bundle.witness, self._state.witnessed) if bundle is not None else (None, None)
        if bundle is None or rule is None or bundle.tools.get(body["tool"], {}).get("class") not in CLASSES:
            return False
        return seen is None or now - seen[1] > rule.stale_after_s * 1_000_000

    def _by_payee(self, body: dict[str, Any]) -> Decision | None:
        """The account was a payee's and is its no longer; what stands behind it could not be read."""
        retired = self._state.register.retired.get(body["terms"]["payee"] or "")
        if retired is not None:
            return deny("payee", "account_replaced", [retired[0], f"seq:{retired[1]}"])
        tool = self._state.bundle.tools.get(body["tool"], {}) if self._state.bundle else {}
        if "resolve" in tool and body.get("reference") is None:
            return deny("payee", "reference_unread", [tool["resolve"]])
        return None

    def _by_mandates(self, body: dict[str, Any], now: int) -> Decision | None:
        """Two rounds from the run's mandate upwards: what each covers, then the limits of all."""
        chain = self._state.mandates_of(body)
        for digest in chain:
            mandate = self._state.mandates.get(digest)
            code = "mandate_not_in_force" if mandate is None else self._uncovered(digest, mandate, body, now)
            if code is not None:
                return deny("mandate", code, [digest])
        if not chain:
            return deny("mandate", "mandate_not_in_force", [])
        return self._beyond_limit(chain, body, now)

    def _beyond_limit(self, chain: list[str], body: dict[str, Any], now: int) -> Decision | None:
        for digest in chain:
            if body["terms"]["amount"] is not None and self._exceeded(digest, body["terms"], now):
                return deny("mandate", "mandate_limit", [digest])
        return None

    def _uncovered(self, digest: str, mandate: Mandate, body: dict[str, Any], now: int) -> str | None:
        document, terms = mandate.document, body["terms"]
        if not self._state.in_force(digest, now):
            return "mandate_not_in_force"
        if "*" not in mandate.tools and body["tool"] not in mandate.tools:
            return "mandate_tool"
        if terms["payee"] is not None and "*" not in mandate.payees and terms["payee"] not in mandate.payees:
            return "mandate_payee"
        if terms["amount"] is None or not document["limits"]:
            return None
        currencies = {limit["currency"] for limit in document["limits"]} - {COUNT}
        if currencies and terms["currency"] not in currencies:
            return "mandate_currency"
        return None

    def _exceeded(self, digest: str, terms: dict[str, Any], now: int) -> tuple[int, int] | None:
        """(limit, used including this action) of the mandate's first limit that the action would exceed."""
        for index, limit in enumerate(self._state.mandates[digest].document["limits"]):
            used = self._state.facts.used(digest, index, terms, now)
            if limit["currency"] in (terms["currency"], COUNT) and used > limit["amount"]:
                return limit["amount"], used
        return None

    # V13: budgets and facts.

    def _no_budgets(self, seq: int, body: dict[str, Any]) -> None:
        if body["budgets"]:
            self._ledger.refute("V13.budget", "budgets of a decision that ended before them", seq, [], body["budgets"])

    def _check_budgets(self, seq: int, body: dict[str, Any], now: int) -> None:
        terms = body["terms"]
        expected = [
            [digest, index, self._state.facts.used(digest, index, terms, now)]
            for digest in self._state.mandates_of(body)
            for index, limit in enumerate(self._state.mandates[digest].document["limits"])
            if terms["amount"] is not None and limit["currency"] in (terms["currency"], COUNT)
        ]
        if body["budgets"] != expected:
            self._ledger.refute("V13.budget", "the budgets are not the recomputed ones", seq, expected, body["budgets"])

    def _check_facts(self, seq: int, body: dict[str, Any], now: int, bundle: Bundle) -> list[str]:
        """Compares every fact; answers the names of those that cannot be computed."""
        fields = action_fields(body)
        because = body["claimed"]["because"]
        expected = self._built_in(seq, body, now, bundle)
        for name in bundle.tools[body["tool"]]["facts"]:
            expected[name] = self._state.facts.compute(bundle.facts[name], fields, now, because)
        missing = [name for name, value in expected.items() if value is MISSING]
        recorded = body["facts"]
        if missing:
            self._no_facts(seq, body)
            return missing
        for name, value in expected.items():
            if name not in recorded:
                self._ledger.refute("V13.fact", f"{name} is not recorded", seq, value)
            elif type(recorded[name]) is not type(value) or recorded[name] != value:
                self._ledger.refute("V13.fact", f"{name} is not the recomputed value", seq, value, recorded[name])
        for name in recorded.keys() - expected.keys():
            self._ledger.refute("V13.fact", f"{name} is no fact of this tool", seq, None, recorded[name])
        return missing

    def _built_in(self, seq: int, body: dict[str, Any], now: int, bundle: Bundle) -> dict[str, Any]:
        facts: dict[str, Any] = {"payee_known": body["terms"]["payee"] in self._state.register.payees}
        zone = self._zone(bundle.zone)
        recorded = body["facts"]
        if zone is None:
            self._ledger.lack("V13.no_zone", f"no time zone {bundle.zone!a} on this machine", seq)
            local_names = ("local_day", "local_minute", "local_weekday")
            facts |= {name: recorded[name] for name in local_names if name in recorded}
        else:
            local = _local(zone, now // 1_000_000)
            facts["local_minute"] = local.hour * 60 + local.minute
            facts["local_weekday"] = local.isoweekday()
            if "facts.local_day" in bundle.tools[body["tool"]]["reads"]:
                facts["local_day"] = local.year * 10_000 + local.month * 100 + local.day
        mandate = self._state.mandates[body["mandates"][0]]
        facts["instructed"] = sorted(alias for alias, name in body["named"].items() if name in mandate.named)
        return facts

    def _zone(self, name: str) -> ZoneInfo | None:
        if name not in self._zones:
            try:
                self._zones[name] = ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                self._zones[name] = None
        return self._zones[name]

    # V14: the policy, and what an approval lifts.

    def _by_policy(self, seq: int, body: dict[str, Any], bundle: Bundle) -> None:
        policies = self._load(seq, bundle)
        if policies is None or self._state.aside & JUDGED:
            return
        payees = self._state.register.payees
        escalation = self._state.escalations.get(body["escalation"]) if body["escalation"] else None
        if escalation is None:
            self._compare(seq, body, judged(policies, body, bundle, payees))
        else:
            request = cedar_request(body, bundle, payees)
            answer = _answer(policies, request, body, bundle)
            moved = self._state.register.touched.get(body["terms"]["payee"] or "", -1) > escalation.body["decided"]
            self._compare(seq, body, *_after_approval(policies, request, answer, body, escalation.body, moved))

    def _load(self, seq: int, bundle: Bundle) -> Rules | None:
        """The bundle's policies; what Cedar says against them is said once, at the first record that needs them."""
        if bundle.digest not in self._rules:
            try:
                self._rules[bundle.digest] = rules_of(bundle)
            except Malformed as error:
                self._rules[bundle.digest] = None
                self._ledger.refute("V09.bundle", f"the bundle {error}", seq, None, bundle.digest)
        return self._rules[bundle.digest]


@lru_cache(maxsize=64)
def _local(zone: ZoneInfo, second: int) -> datetime:
    """What clocks show there: a zone is a whole number of seconds off."""
    return (_EPOCH + timedelta(seconds=second)).astimezone(zone)


def recorded(body: dict[str, Any]) -> Decision:
    """What a decision says of itself."""
    return Decision(body["disposition"], body["stage"], body["code"], body["reasons"])


def _answer(policies: Rules, request: dict[str, Any], body: dict[str, Any], bundle: Bundle) -> Answer:
    # Cedar takes an unknown principal as one without attributes; here it is nobody.
    return policies.ask(request) if body["agent"] in bundle.owners else UNSURE


def judged(policies: Rules, body: dict[str, Any], bundle: Bundle, payees: Container[str]) -> Decision:
    """What the policy decides of an action that no people were asked about, by the facts that the decision records."""
    request = cedar_request(body, bundle, payees)
    return _judged(policies, request, _answer(policies, request, body, bundle), body, bundle)


def judged_all(policies: Rules, bodies: Sequence[dict[str, Any]], bundle: Bundle) -> list[Decision]:
    """The same of many actions, whose payees are the bundle's."""
    requests = [cedar_request(body, bundle) for body in bodies]
    answers = [
        answer if body["agent"] in bundle.owners else UNSURE
        for body, answer in zip(bodies, policies.ask_all(requests), strict=True)
    ]
    return [_judged(policies, *row, bundle) for row in zip(requests, answers, bodies, strict=True)]


def _judged(
    policies: Rules, request: dict[str, Any], answer: Answer, body: dict[str, Any], bundle: Bundle
) -> Decision:  # fmt: skip
    decision = decide(policies, request, answer)
    return _waived(policies, decision) if "monitor" in bundle.tools[body["tool"]] else decision


def cedar_request(body: dict[str, Any], bundle: Bundle, payees: Container[str] = ()) -> dict[str, Any]:
    """The Cedar request of a decision (docs/spec/policy.md). `payees` are those known, the bundle's among them."""
    terms = body["terms"]
    payee = terms["payee"]
    resource = "$none" if payee is None else "_registered" if payee in payees else "$unknown"
    if payee is not None and payee in bundle.payees:
        resource = payee
    context: dict[str, Any] = {}
    for member in bundle.tools[body["tool"]]["reads"]:
        group, _, name = member.partition(".")
        if not name:
            if terms[member] is not None:
                context[member] = terms[member]
        elif name in body[group] and not _sealed(group, body[group][name]):
            context.setdefault(group, {})[name] = body[group][name]
    return {
        "principal": {"type": "Agent", "id": body["agent"]},
        "action": {"type": "Action", "id": body["tool"]},
        "resource": {"type": "Payee", "id": resource},
        "context": context,
    }


def _sealed(group: str, value: Any) -> bool:
    return group == "args" and type(value) is dict


def _allowed(policies: Rules, answer: Answer) -> Decision:
    flagged = any(policies.annotation(policy, "flag") is not None for policy in answer.satisfied)
    disposition, code = ("flag", "flagged") if flagged else ("allow", "allowed")
    return Decision(disposition, "policy", code, list(answer.satisfied))


def decide(policies: Rules, request: dict[str, Any], answer: Answer, lifted: Sequence[str] = ()) -> Decision:
    """The strict decision of the stage `policy`; `answer` was asked without the `lifted` policies."""
    if not answer.sure:
        return deny("policy", "policy_error", [])
    if answer.allow:
        return _allowed(policies, answer)
    forbids = list(answer.satisfied)
    if not forbids:
        return deny("policy", "not_permitted", [])
    if all(policies.annotation(policy, "escalate") is not None for policy in forbids):
        without = policies.ask(request, [*forbids, *lifted])
        if without.sure and without.allow:
            return Decision("escalate", "policy", "needs_approval", forbids)
    return deny("policy", "denied_by_policy", forbids)


def _waived(policies: Rules, decision: Decision) -> Decision:
    """What a monitored tool does instead: everything but what an error or a hard limit denies."""
    hard = any(
        policy.startswith(_SHIPPED) and policies.annotation(policy, "escalate") is None for policy in decision.reasons
    )
    code = _WOULD.get(decision.code)
    return decision if code is None or hard else Decision("allow", "monitor", code, decision.reasons)


def _escalated(raised: dict[str, Any]) -> list[str]:
    return sorted({policy for ladder in raised["ladders"].values() for policy in ladder})


def _after_approval(
    policies: Rules,
    request: dict[str, Any],
    answer: Answer,
    body: dict[str, Any],
    raised: dict[str, Any],
    moved: bool = False,
) -> tuple[Decision, ...]:
    """The decision; where the specification leaves open which denial it is, every reading of it."""
    ids = _escalated(raised)
    same = answer.sure and not answer.allow and list(answer.satisfied) == ids
    changed = [
        name
        for name, differs in (
            ("bundle", body["bundle"] != raised["bundle"]),
            ("payee", moved),
            ("reasons", not same),
            ("request", body["request"] != raised["request"]),
        )
        if differs
    ]
    if changed:
        return (deny("approval", "approval_void", changed),)
    decision = decide(policies, request, policies.ask(request, ids), ids)
    if decision.disposition in ("allow", "flag"):
        return (decision,)
    # Nothing permits it any more, without the lifted policies or with them.
    return decision, deny("approval", "approval_void", ["reasons"])
