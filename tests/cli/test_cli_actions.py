"""``actions``: what was paid and refused, as a list for whoever keeps the books."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_support import Bench, bench, document, ok


@pytest.fixture
def here() -> Bench:
    return bench()


def test_the_actions_of_today_are_listed_with_their_figures(here: Bench) -> None:
    """Newest first, with what became of each; figures are over all that fit, also where fewer are listed."""
    document(here.act("list-1", 12_345))
    document(here.act("list-2", 2_600_000), 3)
    document(here.act("list-1", 12_345), 3)
    found = document(here.run("actions", "--json", "--limit", "3"))
    again, denied, paid = found["actions"]
    assert [row["status"] for row in (again, denied, paid)] == ["denied", "denied", "confirmed"]
    assert (again["code"], denied["code"]) == ("duplicate_obligation", "mandate_limit")
    assert paid["reference"] == "invoice list-1"
    assert paid["terms"] == {"amount": 12_345, "currency": "eur", "payee": "acme-paper"}
    assert found["zone"] == "Europe/Berlin"
    assert found["confirmed"]["eur"] >= 12_345
    said = ok(here.run("actions", "--limit", "1"))
    assert "(Europe/Berlin)" in said
    assert "The newest 1 of " in said
    assert "Confirmed: " in said


def test_actions_are_those_asked_for(here: Bench) -> None:
    """By run, agent, payee, status and day; a run's own are listed whatever the day."""
    run = document(here.act("only-1"))["run"]
    document(here.act("only-2", 1_000, "acct_1Nobody"), 4)
    (mine,) = document(here.run("actions", "--run", run, "--json"))["actions"]
    assert (mine["run"], mine["reference"]) == (run, "invoice only-1")
    for option, value, status in (("--payee", "acme-paper", "confirmed"), ("--status", "waiting", "waiting")):
        rows = document(here.run("actions", option, value, "--json"))["actions"]
        assert rows
        assert status in {row["status"] for row in rows}
    assert document(here.run("actions", "--agent", "nobody", "--json"))["actions"] == []
    assert "none" in ok(here.run("actions", "--day", "2020-02-03"))
    assert here.run("actions", "--day", "yesterday").exit_code == 64


def test_requests_that_were_no_action_are_counted(here: Bench) -> None:
    """A malformed request takes no line; its code is counted, unless payee or status is asked for."""
    document(here.act("bad-1", "a lot"), 1)
    assert document(here.run("actions", "--json"))["malformed"]["bad_argument"] >= 1
    assert "refused: " in ok(here.run("actions"))
    assert document(here.run("actions", "--status", "denied", "--json"))["malformed"] is None


def test_looking_at_actions_is_recorded(here: Bench) -> None:
    """A ``log.read`` with the records of that time; without any, nothing was read."""
    document(here.act("seen-1"))
    before = document(here.run("status", "--json"))["records"]
    ok(here.run("actions", "--day", "2020-02-03"))
    assert document(here.run("status", "--json"))["records"] == before
    ok(here.run("actions"))
    told = document(here.run("explain", f"#{before}", "--json"))
    assert told["records"][0]["kind"] == "log.read"
    assert told["body"]["to"] == before


def test_without_a_place_for_the_daybook_one_is_made_for_the_look(here: Bench, tmp_path: Path) -> None:
    """A directory where no cache can be written is read all the same."""
    document(here.act("cache-1"))
    cache = here.made.root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("not a directory")
    try:
        assert document(here.run("actions", "--json"))["actions"][0]["reference"] == "invoice cache-1"
    finally:
        cache.unlink()
