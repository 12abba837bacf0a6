"""The story of an escalation that climbed: who was asked, until when, and what an answer counted for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from laddered import HOUR, LARGE, laddered, only, say, tick
from rig import BOREALIS, Provider, hold, pay

from countermark.audit import explain
from countermark.cli import main
from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock, SystemClock


def told(root: Path, ref: str) -> str:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return str(explain(store, ref).text)
    finally:
        store.close()


def test_the_story_says_who_was_asked_next_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a deadline with one of two answers, by people who could not be told, and by nobody at the end."""
    monkeypatch.setattr("countermark.gate.gate.LADDERS_S", 3_600.0)
    provider, clock = Provider(), FakeClock()
    made = laddered(tmp_path / "d", provider, clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        first = pay(handle, 1, LARGE)
        assert "until 21 Sep 2026, 18:13" in told(tmp_path / "d", first.action)
        say(handle, made, "anna")
        clock.advance(4 * HOUR)
        tick(handle)
        say(handle, made, "clara")
        story = told(tmp_path / "d", first.action)
        assert "ladder finance was asked to lift" in story
        assert ": 2 of approver, until 21 Sep 2026, 18:13" in story
        assert "only 1 of the 2 needed of approver answered by 21 Sep 2026, 18:13" in story
        assert "asked one of board, in business hours, until 22 Sep 2026, 15:00" in story
        assert "what was said before counts no more" in story
        assert "Clara (clara) approved" in story
        assert "(ladder finance, rung 2, signed with" in story
        second = pay(handle, 2, LARGE)
        handle.call("escalation.unreachable", {"escalation": second.escalation, "ladder": "finance", "rung": 1})
        story = told(tmp_path / "d", second.action)
        assert "nobody of approver had answered, and nobody of them could be told on 21 Sep 2026, 18:13" in story
        assert f"Waiting: {6_000:,}.00 EUR" in story
        assert only(handle)["rungs"]["finance"]["rung"] == 2
        clock.advance(7 * 86_400)
        tick(handle)
        assert "Not approved: nobody answered in time" in told(tmp_path / "d", second.action)


def test_what_an_approval_could_not_do_is_said_before_it_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is used up by now, with its numbers; a stop; a run that ended. And nothing when it would be done."""
    monkeypatch.setattr("countermark.gate.gate.LADDERS_S", 3_600.0)
    provider, clock = Provider(), FakeClock(wall_us=SystemClock().now_us())
    root = tmp_path / "d"
    made = laddered(root, provider, clock, changes={"max = 900000000\n": "max = 1000000\n"})

    def listed() -> tuple[str, list[dict[str, Any]]]:
        found = CliRunner().invoke(main, ["-C", str(root), "approvals", "list"], catch_exceptions=False)
        rows = CliRunner().invoke(main, ["-C", str(root), "approvals", "list", "--json"], catch_exceptions=False)
        return found.output, json.loads(rows.output)

    with hold(root, provider, clock) as handle:
        run = handle.start_run()
        asked = pay(handle, 1, LARGE, run=run)
        text, (row,) = listed()
        assert "cannot approve" not in text
        assert (row["cannot_approve"], row["rungs"]["finance"]["of"]) == ("", 2)
        assert "finance 1/2" in text
        pay(handle, 2, 200_000)
        pay(handle, 3, 240_000, destination=BOREALIS)
        text, (row,) = listed()
        why = "limits.window.day_total: day_total 10,400.00 EUR is above window_day_total (10,000.00 EUR)"
        assert row["cannot_approve"] == why
        assert f"{asked.escalation}: cannot approve: {why}" in text
        words = ["-C", str(root), "approvals", "refuse", asked.escalation, "--person", "anna", "--key"]
        shown = CliRunner().invoke(main, [*words, str(made.people["anna"])], input="n\n")
        assert f"CANNOT APPROVE NOW: {why}" in shown.output
        assert "ladder finance: rung 1 of 2, until" in shown.output
        handle.call("kill.set", {"kind": "agent", "value": "treasury", "reason": "strange"})
        assert listed()[1][0]["cannot_approve"] == "a stop covers it"
        handle.call("run.end", {"run": run, "reason": "over"})
        assert listed()[1][0]["cannot_approve"] == "its run has ended"
