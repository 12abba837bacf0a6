"""`population.csv`: its cells, its lines, and what the independent verifier says about a changed one."""

from __future__ import annotations

import csv
import io
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "audit"))

from audit_packs import load
from page_packs import the_pack

from countermark.audit.population import COLUMNS, Population, cell
from countermark_verify.population import Population as Again
from countermark_verify.population import _cell

HOSTILE = (
    "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "'", "  =1", "\uff1d1", "\t=1", "a;=1+1", 'x","=1', "line\r\n=1",
    "\u202egnp.exe", "\\u003d", "plain", "", "\x85", "a\u2028b", "\ufeff=1",
)  # fmt: skip


@cache
def lines(name: str) -> list[dict[str, str]]:
    records, _ = load(name)
    return list(csv.DictReader(io.StringIO(Population(records).csv().decode("utf-8"), newline="")))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_or_ends_early(text: str) -> None:
    """Whatever a text says, a spreadsheet sees one cell of text, and both encoders write it alike."""
    written = cell(text)
    assert written == _cell(text)
    (row,) = csv.reader(io.StringIO(f"1,{written},2\r\n", newline=""))
    assert (row[0], *row[2:]) == ("1", "2")
    assert row[1][:1] not in tuple("=+-@\t\r\uff1d")
    assert not set("\r\n\t;\x85\u2028\u202e\ufeff") & set(written)


def test_a_cell_can_be_read_back() -> None:
    """Escapes begin with a backslash, and a backslash is written as one: no two texts have the same cell."""
    assert len({cell(text) for text in HOSTILE}) == len(HOSTILE)
    assert cell("=1") != cell("'=1")


@pytest.mark.parametrize("name", [f"honest-{one}.zip" for one in ("facts", "ladders", "restored", "callers")])
def test_both_encoders_write_the_same_file(name: str) -> None:
    """The product and the verifier share no code, and agree to the byte on honest histories."""
    records, _ = load(name)
    again = Again(lines=True)
    for record in records:
        again.check(record.seq, {"kind": record.kind, "at": record.at, "body": record.body})
    made = Population(records)
    assert b"".join(again.lines()) == made.csv()
    assert again.asked() == made.asked()


def test_each_action_is_one_line_in_the_order_of_seq() -> None:
    """An action that people were asked about has two decisions, their answers, and one line."""
    rows = lines("honest-ladders.zip")
    assert list(rows[0]) == list(COLUMNS)
    assert len({row["id"] for row in rows}) == len(rows)
    seqs = [int(row["seq"]) for row in rows]
    assert seqs == sorted(seqs)
    answered = [row for row in rows if row["asked"] == "escalate" and row["outcome"] == "confirmed"]
    assert answered
    assert all(row["answers"].startswith("approve ") and int(row["decided"]) > int(row["seq"]) for row in answered)


def test_a_file_that_says_something_else_is_refuted(tmp_path: Path) -> None:
    """V15.population: a changed amount, a missing line and a line too many, each in a pack that is signed again."""
    day = the_pack()
    good: bytes = day.members["population.csv"]
    changes: dict[str, tuple[bytes, int | None]] = {
        "amount": (good.replace(b",48000,", b",47000,", 1), 6),
        "missing": (good.rsplit(b"\r\n", 2)[0] + b"\r\n", None),
        "more": (good + good.splitlines(keepends=True)[1], None),
        "none": (b"", None),
    }
    for name, (changed, seq) in changes.items():
        report = day.verify(tmp_path / f"{name}.zip", {"population.csv": changed})
        found: list[Any] = [finding for step in report.steps for finding in step.findings]
        assert report.verdict == "refuted"
        assert [finding.code for finding in found] == ["V15.population"]
        assert seq is None or found[0].seq == seq


def test_figures_that_are_not_those_of_the_records_are_refuted(tmp_path: Path) -> None:
    """V15.page: a count or a sum altered in the page's figures, figures that stand twice, or not at all."""
    day = the_pack()
    good: bytes = day.members["index.html"]
    block = good[good.index(b'<script type="application/json"') :]
    block = block[: block.index(b"</script>") + 9]
    for name, changed in {
        "count": good.replace(b'"unknown":1', b'"unknown":0', 1),
        "sum": good.replace(b'"totals":[["eur","889200"]]', b'"totals":[["eur","889201"]]', 1),
        "twice": good.replace(block, block + block, 1),
        "none": good.replace(block, b"", 1),
        "float": good.replace(b'"unknown":1', b'"unknown":1.0', 1),
        "more": good.replace(b'"v":1,"waived"', b'"v":1,"vx":1,"waived"', 1),
    }.items():
        assert changed != good, name
        report = day.verify(tmp_path / f"{name}.zip", {"index.html": changed})
        assert report.codes() == ["V15.page"], name
        assert report.verdict == "refuted"
