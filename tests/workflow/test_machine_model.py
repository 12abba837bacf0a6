"""The interpreter against a plain model of the same rules, over random definitions and random worlds."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from naive_machine import Naive, plain
from random_runs import Maker, World
from run_fixtures import AGENT, RUN, Drive

from countermark.workflow.check import refusal
from countermark.workflow.commands import Act, Cancel, Compute, End, Sleep
from countermark.workflow.definition import read_definition
from countermark.workflow.machine import Machine

TURNS_MAX = 600
RUNS, AT_ONCE = 200, 25
SLOW_RUNS = 10_000 if os.environ.get("COUNTERMARK_CASES") == "all" else 1_000


def _drive(seed: int) -> Drive:
    return Drive(Maker(seed).definition(), {"text": "t"} if seed % 3 == 0 else None)


def _again(drive: Drive, count: int, now: int) -> Machine:
    """A machine made of the first ``count`` records alone."""
    machine = Machine(drive.definition, RUN, AGENT, drive.started, drive_start(drive))
    for kind, body, at in drive.records[:count]:
        machine.apply(kind, body, at, None)
    machine.time(now)
    return machine


def drive_start(drive: Drive) -> int:
    return 1_790_000_000_000_000


def _naive(drive: Drive) -> Naive:
    return Naive(drive.definition.document, drive.started, drive_start(drive), None, drive.records)


def _same(drive: Drive, seed: int) -> None:
    """Machine, naive model and a machine made anew agree on what may come next."""
    commands = sorted(map(plain, drive.commands()))
    naive = _naive(drive)
    assert commands == sorted(map(plain, naive.commands(drive.at))), f"seed {seed}"
    assert commands == sorted(map(plain, _again(drive, len(drive.records), drive.at).commands())), f"seed {seed}"


def _whole_run(seed: int) -> Drive:
    drive = _drive(seed)
    world = World(seed, drive)
    _same(drive, seed)
    for _ in range(TURNS_MAX):
        if not world.turn():
            break
        _same(drive, seed)
    assert drive.machine.ended, f"seed {seed}: the run did not end"
    naive = _naive(drive)
    assert (drive.machine.status, naive.ended) == (naive.status, True), f"seed {seed}"
    for row in drive.machine.progress():
        known = {naive.place(key): final for key, final in naive.final.items()}
        if row.place in known:
            final = known[row.place]
            assert (row.conclusion, row.outcome, row.code) == (final["conclusion"], final["outcome"], final["code"])
        elif not row.place.endswith(".undo"):
            assert row.conclusion == "skipped"
    return drive


@pytest.mark.parametrize("first", range(0, RUNS, AT_ONCE))
def test_machine_and_model_agree_at_every_record(first: int) -> None:
    """After each record of a random run both ask for the same, a machine made anew of the records too; runs end."""
    for seed in range(first, first + AT_ONCE):
        _whole_run(seed)


@pytest.mark.slow
def test_machine_and_model_agree_on_many_more_runs() -> None:
    """The same over a thousand definitions, or as many as COUNTERMARK_CASES says."""
    for seed in range(RUNS, SLOW_RUNS):
        _whole_run(seed)


def _begun_after(drive: Drive, cancelled_at: int) -> set[tuple[int, int]]:
    """Job and step of the places whose first record comes after the cancellation."""
    where: dict[str, tuple[int, int]] = {}
    for index, job in enumerate(drive.definition.document["jobs"]):
        for step, one in enumerate(job["steps"]):
            for middle in ("", *(f".{number}" for number in range(6))):
                where[f"{job['id']}{middle}.{one['id']}"] = (index, step)
    seen: set[str] = set()
    found: set[tuple[int, int]] = set()
    for number, (_, body, _) in enumerate(drive.records):
        place = body.get("place") or body.get("call_id", "").rpartition(":")[0]
        if place in where and place not in seen and number > cancelled_at:
            found.add(where[place])
        seen.add(place)
    return found


@pytest.mark.parametrize("first", range(0, 24, 4))
def test_a_run_may_be_cancelled_at_every_point(first: int) -> None:
    """Wherever it is: model and machine agree, the run ends, and only what asks for it begins afterwards."""
    for seed in range(first, first + 4):
        points = 0
        while True:
            drive = _drive(seed)
            world = World(seed, drive, cancel_after=points)
            world.cancels = False
            while world.turn():
                if points % 7 == 0:
                    _same(drive, seed)
            cancels = [number for number, record in enumerate(drive.records) if record[0] == "run.cancelled"]
            if world.cancel_after is not None:
                break  # it had ended before
            _same(drive, seed)
            assert drive.machine.ended, f"seed {seed}, cancelled after {points}"
            for index, step in _begun_after(drive, cancels[0]) if drive.machine.status == "cancelled" else ():
                condition = drive.definition.document["jobs"][index]["steps"][step]["if"] or ""
                assert "always()" in condition or "cancelled()" in condition, f"seed {seed}, cancelled after {points}"
            points += 1


def _asked_twice(drive: Drive) -> list[Any]:
    """Attempts that stand in the records twice."""
    calls = [body["call_id"] for kind, body, _ in drive.records if kind == "action.decided" and "tool" in body]
    calls += [f"{body['place']}:{body['attempt']}" for kind, body, _ in drive.records if kind == "compute.executed"]
    return [one for one in calls if calls.count(one) > 1]


def test_nothing_is_asked_for_twice_and_every_record_may_be() -> None:
    """No attempt is repeated; every record passes the check that gate and auditors make; none is a stray."""
    for seed in range(RUNS):
        drive = _drive(seed)
        world = World(seed, drive)
        seen: set[Any] = set()
        while world.turn():
            for command in drive.commands():
                if isinstance(command, Act | Compute):
                    seen.add((command.place, command.attempt))
        assert _asked_twice(drive) == [], f"seed {seed}"
        machine = _again(drive, 0, 0)
        tools = {body["id"]: body for kind, body, _ in drive.records if kind == "action.decided" and "tool" in body}
        for kind, body, at in drive.records:
            full = {**tools[body["id"]], **body} if kind == "action.decided" else body
            why = refusal(machine, kind, full, at)
            late = kind == "run.cancelled" and (machine.over or machine.cancelled)
            assert (why is None) != late, f"seed {seed}: {why}"
            machine.apply(kind, body, at, None)
        assert [kind for _, kind in machine.strays if kind != "run.cancelled"] == [], f"seed {seed}"


def test_what_the_definition_does_not_declare_is_refused() -> None:
    """At every point of a run only its present commands are declared: no other tool, argument, attempt or place."""
    for seed in range(0, RUNS, 5):
        drive = _drive(seed)
        world = World(seed, drive)
        while world.turn():
            machine = drive.machine
            asked = {one.call_id: one for one in drive.commands() if isinstance(one, Act)}
            over = any(isinstance(one, Cancel) for one in drive.commands())  # then what was declared is not asked for
            for job in drive.definition.document["jobs"]:
                for step in job["steps"]:
                    for call_id in (
                        f"{job['id']}.{step['id']}:1",
                        f"{job['id']}.{step['id']}:2",
                        f"{job['id']}.{step['id']}.undo:1",
                    ):
                        assert (machine.declared(call_id, "noop.do") is None) <= (call_id in asked or over)
            for call_id, act in asked.items():
                assert machine.declared(call_id, act.tool, act.args) is None
                assert machine.declared(call_id, "other.tool", act.args) is not None
                assert machine.declared(call_id, act.tool, {**act.args, "more": 1}) is not None
                assert machine.declared(f"{act.place}:{act.attempt + 1}", act.tool, act.args) is not None


def test_made_definitions_are_definitions() -> None:
    """What these tests are made of passes the check of every front end."""
    for seed in range(RUNS):
        document = copy.deepcopy(dict(Maker(seed).definition().document))
        for job in document["jobs"]:
            for pure in (step for step in job["steps"] if step["kind"] == "pure"):  # the model runs no code
                pure["code"] = f"def main({', '.join(name for name, _ in pure['with'])}):\n    return {{}}\n"
        assert read_definition(document).document == document


def test_the_random_runs_meet_everything() -> None:
    """Every command and every kind of end occurs among them: the tests above are not about nothing."""
    kinds: set[str] = set()
    ends: set[tuple[str, bool, bool]] = set()
    for seed in range(RUNS):
        drive = _drive(seed)
        world = World(seed, drive)
        last: list[Any] = []
        while True:
            commands = drive.commands()
            kinds |= {type(one).__name__ for one in commands}
            last = [one for one in commands if isinstance(one, End)] or last
            if not world.turn():
                break
        ends.add((last[0].status, bool(last[0].undone), bool(last[0].left)))
    assert kinds == {"Act", "Call", "Cancel", "Compute", "Delegate", "End", "Resume", "Sleep", "Wait", "Withdraw"}
    assert {status for status, _, _ in ends} == {"success", "failure", "cancelled"}
    assert {(undone, left) for _, undone, left in ends} == {(False, False), (True, False), (False, True), (True, True)}
    assert Sleep.__name__ in kinds
