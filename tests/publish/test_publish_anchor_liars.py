"""Nodes that lie or answer garbage: no anchor's record comes of it, and nothing but this project's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anchoring import Log, deployed, settings
from anvil_support import CHAIN_ID, KEYS, Anvil, anvil, needs_anvil

from countermark.chain import Rpc, Signer
from countermark.model.clock import SystemClock
from countermark.model.errors import CountermarkError, StoreError
from countermark.publish.anchor import ChainAnchor, PendingFile

GARBAGE: tuple[Any, ...] = (None, 7, "0xzz", "0x" + "00" * 32, [None], {"hash": "0x00"}, "0x" + "f" * 64)
ASKED = (
    "eth_chainId", "eth_getCode", "eth_call", "eth_estimateGas", "eth_getBlockByNumber", "eth_getTransactionCount",
    "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getBlockByHash", "eth_getBlockReceipts",
    "eth_getRawTransactionByHash",
)  # fmt: skip


class Liar(Rpc):
    """A node that is honest but for one method."""

    method = ""
    answer: Any = None

    def call(self, method: str, *params: Any) -> Any:
        found = super().call(method, *params)
        if method != self.method:
            return found
        return self.answer(found) if callable(self.answer) else self.answer


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with anvil() as one:
        yield one


def _anchor(node: Anvil, contract: str, folder: Path, method: str, answer: Any) -> tuple[ChainAnchor, Log]:
    rpc, log = Liar(node.url, CHAIN_ID), Log()
    rpc.method, rpc.answer = method, answer
    one = settings(contract, wait_ms=60, poll_ms=10, bump_ms=20)
    file = PendingFile(folder / "anchor")
    return ChainAnchor(one, rpc, lambda: Signer(KEYS[0]), log, file, SystemClock()), log


@needs_anvil
@pytest.mark.slow
@pytest.mark.parametrize("method", ASKED)
def test_garbage_of_any_method_becomes_our_own_error(node: Anvil, tmp_path: Path, method: str) -> None:
    """Whatever stands where an answer should: a record that is right, none, or an error with a code."""
    snapshot = node.ask("evm_snapshot")
    contract = deployed(node.url)
    for number, garbage in enumerate(GARBAGE):
        anchor, log = _anchor(node, contract, tmp_path / str(number), method, garbage)
        with suppress(CountermarkError):
            made = anchor.publish(log.head(number + 1))
            assert made is None or node.ask("eth_getBlockByHash", "0x" + made[1]["block"]["hash"], False) is not None
        anchor.close()
    node.ask("evm_revert", snapshot)


def _edit(member: str, value: Any) -> Any:
    def change(found: Any) -> Any:
        return {**found, member: value} if isinstance(found, dict) else found

    return change


@needs_anvil
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "answer", "code"),
    [
        ("eth_getBlockByHash", _edit("stateRoot", "0x" + "11" * 32), "bad_chain_answer"),
        ("eth_getBlockByHash", _edit("hash", "0x" + "11" * 32), "bad_chain_answer"),
        ("eth_getBlockReceipts", lambda found: [{**one, "status": "0x0"} for one in found], "bad_chain_answer"),
        ("eth_getBlockReceipts", lambda found: [], "bad_chain_answer"),
        ("eth_getRawTransactionByHash", lambda found: found[:-2] + "00", "bad_chain_answer"),
        ("eth_chainId", "0xa86a", "not_sent"),
        ("eth_sendRawTransaction", "0x" + "11" * 32, "bad_chain_answer"),
        ("eth_getTransactionReceipt", None, "anchor_pending"),
        ("eth_estimateGas", "0xffffffff", "bad_chain_answer"),
    ],
)
def test_a_lie_about_the_block_is_no_record(node: Anvil, tmp_path: Path, method: str, answer: Any, code: str) -> None:
    """A header that does not hash, another receipt, transaction or chain: each is named, and none is recorded."""
    anchor, log = _anchor(node, deployed(node.url), tmp_path, method, answer)
    with pytest.raises(CountermarkError) as caught:
        anchor.publish(log.head(4))
    anchor.close()
    assert caught.value.code == code


def test_a_damaged_file_of_the_pending_anchor_is_said_to_be_so(tmp_path: Path) -> None:
    """Nothing is guessed from half a file; where there is none, nothing is under way."""
    file = PendingFile(tmp_path / "pending")
    assert file.read() is None
    for text in ("", "{}", '{"v":1}', "nonsense", '{"v":2}'):
        (tmp_path / "pending").write_text(text)
        with pytest.raises(StoreError):
            file.read()


def test_one_process_anchors_at_a_time(tmp_path: Path) -> None:
    """A second one is told so, and may ask again."""
    file, other = PendingFile(tmp_path / "a" / "pending"), PendingFile(tmp_path / "a" / "pending")
    with file.locked(), pytest.raises(CountermarkError) as caught, other.locked():
        raise AssertionError("both anchor")
    assert caught.value.code == "anchor_busy"
    assert caught.value.retryable
    with other.locked():
        assert file.read() is None
