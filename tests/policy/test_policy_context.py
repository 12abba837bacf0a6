"""Whether a context fits its tool's schema: our own test against Cedar's, which is given the schema."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_support import TOOLS, compiled

from countermark.model.errors import PolicyError
from countermark.policy import Engine

OWN = """
[facts.paid_before]
kind = "slot"
use = "floor"
group = ["payee"]
[facts.balance_read]
kind = "grounded"
of = "amount"
tool = "bank.balance"
field = "total"
"""
READS = (
    '@id("own.reads") forbid(principal, action == Action::"bank.pay", resource) when { context.currency == "x" && '
    "context.facts.paid_before.known && context.facts.paid_before has age_s && context.facts.balance_read.equal && "
    'context.facts.instructed.contains("to") && context.facts.payee_known && context.facts.local_minute == 1 && '
    'context.args has note && context.args.note == "x" && context.args.invoice == "y" && context.amount == 1 };'
)
WHOLE: dict[str, Any] = {
    "amount": 100, "currency": "eur",
    "args": {"amount": 100, "currency": "eur", "to": "acct_acme", "invoice": "I-1", "note": "n"},
    "facts": {
        "paid_before": {"known": True, "age_s": 5}, "balance_read": {"known": True, "equal": False},
        "instructed": ["to"], "payee_known": True, "local_minute": 600, "day_total": 100,
    },
}  # fmt: skip
PATHS = [
    (), ("amount",), ("currency",), ("args",), ("args", "amount"), ("args", "invoice"), ("args", "note"), ("facts",),
    ("facts", "paid_before"),
    ("facts", "paid_before", "known"), ("facts", "paid_before", "age_s"), ("facts", "balance_read"),
    ("facts", "balance_read", "equal"), ("facts", "instructed"), ("facts", "payee_known"), ("facts", "local_minute"),
    ("facts", "day_total"),
]  # fmt: skip
VALUES = st.sampled_from(
    [None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**53, "", "eur", "é\u200b", [], ["a"],
     ["a", 1],
     [1], {}, {"known": True}, {"known": 1}, {"known": False, "age_s": 1}, {"known": True, "age_s": "1"},
     {"known": True, "equal": True}, {"known": True, "equal": True, "age_s": 1}, {"invoice": "I-2"}, [[]]]
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "drop", "add"]), st.sampled_from(PATHS), VALUES), min_size=0, max_size=3
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(compiled(tools=TOOLS, facts=OWN, own=READS))


def _changed(changes: list[tuple[str, tuple[str, ...], Any]]) -> dict[str, Any]:
    context = copy.deepcopy(WHOLE)
    for how, path, value in changes:
        place: Any = context
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            continue
        if how == "add":
            target = place.get(path[-1]) if path else place
            if isinstance(target, dict):
                target["more"] = value
        elif path and how == "drop":
            place.pop(path[-1], None)
        elif path:
            place[path[-1]] = value
    return context


def _cedar_takes(engine: Engine, context: dict[str, Any]) -> bool:
    """Cedar's word on a request that is given the schema: it decides, or it says that the request does not fit."""
    try:
        return engine.evaluate("bank.pay", "treasury", "acme", context).decision.value in ("Allow", "Deny")
    except PolicyError:
        return False


@settings(max_examples=1500, derandomize=True, deadline=None)
@given(changes=CHANGES)
def test_a_context_fits_exactly_when_cedar_takes_it(engine: Engine, changes: list[Any]) -> None:
    """For contexts with members changed, left out or added, ``decide`` refuses what Cedar refuses, and nothing else."""
    context = _changed(changes)
    takes = _cedar_takes(engine, context)
    assert (engine.decide("bank.pay", "treasury", "acme", context).code != "policy_error") == takes


def test_the_whole_context_is_taken_and_reads_every_kind_of_member(engine: Engine) -> None:
    """The comparison above starts from a context that fits and that holds a member of every type there is."""
    assert _cedar_takes(engine, WHOLE)
    assert engine.decide("bank.pay", "treasury", "acme", WHOLE).code != "policy_error"
    assert set(engine.bundle.compiled.tools["bank.pay"].reads) == {
        "amount", "currency",
        *(f"args.{name}" for name in WHOLE["args"]), *(f"facts.{name}" for name in WHOLE["facts"]),
    }  # fmt: skip
