"""Cedar behind its bounds: what is refused before Cedar sees it, and how strictly its answer is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from verify_builder import bundle_document
from verify_bytes import canon

from countermark_verify.bundle import Bundle, read_bundle
from countermark_verify.cedar_text import split_policies
from countermark_verify.decide import cedar_request, decide, judged, judged_all
from countermark_verify.errors import Malformed
from countermark_verify.rules import Rules


def bundle(**changes: Any) -> Bundle:
    return replace(read_bundle(canon(bundle_document())), **changes)


def body(amount: int = 10, **more: Any) -> dict[str, Any]:
    facts = {"payee_known": True, "day_sum": amount, "payees": 1}
    terms = {"amount": amount, "currency": "EUR", "payee": "payee1"}
    return {"agent": "payer", "tool": "bank.pay", "terms": terms, "facts": facts, "args": {"invoice": "I"}} | more


def answer(source: Bundle, action: dict[str, Any]) -> list[Any]:
    policies = Rules(source)
    request = cedar_request(action, source)
    return decide(policies, request, policies.ask(request)).as_list()


def test_policies_are_split_at_their_own_semicolons_only() -> None:
    """Semicolons and brackets in strings and comments are text."""
    first = '@id("a;") permit(principal, action, resource); // (((( ;\n'
    text = first + '@id("b") forbid(principal, action, resource) when { context.x == "};" };'
    assert [chunk.strip()[:8] for chunk in split_policies(text)] == ['@id("a;"', "// (((( "]


@pytest.mark.parametrize(
    "inside",
    ["(" * 3_000, "[" * 3_000, '{"a":' * 3_000, "if true then " * 3_000, "true && " * 3_000, "context" + ".a" * 3_000],
)
def test_what_would_exhaust_the_parsers_stack_is_refused(inside: str) -> None:
    """Cedar recurses without a limit; the bound stands before it."""
    with pytest.raises(Malformed):
        split_policies('@id("a") permit(principal, action, resource) when {' + inside + "};")


def test_a_backslash_is_refused_wherever_it_stands() -> None:
    """A text without escapes reads as it is written: no word hides in a string, a comment or an annotation."""
    for place in ('@id("a\\u{62}") permit(principal, action, resource);', "// \\\n", '"' + '\\"' * 1_000_000):
        with pytest.raises(Malformed):
            split_policies(place)


def test_quotes_cost_linear_time() -> None:
    """Two megabytes of quotes without an end are read once, not once for each quote."""
    assert split_policies('"' * 2_000_001) == []


@pytest.mark.parametrize(
    "cedar",
    [
        "permit(principal, action, resource);",
        '@id("a") permit(principal, action, resource); @id("a") forbid(principal, action, resource);',
        '@id("a") permit(principal == ?principal, action, resource);',
        "nonsense",
        '@id("a") permit(principal, action, resource); trailing',
    ],
)
def test_policies_that_cannot_be_told_apart_are_refused(cedar: str) -> None:
    """Every policy has an @id of its own, is no template, and nothing stands between policies."""
    with pytest.raises(Malformed):
        Rules(bundle(cedar=cedar))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (10, ["allow", "policy", "allowed", ["pay"]]),
        (6_000, ["flag", "policy", "flagged", ["pay", "pay-large"]]),
        (60_000, ["escalate", "policy", "needs_approval", ["ask"]]),
        (950_000, ["deny", "policy", "denied_by_policy", ["ask", "never"]]),
    ],
)
def test_each_disposition(amount: int, expected: list[Any]) -> None:
    """allow, flag, escalate, deny, with sorted reasons."""
    assert answer(bundle(), body(amount)) == expected


def test_an_error_denies_even_where_cedar_allows() -> None:
    """A forbid that overflows is skipped by Cedar; a context outside the schema or i64 is no request at all."""
    overflow = '@id("o") forbid(principal, action, resource) when { context.amount * 9223372036854775807 > 1 };'
    failed = ["deny", "policy", "policy_error", []]
    source = bundle()
    assert answer(bundle(cedar=source.cedar + overflow), body()) == failed
    assert answer(source, body(facts={"payee_known": True})) == failed
    assert answer(source, body(facts={"payee_known": True, "day_sum": "10"})) == failed
    assert answer(source, body(amount=2**70)) == failed


def test_absence_of_a_permit_is_its_own_answer() -> None:
    """Denied without a satisfied forbid."""
    facts = {"payee_known": False, "day_sum": 1}
    assert answer(bundle(), body(facts=facts)) == ["deny", "policy", "not_permitted", []]


def test_many_requests_are_answered_as_each_by_itself() -> None:
    """What Cedar cannot take among them makes no other one unsure."""
    source = bundle()
    policies = Rules(source)
    good = [cedar_request(body(amount), source) for amount in (1, 10, 10**9)]
    bad = [cedar_request(body(), source) | {"action": {"type": "Action", "id": "no.such"}}, {"principal": 1}]
    for requests in ([], good, good + bad[:1] + good, good + bad):
        assert policies.ask_all(requests) == [policies.ask(request) for request in requests]
    assert [one.sure for one in policies.ask_all(good + bad)] == [True, True, True, False, False]


def test_an_agent_that_the_bundle_does_not_have_is_nobody_among_many() -> None:
    """Cedar would take it as one without attributes."""
    source = bundle()
    bodies = [body(), body(agent="stranger")]
    together = judged_all(Rules(source), bodies, source)
    assert together == [judged(Rules(source), one, source, ()) for one in bodies]
    assert together[1].code == "policy_error"
