"""V21: events of contracts, from the record's payload to the block that they name (docs/spec/workflow-triggers.md)."""

import re
from collections.abc import Mapping
from typing import Any

from countermark_verify import canon, evm
from countermark_verify.crypto import decode64
from countermark_verify.errors import Malformed
from countermark_verify.fields import NATURAL
from countermark_verify.shape import integer, listing, record, text

RECEIPT, CHECKED = "receipt", "receipt-checked"  # the second: with what is too long to be here
SCHEMES: Mapping[str, frozenset[str]] = {
    "chain": frozenset((RECEIPT, CHECKED)),
    "webhook": frozenset(("stripe", "standard", "github", "hmac")),
}
TEXT_BYTES_MAX = 900
KEY_CHARS_MAX = 200
_WORD = 32
_OWN = {"contract", "block", "transaction"}
_INTEGER_BITS_MAX = 48  # of a number that is one in a payload; a larger one is its text
_EVIDENCE = record(
    {
        "chain_id": integer(1),
        "contract": text(r"0x[0-9a-f]{40}"),
        "signature": text(chars_max=500),
        "header": text(),
        "receipt": text(),
        "proof": listing(text(), evm.NODES_MAX),
        "index": NATURAL,
        "log_index": NATURAL,
        "number": NATURAL,
    }
)
_SIGNATURE = re.compile(r"([A-Za-z_$][A-Za-z0-9_$]{0,63})\((.*)\)", re.ASCII)
_PARAMETER = re.compile(r"([a-z0-9]{1,8})( indexed)? ([A-Za-z_][A-Za-z0-9_]{0,39})", re.ASCII)
_SIZED = re.compile(r"(uint|int|bytes)([1-9][0-9]{0,2})", re.ASCII)

Parameter = tuple[str, bool, str]  # type, whether it is indexed, name


def misfit(body: Mapping[str, Any], pinned: Mapping[int, Mapping[int, bytes]]) -> str:
    """Why an `event.received` by `receipt` is not what its evidence shows, or ""; raises `NoKeccak`.

    `pinned`: by chain, the hashes of the blocks that the auditor knows.
    """
    said = body["evidence"]
    if reason := _EVIDENCE(said):
        return f"its evidence does not have the form of one{reason}"
    try:
        header = evm.parse_header(decode64(said["header"]), said["chain_id"])
        raw = evm.proved(header.receipts, said["index"], [decode64(node) for node in said["proof"]])
        _, logs = evm.parse_receipt(raw)
        event, parameters = _declared(said["signature"])
        shown = decode64(said["receipt"])
    except Malformed as error:
        return f"its evidence {error}"
    if raw != shown or body["digest"] != canon.digest("event", raw):
        return "another receipt is proved than the record shows"
    name = f"{said['chain_id']}:{header.hash.hex()}:{said['index']}:{said['log_index']}"
    if body["event"] != name or said["number"] != header.number:
        return "it is not the event that its evidence shows"
    if pinned.get(said["chain_id"], {}).get(header.number, header.hash) != header.hash:
        return "its block is not the one that the auditor knows"
    log = logs[said["log_index"]] if said["log_index"] < len(logs) else None
    if log is None or log.address.hex() != said["contract"][2:] or log.topics[:1] != (evm.keccak(event.encode()),):
        return "the receipt does not hold the contract's event"
    payload = _values(parameters, log)
    payload |= {"contract": said["contract"], "block": header.number, "transaction": said["index"]}
    if canon.render(payload) != canon.render(body["payload"]):
        return "its payload is not what the log says"
    keys = {"", *map(_key, payload.values())}
    return "" if body["key"] in keys else "its key is none of its payload's members"


def _declared(signature: str) -> tuple[str, list[Parameter]]:
    """The event as its first topic hashes it, and what it carries."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        raise Malformed("declares no event")
    parameters: list[Parameter] = []
    for part in found[2].split(", ") if found[2] else ():
        one = _PARAMETER.fullmatch(part)
        if one is None or not _known(one[1]):
            raise Malformed("declares no event")
        parameters.append((one[1], one[2] is not None, one[3]))
    names = {name for _, _, name in parameters}
    if len(names) < len(parameters) or names & _OWN:
        raise Malformed("declares an event with a name twice, or one that every event has")
    return f"{found[1]}({','.join(kind for kind, _, _ in parameters)})", parameters


def _known(kind: str) -> bool:
    if kind in ("address", "bool", "string", "bytes"):
        return True
    sized = _SIZED.fullmatch(kind)
    if sized is None:
        return False
    size = int(sized[2])
    return size <= _WORD if sized[1] == "bytes" else size <= 256 and size % 8 == 0


def _values(parameters: list[Parameter], log: evm.Log) -> dict[str, Any]:
    """By name; nothing but nulls where the log does not hold what is declared."""
    topics, found, at = list(log.topics[1:]), dict[str, Any](), 0
    try:
        if len(topics) != sum(indexed for _, indexed, _ in parameters):
            raise Malformed("has another number of topics")
        for kind, indexed, name in parameters:
            dynamic = kind in ("string", "bytes")
            if indexed:
                word = topics.pop(0)
                found[name] = "0x" + word.hex() if dynamic else _value(kind, word)
                continue
            word = _part(log.data, at, _WORD)
            found[name] = _long(kind, log.data, int.from_bytes(word, "big")) if dynamic else _value(kind, word)
            at += _WORD
    except Malformed:
        return dict.fromkeys(name for _, _, name in parameters)
    return found


def _part(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise Malformed("holds a value that lies outside of it")
    return data[at : at + size]


def _value(kind: str, word: bytes) -> Any:
    number = int.from_bytes(word, "big")
    if kind == "address":
        _below(number, 160)
        return "0x" + word[12:].hex()
    if kind == "bool":
        _below(number, 1)
        return bool(number)
    size = int(kind.lstrip("bytesuin"))
    if kind.startswith("bytes"):
        if any(word[size:]):
            raise Malformed("holds bytes beside a value")
        return "0x" + word[:size].hex()
    if kind.startswith("int"):
        number = int.from_bytes(word, "big", signed=True)
        _below(number if number >= 0 else ~number, size - 1)
    else:
        _below(number, size)
    return number if size <= _INTEGER_BITS_MAX else str(number)


def _below(number: int, bits: int) -> None:
    if number >> bits:
        raise Malformed("holds more than its type can")


def _long(kind: str, data: bytes, at: int) -> str | None:
    raw = _part(data, at + _WORD, int.from_bytes(_part(data, at, _WORD), "big"))
    if kind == "string":
        try:
            found = raw.decode("utf-8")
        except UnicodeDecodeError:
            return None
    else:
        found = "0x" + raw.hex()
    return found if len(found.encode()) <= TEXT_BYTES_MAX else None


def _key(value: Any) -> str:
    found = str(value) if type(value) in (str, int) else ""
    return found if len(found) <= KEY_CHARS_MAX and found.isprintable() else ""
