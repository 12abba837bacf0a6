"""Anchors on a real EVM: what the contract refuses, and what survives of an anchor under way."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anchoring import FEES, ORIGIN, Log, anchor_to, deployed, root_of, settings
from anvil_support import ADDRESSES, CHAIN_ID, KEYS, Anvil, anvil, needs_anvil

from countermark.chain import ChainError, Rpc, Signer, address_bytes, checksummed, keccak, read_transaction
from countermark.model.errors import ConfigError, CountermarkError
from countermark.publish.anchor import Anchored, BehindAnchorError, PendingFile, owner, standing
from countermark.publish.anchor.contract import anchor_call, origin_topic
from countermark.publish.anchor.sending import plan

pytestmark = [needs_anvil, pytest.mark.slow]


@pytest.fixture
def node() -> Iterator[Anvil]:
    with anvil() as one:
        yield one


def _events(node: Anvil, contract: str) -> list[dict[str, Any]]:
    topic = "0x" + keccak(b"Anchored(bytes32,uint64,uint64,bytes32,bytes32)").hex()
    found: list[dict[str, Any]] = node.ask(
        "eth_getLogs", {"address": contract, "fromBlock": "0x0", "topics": [topic, "0x" + origin_topic(ORIGIN).hex()]}
    )
    return found


def test_a_head_is_anchored_and_its_evidence_kept(node: Anvil, tmp_path: Path) -> None:
    """Two heads follow each other on the chain; each record holds what its block says, under 32 kB."""
    log, contract = Log(), deployed(node.url)
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    anchor.check()
    for sequence, size in ((1, 5), (2, 9)):
        made = anchor.publish(log.head(size))
        assert made is not None
        kind, body = made
        assert (kind, body["size"], body["root"], body["sequence"]) == (
            "anchor.published", size, root_of(size).hex(), sequence,
        )  # fmt: skip
        block = node.ask("eth_getBlockByNumber", hex(body["block"]["number"]), False)
        assert block["hash"] == "0x" + body["block"]["hash"]
        assert len(json.dumps(body)) < 32_768
        log.sequences.add(sequence)
    assert body["previous"] == root_of(5).hex()
    assert [int(event["topics"][2], 16) for event in _events(node, contract)] == [1, 2]
    assert anchor.publish(log.head(9)) is None  # the contract holds it already
    anchor.close()


def test_what_is_recorded_is_not_published_again_and_what_is_not_is(node: Anvil, tmp_path: Path) -> None:
    """A record that did not reach the log comes back as it was, with nothing sent; once it did, the hour counts."""
    log, contract = Log(), deployed(node.url)
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    head = log.head(5)
    assert anchor.due(head, True, 0)
    assert not anchor.due(head, False, 0)
    first = anchor.publish(head)
    assert anchor.due(log.head(6), False, 0)
    assert anchor.publish(log.head(6)) == first
    log.sequences.add(1)
    pending = PendingFile(tmp_path / "anchor").read()
    assert pending is not None
    assert not anchor.due(log.head(6), True, pending.began + 3_599_999_999)
    assert anchor.due(log.head(6), True, pending.began + 3_600_000_000)
    assert len(_events(node, contract)) == 1
    anchor.close()


def _refusal(node: Anvil, contract: str, key: str, head: Anchored) -> str:
    rpc = Rpc(node.url, CHAIN_ID)
    try:
        with pytest.raises(ChainError) as caught:
            plan(rpc, Signer(key), contract, anchor_call(ORIGIN, head), FEES)
    finally:
        rpc.close()
    assert caught.value.code == "anchor_refused"
    return caught.value.message


def test_the_contract_itself_refuses_a_fork(node: Anvil, tmp_path: Path) -> None:
    """Even with the owner's key: another previous root, a smaller size, a used or skipped sequence, another root of
    the same size, and another sender are each refused by the chain; a forced transaction fails and changes nothing.
    """
    log, contract = Log(), deployed(node.url)
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    anchor.publish(log.head(9))
    here, other = root_of(9), root_of(9, "another history")
    for head, key, said in (
        (Anchored(2, 12, other, other), KEYS[0], "a fork"),
        (Anchored(2, 8, root_of(8), here), KEYS[0], "shrunk"),
        (Anchored(1, 12, root_of(12), here), KEYS[0], "not the next"),
        (Anchored(3, 12, root_of(12), here), KEYS[0], "not the next"),
        (Anchored(2, 9, other, here), KEYS[0], "same size, other root"),
        (Anchored(2, 12, bytes(32), here), KEYS[0], "no root"),
        (Anchored(2, 12, root_of(12), here), KEYS[1], "not the owner"),
    ):
        assert said in _refusal(node, contract, key, head)
    call = "0x" + anchor_call(ORIGIN, Anchored(2, 12, other, other)).hex()
    forced = node.ask("eth_sendTransaction", {"from": ADDRESSES[0], "to": contract, "data": call, "gas": hex(200_000)})
    assert node.receipt(forced)["status"] == "0x0"
    rpc = Rpc(node.url, CHAIN_ID)
    assert (standing(rpc, contract, ORIGIN).sequence, standing(rpc, contract, ORIGIN).root) == (1, here)
    rpc.close()
    anchor.close()


def test_a_contract_that_knows_another_history_keeps_the_gate_shut(node: Anvil, tmp_path: Path) -> None:
    """A log that is shorter than the anchor, or differs there, is refused at the start and before each anchor."""
    log, contract = Log(), deployed(node.url)
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    anchor.publish(log.head(9))
    anchor.close()
    for other, code in ((Log(8), "behind_anchor"), (Log(12, "another history"), "anchor_fork")):
        ours = anchor_to(node.url, settings(contract), other, tmp_path / code)
        with pytest.raises(BehindAnchorError) as caught:
            ours.check()
        assert caught.value.code == code
        with pytest.raises(BehindAnchorError):
            ours.publish(other.head(other.length))
        ours.close()
    assert len(_events(node, contract)) == 1


def test_the_owner_changes_in_two_steps(node: Anvil, tmp_path: Path) -> None:
    """Only the owner offers, only who was offered accepts; then the old key is refused before anything is sent."""
    log, contract = Log(), deployed(node.url)

    def call(sender: int, signature: bytes, argument: str = "") -> str:
        data = "0x" + keccak(signature)[:4].hex() + argument
        asked = {"from": ADDRESSES[sender], "to": contract, "data": data, "gas": hex(100_000)}
        return str(node.receipt(node.ask("eth_sendTransaction", asked))["status"])

    offered = ADDRESSES[1][2:].rjust(64, "0")
    assert call(2, b"offer(address)", offered) == "0x0"
    assert call(0, b"offer(address)", offered) == "0x1"
    assert call(2, b"accept()") == "0x0"
    rpc = Rpc(node.url, CHAIN_ID)
    assert address_bytes(owner(rpc, contract)).hex() == ADDRESSES[0][2:]
    assert call(1, b"accept()") == "0x1"
    assert address_bytes(owner(rpc, contract)).hex() == ADDRESSES[1][2:]
    rpc.close()
    old, new = (anchor_to(node.url, settings(contract), log, tmp_path / key[-4:], key=key) for key in KEYS[:2])
    with pytest.raises(ConfigError) as caught:
        old.publish(log.head(3))
    assert caught.value.code == "not_the_owner"
    assert new.publish(log.head(3)) is not None
    old.close()
    new.close()


def test_another_chain_and_another_contract_are_refused(node: Anvil, tmp_path: Path) -> None:
    """A node of another chain keeps the gate shut; an address without exactly this code gets no transaction."""
    log, contract = Log(), deployed(node.url)
    wrong = anchor_to(node.url, settings(contract, chain_id=43_114), log, tmp_path, chain_id=43_114)
    with pytest.raises(ConfigError) as caught:
        wrong.check()
    assert caught.value.code == "wrong_chain"
    with pytest.raises(CountermarkError):
        wrong.publish(log.head(3))
    nobody = anchor_to(node.url, settings(checksummed(bytes(20))), log, tmp_path)
    with pytest.raises(ConfigError) as other:
        nobody.publish(log.head(3))
    assert other.value.code == "not_the_contract"
    wrong.close()
    nobody.close()


def test_a_reorganisation_before_finality_is_survived(tmp_path: Path) -> None:
    """The anchor's block is replaced before it has two others on top: the same transaction is sent again, and the
    record tells of the block that stays.
    """
    with anvil("--no-mining") as node:
        contract = _mined(node, lambda: deployed(node.url))
        log = Log()
        anchor = anchor_to(node.url, settings(contract, final=2, bump_ms=60_000), log, tmp_path)
        with _publishing(anchor, log.head(7)) as made:
            _wait_for_pool(node)
            node.mine()
            first = node.ask("eth_getBlockByNumber", "latest", False)
            assert len(first["transactions"]) == 1
            node.ask("anvil_reorg", 1, [])
            assert node.ask("eth_getTransactionReceipt", first["transactions"][0]) is None
            _wait_for_pool(node)
            node.mine(3)
        body = made[0][1]
        block = node.ask("eth_getBlockByNumber", hex(body["block"]["number"]), False)
        assert block["hash"] == "0x" + body["block"]["hash"] != first["hash"]
        assert block["transactions"] == first["transactions"]
        assert len(_events(node, contract)) == 1
        anchor.close()


def test_a_stuck_transaction_gets_a_higher_fee_under_its_nonce(tmp_path: Path) -> None:
    """The base fee rises above what was offered: the same nonce is offered for more, and one anchor comes of it."""
    with anvil("--no-mining") as node:
        contract = _mined(node, lambda: deployed(node.url))
        log = Log()
        anchor = anchor_to(node.url, settings(contract, bump_ms=50), log, tmp_path)
        base = int(node.ask("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        with _publishing(anchor, log.head(7)) as made:
            _wait_for_pool(node)
            file = PendingFile(tmp_path / "anchor")
            first = file.read()
            node.ask("anvil_setNextBlockBaseFeePerGas", hex(4 * base + 10**10))
            node.mine()
            _until(lambda: node.ask("eth_getTransactionCount", ADDRESSES[0], "latest") == "0x2" or node.mine())
        raw = base64.b64decode(made[0][1]["tx"])
        sent, sender = read_transaction(raw)
        assert first is not None
        assert (sent.nonce, sender.lower()) == (first.nonce, ADDRESSES[0])
        assert sent.fee_max > first.attempts[0][0]
        assert sent.fee_max <= FEES.fee_max
        assert len(_events(node, contract)) == 1
        anchor.close()


def test_a_fee_above_the_allowed_one_is_not_paid(node: Anvil, tmp_path: Path) -> None:
    """When a unit of gas costs more than the configuration allows, nothing is sent."""
    log, contract = Log(), deployed(node.url)
    node.ask("anvil_setNextBlockBaseFeePerGas", hex(FEES.fee_max + 1))
    node.mine()
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    with pytest.raises(ChainError) as caught:
        anchor.publish(log.head(3))
    assert caught.value.code == "fee_too_high"
    assert PendingFile(tmp_path / "anchor").read() is None
    anchor.close()


def test_a_nonce_that_went_to_another_transaction_is_no_second_anchor(tmp_path: Path) -> None:
    """The account paid somebody under the planned nonce: the anchor begins anew with the next one."""
    with anvil("--no-mining") as node:
        contract = _mined(node, lambda: deployed(node.url))
        log = Log()
        anchor = anchor_to(node.url, settings(contract, bump_ms=60_000), log, tmp_path)
        under_way = _publishing(anchor, log.head(7))
        under_way.__enter__()
        _wait_for_pool(node)
        node.ask("anvil_dropAllTransactions")
        node.ask("anvil_setNonce", ADDRESSES[0], "0x7")
        with pytest.raises(ChainError) as caught:
            under_way.__exit__()
        assert caught.value.code == "anchor_pending"
        with _publishing(anchor, log.head(8)) as made:
            _wait_for_pool(node)
            node.mine()
        assert made[0][1]["size"] == 8
        assert len(_events(node, contract)) == 1
        anchor.close()


@pytest.mark.parametrize("point", ["anchor.planned", "anchor.sent", "anchor.captured"])
def test_a_process_that_dies_leaves_one_anchor(node: Anvil, tmp_path: Path, point: str) -> None:
    """Killed before sending, after it, or before the record was handed over: the next process ends the same anchor."""
    contract = deployed(node.url)
    command = [sys.executable, "-m", "anchoring", node.url, contract, str(tmp_path), "6"]
    tests = f"{Path(__file__).parents[1]}:{Path(__file__).parent}"
    environment = {**os.environ, "PYTHONPATH": tests, "COUNTERMARK_CRASH": point}
    dead = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    nonce = node.ask("eth_getTransactionCount", ADDRESSES[0], "pending")
    assert nonce == ("0x1" if point == "anchor.planned" else "0x2")
    log = Log(11)
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    assert anchor.due(log.head(11), False, 0)
    made = anchor.publish(log.head(11))
    assert made is not None
    assert (made[1]["size"], made[1]["root"]) == (6, root_of(6).hex())
    assert len(_events(node, contract)) == 1
    assert node.ask("eth_getTransactionCount", ADDRESSES[0], "latest") == "0x2"
    anchor.close()


def test_the_gas_of_an_anchor_is_what_the_page_says(node: Anvil, tmp_path: Path) -> None:
    """The figures of docs/anchors.md: making the contract, the first anchor of a log, each further one."""
    log, contract = Log(), deployed(node.url)
    block = node.ask("eth_getBlockByNumber", "latest", False)
    used = [int(node.ask("eth_getTransactionReceipt", block["transactions"][0])["gasUsed"], 16)]
    anchor = anchor_to(node.url, settings(contract), log, tmp_path)
    for sequence in (1, 2, 3):
        made = anchor.publish(log.head(1_000 * sequence))
        assert made is not None
        log.sequences.add(sequence)
        tx = "0x" + keccak(base64.b64decode(made[1]["tx"])).hex()
        used.append(int(node.ask("eth_getTransactionReceipt", tx)["gasUsed"], 16))
    page = (Path(__file__).parents[2] / "docs" / "anchors.md").read_text("utf-8")
    for gas in (used[0], used[1], used[2]):
        assert f"{round(gas, -3):,}" in page, used
    anchor.close()


def _mined(node: Anvil, work: Any) -> Any:
    """Do something that waits for a block, and make blocks meanwhile."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    while thread.is_alive():
        node.mine()
        thread.join(0.02)
    return found[0]


class _publishing:
    """A ``publish`` in a thread of its own: what it made, or on the way out what it raised."""

    def __init__(self, anchor: Any, head: Any) -> None:
        self._made: list[Any] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(anchor, head))

    def _run(self, anchor: Any, head: Any) -> None:
        try:
            self._made.append(anchor.publish(head))
        except BaseException as error:
            self._error.append(error)

    def __enter__(self) -> list[Any]:
        self._thread.start()
        return self._made

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error[0]


def _wait_for_pool(node: Anvil) -> None:
    _until(lambda: int(node.ask("txpool_status")["pending"], 16) > 0)


def _until(true: Any) -> None:
    pause = threading.Event()
    for _ in range(500):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come to that")
