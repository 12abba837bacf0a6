"""Who vouches for a block's hash, other than the pack: the auditor's checkpoint, the auditor's node, a Warp quorum.

A block that is only consistent in itself can be made up by anybody in a second. Each of these answers for one chain:
the hash at a number, or None when it does not know that block.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from countermark_verify.errors import TrustError

VALIDATORS_MAX = 10_000

_WARP_CODEC = b"\0\0"
_WARP_HASH = b"\0\0\0\0"  # payload type: the hash of an accepted block
_BLS_KEY_BYTES, _BLS_SIGNATURE_BYTES = 48, 96


class Voucher(Protocol):
    """`words` says for people whose word it is."""

    @property
    def words(self) -> str: ...

    def hash_at(self, number: int, claimed: bytes) -> bytes | None:
        """The hash of the block at this number, as far as it is known. Raises `Unavailable`."""
        ...


class Unavailable(Exception):
    """Whoever was to vouch cannot be asked; the message says why."""


@dataclass(frozen=True)
class Pinned:
    """Blocks that the auditor wrote into the trust file."""

    blocks: Mapping[int, bytes]
    words: str = "that the auditor pinned"

    def hash_at(self, number: int, claimed: bytes) -> bytes | None:
        return self.blocks.get(number)


def parse_nodes(texts: Sequence[str]) -> dict[int, Voucher]:
    """`CHAIN_ID=URL` of the command line. Errors: `TrustError`."""
    if not texts:
        return {}
    # All that uses a network: whoever asks no node starts without it.
    from countermark_verify.node import Node

    nodes: dict[int, Voucher] = {}
    for text in texts:
        chain, equals, url = text.partition("=")
        if not equals or not chain.isascii() or not chain.isdigit() or len(chain) > 16 or int(chain) in nodes:
            raise TrustError("--rpc takes CHAIN_ID=URL, each chain once")
        nodes[int(chain)] = Node(url, int(chain))
    return nodes


@dataclass(frozen=True)
class WarpSignature:
    """Validators of an Avalanche chain signed that they accepted a block: which of them, and the aggregate (BLS12-381
    in G2, 96 bytes).
    """

    signers: tuple[int, ...]
    signature: bytes


@dataclass(frozen=True)
class WarpQuorum:
    """Avalanche's Warp messages about accepted blocks. Not reached by any trust file of today: whoever uses it brings
    validators and weights from a source of their own, as of the block's P-Chain height.

    `validators`: BLS public key (48 bytes, compressed) and weight of each, in their canonical order. `quorum`: the
    numerator and denominator of the weight that has to have signed. `signed`: by block hash.
    """

    network_id: int
    chain: bytes
    validators: tuple[tuple[bytes, int], ...]
    quorum: tuple[int, int]
    signed: Mapping[bytes, WarpSignature]
    words: str = "that a quorum of the chain's validators signed"

    def hash_at(self, number: int, claimed: bytes) -> bytes | None:
        """`claimed`, when the quorum signed it: a Warp message names a block by its hash alone."""
        found = self.signed.get(claimed)
        if found is None:
            return None
        total = sum(weight for _, weight in self.validators)
        places = sorted(set(found.signers))
        if len(places) != len(found.signers) or not places or not 0 <= places[0] <= places[-1] < len(self.validators):
            raise Unavailable("the signers of a Warp message are none of the validators")
        weight = sum(self.validators[place][1] for place in places)
        if weight * self.quorum[1] < total * self.quorum[0]:
            return None
        keys = [self.validators[place][0] for place in places]
        return claimed if _bls()(keys, self.message(claimed), found.signature) else None

    def message(self, block_hash: bytes) -> bytes:
        """Codec version, network, chain, length and the payload: codec version, type, the hash."""
        payload = _WARP_CODEC + _WARP_HASH + block_hash
        head = _WARP_CODEC + self.network_id.to_bytes(4, "big") + self.chain
        return head + len(payload).to_bytes(4, "big") + payload


def _bls() -> Callable[[Sequence[bytes], bytes, bytes], bool]:
    limit = sys.getrecursionlimit()
    try:
        from py_ecc.bls.ciphersuites import G2ProofOfPossession
    except ImportError:
        raise Unavailable("py_ecc is not installed") from None
    finally:
        sys.setrecursionlimit(limit)  # the library raises it so far that deeply nested JSON ends the interpreter

    def check(keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
        if len(signature) != _BLS_SIGNATURE_BYTES or any(len(key) != _BLS_KEY_BYTES for key in keys):
            return False
        check_all: Any = G2ProofOfPossession.FastAggregateVerify  # its own types are names for bytes
        return bool(check_all(list(keys), message, signature))

    return check
