"""The exact body of `anchor.published` (docs/spec/anchor.md)."""

from typing import Any

from countermark_verify.shape import integer, listing, record, text

ANCHOR_CHARS_MAX = 32_768

_CHAIN_BYTES = text(r"[A-Za-z0-9+/]*={0,2}", chars_max=ANCHOR_CHARS_MAX)
_ADDRESS = text(r"0x[0-9a-f]{40}")
_ROOT = text(r"[0-9a-f]{64}")
_MEMBERS = record(
    {
        "size": integer(1),
        "root": _ROOT,
        "chain_id": integer(1),
        "contract": _ADDRESS,
        "sequence": integer(1),
        "previous": _ROOT,
        "tx": _CHAIN_BYTES,
        "receipt": _CHAIN_BYTES,
        "proof": record({"index": integer(0), "receipt": listing(_CHAIN_BYTES, 16), "tx": listing(_CHAIN_BYTES, 16)}),
        "header": _CHAIN_BYTES,
        "block": record({"number": integer(0), "hash": _ROOT}),
        "log_index": integer(0),
    }
)


def ANCHOR(value: Any) -> str:
    """Every member, and all of the chain's bytes together within their bound."""
    if reason := _MEMBERS(value):
        return reason
    texts = (value["tx"], value["receipt"], value["header"], *value["proof"]["receipt"], *value["proof"]["tx"])
    return ": longer than an anchor may be" if sum(map(len, texts)) > ANCHOR_CHARS_MAX else ""
