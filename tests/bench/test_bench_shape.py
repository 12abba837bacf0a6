"""``countermark bench`` reports what it says it reports. Nothing here depends on how fast the machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from countermark.wiring import bench

LEVELS = {"1", "16", "64", "256"}


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> dict[str, Any]:
    where = tmp_path_factory.mktemp("bench")
    figures = bench.run_bench(False, quick=True, where=where, say=told.append)
    assert list(where.iterdir()) == []
    return figures


def test_every_figure_is_there(found: dict[str, Any]) -> None:
    """The document has the promised members, for each concurrency and each length of history."""
    assert found.keys() >= {
        "fsync_per_s", "cedar_per_s", "decide_per_s", "judge_per_s", "records_per_s", "governed", "history",
        "bytes_per_action",
    }  # fmt: skip
    assert found["governed"].keys() == LEVELS
    assert all(row.keys() >= {"per_s", "p50_ms", "p99_ms", "fsync_per_s"} for row in found["governed"].values())
    assert found["history"].keys() == {"1000", "100000"}


def test_figures_are_plausible(found: dict[str, Any]) -> None:
    """Rates are positive, the 99th percentile is not below the median, and an action costs at least its two records."""
    rates = [found[name] for name in ("fsync_per_s", "cedar_per_s", "decide_per_s", "judge_per_s", "records_per_s")]
    assert min(rates) > 0
    for row in [*found["governed"].values(), found["history"]["1000"]]:
        assert row["per_s"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["fsync_per_s"] > 0
    assert 1_000 < found["record_bytes_per_action"] < found["bytes_per_action"] < 50_000


def test_what_was_not_measured_is_null(found: dict[str, Any]) -> None:
    """A quick run lays no long history, and says so instead of naming a figure for it."""
    assert found["history"]["100000"] == {"per_s": None}


def test_the_table_names_every_level(found: dict[str, Any], told: list[str]) -> None:
    """The printed table is aligned: all rows of a level end in the same column."""
    text = told[-1]
    assert text == bench.table(found)
    rows = [line for line in text.splitlines() if line.startswith(("1 in", "16 in", "64 in flight  ", "256 in"))]
    assert len(rows) == len(LEVELS)
    assert len({len(row) for row in rows}) == 1


def test_one_action_is_two_records(tmp_path: Path) -> None:
    """A governed action leaves its intent and its outcome, and every action that is counted was confirmed."""
    with bench.rig(tmp_path / "one") as made:
        before = made.size()
        level = made.level(4, 0, 12)
        assert (level.actions, made.size() - before) == (12, 24)


def test_the_limits_are_widened_only_in_their_numbers() -> None:
    """The rig evaluates the template's own windows: same names, same spans, only larger numbers."""
    text = bench.template_files(bench.TEMPLATE)["limits.toml"]
    wide = bench._wide_limits(text)
    changed = [pair for pair in zip(text.splitlines(), wide.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == text.count("[[window]]")
    assert all(new == f"max = {bench.WINDOW_MAX}" for _, new in changed)
