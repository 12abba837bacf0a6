"""The comparison's own parts: how rounds are counted, how a trace is read, how ratios are made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(autouse=True)
def _as_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench folder holds scripts, which find each other beside themselves."""
    monkeypatch.setattr(sys, "path", [str(BENCH), str(BENCH / "drivers"), *sys.path])


def test_a_counted_round_does_exactly_its_units() -> None:
    """With a count, every number is done once, however many workers share it."""
    import loop

    done: list[int] = []
    answer = loop.Round(done.append, in_flight=4, seconds=0, units=50).run()
    assert sorted(done) == list(range(1, 51))
    assert answer["units"] == 50


def test_a_failing_unit_fails_the_round() -> None:
    """A peer that denies or breaks gives no figure."""
    import loop

    def unit(number: int) -> None:
        raise RuntimeError("denied")

    with pytest.raises(RuntimeError, match="denied"):
        loop.Round(unit, in_flight=2, seconds=0, units=5).run()


def test_a_trace_is_read_by_its_calls(tmp_path: Path) -> None:
    """Calls are counted, whether or not the summary has a column of errors."""
    import peers

    report = tmp_path / "trace"
    report.write_text(
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 90.00    0.011111         111        80           fdatasync\n"
        " 10.00    0.001111         111        10         2 fsync\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.012222         111        90         2 total\n"
    )
    assert peers._calls(report) == 90


def test_ratios_are_taken_within_a_round() -> None:
    """A disk that slows down between rounds moves both sides, not the ratio."""
    import peers

    ours, theirs = peers.MODES[0], peers.MODES[1]
    found: list[Any] = []
    for turn, speed in enumerate((1.0, 10.0, 100.0)):
        found.append(peers.Figure(ours, 16, turn, 40 * speed, 1.0, 2.0, speed))
        found.append(peers.Figure(theirs, 16, turn, 10 * speed, 1.0, 2.0, speed))
    rows = peers.report(found, {theirs: 20.0})
    assert [row["countermark_ratio"] for row in rows] == [1.0, 4.0]
    assert rows[1]["fsyncs_per_unit_alone"] == 20.0
    assert rows[1]["fsync_per_s"] == 10.0
    assert all(row["peer"] in peers.table(rows) for row in rows)


def test_every_mode_is_explained() -> None:
    """The README says what a unit of each candidate is."""
    import peers

    text = (BENCH / "README.md").read_text("utf-8")
    assert all(f"| {mode.peer} `{mode.mode}` |" in text for mode in peers.MODES)
