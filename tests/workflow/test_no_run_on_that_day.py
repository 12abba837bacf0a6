"""That no run of a definition began or ended on a day is proved by closed epochs; a hidden run is found."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from flow_rig import run_it, three_steps
from rig import Provider, hold, make

from countermark.audit import Exported, Wanted, export_extract
from countermark.audit import extract as extracts
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
