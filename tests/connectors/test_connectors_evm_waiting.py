"""Payments on a chain that wait: who may come after them, and who waits for them. The node is made up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evm_stage import hold, made

from countermark.chain import Signer
from countermark.connectors import EvmConnector
from countermark.connectors.evm import Attempt, Ledger, Node
from countermark.gate import Gate
from countermark.gate.executor import Executor
from countermark.model.clock import SystemClock
from countermark.model.onchain import Call, encode_call
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.net import LostError, NotSentError

PAYER = Signer("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
SUPPLIER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
COIN = 10**18
TOOL = ToolSpec(name="t", connector="evm", class_="money", args=(), timeout_ms=60_000)  # type: ignore[call-arg]


class Chain:
    """A node that takes transactions and puts none into a block. ``down`` refuses the connection of one value."""

    chain_id = 43_112

    def __init__(self, coins: int = 10) -> None:
        self.balance = coins * COIN
        self.taken = threading.Semaphore(0)
        self.mined = 0
        self.down = False

    def check_chain(self) -> None:
        pass

    def close(self) -> None:
        pass

    def transactions_of(self, address: str, which: str = "latest") -> int:
        return self.mined

    def block(self, which: str) -> dict[str, Any]:
        return {"number": "0x1", "baseFeePerGas": "0x1"}

    def receipt(self, tx: str) -> None:
        return None

    def call(self, method: str, *params: Any) -> Any:
        if method == "eth_sendRawTransaction":
            if self.down:
                raise NotSentError("no", "no_connection")
            self.taken.release()
        found: dict[str, Any] = {
            "eth_getBalance": hex(self.balance), "eth_call": "0x", "eth_maxPriorityFeePerGas": "0x1",
            "eth_blockNumber": "0x1", "eth_getTransactionByHash": None,
        }  # fmt: skip
        return found.get(method, "0x")


class Stand:
    """One account on this chain, and its connector."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.chain = Chain(**more)
        self.ledger = Ledger(folder / "n.db", lambda: 0)
        nodes = {self.chain.chain_id: Node(self.chain, "accepted")}  # type: ignore[arg-type]
        self.connector = EvmConnector(nodes, lambda *_: PAYER, self.ledger, poll_s=5)
        self.found: dict[str, Outcome] = {}

    def pay(self, key: str, coins: int) -> Outcome:
        call = Call(self.chain.chain_id, PAYER.address, SUPPLIER, coins * COIN, b"", 21_000, 100)
        request = Request("POST", "evm://", (("Idempotency-Key", key),), encode_call(call))
        self.found[key] = self.connector.execute(TOOL, request)
        return self.found[key]

    def aside(self, key: str, coins: int) -> threading.Thread:
        """A payment that waits for its block."""
        thread = threading.Thread(target=self.pay, args=(key, coins), daemon=True)
        thread.start()
        assert self.chain.taken.acquire(timeout=10)
        return thread


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_two_payments_that_the_account_cannot_both_pay_do_not_block_it(stand: Stand) -> None:
    """The second would wait for money behind the first, for ever, and everybody else's payments behind it."""
    first = stand.aside("a", 6)
    refused = stand.pay("b", 6)
    assert (refused.status, refused.code, refused.request_id) == ("failed", "not_sent", "insufficient_funds")
    second = stand.aside("c", 3)
    stand.connector.hurry()
    for thread in (first, second):
        thread.join(10)
    assert [stand.found[key].status for key in ("a", "c")] == ["unknown", "unknown"]
    stand.connector.close()


def test_a_number_that_became_free_is_taken_though_a_higher_one_waits_for_it(stand: Stand) -> None:
    """Of two payments at once the lower number was given back: the account would stand still for good otherwise."""
    for number, key in enumerate(("a", "b")):
        slot = stand.ledger.take(key, 43_112, PAYER.address, 0, lambda n: Attempt(f"0x{n}", 2, 1, cancels=False))
        assert slot is not None
        assert slot.nonce == number
    assert stand.pay("c", 1).request_id == "nonce_blocked"
    stand.ledger.release("a")
    thread = stand.aside("c", 1)
    found = stand.ledger.find("c")
    assert found is not None
    assert found.nonce == 0
    stand.connector.hurry()
    thread.join(10)
    assert stand.pay("d", 1).request_id == "gate_halted", "nothing is begun any more"
    stand.connector.close()


def test_a_gate_that_ends_does_not_wait_for_blocks(stand: Stand) -> None:
    """A payment waits for its block as long as its tool says; the end of the gate does not, and recovery asks again."""
    thread = stand.aside("a", 1)
    begun = SystemClock().steady_us()
    Executor({"evm": stand.connector}, None, SystemClock(), None).close()  # type: ignore[arg-type]
    thread.join(10)
    assert SystemClock().steady_us() - begun < 5_000_000
    assert (stand.found["a"].status, stand.found["a"].code) == ("unknown", "timeout")
    stand.connector.close()


def test_a_block_of_many_transactions_from_a_slow_node_is_given_up(stand: Stand) -> None:
    """Two thousand questions of ten seconds each would hold a worker, and the end of the gate, for hours."""
    from countermark.chain import Rpc

    rpc, asked = Rpc("http://127.0.0.1:1", 43_112), []
    going: Callable[[], bool] = lambda: len(asked) < 3  # noqa: E731

    def call(method: str, *_: Any) -> str:
        asked.append(method)
        return "0x00"

    rpc.call = call  # type: ignore[method-assign]
    with pytest.raises(LostError, match="too slow"):
        rpc.raw_transactions({"transactions": ["0x1"] * 2_000}, going)
    assert len(asked) == 3
    rpc.close()


def test_what_signs_is_imported_before_a_gate_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is imported, the limit of recursion is high for every thread: then an MCP server's deeply nested answer
    would end the process.
    """
    seen: list[str] = []
    made(tmp_path / "d", "http://127.0.0.1:1")
    monkeypatch.setattr("countermark.wiring.deployment.load", lambda: seen.append("load"))
    start = Gate.start
    monkeypatch.setattr(Gate, "start", lambda gate: (seen.append("start"), start(gate))[1])
    with hold(tmp_path / "d"):
        assert seen == ["load", "start"]
