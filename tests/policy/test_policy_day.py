"""The day of a decision as a fact: in the bundle's zone, across midnights and changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_support import compiled

from countermark.policy import run_cases
from countermark.policy.judgement import local_day

ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Chatham", "America/St_Johns")


@given(st.integers(0, 4_000_000_000_000_000), st.sampled_from(ZONES))
def test_the_day_is_the_one_of_the_calendar_in_the_zone(at: int, zone: str) -> None:
    """The same as the standard library says, whatever the offset of the zone at that moment."""
    moment = datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(ZoneInfo(zone))
    assert local_day(at, zone) == int(moment.strftime("%Y%m%d"))


@pytest.mark.parametrize(("at", "expect"), [("2026-11-12 23:59", "allow"), ("2026-11-13 00:00", "deny")])
def test_a_rule_may_end_with_a_day(at: str, expect: str) -> None:
    """A forbid from a day on holds from its first minute in the policy's zone, also in the policy's own tests."""
    own = (
        '@id("x") forbid (principal, action in Action::"money", resource) when { context.facts.local_day > 20261112 };'
    )
    case = f"""[[case]]
name = "x"
tool = "bank.pay"
at = "{at}"
args = {{ amount = 10, currency = "eur", to = "acct_acme", "metadata[invoice]" = "I" }}
expect = "{expect}"
"""
    (result,) = run_cases(compiled(own=own, cases=case))
    assert result.passed, str(result)
