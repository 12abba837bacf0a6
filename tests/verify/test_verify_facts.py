"""The fact engine against a literal reading of docs/spec/facts.md that walks the whole history each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark_verify import facts
from countermark_verify.facts import MISSING, Facts, Intent

OVER = 630  # ten microseconds a bucket
MANDATE = "sha256:" + "1" * 64


@dataclass
class Event:
    """One intent and what became of it: (at, outcome, settled amount, enforcing)."""

    intent: Intent
    outcome: str = "open"
    settled: int | None = None
    settled_at: int = 0
    enforcing: bool = True

    def amount(self) -> int:
        return int(self.intent.terms["amount"] if self.settled is None else self.settled)


def definition(kind: str, use: str, over: int | None, of: str = "amount") -> dict[str, Any]:
    where = [["tool", ["pay"]], ["args.urgent", [True, False]]]
    base = {"name": f"{kind}-{use}-{over}-{of}", "kind": kind, "use": use, "of": of, "over_us": over}
    return base | {"group": ["agent"], "where": where, "tool": "", "field": ""}


DEFINITIONS = [
    definition(kind, use, over, of)
    for kind, of in (("window", "amount"), ("window", "count"), ("slot", ""), ("distinct", "payee"))
    for use in ("cap", "floor")
    for over in (OVER, 7, None)
]


def make(seq: int, at: int, fields: dict[str, Any]) -> Intent:
    terms = {"amount": fields["amount"], "currency": "EUR", "payee": fields["payee"]}
    return Intent(seq, "", f"act{seq}", at, fields | {"mandate": MANDATE}, [MANDATE], terms, None, "enforcing", "")


def matching(fields: dict[str, Any]) -> bool:
    return fields["tool"] == "pay" and type(fields.get("args.urgent")) is bool


def naive(document: dict[str, Any], history: list[Event], fields: dict[str, Any], now: int) -> Any:
    """The table of facts.md, read off for one definition."""
    over, cap = document["over_us"], document["use"] == "cap"
    width = None if over is None else -(-over // 63)
    first = 0 if width is None else now // width - (63 if cap else 62)
    own = cap and matching(fields)
    found = [e for e in history if matching(e.intent.fields) and e.intent.fields["agent"] == fields["agent"]]
    if not cap:
        found = [e for e in found if e.outcome == "confirmed" and e.enforcing]
    times = [(e.intent.at if cap else e.settled_at, e) for e in found]
    if document["kind"] == "slot":
        newest = max((at for at, _ in times), default=None)
        if newest is None or (over and now - newest > over):
            return {"known": False}
        return {"known": True, "age_s": (now - newest) // 1_000_000}
    live = [(at, e) for at, e in times if width is None or at // width >= first]
    if document["kind"] == "distinct":
        values = {e.intent.fields["payee"] for _, e in live} | ({fields["payee"]} if own else set())
        return len(values)
    if cap:
        live = [(at, e) for at, e in live if e.outcome != "failed"]
    if document["of"] == "count":
        return len(live) + own
    return sum(e.amount() if e.enforcing else e.intent.terms["amount"] for _, e in live) + (fields["amount"] * own)


FIELDS = st.fixed_dictionaries(
    {
        "agent": st.sampled_from(["a", "b"]),
        "tool": st.sampled_from(["pay", "pay", "look"]),
        "payee": st.sampled_from(["p", "q", "r", "s"]),
        "currency": st.just("EUR"),
        "amount": st.integers(0, 50),
        "args.urgent": st.sampled_from([True, False, 1, None]),
    }
)
STEP = st.tuples(
    st.integers(0, 120),
    FIELDS,
    st.sampled_from(["open", "confirmed", "failed", "observed"]),
    st.none() | st.integers(0, 60),
)


@given(st.lists(STEP, max_size=40))
@settings(derandomize=True, max_examples=150, deadline=None)
def test_every_value_is_the_one_of_the_literal_reading(
    steps: list[tuple[int, dict[str, Any], str, int | None]],
) -> None:
    """Windows, slots, distinct counts and budgets, caps and floors, with failures, settlements and observed reports."""
    engine = Facts(DEFINITIONS)
    limits = [{"currency": "EUR", "amount": 1, "over_us": over} for over in (0, OVER, None)]
    engine.open_budgets(MANDATE, limits)
    history: list[Event] = []
    now = 1_000
    for seq, (wait, fields, outcome, settled) in enumerate(steps):
        now += wait
        for document in DEFINITIONS:
            assert engine.compute(document, fields, now, []) == naive(document, history, fields, now), document["name"]
        terms = {"amount": fields["amount"], "currency": "EUR", "payee": fields["payee"]}
        used = [engine.used(MANDATE, index, terms, now) for index in range(3)]
        assert used == [naive_budget(history, terms, now, limit["over_us"]) for limit in limits]
        event = Event(make(seq, now, fields))
        history.append(event)
        engine.intent(event.intent)
        now += 3
        settle(engine, event, outcome, settled, now)


def naive_budget(history: list[Event], terms: dict[str, Any], now: int, over: Any) -> int:
    if over == 0:
        return int(terms["amount"])
    width = None if over is None else -(-over // 63)
    live = [e for e in history if width is None or e.intent.at // width >= now // width - 63]
    sums = [0 if e.outcome == "failed" else e.amount() if e.enforcing else e.intent.terms["amount"] for e in live]
    return int(sum(sums) + terms["amount"])


def settle(engine: Facts, event: Event, outcome: str, settled: int | None, at: int) -> None:
    if outcome == "failed":
        event.outcome = "failed"
        engine.failed(event.intent)
    elif outcome == "observed":
        # An observing report changes nothing: the amount held stays the intent's.
        event.outcome, event.enforcing = "confirmed", False
    elif outcome == "confirmed":
        event.outcome, event.settled, event.settled_at = "confirmed", settled, at
        engine.confirmed(event.intent, at, settled, {})


def action(**more: Any) -> dict[str, Any]:
    base = {"agent": "a", "tool": "pay", "payee": "p", "currency": "EUR", "amount": 5, "args.urgent": True}
    return base | more


def test_a_missing_group_field_is_missing_and_no_zero() -> None:
    """Absence never looks like a small number."""
    document = definition("window", "cap", OVER) | {"group": ["args.region"]}
    engine = Facts([document])
    assert engine.compute(document, action(), 1, []) is MISSING


def test_more_than_4096_distinct_values_are_missing() -> None:
    """4,096 are counted; one more cannot be."""
    document = definition("distinct", "cap", None, "payee")
    engine = Facts([document])
    for seq in range(facts.DISTINCT_MAX):
        engine.intent(make(seq, 1, action(payee=f"p{seq}")))
    assert engine.compute(document, action(payee="p0"), 2, []) == facts.DISTINCT_MAX
    assert engine.compute(document, action(payee="one more"), 2, []) is MISSING


@pytest.mark.parametrize(
    ("output", "amount", "value"),
    [
        ({"amount": 5}, 5, {"known": True, "equal": True}),
        ({"amount": 6}, 5, {"known": True, "equal": False}),
        ({"amount": "5"}, 5, {"known": True, "equal": False}),
        ({"amount": True}, 1, {"known": True, "equal": False}),
        ({"other": 5}, 5, {"known": False, "equal": False}),
    ],
)
def test_grounded_compares_type_and_value(output: dict[str, Any], amount: int, value: dict[str, bool]) -> None:
    """An argument equals a cited output only with the same JSON type and value."""
    document = definition("grounded", "floor", 0, "amount") | {"group": [], "tool": "look", "field": "amount"}
    engine = Facts([document])
    cited = make(0, 1, action(tool="look"))
    engine.intent(cited)
    assert engine.compute(document, action(amount=amount), 2, ["act0"]) == {"known": False, "equal": False}
    engine.confirmed(cited, 2, None, output)
    assert engine.compute(document, action(amount=amount), 3, ["act0"]) == value
    assert engine.compute(document, action(amount=amount), 3, []) == {"known": False, "equal": False}


def test_an_output_older_than_the_newest_ones_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest confirmations of a tool can be cited."""
    monkeypatch.setattr(facts, "GROUNDED_NEWEST", 3)
    document = definition("grounded", "floor", 0, "amount") | {"group": [], "tool": "pay", "field": "n"}
    engine = Facts([document])
    for seq in range(4):
        engine.confirmed(make(seq, seq, action()), seq, None, {"n": 5})
    assert engine.compute(document, action(), 9, ["act0"])["known"] is False
    assert engine.compute(document, action(), 9, ["act1"]) == {"known": True, "equal": True}
