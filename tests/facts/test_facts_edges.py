"""Edges of the fact machine: bounds, types, snapshots, definitions."""

from __future__ import annotations

import dataclasses
import json

import pytest

from countermark.facts import BudgetMachine, FactDef, FactMachine, MissingFactError, Window, subject_of
from countermark.model.errors import AuthorityError, PolicyError, StoreError
from countermark.model.records import Record

S = 1_000_000
NOW = 1_790_000_000 * S


def intent(seq: int, at: int = NOW, **changes: object) -> Record:
    body = {
        "id": f"act_{seq}", "agent": "a", "run": "run_1", "tool": "pay", "args": {}, "mandates": [],
        "disposition": "allow", "terms": {"amount": 10, "currency": "eur", "payee": "acme"}, **changes,
    }  # fmt: skip
    return Record(seq, "action.decided", at, "gate", body, "", {}, b"", "")


def confirmed(seq: int, of: Record, at: int = NOW, **changes: object) -> Record:
    body = {
        "id": of.body["id"], "tool": of.body["tool"], "intent": of.seq, "terms": of.body["terms"],
        "outcome": "confirmed", "settled": None, "output": {}, "tier": "enforcing", **changes,
    }  # fmt: skip
    return Record(seq, "action.settled", at, "gate", body, "", {}, b"", "")


def value(machine: FactMachine, name: str, now: int = NOW, because: tuple[str, ...] = (), **fields: object) -> object:
    subject = {**subject_of(intent(0).body), **fields}
    return machine.compute(subject, because, now, [name])[name]  # type: ignore[arg-type]


def test_a_missing_group_field_is_a_missing_fact() -> None:
    """An action without a group field has no value, and the error names the fact and the field."""
    machine = FactMachine([FactDef("w", "window", "count", S, ("payee",))])
    with pytest.raises(MissingFactError, match="no payee") as caught:
        value(machine, "w", payee=None)
    assert caught.value.fact == caught.value.message == "w"


def test_an_undefined_fact_is_a_missing_fact() -> None:
    """Asking for a fact that is not defined raises; it does not return zero."""
    with pytest.raises(MissingFactError):
        value(FactMachine([]), "w")


def test_a_sum_beyond_the_record_profile_is_a_missing_fact() -> None:
    """A value that a record could not hold is refused before it decides anything."""
    machine = FactMachine([FactDef("w", "window", "amount", S)])
    terms = {"amount": 2**53 - 2, "currency": "eur", "payee": None}
    machine.apply(intent(0, terms=terms))
    assert value(machine, "w", amount=1) == 2**53 - 1
    with pytest.raises(MissingFactError, match=r"2\^53"):
        value(machine, "w", amount=2)


def test_more_than_4096_distinct_values_are_a_missing_fact_until_they_expire() -> None:
    """4,096 distinct values count, one more denies; memory stays bounded; once they expire it counts again."""
    machine = FactMachine([FactDef("d", "distinct", "payee", 63 * S)])
    for i in range(5_000):
        machine.apply(intent(i, terms={"amount": 1, "currency": "eur", "payee": f"p{i}"}))
        if i == 4_094:
            assert value(machine, "d", payee="new") == 4_096
    with pytest.raises(MissingFactError, match="4096"):
        value(machine, "d", payee="p1")
    (group,) = machine.dump()["facts"]["d"]["state"]
    assert len(group[1]) == 4_097
    assert value(machine, "d", payee="new", now=NOW + 64 * S) == 1


def test_a_grounded_output_is_forgotten_after_10000_newer_ones() -> None:
    """Only the newest 10,000 confirmations of the tool are known; an older citation is unknown, not equal."""
    machine = FactMachine([FactDef("g", "grounded", "amount", use="floor", tool="pay", field="total")])
    for i in range(10_001):
        machine.apply(intent(2 * i))
        machine.apply(confirmed(2 * i + 1, intent(2 * i), output={"total": 10}))
    assert value(machine, "g", because=("act_0",)) == {"known": False, "equal": False}
    assert value(machine, "g", because=("act_2",)) == {"known": True, "equal": True}


def test_true_is_not_one() -> None:
    """Groups, values and outputs keep JSON types apart: true is not 1, "1" is not 1."""
    machine = FactMachine([FactDef("w", "window", "count", S, ("args.x",)), FactDef("d", "distinct", "args.x", S)])
    for seq, x in enumerate([True, 1, "1", True]):
        machine.apply(intent(seq, args={"x": x}))
    assert [value(machine, "w", **{"args.x": x}) for x in (True, 1, "1", False)] == [3, 2, 2, 1]
    assert value(machine, "d", **{"args.x": 1}) == 3
    loaded = FactMachine(machine.defs)
    loaded.load(json.loads(json.dumps(machine.dump())))
    assert [value(loaded, "w", **{"args.x": x}) for x in (True, 1, "1", False)] == [3, 2, 2, 1]


def test_sensitive_arguments_are_no_fields() -> None:
    """A salted digest never becomes a field that facts could group by."""
    assert "args.note" not in subject_of(intent(0, args={"note": {"$sd": "sha256:00"}, "ok": 1}).body)


def test_an_observing_confirmation_satisfies_no_floor() -> None:
    """A report by the agent's own process closes the intent but proves nothing."""
    machine = FactMachine([FactDef("s", "slot", use="floor"), FactDef("w", "window", "amount", S)])
    machine.apply(intent(0))
    machine.apply(confirmed(1, intent(0), tier="observing", settled={"amount": 1, "currency": "eur"}))
    assert value(machine, "s") == {"known": False}
    assert value(machine, "w", amount=1) == 11


def test_compute_changes_nothing_even_far_in_the_future() -> None:
    """A question about a later time leaves the state as it is."""
    defs = [FactDef("w", "window", "amount", S), FactDef("d", "distinct", "payee", S), FactDef("s", "slot", "", S)]
    machine = FactMachine(defs)
    machine.apply(intent(0))
    before = [value(machine, d.name) for d in defs]
    for definition in defs:
        value(machine, definition.name, now=NOW + 10**15)
    assert [value(machine, d.name) for d in defs] == before


def test_a_snapshot_of_other_definitions_is_refused() -> None:
    """A snapshot is a cache: under changed definitions it must not be used."""
    old = FactMachine([FactDef("w", "window", "amount", S)])
    new = FactMachine([FactDef("w", "window", "amount", 2 * S)])
    with pytest.raises(StoreError):
        new.load(old.dump())
    with pytest.raises(StoreError):
        new.load({})
    with pytest.raises(StoreError):
        BudgetMachine().load({"v": 2})


def test_redefinition_leaves_the_old_machine_alone() -> None:
    """The plan of an activation may still fail; the machine in force must not have moved."""
    machine = FactMachine([FactDef("w", "window", "amount", S)])
    machine.apply(intent(0))
    fresh = machine.redefine(machine.defs, ())
    fresh.apply(intent(1))
    assert value(machine, "w", amount=1) == 11
    assert value(fresh, "w", amount=1) == 21


def test_expired_groups_leave_the_snapshot() -> None:
    """A group whose newest event has left the window is dropped by ``dump``."""
    defs = [FactDef("w", "window", "count", S, ("payee",)), FactDef("s", "slot", "", S, ("payee",))]
    machine = FactMachine(defs)
    machine.apply(intent(0, terms={"amount": 1, "currency": "eur", "payee": "old"}))
    machine.apply(intent(1, at=NOW + 100 * S, terms={"amount": 1, "currency": "eur", "payee": "new"}))
    facts = machine.dump()["facts"]
    assert [row[0] for row in facts["w"]["state"]] == [["new"]]
    assert [row[0] for row in facts["s"]["state"]] == [["new"]]


def test_settling_what_is_not_open_halts() -> None:
    """An outcome without its intent means the history is not what it seems; the machine raises instead of guessing."""
    with pytest.raises(StoreError):
        FactMachine([]).apply(confirmed(1, intent(0)))
    with pytest.raises(StoreError):
        BudgetMachine().apply(confirmed(1, intent(0)))


def test_an_unknown_mandate_has_no_budget() -> None:
    """Asking for a mandate that was never granted raises; it is not an empty list of limits."""
    with pytest.raises(AuthorityError):
        BudgetMachine().used_after(["sha256:00"], "eur", 1, NOW)


def test_granting_twice_keeps_what_was_used() -> None:
    """A mandate is named by its digest; enrolling it again must not reset its budget."""
    budgets = BudgetMachine()
    limits = [{"currency": "eur", "amount": 30, "over_us": None}]
    budgets.grant("m", limits)
    budgets.apply(intent(0, mandates=["m"]))
    budgets.grant("m", limits)
    assert budgets.used_after(["m"], "eur", 5, NOW) == [["m", 0, 15]]
    assert budgets.limit("m", 0) == 30


def test_a_ring_never_holds_more_than_64_buckets() -> None:
    """Whatever is added, memory per group stays at 64 integers."""
    window = Window(10)
    for at in range(0, 5_000, 7):
        window.add(at, 1)
        assert len(window.buckets) <= 64
        assert window.total == sum(window.buckets.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Bad"}, {"kind": "sum"}, {"use": "both"}, {"over_us": 0}, {"over_us": -1}, {"over_us": 1.5},
        {"of": "payee"}, {"group": ["colour"]}, {"group": ["agent", "agent"]}, {"where": [["agent", []]]},
        {"where": [["agent", [1.5]]]}, {"where": [["nope", ["x"]]]}, {"where": 3}, {"tool": "x"},
        {"kind": "grounded"}, {"kind": "slot"}, {"kind": "distinct", "of": "count"}, {"where": [["agent", "ab"]]},
        {"over_us": True}, {"extra": 1}, {"where": [["output.x", [1]]]}, {"use": "floor", "group": ["output.x"]},
        {"use": "floor", "where": [["output.X", [1]]]}, {"use": "floor", "where": [["output.", [1]]]},
        {"kind": "distinct", "use": "floor", "of": "output.x"},
    ],
)  # fmt: skip
def test_a_wrong_definition_is_refused(changes: dict) -> None:
    """Each definition that the spec does not allow raises, and the right one round-trips."""
    good = FactDef("w", "window", "amount", S, ("agent",), (("tool", ("pay",)),))
    assert FactDef.from_document(good.document()) == good
    with pytest.raises(PolicyError):
        FactDef.from_document({**good.document(), **changes})


def test_a_machine_refuses_what_from_document_refuses() -> None:
    """A definition made by hand passes the same check, and a name stands once."""
    good = FactDef("w", "window", "amount", S)
    with pytest.raises(PolicyError):
        FactMachine([dataclasses.replace(good, over_us=0)])
    with pytest.raises(PolicyError):
        FactMachine([good, good])


def test_an_output_decides_what_a_confirmation_counts_for() -> None:
    """Another value or type, no such output and a mere report count for nothing; a snapshot keeps the state."""
    defs = [FactDef("s", "slot", where=(("output.ok", (True,)),), use="floor")]
    machine = FactMachine(defs)
    for seq, (output, tier) in enumerate((({"ok": False}, "enforcing"), ({"ok": 1}, "enforcing"), ({}, "enforcing"),
                                          ({"ok": True}, "observing"))):  # fmt: skip
        asked = intent(2 * seq)
        machine.apply(asked)
        machine.apply(confirmed(2 * seq + 1, asked, output=output, tier=tier))
        assert value(machine, "s") == {"known": False}
    last = intent(10)
    machine.apply(last)
    again = FactMachine(defs)
    again.load(machine.dump())
    for one in (machine, again):
        one.apply(confirmed(11, last, output={"ok": True}))
        assert value(one, "s") == {"known": True, "age_s": 0}
