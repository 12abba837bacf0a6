"""Whether a run may go on by another definition."""

from __future__ import annotations

from typing import Any

import pytest
from random_runs import Maker, World
from run_fixtures import AGENT, RUN, Defined, Drive, call, define, effect, job, pause, pure, var

from countermark.workflow.commands import Sleep
from countermark.workflow.machine import Machine
from countermark.workflow.migration import may_migrate

PAY = {"amount": var("inputs.amount")}


def _ran(definition: Defined) -> Drive:
    """A run whose first effect is settled and whose second waits for people."""
    run = Drive(definition)
    run.computed("a.check", {"ok": "y"})
    run.done("a.pay", ref="r1")
    run.decided("a.book", "escalate", "needs_approval")
    return run


def _steps(**changed: Any) -> list[Any]:
    steps = {
        "check": pure("check", {"x": var("inputs.amount")}, {"ok": "string"}), "pay": effect("pay", PAY),
        "book": effect("book", {"ref": var("steps.pay.outputs.ref")}), "after": pure("after"),
    }  # fmt: skip
    return [step for step in {**steps, **changed}.values() if step is not None]


def _records(run: Drive) -> list[Any]:
    first = ("run.started", {**run.started, "run": RUN, "agent": AGENT}, 1_790_000_000_000_000, 0)
    return [first, *((kind, body, at, seq + 1) for seq, (kind, body, at) in enumerate(run.records))]


OLD = define(job("a", *_steps()))


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        define(job("a", *_steps(after=None))),
        define(job("a", *_steps(after=effect("other")))),
        define(job("a", *_steps()), job("b", pure("more"), needs=("a",))),
        define(job("a", *_steps(pay=effect("pay", {"amount": 5})))),
        define(job("a", *_steps(pay=effect("pay", PAY, retry={"attempts": 3, "delay_s": 1, "factor": 1})))),
        define(job("a", *_steps(pay=effect("pay", PAY, undo=("noop.undo", {})))), timeout_s=600),
    ],
)
def test_a_run_may_go_on_where_nothing_that_it_did_would_have_been_otherwise(new: Defined) -> None:
    """Later steps, retries, undos, and another way to write the same arguments are no obstacle."""
    run = _ran(OLD)
    assert may_migrate(_records(run), OLD, new) is None
    machine = Machine(new, RUN, AGENT, run.started, 1_790_000_000_000_000)
    for kind, body, at, seq in _records(run)[1:]:
        machine.apply(kind, body, at, seq)
    assert machine.strays == []
    assert [one for one in machine.commands() if not isinstance(one, Sleep)] == []


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (define(job("a", *_steps(pay=effect("pay", {"amount": 6})))), "asks for something else"),
        (define(job("a", *_steps(pay=effect("pay", PAY, tool="noop.other")))), "asks for something else"),
        (define(job("a", *_steps(book=effect("book", {"ref": True})))), "asks for something else"),
        (define(job("a", *_steps(check=None))), "does not ask for it here"),
        (define(job("a", pure("first"), *_steps())), "does not ask for it here"),
        (define(job("a", *_steps(pay=effect("pay", PAY, if_="inputs.amount == 6")))), "does not ask for it here"),
        (define(job("z", *_steps())), "does not ask for it here"),
        (define(job("b", pure("s")), job("a", *_steps(), needs=("b",))), "does not ask for it here"),
        (
            define(job("a", *_steps(check=pure("check", {"x": 5}, {"ok": "string"}, code="other")))),
            "asks for something else",
        ),
        (define(job("a", *_steps(check=pure("check", {"x": 5}, {"ok": "int"})))), "asks for something else"),
    ],
)
def test_a_run_may_not_go_on_where_it_did_something_else(new: Defined, why: str) -> None:
    """Another argument, tool, text or type of code, order or condition: the reason names the record."""
    found = may_migrate(_records(_ran(OLD)), OLD, new)
    assert found is not None
    assert why in found
    assert "record" in found


def test_an_argument_s_type_counts() -> None:
    """1 and true are two arguments, whatever Python thinks of them."""
    old, new = (define(job("a", effect("pay", {"x": value}))) for value in (1, True))
    run = Drive(old)
    run.decided("a.pay")
    assert may_migrate(_records(run), old, new) is not None


def test_a_wait_keeps_its_times() -> None:
    """A wait that began keeps its time and its timeout; one that was not reached may have others."""

    def of(seconds: int, timeout_s: int | None) -> Defined:
        return define(job("a", pure("s"), pause("w", {"kind": "time", "seconds": seconds}, timeout_s=timeout_s)))

    run = Drive(of(60, 120))
    run.computed("a.s")
    assert may_migrate(_records(run), of(60, 120), of(90, None)) is None
    run.waiting("a.w")
    assert may_migrate(_records(run), of(60, 120), of(60, 120)) is None
    assert may_migrate(_records(run), of(60, 120), of(90, 120)) is not None
    assert may_migrate(_records(run), of(60, 120), of(60, 180)) is not None


def test_inputs_and_name_stay() -> None:
    """The inputs are those that the run was started with, and so is the name."""
    run = Drive(OLD)
    inputs = OLD.document["inputs"]
    amount = inputs["amount"]
    for change, why in (
        ({"name": "other"}, "another name"),
        ({"inputs": {}}, "not in both"),
        ({"inputs": {**inputs, "more": inputs["text"]}}, "not in both"),
        ({"inputs": {**inputs, "amount": {**amount, "type": "string"}}}, "another type"),
        ({"inputs": {**inputs, "amount": {**amount, "choices": [1, True]}}}, "choices"),
    ):
        found = may_migrate(_records(run), OLD, Defined({**OLD.document, **change}, "sha256:" + why))
        assert found is not None
        assert why in found


def test_only_a_living_run_of_a_definition_goes_on() -> None:
    """Neither one that ended nor one of an agent."""
    run = Drive(define(job("a", pure("s"))))
    run.computed("a.s")
    run.end()
    assert may_migrate(_records(run), run.definition, run.definition) == "it has ended"
    plain = [("run.started", {"run": RUN, "agent": AGENT}, 1, 0)]
    assert may_migrate(plain, OLD, OLD) == "it is no run of a definition"


def test_every_run_may_go_on_by_its_own_definition() -> None:
    """At every record of random runs: a definition is a path of itself."""
    for seed in range(40):
        drive = Drive(Maker(seed).definition())
        world = World(seed, drive)
        while world.turn():
            pass
        records = _records(drive)[:-1]
        for count in range(1, len(records) + 1, 3):
            assert may_migrate(records[:count], drive.definition, drive.definition) is None, f"seed {seed}"


def test_a_call_that_could_not_begin_is_the_same_call_in_the_other_definition() -> None:
    """What did not fit there might fit another one."""
    old = define(job("a", call("c", {"x": 1}), pause("w", {"kind": "time", "seconds": 60}, if_="always()")))
    run = Drive(old)
    run.resumed("a.c", "failure", "unfit")
    later = pause("w", {"kind": "time", "seconds": 60}, if_="always()")
    assert may_migrate(_records(run), old, define(job("a", call("c", {"x": 1}), later), job("b", pure("s")))) is None
    for other in (call("c", {"x": 2}), call("c", {"x": 1}, workflow="sha256:" + "d" * 64)):
        why = may_migrate(_records(run), old, define(job("a", other, later)))
        assert why is not None
        assert "asks for something else" in why
