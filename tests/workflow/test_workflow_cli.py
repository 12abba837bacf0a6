"""`countermark run` and `runs`: what a person sees of a workflow, and the exit codes that scripts go by."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

from cli_support import Bench, Provider, document, fresh, ok
from cli_support import run as cli
from flow_rig import with_approvals

from countermark.cli.run import calls_of
from countermark.connectors import ApproveConnector
from countermark.policy import template_files
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment
from countermark.workflow import Workflow

PAY = """
name: paying
inputs:
  invoice: { type: string, required: true }
  amount: { type: int, default: 48000 }
outputs: { reference: "${{ jobs.main.outputs.reference }}" }
jobs:
  main:
    outputs: { reference: "${{ steps.pay.outputs.ref }}" }
    steps:
      - id: positive
        run: |
          def main(amount):
              if amount < 1:
                  fail("nothing to pay")
              return {}
        with: { amount: "${{ inputs.amount }}" }
      - id: pay
        uses: stripe.transfers.create@v1
        with:
          amount: ${{ inputs.amount }}
          currency: eur
          destination: acct_1AcmePaper
          metadata[invoice]: ${{ inputs.invoice }}
"""
ASK = """
name: asking
steps:
  - { id: ask, name: Somebody agrees, approve: "Shall we?" }
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A deployment that this process owns; commands are its clients."""
    root = tmp_path_factory.mktemp("flows") / "d"
    connectors = {"stripe": Provider(), "workflow": ApproveConnector()}
    files = with_approvals(template_files("vendor-payments"))
    made = init_deployment(root, "vendor-payments", "acme", connectors=connectors, edit=files)
    with open_deployment(root, agent="treasury", connectors=connectors) as handle:
        yield Bench(made, handle)


@pytest.fixture
def paying(tmp_path: Path) -> str:
    return written(tmp_path, "paying", PAY)


def written(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def test_a_run_is_told_step_by_step_and_ends_with_its_outputs(bench: Bench, paying: str) -> None:
    """Exit 0; a line for each step, then the outputs as JSON."""
    said = ok(bench.run("run", paying, "-i", "invoice=INV-1"))
    first, second, status, *rest = said.splitlines()
    assert (first.split()[:3], second.split()[:3]) == (
        ["✓", "main.positive", "pure"], ["✓", "main.pay", "effect"]
    )  # fmt: skip
    assert status.startswith("success")
    assert any(line.startswith('  reference = "') for line in rest), said


def test_a_definition_made_in_python_is_run_from_its_document_and_by_a_program(bench: Bench, tmp_path: Path) -> None:
    """The document as JSON runs like its YAML twin; `workflow.start` runs it too, and one event starts one run."""
    flow = Workflow("in-python")
    job = flow.job("only")
    flow.output(
        "n", job.output("n", job.pure("a", "def main():\n    return {'n': 7}\n", outputs={"n": int}).outputs["n"])
    )
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(flow.document()))
    assert "  n = 7" in ok(bench.run("run", str(file), "--event", "day-1"))
    trigger = {"kind": "manual", "event": "day-1", "record": None}
    body = {"document": flow.document(), "inputs": {}, "agent": "treasury", "trigger": trigger}
    assert bench.handle.call("workflow.start", body)["fresh"] is False
    file.write_text('{"v": 1}')
    assert "the member `name` is missing [bad_definition]" in bench.run("run", str(file)).stderr


def test_what_failed_code_says_is_told(bench: Bench, paying: str) -> None:
    """Exit 6; the sentence of `fail` stands below its step, and what came after was not run."""
    said = ok(bench.run("run", paying, "-i", "invoice=INV-2", "-i", "amount=0"), 6)
    assert "✗ main.positive  pure  failure [compute_error]" in said
    assert "nothing to pay" in said
    assert "- main.pay  effect  skipped" in said
    refused = ok(bench.run("run", paying, "-i", "invoice=FAIL-1"), 6)
    assert "✗ main.pay  effect  failure [provider_refused]" in refused


def test_one_event_starts_one_run(bench: Bench, paying: str) -> None:
    """Asked again with the same --event, the answer is the run that there is; its exit code too."""
    words = ("run", paying, "-i", "invoice=INV-3", "--event", "mail-7", "--json")
    first, second = document(bench.run(*words)), document(bench.run(*words))
    assert (first["fresh"], second["fresh"]) == (True, False)
    assert (first["run"], first["outputs"]) == (second["run"], second["outputs"])


def test_inputs_come_from_a_file_and_from_the_command_line(bench: Bench, paying: str, tmp_path: Path) -> None:
    """The command line comes before the file; what is of another type is told with what to do."""
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps({"invoice": "INV-4", "amount": 5}))
    found = document(bench.run("run", paying, "--inputs", str(file), "-i", "amount=600", "--json"))
    assert found["status"] == "success"
    (action,) = found["steps"][-1]["actions"]
    assert "6.00 EUR" in ok(bench.run("explain", action))
    file.write_text("[]")
    assert "does not hold a JSON object" in bench.run("run", paying, "--inputs", str(file)).stderr
    wrong = bench.run("run", paying, "-i", "invoice=INV-5", "-i", "amount=many")
    assert (wrong.exit_code, wrong.stderr.splitlines()[0]) == (
        1, "error: the input amount is not of type int: 'many' [bad_config]"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nsteps:\n  - uses: a.b\n    wiht: {}\n", "line 4, column 5"),
        ("name: x\nsteps:\n  - run: def main(): retrun {}\n", "line 3, column"),
        ("name: x\nsteps: [\n", "line 3, column 1"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(bench: Bench, tmp_path: Path, text: str, said: str) -> None:
    """Exit 1, nothing was started."""
    found = bench.run("run", written(tmp_path, "bad", text), "--json")
    error = document(found, 1)["error"]
    assert error["code"] == "bad_definition"
    assert said in error["message"]


def test_what_a_text_calls_is_seen_however_it_is_written() -> None:
    """In a block, in a list and in flow style; not a word that only ends so."""
    text = "steps:\n  - call: a\n  - { id: x, call: 'b' }\n  - id: y\n    call: \"c.d\"\n  - recall: e\n"
    assert calls_of(text) == ["a", "b", "c.d"]


def test_a_run_that_waits_says_for_whom(bench: Bench, tmp_path: Path) -> None:
    """Exit 4 and what to do next; after the answer, `runs show --wait` ends as the run does."""
    asking = written(tmp_path, "asking", ASK)
    said = ok(bench.run("run", asking), 4)
    run = next(line.split()[1] for line in said.splitlines() if line.startswith("  run "))
    assert "main.ask for people" in said
    assert f"countermark runs show {run} --wait" in said
    assert run in ok(bench.run("runs", "list"))
    (parked,) = document(bench.run("approvals", "list", "--json"))
    assert (parked["workflow"], parked["run"], parked["question"]) == ("asking", run, "Shall we?")
    assert f"  asking {run}: Shall we?" in ok(bench.run("approvals", "list"))
    (row,) = [line for line in ok(bench.run("approvals", "list")).splitlines() if parked["escalation"] in line]
    assert "a question" in row
    words = ("--person", "controller", "--key", bench.key("controller"), "--yes")
    answered = ok(bench.run("approvals", "approve", parked["escalation"], *words))
    assert "nothing is sent: the answer goes back to the workflow" in answered
    assert "question = Shall we?" in answered
    assert "workflow://" not in answered
    assert "  payee " not in answered
    assert "✓ main.ask  effect  success  Somebody agrees" in ok(bench.run("runs", "show", run, "--wait"))
    assert document(bench.run("runs", "show", run, "--json"))["status"] == "success"
    listed: Any = document(bench.run("runs", "list", "--name", "asking", "--json"))
    assert [one["run"] for one in listed["ended"]] == [run]


def test_an_approve_step_without_its_tool_says_what_it_needs(bench: Bench, tmp_path: Path) -> None:
    """A policy that does not know `workflow.approve` is told of it, and where it is described."""
    made = fresh(tmp_path)
    file = written(tmp_path, "asking-plain", "name: asking-plain\nsteps:\n  - approve: May it?\n")
    result = cli("-C", str(made.root), "run", file, "--check")
    assert result.exit_code == 1
    assert "no tool `workflow.approve`" in result.stderr
    assert "docs/workflows.md" in result.stderr


def test_a_cancelled_run_ends_cancelled(bench: Bench, tmp_path: Path) -> None:
    """`runs cancel`: what waits is not waited for; a run that is not there is told."""
    text = "name: waiting\nsteps:\n  - wait: { hours: 1 }\n"
    started = document(bench.run("run", written(tmp_path, "waiting", text), "--detach", "--json"))
    words = ("--reason", "wrong month", "--person", "treasurer")
    assert "is cancelled" in ok(bench.run("runs", "cancel", started["run"], *words))
    assert "cancelled" in ok(bench.run("runs", "show", started["run"], "--wait"), 6)
    said = "by treasurer (as said, not signed): wrong month"
    for words_of in (("runs", "show"), ("runs", "receipt"), ("explain",)):
        assert said in ok(bench.run(*words_of, started["run"])), words_of
    shown: Any = document(bench.run("runs", "show", started["run"], "--json"))
    assert (shown["cancelled"]["person"], shown["cancelled"]["reason"]) == ("treasurer", "wrong month")
    assert bench.run("runs", "show", "run_" + "0" * 32).exit_code == 1
    assert "error: the run is over" in bench.run("runs", "cancel", started["run"], *words).stderr


def test_a_queued_run_says_behind_which_and_is_cancelled_by_somebody(bench: Bench, tmp_path: Path) -> None:
    """Nobody that the policy does not know cancels it; it ends when the one before it is over."""
    file = written(tmp_path, "grouped", "name: grouped\nconcurrency: one\nsteps:\n  - wait: { hours: 1 }\n")
    first = document(bench.run("run", file, "--json"), 4)["run"]
    said = ok(bench.run("run", file), 4)
    assert f"waits    behind {first}" in said
    second = next(line.split()[1] for line in said.splitlines() if line.startswith("  run "))
    words = ("--reason", "wrong month", "--person")
    assert "no person 'nosuchperson'" in bench.run("runs", "cancel", second, *words, "nosuchperson").stderr
    assert f"it ends when {first}, before it" in ok(bench.run("runs", "cancel", second, *words, "treasurer"))
    ok(bench.run("runs", "cancel", first, *words, "treasurer"))
    for run in (first, second):
        assert "cancelled" in ok(bench.run("runs", "show", run, "--wait"), 6)
