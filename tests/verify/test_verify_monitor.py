"""What the verifier says about tools that are only monitored: the count of what was waived, with and without Cedar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from verify_builder import story

from countermark_verify import Report, load_trust, parse_trust, rules, verify
from countermark_verify.report import as_json, as_text

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"


def judged(name: str) -> Report:
    return verify(FILES / f"{name}.zip", load_trust(FILES / f"trust-{name}.json"))


def test_what_was_waived_is_counted_and_shown() -> None:
    """The page has a line of its own, the document the count by code; the verdict is that of any honest pack."""
    report = judged("honest-monitored")
    assert report.verdict == "verified"
    assert json.loads(as_json(report))["counts"]["waived"] == {"would_deny": 3, "would_escalate": 3}
    (line,) = (line for line in as_text(report).splitlines() if line.startswith("waived"))
    assert line == "waived        would_deny 3, would_escalate 3: done all the same, by tools that are only monitored"


def test_where_nothing_was_waived_no_line_says_so() -> None:
    """The document has the count all the same, so that a program need not ask whether it is there."""
    maker = story()
    report = verify(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()))
    assert report.counts["waived"] == {"would_deny": 0, "would_escalate": 0}
    assert "waived" not in as_text(report)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("honest-monitored", "incomplete"),
        ("waived-after-its-time", "refuted"),
        ("waived-over-a-hard-limit", "incomplete"),
        ("monitored-by-one-person-twice", "refuted"),
    ],
)
def test_without_cedar_time_and_signatures_are_still_judged(
    monkeypatch: pytest.MonkeyPatch, name: str, verdict: str
) -> None:
    """Whether a time is over, and who signed, needs no policy engine; whether a waiver was due stays open."""
    monkeypatch.setattr(rules, "cedarpy", None)
    assert judged(name).verdict == verdict
