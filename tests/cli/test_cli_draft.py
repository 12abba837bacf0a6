"""What a draft would change, what it would have said to past payments, paths, and the incident demos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_support import TOOL, bench, document, fresh, ok, run

from countermark.cli.draft import moment_us
from countermark.journal import SqliteStore
from countermark.model.errors import ConfigError

HEAD = "date,amount,currency,payee,reference\n"


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A copy of the policy in force of the shared deployment, to be edited."""
    shutil.copytree(bench().made.root / "policy", tmp_path / "draft")
    return tmp_path / "draft"


def edit(folder: Path, old: str, new: str, file: str = "limits.toml") -> None:
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), "utf-8")


def test_diff_of_the_policy_in_force_says_that_nothing_changes(draft: Path) -> None:
    """The draft with the same text is the policy in force; a comment makes another bundle and no other decision."""
    bench().act("diff-1")
    assert "nothing changes" in ok(bench().run("policy", "diff", str(draft)))
    edit(draft, "author =", "# a comment\nauthor =")
    found = document(bench().run("policy", "diff", str(draft), "--json"))
    assert (found["bundle"]["same"], found["bundle"]["words"], found["decisions"]["changed"]) == (False, [], 0)
    assert [row["lines"] for row in found["bundle"]["files"]] == [["+# a comment"]]


def test_diff_lists_what_a_lower_limit_would_have_stopped(draft: Path) -> None:
    """The payment, both dispositions and the rule with its numbers; --last and --since say how far it looks back."""
    bench().act("diff-2", 48_100)
    edit(draft, "max = 2500000", "max = 48000")
    edit(draft, "ask_above = 500000", "ask_above = 40000")
    edit(draft, "flag_above = 200000", "flag_above = 30000")
    for file in (draft / "tests").iterdir():
        file.unlink()
    text = ok(bench().run("policy", "diff", str(draft), "--last", "1"))
    assert "limit payment_max: 25,000.00 EUR -> 480.00 EUR" in text
    assert "invoice diff-2: allow -> deny" in text
    assert "the amount 481.00 EUR is above payment_max (480.00 EUR)" in text
    assert document(bench().run("policy", "diff", str(draft), "--since", "30d", "--json"))["decisions"]["changed"] >= 1
    none = document(bench().run("policy", "diff", str(draft), "--since", "2090-01-01", "--json"))["decisions"]
    assert (none["decided"], none["changed"]) == (0, 0)


@pytest.mark.parametrize("when", ["yesterday", "2026-13-01", "0d", "30", "2026-11-3T", "999999d"])
def test_a_moment_that_is_none_is_refused(when: str) -> None:
    """Days are written 2026-11-03, or counted back like 30d."""
    with pytest.raises(ConfigError, match="is no day"):
        moment_us(when, "UTC", 0)
    assert moment_us("1970-01-02", "Europe/Berlin", 0) == (24 - 1) * 3_600_000_000
    assert moment_us("2d", "UTC", 5) == 5 - 2 * 86_400_000_000


def test_activate_shows_what_changes_before_it_signs(tmp_path: Path) -> None:
    """The preview goes to standard error; --yes and --json are silent; who may sign is as it was."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root), "policy", "activate", "--author", "treasurer", "--key", str(made.people["treasurer"]))
    edit(made.root / "policy", "max = 20\n", "max = 21\n")
    unanswered = run(*here)
    assert (unanswered.exit_code, unanswered.stdout) == (1, "")
    assert "Put this in force?" in unanswered.stderr
    assert document(run("-C", str(made.root), "policy", "diff", "--json"))["bundle"]["same"] is False
    shown = run(*here, stdin="y\n")
    assert "limit window_hour_count: 20 -> 21" in shown.stderr
    assert "In force:" in ok(shown)
    edit(made.root / "policy", "max = 21\n", "max = 22\n")
    silent = run(*here, "--yes")
    assert (ok(silent).startswith("In force:"), silent.stderr) == (True, "")
    edit(made.root / "policy", "max = 22\n", "max = 23\n")
    assert run(*here, "--json").stderr == ""


def test_a_question_of_another_policy_is_said_to_be_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """activate, list and explain say that it cannot be approved and may be asked for again, and so it may."""
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_x")
    made = fresh(tmp_path)
    here = ("-C", str(made.root))
    args = {"amount": 600_000, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "INV-12"}
    action = {"call_id": "first", "tool": TOOL, "args": args}
    parked = document(run(*here, "act", "-", "--json", stdin=json.dumps(action)), 4)
    edit(made.root / "policy", "max = 20\n", "max = 21\n")
    words = ("--author", "treasurer", "--key", str(made.people["treasurer"]), "--yes")
    assert "asked for again under a new call_id" in ok(run(*here, "policy", "diff"))
    ok(run(*here, "policy", "activate", *words))
    why = "another policy is in force; asked for again under a new call_id, it is withdrawn and decided anew"
    assert f"cannot approve: {why}" in ok(run(*here, "approvals", "list"))
    for name in (parked["action"], parked["run"]):
        assert f"cannot be approved any more: {why}" in ok(run(*here, "explain", name))
    anew = document(run(*here, "act", "-", "--json", stdin=json.dumps({**action, "call_id": "anew"})), 4)
    assert [row["escalation"] for row in document(run(*here, "approvals", "list", "--json"))] == [anew["escalation"]]
    assert "another policy came into force before an answer" in ok(run(*here, "explain", parked["action"]))


def test_backtest_of_the_journal_and_of_a_list(tmp_path: Path, draft: Path) -> None:
    """One sentence with counts and rates, then each payment that would not pass; a list needs nothing recorded."""
    bench().act("back-1", 600_000)
    found = document(bench().run("policy", "backtest", "--json"))
    assert found["source"] == "journal"
    assert found["payments"] == sum(found["counts"].values()) > 0
    assert "escalate" in ok(bench().run("policy", "backtest"))
    listed = tmp_path / "payments.csv"
    rows = [f"2026-10-{day:02d},480.00,EUR,acme-paper,INV-{day}" for day in range(1, 31)]
    listed.write_text(HEAD + "\n".join([*rows, "2026-10-30,6000.00,EUR,acme-paper,INV-99"]) + "\n", "utf-8")
    words = ("policy", "backtest", "--bundle", str(draft), "--import", str(listed), "--tool", TOOL)
    text = ok(bench().run(*words))
    assert text.startswith("31 payments: 30 allow, 1 escalate (0.0 a weekday)\n")
    assert "assumed: the mandate is synthetic" in text
    assert "line 32" in text
    later = document(bench().run(*words, "--since", "2026-10-30", "--json"))
    assert (later["payments"], later["weekdays"], later["a_weekday"]["escalate"]) == (2, 1, 10)
    assert run("-C", str(bench().made.root), *words, "--last", "3").exit_code == 64


def test_backtest_names_wrong_lines_and_what_it_cannot_know(tmp_path: Path) -> None:
    """A malformed line ends it with its number and the one error shape; so does a tool that nobody named."""
    listed = tmp_path / "payments.csv"
    listed.write_text(HEAD + "2026-10-01,480,EUR,acme-paper,INV-1\n2026-10-01,4 80,EUR,acme-paper,INV-2\n", "utf-8")
    error = document(bench().run("policy", "backtest", "--import", str(listed), "--tool", TOOL, "--json"), 1)["error"]
    assert error["code"] == "bad_import"
    assert "line 3: the amount is not a number" in error["message"]
    plain = document(bench().run("policy", "backtest", "--import", str(listed), "--json"), 1)["error"]
    assert "no tool is named" in plain["message"]


def test_a_policy_that_was_in_force_is_found_by_its_digest() -> None:
    """The first hex digits will do; unknown ones are refused."""
    digest = bench().made.bundle
    found = document(bench().run("policy", "backtest", "--bundle", digest[7:19], "--json"))
    assert found["bundle"] == digest
    assert (
        document(bench().run("policy", "backtest", "--bundle", "0" * 12, "--json"), 1)["error"]["code"] == "bad_config"
    )


def test_looking_back_is_recorded() -> None:
    """Diff, back-test, paths and approvals read the log, so the log says who read it."""
    store = SqliteStore(bench().made.root / "data" / "journal.db", readonly=True)
    try:
        before = store.size()
        ok(bench().run("policy", "backtest", "--json"))
        ok(bench().run("policy", "diff", "--json"))
        read = list(store.records(before))
    finally:
        store.close()
    assert [(r.kind, r.body["what"], r.body["from"], r.body["to"]) for r in read] == [
        ("log.read", "audit", 0, before), ("log.read", "audit", 0, before + 1),
    ]  # fmt: skip


@pytest.mark.parametrize("number", ["1", "2"])
def test_an_incident_is_reconstructed_and_blocked(tmp_path: Path, number: str) -> None:
    """Hindsight finds exactly the payments with the defect, both ways; with the rule in force none is made."""
    figures = document(run("demo", "incident", number, "--dir", str(tmp_path / "demo"), "--json"))
    assert figures["as_told"]
    old, new = figures["reconstructed"], figures["blocked"]
    assert old["by_backtest"] == old["by_paths"] == new["stopped"] == figures["defects"]
    assert len(figures["defects"]) == {"1": 3, "2": 2}[number]
    assert len(old["cleared"]) == 1
    assert old["cleared"][0]["exceptions"][0]["ticket"] in ("RISK-2291", "TRE-114")
    assert old["paid"] - new["paid"] == len(figures["defects"])
    assert (old["reperformed"], new["reperformed"]) == (True, True)
    paths = ("audit", "paths", figures["rule"], "--json")
    again = document(run("-C", old["deployment"], *paths), 1)
    assert sorted(row["references"]["invoice"] for row in again["deviations"]) == figures["defects"]
    assert document(run("-C", new["deployment"], *paths))["deviations"] == []
    assert document(run("-C", old["deployment"], "audit", "reperform", "--json"))["ok"]


def test_the_substitution_is_shown_from_the_records(tmp_path: Path) -> None:
    """`audit approved` tells the digests, who approved, what was booked, and who changed the account meanwhile."""
    figures = document(run("demo", "incident", "2", "--dir", str(tmp_path / "demo"), "--json"))
    focus: dict[str, Any] = figures["reconstructed"]["focus"]
    text = ok(run("-C", figures["reconstructed"]["deployment"], "audit", "approved", focus["id"]))
    assert "The same bytes were asked about, approved and sent, and yet it went elsewhere" in text
    assert "by agent masterdata, under a mandate of treasurer" in text
    provider = figures["provider"]
    assert (provider["not_read_again"]["moved"], provider["not_read_again"]["amount"]) == (1, 4_800_000)
    assert (provider["read_again"]["moved"], provider["read_again"]["why"]) == (0, "reference_changed")
    again = provider["read_again"]
    told = ok(run("-C", again["deployment"], "audit", "approved", again["action"]))
    assert "Nothing was moved: by then the account behind the payee was 3000." in told
    blocked = figures["blocked"]["deployment"]
    (waits,) = [r for r in json.loads(_backtest(blocked))["listed"] if r["references"].get("invoice") == "HC-7012"]
    told = ok(run("-C", blocked, "explain", waits["id"]))
    assert "was approved, but then other rules stand against it now" in told


def _backtest(root: str) -> str:
    return ok(run("-C", root, "policy", "backtest", "--json"))


def test_the_demo_of_an_incident_touches_nothing_else(tmp_path: Path) -> None:
    """A directory that holds something else is refused; an unknown incident is wrong usage."""
    (tmp_path / "mine.txt").write_text("x")
    assert document(run("demo", "incident", "1", "--dir", str(tmp_path), "--json"), 1)["error"]["code"] == "bad_config"
    assert (tmp_path / "mine.txt").read_text() == "x"
    assert run("demo", "incident", "3").exit_code == 64
