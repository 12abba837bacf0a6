"""Epochs: the gate closes each once, at midnight of the policy's zone or when asked, and what they say is true."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from rig import AGENT, TOOL, Provider, args_for, bodies, hold, kinds, make, pay, rebuilt_equally, unsound

from countermark.gate import Caller, epochs
from countermark.model.clock import FakeClock
from countermark.model.streams import GENERAL, kind_of, stream_of, streams_of, time_of
from countermark.policy import midnight_after

START = 1_793_606_400_000_000  # Monday 2026-11-02 08:00 UTC
DAY_S = 86_400
HOUR_US = 3_600_000_000


def turn(handle: object) -> None:
    gate = handle.gate  # type: ignore[attr-defined]
    gate.wait(gate.epochs.turn())


def test_the_first_turn_after_midnight_closes_the_day_before_once(tmp_path: Path) -> None:
    """Turn after turn, and after a restart, one epoch is closed for a day, and it ends at the zone's midnight."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        turn(handle)
        assert bodies(tmp_path / "d", "epoch.closed") == []
        clock.advance(DAY_S)
        turn(handle)
        turn(handle)
        pay(handle, 2)
    with hold(tmp_path / "d", provider, clock) as handle:
        turn(handle)
        (closed,) = bodies(tmp_path / "d", "epoch.closed")
        clock.advance(DAY_S)
        turn(handle)
    first, second = bodies(tmp_path / "d", "epoch.closed")
    assert closed == first
    assert first["until"] == midnight_after(START, "Europe/Berlin")
    assert (second["epoch"], second["from"], second["until"]) == (1, first["size"], first["until"] + 24 * HOUR_US)
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_each_day_that_was_missed_is_closed_for_itself(tmp_path: Path) -> None:
    """A job that did not run for days closes them one by one; a day without records has no epoch."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        for number in range(3):
            pay(handle, number)
            clock.advance(DAY_S * (1 + number))
        turn(handle)
    found = [body["until"] for body in bodies(tmp_path / "d", "epoch.closed")]
    begin = midnight_after(START, "Europe/Berlin")
    assert found == [begin, begin + 24 * HOUR_US, begin + 3 * 24 * HOUR_US]


def test_nothing_is_closed_where_nothing_happened(tmp_path: Path) -> None:
    """Epochs of nothing but epochs would go on for ever in a gate that stands idle."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        assert handle.call("epoch.close", {}) == {"closed": 1, "epoch": 0}
        assert handle.call("epoch.close", {}) == {"closed": 0, "epoch": None}
        for _ in range(3):
            clock.advance(DAY_S)
            turn(handle)
        assert len(bodies(tmp_path / "d", "epoch.closed")) == 1
        pay(handle, 2)  # after idle days
        clock.advance(DAY_S)
        turn(handle)
        turn(handle)
        assert len(bodies(tmp_path / "d", "epoch.closed")) == 2
    assert unsound(tmp_path / "d") == []


def test_an_epoch_is_closed_while_payments_go_on(tmp_path: Path) -> None:
    """Whatever is recorded meanwhile is left to the next epoch: closing does not wait for silence."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        clock.advance(1)
        gate, one = handle.gate, {"run": handle.start_run(), "tool": TOOL, "args": args_for(2), "call_id": "two"}

        async def both() -> object:
            paying = asyncio.ensure_future(gate.act(Caller(AGENT, "embedded"), one))
            found = await gate.epochs.close()
            await paying
            return found

        assert gate.wait(both())["closed"] == 1
    assert unsound(tmp_path / "d") == []


def test_what_is_closed_now_holds_all_that_was_recorded(tmp_path: Path) -> None:
    """An epoch that is closed when asked ends a microsecond after the newest record, and later ones are not before."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        before = len(kinds(tmp_path / "d"))
        handle.call("epoch.close", {})
        pay(handle, 2)
        handle.call("epoch.close", {})
    first, second = bodies(tmp_path / "d", "epoch.closed")
    assert (first["size"], first["until"]) == (before, START + 1)
    assert second["from"] == before
    assert unsound(tmp_path / "d") == []


def test_an_epoch_that_grew_too_long_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more records than an epoch may have, several are closed, each where the time changes."""
    monkeypatch.setattr(epochs, "EPOCH_RECORDS_MAX", 3)
    monkeypatch.setattr(epochs, "STEP_RECORDS", 2)
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        for number in range(4):
            clock.advance(1)
            pay(handle, number)
        found = handle.call("epoch.close", {})
    closed = bodies(tmp_path / "d", "epoch.closed")
    assert found == {"closed": len(closed), "epoch": len(closed) - 1}
    assert len(closed) > 2
    assert unsound(tmp_path / "d") == []


def test_what_was_gathered_for_another_epoch_is_not_added(tmp_path: Path) -> None:
    """Two that close at once, or a record that came in between and is too early: gathered again."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        gate = handle.gate
        size = len(kinds(tmp_path / "d"))
        body = {"epoch": 0, "from": 0, "size": size - 1, "until": START + 1, "root": "", "streams": 1, "manifest": ""}
        refused = ({"epoch": 1}, {"from": 2}, {"size": size + 1}, {})  # as it stands, a record is before its end
        for change in refused:
            assert not gate.wait(gate.lane.ask(lambda writer, change=change: epochs.add_closed(writer, body | change)))
    assert bodies(tmp_path / "d", "epoch.closed") == []


def test_an_epoch_that_was_altered_is_found(tmp_path: Path) -> None:
    """Re-performance makes root and manifest again, and names what differs."""
    clock, provider = FakeClock(START), Provider()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        handle.call("epoch.close", {})
    db = sqlite3.connect(tmp_path / "d" / "data" / "journal.db")
    seq, raw = next(row for row in db.execute("select seq, raw from record") if kind_of(row[1]) == "epoch.closed")
    (said,) = bodies(tmp_path / "d", "epoch.closed")
    db.execute("update record set raw=? where seq=?", (raw.replace(said["manifest"].encode(), b"0" * 64), seq))
    db.commit()
    db.close()
    assert f"#{seq} manifest" in " ".join(unsound(tmp_path / "d"))


def test_every_record_has_its_streams_where_skimming_finds_them(tmp_path: Path) -> None:
    """Time, kind and streams are read from the bytes alone; an agent's stream follows from its name."""
    clock, provider = FakeClock(START), Provider()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        pay(handle, 1)
        reason = '","kind":"x","streams":{"a":[1]},"v":1} {"at":2,'
        handle.call("kill.set", {"kind": "agent", "value": AGENT, "reason": reason})
    from support import records

    found = records(made.root)
    for record in found:
        assert (time_of(record.raw), kind_of(record.raw)) == (record.at, record.kind)
        assert streams_of(record.raw) == {name: list(place) for name, place in record.streams.items()}
        own = record.kind.startswith(("action.", "run."))
        assert (stream_of("a", AGENT) in record.streams) is own
        assert (GENERAL in record.streams) is not own
