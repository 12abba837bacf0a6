"""resolve, review, import paid, the record of every reading, and a clock alarm, as people type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import TOOL, Bench, Provider, document, fresh, ok, run

from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.policy import template_files
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

LATER_S = 600


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[tuple[Bench, FakeClock]]:
    """A deployment that this process owns, under a clock that it holds; its tool leaves unknowns to people."""
    clock, provider = FakeClock(), {"stripe": Provider()}
    tools = template_files("vendor-payments")["tools.toml"]
    head = '[tool."stripe.transfers.create"]          # pay a vendor\'s invoice\n'
    assert head in tools
    edit = {"tools.toml": tools.replace(head, head + 'recovery = "escalate"\n')}
    root = tmp_path / "deployment"
    made = init_deployment(root, "vendor-payments", "acme", connectors=provider, edit=edit, clock=clock)
    with open_deployment(root, agent="treasury", connectors=provider, clock=clock) as handle:
        yield Bench(made, handle), clock


def signer(here: Bench, person: str) -> list[str]:
    return ["--person", person, "--key", here.key(person)]


def newest(root: Path, kind: str) -> dict[str, Any]:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return dict([record.body for record in store.records() if record.kind == kind][-1])
    finally:
        store.close()


def test_two_people_settle_what_stays_unknown(timed: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """The first signs into a file, the second sees it and hands it in; one person, or one too early, does not do."""
    here, clock = timed
    lost = document(here.act("LOST-1"), 5)
    assert document(here.run("status", "--json"))["unknown"] == 1
    half = str(tmp_path / "half.json")
    first = ["resolve", lost["action"], *signer(here, "treasurer")]
    said = ["--outcome", "confirmed", "--ref", "tr_9", "--reason", "on the statement"]
    assert here.run(*first, *said).exit_code == 64
    assert here.run(*first, "--out", half).exit_code == 64
    assert "480.00 EUR" in ok(here.run(*first, *said, "--out", half))
    assert document(here.run(*first, *said, "--out", half, "--json"), 1)["error"]["code"] == "bad_config"
    second = ["resolve", lost["action"], "--second", half, "--json"]
    assert document(here.run(*second, *signer(here, "treasurer"), "--yes"), 1)["error"]["code"] == "bad_config"
    early = document(here.run(*second, *signer(here, "controller"), "--yes"), 1)["error"]
    assert early["code"] == "not_unknown"
    clock.advance(LATER_S)
    assert here.run(*second, *signer(here, "controller"), stdin="n\n").exit_code == 1
    done = document(here.run(*second, *signer(here, "controller"), "--yes"))
    assert (done["status"], done["code"], done["ref"]) == ("confirmed", "resolved", "tr_9")
    assert document(here.run("status", "--json"))["unknown"] == 0
    told = ok(here.run("explain", lost["action"]))
    assert "Treasurer (treasurer) and Controller (controller) signed" in told
    again = document(
        here.run("resolve", lost["action"], *signer(here, "treasurer"), *said, "--out", half + "2", "--json"), 1
    )
    assert again["error"]["code"] == "not_unknown"


def test_two_people_reopen_what_one_refused(timed: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """As they settle an unknown; what nobody refused, or was reopened before, is told; the agent then asks anew."""
    bench, _ = timed
    asked = document(bench.act("BACK-1", amount=600_000), 4)
    half = str(tmp_path / "half.json")
    said = ["reopen", asked["action"], *signer(bench, "treasurer"), "--reason", "the goods have come", "--json"]
    assert document(bench.run(*said, "--out", half), 1)["error"]["code"] == "not_refused"
    ok(bench.run("approvals", "refuse", asked["escalation"], *signer(bench, "controller"), "--yes"))
    assert bench.run(*said).exit_code == 64
    assert document(bench.run(*said, "--out", half))["reopening"]["action"] == asked["action"]
    second = ["reopen", asked["action"], "--second", half]
    assert (
        document(bench.run(*second, *signer(bench, "treasurer"), "--yes", "--json"), 1)["error"]["code"] == "bad_config"
    )
    assert "6,000.00 EUR" in (shown := ok(bench.run(*second, *signer(bench, "controller"), "--yes")))
    assert f"Reopened {asked['action']}" in shown
    assert document(bench.run(*said, "--out", half + "2"), 1)["error"]["code"] == "not_refused"
    assert "that people may be asked again: the goods have come" in ok(bench.run("explain", asked["action"]))
    assert document(bench.act("BACK-1", amount=600_000, call_id="anew"), 4)["code"] == "needs_approval"


def test_a_half_signed_file_that_was_changed_is_refused(timed: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """What the second person signs must be what the first one did."""
    here, clock = timed
    lost = document(here.act("LOST-2"), 5)
    half = tmp_path / "half.json"
    said = ["--outcome", "failed", "--reason", "the bank says no", "--out", str(half)]
    ok(here.run("resolve", lost["action"], *signer(here, "treasurer"), *said))
    clock.advance(LATER_S)
    text = half.read_text("utf-8").replace("the bank says no", "the bank says yes")
    half.write_text(text, "utf-8")
    second = ["resolve", lost["action"], "--second", str(half), *signer(here, "controller"), "--yes", "--json"]
    assert document(here.run(*second), 1)["error"]["code"] == "bad_signature"
    half.write_text("{}", "utf-8")
    assert document(here.run(*second), 1)["error"]["code"] == "bad_config"
    stranger = ["--person", "controller", "--key", here.key("treasurer")]
    assert (
        document(here.run("resolve", lost["action"], *stranger, *said, "--json"), 1)["error"]["code"]
        == "not_authorised"
    )


def test_a_flagged_action_is_looked_at(timed: tuple[Bench, FakeClock]) -> None:
    """It stands in the list and in the status until somebody who does not own the agent has signed."""
    here, _ = timed
    document(here.act("small-1"))  # a first payment of that size would be put to people
    done = document(here.act("big-1", 300_000))
    assert done["disposition"] == "flag"
    (row,) = document(here.run("review", "list", "--json"))
    assert row["id"] == done["action"]
    assert done["action"] in ok(here.run("review", "list"))
    assert document(here.run("status", "--json"))["unreviewed"] == 1
    clear = ["review", "clear", done["action"], "--note", "as ordered", "--json"]
    assert document(here.run(*clear, *signer(here, "treasurer")), 1)["error"]["code"] == "four_eyes"
    assert document(here.run(*clear, *signer(here, "controller")))["cleared"] == done["action"]
    assert document(here.run(*clear, *signer(here, "controller")), 1)["error"]["code"] == "not_waiting"
    assert document(here.run("review", "list", "--json")) == []
    assert "1 flagged" not in ok(here.run("status"))
    assert document(here.run("explain", done["action"], "--json"))["reviewed"]["note"] == "as ordered"


CSV = """\
payee,invoice,ref,date
acme-paper,INV-1,tr_1,2026-09-01

acct_1BorealisHosting,"INV-2",tr_2,2026-09-02
acct_unknown,INV-3,,2026-09-03
"""


def test_a_ledger_is_imported_by_two(timed: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """CSV or JSON lines: what was paid is denied afterwards, whoever asks under whatever call."""
    here, _ = timed
    ledger, half = tmp_path / "ledger.csv", str(tmp_path / "half.json")
    ledger.write_text(CSV, "utf-8")
    first = ["import", "paid", str(ledger), "--tool", TOOL, *signer(here, "controller"), "--out", half]
    assert "invoice inv-2, payee borealis-hosting" in ok(here.run(*first))
    second = ["import", "paid", "--second", half, *signer(here, "treasurer"), "--yes", "--json"]
    assert json.loads(ok(here.run(*second)))["imported"] == 3
    assert document(here.act("INV-1"), 3)["code"] == "duplicate_obligation"
    assert document(here.act("inv-2", account="acct_1BorealisHosting"), 3)["code"] == "duplicate_obligation"
    assert document(here.run(*second), 1)["error"]["code"] == "duplicate_import"
    lines = [{"tool": TOOL, "payee": "acme-paper", "invoice": 77, "ref": "x", "date": "2026-09-04"}]
    ledger.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    half += "2"
    ok(here.run("import", "paid", str(ledger), *signer(here, "controller"), "--out", half))
    second[3] = half
    ok(here.run(*second))
    assert document(here.act("77"), 3)["code"] == "duplicate_obligation"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CSV.replace("INV-3", "INV-1").replace("acct_unknown", "acme-paper"), "line 5: the same obligation as in line"),
        (CSV.replace("2026-09-02", "2026-13-02"), "line 4: the import has no valid date"),
        (CSV.replace("acct_unknown,INV-3", "acct_unknown,"), "line 5: invoice must be printable ASCII"),
        (CSV.replace("acct_unknown,", ","), "line 5: the payee is missing"),
        (CSV.replace("tr_1,", ""), "line 2: 3 cells under 4 columns"),
        (CSV.replace("invoice", "bill"), "line 2: 'bill' is not part of the business key"),
        (CSV.replace("payee,invoice", "payee,payee"), "line 1: the head line names a column twice"),
        (CSV.replace('"INV-2"', '"INV-2'), "line 4"),
        ('{"payee": "acme-paper", "payee": "x"}\n', "line 1"),
        ('{"payee": 1.5}\n', "line 1"),
        ('{"invoice": ["x"]}\n', "line 1: not an object of texts and integers"),
        ("", "line 1: there is nothing to import"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_nothing_is_signed(
    timed: tuple[Bench, FakeClock], tmp_path: Path, text: str, says: str
) -> None:
    """Every malformed line and every duplicate is refused with its number, before anybody signs."""
    here, _ = timed
    ledger, half = tmp_path / "ledger", tmp_path / "half.json"
    ledger.write_text(text, "utf-8")
    first = ["import", "paid", str(ledger), "--tool", TOOL, *signer(here, "controller"), "--out", str(half), "--json"]
    error = document(here.run(*first), 1)["error"]
    assert error["code"] == "bad_import"
    assert says in error["message"]
    assert not half.exists()


def test_what_the_gate_paid_is_no_line_of_an_import(timed: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """An obligation that the records hold is refused with the line and the record."""
    here, _ = timed
    document(here.act("INV-1"))
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(CSV, "utf-8")
    first = ["import", "paid", str(ledger), "--tool", TOOL, *signer(here, "controller"), "--out", str(tmp_path / "h")]
    assert "line 2: the obligation is taken already, by record #" in here.run(*first).stderr


def test_a_clock_alarm_says_what_it_is_and_is_lifted(timed: tuple[Bench, FakeClock]) -> None:
    """After a jump the status names the clock, payments are denied, and a person's signature lifts the stop."""
    here, clock = timed
    clock.step(3_600)
    assert document(here.act("late-1"), 3)["code"] == "killed"
    (kill,) = document(here.run("status", "--json"))["kills"]
    assert kill["reason"] == "clock_jump"
    assert "because the clock jumped" in ok(here.run("status"))
    ok(here.run("kill", "clear", kill["kill"], *signer(here, "treasurer"), "--reason", "NTP repaired"))
    assert document(here.act("late-2"))["status"] == "confirmed"
    assert document(here.run("status", "--json"))["kills"] == []


def test_readings_are_recorded_where_no_gate_runs(tmp_path: Path) -> None:
    """An export ends before the record of itself, so that it is the same again."""
    made = fresh(tmp_path)
    words = ["-C", str(made.root)]
    size = document(run(*words, "status", "--json"))["records"]
    pack = document(run(*words, "export", str(tmp_path / "a.zip"), "--json"))
    assert pack["size"] == size
    body = newest(made.root, "log.read")
    assert body == {"reader": f"uid:{os.getuid()}", "what": "export", "from": 0, "to": size}
    assert document(run(*words, "status", "--json"))["records"] == size + 1
    ok(run(*words, "explain", "#1"))
    assert newest(made.root, "log.read")["what"] == "explain"
    assert document(run(*words, "audit", "reperform", "--json"))["ok"]
    again = document(run(*words, "export", str(tmp_path / "b.zip"), "--at", str(size), "--json"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert again["root"] == pack["root"]


def test_a_reading_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    """With a full disk in the way of the record nothing is exported."""
    made = fresh(tmp_path)
    program = (
        "import sys\n"
        "from countermark.journal import SqliteStore\n"
        "from countermark.model.errors import StoreError\n"
        "def full(self, batch):\n"
        "    raise StoreError('the disk is full')\n"
        "SqliteStore.commit = full\n"
        "from countermark.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    pack = tmp_path / "a.zip"
    words = [sys.executable, "-c", program, "-C", str(made.root), "export", str(pack)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "store_failed" in done.stderr
    assert not pack.exists()
