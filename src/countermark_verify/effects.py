"""V20: effects that the other side's own evidence shows (docs/spec/record.md, `evidence`): payments on a chain."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify import evm, onchain
from countermark_verify.crypto import decode64
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.secp256k1 import sender
from countermark_verify.state import State
from countermark_verify.trust import Trust
from countermark_verify.vouching import Pinned, Unavailable, Voucher

# Levels of one effect, the weakest first.
OBSERVED, CONSISTENT, VERIFIABLE = "gate observed", "self-consistent", "counterparty verifiable"
LEVELS = (OBSERVED, CONSISTENT, VERIFIABLE)
PROVED_MAX = 20_000  # each costs some milliseconds, and a hostile pack may hold as many as fit
_EVENTS = {"transfer": b"Transfer(address,address,uint256)", "approval": b"Approval(address,address,uint256)"}
_WORD = 32


class Wrong(Exception):
    """The evidence contradicts itself, the outcome, the intent or what the auditor trusts."""

    def __init__(self, code: str, message: str, expected: Any = None, actual: Any = None) -> None:
        super().__init__(message)
        self.found = (code, message, expected, actual)


@dataclass(frozen=True)
class _Asked:
    """A decided call: its tool, the argument values by alias."""

    tool: dict[str, Any]
    values: Mapping[str, Any]


@dataclass
class Effects:
    """Judges every outcome; `levels` counts confirmed effects by how far their evidence reaches."""

    ledger: Ledger
    state: State
    trust: Trust | None
    nodes: Mapping[int, Voucher] = field(default_factory=dict)
    levels: Counter[str] = field(default_factory=Counter)
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _reads: set[str] = field(default_factory=set)
    _used: dict[tuple[int, str], int] = field(default_factory=dict)
    _silent: set[int] = field(default_factory=set)
    _blind: bool = False
    _proved: int = 0

    def check(self, position: int, record: dict[str, Any]) -> None:
        body = record["body"]
        if record["kind"] == "action.decided" and body["disposition"] in ("allow", "flag"):
            self._decided(body)
        if record["kind"] != "action.settled":
            return
        level = self._settled(position, body) if "evidence" in body else OBSERVED
        if body["outcome"] == "confirmed" and body["id"] not in self._reads:
            self.levels[level] += 1

    def _decided(self, body: dict[str, Any]) -> None:
        bundle = self.state.bundle
        tool = bundle.tools.get(body["tool"]) if bundle is not None else None
        if tool is not None and tool["class"] == "read":
            self._reads.add(body["id"])
        if tool is not None and "evm" in tool:
            self._asked[body["id"]] = _Asked(tool, body["args"])

    def _settled(self, position: int, body: dict[str, Any]) -> str:
        """How far the evidence of one outcome reaches."""
        self.ledger.ran("V20", 1)
        if self._blind:
            return OBSERVED
        self._proved += 1
        if self._proved > PROVED_MAX:
            if self._proved == PROVED_MAX + 1:
                self.ledger.lack("V20.too_many", f"only {PROVED_MAX} effects' evidence is checked", position)
            return OBSERVED
        try:
            header = self._on_chain(position, body)
            return VERIFIABLE if self._vouched(position, body["evidence"], header) else CONSISTENT
        except Wrong as error:
            code, message, expected, actual = error.found
            self.ledger.refute(code, message, position, expected, actual)
        except evm.NoKeccak:
            self._blind = True
            self.ledger.lack("V20.no_evm", "evidence of chains cannot be checked: pycryptodome is not installed",
                             position)  # fmt: skip
        return OBSERVED

    def _on_chain(self, position: int, body: dict[str, Any]) -> evm.Header:
        asked, proof = self._asked.get(body["id"]), body["evidence"]
        if asked is None:
            raise Wrong("V20.intent", "evidence of a chain for what was to happen on none")
        spec = asked.tool["evm"]
        if proof["chain_id"] != spec["chain_id"]:
            raise Wrong("V20.chain", "the evidence is of another chain", spec["chain_id"], proof["chain_id"])
        header: evm.Header = _read(
            "V20.header", "the header", lambda: evm.parse_header(decode64(proof["header"]), spec["chain_id"])
        )
        block = {"number": header.number, "hash": header.hash.hex()}
        if block != proof["block"]:
            raise Wrong("V20.header", "the header is not that of the block", block, proof["block"])
        raw = self._entry(header.transactions, "transaction", proof)
        succeeded, logs = _read("V20.receipt", "the receipt",
                                lambda: evm.parse_receipt(self._entry(header.receipts, "receipt", proof)))  # fmt: skip
        transaction = _read("V20.transaction", "the transaction", lambda: evm.parse_transaction(raw))
        self._transaction(position, body, asked, transaction, "0x" + evm.keccak(raw).hex())
        self._result(body, asked, transaction, succeeded, logs)
        return header

    @staticmethod
    def _entry(root: bytes, which: str, proof: dict[str, Any]) -> bytes:
        nodes = _read("V20.proof", "a node", lambda: [decode64(node) for node in proof[which]])
        entry: bytes = _read("V20.proof", f"the proof of the {which}", lambda: evm.proved(root, proof["index"], nodes))
        return entry

    def _transaction(
        self, position: int, body: dict[str, Any], asked: _Asked, transaction: evm.Transaction, name: str
    ) -> None:
        """The transaction is this intent's: of its account, on its chain, within what was approved, and no other's."""
        spec, chain_id = asked.tool["evm"], transaction.chain_id
        if body["ref"] != name:
            raise Wrong("V20.transaction", "the outcome names another transaction", name, body["ref"])
        if chain_id != spec["chain_id"]:
            raise Wrong("V20.chain", "the transaction is for another chain", spec["chain_id"], chain_id)
        by = _read("V20.transaction", "the transaction", lambda: sender(transaction.digest, *transaction.signature))
        if "0x" + by.hex() != spec["sender"].lower():
            raise Wrong("V20.sender", "another account signed it", spec["sender"], "0x" + by.hex())
        if (before := self._used.setdefault((chain_id, name), position)) != position:
            raise Wrong("V20.twice", "one transaction as evidence of two outcomes", before, position)
        selector = evm.keccak(spec["function"].encode())[:4].hex() if spec["function"] else ""
        if spec["selector"] != selector:
            raise Wrong("V20.call", "the selector is not that of the declared function", selector, spec["selector"])
        if body["code"] == "cancelled":
            expected: tuple[bytes, int, bytes] = (by, 0, b"")
        else:
            call = _read("V20.call", "the decided call", lambda: onchain.call_of(spec, asked.values))
            expected = (call.to, call.value, call.data)
            if transaction.gas > spec["gas_max"] or transaction.fee_max > spec["fee_max"]:
                most, paid = [spec["gas_max"], spec["fee_max"]], [transaction.gas, transaction.fee_max]
                raise Wrong("V20.fee", "it may cost more than was approved", most, paid)
        actual = (transaction.to, transaction.value, transaction.data)
        if actual != expected:
            raise Wrong("V20.call", "the transaction does something else than was decided", _shown(expected),
                        _shown(actual))  # fmt: skip

    @staticmethod
    def _result(
        body: dict[str, Any], asked: _Asked, transaction: evm.Transaction, succeeded: bool, logs: list[evm.Log]
    ) -> None:
        """What the receipt says is what the outcome says."""
        outcome, spec = (body["outcome"], body["code"]), asked.tool["evm"]
        if outcome == ("failed", "cancelled"):
            return  # the number went to a transfer of nothing, whatever became of that
        if not succeeded:
            if outcome != ("failed", "provider_refused"):
                raise Wrong(
                    "V20.outcome", "the transaction was reverted", ["failed", "provider_refused"], list(outcome)
                )
            return
        amount = next((item for item in asked.tool["args"] if item["class"] == "amount"), None)
        settled = None if body["settled"] is None else body["settled"]["amount"]
        wanted: int | None = None
        differs = False
        if amount is not None and spec["shows"]:
            shown = _shown_by(spec["shows"], transaction, logs)
            wanted = None if shown is None else -(-shown // int(amount["unit"]))
            differs = shown != int.from_bytes(transaction.data[-_WORD:], "big")
        elif amount is not None and spec["value"]:
            wanted = -(-transaction.value // int(amount["unit"]))
        status = "unknown" if amount is not None and spec["shows"] and wanted is None else "confirmed"
        if body["outcome"] != status or settled != wanted:
            raise Wrong(
                "V20.outcome", "the receipt shows another outcome", [status, wanted], [body["outcome"], settled]
            )
        if differs != (body["code"] == "booked_differently"):
            raise Wrong("V20.outcome", "the token moved another amount than was asked, or the same, against the code")

    def _vouched(self, position: int, proof: dict[str, Any], header: evm.Header) -> bool:
        """Whether the auditor, or a node of theirs, knows this block. One that nobody knows anybody can make up."""
        chain_id = proof["chain_id"]
        chain = self.trust.chain(chain_id) if self.trust else None
        vouchers: list[Voucher] = [Pinned(chain.blocks)] if chain else []
        if chain_id in self.nodes and chain_id not in self._silent:
            vouchers.append(self.nodes[chain_id])
        for voucher in vouchers:
            try:
                found = voucher.hash_at(header.number, header.hash)
            except Unavailable as error:
                self._silent.add(chain_id)
                self.ledger.lack("V20.rpc", f"the node of chain {chain_id} could not be asked: {error}", position)
                continue
            if found is not None and found != header.hash:
                raise Wrong("V20.block", f"block {header.number} of chain {chain_id} is not the one {voucher.words}",
                            found.hex(), header.hash.hex())  # fmt: skip
            if found is not None:
                return True
        return False


def _shown_by(shows: str, transaction: evm.Transaction, logs: list[evm.Log]) -> int | None:
    """What the token's own events say between exactly these two: transfers add up, the last allowance stands."""
    owner = sender(transaction.digest, *transaction.signature)
    topics = (evm.keccak(_EVENTS[shows]), bytes(12) + owner, transaction.data[4 : 4 + _WORD])
    found = [
        int.from_bytes(log.data, "big")
        for log in logs
        if log.address == transaction.to and log.topics == topics and len(log.data) == _WORD
    ]
    return None if not found else sum(found) if shows == "transfer" else found[-1]


def _shown(call: tuple[bytes, int, bytes]) -> list[str]:
    return ["0x" + call[0].hex(), str(call[1]), "0x" + call[2].hex()]


def _read(code: str, what: str, work: Any) -> Any:
    try:
        return work()
    except Malformed as error:
        raise Wrong(code, f"{what} {error}") from None
