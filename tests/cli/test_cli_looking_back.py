"""docs/backtest.md and docs/incidents.md, command by command."""

from __future__ import annotations

from pathlib import Path

import pytest
from walking import script, walk

LIMIT_S = 180


@pytest.mark.slow
def test_the_page_about_back_tests_works_as_typed(tmp_path: Path) -> None:
    """The draft's numbers are told, the waiting payment is voided, the list gives the counts that the page explains."""
    told = walk(script("backtest.md", ()), tmp_path, LIMIT_S)
    for part in (
        "limit payment_ask_above: 5,000.00 EUR -> 1,000.00 EUR", "Open questions: 1",
        "4 payments: 1 allow, 2 escalate (0.7 a weekday), 1 deny", "line 5", "the same obligation is already paid",
        "assumed: the mandate is synthetic",
    ):  # fmt: skip
        assert part in told, f"{part} in {told}"


@pytest.mark.slow
def test_the_page_about_incidents_works_as_typed(tmp_path: Path) -> None:
    """Three and two deviations, one cleared each, none with the rule in force; the substitution is told."""
    told = walk(script("incidents.md", ()), tmp_path, LIMIT_S)
    for part, times in (
        ("held against screening.before_payment and screening.on_the_new_list: 3 deviate", 2),
        ("held against screening.before_payment and screening.on_the_new_list: 0 deviate", 1),
        ("held against details.cool_off: 2 deviate", 2), ("ticket RISK-2291", 3), ("ticket TRE-114", 2),
        ("and yet it went elsewhere: account DE02900900909009, not DE02100100101001", 2),
        ("another bank account stood behind the payee's account by then", 3),
        ("27 payments: 24 allow, 3 deny", 2),
    ):  # fmt: skip
        assert told.count(part) == times, f"{part} {told.count(part)} times in {told}"
