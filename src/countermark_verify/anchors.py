"""V17: anchors on a chain (docs/spec/anchor.md), from the record's root to a block that somebody else vouches for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify import evm
from countermark_verify.counts import Counts
from countermark_verify.crypto import decode64
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.secp256k1 import sender
from countermark_verify.tree import Tree
from countermark_verify.trust import Trust
from countermark_verify.vouching import Pinned, Unavailable, Voucher

EVENT = b"Anchored(bytes32,uint64,uint64,bytes32,bytes32)"
CALL = b"anchor(bytes32,uint64,uint64,bytes32,bytes32)"
# Each costs a few milliseconds, and a hostile pack may hold as many anchors as fit. One an hour for a year fits.
SENDERS_MAX = 9_000
_WORD = 32


class Wrong(Exception):
    """An anchor contradicts itself, the log or what the auditor trusts."""

    def __init__(self, code: str, message: str, expected: Any = None, actual: Any = None) -> None:
        super().__init__(message)
        self.found = (code, message, expected, actual)


class _Enough(Exception):
    """More anchors than are checked to their end."""


@dataclass
class Anchors:
    """Judges every `anchor.published`; what a block that somebody vouches for reaches is counted in words."""

    ledger: Ledger
    tree: Tree | None  # of an extract there is none: whether a root is this log's cannot be told, so nothing is judged
    trust: Trust | None
    counts: Counts
    nodes: Mapping[int, Voucher] = field(default_factory=dict)
    size: int = 0
    _last: dict[tuple[int, str, str], tuple[int, int, str]] = field(default_factory=dict)
    _vouched: set[int] = field(default_factory=set)
    _asked: set[int] = field(default_factory=set)
    _deployment: str = ""
    _senders: int = 0
    _blind: bool = False

    def check(self, position: int, record: dict[str, Any]) -> None:
        if record["kind"] == "gate.started":
            self._deployment = record["body"]["deployment"]
        if record["kind"] != "anchor.published":
            return
        body = record["body"]
        if self.tree is None:
            return
        self.ledger.ran("V17", 1)
        try:
            self._of_this_log(self.tree, position, record["lane"], body)
            if not self._blind:
                self._on_chain(f"countermark/{self._deployment}/{record['lane']}", body)
                self._somebody_vouches(position, body)
        except Wrong as error:
            code, message, expected, actual = error.found
            self.ledger.refute(code, message, position, expected, actual)
        except _Enough:
            return
        except evm.NoKeccak:
            self._blind = True
            self.ledger.lack("V17.no_evm", "anchors cannot be checked: pycryptodome is not installed", position)

    def finish(self) -> None:
        """An auditor who names a contract asks for anchors in it."""
        for chain in self.trust.chains if self.trust and self.tree is not None else ():
            if chain.contract and chain.chain_id not in self._vouched and not self._blind:
                self.ledger.lack(
                    "V17.unpinned",
                    f"no anchor on chain {chain.chain_id} stands in a block that the auditor pinned or asked for",
                )

    def _of_this_log(self, tree: Tree, position: int, lane: str, body: dict[str, Any]) -> None:
        """Size and root are this log's, and anchors follow each other."""
        size, root = body["size"], body["root"]
        if size > position:
            raise Wrong("V17.size", "an anchor is of more records than were there", position, size)
        if (ours := tree.root_at(size).hex()) != root:
            raise Wrong("V17.root", f"the anchored root of {size} records is not this log's", ours, root)
        key = (body["chain_id"], body["contract"], lane)
        sequence, last_size, last_root = self._last.get(key, (0, 0, "0" * 64))
        if body["sequence"] <= sequence or size < last_size:
            raise Wrong("V17.sequence", "an anchor does not follow the one before", sequence + 1, body["sequence"])
        if body["sequence"] == sequence + 1 and body["previous"] != last_root:
            raise Wrong(
                "V17.sequence", "an anchor follows another root than the one before", last_root, body["previous"]
            )
        if body["sequence"] > sequence + 1:
            missing = body["sequence"] - sequence - 1
            self.ledger.lack("V17.gap", f"{missing} anchors before this one are on the chain and not here", position)
        self._last[key] = (body["sequence"], size, root)

    def _on_chain(self, origin: str, body: dict[str, Any]) -> None:
        """The header hashes to the block, both entries are under its roots, and they say what the record says."""
        chain = self.trust.chain(body["chain_id"]) if self.trust else None
        if chain and chain.contract and body["contract"] != chain.contract:
            raise Wrong("V17.contract", "the anchor is in another contract", chain.contract, body["contract"])
        header = _read("V17.header", "the header", lambda: evm.parse_header(decode64(body["header"]), body["chain_id"]))
        if header.hash.hex() != body["block"]["hash"]:
            raise Wrong("V17.header", "the header does not hash to the block", body["block"]["hash"], header.hash.hex())
        if header.number != body["block"]["number"]:
            raise Wrong("V17.header", "the block has another number", header.number, body["block"]["number"])
        receipt = self._entry("receipt", header.receipts, body)
        raw = self._entry("tx", header.transactions, body)
        self._event(origin, receipt, body)
        self._transaction(origin, raw, body, chain.owner if chain else "")

    def _entry(self, which: str, root: bytes, body: dict[str, Any]) -> bytes:
        """The receipt, or the transaction: proved under the root, and the one that the record shows."""
        proof = body["proof"]
        nodes = _read("V17.proof", "a node", lambda: [decode64(node) for node in proof[which]])
        entry: bytes = _read("V17.proof", f"the proof of the {which}", lambda: evm.proved(root, proof["index"], nodes))
        if entry != _read("V17.proof", f"the {which}", lambda: decode64(body[which])):
            raise Wrong("V17.proof", f"another {which} is proved than the record shows")
        return entry

    def _event(self, origin: str, receipt: bytes, body: dict[str, Any]) -> None:
        succeeded, logs = _read("V17.receipt", "the receipt", lambda: evm.parse_receipt(receipt))
        if not succeeded:
            raise Wrong("V17.receipt", "the transaction failed: nothing was anchored by it")
        if body["log_index"] >= len(logs):
            raise Wrong("V17.event", "the receipt has no such log", None, body["log_index"])
        log = logs[body["log_index"]]
        if log.address.hex() != body["contract"][2:]:
            raise Wrong("V17.event", "the event is another contract's", body["contract"], "0x" + log.address.hex())
        words = _words(origin, body)
        topics = (evm.keccak(EVENT), words[0], words[1])
        if log.topics != topics or log.data != b"".join(words[2:]):
            raise Wrong("V17.event", "the event is not that this head of this log was anchored")

    def _transaction(self, origin: str, raw: bytes, body: dict[str, Any], owner: str) -> None:
        tx = _read("V17.transaction", "the transaction", lambda: evm.parse_transaction(raw))
        if tx.chain_id != body["chain_id"]:
            raise Wrong("V17.chain", "the transaction is for another chain", body["chain_id"], tx.chain_id)
        call = evm.keccak(CALL)[:4] + b"".join(_words(origin, body))
        if tx.to.hex() != body["contract"][2:] or tx.data != call:
            raise Wrong("V17.transaction", "the transaction does not ask for this anchor")
        self._senders += 1
        if self._senders > SENDERS_MAX:
            self.ledger.lack("V17.too_many", f"of more than {SENDERS_MAX} anchors the signatures are not checked")
            raise _Enough
        by = "0x" + _read("V17.transaction", "the transaction", lambda: sender(tx.digest, *tx.signature)).hex()
        if owner and by != owner:
            raise Wrong("V17.owner", "the transaction is not signed by the contract's owner", owner, by)

    def _somebody_vouches(self, position: int, body: dict[str, Any]) -> None:
        """The block's hash against the auditor's checkpoints, then against the node that the auditor gave."""
        chain_id, number = body["chain_id"], body["block"]["number"]
        chain = self.trust.chain(chain_id) if self.trust else None
        vouchers: list[Voucher] = [Pinned(chain.blocks)] if chain else []
        if chain_id in self.nodes and chain_id not in self._asked:
            vouchers.append(self.nodes[chain_id])
        for voucher in vouchers:
            try:
                found = voucher.hash_at(number, bytes.fromhex(body["block"]["hash"]))
            except Unavailable as error:
                self._asked.add(chain_id)  # one that does not answer is not asked for every anchor of a pack
                self.ledger.lack("V17.rpc", f"the node of chain {chain_id} could not be asked: {error}", position)
                continue
            if found is None:
                continue
            if found.hex() != body["block"]["hash"]:
                raise Wrong(
                    "V17.block", f"block {number} of chain {chain_id} is not the one {voucher.words}",
                    found.hex(), body["block"]["hash"],
                )  # fmt: skip
            # Whose contract it is has to be known too: anybody can make one that says anything.
            if chain is None or not chain.contract:
                continue
            self._vouched.add(chain_id)
            if body["size"] >= self.size:
                self.size = body["size"]
                self.counts.anchored = (
                    f"the first {body['size']} records are those that the auditor's contract on chain {chain_id} took "
                    f"in block {number}, {voucher.words}"
                )
            return


def _words(origin: str, body: dict[str, Any]) -> tuple[bytes, ...]:
    """The five arguments of the call, which are the topics and the data of the event too."""
    return (
        evm.keccak(origin.encode()),
        body["sequence"].to_bytes(_WORD, "big"),
        body["size"].to_bytes(_WORD, "big"),
        bytes.fromhex(body["root"]),
        bytes.fromhex(body["previous"]),
    )


def _read(code: str, what: str, work: Any) -> Any:
    try:
        return work()
    except Malformed as error:
        raise Wrong(code, f"{what} {error}") from None
