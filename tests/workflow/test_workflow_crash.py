"""A process that dies, or a loop that is unlucky, between any two things that the engine does: every run goes on."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flow_rig import AGENT, an_input, document, job, pay, ref, step, three_steps
from rig import bodies, unsound
from support import records
from test_workflow_engine import Stage, agent_step
from trigger_stage import advance

from countermark.compute import UnconfinedError
from countermark.gate.driving import receive
from countermark.model.clock import FakeClock
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import AuthorityError, GateHaltedError, StoreError
from countermark.workflow import engine as engines
from countermark.workflow import roster as rosters
from countermark.workflow.definition import read_definition
from countermark.workflow.engine import Engine
from countermark.workflow.projection import Projection
from countermark.workflow.roster import Roster


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path / "d", clock=FakeClock())
    yield found
    found.handle.close()
    assert unsound(found.root) == []


def engine_of(stage: Stage) -> Engine:
    workflows = stage.handle._end._workflows  # type: ignore[union-attr]
    found: Engine = asyncio.run_coroutine_threadsafe(workflows.engine(), stage.handle.gate.loop).result()
    return found


def on_loop(stage: Stage, work: Callable[[], Any]) -> Any:
    async def there() -> Any:
        return work()

    return asyncio.run_coroutine_threadsafe(there(), stage.handle.gate.loop).result()


def clock_of(stage: Stage) -> FakeClock:
    assert stage.clock is not None
    return stage.clock


def passes(stage: Stage, seconds: int) -> None:
    advance(stage.handle, clock_of(stage), seconds)


def event(name: str, key: str) -> dict[str, Any]:
    return {"source": "bank", "event": name, "key": key, "payload": None, "digest": "sha256:" + "0" * 64,
            "scheme": "t", "evidence": None}  # fmt: skip


def wait_for(key: Any, name: str = "w", **more: Any) -> dict[str, Any]:
    return step("wait", name, for_={"kind": "event", "source": "bank", "key": key}, **more)


def by_key(**more: Any) -> dict[str, Any]:
    return document(job("main", wait_for(ref("inputs.key"))), inputs={"key": an_input("string")}, **more)


def rows_of(stage: Stage) -> list[Path]:
    return sorted((stage.root / "data").glob("runs.db*"))


def dies(stage: Stage, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    """From here on nothing that is only in memory reaches this run."""
    enqueue = Roster.enqueue
    monkeypatch.setattr(Roster, "enqueue", lambda roster, one: None if one == run else enqueue(roster, one))


def kept(stage: Stage, folder: Path) -> None:
    """A copy of the rows as they are now."""
    on_loop(stage, engine_of(stage).roster.flush)
    folder.mkdir()
    for path in rows_of(stage):
        shutil.copy(path, folder)


def reopened(stage: Stage, monkeypatch: pytest.MonkeyPatch, rows: Path | None) -> None:
    """After a death: with the rows that were kept, or with none."""
    stage.handle.close()
    monkeypatch.undo()
    for path in rows_of(stage):
        path.unlink()
    if rows is not None:
        for path in rows.iterdir():
            shutil.copy(path, stage.root / "data")
    stage.handle = stage.opened()


def over(stage: Stage, run: str, turns: int = 200) -> str:
    """How a run ended; it has so many looks to do it in."""
    for _ in range(turns):
        found = stage.drive(run)
        if found["status"] not in ("running", "waiting"):
            return str(found["status"])
        asyncio.run(asyncio.sleep(0.01))
    return str(found["status"])


def waits_of(stage: Stage) -> list[str]:
    return [body["run"] for body in bodies(stage.root, "step.waiting")]


def waited(stage: Stage, run: str, count: int) -> None:
    """So many waits have begun; ``run`` is driven meanwhile."""
    for _ in range(500):
        if len(waits_of(stage)) >= count:
            return
        if run:
            stage.drive(run)
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError(f"fewer than {count} waits have begun")


@pytest.mark.parametrize("taken", [True, False])
def test_the_next_of_a_group_goes_on_when_the_process_dies_as_one_ends(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, taken: bool
) -> None:
    """Whether the end of the one before it was taken into the rows or not."""
    flow = by_key(concurrency={"group": "g", "cancel": False})
    one, two = stage.start(flow, key="one")["run"], stage.start(flow, key="two")["run"]
    if not taken:
        kept(stage, tmp_path / "rows")
    dies(stage, monkeypatch, two)
    stage.handle.call("event.received", event("e", "one"))
    assert over(stage, one) == "success"
    if taken:
        kept(stage, tmp_path / "rows")
    reopened(stage, monkeypatch, tmp_path / "rows")
    stage.handle.call("event.received", event("f", "two"))
    assert over(stage, two) == "success"


def test_a_run_that_was_woken_and_had_no_turn_yet_goes_on_after_a_death(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That something happened to a row stands in the row."""
    run = stage.start(by_key(), key="one")["run"]
    monkeypatch.setattr(rosters, "LIVE_MAX", 0)
    stage.handle.call("event.received", event("e", "one"))
    kept(stage, tmp_path / "rows")
    reopened(stage, monkeypatch, tmp_path / "rows")
    assert over(stage, run) == "success"


@pytest.mark.parametrize("kind", ["event", "call", "agent"])
def test_rows_that_are_made_anew_know_what_ended_a_wait(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Without the file, what happened before anybody went on is read from the journal."""
    inner = by_key(name="inner")
    stage.handle.call("workflow.define", {"document": inner})
    waits = {
        "event": wait_for("one"), "agent": agent_step(),
        "call": step("call", "sub", workflow=digest_of(WORKFLOW, inner), with_={"key": "one"}),
    }  # fmt: skip
    run = stage.start(document(job("main", waits[kind])))["run"]
    if kind == "call":
        stage.drive(bodies(stage.root, "step.waiting")[0]["for"]["run"])
    dies(stage, monkeypatch, run)
    if kind == "agent":
        inside = bodies(stage.root, "step.waiting")[-1]["for"]["run"]
        stage.handle.call("run.end", {"run": inside, "reason": "done", "outputs": {"paid": 1}})
    else:
        stage.handle.call("event.received", event("e", "one"))
    if kind == "call":
        over(stage, bodies(stage.root, "step.waiting")[0]["for"]["run"])
    reopened(stage, monkeypatch, None)
    assert over(stage, run) == "success"


def test_an_event_that_ended_a_wait_does_not_end_another_when_rows_are_made_anew(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a wait used is used, whoever remembers it."""
    steps = (wait_for("one", "a"), wait_for("two", "b"), wait_for("one", "c"))
    run = stage.start(document(job("main", *steps)))["run"]
    stage.handle.call("event.received", event("e", "one"))
    waited(stage, run, 2)
    reopened(stage, monkeypatch, None)
    stage.handle.call("event.received", event("f", "two"))
    waited(stage, run, 3)
    assert stage.drive(run)["status"] == "waiting"
    stage.handle.call("event.received", event("g", "one"))
    assert over(stage, run) == "success"
    assert len({body["event"] for body in bodies(stage.root, "step.resumed")}) == 3


def test_an_event_that_came_before_two_waits_ends_both(stage: Stage) -> None:
    """Each takes the first event that had ended no wait when it began."""
    late = {"needs": ["main"]}
    first = job("main", wait_for("two", "a"))
    flow = document(first, job("p", wait_for("one"), **late), job("q", wait_for("one"), **late))
    run = stage.start(flow)["run"]
    stage.handle.call("event.received", event("e", "one"))
    stage.handle.call("event.received", event("f", "two"))
    assert over(stage, run, 5) == "success"
    assert [body["event"] for body in bodies(stage.root, "step.resumed")][1:] == [
        record.seq for record in records(stage.root) if record.kind == "event.received"
    ][:1] * 2


def test_two_events_in_one_batch_end_a_wait_once(stage: Stage) -> None:
    """The first does; the second is there for whoever waits next."""
    run = stage.start(document(job("main", wait_for("one", "a"), wait_for("one", "b"))))["run"]
    lane = stage.handle.gate.lane
    both = lane.ask(lambda writer: [receive(writer, event(name, "one")) for name in ("e", "f")])
    asyncio.run_coroutine_threadsafe(both, stage.handle.gate.loop).result()
    assert over(stage, run) == "success"
    assert [body["place"] for body in bodies(stage.root, "step.resumed")] == ["main.a", "main.b"]


def halting(stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str) -> list[str]:
    """The next commit with such a record is durable, and fails: nobody is told of it."""
    lane, failed = stage.handle.gate.lane, []
    writer = lane._writer
    assert writer is not None
    commit = writer.store.commit

    def once(batch: Any) -> None:
        commit(batch)
        if not failed and any(record.kind == kind for record in batch.records):
            failed.append(kind)
            raise StoreError("the disk did not answer")

    monkeypatch.setattr(writer.store, "commit", once)
    return failed


@pytest.mark.parametrize("kind", ["run.started", "action.settled", "event.received", "run.ended"])
def test_what_a_halted_lane_recorded_is_taken(stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A commit that failed may stand in the journal all the same: runs go on from what stands there, once."""
    flow = document(job("main", wait_for("one"), pay(), step("wait", "x", for_={"kind": "time", "seconds": 0})))
    body = {"document": flow, "inputs": {}, "agent": "treasury", "wait": True,
            "trigger": {"kind": "manual", "event": "once", "record": None}}  # fmt: skip
    engine_of(stage)
    failed = halting(stage, monkeypatch, kind)
    if kind == "run.started":
        with pytest.raises(GateHaltedError):
            stage.handle.call("workflow.start", body)
    run = stage.handle.call("workflow.start", body)["run"]
    for _ in range(3):
        try:
            stage.handle.call("event.received", event("e", "one"))
            break
        except GateHaltedError:
            continue
    for _ in range(400):
        with suppress(GateHaltedError):  # the pass itself may be what the failed commit halts
            passes(stage, 1)
        if stage.drive(run)["status"] == "success":
            break
        asyncio.run(asyncio.sleep(0.01))
    assert failed == [kind]
    assert stage.drive(run)["status"] == "success"
    assert len(stage.provider.effects) == 1
    for once in ("run.started", "run.ended", "action.settled"):
        assert len(bodies(stage.root, once)) == 1
    assert len(bodies(stage.root, "step.waiting")) == len(bodies(stage.root, "step.resumed")) == 2


def test_a_run_is_begun_though_one_before_it_could_not_be_superseded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is over by then is no reason to tell whoever starts it that it was not."""
    flow = by_key(concurrency={"group": "g", "cancel": True})
    stage.start(flow, key="one")

    async def cancel(*_: Any) -> None:
        raise AuthorityError("the run is over", code="run_over")

    monkeypatch.setattr(Engine, "cancel", cancel)
    assert stage.start(flow, key="two")["fresh"]


@pytest.mark.parametrize("what", ["park", "end"])
def test_a_row_that_cannot_be_written_is_written_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A run is let go of in memory once its row says how it is, so whoever waits for it is answered."""
    write, failed = getattr(Projection, what), []

    def once(*args: Any) -> Any:
        if not failed:
            failed.append(what)
            raise sqlite3.OperationalError("database or disk is full")
        return write(*args)

    run = stage.start(by_key(), key="one")["run"] if what == "end" else ""
    monkeypatch.setattr(Projection, what, once)

    async def ticks() -> None:
        for _ in range(400):
            await stage.handle.gate.lane.ask(lambda writer: clock.advance(1))
            await asyncio.sleep(0.01)

    clock = clock_of(stage)
    ticking = asyncio.run_coroutine_threadsafe(ticks(), stage.handle.gate.loop)
    if what == "park":
        assert stage.start(by_key(), key="one")["status"] == "waiting"
    else:
        stage.handle.call("event.received", event("e", "one"))
        assert over(stage, run) == "success"
    ticking.cancel()
    assert failed == [what]


def test_rows_of_another_journal_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restore: the rows know records that the journal does not have."""
    stage = Stage(tmp_path / "d", clock=FakeClock())
    run = stage.start(by_key(), key="one")["run"]
    stage.handle.close()
    shutil.copytree(stage.root, tmp_path / "older", ignore=shutil.ignore_patterns("gate.sock"))
    stage.handle = stage.opened()
    for number in range(5):
        stage.start(three_steps(), amount=1, invoice=f"I-{number}")
    kept(stage, tmp_path / "rows")
    stage.handle.close()
    shutil.rmtree(stage.root)
    shutil.copytree(tmp_path / "older", stage.root)
    stage.handle = stage.opened()
    reopened(stage, monkeypatch, tmp_path / "rows")
    stage.handle.call("event.received", event("e", "one"))
    assert over(stage, run) == "success"
    rows = engine_of(stage).roster.rows
    assert len(on_loop(stage, rows.ended)) == 1
    stage.handle.close()


def test_time_comes_while_an_effect_is_under_way(stage: Stage) -> None:
    """A provider that takes long keeps no other job of the run from going on."""
    stage.provider.script.append("hold")
    later = step("wait", "later", for_={"kind": "time", "seconds": 60})
    body = {"document": document(job("one", pay()), job("two", later)), "inputs": {}, "agent": "treasury"}
    run = stage.handle.call("workflow.start", body)["run"]
    stage.provider.held.acquire()
    waited(stage, "", 1)
    passes(stage, 61)
    for _ in range(200):
        if bodies(stage.root, "step.resumed"):
            break
        asyncio.run(asyncio.sleep(0.01))
    resumed = bodies(stage.root, "step.resumed")
    stage.provider.go.set()
    assert over(stage, run) == "success"
    assert [body["code"] for body in resumed] == ["time"]


def test_an_engine_that_could_not_start_drives_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call makes another one, which is alone."""
    catch_up, tried = Roster.catch_up, list[Roster]()

    def once(roster: Roster) -> None:
        tried.append(roster)
        if len(tried) == 1:
            raise StoreError("the disk did not answer")
        catch_up(roster)

    monkeypatch.setattr(Roster, "catch_up", once)
    with pytest.raises(StoreError):
        stage.start(by_key(), key="one")
    run = stage.start(by_key(), key="one")["run"]
    stage.handle.call("event.received", event("e", "one"))
    assert over(stage, run) == "success"
    assert [roster._seen > 0 for roster in tried] == [False, True]
    assert len(stage.handle.gate.desk.followers) == 1


def test_a_run_goes_on_though_whoever_began_it_went_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first commit may be durable by then: what stands in the journal is driven."""
    engine, gone = engine_of(stage), list[str]()
    advance = engine._desk.advance

    async def leaving(run: str, parts: Any, edge: int | None = None) -> Any:
        task = asyncio.current_task()
        if task is not None and not gone:
            gone.append(run)
            asyncio.get_running_loop().call_soon(task.cancel)
        return await advance(run, parts, edge)

    monkeypatch.setattr(engine._desk, "advance", leaving)
    flow = read_definition(document(job("main", step("wait", "w", for_={"kind": "time", "seconds": 1}))))
    manual = {"kind": "manual", "event": "", "record": None}
    begun = asyncio.run_coroutine_threadsafe(engine.begin(flow, AGENT, {}, manual), stage.handle.gate.loop)
    with pytest.raises((asyncio.CancelledError, CancelledError)):
        begun.result()
    waited(stage, "", 1)
    passes(stage, 2)
    assert over(stage, gone[0], 500) == "success"


def test_a_run_that_cannot_go_on_gives_its_place_to_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is full of runs whose code cannot be run, others go on; it is tried again, and `show` says why."""

    class Nobody:
        """No worker can be confined here."""

        def submit(self, *_: Any) -> Any:
            raise UnconfinedError("a worker cannot be confined here")

        def close(self) -> None: ...

    monkeypatch.setattr(rosters, "LIVE_MAX", 1)
    monkeypatch.setattr(engines, "LIVE_MAX", 1)
    engine: Any = engine_of(stage)
    workers, engine._planner._workers = engine._planner._workers, Nobody()
    first = step("wait", "w", for_={"kind": "time", "seconds": 1})
    code = step("pure", "a", code="def main():\n    return {}\n", outputs={})
    one = stage.start(document(job("main", first, code)))["run"]
    passes(stage, 2)
    while not stage.handle.call("workflow.show", {"run": one})["fault"]:
        asyncio.run(asyncio.sleep(0.01))
    two = stage.start(document(job("main", first, pay()), name="other"))["run"]
    passes(stage, 2)
    assert stage.over(two)["status"] == "success"
    assert "confined" in stage.handle.call("workflow.show", {"run": one})["fault"]
    engine._planner._workers = workers
    passes(stage, 120)
    assert stage.over(one)["status"] == "success"
