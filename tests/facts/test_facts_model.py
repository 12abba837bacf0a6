"""The fact and budget machines against a naive model that recomputes every value from all records, by the spec."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.facts import BudgetMachine, FactDef, FactMachine, MissingFactError, subject_of
from countermark.model.records import Record

S = 1_000_000
CHAIN = ["sha256:" + "c" * 64, "sha256:" + "d" * 64]
LIMITS = {
    CHAIN[0]: [
        {"currency": "eur", "amount": 100, "over_us": 0},
        {"currency": "eur", "amount": 1_000, "over_us": 90 * S},
        {"currency": "usd", "amount": 500, "over_us": None},
    ],
    CHAIN[1]: [{"currency": "eur", "amount": 5_000, "over_us": None}],
}
DEFS = (
    FactDef("cap_sum", "window", "amount", 100 * S, ("agent", "currency")),
    FactDef("floor_sum", "window", "amount", 100 * S, ("agent",), use="floor"),
    FactDef("cap_count", "window", "count", 3, (), (("tool", ("pay", "send")), ("args.urgent", (True,)))),
    FactDef("floor_count", "window", "count", 10 * S, ("args.urgent",), use="floor"),
    FactDef("cap_slot", "slot", "", 30 * S, ("payee",)),
    FactDef("floor_slot", "slot", "", 0, ("tool",), (("args.ref", (1,)),), "floor"),
    FactDef("cap_distinct", "distinct", "args.ref", 64 * S, ("agent",)),
    FactDef("floor_distinct", "distinct", "payee", 64 * S, (), (), "floor"),
    FactDef("output_slot", "slot", "", 40 * S, ("agent",), (("output.total", (1, 2, 3, True)),), "floor"),
    FactDef("output_count", "window", "count", 40 * S, (), (("output.total", (True,)), ("tool", ("pay",))), "floor"),
    FactDef("output_payees", "distinct", "payee", 64 * S, (), (("output.total", tuple(range(9))),), "floor"),
    FactDef("grounded", "grounded", "amount", use="floor", tool="read", field="total"),
)
NAMES = tuple(definition.name for definition in DEFS)


def _match(definition: FactDef, subject: dict) -> bool:
    return all(
        any(type(subject.get(name)) is type(v) and subject[name] == v for v in values)
        for name, values in definition.where
    )


def _group(definition: FactDef, subject: dict) -> str | None:
    values = [subject.get(name) for name in definition.group]
    return None if None in values else json.dumps(values)


class Naive:
    """Every question is answered from the list of all records, word by word from docs/spec/facts.md."""

    def __init__(self, records: list[Record]) -> None:
        self.intents = {
            r.seq: r for r in records if r.kind == "action.decided" and r.body["disposition"] in ("allow", "flag")
        }
        settled = [r for r in records if r.kind == "action.settled"]
        self.failed = {
            r.body["intent"] for r in settled if r.body["outcome"] == "failed" and r.body["tier"] != "observing"
        }
        self.confirmed = [r for r in settled if r.body["outcome"] == "confirmed" and r.body["tier"] != "observing"]
        self.moved = {r.body["intent"]: r.body["settled"] for r in self.confirmed}

    def amount(self, seq: int) -> int | None:
        moved = self.moved.get(seq)
        return self.intents[seq].body["terms"]["amount"] if moved is None else moved["amount"]

    def events(self, definition: FactDef, group: str) -> list[tuple[int, int, dict]]:
        if definition.use == "cap":
            found = [(r.at, seq, subject_of(r.body)) for seq, r in self.intents.items()]
        else:
            found = [(r.at, r.body["intent"], self.fields(r)) for r in self.confirmed]
        return [e for e in found if _match(definition, e[2]) and _group(definition, e[2]) == group]

    def fields(self, settled: Record) -> dict:
        """The fields of a confirmation: those of its intent, and its outputs."""
        outputs = {"output." + name: value for name, value in settled.body["output"].items()}
        return {**subject_of(self.intents[settled.body["intent"]].body), **outputs}

    def value(self, definition: FactDef, subject: dict, because: list[str], now: int) -> object:
        if definition.kind == "grounded":
            outputs = [
                r.body["output"][definition.field]
                for r in self.confirmed
                if r.body["id"] in because
                and r.body["tool"] == definition.tool
                and definition.field in r.body["output"]
            ]
            own = subject.get(definition.of)
            return {"known": bool(outputs), "equal": any(type(o) is type(own) and o == own for o in outputs)}
        group = _group(definition, subject)
        if group is None:
            return "missing"
        events = self.events(definition, group)
        if definition.kind == "slot":
            newest = max((at for at, _, _ in events), default=None)
            if newest is None or (definition.over_us and now - newest > definition.over_us):
                return {"known": False}
            return {"known": True, "age_s": (now - newest) // S}
        cap = definition.use == "cap"
        width = -(-definition.over_us // 63)
        alive = [e for e in events if e[0] // width >= now // width - (63 if cap else 62)]
        mine = cap and _match(definition, subject)
        if definition.kind == "distinct":
            values = {json.dumps(e[2].get(definition.of)) for e in alive}
            values |= {json.dumps(subject.get(definition.of))} if mine else set()
            return len(values - {"null"})
        return self._window(definition, subject, alive, mine)

    def _window(self, definition: FactDef, subject: dict, alive: list, mine: bool) -> object:
        counts = definition.of == "count"
        if mine and not counts and subject["amount"] is None:
            return "missing"
        total = 0
        for _, seq, _ in alive:
            if definition.use == "cap" and seq in self.failed:
                continue
            total += 1 if counts else self.amount(seq) or 0
        return total + ((1 if counts else subject["amount"]) if mine else 0)

    def used(self, currency: str, amount: int, now: int) -> list:
        rows = []
        for digest in CHAIN:
            for index, limit in enumerate(LIMITS[digest]):
                if limit["currency"] != currency:
                    continue
                over = limit["over_us"]
                total = amount
                for seq, r in self.intents.items():
                    if seq in self.failed or r.body["terms"]["currency"] != currency or over == 0:
                        continue
                    if over is not None:
                        width = -(-over // 63)
                        if r.at // width < now // width - 63:
                            continue
                    total += self.amount(seq) or 0
                rows.append([digest, index, total])
        return rows


ACTION = st.fixed_dictionaries(
    {
        "agent": st.sampled_from(["a", "b"]),
        "tool": st.sampled_from(["pay", "send", "read"]),
        "payee": st.sampled_from(["acme", "initech", None]),
        "currency": st.sampled_from(["eur", "usd"]),
        "amount": st.integers(1, 50),
        "args": st.fixed_dictionaries(
            {},
            optional={
                "urgent": st.booleans(),
                "ref": st.sampled_from([1, True, "1", 0, False, "x", {"$sd": "sha256:00"}]),
            },
        ),
        "disposition": st.sampled_from(["allow", "allow", "flag", "deny", "escalate"]),
    }
)
OUTCOME = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(["confirmed", "confirmed", "failed", "unknown"]),
        "tier": st.sampled_from(["enforcing", "embedded", "observing"]),
        "settled": st.none() | st.integers(0, 80),
        "output": st.fixed_dictionaries({}, optional={"total": st.integers(1, 5) | st.booleans() | st.integers(1, 50)}),
    }
)
STEPS = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, S, 2 * S, 15 * S, 70 * S]), st.one_of(ACTION, OUTCOME), st.integers(0, 5)),
    min_size=1,
    max_size=40,
)


def _body(seq: int, action: dict, cited: list[str]) -> dict:
    money = action["tool"] != "read"
    return {
        "id": f"act_{seq}", "agent": action["agent"], "run": "run_1", "tool": action["tool"], "args": action["args"],
        "claimed": {"because": cited}, "mandates": CHAIN, "disposition": action["disposition"],
        "terms": {
            "amount": action["amount"] if money else None,
            "currency": action["currency"] if money else None,
            "payee": action["payee"],
        },
    }  # fmt: skip


def _record(seq: int, at: int, kind: str, body: dict) -> Record:
    return Record(seq, kind, at, "gate", body, "", {}, b"", "")


def _settled(seq: int, at: int, intent: Record, outcome: dict) -> Record:
    moved = outcome["settled"]
    body = {
        "id": intent.body["id"], "tool": intent.body["tool"], "intent": intent.seq, "terms": intent.body["terms"],
        "outcome": outcome["outcome"], "tier": outcome["tier"], "output": outcome["output"],
        "settled": None if moved is None or intent.body["terms"]["amount"] is None
        else {"amount": moved, "currency": intent.body["terms"]["currency"]},
    }  # fmt: skip
    return _record(seq, at, "action.settled", body)


def _ask(machine: FactMachine, subject: dict, because: list[str], now: int, name: str) -> object:
    try:
        return machine.compute(subject, because, now, [name])[name]
    except MissingFactError as error:
        return "missing" if (error.fact, error.code) == (name, "fact_missing") else error


def _budgets() -> BudgetMachine:
    budgets = BudgetMachine()
    for digest, limits in LIMITS.items():
        budgets.grant(digest, limits)
    return budgets


@settings(max_examples=50, derandomize=True, deadline=None)
@given(STEPS)
def test_values_equal_a_recount_of_all_records(steps: list) -> None:
    """Every fact and every budget equals what the spec's words give when all records are counted again; a machine
    that was dumped, written as JSON and loaded at each step answers the same, and so does one made by backfill."""
    machine, budgets, records = FactMachine(DEFS), _budgets(), []
    open_: list[Record] = []
    now = 1_790_000_000 * S
    for gap, step, pick in steps:
        now += gap
        seq = len(records)
        if "disposition" in step:
            body = _body(seq, step, [f"act_{seq - 1 - pick}", f"act_{seq - 2}"])
            subject, because = subject_of(body), body["claimed"]["because"]
            naive = Naive(records)
            for definition in DEFS:
                expected = naive.value(definition, subject, because, now)
                assert _ask(machine, subject, because, now, definition.name) == expected, definition.name
            if body["terms"]["amount"] is not None:
                terms = body["terms"]
                used = budgets.used_after(CHAIN, terms["currency"], terms["amount"], now)
                assert used == naive.used(terms["currency"], terms["amount"], now)
            record = _record(seq, now, "action.decided", body)
            if step["disposition"] in ("allow", "flag"):
                open_.append(record)
        elif open_:
            intent = open_[pick % len(open_)]
            record = _settled(seq, now, intent, step)
            if step["outcome"] != "unknown":
                open_.remove(intent)
        else:
            record = _record(seq, now, "gate.started", {})
        records.append(record)
        machine.apply(record)
        budgets.apply(record)
        machine, budgets = _through_json(machine, budgets)
    _same_after_redefinition(machine, records)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True, deadline=None)
@given(STEPS)
def test_values_equal_a_recount_of_all_records_at_length(steps: list) -> None:
    """The same in more examples."""
    test_values_equal_a_recount_of_all_records.hypothesis.inner_test(steps)


def _through_json(machine: FactMachine, budgets: BudgetMachine) -> tuple[FactMachine, BudgetMachine]:
    state = json.loads(json.dumps(machine.dump()))
    loaded = FactMachine(DEFS)
    loaded.load(state)
    assert json.dumps(loaded.dump()) == json.dumps(state)
    spent = json.loads(json.dumps(budgets.dump()))
    again = BudgetMachine()
    again.load(spent)
    assert json.dumps(again.dump()) == json.dumps(spent)
    return loaded, again


def _same_after_redefinition(machine: FactMachine, records: list[Record]) -> None:
    half = FactMachine(DEFS[:4])
    for record in records:
        half.apply(record)
    backfilled = half.redefine(DEFS, records)
    expected, actual = machine.dump(), backfilled.dump()
    assert json.dumps(actual, sort_keys=True) == json.dumps(expected, sort_keys=True)
