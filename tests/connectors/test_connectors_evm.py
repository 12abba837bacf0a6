"""Payments on a real EVM through a real gate; the chain's own balances judge. Real Avalanche consensus is not here."""

from __future__ import annotations

import importlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anvil_support import KEYS, Anvil, anvil, needs_anvil
from click.testing import CliRunner
from evm_stage import (
    COIN,
    EXCHANGE,
    PAYER,
    SUPPLIER,
    TOKEN,
    USDX,
    allowed,
    behave,
    coins,
    deploy_token,
    hold,
    made,
    pay_coins,
    pay_tokens,
    selector,
    send,
    sent,
    settled,
    tokens,
    word,
)  # fmt: skip
from support import records

from countermark.authority import build_approval, load_private, sign_approval
from countermark.chain import Rpc
from countermark.cli import main
from countermark.connectors.evm import Node
from countermark.model import crash
from countermark.model.errors import ArgumentError
from countermark.wiring.init import Made

pytestmark = [pytest.mark.slow, needs_anvil]
WAIT_S_MAX = 20


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with anvil() as found:
        deploy_token(found)
        yield found


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, node: Anvil) -> Made:
    """A deployment that nobody opened since it was made, to be copied."""
    importlib.import_module("eth_account")  # it takes seconds: once, before anything is forked
    quick = {'currency = "avax"\n': 'currency = "avax"\ntimeout_ms = 1500\nsettle_lag_s = 1\n',
             'like = "evm.erc20.transfer"\n': 'like = "evm.erc20.transfer"\ntimeout_ms = 1500\n'}  # fmt: skip
    return made(tmp_path_factory.mktemp("evm") / "d", node.url, tools=quick)


@pytest.fixture
def root(stock: Made, tmp_path: Path, node: Anvil) -> Iterator[Path]:
    place = tmp_path / "d"
    shutil.copytree(stock.root, place)
    yield place
    node.ask("evm_setAutomine", True)
    node.mine()
    assert tokens(node, PAYER) + tokens(node, SUPPLIER) + tokens(node, EXCHANGE) <= 1_000 * USDX


def until(what: Any) -> Any:
    """Ask again until it is so."""
    end = time.monotonic() + WAIT_S_MAX
    while not (found := what()):
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.02)
    return found


def attempts(root: Path) -> list[tuple[str, int, int]]:
    """Hash, fee and tip of every transaction that was signed, oldest first."""
    path = root / "data" / "nonces.db"
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [(name, int(fee), int(tip)) for name, fee, tip in
                db.execute("select hash, fee, tip from attempt order by rowid")]  # fmt: skip
    except sqlite3.OperationalError:  # being made at this moment
        return []
    finally:
        db.close()


def aside(work: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_coins_and_tokens_are_paid_with_proof_and_to_the_unit(root: Path, node: Anvil) -> None:
    """What was asked for arrives, once, and every outcome carries the block's own evidence."""
    before = coins(node, SUPPLIER), tokens(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        first = pay_coins(handle, 1, COIN + 1)
        again = pay_coins(handle, 1, COIN + 1)
        second = pay_tokens(handle, 2, 3 * USDX)
    assert (first.status, second.status, again.ref) == ("confirmed", "confirmed", first.ref)
    assert coins(node, SUPPLIER) - before[0] == COIN + 1
    assert tokens(node, SUPPLIER) - before[1] == 3 * USDX
    assert sent(node) - before[2] == 2
    found = settled(root)
    assert [body["settled"] for body in found] == [
        {"amount": 1_000_001, "currency": "avax"}, {"amount": 3_000_000, "currency": "usdx"},
    ]  # fmt: skip
    assert all(body["evidence"]["block"]["number"] == body["output"]["block"] for body in found)


def test_what_is_too_much_asks_or_is_denied_and_nothing_is_sent(root: Path, node: Anvil, stock: Made) -> None:
    """A person's approval pays; above the limit, to a stranger's address or without end, nothing is signed."""
    before = tokens(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        denied = pay_tokens(handle, "much", 20_000_001)
        parked = pay_tokens(handle, "ask", 6 * USDX)
        waiting = handle.call("escalations", {})
        answer = build_approval(waiting[0], deployment="test", ladder="finance", verdict="approve", person="controller")
        assert (denied.status, parked.status, tokens(node, SUPPLIER), sent(node)) == (
            "denied", "escalated", *before)  # fmt: skip
        handle.call("answer", sign_approval(answer, load_private(root / "people" / "controller.pem")))
        until(lambda: tokens(node, SUPPLIER) - before[0] == 6 * USDX)
        assert sent(node) - before[1] == 1


def test_an_allowance_counts_and_one_without_end_is_refused(root: Path, node: Anvil) -> None:
    """An allowance holds budget like a payment; 2**256 - 1 fits no limit, and the refusal is recorded."""
    with hold(root) as handle:
        args = {"spender": EXCHANGE, "amount": str(4 * USDX), "invoice": "A-1"}
        assert handle.act("usdx.approve", args, call_id="a1").status == "confirmed"
        assert allowed(node, EXCHANGE) == 4 * USDX
        with pytest.raises(ArgumentError, match="out of range"):
            handle.act("usdx.approve", {**args, "amount": str(2**256 - 1), "invoice": "A-2"}, call_id="a2")
        windows = {one["name"]: one for one in handle.call("limits", {})["windows"]}
    assert allowed(node, EXCHANGE) == 4 * USDX
    assert 4_000_000 in [group["used"] + group["held"] for group in windows["day_total"]["groups"]]
    assert [r.body["field"] for r in records(root) if r.kind == "action.refused"] == ["amount"]


def test_a_payment_that_waits_gets_a_higher_fee_under_the_same_number(root: Path, node: Anvil) -> None:
    """The chain asks more than was offered: the same payment again, dearer, within what was approved; paid once."""
    node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        thread, found = aside(lambda: pay_coins(handle, 1))
        until(lambda: len(attempts(root)) == 2)
        node.mine()
        thread.join(WAIT_S_MAX)
    offers = attempts(root)
    assert found[0].status == "confirmed"
    assert found[0].ref in [name for name, _, _ in offers]
    assert offers[0][1] * 1.1 < offers[1][1] <= 200_000_000_000
    assert offers[0][2] * 1.1 < offers[1][2]
    assert (coins(node, SUPPLIER) - before[0], sent(node) - before[1]) == (COIN, 1)


def test_a_block_that_is_replaced_before_it_is_final_confirms_nothing(root: Path, node: Anvil) -> None:
    """With two blocks to stand on it, a payment that a reorganisation took away is sent again, and is paid once."""
    path = root / "countermark.toml"
    path.write_text(path.read_text().replace('final = "accepted"', "final = 3"))
    node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        thread, found = aside(lambda: pay_coins(handle, 1))
        until(lambda: node.ask("txpool_status")["pending"] == "0x1")
        node.mine()
        assert coins(node, SUPPLIER) - before[0] == COIN
        node.ask("anvil_reorg", 1, [])
        assert coins(node, SUPPLIER) == before[0]
        until(lambda: node.mine() or coins(node, SUPPLIER) != before[0])
        node.mine(3)
        thread.join(WAIT_S_MAX)
    assert found[0].status == "confirmed"
    assert (coins(node, SUPPLIER) - before[0], sent(node) - before[1]) == (COIN, 1)


@pytest.mark.parametrize("point", ["evm.recorded", "evm.sent", "evm.bumped", "effect.done", "dispatch.passed"])
def test_a_death_at_any_point_never_pays_twice(root: Path, node: Anvil, point: str) -> None:
    """Killed with SIGKILL where it hurts: the next start finds out what became of it; the chain shows one payment."""
    if point == "evm.bumped":
        node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        run = handle.start_run()
    child = os.fork()
    if child == 0:
        try:
            crash._ARMED[point] = 1
            with hold(root) as handle:
                pay_coins(handle, 1, run=run)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    node.ask("evm_setAutomine", True)
    node.mine()
    with hold(root) as handle:
        handle.call("recover", {})
        result = until(lambda: (r := pay_coins(handle, 1, run=run)).status in ("confirmed", "failed") and r)
    assert result.status == "confirmed"
    assert (coins(node, SUPPLIER) - before[0], sent(node) - before[1]) == (COIN, 1)


def test_a_number_that_somebody_else_took_is_never_paid_under_another(root: Path, node: Anvil) -> None:
    """Two gates, one key: another transaction stands where ours was to stand. People look; nothing is sent again."""
    node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        thread, found = aside(lambda: pay_coins(handle, 1))
        until(lambda: len(attempts(root)) == 1 and node.ask("txpool_status")["pending"] == "0x1")
        node.ask("anvil_dropTransaction", attempts(root)[0][0])
        send(node, PAYER, EXCHANGE, value=7)
        node.mine()
        thread.join(WAIT_S_MAX)
        node.ask("evm_setAutomine", True)
        handle.call("recover", {})
        assert pay_coins(handle, 1).status == "unknown"
        assert pay_coins(handle, 2).status == "confirmed"  # the account goes on
    assert found[0].status == "unknown"
    assert [(b["outcome"], b["code"]) for b in settled(root)] == [("unknown", "needs_resolution"), ("confirmed", "ok")]
    assert (coins(node, SUPPLIER) - before[0], sent(node) - before[1]) == (COIN, 2)


def test_a_person_cancels_what_waits_and_the_gate_proves_it(root: Path, node: Anvil) -> None:
    """Nothing queues behind a number that waits; a transfer of nothing takes it, and only then it is failed."""
    node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER), sent(node)
    with hold(root) as handle:
        assert pay_coins(handle, 1).status == "unknown"
        assert pay_coins(handle, 2).status == "failed"
        intent = next(r.body for r in records(root) if r.kind == "action.decided" and r.body["call_id"] == "pay-1")
        words = ["-C", str(root), "giveup", intent["id"], "--yes", "--json"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        node.mine()
        node.ask("evm_setAutomine", True)
        handle.call("recover", {})
        until(lambda: pay_coins(handle, 1).status == "failed")
    last = settled(root)[-1]
    assert (last["outcome"], last["code"]) == ("failed", "cancelled")
    assert (coins(node, SUPPLIER), sent(node) - before[1]) == (before[0], 1)


def test_a_revert_is_failed_with_proof(root: Path, node: Anvil) -> None:
    """It would have worked when it was tried, and did not when it was mined: failed, and the block says so."""
    node.ask("evm_setAutomine", False)
    before = tokens(node, SUPPLIER)
    with hold(root) as handle:
        thread, found = aside(lambda: pay_tokens(handle, 1))
        until(lambda: node.ask("txpool_status")["pending"] == "0x1")
        fields = {"from": SUPPLIER, "to": TOKEN, "gas": "0x30000", "maxFeePerGas": hex(10**12),
                  "maxPriorityFeePerGas": hex(10**11)}  # fmt: skip
        node.ask("eth_sendTransaction",
                 {**fields, "data": "0x" + selector("behave(uint256,uint256)") + word(200) + word(0)})  # fmt: skip
        node.mine()
        thread.join(WAIT_S_MAX)
    node.ask("evm_setAutomine", True)
    behave(node)
    assert (found[0].status, tokens(node, SUPPLIER)) == ("failed", before)
    body = settled(root)[-1]
    assert (body["code"], body["settled"], body["evidence"]["chain_id"]) == ("provider_refused", None, 43_112)


@pytest.mark.parametrize(
    ("keep", "mood", "expected"),
    [
        (10, 0, ("confirmed", "booked_differently", {"amount": 900_000, "currency": "usdx"})),
        (0, 2, ("unknown", "booked_differently", None)),
        (0, 1, ("failed", "not_sent", None)),
    ],
)
def test_a_token_that_does_not_do_what_it_is_asked_is_not_believed(
    root: Path, node: Anvil, keep: int, mood: int, expected: Any
) -> None:
    """Its event says another amount, or nothing, or it says false: what moved is recorded, and the tool stops."""
    behave(node, keep, mood)
    try:
        with hold(root) as handle:
            pay_tokens(handle, 1)
            stopped = pay_tokens(handle, 2)
    finally:
        behave(node)
    body = next(b for b in settled(root))
    assert (body["outcome"], body["code"], body["settled"]) == expected
    if expected[1] == "booked_differently":
        assert (stopped.status, stopped.code) == ("denied", "killed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chains.43112": "chains.1"}, "other_origin"),
        ({"file:keys/payer": "file:keys/nobody"}, "missing_secret"),
        ({"file:keys/payer": "env:OTHERS_KEY"}, "missing_secret"),
    ],
)
def test_a_wrong_configuration_signs_nothing(
    root: Path, node: Anvil, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], reason: str
) -> None:
    """No node of the chain, no key, another account's key: the outcome says why, and no number is taken."""
    monkeypatch.setenv("OTHERS_KEY", KEYS[1])
    path = root / "countermark.toml"
    for old, new in change.items():
        path.write_text(path.read_text().replace(old, new))
    before = sent(node)
    with hold(root) as handle:
        assert pay_coins(handle, 1).status == "failed"
    assert [(b["outcome"], b["code"], b["request_id"]) for b in settled(root)] == [("failed", "not_sent", reason)]
    assert (sent(node), attempts(root)) == (before, [])


def test_what_cannot_work_fails_before_there_is_a_signature(root: Path, node: Anvil) -> None:
    """Another chain, too little money, a call that would be reverted, fees above the approved: nothing is signed."""
    with hold(root) as handle:
        node.ask("anvil_setChainId", 1)
        pay_coins(handle, "chain")
        node.ask("anvil_setChainId", 43_112)
        balance = coins(node, PAYER)
        node.ask("anvil_setBalance", PAYER, hex(10**15))
        pay_coins(handle, "poor")
        node.ask("anvil_setBalance", PAYER, hex(balance))
        node.ask("anvil_setNextBlockBaseFeePerGas", hex(10**12))
        node.mine()
        pay_coins(handle, "fee")
        node.ask("anvil_setNextBlockBaseFeePerGas", hex(10**9))
        node.mine()
        behave(node, 200)
        pay_tokens(handle, "revert")
        behave(node)
    reasons = [(b["code"], b["request_id"]) for b in settled(root)]
    assert reasons == [("not_sent", why) for why in
                       ("wrong_chain", "insufficient_funds", "fee_too_high", "would_revert")]  # fmt: skip
    assert attempts(root) == []


def test_without_its_record_of_numbers_nothing_is_called_failed_and_nothing_sent(root: Path, node: Anvil) -> None:
    """The file is gone while a payment may be on its way: what became of it is for people; no new number is taken."""
    node.ask("evm_setAutomine", False)
    before = coins(node, SUPPLIER)
    with hold(root) as handle:
        run = handle.start_run()
        assert pay_coins(handle, 1, run=run).status == "unknown"
    (root / "data" / "nonces.db").unlink()
    with hold(root) as handle:
        handle.call("recover", {})
        assert pay_coins(handle, 1, run=run).status == "unknown"
        refused = pay_coins(handle, 2)
    assert refused.status == "failed"
    assert settled(root)[-1]["request_id"] == "ledger_new"
    node.mine()
    assert coins(node, SUPPLIER) - before == COIN  # the first one, after all


class Liar(Rpc):
    """A node that is honest but for one method, from some call of it on."""

    method, answer, honest = "", None, 0

    def call(self, method: str, *params: Any) -> Any:
        found = super().call(method, *params)
        if method != self.method:
            return found
        self.honest -= 1
        return found if self.honest >= 0 else self.answer


ASKED = (
    "eth_chainId", "eth_getCode", "eth_getBalance", "eth_call", "eth_getBlockByNumber", "eth_blockNumber",
    "eth_getTransactionCount", "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getBlockByHash",
    "eth_getBlockReceipts", "eth_getRawTransactionByHash", "eth_getTransactionByHash",
)  # fmt: skip


@pytest.mark.parametrize("method", ASKED)
def test_a_node_that_answers_garbage_neither_pays_twice_nor_fails_what_was_sent(
    root: Path, node: Anvil, method: str
) -> None:
    """Whatever stands where one answer should: paid once or not at all, and `failed` only where nothing was signed."""
    with hold(root) as handle:
        connector: Any = handle.gate.connectors["evm"]
        honest = handle.gate.wait(handle.gate.bundle()).compiled.tools["usdx.transfer"]
        tool, rpc = replace(honest, timeout_ms=40), Liar(node.url, 43_112)
        connector._nodes = {43_112: Node(rpc, "accepted")}
        for number, answer in enumerate((None, "0xzz", {"hash": "0x00", "number": "0x1"})):
            before, key = tokens(node, SUPPLIER), f"cm_{method}_{number}"
            request = connector.prepare(tool, {"to": SUPPLIER, "amount": "5", "invoice": "I"}, key)
            rpc.method, rpc.answer = method, answer
            outcome = connector.execute(tool, request)
            signed, moved = connector._ledger.find(key), tokens(node, SUPPLIER) - before
            assert outcome.status != "confirmed" or moved == 5
            assert outcome.status != "failed" or (signed, moved) == (None, 0)
            assert connector.execute(tool, request).status != "failed" or signed is None
            rpc.method = ""
            last = connector.execute(replace(honest, timeout_ms=8_000), request)
            assert (last.status, tokens(node, SUPPLIER) - before) == ("confirmed", 5), (answer, outcome, last)
        rpc.close()
