"""Time and events start runs in a real gate, each once: over restarts, clocks, stops, and changes of the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trigger_stage import DAY_S, HOUR_S, MONDAY, US, TriggerStage, bodies, clear_kill, flow, hook, schedule, unsound

from countermark.model.errors import CountermarkError, StoreError
from countermark.wiring.triggering import STANDING

NINE = MONDAY // US + 9 * HOUR_S
Begin = Callable[..., TriggerStage]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    made: list[TriggerStage] = []

    def begun(*flows: Any) -> TriggerStage:
        made.append(TriggerStage(tmp_path / "d", *flows))
        return made[-1]

    yield begun
    for one in made:
        one.close()
        assert unsound(one.root) == []


def at(seconds: int, cron: str = "0 9 * * *") -> str:
    return f"{seconds} UTC {cron}"


def test_a_schedule_starts_one_run_at_its_time(begin: Begin) -> None:
    """Not before, once however often it is looked at, with the inputs of its time; the payment is made once."""
    stage = begin(flow(schedule()))
    stage.tick(9 * HOUR_S - 1)
    assert stage.started() == []
    for _ in range(3):
        stage.tick(1)
    assert stage.started() == [("sweep", at(NINE))]
    assert stage.inputs() == ["2026-09-28"]
    (body,) = bodies(stage.root, "run.started")
    assert body["workflow"]["trigger"] == {"kind": "schedule", "event": at(NINE), "record": None}
    stage.tick(DAY_S)
    assert stage.started() == [("sweep", at(NINE)), ("sweep", at(NINE + DAY_S))]
    assert len(stage.provider.effects) == 2


def test_a_restart_at_any_place_starts_nothing_twice(begin: Begin) -> None:
    """Before and after a nominal time, with the file as it was before, and without it."""
    stage = begin(flow(schedule(missed="all")))
    stage.tick(8 * HOUR_S)
    stage.again()
    path, old = stage.root / "data" / STANDING, stage.root / "old"
    shutil.copy(path, old)
    stage.tick(HOUR_S)
    assert len(stage.started()) == 1
    for _ in range(2):
        stage.close()
        shutil.copy(old, path)
        stage.open()
        stage.settle()
    stage.close()
    stage.forget()
    stage.open()
    stage.tick(DAY_S)
    assert stage.started() == [("sweep", at(NINE)), ("sweep", at(NINE + DAY_S))]


@pytest.mark.parametrize(("missed", "days"), [("skip", []), ("latest", [4]), ("all", [0, 1, 2, 3, 4])])
def test_an_absence_is_made_up_as_the_definition_says(begin: Begin, missed: str, days: list[int]) -> None:
    """Five days without a process: nothing, the newest, or all of them in their order; then it goes on."""
    stage = begin(flow(schedule(missed=missed)))
    stage.close()
    stage.clock.advance(4 * DAY_S + 10 * HOUR_S)
    stage.open()
    stage.settle()
    assert stage.started() == [("sweep", at(NINE + day * DAY_S)) for day in days]
    stage.tick(23 * HOUR_S)
    assert stage.started()[len(days) :] == [("sweep", at(NINE + 5 * DAY_S))]
    assert stage.counts.get("left", 0) == (0 if missed == "all" else 1)


def test_two_schedules_at_one_time_are_two_runs(begin: Begin) -> None:
    """Of one definition and of two, at the same minute."""
    stage = begin(flow(schedule(), schedule("0 9 * * MON")), flow(schedule(), name="other"))
    stage.tick(9 * HOUR_S)
    assert sorted(stage.started()) == [
        ("other", at(NINE)), ("sweep", at(NINE)), ("sweep", at(NINE, "0 9 * * MON")),
    ]  # fmt: skip


def test_a_clock_that_jumps_starts_nothing_until_people_say_that_it_is_right(begin: Begin) -> None:
    """Ahead by a day: the gate closes, and what was due is made up when it is open; set back: nothing comes twice."""
    stage = begin(flow(schedule(missed="latest")))
    stage.clock.step(DAY_S)
    for _ in range(3):
        stage.tick(HOUR_S)
    assert stage.started() == []
    (kill,) = stage.handle.call("status", {})["kills"]
    clear_kill(stage.handle, stage.made, kill["kill"])
    stage.settle()
    assert stage.started() == [("sweep", at(NINE))]
    stage.clock.step(-DAY_S)
    stage.settle()
    clear_kill(stage.handle, stage.made, stage.handle.call("status", {})["kills"][0]["kill"])
    stage.tick(7 * HOUR_S)
    assert stage.started() == [("sweep", at(NINE))]
    stage.tick(DAY_S)
    assert stage.started() == [("sweep", at(NINE)), ("sweep", at(NINE + DAY_S))]


def test_a_stop_holds_runs_back_and_loses_no_event(begin: Begin) -> None:
    """While the agent or all is stopped nothing begins; afterwards each event does, and what is too late is left."""
    stage = begin(flow(schedule(), hook()))
    for kind, value in (("agent", "treasury"), ("deployment", "")):
        kill = stage.handle.call("kill.set", {"kind": kind, "value": value, "reason": "drill"})["kill"]
        before = stage.started()
        stage.receive(kind)
        stage.tick(DAY_S)
        assert stage.started() == before
        clear_kill(stage.handle, stage.made, kill)
        stage.settle()
        assert stage.started() == [*before, ("sweep", f"bank e-{kind}")]
    assert stage.counts["left"] == 2


def test_an_event_starts_a_run_once(begin: Begin) -> None:
    """Delivered twice, late, out of order, before and after restarts: one run for each, of each definition."""
    stage = begin(flow(hook()), flow(hook(condition="event.invoice != 'I-2'"), name="other"))
    for number in (3, 1, 2, 1, 3):
        stage.receive(number)
    stage.settle()
    expected = [("sweep", f"bank e-{number}") for number in (3, 1, 2)]
    expected += [("other", f"bank e-{number}") for number in (3, 1)]
    assert sorted(stage.started()) == sorted(expected)
    (seq,) = {body["workflow"]["trigger"]["record"] for body in bodies(stage.root, "run.started")
              if body["workflow"]["inputs"]["invoice"] == "I-3"}  # fmt: skip
    assert stage.store.record(seq).body["event"] == "e-3"
    stage.again()
    stage.receive(2)
    stage.settle()
    assert sorted(stage.started()) == sorted(expected)
    assert len(stage.provider.effects) == 3


def test_what_was_not_started_before_a_stop_is_started_after_it(begin: Begin) -> None:
    """Between the event's record and the run's the process ends, also with the file of before; then it begins."""
    stage = begin(flow(hook()))
    stage.scheduler._save(0)
    old = stage.root / "old"
    shutil.copy(stage.root / "data" / STANDING, old)
    stage.receive(1)
    stage.again()
    stage.receive(2)
    stage.close()
    shutil.copy(old, stage.root / "data" / STANDING)
    stage.open()
    stage.settle()
    assert stage.started() == [("sweep", "bank e-1"), ("sweep", "bank e-2")]


def test_what_cannot_begin_now_begins_when_it_can(begin: Begin) -> None:
    """An agent that is not known: the event waits, through a restart, and passes none of the others by."""
    stage = begin(flow(hook()))
    stage.close()
    stage.agent = "nobody"
    stage.open()
    stage.receive(1)
    stage.settle()
    assert stage.started() == []
    assert stage.counts["failed"] == 1
    stage.tick(120)
    assert stage.counts["failed"] == 2
    stage.close()
    stage.agent = "treasury"
    stage.open()
    stage.receive(2)
    stage.settle()
    assert stage.started() == [("sweep", "bank e-1"), ("sweep", "bank e-2")]


def test_what_does_not_fit_starts_nothing_and_holds_nobody_up(begin: Begin) -> None:
    """No such choice, another type, an expression that fails: told, counted, and passed over for good."""
    stage = begin(flow(hook(), choices=("I-2",)), flow(hook(condition="event.n > 'x'"), name="other"))
    stage.receive(1, payload={"invoice": "I-1", "n": "w"})
    stage.receive("a", payload={"invoice": 7, "n": 1})
    stage.receive(2, payload={"invoice": "I-2", "n": "w"})
    stage.settle()
    assert stage.started() == [("sweep", "bank e-2")]
    assert stage.counts["unstarted"] == 3
    stage.again()
    stage.settle()
    assert stage.counts["unstarted"] == 3


def test_only_what_was_in_force_is_started(begin: Begin) -> None:
    """A trigger that is put in the folder later, or taken out and put back, is not started by what came meanwhile."""
    stage = begin(flow(schedule(missed="all")))
    stage.receive(1)
    stage.tick(60)
    stage.again(flow(hook(), schedule(missed="all")))
    stage.receive(2)
    stage.tick(60)
    stage.again(flow(hook("other")))
    stage.receive(3)
    stage.tick(DAY_S)
    stage.again(flow(hook(), schedule(missed="all")))
    stage.receive(4)
    stage.tick(60)
    assert stage.started() == [("sweep", "bank e-2"), ("sweep", "bank e-4")]


def test_a_changed_definition_goes_on_where_it_was(begin: Begin) -> None:
    """Another digest with the same trigger: an event from before the change starts the one that is there now."""
    stage = begin(flow(hook()))
    stage.receive(1)
    stage.again(flow(hook(), choices=("I-1", "I-2")))
    stage.settle()
    assert stage.started() == [("sweep", "bank e-1")]


def test_a_damaged_file_is_not_passed_over(begin: Begin) -> None:
    """Whoever cannot read how far it was says so, and does not begin anew by itself."""
    stage = begin(flow(hook()))
    stage.close()
    for text in ("", "{", "[]", '{"v":1,"lane":"l0","heard":"x","force":{}}', '{"v":1,"lane":"l0"}'):
        (stage.root / "data" / STANDING).write_text(text)
        with pytest.raises(StoreError):
            stage.open()
        stage.handle.close()
    (stage.root / "data" / STANDING).unlink()
    stage.open()


def test_many_events_are_started_in_bounded_steps(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than may wait, more runs than may begin at once: each is started once all the same."""
    from countermark.workflow import scheduler

    monkeypatch.setattr(scheduler, "PENDING_MAX", 7)
    monkeypatch.setattr(scheduler, "BEGUN_MAX", 3)
    stage = begin(flow(hook()))
    for number in range(30):
        stage.receive(number)
    stage.settle()
    assert sorted(stage.started()) == sorted(("sweep", f"bank e-{number}") for number in range(30))
    with pytest.raises(CountermarkError):
        stage.receive(1, digest="sha256:" + "1" * 64)


def test_an_event_that_nobody_was_told_of_starts_its_run(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that failed may stand in the journal all the same; nothing else need happen for it to be found."""
    stage = begin(flow(hook()))
    writer = stage.handle.gate.lane._writer
    assert writer is not None
    commit = writer.store.commit

    def fails(batch: Any) -> None:
        commit(batch)
        raise StoreError("the disk did not answer")

    monkeypatch.setattr(writer.store, "commit", fails)
    with pytest.raises(CountermarkError):
        stage.receive(1)
    for _ in range(2):
        stage.settle()
    assert stage.started() == [("sweep", "bank e-1")]
