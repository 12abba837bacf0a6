"""Rows and memory: a run that cannot be taken into memory now is tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from countermark.model.errors import StoreError
from countermark.workflow.live import Live
from countermark.workflow.projection import Projection, Row
from countermark.workflow.roster import Roster

RUN = "run_f10e" + "0" * 28
S = 1_000_000
NOW = 1_790_000_000 * S


def test_a_row_that_cannot_be_loaded_is_tried_again_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second, then twice as long each time; once it is loaded it goes on, though nothing happened to it."""
    tried: list[int] = []
    went: list[Any] = []
    store: Any = None
    roster = Roster(store, Projection(tmp_path / "runs.db"), went.append, seals=store)
    roster.rows.park(Row(RUN, "pay", "sha256:d", "agent", None, 3, None, "waiting"), [3], (), ())

    def load(_: Roster, run: str) -> Live | None:
        tried.append(roster._now)
        if len(tried) < 5:
            raise StoreError("the disk did not answer")
        live: Any = object()
        return live

    monkeypatch.setattr(Roster, "_load", load)
    roster.due(NOW)
    roster.enqueue(RUN)
    roster.pump()
    for second in range(1, 40):
        roster.due(NOW + second * S)
        if went:
            break
    assert [(at - NOW) // S for at in tried] == [0, 1, 3, 7, 15]
    assert len(went) == 1
    roster.rows.close()


class Stuck:
    """A run in memory that is tried again at some time."""

    def __init__(self, retry_at: int = 0) -> None:
        self.run, self.retry_at, self.due = RUN, retry_at, 0


def test_a_clock_that_is_set_back_keeps_no_run_from_being_tried_again(tmp_path: Path) -> None:
    """A time further ahead than one ever waits is of the clock before that."""
    went: list[Any] = []
    store: Any = None
    roster = Roster(store, Projection(tmp_path / "runs.db"), went.append, seals=store)
    live: Any = Stuck(NOW + S)
    roster.live[RUN] = live
    roster.due(NOW)
    assert went == []
    roster.due(NOW - 86_400 * S)
    assert went == [live]
    roster.rows.close()


def test_runs_in_memory_keep_no_other_from_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are due and driven already, those behind them are looked at too."""
    monkeypatch.setattr("countermark.workflow.roster.DUE_PAGE", 2)
    went: list[Any] = []
    store: Any = None
    roster = Roster(store, Projection(tmp_path / "runs.db"), went.append, seals=store)
    names = [f"{RUN[:-1]}{number}" for number in range(5)]
    for number, name in enumerate(names):
        roster.rows.park(Row(name, "pay", "sha256:d", "agent", None, number, number, "waiting"), [number], (), ())

    def load(_: Roster, run: str) -> Live | None:
        live: Any = Stuck()
        roster.live[run] = live
        return live

    monkeypatch.setattr(Roster, "_load", load)
    for _ in range(3):
        roster.due(NOW)
    assert sorted(roster.live) == names
    roster.rows.close()


def test_rows_survive_a_power_cut_whole(tmp_path: Path) -> None:
    """What SQLite writes back of them is synced, in its order: no run is gone that the position says was taken."""
    rows = Projection(tmp_path / "runs.db")
    assert rows._one("PRAGMA synchronous") == 1
    rows.close()
