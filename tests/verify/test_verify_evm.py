"""The verifier's own RLP, tries, headers and signatures, against the chains' libraries and against mutations."""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from random import Random
from typing import Any

import pytest
import rlp
from eth_keys import keys
from trie.hexary import HexaryTrie

from countermark_verify import TrustError, WarpQuorum, WarpSignature, parse_nodes, parse_trust
from countermark_verify.errors import Malformed
from countermark_verify.evm import (
    NoKeccak,
    decode,
    encode,
    keccak,
    parse_header,
    parse_receipt,
    parse_transaction,
    proved,
)
from countermark_verify.node import Node
from countermark_verify.secp256k1 import N, sender
from countermark_verify.vouching import Unavailable

SEED = 20_261_129


def _value(rng: Random, depth: int = 0) -> Any:
    if depth == 4 or rng.random() < 0.6:
        return rng.randbytes(rng.choice((0, 1, 1, 2, 55, 56, 57, 300)))
    return [_value(rng, depth + 1) for _ in range(rng.randrange(6))]


def test_rlp_has_one_form() -> None:
    """What the library writes is read and written again alike; whatever a mutation makes of it has its one form too."""
    rng = Random(SEED)
    for _ in range(300):
        value = _value(rng)
        raw = rlp.encode(value)
        assert decode(raw) == value
        assert encode(value) == raw
        bad = bytearray(raw)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            assert encode(decode(bytes(bad))) == bytes(bad)
        except Malformed:
            continue
    for raw in (b"", b"\x81\x01", b"\xb8\x01\x01", b"\xb9\x00\x38" + bytes(56), b"\xc1" * 12, b"\x01\x01"):
        with pytest.raises(Malformed):
            decode(raw)


def _block(count: int) -> tuple[bytes, list[bytes], Any]:
    entries = [bytes([at % 256]) * (60 + at % 9) for at in range(count)]
    trie: Any = HexaryTrie({})
    for at, entry in enumerate(entries):
        trie[rlp.encode(at)] = entry
    return trie.root_hash, entries, trie


@pytest.mark.parametrize("count", [1, 2, 16, 17, 129, 300])
def test_a_trie_proves_each_entry_and_no_other(count: int) -> None:
    """The library's proofs are taken; another index, root, or a changed, missing, doubled or foreign node is not."""
    root, entries, trie = _block(count)
    rng = Random(SEED)
    for index in {0, 1 % count, count // 2, count - 1}:
        nodes = [rlp.encode(node) for node in trie.get_proof(rlp.encode(index))]
        assert proved(root, index, nodes) == entries[index]
        bad = list(nodes)
        at = rng.randrange(len(bad))
        bad[at] = bad[at][:-1] + bytes([bad[at][-1] ^ 1])
        for of, wrong in (
            (index, bad), (index, nodes[:-1]), (index, [*nodes, nodes[-1]]), (index, []), (count + 200, nodes),
            (index, [rlp.encode([b"", b""])]),
        ):  # fmt: skip
            with pytest.raises(Malformed):
                proved(root, of, wrong)
        with pytest.raises(Malformed):
            proved(bytes(32), index, nodes)


def test_signers_are_recovered_as_the_library_does() -> None:
    """Twenty keys and messages; values out of range, the larger s and a point that is none are refused."""
    rng = Random(SEED)
    for _ in range(20):
        key, digest = keys.PrivateKey(rng.randbytes(32)), rng.randbytes(32)
        made = key.sign_msg_hash(digest)
        assert sender(digest, made.v, made.r, made.s) == key.public_key.to_canonical_address()
        assert sender(digest, 1 - made.v, made.r, made.s) != key.public_key.to_canonical_address()
    for parity, r, s in ((2, 1, 1), (0, 0, 1), (0, 1, 0), (0, N, 1), (0, 1, N - 1), (0, 5, 1)):
        with pytest.raises(Malformed):
            sender(bytes(32), parity, r, s)


def test_coreths_header_has_its_hash() -> None:
    """The golden block of Avalanche's own node: 24 fields. Without Avalanche's field it is none of Avalanche's."""
    sizes = (32, 32, 20, 32, 32, 32, 256)
    fields = [bytes([at + 1]) + bytes(size - 1) for at, size in enumerate(sizes)]
    fields += [bytes([at]) for at in range(8, 14)]
    fields += [bytes([14]) + bytes(31), bytes([15]) + bytes(7), bytes([21]) + bytes(31), b"\x10", b"\x16", b"\x17"]
    fields += [b"\x12", b"\x13", bytes([20]) + bytes(31), b"\x18", b"\x19"]
    header = parse_header(rlp.encode(fields), 43_114)
    assert header.hash.hex() == "be13d7b6f1242dd87477eee76a46f9fa58311bf459e0d49cac6862b187b3fe9c"
    assert (header.number, header.time, header.receipts[0]) == (9, 12, 6)
    with pytest.raises(Malformed, match="Avalanche"):
        parse_header(rlp.encode(fields[:15]), 43_114)
    assert parse_header(rlp.encode(fields[:15]), 1).number == 9


@pytest.mark.parametrize("read", [parse_receipt, parse_transaction, lambda raw: parse_header(raw, 1)])
def test_junk_is_malformed_and_nothing_else(read: Any) -> None:
    """Random bytes and random lists of them never raise anything but `Malformed`."""
    rng = Random(SEED)
    for _ in range(400):
        raw = rng.randbytes(rng.randrange(200)) if rng.random() < 0.3 else rlp.encode(_value(rng))
        with pytest.raises(Malformed):
            read(rng.choice((b"", b"\x02")) + raw)


def test_without_the_hash_function_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pycryptodome` is imported when it is needed, and its absence has a name of its own."""
    original = builtins.__import__

    def missing(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("Crypto"):
            raise ImportError(name)
        return original(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NoKeccak):
        keccak(b"")


class _Answers(BaseHTTPRequestHandler):
    said: Any = None
    status = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = "0xa868" if asked["method"] == "eth_chainId" else self.said
        body = said if isinstance(said, bytes) else json.dumps({"jsonrpc": "2.0", "id": 1, "result": said}).encode()
        self.send_response(self.status if asked["method"] != "eth_chainId" else 200)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' own output."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    one = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    one.server_close()


def test_the_auditors_node_is_asked_and_not_believed_blindly(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash, no such block, and six answers that are none; a node of another chain is not asked further."""
    node = Node(server, 43_112)
    monkeypatch.setattr(_Answers, "said", {"hash": "0x" + "ab" * 32})
    assert node.hash_at(7, bytes(32)) == b"\xab" * 32
    monkeypatch.setattr(_Answers, "said", None)
    assert node.hash_at(7, bytes(32)) is None
    for said in (7, {}, {"hash": 7}, {"hash": "0x12"}, {"hash": "0x" + "zz" * 32}, b"nonsense", b"[" * 5_000):
        monkeypatch.setattr(_Answers, "said", said)
        with pytest.raises(Unavailable):
            node.hash_at(7, bytes(32))
    monkeypatch.setattr(_Answers, "said", None)
    monkeypatch.setattr(_Answers, "status", 307)
    with pytest.raises(Unavailable):
        node.hash_at(7, bytes(32))
    with pytest.raises(Unavailable, match="chain"):
        Node(server, 43_114).hash_at(7, bytes(32))


@pytest.mark.parametrize(
    "text",
    ["", "43112", "x=https://a.example", "1=ftp://a.example", "1=http://a.example", "1=https://", "1=https://a:b@c.example",
     "1=https://a.example:0x", "1=file:///etc/passwd", "-1=https://a.example"],
)  # fmt: skip
def test_a_node_is_https_or_on_this_machine(text: str) -> None:
    """Any other address is wrong usage, before anything is asked."""
    with pytest.raises(TrustError):
        parse_nodes([text])
    with pytest.raises(TrustError):
        parse_nodes(["1=https://a.example", "1=https://b.example"])


def test_the_trust_files_chains_are_read_strictly() -> None:
    """A chain or a block twice, a hash that is none, an unknown member: the auditor hears of it."""
    block = {"number": 1, "hash": "ab" * 32}
    anchor = {"contract": "0x" + "AB" * 20, "owner": "0x" + "cd" * 20}

    def trust(chains: Any) -> Any:
        log = {"origin": "countermark/acme/l0", "keys": []}
        return parse_trust(json.dumps({"v": 1, "log": log, "chains": chains}).encode())

    found = trust([{"chain_id": 1, "blocks": [block], "anchor": anchor}, {"chain_id": 2, "blocks": []}])
    assert found.chain(1).contract == "0x" + "ab" * 20
    assert (found.chain(2).owner, found.chain(3)) == ("", None)
    for wrong in (
        {}, [{}], [{"chain_id": 1, "blocks": [block, block]}], [{"chain_id": 0, "blocks": []}],
        [{"chain_id": 1, "blocks": []}, {"chain_id": 1, "blocks": []}],
        [{"chain_id": 1, "blocks": [{"number": 1, "hash": "0x" + "ab" * 32}]}],
        [{"chain_id": 1, "blocks": [], "anchor": {"contract": anchor["contract"]}}],
        [{"chain_id": 1, "blocks": [], "warp": {}}],
    ):  # fmt: skip
        with pytest.raises(TrustError):
            trust(wrong)


@pytest.mark.slow
def test_a_warp_quorum_vouches_for_a_block() -> None:
    """Synthetic validators: enough weight and the right signature vouch; less weight, another block, another network,
    a signer who did not sign and one named twice do not.
    """
    from py_ecc.bls import G2ProofOfPossession as Bls

    secrets, block = [11, 22, 33, 44], b"\x22" * 32
    validators = tuple(
        (bytes(Bls.SkToPk(secret)), weight) for secret, weight in zip(secrets, (40, 30, 20, 10), strict=True)
    )
    unsigned = WarpQuorum(1, b"\x11" * 32, validators, (67, 100), {})
    message = unsigned.message(block)
    assert (len(message), message[:6].hex(), message[-32:]) == (80, "000000000001", block)

    signatures = {place: Bls.Sign(secrets[place], message) for place in (0, 1, 2)}

    def quorum(signers: tuple[int, ...], named: tuple[int, ...] | None = None, network: int = 1) -> WarpQuorum:
        made = Bls.Aggregate([signatures[place] for place in signers])
        signed = {block: WarpSignature(signers if named is None else named, bytes(made))}
        return WarpQuorum(network, b"\x11" * 32, validators, (67, 100), signed)

    assert quorum((0, 1)).hash_at(5, block) == block
    assert quorum((0, 1)).hash_at(5, b"\x23" * 32) is None
    assert quorum((0, 2)).hash_at(5, block) is None  # 60 of 100
    assert quorum((0, 2), (0, 1)).hash_at(5, block) is None
    assert quorum((0, 1), network=2).hash_at(5, block) is None
    for named in ((0, 0, 1), (0, 9), ()):
        with pytest.raises(Unavailable):
            quorum((0, 1), named).hash_at(5, block)
