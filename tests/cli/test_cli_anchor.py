"""``anchor`` as a person types it, on a real EVM, to a pack that the independent verifier calls anchored."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anvil_support import ADDRESSES, CHAIN_ID, KEYS, Anvil, anvil, needs_anvil
from cli_support import document, fresh, ok, run
from support import records

from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import Made

pytestmark = [needs_anvil, pytest.mark.slow]


@pytest.fixture
def node() -> Iterator[Anvil]:
    with anvil() as one:
        yield one


@pytest.fixture
def made(node: Anvil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A deployment whose contract stands on the chain."""
    monkeypatch.setenv("ANCHOR_RPC", node.url)
    monkeypatch.setenv("ANCHOR_KEY", KEYS[0])
    made = fresh(tmp_path)
    _configure(made.root, "")
    found = document(run("-C", str(made.root), "anchor", "deploy", "--json"))
    assert found["owner"].lower() == ADDRESSES[0]
    _configure(made.root, found["contract"])
    return made


def _configure(root: Path, contract: str) -> None:
    file = root / "countermark.toml"
    text = file.read_text("utf-8").partition("\n[publish.anchor]")[0]
    section = f'chain_id = {CHAIN_ID}\nrpc = "env:ANCHOR_RPC"\nkey = "env:ANCHOR_KEY"\nfinal = "accepted"\n'
    section += f'contract = "{contract}"\n' if contract else ""
    file.write_text(f"{text}\n[publish.anchor]\n{section}", "utf-8")


def _verified(root: Path, folder: Path, chains: list[dict[str, Any]], *words: str, code: int = 0) -> dict[str, Any]:
    """What the independent verifier says of a fresh pack, to an auditor who has the newest head and these chains."""
    status = document(run("-C", str(root), "status", "--json"))
    trust = {
        "v": 1, "log": {"origin": status["log"], "keys": [status["log_key"]]}, "people": status["people"],
        "heads": [{**status["head"], "source": "the end"}], "chains": chains,
    }  # fmt: skip
    (folder / "trust.json").write_text(json.dumps(trust))
    ok(run("-C", str(root), "export", str(folder / "pack.zip"), "--force"))
    asked = ("verify", str(folder / "pack.zip"), "--trust", str(folder / "trust.json"), "--json", *words)
    found: dict[str, Any] = document(run(*asked), code)
    return found


def test_deploy_publish_show_and_verify(made: Made, node: Anvil, tmp_path: Path) -> None:
    """The three commands; then the verifier: anchored with the auditor's block or node, and only then."""
    root, contract = made.root, document(run("-C", str(made.root), "anchor", "show", "--json"))["contract"]
    found = document(run("-C", str(root), "anchor", "publish", "--json"))
    assert found["recorded"] is True
    assert "a head of this log" in ok(run("-C", str(root), "anchor", "show"))
    body = next(record.body for record in records(root) if record.kind == "anchor.published")
    assert (body["sequence"], body["contract"]) == (1, contract.lower())
    for secret in (KEYS[0][2:], node.url):
        assert all(secret.encode() not in record.raw for record in records(root))

    anchor = {"contract": contract, "owner": ADDRESSES[0]}
    pinned = [{"chain_id": CHAIN_ID, "blocks": [body["block"]], "anchor": anchor}]
    assert _verified(root, tmp_path, pinned)["axes"]["integrity"]["level"] == "anchored"
    nothing = [{"chain_id": CHAIN_ID, "blocks": [], "anchor": anchor}]
    assert _verified(root, tmp_path, nothing, code=2)["axes"]["integrity"]["level"] == "retained"
    asked = _verified(root, tmp_path, nothing, "--rpc", f"{CHAIN_ID}={node.url}")
    assert "own node" in asked["axes"]["integrity"]["shown"]
    with anvil() as other:
        other.mine(20)
        wrong = _verified(root, tmp_path, nothing, "--rpc", f"{CHAIN_ID}={other.url}", code=1)
    assert {f["code"] for step in wrong["steps"] for f in step["findings"]} >= {"V17.block"}


def test_a_running_gate_anchors_by_itself_and_refuses_another_history(made: Made, tmp_path: Path) -> None:
    """The gate's own thread anchors the first head and records it; a copy of the data from before does not open."""
    root = made.root
    journal, mark = (root / "data" / "journal.db"), root / "highwater" / "head"
    before = journal.read_bytes(), mark.read_bytes()
    with open_deployment(root):
        pause = threading.Event()
        for _ in range(600):
            if any(record.kind == "anchor.published" for record in records(root)):
                break
            pause.wait(0.05)
        else:
            raise AssertionError("nothing was anchored")
    assert "anchored" in ok(run("-C", str(root), "anchor", "show"))
    journal.write_bytes(before[0])
    mark.write_bytes(before[1])  # whoever puts back the journal puts back the file beside it too
    for name in ("journal.db-wal", "journal.db-shm"):
        (root / "data" / name).unlink(missing_ok=True)
    failed = run("-C", str(root), "anchor", "show", "--json")
    assert failed.exit_code == 1
    assert "behind_anchor" in failed.stdout
    with pytest.raises(Exception, match="behind_anchor"):
        open_deployment(root)
