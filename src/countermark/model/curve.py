"""Which 32 bytes may be an Ed25519 public key: canonical, on the curve, not of small order.

The library accepts public keys under which a signature proves nothing. Every key that people, agents, logs or witnesses
are known by passes here.
"""

from __future__ import annotations

from countermark.model.errors import SignatureError

KEY_BYTES = 32

_P = 2**255 - 19  # RFC 8032 section 5.1: the field and the curve's constant d = -121665/121666
_D = -121665 * pow(121666, -1, _P) % _P

# The eight points whose order divides the cofactor. Under such a key one signature fits many messages.
SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",  # order 1
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # order 2
        "0000000000000000000000000000000000000000000000000000000000000000",  # order 4
        "0000000000000000000000000000000000000000000000000000000000000080",  # order 4
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",  # order 8
    )
)


def check_point(raw: object) -> None:
    """Raises ``SignatureError`` (``bad_key``) unless the bytes are a key that signatures can be checked against."""
    if type(raw) is not bytes or len(raw) != KEY_BYTES:
        raise bad_key(f"an Ed25519 public key has {KEY_BYTES} bytes")
    if raw in SMALL_ORDER:
        raise bad_key("the key is a point of small order: anybody can make signatures that fit it")
    _check_on_curve(raw)


def bad_key(message: str) -> SignatureError:
    """The refusal of a key."""
    return SignatureError(message, code="bad_key", hint="Make a new key and enrol that one.")


def _check_on_curve(raw: bytes) -> None:
    """Decompress as RFC 8032 section 5.1.3 says, and refuse what has another encoding or none."""
    value = int.from_bytes(raw, "little")
    sign, y = value >> 255, value & (1 << 255) - 1
    if y >= _P:
        raise bad_key("the key is not canonically encoded")
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if square == 0:
        if sign:
            raise bad_key("the key is not canonically encoded")
    elif pow(square, (_P - 1) // 2, _P) != 1:  # Euler's criterion: x^2 has no root, so there is no such point
        raise bad_key("the key is not a point of the curve")
