"""What ``export`` takes for an extract, and what it refuses."""

from __future__ import annotations

from datetime import date

import click
import pytest

from countermark.audit import Wanted
from countermark.cli.epoch import wanted_of


def test_the_options_name_a_case_a_day_a_period_or_the_whole_log() -> None:
    """Each of the three stands alone; without any it is the whole log."""
    monday, tuesday = date(2026, 11, 2), date(2026, 11, 3)
    assert wanted_of("act_1", None, None, None, None) == Wanted(case="act_1")
    assert wanted_of(None, "buyer", "2026-11-02", None, None) == Wanted(agent="buyer", days=(monday, monday))
    assert wanted_of(None, None, "2026-11-02", None, None, "pay") == Wanted(workflow="pay", days=(monday, monday))
    assert wanted_of(None, None, None, "2026-11-02", "2026-11-03") == Wanted(days=(monday, tuesday))
    assert wanted_of(None, None, None, None, None) is None


@pytest.mark.parametrize(
    "options",
    [
        (None, "buyer", None, None, None),
        (None, None, "2026-11-02", None, None),
        (None, None, None, "2026-11-02", None),
        (None, None, None, "2026-11-03", "2026-11-02"),
        ("act_1", "buyer", "2026-11-02", None, None),
        (None, "buyer", "2.11.2026", None, None),
        (None, "buyer", "2026-11-02", None, None, "pay"),
        (None, None, None, None, None, "pay"),
    ],
)
def test_half_a_question_or_two_are_wrong_usage(options: tuple[str | None, ...]) -> None:
    """Options that belong together, exclude each other, or are no day."""
    with pytest.raises(click.UsageError):
        wanted_of(*options)
