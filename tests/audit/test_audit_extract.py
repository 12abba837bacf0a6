"""Extracts of a journal: what they hold, that they are verified, and that two of them are the same bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import AGENT, Provider, hold, make, pay

from countermark.audit import PackError, Wanted, export_extract
from countermark.authority import load_private
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.clock import FakeClock
from countermark.wiring.config import load_config
from countermark_verify import Report, parse_trust, verify

START = 1_793_606_400_000_000  # Monday 2026-11-02 08:00 UTC
MONDAY, TUESDAY, WEDNESDAY, THURSDAY = (date(2026, 11, day) for day in (2, 3, 4, 5))


class Place:
    """A deployment with payments on Monday and Wednesday, closed up to Wednesday night."""

    def __init__(self, folder: Path) -> None:
        clock, provider = FakeClock(START), Provider()
        make(folder / "d", provider, clock=clock)
        with hold(folder / "d", provider, clock) as handle:
            self.monday = [pay(handle, number) for number in range(3)]
            clock.advance(2 * 86_400)
            self.wednesday = pay(handle, 3)
            clock.advance(86_400)
            handle.gate.wait(handle.gate.epochs.turn())
            self.thursday = pay(handle, 4)
        self.folder = folder
        config = load_config(folder / "d")
        self.store = SqliteStore(config.journal, readonly=True)
        self.signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
        self._where: dict[str, Any] = {"deployment": config.deployment, "lane": config.lane}
        raw = next(r.body["activation"]["bundle"] for r in self.store.records() if r.kind == "policy.activated")
        people = json.loads(self.store.bundle(raw) or b"")["compiled"]["people"]
        self._trust = {
            "v": 1, "log": {"origin": config.origin, "keys": [self.signer.vkey]},
            "people": {one["id"]: one["keys"] for one in people},
        }  # fmt: skip

    def export(self, name: str, wanted: Wanted) -> Any:
        return export_extract(self.folder / name, self.store, self.signer, wanted, **self._where)

    def report(self, wanted: Wanted, verified: bool = True) -> Report:
        made = self.export("pack.zip", wanted)
        head = {"size": made.size, "root": made.root, "source": "kept", "verified": verified}
        return verify(self.folder / "pack.zip", parse_trust(json.dumps({**self._trust, "heads": [head]}).encode()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("extract"))
    yield found
    found.store.close()


def of(agent: str, day: date) -> Wanted:
    return Wanted(agent=agent, days=(day, day))


def test_an_agents_day_has_all_of_it_and_is_verified(place: Place) -> None:
    """The day's records with what belongs to them; the report says how many there are."""
    report = place.report(of(AGENT, MONDAY))
    assert (report.verdict, report.codes()) == ("verified", [])
    assert report.pack["scope"]["records"] == 1 + 2 * 3  # the run, and each payment's decision and outcome
    assert report.counts["dispositions"] == {"allow": 3}
    assert report.axes["completeness"]["level"] == "closed epoch"


@pytest.mark.parametrize(("agent", "day"), [("nobody", MONDAY), (AGENT, TUESDAY)])
def test_that_there_was_nothing_is_verified(place: Place, agent: str, day: date) -> None:
    """An agent that nobody knows, and a day on which nothing happened."""
    report = place.report(of(agent, day))
    assert (report.verdict, report.codes()) == ("verified", [])
    shown = report.pack["scope"]["records"]
    assert shown == (0 if agent == "nobody" else 2)  # Tuesday is closed with Wednesday, whose records stand there too


def test_a_case_is_the_run_of_an_action(place: Place) -> None:
    """From its beginning; of an action, its run. What is not closed yet stands beside it."""
    action = place.monday[0]
    report = place.report(Wanted(case=action.action))
    assert (report.verdict, report.codes()) == ("verified", [])
    assert report.pack["scope"]["action"] == action.action
    assert report.counts["kinds"]["run.started"] == 1
    assert report.counts["dispositions"] == {"allow": 4}  # the gate was not opened anew: one run, without Thursday
    assert place.report(Wanted(case=report.pack["scope"]["run"])).verdict == "verified"
    by_invoice = place.report(Wanted(case="INV-0"))
    assert (by_invoice.verdict, by_invoice.pack["scope"]["action"]) == ("verified", action.action)
    with pytest.raises(PackError, match=r"actions are about 'acct_1AcmePaper'") as caught:
        place.report(Wanted(case="acct_1AcmePaper"))
    assert action.action in caught.value.hint


def test_a_period_is_everything_in_it(place: Place) -> None:
    """All records of the epochs of Wednesday, the run that began on Monday beside them."""
    report = place.report(Wanted(days=(WEDNESDAY, WEDNESDAY)))
    assert (report.verdict, report.codes()) == ("verified", [])
    assert report.counts["kinds"]["run.started"] == 1
    assert report.counts["dispositions"] == {"allow": 1}


def test_a_day_that_is_not_over_is_incomplete(place: Place) -> None:
    """No epoch reaches its end: the pack is made, says so, and the verifier says it too."""
    assert not place.export("open.zip", of(AGENT, THURSDAY)).reaches
    report = place.report(of(AGENT, THURSDAY))
    assert (report.verdict, report.codes()) == ("incomplete", ["V18.open"])
    assert report.axes["completeness"]["level"] == "none"


def test_without_a_verified_head_the_facts_are_believed(place: Place) -> None:
    """Everything else was computed, and one code says what was not."""
    report = place.report(of(AGENT, MONDAY), verified=False)
    assert (report.verdict, report.codes()) == ("incomplete", ["V13.extract", "V18.extract"])


def test_two_extracts_are_the_same_bytes(place: Place) -> None:
    """The same log, head and question give the same file."""
    for wanted in (of(AGENT, MONDAY), Wanted(days=(MONDAY, WEDNESDAY))):
        place.export("one.zip", wanted)
        place.export("two.zip", wanted)
        assert (place.folder / "one.zip").read_bytes() == (place.folder / "two.zip").read_bytes()


@pytest.mark.parametrize("case", ["act_" + "0" * 32, "run_" + "0" * 32, "nonsense"])
def test_a_case_that_there_is_not(place: Place, case: str) -> None:
    """An action or a run that nobody recorded makes no pack."""
    with pytest.raises(PackError) as caught:
        place.export("none.zip", Wanted(case=case))
    assert caught.value.code == "bad_pack"
    assert not (place.folder / "none.zip").exists()
