"""Re-performance and the explanation of what was only monitored."""

from __future__ import annotations

from audit_packs import load

from countermark.audit import reperform


def test_what_was_waived_is_counted_and_makes_no_difference() -> None:
    """The report says how many decisions monitoring turned into payments; a denial after its time is none of them."""
    report = reperform(*load("honest-monitored.zip"))
    assert report.ok
    assert report.document()["waived"] == report.waived == 6


def test_where_nothing_is_monitored_nothing_is_waived() -> None:
    """An ordinary history has none."""
    assert reperform(*load("honest.zip")).waived == 0
