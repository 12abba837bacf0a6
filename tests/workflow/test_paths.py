"""A run held against a definition that was written later: every way in which a path can differ has its name."""

from __future__ import annotations

from typing import Any

import pytest
from random_runs import Maker, World
from run_fixtures import START, Defined, Drive, define, effect, job, pause, pure, var

from countermark.model.canon import canon
from countermark.model.digest import RECORD, digest
from countermark.model.records import Record
from countermark.workflow.graph import svg
from countermark.workflow.paths import path_of


def records_of(run: Drive) -> list[Record]:
    """The run's records as a store has them."""
    told = [("run.started", run.started, START), *run.records]
    return [
        Record(seq, kind, at, "gate", body, "", {}, raw := canon(body), digest(RECORD, raw))
        for seq, (kind, body, at) in enumerate(told, 40)
    ]


def paid(*before: str, amount: Any = 5, tool: str = "noop.do") -> Drive:
    """A run that computed some steps, then paid, then ended."""
    run = Drive(define(job("a", *[pure(name) for name in before], effect("pay", {"amount": amount}, tool=tool))))
    for name in before:
        run.computed(f"a.{name}")
    run.done("a.pay", ref="tr_1")
    run.end()
    return run


def held(run: Drive, planned: Defined) -> list[tuple[str, str, str]]:
    found = path_of(planned, run.definition, records_of(run))
    return [(one.place, one.kind, one.what) for one in found.deviations]


PAY = effect("pay", {"amount": var("inputs.amount")})


@pytest.mark.parametrize(
    ("run", "planned", "expected"),
    [
        (paid("screen"), define(job("a", pure("screen"), PAY)), []),
        (paid(), define(job("a", pure("screen"), PAY)), [("a.screen", "skipped", "")]),
        (paid("extra"), define(job("a", PAY)), [("a.extra", "not_declared", "")]),
        (paid("x", "y"), define(job("a", pure("y"), pure("x"), PAY)), [("a.x", "order", "a.y")]),
        (paid(amount=7), define(job("a", PAY)), [("a.pay", "argument", "amount")]),
        (paid(tool="noop.other"), define(job("a", PAY)), [("a.pay", "tool", "noop.other")]),
        (paid("pay2"), define(job("a", effect("pay2"), PAY)), [("a.pay2", "kind", "effect")]),
        (paid("screen"), define(job("a", pure("screen", if_="false"), PAY)), [("a.screen", "not_allowed", "")]),
        (paid(), define(job("b", pure("screen")), job("a", PAY, needs=("b",))), [("b.screen", "skipped", "")]),
        (paid(), define(job("b", pure("screen")), job("a", PAY)), [("b.screen", "skipped", "")]),
        (paid(), define(job("a", PAY, pause("w", {"kind": "event", "source": "s", "key": "k"}))),
         [("a.w", "skipped", "")]),
    ],
    ids=["same", "skipped", "not declared", "order", "argument", "tool", "kind", "not allowed", "need", "beside",
         "wait"],
)  # fmt: skip
def test_each_deviation_has_its_name(run: Drive, planned: Defined, expected: list[tuple[str, str, str]]) -> None:
    """Place, kind and what it is about; nothing else is called a deviation."""
    assert held(run, planned) == expected


def test_one_deviation_does_not_hide_the_next() -> None:
    """A check that was never made, and an amount that is not the planned one; what hangs on the check is not judged."""
    planned = define(job("a", pure("check", outputs={"limit": "int"}),
                         effect("pay", {"amount": 6, "limit": var("steps.check.outputs.limit")})))  # fmt: skip
    done = Drive(define(job("a", effect("pay", {"amount": 5, "limit": 9}))))
    done.done("a.pay")
    done.end()
    assert held(done, planned) == [("a.pay", "argument", "amount"), ("a.check", "skipped", "")]


def test_attempts_that_the_definition_does_not_allow() -> None:
    """A second attempt where one is declared."""
    retry = {"attempts": 2, "delay_s": 1, "factor": 1}
    done = Drive(define(job("a", effect("pay", retry=retry))))
    done.done("a.pay", "failed", "provider_error")
    done.wait(1)
    done.done("a.pay")
    done.end()
    assert held(done, define(job("a", effect("pay")))) == [("a.pay", "not_allowed", "attempt")]


def test_what_an_open_run_has_not_done_yet_is_no_deviation() -> None:
    """Only what comes before something that was done."""
    done = Drive(define(job("a", pure("x"), effect("pay"), pure("last"))))
    done.computed("a.x")
    done.done("a.pay")
    assert held(done, define(job("a", pure("x"), effect("pay"), pure("more"), pure("last")))) == []
    done.computed("a.last")
    assert held(done, define(job("a", pure("x"), effect("pay"), pure("more"), pure("last")))) == [
        ("a.more", "skipped", "")
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_run_never_deviates_from_its_own_definition(seed: int) -> None:
    """Whatever failed, was tried again, undone, timed out or cancelled."""
    run = Drive(Maker(seed).definition())
    world = World(seed, run)
    for _ in range(400):
        if run.machine.ended or not world.turn():
            break
    assert held(run, run.definition) == []


def test_a_step_whose_condition_is_false_is_not_planned() -> None:
    """What a run has still to do is; so is what it left out."""
    planned = define(job("a", pure("never", if_="false"), pure("screen"), PAY))
    found = path_of(planned, paid().definition, records_of(paid()))
    assert found.planned == ("a.screen", "a.pay")
    assert [(one.place, one.kind) for one in found.deviations] == [("a.screen", "skipped")]


def test_a_run_is_drawn_with_what_it_did_otherwise() -> None:
    """The plan, with the step that was never done marked."""
    run, planned = paid(), define(job("a", pure("screen"), PAY))
    found = path_of(planned, run.definition, records_of(run))
    drawn = svg(planned, found.progress, deviations=found.marks())
    assert "⚠ was not done" in drawn
    assert "1 deviation" in drawn
