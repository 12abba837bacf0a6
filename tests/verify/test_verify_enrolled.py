"""Keys that the auditor's trust file does not have: derived from the records, and shown; or left open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from countermark_verify import Report, parse_trust, verify
from countermark_verify.report import as_json, as_text

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"


def judged(name: str, **people: Any) -> Report:
    """The verdict on a vector, when the auditor knows these keys instead; None for nobody's."""
    trust = json.loads((FILES / f"trust-{name}.json").read_text())
    trust["people"] = {who: keys for who, keys in {**trust["people"], **people}.items() if keys is not None}
    return verify(FILES / f"{name}.zip", parse_trust(json.dumps(trust).encode()))


def test_keys_enrolled_under_known_signatures_are_derived_and_shown() -> None:
    """Passkey by its person, file by two others, a third by whom the first two made possible: each with its seq."""
    report = judged("honest-enrolled")
    assert report.verdict == "verified"
    enrolled = json.loads(as_json(report))["counts"]["enrolled"]
    assert [(one["person"], one["by"]) for one in enrolled] == [
        ("treasurer", ["treasurer"]), ("treasurer", ["director", "activator"]), ("activator", ["activator"]),
    ]  # fmt: skip
    lines = [line for line in as_text(report).splitlines() if line.startswith("enrolled")]
    assert lines[1] == (
        f"enrolled      a key of treasurer, under the signature of director and activator at seq {enrolled[1]['seq']}"
    )


def test_a_key_that_the_trust_file_has_is_not_shown_as_derived() -> None:
    """An auditor who brings all keys relies on no chain of enrolments."""
    trust = json.loads((FILES / "trust-honest-enrolled.json").read_text())
    known = judged("honest-enrolled").counts["enrolled"]
    mine = {"treasurer": [trust["people"]["treasurer"], *(row["key"] for row in known[:2])],
            "activator": [trust["people"]["activator"], known[2]["key"]]}  # fmt: skip
    report = judged("honest-enrolled", **mine)
    assert (report.verdict, report.counts["enrolled"]) == ("verified", [])


@pytest.mark.parametrize("unknown", ["treasurer", "director", "activator"])
def test_an_enrolment_by_keys_that_nobody_knows_is_left_open(unknown: str) -> None:
    """Without a signer's key the enrolment, and what the new key signs, cannot be established; nothing is refuted."""
    report = judged("honest-enrolled", **{unknown: None})
    assert report.verdict == "incomplete"
    assert set(report.codes()) <= {"V09.no_key", "V10.no_key"}
    assert all(unknown not in row["by"] for row in report.counts["enrolled"])


def test_a_key_that_no_record_enrols_is_still_refuted() -> None:
    """The derivation gives nobody a key: an answer by a stranger's key stays refuted."""
    report = judged("answer-by-a-key-before-its-enrolment")
    assert report.verdict == "refuted"
    assert "V10.approval" in report.codes()


def test_the_word_of_one_other_makes_no_key_known() -> None:
    """Enough where the policy says that nothing real moves; whoever activates policies alone could say so for a day."""
    assert judged("honest-enrolled-alone").verdict == "verified"
    trust = json.loads((FILES / "trust-honest-enrolled-alone.json").read_text())
    report = judged("honest-enrolled-alone", treasurer=trust["people"]["treasurer"][0])
    assert (report.verdict, report.codes(), report.counts["enrolled"]) == ("incomplete", ["V10.no_key"], [])
    assert "by director alone" in as_text(report)
