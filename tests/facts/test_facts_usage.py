"""What people are shown of a window is what the next decision counts, split into settled and held."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.facts import FactDef, FactMachine, subject_of
from countermark.model.records import Record

S = 1_000_000
WIDTH = 10 * S
NOW = 1_790_000_000 * S
SUM = FactDef("total", "window", "amount", 63 * WIDTH, ("agent", "currency"))
COUNT = FactDef("many", "window", "count", 63 * WIDTH, ("payee",), (("tool", ("pay",)),))

_event = st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["p", "q"]), st.sampled_from(["pay", "other"]),
    st.integers(1, 500), st.sampled_from(["open", "confirmed", "failed", "unknown"]), st.integers(0, 20 * WIDTH),
)  # fmt: skip


def fold(events: list[tuple[str, str, str, int, str, int]]) -> tuple[FactMachine, list[Record], int]:
    """The machine, the intents without a final outcome, and the time of the last record."""
    machine, waiting, seq, at = FactMachine([SUM, COUNT]), [], 0, NOW
    for agent, payee, tool, amount, outcome, after in events:
        at += after
        body = {
            "id": f"act_{seq}", "agent": agent, "run": "r", "tool": tool, "args": {}, "mandates": [],
            "disposition": "allow", "terms": {"amount": amount, "currency": "eur", "payee": payee},
        }  # fmt: skip
        intent = Record(seq, "action.decided", at, "gate", body, "", {}, b"", "")
        machine.apply(intent)
        if outcome == "open":
            waiting.append(intent)
        else:
            said = {"id": body["id"], "tool": tool, "intent": seq, "terms": body["terms"], "outcome": outcome,
                    "settled": None, "output": {}, "tier": "enforcing"}  # fmt: skip
            machine.apply(Record(seq + 1, "action.settled", at, "gate", said, "", {}, b"", ""))
            waiting += [intent] if outcome == "unknown" else []
        seq += 2
    return machine, waiting, at


@settings(max_examples=200)
@given(events=st.lists(_event, max_size=25), later=st.integers(0, 70 * WIDTH))
def test_used_and_held_are_what_counts(events: list[tuple[str, str, str, int, str, int]], later: int) -> None:
    """In every group ``used + held`` is what ``compute`` would add to, and ``held`` the open intents still inside."""
    machine, waiting, at = fold(events)
    now = at + later
    found = machine.usage(now, 100)
    for agent, payee in (("a", "p"), ("a", "q"), ("b", "p"), ("b", "q")):
        terms = {"amount": 1, "currency": "eur", "payee": payee}
        subject = subject_of({"agent": agent, "run": "r", "mandates": [], "tool": "pay", "terms": terms, "args": {}})
        values = machine.compute(subject, (), now, ["total", "many"])
        inside = [one for one in waiting if one.at // WIDTH >= now // WIDTH - 63]
        for name, group, held in (
            ("total", [agent, "eur"], sum(o.body["terms"]["amount"] for o in inside if o.body["agent"] == agent)),
            ("many", [payee], sum(o.body["terms"]["payee"] == payee and o.body["tool"] == "pay" for o in inside)),
        ):
            rows = [row for row in found[name]["groups"] if row["group"] == group]
            counted = sum(row["used"] + row["held"] for row in rows)
            assert counted == values[name] - 1  # type: ignore[operator]
            assert sum(row["held"] for row in rows) == held


@settings(max_examples=100)
@given(events=st.lists(_event, min_size=1, max_size=25))
def test_what_falls_out_next_falls_out_then(events: list[tuple[str, str, str, int, str, int]]) -> None:
    """Nothing leaves a group before ``next_at``, and at ``next_at`` exactly ``next`` is gone."""
    machine, _, at = fold(events)
    for name, found in machine.usage(at, 100).items():
        for row in found["groups"]:

            def counted(now: int, name: str = name, group: list[object] = row["group"]) -> int:
                rows = [one for one in machine.usage(now, 100)[name]["groups"] if one["group"] == group]
                return sum(one["used"] + one["held"] for one in rows)

            before = counted(at)
            assert counted(row["next_at"] - 1) == before
            assert counted(row["next_at"]) == before - row["next"]


def test_the_fullest_come_first_and_the_rest_is_counted() -> None:
    """With more groups than are shown, the fullest are, and how many are left out is said."""
    machine, _, at = fold([("a", "p", "pay", 5, "open", 0), ("b", "p", "pay", 9, "confirmed", 0)])
    found = machine.usage(at, 1)["total"]
    assert [row["group"] for row in found["groups"]] == [["b", "eur"]]
    assert found["more"] == 1
