"""The committed code of the anchor contract is what its source compiles to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from countermark.chain import Log, keccak
from countermark.publish.anchor import contract as module
from countermark.publish.anchor.contract import (
    Anchored,
    anchor_call,
    creation_code,
    event_topic,
    read_event,
    runtime_code,
)

FOLDER = Path(module.__file__).parent
VYPER = "vyper==0.4.3"
HEAD = Anchored(2, 9, bytes([1]) * 32, bytes([2]) * 32)


@pytest.mark.slow
def test_the_contract_compiles_to_the_committed_bytes(tmp_path: Path) -> None:
    """Vyper 0.4.3 in an environment of its own gives creation code, runtime code and ABI byte for byte."""
    source = tmp_path / "Anchor.vy"
    source.write_bytes((FOLDER / "Anchor.vy").read_bytes())
    subprocess.run(["uv", "venv", "--quiet", str(tmp_path / "venv")], check=True, timeout=60)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, VYPER], check=True, timeout=300)
    for form, name in (
        ("bytecode", "Anchor.bin"),
        ("bytecode_runtime", "Anchor.runtime.bin"),
        ("abi", "Anchor.abi.json"),
    ):
        made = subprocess.run(
            [str(tmp_path / "venv" / "bin" / "vyper"), "-f", form, source.name],
            cwd=tmp_path, check=True, capture_output=True, timeout=120,
        ).stdout  # fmt: skip
        assert made == (FOLDER / name).read_bytes(), name


def test_calls_and_events_are_those_of_the_abi() -> None:
    """Selector and topic are the hashes of what the ABI says; the creation code ends with more than what it leaves."""
    abi = {(item["type"], item.get("name")): item for item in json.loads((FOLDER / "Anchor.abi.json").read_text())}

    def signature(kind: str, name: str) -> bytes:
        return f"{name}({','.join(one['type'] for one in abi[kind, name]['inputs'])})".encode()

    assert anchor_call("countermark/acme/l0", HEAD)[:4] == keccak(signature("function", "anchor"))[:4]
    assert event_topic() == keccak(signature("event", "Anchored"))
    assert [one["name"] for one in abi["event", "Anchored"]["inputs"] if one["indexed"]] == ["origin", "sequence"]
    assert runtime_code() in creation_code()


def test_an_event_is_read_as_the_call_asked() -> None:
    """The words of the call are the topics and the data of the event; any other event is refused."""
    call = anchor_call("countermark/acme/l0", HEAD)
    words = [call[at : at + 32] for at in range(4, len(call), 32)]
    log = Log(bytes(20), (event_topic(), *words[:2]), b"".join(words[2:]))
    assert read_event(log) == (words[0], HEAD)
    for wrong in (
        Log(bytes(20), (event_topic(), words[0]), log.data),
        Log(bytes(20), (bytes(32), *words[:2]), log.data),
        Log(bytes(20), log.topics, log.data[:-1]),
        Log(bytes(20), (event_topic(), words[0], b"\1" * 32), log.data),
    ):
        with pytest.raises(module.ChainError):
            read_event(wrong)
