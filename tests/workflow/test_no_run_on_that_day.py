"""That no run of a definition began or ended on a day is proved by closed epochs; a hidden run is found."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from flow_rig import run_it, three_steps
from rig import Provider, hold, make

from countermark.audit import Exported, Wanted, export_extract
from countermark.audit import extract as extracts
from countermark.audit.page.flows import flows_of
from countermark.authority import load_private, public_of
from countermark.journal import SqliteStore
from countermark.model.clock import US, FakeClock
from countermark.wiring import load_config, log_signer
from countermark_verify import as_text, parse_trust, verify

MONDAY = 1_793_610_000 * US  # 2 November 2026, 09:00 UTC
DAY_S = 86_400


class Week:
    """A deployment with one run on Monday, none on Tuesday, read on Thursday."""

    def __init__(self, folder: Path) -> None:
        provider, clock = Provider(), FakeClock(MONDAY)
        self.made = make(folder / "d", provider, clock=clock)
        self.config = load_config(self.made.root)
        with hold(self.made.root, provider, clock) as handle:
            self.run = run_it(handle, three_steps(), amount=41, invoice="INV-7")["run"]
        for _ in range(3):
            clock.advance(DAY_S)
            with hold(self.made.root, provider, clock) as handle:  # that the gate started is a record of that day
                handle.call("epoch.close", {})
        self.pack = folder / "extract.zip"

    def extract(self, day: int, name: str = "test-flow") -> Exported:
        self.pack.unlink(missing_ok=True)
        of = date(2026, 11, day)
        with closing(SqliteStore(self.config.journal, readonly=True)) as store:
            return export_extract(
                self.pack, store, log_signer(self.config), Wanted(workflow=name, days=(of, of)),
                deployment=self.made.deployment,
            )  # fmt: skip

    def verdict(self, made: Exported) -> Any:
        """What an auditor says who has verified the whole log."""
        people = {name: str(public_of(load_private(path))) for name, path in self.made.people.items()}
        trust = {
            "v": 1, "log": {"origin": self.config.origin, "keys": [*log_signer(self.config).vkeys]}, "people": people,
            "heads": [{"size": made.size, "root": made.root, "source": "retained", "verified": True}],
        }  # fmt: skip
        return verify(self.pack.read_bytes(), parse_trust(json.dumps(trust).encode()))


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Week:
    return Week(tmp_path_factory.mktemp("week"))


def codes(report: Any, step: str = "V18") -> list[str]:
    return [finding.code for found in report.steps for finding in found.findings if finding.code.startswith(step)]


def test_that_there_was_no_run_is_verified(week: Week) -> None:
    """On Tuesday, and of a name that never ran; the report says so."""
    for day, name in ((3, "test-flow"), (2, "another")):
        made = week.extract(day, name)
        assert made.reaches
        report = week.verdict(made)
        assert codes(report) == []
        assert report.verdict == "verified", report
        assert f"; on that day no run of {name} began or ended" in as_text(report)


def test_the_run_of_that_day_is_there(week: Week) -> None:
    """Its beginning and its end, and no more of it."""
    made = week.extract(2)
    with closing(SqliteStore(week.config.journal, readonly=True)) as store:
        runs = [record.body["run"] for record in store.records() if record.kind in ("run.started", "run.ended")]
    assert runs == [week.run, week.run]
    report = week.verdict(made)
    assert codes(report) == []
    assert "on that day" not in as_text(report)
    assert "refuted" not in [step.status for step in report.steps]


def test_a_run_that_is_left_out_is_found(week: Week, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the log's key can sign an extract without it; the manifest of the epoch still has its stream."""
    honest = extracts.choose

    def choose(*args: Any) -> Any:
        choice, survey = honest(*args)
        return replace(choice, seqs=[seq for seq in choice.seqs if seq not in survey.own]), survey

    monkeypatch.setattr(extracts, "choose", choose)
    report = week.verdict(week.extract(2))
    assert report.verdict == "refuted"
    assert set(codes(report)) == {"V18.hidden"}


def test_the_page_of_a_workflows_day_prints_nothing_that_it_cannot_know(week: Week) -> None:
    """The run paid: the page and the report say that this is not in the pack, and draw no step as pending."""
    report = week.verdict(week.extract(2))
    with ZipFile(week.pack) as archive:
        html, readme = archive.read("index.html").decode(), archive.read("README.txt").decode()
    assert "This pack does not say what was paid" in html
    assert f"<td><code>{week.run}</code></td>" in html
    for wrong in ("Nothing with an amount", "first decided in that time", "Nobody was asked", "<svg", "pending"):
        assert wrong not in html.split('id="told"')[1].split("<script")[0], wrong
    assert "1 run is not drawn, because this pack does not hold all of their records" in html
    assert "It does NOT hold what was paid" in readme
    assert "confirmed     not in this pack" in as_text(report)


def test_the_pack_of_the_run_has_what_it_paid(week: Week) -> None:
    """Its steps are drawn, and its payment counts."""
    week.pack.unlink(missing_ok=True)
    with closing(SqliteStore(week.config.journal, readonly=True)) as store:
        export_extract(
            week.pack, store, log_signer(week.config), Wanted(case=week.run), deployment=week.made.deployment
        )
    with ZipFile(week.pack) as archive:
        html = archive.read("index.html").decode()
    assert "This pack does not say what was paid" not in html
    assert 'class="wf"' in html
    assert "not drawn" not in html


def test_a_run_that_goes_on_is_not_drawn_from_a_part_of_its_records(week: Week) -> None:
    """A beginning alone would be drawn as a run whose steps all wait."""
    with closing(SqliteStore(week.config.journal, readonly=True)) as store:
        raws = [raw for _, raw in store.raw() if b'"kind":"action.' not in raw and b'"kind":"run.ended"' not in raw]
        scope = {"kind": "agent", "agent": "treasury", "day": "2026-11-02", "zone": "UTC", "from": 0, "to": 1}
        assert (flows_of(raws, scope).figures, flows_of(raws, scope).part) == ([], 1)
