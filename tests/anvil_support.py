"""A real EVM for tests: Foundry's anvil from npm, on loopback, at the chain id of a local Avalanche network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from countermark.model.errors import CountermarkError

NPM = Path(__file__).parent / "npm" / "node_modules"
BINARY = NPM / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
CHAIN_ID = 43_112
UP_S_MAX = 20
# Accounts that anvil always has, with 10,000 coins each: from its public mnemonic "test test ... junk".
KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
)
ADDRESSES = (
    "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266",
    "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
    "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
)

needs_anvil = pytest.mark.skipif(
    not BINARY.exists(), reason="needs npm: @foundry-rs/anvil (npm install --prefix tests/npm --no-package-lock)"
)


class Anvil:
    """A running node. ``ask`` is plain JSON-RPC by the standard library, so that it shares nothing with the product."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one call. Raises ``RuntimeError`` with the node's own message."""
        asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.loads(answer.read())
        if "error" in found:
            raise RuntimeError(found["error"]["message"])
        return found["result"]

    def receipt(self, tx: str) -> dict[str, Any]:
        """The receipt of a transaction that a block is being made for: the node answers before it is done."""
        pause = threading.Event()
        for _ in range(500):
            if (found := self.ask("eth_getTransactionReceipt", tx)) is not None:
                return dict(found)
            pause.wait(0.02)
        raise CountermarkError("no block holds the transaction")

    def mine(self, count: int = 1) -> None:
        """Make blocks of what is waiting, or empty ones."""
        self.ask("anvil_mine", hex(count))


@contextmanager
def anvil(*options: str, chain_id: int = CHAIN_ID) -> Iterator[Anvil]:
    """A node with a state of its own, ended on the way out. It chooses its port and says so."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    process = subprocess.Popen(
        [str(BINARY), "--host", "127.0.0.1", "--port", "0", "--chain-id", str(chain_id), *options],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    reader = threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True)
    try:
        found = Anvil(process, _port(process))
        reader.start()  # it writes a line for each call: with nobody reading, the pipe fills and the node stands still
        yield found
    finally:
        process.kill()
        process.wait(10)
        if reader.ident is not None:
            reader.join(10)
        if process.stdout is not None:
            process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    end = time.monotonic() + UP_S_MAX
    for line in process.stdout or ():
        if (found := re.search(r"Listening on 127\.0\.0\.1:([0-9]+)", line)) is not None:
            return int(found[1])
        if time.monotonic() > end:
            break
    raise CountermarkError("anvil did not start")
