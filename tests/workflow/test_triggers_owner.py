"""An owner with triggers: the folder it reads, the events it hears, the chain it follows, until it closes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from anvil_support import CHAIN_ID, anvil, needs_anvil
from chain_logs import SIGNATURE, deploy, pay
from click.testing import CliRunner
from trigger_stage import AGENT, TriggerStage, bodies, countermark, event, flow, hook, schedule, unsound, write_folder

from countermark.cli import main
from countermark.model.canon import canon
from countermark.server.serve import Listener
from countermark.wiring.triggering import Triggering
from countermark.wiring.workflow_folder import read_folder

WAIT_S, WAITS_MAX = 0.02, 1_500
AGENT_LINE = f'\n[workflows]\nagent = "{AGENT}"\n'
YAML = """
name: paying
on:
  webhook: { source: bank, with: { invoice: "${{ event.invoice }}" } }
inputs: { invoice: { type: string, required: true } }
steps:
  - call: checking
    with: { invoice: "${{ inputs.invoice }}" }
"""
CALLED = """
name: checking
inputs: { invoice: { type: string, required: true } }
steps:
  - with: { invoice: "${{ inputs.invoice }}" }
    run: |
      def main(invoice):
          return {"known": True}
    outputs: { known: bool }
"""


class Owner:
    """A deployment that is opened as `countermark serve` does it."""

    def __init__(self, root: Path) -> None:
        stage = TriggerStage(root)  # makes the deployment
        stage.close()
        self.root, self.provider = root, stage.provider
        self.handle: countermark.Deployment | None = None

    def configure(self, text: str) -> None:
        with (self.root / "countermark.toml").open("a") as file:
            file.write(text)

    def open(self) -> Triggering:
        self.handle = countermark.open(self.root, agent=AGENT, connectors={"stripe": self.provider}, triggers=True)
        found: Triggering = self.handle._end.triggering  # type: ignore[union-attr]
        return found

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()
            self.handle = None

    def until(self, true: Callable[[], bool]) -> None:
        pause = threading.Event()
        for _ in range(WAITS_MAX):
            if true():
                return
            pause.wait(WAIT_S)
        raise AssertionError("it did not happen")

    def ended(self) -> list[str]:
        return [body["workflow"]["name"] for body in bodies(self.root, "run.ended") if "workflow" in body]


def doctored(root: Path) -> list[str]:
    """What doctor warns of in the folder of definitions."""
    found = CliRunner().invoke(main, ["-C", str(root), "doctor", "--json"])
    checks = json.loads(found.stdout)["checks"]
    return [one["message"] for one in checks if one["name"] == "triggers" and one["state"] == "warning"]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    found = Owner(tmp_path / "d")
    yield found
    found.close()
    assert unsound(found.root) == []


def test_a_folder_is_read_whatever_the_order_and_each_fault_is_told(tmp_path: Path) -> None:
    """Definitions in YAML and as documents, one calling another; a wrong file, a name twice, what is no definition."""
    folder = tmp_path / "workflows"
    assert read_folder(folder).definitions == {}
    write_folder(tmp_path, flow(hook()))
    (folder / "a-paying.yaml").write_text(YAML)
    (folder / "b-checking.yml").write_text(CALLED)
    (folder / "c-again.yaml").write_text(CALLED)
    (folder / "d-wrong.yaml").write_text("name: wrong\nsteps:\n  - runn: x\n")
    (folder / "e-binary.yaml").write_bytes(b"\xff\xfe")
    (folder / "f-calls.yaml").write_text(YAML.replace("checking", "nowhere").replace("paying", "calls"))
    (folder / "notes.txt").write_text("not a definition")
    found = read_folder(folder)
    assert sorted(found.definitions) == ["checking", "paying", "sweep"]
    assert sorted(found.faults) == ["c-again.yaml", "d-wrong.yaml", "e-binary.yaml", "f-calls.yaml"]
    assert "name checking" in found.faults["c-again.yaml"].message
    assert "line 3" in found.faults["d-wrong.yaml"].message


def test_an_event_starts_a_run_by_itself(owner: Owner) -> None:
    """The owner reads the folder, records what is called, hears the event and starts the run, once over a restart."""
    owner.configure(AGENT_LINE)
    (owner.root / "workflows").mkdir()
    (owner.root / "workflows" / "paying.yaml").write_text(YAML)
    (owner.root / "workflows" / "checking.yaml").write_text(CALLED)
    for _ in range(2):
        triggering = owner.open()
        assert triggering.faults == {}
        assert owner.handle is not None
        owner.handle.call("event.received", event(1))
        owner.until(lambda: "paying" in owner.ended())
        owner.close()
    assert sorted(owner.ended()) == ["checking", "paying"]
    kinds = [body["workflow"]["trigger"]["kind"] for body in bodies(owner.root, "run.started")]
    assert kinds == ["webhook", "call"]


def test_the_folder_is_checked_by_what_is_here(owner: Owner) -> None:
    """A tool, an agent and a source that are not are named with their line, and nothing of them is recorded."""
    head = "on: { schedule: [ { cron: '0 9 * * *', timezone: UTC, missed: skip } ] }\nsteps:\n  - "
    wrong = {
        "tool": ("uses: stripe.transfer.create", "line 4, column 11: there is no tool `stripe.transfer.create` here"),
        "agent": ("agent: { name: nobdy, goal: g, calls: 1, minutes: 1 }", "there is no agent `nobdy` here"),
        "source": ("wait: { event: shop, key: k }", "there is no source of events `shop` here"),
    }  # fmt: skip
    (owner.root / "workflows").mkdir()
    for name, (text, _) in wrong.items():
        (owner.root / "workflows" / f"{name}.yaml").write_text(f"name: {name}\n{head}{text}\n")
    faults = owner.open().faults
    assert sorted(faults) == [f"{name}.yaml" for name in sorted(wrong)]
    assert all(said in faults[f"{name}.yaml"] for name, (_, said) in wrong.items())
    assert bodies(owner.root, "workflow.defined") == []


def test_what_cannot_be_started_does_not_keep_the_gate_shut(owner: Owner) -> None:
    """No agent named, a wrong file, a damaged file of positions: told, while the gate works."""
    write_folder(owner.root, flow(schedule()))
    (owner.root / "workflows" / "wrong.yaml").write_text("name: [")
    assert [line.split(" starts nothing: ")[0] for line in doctored(owner.root)] == ["wrong.yaml", "sweep"]
    triggering = owner.open()
    assert sorted(triggering.faults) == ["sweep", "wrong.yaml"]
    assert owner.handle is not None
    triggering._fault("usdc", "chain_replaced")
    told = sorted(line.split(" starts nothing: ")[0] for line in doctored(owner.root))
    assert told == ["sweep", "usdc", "wrong.yaml"]
    with Listener(owner.handle, settings=replace(owner.handle.config.serve, port=0)) as listener:
        for path, told in (("healthz", b'"trigger_faults":3'), ("metrics", b"\ncountermark_trigger_faults 3\n")):
            with urlopen(f"{listener.url}/{path}") as answer:
                assert told in answer.read().replace(b": ", b":")
    assert owner.handle.act("stripe.transfers.create", {
        "amount": 1, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "I-1",
    }).status == "confirmed"  # fmt: skip
    owner.close()
    owner.configure(AGENT_LINE)
    (owner.root / "data" / "triggers.json").write_text("{")
    assert list(owner.open().faults) == ["wrong.yaml", "triggers"]


def test_one_definition_that_cannot_be_recorded_leaves_the_others_in_force(owner: Owner) -> None:
    """It calls what nobody has; the one beside it starts."""
    owner.configure(AGENT_LINE)
    write_folder(owner.root, flow(hook()))
    document: dict[str, Any] = flow(hook())
    call = {"id": "sub", "kind": "call", "name": "", "if": None, "continue_on_error": False, "timeout_s": None,
            "retry": None, "workflow": "sha256:" + "0" * 64, "with": []}  # fmt: skip
    document["jobs"][0]["steps"].append(call)
    (owner.root / "workflows" / "calls.json").write_bytes(canon({**document, "name": "calls"}))
    triggering = owner.open()
    assert list(triggering.faults) == ["calls"]
    assert owner.handle is not None
    owner.handle.call("event.received", event(1))
    owner.until(lambda: owner.ended() == ["sweep"])


def test_an_owner_without_triggers_starts_nothing(owner: Owner) -> None:
    """Whoever opens the deployment for a moment, such as a command, starts no run and follows no chain."""
    owner.configure(AGENT_LINE)
    write_folder(owner.root, flow(hook()))
    owner.open()
    owner.close()
    with countermark.open(owner.root, agent=AGENT, connectors={"stripe": owner.provider}) as handle:
        handle.call("event.received", event(1))
    assert bodies(owner.root, "run.started") == []
    owner.open()
    owner.until(lambda: owner.ended() == ["sweep"])


@needs_anvil
def test_an_event_on_a_chain_starts_a_run(owner: Owner, tmp_path: Path) -> None:
    """From the contract's log on a real node to the payment, once over restarts and without the file of positions."""
    on_chain: dict[str, Any] = hook("usdc", kind="chain")
    on_chain["with"] = [["invoice", {"$": "format('I-{0}', event.value)"}]]
    write_folder(owner.root, flow(on_chain))
    with anvil() as node:
        contract = deploy(node)
        owner.configure(
            AGENT_LINE
            + f'[workflows.sources.usdc]\nkind = "chain"\nchain = {CHAIN_ID}\ncontract = "{contract}"\nstart = 0\n'
            f'signature = "{SIGNATURE}"\nkey = "to"\n[connector.evm]\nkind = "evm"\n'
            f'[connector.evm.chains.{CHAIN_ID}]\nrpc = "{node.url}"\nfinal = "accepted"\n'
        )
        pay(node, contract, 7)
        for value in (8, 9):
            triggering = owner.open()
            pay(node, contract, value)
            owner.until(lambda value=value: len(owner.ended()) == value - 6)  # type: ignore[misc]
            assert triggering.faults == {}
            owner.close()
            (owner.root / "data" / "sources" / "usdc").unlink()
    inputs = [body["workflow"]["inputs"]["invoice"] for body in bodies(owner.root, "run.started")]
    assert inputs == ["I-7", "I-8", "I-9"]
    assert len(owner.provider.effects) == 3
    assert [body["scheme"] for body in bodies(owner.root, "event.received")] == ["receipt"] * 3
