"""Blocks of the EVM family, as far as an anchor needs them (docs/spec/anchor.md): Keccak-256, RLP, tries, signatures.

Written from the chains' own specifications, with nothing but a hash function from outside: `pycryptodome`, imported
when it is first needed.
"""

from dataclasses import dataclass
from typing import Any

from countermark_verify.errors import Malformed

HASH_BYTES = 32
ADDRESS_BYTES = 20
ITEMS_MAX = 10_000
DEPTH_MAX = 8
NODES_MAX = 16
LOGS_MAX = 1_024
AVALANCHE_CHAINS = frozenset((43_114, 43_113))

_TYPED_MAX = 0x7F  # EIP-2718
_NUMBER, _FREE, _BLOOM, _EXTRA_MAX = 0, -1, 256, 1_024
_FIRST = (32, 32, 20, 32, 32, 32, _BLOOM, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _FREE, 32, 8)
_AVALANCHE = (32, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, 32, _NUMBER, _NUMBER)
_ETHEREUM = (_NUMBER, 32, _NUMBER, _NUMBER, 32, 32)
# Places of a header's fields.
_TRANSACTIONS, _RECEIPTS, _HEIGHT, _TIME = 4, 5, 8, 11


class NoKeccak(Exception):
    """The hash function is not installed."""


@dataclass(frozen=True)
class Header:
    hash: bytes
    number: int
    time: int
    transactions: bytes
    receipts: bytes


@dataclass(frozen=True)
class Log:
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Transaction:
    """An EIP-1559 transaction; `digest` is what `signature` (parity, r, s) signs. `fee_max` is wei for each gas."""

    chain_id: int
    to: bytes
    data: bytes
    digest: bytes
    signature: tuple[int, int, int]
    value: int = 0
    gas: int = 0
    fee_max: int = 0


def keccak(data: bytes) -> bytes:
    """Keccak-256 with the padding of before FIPS 202."""
    try:
        from Crypto.Hash import keccak as library
    except ImportError as error:
        raise NoKeccak from error
    return bytes(library.new(digest_bits=256, data=data).digest())


def decode(data: bytes) -> Any:
    """The one RLP item that these bytes are: bytes, or a list (Ethereum Yellow Paper, appendix B)."""
    item, end = _item(data, 0, len(data), 0)
    if end != len(data):
        raise Malformed("has bytes after its RLP item")
    return item


def _item(data: bytes, at: int, limit: int, depth: int) -> tuple[Any, int]:
    if at >= limit or depth > DEPTH_MAX:
        raise Malformed("ends inside an RLP item, or nests too deep")
    first = data[at]
    if first < 0x80:
        return data[at : at + 1], at + 1
    listed = first >= 0xC0
    length = first - (0xC0 if listed else 0x80)
    begin = at + 1
    if length > 55:
        size = length - 55
        written = data[begin : begin + size]
        length = int.from_bytes(written, "big")
        begin += size
        if written[:1] == b"\0" or length <= 55:
            raise Malformed("holds a length that is not in its shortest form")
    end = begin + length
    if end > limit:
        raise Malformed("ends inside an RLP item")
    if not listed:
        if length == 1 and data[begin] < 0x80:
            raise Malformed("holds a byte that is not in its shortest form")
        return data[begin:end], end
    items: list[Any] = []
    while begin < end:
        if len(items) == ITEMS_MAX:
            raise Malformed("holds too many items")
        item, begin = _item(data, begin, end, depth + 1)
        items.append(item)
    return items, end


def encode(item: Any) -> bytes:
    """RLP of bytes and lists of them."""
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _headed(item, 0x80)
    return _headed(b"".join(encode(one) for one in item), 0xC0)


def _headed(body: bytes, base: int) -> bytes:
    if len(body) <= 55:
        return bytes([base + len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([base + 55 + size]) + len(body).to_bytes(size, "big") + body


def number(field: Any) -> int:
    """A number in its shortest form, of at most 256 bits."""
    if type(field) is not bytes or len(field) > HASH_BYTES or field[:1] == b"\0":
        raise Malformed("holds a number that is not in its shortest form")
    return int.from_bytes(field, "big")


def parse_header(raw: bytes, chain_id: int) -> Header:
    """Every field in its form. A sixteenth field of 32 bytes is Avalanche's; its own networks always have it."""
    fields = decode(raw)
    if type(fields) is not list or len(fields) < len(_FIRST):
        raise Malformed("has too few fields")
    further = fields[len(_FIRST) :]
    avalanche = bool(further) and type(further[0]) is bytes and len(further[0]) == HASH_BYTES
    if chain_id in AVALANCHE_CHAINS and not avalanche:
        raise Malformed("is not one of Avalanche's")
    kinds = (*_FIRST, *(_AVALANCHE if avalanche else _ETHEREUM))
    if len(fields) > len(kinds):
        raise Malformed("has too many fields")
    for kind, field in zip(kinds, fields, strict=False):
        if kind == _NUMBER:
            number(field)
        elif type(field) is not bytes or (len(field) > _EXTRA_MAX if kind == _FREE else len(field) != kind):
            raise Malformed("has a field of another length")
    return Header(keccak(raw), number(fields[_HEIGHT]), number(fields[_TIME]), fields[_TRANSACTIONS], fields[_RECEIPTS])


def proved(root: bytes, index: int, nodes: list[bytes]) -> bytes:
    """The entry at `index` of the Merkle-Patricia trie under `root`; the nodes are exactly those on the way to it."""
    path = [nibble for byte in encode(_shortest(index)) for nibble in (byte >> 4, byte & 15)]
    wanted = root
    for at, node in enumerate(nodes):
        # Each node of such a trie leads to entries of over 32 bytes, so that none stands inside another.
        if len(node) < HASH_BYTES or keccak(node) != wanted:
            raise Malformed("does not lead from the root")
        path, found, ends = _step(decode(node), path)
        if ends:
            if at != len(nodes) - 1 or not found:
                raise Malformed("has nodes after its end, or ends in nothing")
            return found
        if len(found) != HASH_BYTES:
            raise Malformed("proves that there is no such entry")
        wanted = found
    raise Malformed("ends before it reaches an entry")


def _step(node: Any, path: list[int]) -> tuple[list[int], bytes, bool]:
    """What is left of the path, then the next hash or the entry, then whether it is the entry."""
    if type(node) is not list or not all(type(item) is bytes for item in node):
        raise Malformed("holds what is no node")
    if len(node) == 17:
        return (path[1:], node[path[0]], False) if path else (path, node[16], True)
    if len(node) != 2 or not node[0]:
        raise Malformed("holds what is no node")
    first = node[0][0]
    flag, odd = first >> 5, first >> 4 & 1
    nibbles = [nibble for byte in node[0][1:] for nibble in (byte >> 4, byte & 15)]
    if odd:
        nibbles.insert(0, first & 15)
    if flag > 1 or (not odd and first & 15) or path[: len(nibbles)] != nibbles:
        raise Malformed("leads elsewhere")
    left = path[len(nibbles) :]
    if flag == 1 and left:
        raise Malformed("leads elsewhere")
    return left, node[1], flag == 1


def _shortest(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def parse_receipt(raw: bytes) -> tuple[bool, list[Log]]:
    """Whether the transaction succeeded, and its logs."""
    fields = decode(raw[1:] if raw and raw[0] <= _TYPED_MAX else raw)
    if type(fields) is not list or len(fields) != 4 or fields[0] not in (b"", b"\x01"):
        raise Malformed("has no form of a receipt")
    number(fields[1])
    if type(fields[2]) is not bytes or len(fields[2]) != _BLOOM or type(fields[3]) is not list:
        raise Malformed("has no form of a receipt")
    if len(fields[3]) > LOGS_MAX:
        raise Malformed("has too many logs")
    return fields[0] == b"\x01", [_log(item) for item in fields[3]]


def _log(item: Any) -> Log:
    if type(item) is list and len(item) == 3 and type(item[0]) is bytes and len(item[0]) == ADDRESS_BYTES:
        address, topics, data = item
        whole = type(topics) is list and len(topics) <= 4 and type(data) is bytes
        if whole and all(type(topic) is bytes and len(topic) == HASH_BYTES for topic in topics):
            return Log(address, tuple(topics), data)
    raise Malformed("has a log of another form")


def parse_transaction(raw: bytes) -> Transaction:
    """An EIP-1559 transaction to a contract, without access list, and what its signature is over."""
    if raw[:1] != b"\x02":
        raise Malformed("is not of EIP-1559")
    fields = decode(raw[1:])
    if type(fields) is not list or len(fields) != 12 or fields[8] != []:
        raise Malformed("does not have the fields of EIP-1559, or has an access list")
    numbers = [number(fields[at]) for at in (0, 1, 2, 3, 4, 6, 9, 10, 11)]
    if type(fields[5]) is not bytes or len(fields[5]) != ADDRESS_BYTES or type(fields[7]) is not bytes:
        raise Malformed("goes to no contract")
    digest = keccak(b"\x02" + encode(fields[:9]))
    chain_id, _, _, fee_max, gas, value, parity, r, s = numbers
    return Transaction(chain_id, fields[5], fields[7], digest, (parity, r, s), value, gas, fee_max)
