"""Policies rewritten for a flat context answer, and err, as Cedar does for the nested one with the schema given."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cedarpy import pst
from policy_support import TOOLS, compiled

from countermark.policy import Engine
from countermark.policy.cedar import parse, split
from countermark.policy.flat import flat, flattened

TURNS = 150
FACTS = """
[facts.paid_before]
kind = "slot"
use = "floor"
group = ["payee"]
[facts.paid_lately]
kind = "slot"
use = "floor"
group = ["payee"]
over = "1h"
[facts.balance_read]
kind = "grounded"
of = "amount"
tool = "bank.balance"
field = "total"
"""
FLAT = {
    "slots": "context.facts.paid_before.known && context.facts.paid_before has age_s"
             " && context.facts.paid_before.age_s < 3",
    "grounded": "context.facts.balance_read.known && !context.facts.balance_read.equal",
    "sets": 'context.facts.instructed.contains("to") || context.facts.instructed == ["invoice"]',
    "texts": 'context.args.invoice like "I-*" && context.currency == "eur"',
    "branches": "if context.facts.payee_known then context.facts.local_minute > 600 else context.amount > 2",
    "records": "{a: context.amount}.a > 2 && [context.amount, 1].contains(2)",
    "brackets": 'context["facts"]["local_minute"] > 600 && context has amount',
    "overflows": "context.amount + context.facts.local_minute > 0",
}  # fmt: skip
NESTED = {
    "equal slots": "context.facts.paid_before == context.facts.paid_lately",
    "all facts": "context.facts == context.facts && context.facts.paid_before.known",
    "optional argument": 'context.args.invoice == "I-1" && context.args has note && context.args.note == "n"',
    "only optional": 'context has args.note && context.args.note == "n"',
    "extended": "context.facts has paid_before.age_s && context.facts.paid_before.age_s < context.amount",
    "member": "context has facts && context.facts.payee_known",
    "branch": "(if context.amount > 2 then context.facts.paid_before else context.facts.paid_lately).known",
}  # fmt: skip


def engine_of(condition: str) -> Engine:
    own = f'@id("own") forbid(principal, action == Action::"bank.pay", resource) when {{ {condition} }};'
    return Engine(compiled(tools=TOOLS, facts=FACTS, own=own))


def context(rng: random.Random, engine: Engine) -> dict[str, Any]:
    """Of ``bank.pay``: each member that its policies read, of few values, so that conditions come out both ways."""

    def slot() -> dict[str, Any]:
        return rng.choice(({"known": False}, {"known": True, "age_s": rng.randrange(6)}))

    args = {"amount": 1, "currency": "eur", "to": "acct_acme", "invoice": rng.choice(("I-1", "J"))}
    if rng.random() < 0.5:
        args["note"] = rng.choice(("n", "m"))
    facts = {
        "paid_before": slot(), "paid_lately": slot(), "local_minute": rng.choice((0, 601, 2**63 - 2)),
        "balance_read": {"known": rng.random() < 0.5, "equal": rng.random() < 0.5}, "payee_known": rng.random() < 0.5,
        "instructed": rng.sample(["invoice", "to"], k=rng.randrange(3)), "day_total": rng.choice((0, 5001)),
    }  # fmt: skip
    terms = {"amount": rng.randrange(5), "currency": "eur", "payee": "acme"}
    return engine.context(engine.bundle.compiled.tools["bank.pay"], terms, args, facts)


@pytest.mark.parametrize("name", [*FLAT, *NESTED])
def test_a_flat_context_decides_as_the_nested_one(name: str) -> None:
    """Decision, satisfied policies and errors are Cedar's own; what reads an object as a whole is asked as written."""
    engine, rng = engine_of((FLAT | NESTED)[name]), random.Random(name)
    answers = set()
    for _ in range(TURNS):
        asked = context(rng, engine)
        whole = engine.evaluate("bank.pay", "treasury", "acme", asked)
        ids = tuple(sorted(whole.diagnostics.id_annotations_by_reason.values()))
        expected = None if whole.diagnostics.errors else (whole.allowed, ids)
        assert engine._ask("bank.pay", "treasury", "acme", asked, frozenset()) == expected, asked
        answers.add(expected)
    assert len(answers) > 1 or name == "all facts"
    assert (None in answers) == (name == "overflows")
    assert engine._slice("bank.pay", "treasury", "acme", frozenset()).flat == (name in FLAT)


def test_names_with_dots_are_no_paths() -> None:
    """A member that is called like a path is not taken for it."""
    (one,) = (parse(statement).open for statement in split(
        '@id("x") forbid(principal, action, resource) when { context["facts.day_total"] > 1 };'
    ))  # fmt: skip
    assert flattened({"x": one}, {"facts.day_total"}) is None


def test_what_does_not_read_the_context_stays_as_it_is() -> None:
    """Attributes of entities, and policies without conditions."""
    text = '@id("x") permit(principal, action, resource) when { Limits::"limits".most > 1 || principal == resource };'
    (one,) = (parse(statement).open for statement in split(text))
    assert flattened({"x": one}, ()) == {"x": one}
    assert isinstance(one, pst.Template)


def test_a_context_is_flat_by_paths() -> None:
    """Every member by its path, in the order given; lists stay whole."""
    nested = {"amount": 1, "args": {"to": "a"}, "facts": {"seen": {"known": True, "age_s": 2}, "named": ["a"], "n": 3}}
    assert flat(nested) == {
        "amount": 1, "args.to": "a", "facts.seen.known": True, "facts.seen.age_s": 2, "facts.named": ["a"],
        "facts.n": 3,
    }  # fmt: skip
