"""Runs of workflows on the command line: receipts, drawings, paths held against a later definition, migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_support import Bench, bench, document, ok

from countermark.journal import SqliteStore

FLOW = """\
name: pay-{name}
on:
  workflow_dispatch:
    inputs:
      invoice: {{type: string, required: true}}
jobs:
  main:
    steps:
{steps}"""
PAY = """\
      - id: {id}
        uses: stripe.transfers.create
        with:
          amount: 1000
          currency: eur
          destination: acct_1AcmePaper
          metadata[invoice]: {invoice}
"""
CHECK = """\
      - id: check
        run: |
          def main():
              return {}
"""
WAIT = """\
      - id: bank
        wait:
          event: bank
          key: ${{ inputs.invoice }}
"""


def flow(folder: Path, name: str, *steps: str) -> str:
    path = folder / f"{name}{len(list(folder.iterdir()))}.yaml"
    path.write_text(FLOW.format(name=name, steps="".join(steps)))
    return str(path)


def records(here: Bench) -> int:
    return SqliteStore(here.handle.config.journal, readonly=True).size()


def pay(invoice: str = "${{ inputs.invoice }}", name: str = "pay") -> str:
    return PAY.format(invoice=invoice, id=name)


@pytest.fixture
def here() -> Bench:
    return bench()


def started(here: Bench, file: str, invoice: str, code: int = 0) -> Any:
    return document(here.run("run", file, "-i", f"invoice={invoice}", "--json"), code)


def test_past_runs_are_held_against_a_definition_written_later(here: Bench, tmp_path: Path) -> None:
    """Both runs lack the check; one is drawn; an exception with a ticket clears one of them."""
    old, new = flow(tmp_path, "late", pay()), flow(tmp_path, "late", CHECK, pay())
    runs = [started(here, old, invoice)["run"] for invoice in ("L-1", "L-2")]
    assert "0 deviate" in ok(here.run("audit", "paths", old))
    drawing = tmp_path / "run.svg"
    found = document(here.run("audit", "paths", new, "--svg", str(drawing), "--json"), 1)
    assert found["deviating"] == 2
    assert sorted(found["alike"][0]["runs"]) == sorted(runs)
    assert "was not done" in drawing.read_text()
    exceptions = tmp_path / "exceptions.toml"
    exceptions.write_text(f'[[exception]]\nticket = "OPS-1"\nperson = "controller"\nat = 2026-11-03T09:00:00Z\n'
                          f'deviation = "skipped"\nplace = "main.check"\nrun = "{runs[0]}"\n')  # fmt: skip
    words = ("audit", "paths", new, "--exceptions", str(exceptions))
    assert document(here.run(*words, "--json"), 1)["deviating"] == 1
    assert "ticket OPS-1" in ok(here.run(*words, "--run", runs[0]))


def test_a_name_that_no_run_has_is_told(here: Bench, tmp_path: Path) -> None:
    """Exit 2, with the nearest name that a run has: no run deviates there, but none was looked at either."""
    started(here, flow(tmp_path, "early-good", pay()), "N-1")
    found = here.run("audit", "paths", flow(tmp_path, "early-gud", pay()))
    assert ok(found, 2).strip() == "There is no run of pay-early-gud here. Did you mean `pay-early-good`?"
    assert "0 deviate" in ok(here.run("audit", "paths", flow(tmp_path, "early-good", pay()), "--since", "2099-01-01"))


def test_a_run_has_a_receipt_and_a_picture(here: Bench, tmp_path: Path) -> None:
    """Also from a pack on another machine."""
    run = started(here, flow(tmp_path, "receipt", CHECK, pay()), "R-1")["run"]
    found = document(here.run("runs", "receipt", run, "--json"))
    assert [step["place"] for step in found["steps"]] == ["main.check", "main.pay"]
    assert found["steps"][1]["attempts"][0]["settled"][0]["outcome"] == "confirmed"
    assert "weakest tier" in ok(here.run("runs", "receipt", run))
    assert ok(here.run("runs", "graph", run)).startswith("<svg")
    pack = tmp_path / "evidence.zip"
    ok(here.run("export", str(pack)))
    assert document(here.run("runs", "receipt", run, "--pack", str(pack), "--json")) == found
    assert "no run of a definition" in here.run("runs", "graph", "run_" + "0" * 32).stderr


AGENT = """\
      - id: clerk
        agent:
          name: treasury
          goal: pay it
          tools: [stripe.transfers.create]
          calls: 2
          minutes: 30
          budget: {eur: 50000}
          outputs: {paid: int}
"""


def test_what_an_agent_paid_in_its_step_is_told_with_its_run(here: Bench, tmp_path: Path) -> None:
    """The receipt sums it up and takes its tier; of the agent's own run it is said where to look."""
    run = started(here, flow(tmp_path, "clerk", AGENT), "A-1", 4)["run"]
    own = document(here.run("runs", "show", run, "--json"))["steps"][0]["other"]
    assert f"in {own} (countermark explain)" in ok(here.run("runs", "show", run))
    call = {"call_id": "A-1", "tool": "stripe.transfers.create", "run": own, "args": {
        "amount": 40_000, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "A-1"}}  # fmt: skip
    assert here.handle.call("act", {**call, "reason": "", "because": []})["status"] == "confirmed"
    found = document(here.run("runs", "receipt", run, "--json"))
    assert found["steps"][0]["delegated"] == {"run": own, "actions": 1, "confirmed": {"eur": 40_000}}
    said = ok(here.run("runs", "receipt", run))
    assert f"in {own}, 1 action, confirmed: 400.00 EUR" in said
    assert f"weakest tier  {found['tier']}" in said
    assert found["tier"] is not None
    for word in ("show", "receipt"):
        assert "`countermark explain RUN` says" in here.run("runs", word, own).stderr


def test_a_person_migrates_an_open_run(here: Bench, tmp_path: Path) -> None:
    """The run goes on by the other file; without a signature that fits, by its own."""
    old, new = flow(tmp_path, "move", WAIT, pay()), flow(tmp_path, "move", WAIT, pay(), pay("M-2", "more"))
    run = started(here, old, "M-1", 4)["run"]
    assert here.run("runs", "migrate", run, new, "--as", "controller", "--key", here.key("treasurer")).exit_code == 1
    ok(here.run("runs", "migrate", run, new, "--as", "treasurer", "--key", here.key("treasurer")))
    here.handle.call("event.received", {
        "source": "bank", "event": "m1", "key": "M-1", "payload": None, "digest": "sha256:" + "0" * 64,
        "scheme": "test", "evidence": None,
    })  # fmt: skip
    while (now := here.handle.call("workflow.drive", {"run": run}))["status"] in ("running", "waiting"):
        pass
    assert now["status"] == "success"
    found = document(here.run("runs", "receipt", run, "--json"))
    assert [step["place"] for step in found["steps"]] == ["main.bank", "main.pay", "main.more"]
    assert found["migrated"][0]["person"] == "treasurer"


def test_a_mistake_is_found_before_anything_is_recorded(here: Bench, tmp_path: Path) -> None:
    """A tool, an argument, a type or a source that is not here is named where it stands in the file."""
    path = Path(flow(tmp_path, "early", pay(), WAIT))
    good, before = path.read_text(), records(here)
    wrong = {
        "uses: stripe.transfer.create": "line 10, column 15: there is no tool `stripe.transfer.create` here",
        "amount: '1000'": "line 12, column 19: an int was expected, not a string",
        "amuont: 1000": "line 12, column 19: `stripe.transfers.create` has no argument `amuont`",
        "event: bnak": "there is no source of events `bnak` here",
    }  # fmt: skip
    hints = ("Did you mean `stripe.transfers.create`?", "without quotes", "Did you mean `amount`?", "`bank`?")
    right = ("uses: stripe.transfers.create", "amount: 1000", "amount: 1000", "event: bank")
    for old, (new, said), hint in zip(right, wrong.items(), hints, strict=True):
        path.write_text(good.replace(old, new))
        for words in (("run", str(path), "-i", "invoice=E-1"), ("run", str(path), "--check")):
            found = here.run(*words)
            assert found.exit_code == 1
            assert f"{path.name}, " in found.stderr
            assert said in found.stderr
            assert hint in found.stderr
    path.write_text(good)
    found = document(here.run("run", str(path), "--check", "--json"))
    assert found["name"] == "pay-early"
    assert records(here) == before


def test_a_mistake_in_a_called_file_is_of_that_file(here: Bench, tmp_path: Path) -> None:
    """Also one in code that stands in a file of its own."""
    top = tmp_path / "top.yaml"
    top.write_text("name: top\nsteps:\n  - call: inner\n")
    inner = tmp_path / "inner.yaml"
    inner.write_text("name: inner\nsteps:\n  - uses: stripe.transfer.create\n")
    assert "inner.yaml, line 3, column 11: there is no tool" in here.run("run", str(top)).stderr
    inner.write_text("name: inner\nsteps:\n  - run: ./bad.star\n")
    (tmp_path / "bad.star").write_text("def main():\n    return {'a': 1.5}\n")
    assert "bad.star, line 2, column 18: in the code, " in here.run("run", str(top), "--check").stderr
    inner.write_text("name: inner\nsteps:\n  - run: ./good.star\n")
    (tmp_path / "good.star").write_text("def main():\n    return {}\n")
    assert "  calls      inner sha256:" in ok(here.run("run", str(top), "--check"))


def test_a_run_shows_what_it_waits_for_and_what_stands(here: Bench, tmp_path: Path) -> None:
    """An event is no question to people; the payment of a run that failed is named."""
    bad = "      - id: bad\n        run: |\n          def main():\n              fail('no')\n"
    run = started(here, flow(tmp_path, "waits", WAIT), "W-1", 4)["run"]
    shown = ok(here.run("runs", "show", run))
    assert "waits    main.bank for an event" in shown
    assert "approvals" not in shown
    run = started(here, flow(tmp_path, "stands", pay(), bad), "W-2", 6)["run"]
    assert "stands   main.pay  1000 eur  " in ok(here.run("runs", "show", run))


UNKNOWN = """\
      - id: cap
        run: |
          def main(amount):
              limit = limti
              return {"ok": amount <= limit}
        with: {amount: 5}
        outputs: {ok: bool}
"""


def test_a_name_that_code_does_not_define_is_found_before_it_runs(here: Bench, tmp_path: Path) -> None:
    """Where it stands in the file, or in the file of the code; nothing is recorded. Names are not called values."""
    path = flow(tmp_path, "unknown", UNKNOWN)
    before = records(here)
    for words in ((), ("--check",)):
        said = here.run("run", path, "-i", "invoice=U-1", *words)
        assert said.exit_code == 1
        assert f"{Path(path).name}, line 12, column 23: in the code, Variable `limti` not found" in said.stderr
    assert records(here) == before
    (tmp_path / "cap.star").write_text("def main(amount):\n    return {'ok': amout}\n")
    outside = UNKNOWN.replace("|\n", "./cap.star\n", 1)
    outside = "\n".join(line for line in outside.split("\n") if not line.startswith("          ")) + "\n"
    said = here.run("run", flow(tmp_path, "outside", outside), "--check")
    assert "cap.star, line 2, column 19: in the code, Variable `amout` not found" in said.stderr


def test_outputs_that_are_not_the_declared_ones_are_named(here: Bench, tmp_path: Path) -> None:
    """Which one is missing and which is of another type, in the run's output and in runs show; never a value."""
    code = UNKNOWN.replace("limit = limti", "limit = 7").replace('"ok": amount <= limit', '"okay": True, "n": "secret"')
    path = flow(tmp_path, "misfit", code.replace("{ok: bool}", "{ok: bool, n: int}"))
    said = here.run("run", path, "-i", "invoice=M-1")
    why = "the outputs are not the declared ones: `ok` (bool) is missing; `n` is no int; 1 more that are not declared"
    assert why in said.stdout
    run_ = said.stdout.partition("run      ")[2].split()[0]
    assert why in ok(here.run("runs", "show", run_))
    assert "secret" not in said.stdout


def test_a_step_that_fails_without_an_input_names_it(here: Bench, tmp_path: Path) -> None:
    """What is not required may be left out, and is null; code that compares it fails, and the reason says which."""
    step = UNKNOWN.replace("limti", "7").replace("{amount: 5}", '{amount: "${{ inputs.cents }}"}')
    path = flow(tmp_path, "null", step)
    text = Path(path).read_text().replace("jobs:", "      cents: int\njobs:", 1)
    Path(path).write_text(text)
    said = here.run("run", path, "-i", "invoice=N-1")
    assert "for types `NoneType` and `int`" in said.stdout
    assert "; inputs that were not given: `cents`" in said.stdout
    assert "not given" not in here.run("run", path, "-i", "invoice=N-2", "-i", "cents=5").stdout
