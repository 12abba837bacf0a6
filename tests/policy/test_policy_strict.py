"""The strict decision against the words of the specification, on random sets of policies."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_support import compiled

from countermark.policy import Engine, Verdict

FACTS = {"payee_known": True, "local_minute": 600, "local_weekday": 2, "instructed": [], "day_total": 100}
CONDITIONS = {
    "yes": "context.amount == 100",
    "no": "context.amount == 101",
    "error": "context.facts.day_total * 9223372036854775807 > 5",
}
POLICY = st.tuples(
    st.sampled_from(["permit", "forbid", "forbid"]),
    st.sampled_from(["yes", "yes", "no", "no", "no", "error"]),
    st.sampled_from(["", "finance", "board", "flag"]),
)


def _text(number: int, policy: tuple[str, str, str]) -> str:
    effect, condition, mark = policy
    note = ""
    if effect == "permit" and mark == "flag":
        note = '@flag("look") '
    elif effect == "forbid" and mark in ("finance", "board"):
        note = f'@escalate("{mark}") '
    scope = 'principal, action == Action::"bank.pay", resource'
    return f'@id("p{number}") {note}{effect}({scope}) when {{ {CONDITIONS[condition]} }};'


def _expected(policies: list[tuple[str, str, str]]) -> tuple[str, str, list[str], dict[str, list[str]]]:
    """docs/spec/decision.md, sentence by sentence. The shipped `limits.permit` is always satisfied."""
    if any(condition == "error" for _, condition, _ in policies):
        return "deny", "policy_error", [], {}
    satisfied = [(i, effect, mark) for i, (effect, condition, mark) in enumerate(policies) if condition == "yes"]
    permits = sorted(["limits.permit", *(f"p{i}" for i, effect, _ in satisfied if effect == "permit")])
    forbids = sorted(f"p{i}" for i, effect, _ in satisfied if effect == "forbid")
    if not forbids:
        flagged = any(mark == "flag" for _, effect, mark in satisfied if effect == "permit")
        return ("flag", "flagged", permits, {}) if flagged else ("allow", "allowed", permits, {})
    ladders: dict[str, list[str]] = {}
    for i, effect, mark in satisfied:
        if effect == "forbid":
            if mark not in ("finance", "board"):
                return "deny", "denied_by_policy", forbids, {}
            ladders.setdefault(mark, []).append(f"p{i}")
    return "escalate", "needs_approval", forbids, {name: sorted(ids) for name, ids in ladders.items()}


def _as_tuple(verdict: Verdict) -> tuple[str, str, list[str], dict[str, list[str]]]:
    ladders = {name: list(ids) for name, ids in verdict.ladders.items()}
    return verdict.disposition, verdict.code, list(verdict.reasons), ladders


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.lists(POLICY, max_size=6))
def test_the_verdict_is_what_the_specification_says(policies: list[tuple[str, str, str]]) -> None:
    """For any mix of satisfied, unsatisfied and erring policies the verdict, reasons and ladders follow the words; an
    approval of exactly the satisfied forbids decides by what is left, any other is void."""
    board = '[ladder.board]\nroles = ["principal"]\ndeadline = "1d"\n'
    own = "\n".join(_text(number, policy) for number, policy in enumerate(policies))
    engine = Engine(compiled(ladders=board, own=own))
    tool = engine.bundle.compiled.tools["bank.pay"]
    terms = {"amount": 100, "currency": "eur", "payee": "acme"}
    args = {"amount": 100, "currency": "eur", "to": "acct_acme", "invoice": "I-1"}
    context = engine.context(tool, terms, args, FACTS)
    expected = _expected(policies)
    verdict = engine.decide("bank.pay", "treasury", "acme", context)
    assert _as_tuple(verdict) == expected
    if expected[0] == "escalate":
        left = [policy if policy[0] == "permit" else ("forbid", "no", "") for policy in policies]
        again = engine.decide("bank.pay", "treasury", "acme", context, frozenset(verdict.reasons))
        assert _as_tuple(again) == _expected(left)
        for wrong in (frozenset(verdict.reasons) | {"x"}, frozenset(("x",))):
            assert engine.decide("bank.pay", "treasury", "acme", context, wrong).code == "approval_void"
