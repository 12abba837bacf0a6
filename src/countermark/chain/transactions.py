"""EIP-1559 transactions: their exact bytes, the signature over them, and the higher fee for the same nonce.

Signing is deterministic (RFC 6979): the same transaction under the same key has the same bytes and the same hash, so
whoever knows the fields can sign it again after a crash and gets no second transaction.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from countermark.chain.codec import ADDRESS_BYTES, ChainError, integer_bytes, integer_of, keccak, rlp_decode, rlp_encode
from countermark.model.errors import ArgumentError, ConfigError, CountermarkError
from countermark.model.keccak import address_bytes as address_bytes
from countermark.model.keccak import checksummed as checksummed

TYPE = b"\x02"  # EIP-2718 type of EIP-1559 transactions
GAS_MAX = 2**53 - 1
NONCE_MAX = 2**53 - 1
CALL_BYTES_MAX = 48_000  # a contract's creation code is the longest that is sent
RAW_BYTES_MAX = 50_000
BUMP_PERCENT = 13  # nodes take a replacement only when both fees are at least 10% higher; 12.5% for some

_SECRET = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
_FIELDS = 12


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is signed. ``to`` is an address, or ``""`` to create a contract; fees are wei for each unit of gas.

    ``nonce``, ``fee_max`` and ``tip_max`` are what may differ between attempts at the same thing.
    """

    chain_id: int
    nonce: int
    to: str
    value: int
    data: bytes
    gas: int
    fee_max: int
    tip_max: int


class Signed(NamedTuple):
    """A signed transaction: its bytes, and its hash as a node writes it."""

    raw: bytes
    hash: str


class Signer:
    """An account's key. It is kept as the library's object and shown by nothing here."""

    def __init__(self, secret: str) -> None:
        """``secret`` is 32 bytes in hex. Raises ``ConfigError``, which never quotes it."""
        found = _SECRET.fullmatch(secret)
        if found is None:
            raise ConfigError("an account's key is 64 hex digits", code="missing_secret")
        account = _library()
        try:
            self._account = account.from_key(bytes.fromhex(found[1]))
        except Exception as error:  # noqa: BLE001 - whatever the library raises for a key outside the curve's order
            raise ConfigError(f"this is no account's key ({type(error).__name__})", code="missing_secret") from None
        self.address = checksummed(bytes.fromhex(self._account.address[2:]))

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    def sign(self, transaction: Transaction) -> Signed:
        """The transaction under this key; what the library made is read back and compared. Raises ``ChainError``."""
        _check(transaction)
        fields: dict[str, Any] = {
            "type": 2, "chainId": transaction.chain_id, "nonce": transaction.nonce, "value": transaction.value,
            "data": transaction.data, "gas": transaction.gas, "maxFeePerGas": transaction.fee_max,
            "maxPriorityFeePerGas": transaction.tip_max, "to": transaction.to or b"",
        }  # fmt: skip
        try:
            raw = bytes(self._account.sign_transaction(fields).raw_transaction)
        except Exception as error:  # noqa: BLE001 - the library names none; its words may hold what it was given
            raise ChainError(f"the transaction cannot be signed ({type(error).__name__})") from None
        read, sender = read_transaction(raw)
        if read != transaction or sender != self.address:
            raise ChainError("what was signed is not what was asked for")
        return Signed(raw, "0x" + keccak(raw).hex())


SignerSource = Callable[[], Signer]
"""Reads the key behind a reference when it is needed. Raises ``ConfigError``."""


def read_transaction(raw: bytes) -> tuple[Transaction, str]:
    """A signed EIP-1559 transaction without access list, and who signed it. Raises ``ChainError``."""
    if len(raw) > RAW_BYTES_MAX or raw[:1] != TYPE:
        raise ChainError("not an EIP-1559 transaction, or too long a one")
    fields = rlp_decode(raw[1:])
    if type(fields) is not list or len(fields) != _FIELDS or fields[8] != [] or not _flat(fields):
        raise ChainError("not the fields of an EIP-1559 transaction without access list")
    numbers = [integer_of(fields[at]) for at in (0, 1, 2, 3, 4, 6)]
    if len(fields[5]) not in (0, ADDRESS_BYTES):
        raise ChainError("a transaction goes to something that is no address")
    transaction = Transaction(
        chain_id=numbers[0], nonce=numbers[1], to=checksummed(fields[5]) if fields[5] else "", value=numbers[5],
        data=bytes(fields[7]), gas=numbers[4], fee_max=numbers[3], tip_max=numbers[2],
    )  # fmt: skip
    _check(transaction)
    try:
        sender = _library().recover_transaction(raw)
    except CountermarkError:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile signature makes the library raise many kinds
        raise ChainError(f"nobody's signature ({type(error).__name__})") from None
    return transaction, checksummed(bytes.fromhex(sender[2:]))


def signing_hash(transaction: Transaction) -> bytes:
    """What the signature is over: Keccak-256 of the type and the nine fields before it."""
    to = address_bytes(transaction.to) if transaction.to else b""
    return keccak(TYPE + rlp_encode([
        integer_bytes(transaction.chain_id), integer_bytes(transaction.nonce), integer_bytes(transaction.tip_max),
        integer_bytes(transaction.fee_max), integer_bytes(transaction.gas), to, integer_bytes(transaction.value),
        transaction.data, [],
    ]))  # fmt: skip


def bumped(transaction: Transaction, wanted: int, approved_max: int) -> Transaction | None:
    """The same with fees that nodes take as a replacement, at least ``wanted``; None when it would cost more than was
    approved. ``wanted`` and ``approved_max`` are wei for each unit of gas.
    """
    least = -(-transaction.fee_max * (100 + BUMP_PERCENT) // 100)
    tip = -(-transaction.tip_max * (100 + BUMP_PERCENT) // 100)
    if max(least, tip) > approved_max:
        return None
    fee = min(max(least, wanted), approved_max)
    return replace(transaction, fee_max=fee, tip_max=min(max(tip, 1), fee))


def _check(transaction: Transaction) -> None:
    one = transaction
    small = 0 < one.chain_id < 2**63 and 0 <= one.nonce <= NONCE_MAX and 0 < one.gas <= GAS_MAX
    if not small or not 0 <= one.value < 2**256 or not 0 <= one.tip_max <= one.fee_max < 2**128:
        raise ChainError("a transaction's numbers are out of range")
    if len(one.data) > CALL_BYTES_MAX:
        raise ChainError("a transaction's data are too long")
    try:
        if one.to:
            address_bytes(one.to)
    except ArgumentError as error:
        raise ChainError(error.message, hint=error.hint) from None


def _flat(fields: list[Any]) -> bool:
    return all(type(field) is bytes for at, field in enumerate(fields) if at != 8)


def load() -> None:
    """Import what signs, for a process that will sign: while it is imported, which takes a second, the limit of
    recursion is high for all threads, so that has to be over before anybody's JSON is read.
    """
    with suppress(ConfigError):  # whoever signs without it is told then
        _library()


def _library() -> Any:
    limit = sys.getrecursionlimit()
    try:
        from eth_account import Account
    except ImportError:
        raise ConfigError("the extra evm is not installed", hint="Install countermark[evm].") from None
    finally:
        # A library that it brings raises the limit to 100,000 for the whole process. Then a deeply nested JSON text,
        # which anybody can send, ends the interpreter where it would have been an error.
        sys.setrecursionlimit(limit)
    return Account
