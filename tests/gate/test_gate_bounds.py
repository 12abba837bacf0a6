"""What an agent asks for is bounded: open runs, parked actions, bytes of a record, snapshots, memory."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rig import (
    ACME,
    AGENT,
    BOREALIS,
    TOOL,
    Provider,
    args_for,
    bodies,
    edited,
    hold,
    kinds,
    make,
    pay,
    rebuilt_equally,
    signed_answer,
    unsound,
    waiting,
)  # fmt: skip
from support import records

import countermark
from countermark.connectors import NoopConnector
from countermark.gate import Caller, actions, caches
from countermark.gate.dispatch import Intent
from countermark.gate.prepare import ASKED_BYTES_MAX
from countermark.journal import SqliteStore
from countermark.model.canon import RECORD_BYTES_MAX
from countermark.model.errors import ArgumentError, AuthorityError, StoreError
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request

LARGE = 600_000
ACTION = "act_" + "0" * 32


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot after every batch of at least one record."""
    monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
    monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)


def snapshot_of(root: Path) -> tuple[int, bytes] | None:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return store.snapshot()
    finally:
        store.close()


@pytest.mark.usefixtures("often")
def test_open_runs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with too many open runs gets no more, nothing is recorded; ending one makes room, also after a start."""
    monkeypatch.setattr(actions, "RUNS_OPEN_MAX", 3)
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        runs = [handle.start_run() for _ in range(3)]
    with hold(tmp_path / "d", provider) as handle:
        for _ in range(2):
            with pytest.raises(AuthorityError) as caught:
                handle.start_run()
            assert caught.value.code == "too_many_runs"
        assert pay(handle, 1, run=runs[0]).status == "confirmed"
        handle.call("run.end", {"run": runs[1], "reason": "over"})
        handle.start_run()
        with pytest.raises(AuthorityError):
            handle.start_run()
    assert kinds(tmp_path / "d").count("run.started") == 4


def test_parked_actions_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with too many parked actions parks no more: nothing is recorded, so the same call may ask later."""
    monkeypatch.setattr(actions, "PARKED_MAX", 2)
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        for number in (1, 2):
            assert pay(handle, number, LARGE).status == "escalated"
        size = handle.call("status", {})["records"]
        with pytest.raises(AuthorityError) as caught:
            pay(handle, 3, LARGE)
        assert (caught.value.code, caught.value.retryable) == ("too_many_waiting", True)
        assert handle.call("status", {})["records"] == size
        assert pay(handle, 4).status == "confirmed"
        handle.call("answer", signed_answer(made, waiting(handle)[0]))
        assert pay(handle, 3, LARGE).status == "escalated"
    assert unsound(tmp_path / "d") == []


def wide_tools() -> dict[str, str]:
    """The transfer tool with ten more arguments of free text: enough to fill a record."""
    head = '[tool."stripe.transfers.create".args."metadata[invoice]"]'
    more = "".join(
        f'[tool."stripe.transfers.create".args."metadata[n{n}]"]\nclass = "inert"\nalias = "n{n}"\nchars_max = 1024\n\n'
        for n in range(10)
    )
    return {head: more + head}


def wide_args(number: int, size: int) -> dict[str, Any]:
    """Arguments whose free text takes ``size`` bytes: characters of four bytes each."""
    texts = {}
    for n in range(10):
        here = min(size, 4_096) // 4
        texts[f"metadata[n{n}]"] = "\U0001f600" * here
        size -= 4 * here
    return args_for(number, LARGE) | texts


def test_an_action_that_waits_always_fits_into_its_next_record(tmp_path: Path) -> None:
    """What is parked can be approved: arguments too large for that are refused before a decision, nothing halts."""
    provider = Provider()
    made = make(tmp_path / "d", provider, tools=wide_tools())
    claim = {"model": "é" * 200, "trace": "é" * 200, "because": [ACTION] * 32}
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        parked = 0
        for number, size in enumerate((36_000, 37_000, 38_000, 39_000, 40_000, 40_960)):
            body = {"run": run, "call_id": f"c-{number}", "tool": TOOL, "args": wide_args(number, size), **claim}
            try:
                handle.call("act", body)
            except ArgumentError:
                continue
            parked += 1
            largest = size
            assert handle.call("answer", signed_answer(made, waiting(handle)[0]))["result"]["status"] == "confirmed"
        assert largest in (37_000, 38_000)
    assert len(provider.effects) == parked
    assert max(len(str(body["args"]).encode()) for body in bodies(tmp_path / "d", "action.decided")) < ASKED_BYTES_MAX
    assert unsound(tmp_path / "d") == []


def test_a_decision_too_large_to_be_recorded_twice_is_not_parked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound holds for the whole decision, not only for what the agent sent; nothing is recorded of its values."""
    monkeypatch.setattr(actions, "PARKED_BYTES_MAX", 1_000)
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        with pytest.raises(ArgumentError):
            pay(handle, 1, LARGE)
        assert waiting(handle) == []
        assert pay(handle, 2).status == "confirmed"
    assert kinds(tmp_path / "d").count("action.refused") == 1


class Wordy(Provider):
    """A provider whose answers are longer than a record."""

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        done = super().execute(tool, request)
        return Outcome(done.status, done.code, ref="r" * 70_000, request_id="q" * 70_000, output={"id": "o" * 70_000})


def test_a_provider_cannot_say_more_than_fits(tmp_path: Path) -> None:
    """An effect whose answer is longer than a record is recorded all the same, without what does not fit."""
    provider = Wordy()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1).status == "confirmed"
        assert handle.call("status", {})["open"] == []
    (settled,) = bodies(tmp_path / "d", "action.settled")
    assert (len(settled["ref"]), settled["output"]) == (500, {})
    assert len(str(settled)) < RECORD_BYTES_MAX


@pytest.mark.parametrize(
    "claim",
    [
        {"model": "m\x1b[2J"}, {"trace": "a\nb"}, {"trace": "\udfff"}, {"model": "\x85"}, {"reason": "r\x1b[2J"},
        {"because": ["x"]}, {"because": [ACTION + "\n"]}, {"because": ["act_" + "A" * 32]}, {"reason": "\ud800"},
    ],
)  # fmt: skip
def test_a_claim_has_no_control_characters(tmp_path: Path, claim: Mapping[str, Any]) -> None:
    """Claims are shown to people on terminals: control characters and entries that are no action IDs are refused."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        body = {"run": handle.start_run(), "call_id": "c", "tool": TOOL, "args": args_for(1)}
        with pytest.raises(ArgumentError) as caught:
            handle.call("act", {**body, **claim})
        assert caught.value.code == "bad_argument"
        said = {"model": "é", "because": [ACTION], "reason": "two\nlines"}
        assert handle.call("act", {**body, **said})["status"] == "confirmed"
    assert len(provider.sent) == 1


@pytest.mark.parametrize("invoice", ["INV-7\u200b", "INV-７", "ＩＮＶ-7", "-./", " ", "INV\u00ad-7", "INV-7\u0301"])
def test_a_business_key_is_text_that_can_be_seen(tmp_path: Path, invoice: str) -> None:
    """Without any pattern in the policy, an invoice number that looks like another one is refused, not paid again."""
    provider = Provider()
    pattern = 'pattern = "[A-Za-z0-9][A-Za-z0-9 ./_-]{0,63}"\n'
    tools = edited()["tools.toml"].replace(pattern, "")
    cases = edited()["tests/vendors.toml"].split('[[case]]\nname = "an invoice number with')[0]
    make(tmp_path / "d", provider, edit={"tools.toml": tools, "tests/vendors.toml": cases})
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 7)
        with pytest.raises(ArgumentError) as caught:
            handle.act(TOOL, {**args_for(7), "metadata[invoice]": invoice}, call_id="again")
        assert (caught.value.code, caught.value.field) == ("bad_argument", "metadata[invoice]")
    assert len(provider.sent) == 1
    assert bodies(tmp_path / "d", "action.refused")[-1]["field"] == "metadata[invoice]"
    assert unsound(tmp_path / "d") == []


@pytest.mark.usefixtures("often")
def test_streams_go_on_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly any stream in memory, streams go on without a gap, within one process and after a start."""
    monkeypatch.setattr(caches, "STREAMS_CLEAN_MAX", 2)
    provider = Provider()
    make(tmp_path / "d", provider)
    for turn in range(3):
        with hold(tmp_path / "d", provider) as handle:
            runs = [handle.start_run() for _ in range(4)]
            for number, run in enumerate(runs * 2):
                pay(handle, f"{turn}-{number}", destination=(ACME, BOREALIS)[number % 2], run=run)
            assert len(handle.gate.lane._writer.streams._clean) <= 2  # type: ignore[union-attr]
            handle.call("run.end", {"run": runs[0], "reason": "over"})
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_many_streams_are_written_without_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Touched streams leave memory also where no snapshot is due, and where everything is folded anew."""
    monkeypatch.setattr(caches, "DIRTY_MAX", 5)
    provider = Provider()
    make(tmp_path / "d", provider)
    before = snapshot_of(tmp_path / "d")  # of whichever test made the deployment that this one is a copy of
    for _ in range(2):
        with hold(tmp_path / "d", provider) as handle:
            for _ in range(20):
                handle.start_run()
                assert len(handle.gate.lane._writer.streams.dirty) <= 6  # type: ignore[union-attr]
    assert snapshot_of(tmp_path / "d") == before
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("broken", ["store", "document"])
def test_a_snapshot_that_fails_halts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """A snapshot that cannot be written, or made, is logged; payments go on, and the next start folds the records."""
    provider = Provider()
    make(tmp_path / "d", provider)

    def fail(*_: object) -> None:
        raise StoreError("disk full") if broken == "store" else TypeError("not JSON")

    with hold(tmp_path / "d", provider) as handle:
        writer = handle.gate.lane._writer
        assert writer is not None
        if broken == "store":
            monkeypatch.setattr(writer.store, "save", fail)
        else:
            monkeypatch.setattr(writer.state, "dump", fail)
        with caplog.at_level(logging.WARNING, "countermark.lane"):
            for number in range(3):
                assert pay(handle, number).status == "confirmed"
        assert "the next start reads more records" in caplog.text
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 0, call_id="again").code == "duplicate_obligation"
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


@pytest.mark.usefixtures("often")
def test_a_large_snapshot_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound there is no new snapshot; the one before stays good, and without one everything is folded."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 0)
    before = snapshot_of(tmp_path / "d")
    assert before is not None
    monkeypatch.setattr(caches, "SNAPSHOT_BYTES_MAX", 100)
    with hold(tmp_path / "d", provider) as handle:
        for number in range(1, 4):
            assert pay(handle, number).status == "confirmed"
    assert snapshot_of(tmp_path / "d") == before
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 3, call_id="again").code == "duplicate_obligation"
    assert unsound(tmp_path / "d") == []


@pytest.mark.usefixtures("often")
def test_streams_without_their_snapshot_are_not_used(tmp_path: Path) -> None:
    """Where the records are folded anew, stored streams that no record knows are gone."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 0)
    db = sqlite3.connect(tmp_path / "d" / "data" / "journal.db")
    db.execute("insert into stream values ('r.nobody', 5, 'sha256:0')")
    db.execute("delete from snapshot")
    db.commit()
    db.close()
    with hold(tmp_path / "d", provider) as handle:
        pay(handle, 1)
    assert rebuilt_equally(tmp_path / "d")
    assert unsound(tmp_path / "d") == []


def test_snapshots_are_a_small_part_of_what_is_written() -> None:
    """A snapshot is due only after its size's multiple in records, so their sum stays below a part of the journal."""
    pace = caches.Pace()
    journal = snapshots = 0
    for _ in range(300):
        pace.count(1_000, 1_500_000)
        journal += 1_500_000
        if pace.due(1 << 40):
            pace.restart()
            pace.last_bytes = 400_000 + journal // 20  # a state that grows with the journal
            snapshots += pace.last_bytes
    assert 0 < snapshots < journal / caches.SNAPSHOT_PART + pace.last_bytes


@pytest.mark.parametrize(("log", "due"), [(0, 2_000), (63_999, 2_000), (64_000, 10_000), (1 << 40, 10_000)])
def test_saves_are_small_until_the_log_is_long(log: int, due: int) -> None:
    """A save holds the lane up, so it is small; in a long log it would still write every page, so it is seldom."""
    pace = caches.Pace()
    pace.count(due - 1, 1 << 20)
    assert not pace.due(log)
    pace.count(1, 1_000)
    assert pace.due(log)


def test_a_snapshot_does_not_grow_with_what_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that ended, actions that were settled and their streams are not in it; an open run takes some 40 bytes."""
    monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 1)
    monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
    connector = NoopConnector()
    make(tmp_path / "d", connector)
    sizes = []

    def size() -> None:
        found = snapshot_of(tmp_path / "d")
        sizes.append(0 if found is None else len(found[1]))

    with countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": connector}) as handle:
        for number in range(90):
            run = handle.start_run()
            pay(handle, number, run=run)
            handle.call("run.end", {"run": run, "reason": "over"})
            if number in (29, 89):
                size()
        for _ in range(100):
            handle.start_run()
        handle.call("status", {})
        size()
    assert sizes[1] - sizes[0] < 300
    assert sizes[2] - sizes[1] < 100 * 60


def _sizes(root: object, depth: int = 7) -> dict[str, int]:
    """The length of every container that can be reached from ``root`` by attributes and items, by its path."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def look(value: object, path: str, left: int) -> None:
        if left == 0 or id(value) in seen or isinstance(value, (str, bytes, int, type)) or callable(value):
            return
        seen.add(id(value))
        inside = getattr(value, "__dict__", None) or {
            name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())
        }
        if isinstance(value, (dict, list, set, frozenset, tuple)) or type(value).__name__ == "deque":
            found[path] = len(value)  # type: ignore[arg-type]
            if isinstance(value, dict) and len(value) < 100:
                inside = {**inside, **{str(key): item for key, item in value.items()}}
        if type(value).__module__.startswith("countermark") or isinstance(value, dict):
            for name, item in inside.items():
                look(item, f"{path}.{name}", left - 1)

    look(root, "", depth)
    return found


@pytest.mark.slow
def test_no_container_grows_with_the_number_of_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand actions later, whatever gate, lane, state and executor hold is as large as after a thousand."""
    monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", 100)
    monkeypatch.setattr(caches, "SNAPSHOT_PART", 1)
    connector = NoopConnector()
    make(tmp_path / "d", connector)
    with countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": connector}) as handle:
        gate, run, caller = handle.gate, handle.start_run(), Caller(AGENT, "embedded")

        async def one(number: int) -> None:
            body = {"run": run, "call_id": f"c-{number}", "tool": TOOL, "args": args_for(number)}
            assert (await gate.act(caller, body)).status == "confirmed"

        async def many(start: int, count: int) -> None:
            for first in range(start, start + count, 50):
                await asyncio.gather(*(one(number) for number in range(first, first + 50)))

        def sizes() -> dict[str, int]:
            """Right after a save: how much is unsaved depends on how the actions fell into batches."""
            gate.wait(gate.lane.ask(lambda writer: writer._save(writer._snapshot())))
            gate.wait(gate.lane.ask(lambda writer: None))  # the cycle of the save is over
            return _sizes(gate)

        gate.wait(many(0, 1_000))
        before = sizes()
        gate.wait(many(1_000, 2_000))
        assert gate.wait(gate.lane.ask(lambda writer: writer._changed())) < 1_000  # saves keep up by themselves
        after = sizes()
        intent, executor = next(r for r in records(tmp_path / "d") if r.kind == "action.decided"), gate._executor
        executor._tried[intent.seq] = 1
        gate.wait(executor._settle(gate.lane, Intent(intent), Outcome("unknown", "timeout"), "lookup"))
        assert executor._tried == {}  # what was settled meanwhile needs no memory of its tries
    assert any("executor._tried" in path for path in after)
    assert any("_writer.state" in path for path in after)
    grown = {
        path: (before.get(path, 0), size)
        for path, size in after.items()
        if size > before.get(path, 0) + 60 and ".connectors." not in path  # the noop connector keeps a bounded number
    }
    assert grown == {}
