"""Events of a contract on a real node: each final log once, proved, whatever happens to node, chain and process."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trie", reason="needs extra: evm")

from anvil_support import ADDRESSES, CHAIN_ID, Anvil, anvil, needs_anvil
from chain_logs import PAYEE, PAYER, SIGNATURE, TOPIC, Watched, deploy, pay

from countermark.chain import ChainError, Log, check_proof, parse_header, parse_receipt
from countermark.model.canon import canon
from countermark.model.errors import ConfigError, CountermarkError, GateBusyError
from countermark.workflow.chain_events import read_signature, topic_of, values_of
from countermark.workflow.watcher import NEAR_BLOCKS, ReplacedError
from countermark_verify.chain_events import misfit

pytestmark = needs_anvil


@pytest.fixture
def node() -> Iterator[Anvil]:
    with anvil() as running:
        yield running


Watch = Callable[..., Watched]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Makes watched sources, each with a folder of its own, and lets go of their connections."""
    made: list[Watched] = []

    def begin(node: Anvil, contract: str, **more: Any) -> Watched:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Watched(node, folder, contract, **more))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_a_log_is_an_event_with_its_proof(node: Anvil, watch: Watch) -> None:
    """What a log says, where it stands, and the receipt's proof under the block's hash, which a stranger can check."""
    contract = deploy(node)
    receipt = node.receipt(pay(node, contract, 10**18))
    watched = watch(node, contract)
    watched.catch_up()
    (body,) = watched.events.values()
    number = int(receipt["blockNumber"], 16)
    assert body["event"] == f"{CHAIN_ID}:{receipt['blockHash'][2:]}:0:0"
    assert (body["scheme"], body["key"], body["source"]) == ("receipt", PAYEE, "usdc")
    assert body["payload"] == {
        "from": PAYER, "to": PAYEE, "value": str(10**18), "contract": contract, "block": number, "transaction": 0,
    }  # fmt: skip
    evidence = body["evidence"]
    header = parse_header("ethereum", base64.b64decode(evidence["header"]))
    raw = base64.b64decode(evidence["receipt"])
    nodes = [base64.b64decode(one) for one in evidence["proof"]]
    assert header.hash.hex() == receipt["blockHash"][2:]
    assert check_proof(header.receipts_root, evidence["index"], nodes) == raw
    log = parse_receipt(raw).logs[evidence["log_index"]]
    assert (log.address.hex(), log.topics[0]) == (contract[2:], TOPIC)
    assert len(canon(body)) < 65_535
    assert misfit(body, {}) == ""


def test_only_the_contract_and_the_event_count(node: Anvil, watch: Watch) -> None:
    """Another contract's log, and another event of this one, are none of the source's; both ways of reading agree."""
    contract, other = deploy(node), deploy(node)
    pay(node, other, 1)
    pay(node, contract, 2, topic=bytes(32))
    pay(node, contract, 3)
    near, far = watch(node, contract), watch(node, contract)
    near.catch_up()
    node.mine(NEAR_BLOCKS + 5)
    far.catch_up()
    assert near.values == far.values == [3]
    assert near.events == far.events


def test_several_logs_of_a_block_are_several_events(node: Anvil, watch: Watch) -> None:
    """Transactions of one block have places of their own, in the order of the block."""
    contract = deploy(node)
    node.ask("evm_setAutomine", False)
    for value in (1, 2, 3):
        pay(node, contract, value, mined=False)
    node.mine()
    watched = watch(node, contract)
    watched.catch_up()
    assert watched.values == [1, 2, 3]
    assert [event.split(":")[2] for event in watched.events] == ["0", "1", "2"]


def test_a_restart_reads_on_and_delivers_nothing_twice_or_never(node: Anvil, watch: Watch) -> None:
    """Stopped before and after each delivery, with its file and without it, in both ways of reading."""
    contract = deploy(node)
    watched = watch(node, contract, start=None)
    watched.catch_up()
    for value in range(1, 4):
        pay(node, contract, value)
    node.mine(NEAR_BLOCKS + 3)
    for value in range(4, 8):
        pay(node, contract, value)
    watched.fail_at = {1, 3, 5, 6, 9}
    for _ in range(12):
        if watched.calls % 2 and watched.events:
            watched.path.unlink(missing_ok=True)
        try:
            watched.again()
            watched.catch_up()
        except GateBusyError:
            continue
    assert watched.values == list(range(1, 8))
    calls = watched.calls
    watched.again()
    watched.catch_up()
    assert watched.calls == calls


def test_without_a_start_only_what_comes_later_counts(node: Anvil, watch: Watch) -> None:
    """A source that is watched for the first time begins behind the block that is final then."""
    contract = deploy(node)
    pay(node, contract, 1)
    watched = watch(node, contract, start=None)
    watched.catch_up()
    pay(node, contract, 2)
    watched.again().turn()
    assert watched.values == [2]


def test_a_block_waits_until_it_is_final_and_a_reorganisation_before_counts_nothing_twice(
    node: Anvil, watch: Watch
) -> None:
    """With three confirmations a log counts two blocks later; replaced before that, only what took its place counts."""
    contract = deploy(node)
    watched = watch(node, contract, final=3)
    tx = pay(node, contract, 7)
    node.mine()
    watched.catch_up()
    assert watched.values == []
    node.ask("anvil_reorg", 2, [])
    assert node.ask("eth_getTransactionReceipt", tx) is None
    watched.catch_up()
    pay(node, contract, 8)
    node.mine(2)
    watched.catch_up()
    watched.catch_up()
    assert watched.values == [8]


def test_a_final_block_that_is_replaced_stops_the_source(node: Anvil, watch: Watch) -> None:
    """Nothing is started again by what took its place; the thread ends and says why, also after a restart."""
    contract = deploy(node)
    watched = watch(node, contract, final=1)
    pay(node, contract, 7)
    watched.catch_up()
    node.ask("anvil_reorg", 1, [])
    node.mine(2)
    for watcher in (watched.watcher, watched.again()):
        with pytest.raises(ReplacedError):
            watcher.turn()
        watcher.run(threading.Event(), 0.01)
        assert watcher.fault == "chain_replaced"
    assert watched.values == [7]


@pytest.mark.parametrize("final", ["safe", "finalized"])
def test_the_nodes_own_tags_are_kept_to(final: str, watch: Watch) -> None:
    """A block counts when the node calls it safe or finalized, and not before."""
    with anvil("--slots-in-an-epoch", "1") as node:
        contract = deploy(node)
        pay(node, contract, 7)
        watched = watch(node, contract, final=final)
        watched.catch_up()
        assert watched.values == []
        node.mine(4)
        watched.catch_up()
        assert watched.values == [7]


class Lying:
    """A node's answers with something done to them."""

    def __init__(self, rpc: Any, change: Any) -> None:
        self._rpc, self._change, self.chain_id = rpc, change, rpc.chain_id
        for name in ("check_chain", "block", "receipt", "receipts"):
            setattr(self, name, self._wrapped(name, getattr(rpc, name)))
        self.call = lambda method, *params: change(method, rpc.call(method, *params))

    def _wrapped(self, name: str, function: Any) -> Any:
        return lambda *args: self._change(name, function(*args))


def test_a_node_that_lies_or_is_behind_is_not_believed(node: Anvil, watch: Watch) -> None:
    """Logs left out, a block left out, receipts changed, a log of another block, another chain, no numbers: no event
    appears and none is passed over; as soon as the node answers rightly all are there."""
    contract = deploy(node)
    pay(node, contract, 7)
    node.mine(NEAR_BLOCKS + 2)
    pay(node, contract, 8)

    def cut_bloom(name: str, found: Any) -> Any:
        return {**found, "logsBloom": "0x" + "00" * 256} if name == "block" and found else found

    def other_value(name: str, found: Any) -> Any:
        if name != "receipts":
            return found
        return [{**one, "logs": [{**log, "data": "0x" + "ff" * 32} for log in one["logs"]]} for one in found]

    def other_hash(name: str, found: Any) -> Any:
        return [{**one, "blockHash": "0x" + "ab" * 32} for one in found] if name == "eth_getLogs" else found

    lies = [
        cut_bloom,
        other_value,
        other_hash,
        lambda name, found: [] if name == "receipts" else found,
        lambda name, found: None if name == "block" else found,
        lambda name, found: "soon" if name == "eth_blockNumber" else found,
        lambda name, found: 1 if name == "eth_getLogs" else found,
        lambda name, found: [1] if name == "eth_getLogs" else found,
    ]
    for lie in lies:
        watched = watch(node, contract)
        honest = watched.watcher._rpc
        watched.watcher._rpc = Lying(honest, lie)  # type: ignore[assignment]
        with pytest.raises(CountermarkError):
            watched.catch_up()
        assert set(watched.values) <= {7}
        watched.watcher._rpc = honest
        watched.catch_up()
        assert watched.values == [7, 8]


def test_a_range_that_the_node_finds_too_long_is_cut(node: Anvil, watch: Watch) -> None:
    """A node that refuses long ranges is asked for shorter ones, and nothing is left out."""
    from countermark.chain import RefusedError

    contract = deploy(node)
    for value in range(1, 4):
        pay(node, contract, value)
        node.mine(40)
    node.mine(NEAR_BLOCKS)
    watched = watch(node, contract)
    call, asked = watched.watcher._rpc.call, []

    def strict(method: str, *params: Any) -> Any:
        if method == "eth_getLogs":
            length = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            asked.append(length)
            if length > 20:
                raise RefusedError(-32_005, "too many blocks")
        return call(method, *params)

    watched.watcher._rpc.call = strict  # type: ignore[method-assign]
    watched.catch_up()
    assert watched.values == [1, 2, 3]
    assert max(asked) > 20


def test_a_log_with_much_beside_it_is_checked_and_not_kept(node: Anvil, watch: Watch) -> None:
    """Evidence that is longer than its bound does not stop a source: the proof was checked, and the record says so."""
    from countermark.workflow import chain_events

    contract = deploy(node)
    pay(node, contract, 7)
    watched = watch(node, contract)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_events, "EVENT_BYTES_MAX", 1_000)
        watched.catch_up()
    (body,) = watched.events.values()
    assert body["scheme"] == "receipt-checked"
    assert (body["evidence"]["receipt"], body["evidence"]["header"], body["evidence"]["proof"]) == (None, None, None)
    assert body["payload"]["value"] == "7"


def test_a_log_that_is_not_what_was_declared_says_nothing_and_stops_nobody(node: Anvil, watch: Watch) -> None:
    """The contract writes the topic with other words: the event is recorded with nulls, and the next one is read."""
    contract = deploy(node)
    pay(node, contract, 1, to="0x" + "33" * 32)
    pay(node, contract, 2)
    watched = watch(node, contract)
    watched.catch_up()
    first, second = watched.events.values()
    assert (first["payload"]["to"], first["payload"]["value"], first["key"]) == (None, None, "")
    assert second["payload"]["value"] == "2"


def test_the_thread_goes_on_after_a_fault_and_ends_when_told(node: Anvil, watch: Watch) -> None:
    """A busy gate is a fault that shows and passes; the thread delivers all the same and stops at once when told."""
    contract = deploy(node)
    pay(node, contract, 7)
    watched = watch(node, contract)
    watched.fail_at = {1}
    stop, done = threading.Event(), threading.Event()
    deliver = watched.watcher._deliver

    def told(body: Any) -> None:
        deliver(body)
        done.set()

    watched.watcher._deliver = told
    thread = threading.Thread(target=watched.watcher.run, args=(stop, 0.01))
    thread.start()
    assert done.wait(20)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert watched.values == [7]


def test_a_declared_event_is_read_by_its_types() -> None:
    """Every type as a payload has it; what does not fit its type is an error, not another value."""
    text = ("E(uint8 small, int64 low, bool yes, bytes4 tag, string note, bytes raw, address indexed who, "
            "string indexed topic)")  # fmt: skip
    name, parameters = read_signature(text)
    assert name == "E(uint8,int64,bool,bytes4,string,bytes,address,string)"
    words = [
        7,
        2**256 - 5,
        1,
        int("deadbeef" + "0" * 56, 16),
        192,
        256,
        5,
        int.from_bytes(b"h\xc3\xa9llo".ljust(32, b"\0"), "big"),
    ]
    tail = [word.to_bytes(32, "big") for word in words]
    data = b"".join(tail[:6]) + (6).to_bytes(32, "big") + "héllo".encode().ljust(32, b"\0")
    data += (2).to_bytes(32, "big") + b"\x01\x02".ljust(32, b"\0")
    topics = (topic_of(text), bytes(12) + b"\xaa" * 20, b"\x05" * 32)
    found = values_of(parameters, Log(b"\0" * 20, topics, data))
    assert found == {
        "small": 7, "low": "-5", "yes": True, "tag": "0xdeadbeef", "note": "héllo", "raw": "0x0102",
        "who": "0x" + "aa" * 20, "topic": "0x" + "05" * 32,
    }  # fmt: skip
    for place, wrong in ((0, 256), (1, 2**255), (2, 2), (3, 1), (4, 2**200), (5, 300)):
        changed = data[: 32 * place] + wrong.to_bytes(32, "big") + data[32 * place + 32 :]
        with pytest.raises(ChainError):
            values_of(parameters, Log(b"\0" * 20, topics, changed))
    with pytest.raises(ChainError):
        values_of(parameters, Log(b"\0" * 20, topics[:2], data))
    with pytest.raises(ChainError):
        values_of(parameters, Log(b"\0" * 20, topics, data[:100]))


@pytest.mark.parametrize(
    "text",
    [
        "", "Transfer", "Transfer(address)", "T(address a,address b)", "T(address a, address a)", "T(uint a)",
        "T(uint7 a)", "T(bytes33 a)", "T(int0 a)", "T(address[] a)", "T((address a) b)", "T(address contract)",
        "T(bool indexed a, bool indexed b, bool indexed c, bool indexed d)", "T(" + "bool a, " * 80 + "bool b)",
    ],
)  # fmt: skip
def test_what_declares_no_event_is_refused(text: str) -> None:
    """Names and types that are read here, each name once, at most three indexed."""
    with pytest.raises(ConfigError):
        read_signature(text)


def test_the_accounts_of_the_node_are_not_ours() -> None:
    """The signature of the tests is the one that tokens have, so that its topic is a known one."""
    assert TOPIC.hex() == "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert topic_of(SIGNATURE) == TOPIC
    assert len(ADDRESSES) == 3
