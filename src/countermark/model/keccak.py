"""Keccak-256, and the one spelling of an address that rests on it (EIP-55). The library is the extra ``evm``'s."""

from __future__ import annotations

import re

from countermark.model.errors import ArgumentError, ConfigError

ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
# Addresses that nobody has a key for: the zero address and what stands near it (precompiled contracts), and the ranges
# that Avalanche keeps for contracts of its own (0x01000000...00 to ...ff, the same for 0x02 and 0x03).
_LOW_BYTES = 2
_RESERVED = tuple(bytes([first]) + b"\0" * 18 for first in (0, 1, 2, 3))


def keccak(raw: bytes) -> bytes:
    """Keccak-256, 32 bytes: what Ethereum calls sha3, with the padding of before the standard."""
    try:
        from Crypto.Hash import keccak as library
    except ImportError:
        raise ConfigError("the extra evm is not installed", hint="Install countermark[evm].") from None
    return bytes(library.new(digest_bits=256, data=raw).digest())


def checksummed(address: bytes) -> str:
    """An address as EIP-55 spells it: the case of its letters is a check sum."""
    plain = address.hex()
    digits = keccak(plain.encode("ascii")).hex()
    return "0x" + "".join(c.upper() if int(d, 16) > 7 else c for c, d in zip(plain, digits, strict=False))


def address_bytes(text: str, field: str = "") -> bytes:
    """The 20 bytes of an address in its one spelling, that of EIP-55. Raises ``ArgumentError``.

    One spelling only: two for one account would be two payees to a limit.
    """
    if ADDRESS.fullmatch(text) is None:
        raise ArgumentError("an address is 0x and 40 hex digits", field=field)
    raw = bytes.fromhex(text[2:])
    right = checksummed(raw)
    if right != text:
        # With mixed case the check sum says that something was mistyped: the right spelling of it would be a wrong one.
        plain = text[2:] in (text[2:].lower(), text[2:].upper())
        hint = f"This one is {right}." if plain else "A character may be wrong."
        raise ArgumentError("an address has the check sum of EIP-55 in the case of its letters", field=field, hint=hint)
    return raw


def is_reserved(address: bytes) -> bool:
    """Whether nobody can have this address: zero, precompiled contracts, Avalanche's own."""
    return not any(address[:-_LOW_BYTES]) or address[:19] in _RESERVED
