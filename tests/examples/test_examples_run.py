"""The seven examples as their README runs them, judged by the simulators' books, and executed again by an auditor."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))

from anvil_support import ADDRESSES, anvil, needs_anvil
from walking import script, walk

from countermark.authority import generate, public_of
from countermark.cli.run import compiled
from countermark.journal import SqliteStore
from countermark.model.records import Record
from countermark.policy import compile_bundle, load_sources, with_keys
from countermark.twins.stripe.books import Books
from countermark.wiring.connectors import drafts
from countermark.workflow import Known, read_definition, read_yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
WAIT_S_MAX = 900


def played(name: str, folder: Path, *more: str) -> str:
    """What ``run.py`` says; it must end with a pack that verifies."""
    words = [sys.executable, str(EXAMPLES / "run.py"), name, "--dir", str(folder), *more]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S_MAX, cwd="/")
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "VERIFIED" in done.stdout
    again(folder)
    return done.stdout


def again(folder: Path) -> None:
    """An auditor's machine: the two files alone, another home, nothing on the path."""
    elsewhere = folder / "auditor"
    elsewhere.mkdir()
    for name in ("evidence.zip", "trust.json"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "countermark_verify", "evidence.zip", "--trust", "trust.json"],
        capture_output=True, text=True, cwd=elsewhere, timeout=WAIT_S_MAX,
        env={"PATH": "/nonexistent", "HOME": str(elsewhere)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"re-executed: all [0-9]+ pure steps", done.stdout), done.stdout


def moved(folder: Path) -> list[tuple[str, int, str]]:
    """Kind, amount and destination of every movement of money in the simulator's books that the gate made."""
    found = Books(folder / "simulator").movements()
    return sorted((one.kind, one.amount, one.destination) for one in found if "countermark_key" in one.metadata)


def records(folder: Path, kind: str) -> list[Record]:
    store = SqliteStore(folder / "deployment" / "data" / "journal.db", readonly=True)
    try:
        return [record for record in store.records() if record.kind == kind]
    finally:
        store.close()


def outputs(folder: Path) -> list[dict[str, Any]]:
    """Status and outputs of every run of a definition, in the order in which they ended."""
    return [record.body["workflow"] for record in records(folder, "run.ended") if "workflow" in record.body]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_fits_its_policy(name: str) -> None:
    """Tools, arguments and types, before anything runs."""
    folder = EXAMPLES / "policy" / ("chain" if name == "treasury-sweep" else "stripe")
    files = with_keys(
        dict(load_sources(folder)), {person: str(public_of(generate())) for person in ("treasurer", "controller")}
    )
    tools = compile_bundle(tuple(sorted(files.items())), drafts()).compiled.tools
    read_definition(dict(compiled(EXAMPLES / f"{name}.yaml")[0].document), known=Known(tools))


@pytest.mark.slow
def test_an_invoice_is_paid_once_when_it_matches(tmp_path: Path) -> None:
    """Asked three times, paid once; the one that did not match moved nothing."""
    said = played("vendor-invoice", tmp_path)
    assert moved(tmp_path) == [("transfer", 240_000, "acct_1AcmePaper")]
    assert "400 of paper A4 invoiced, 399 arrived" in said
    assert [one["status"] for one in outputs(tmp_path)] == ["success", "failure"]


@pytest.mark.slow
def test_a_payroll_pays_everybody_once_over_two_runs(tmp_path: Path) -> None:
    """The first run names who was not paid, the second pays only them, by the provider's books."""
    played("payroll", tmp_path)
    paid = Counter(account for _, _, account in moved(tmp_path))
    assert paid == {"acct_1Ana": 1, "acct_1Ben": 1, "acct_1Chen": 1, "acct_1Dana": 1}
    first, second = (one["outputs"] for one in outputs(tmp_path))
    assert first == {"paid": ["ana", "chen", "dana"], "not_paid": ["ben"]}
    assert second == {"paid": ["ana", "ben", "chen", "dana"], "not_paid": []}


@pytest.mark.slow
def test_a_refund_needs_a_person_and_what_is_left(tmp_path: Path) -> None:
    """One refund, after an answer; the one above the charge was never asked."""
    played("refund", tmp_path)
    assert [(kind, amount) for kind, amount, _ in moved(tmp_path)] == [("refund", 1_200)]
    assert len(records(tmp_path, "escalation.answered")) == 1
    assert [one["status"] for one in outputs(tmp_path)] == ["success", "failure"]


@pytest.mark.slow
def test_what_a_failed_order_held_is_released(tmp_path: Path) -> None:
    """By the provider's books: one hold taken and its maker paid, the other hold cancelled and nobody paid."""
    played("order", tmp_path)
    assert moved(tmp_path) == [("transfer", 7_200, "acct_1AcmePaper")]
    ended = outputs(tmp_path)
    assert [(one["status"], one["undone"], one["left"]) for one in ended] == [
        ("success", [], []), ("failure", ["order.hold"], []),
    ]  # fmt: skip
    settled = [(one.body["tool"], one.body["output"].get("status")) for one in records(tmp_path, "action.settled")]
    intents = [(tool.rpartition(".")[2], status) for tool, status in settled if "intents" in tool]
    held = ("create", "requires_capture")
    assert intents == [held, ("capture", "succeeded"), held, ("cancel", "canceled")]


@pytest.mark.slow
@needs_anvil
def test_a_sweep_moves_what_is_above_the_floor(tmp_path: Path) -> None:
    """By the chain's own balance."""
    with anvil() as node:
        before = int(node.ask("eth_getBalance", ADDRESSES[1], "latest"), 16)
        played("treasury-sweep", tmp_path, "--rpc", node.url)
        assert int(node.ask("eth_getBalance", ADDRESSES[1], "latest"), 16) - before == 4 * 10**18
        (ended,) = outputs(tmp_path)
        assert node.receipt(ended["outputs"]["transaction"])["status"] == "0x1"


@pytest.mark.slow
def test_the_books_of_a_month_are_compared_row_by_row(tmp_path: Path) -> None:
    """A thousand rows on each side; the three that differ are named, and people were asked about them."""
    played("month-end", tmp_path)
    (ended,) = outputs(tmp_path)
    assert ended["outputs"]["rows"] == [1_000, 1_000]
    assert [one.split(":")[0] for one in ended["outputs"]["differences"]] == ["R1000", "R505", "R77"]
    theirs, ours = ended["outputs"]["cents"]
    assert theirs - ours == 1_077 - 45 - 250
    assert len(records(tmp_path, "escalation.answered")) == 1


@pytest.mark.slow
def test_an_agent_stays_inside_its_boundary(tmp_path: Path) -> None:
    """It paid the two invoices that were due, and nothing else that it tried."""
    played("chase-and-pay", tmp_path)
    assert moved(tmp_path) == [("transfer", 31_000, "acct_1BorealisHosting"), ("transfer", 48_000, "acct_1AcmePaper")]
    denied = [one.body["code"] for one in records(tmp_path, "action.decided") if one.body["disposition"] == "deny"]
    assert denied == ["boundary_argument", "boundary_budget", "boundary_tool"]


@pytest.mark.slow
def test_the_commands_by_hand_work_as_typed(tmp_path: Path) -> None:
    """The run waits for the controller, pays once, has a receipt and its evidence."""
    if shutil.which("curl") is None:
        pytest.skip("needs debian: curl")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    told = walk(script("../examples/README.md", ("4242", "8521")), tmp_path, WAIT_S_MAX)
    assert "Pay 240000 cents to Acme Paper GmbH?" in told
    paid = [one for one in Books(tmp_path / "simulator").movements() if "countermark_key" in one.metadata]
    assert [(one.amount, one.destination) for one in paid] == [(240_000, "acct_1AcmePaper")]
    assert (tmp_path / "evidence.zip").exists()


def test_the_workflow_in_the_projects_readme_is_one() -> None:
    """The block compiles as it stands."""
    blocks = re.findall(r"```yaml\n(.*?)```", (EXAMPLES.parent / "README.md").read_text("utf-8"), re.DOTALL)
    assert [read_yaml(block).definition.name for block in blocks] == ["refund"]


def test_the_readme_names_every_example() -> None:
    """Each by the command that runs it; and every command's name is one that ``run.py`` knows."""
    page = (EXAMPLES / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"`uv run python examples/run\.py ([a-z-]+)`", page)) == NAMES
    for name in ("vendor-invoice", "payroll", "treasury-sweep", "chase-and-pay"):
        assert json.loads((EXAMPLES / "inputs" / f"{name}.json").read_text("utf-8"))
