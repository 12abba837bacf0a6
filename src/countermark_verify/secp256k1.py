"""Whose signature an Ethereum transaction carries: the public key is recovered from it (SEC 1, section 4.1.6)."""

from countermark_verify.errors import Malformed
from countermark_verify.evm import keccak

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_G = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)

# X, Y, Z with x = X / Z^2 and y = Y / Z^3: no division until the end. Z of 0 is the point at infinity.
_Point = tuple[int, int, int]


def sender(digest: bytes, parity: int, r: int, s: int) -> bytes:
    """The address of whoever signed these 32 bytes: the last 20 bytes of the Keccak-256 of the public key."""
    # EIP-2: the larger of the two s is refused, so that a transaction has one hash.
    if parity not in (0, 1) or not 0 < r < N or not 0 < s <= N // 2:
        raise Malformed("carries a signature that is out of range")
    square = (pow(r, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if y * y % P != square:
        raise Malformed("carries nobody's signature")
    if y % 2 != parity:
        y = P - y
    inverse = pow(r, -1, N)
    z = int.from_bytes(digest, "big")
    x, y, scale = _sum(_G, -z * inverse % N, (r, y), s * inverse % N)
    if not scale:
        raise Malformed("carries nobody's signature")
    unscale = pow(scale, -1, P)
    x, y = x * pow(unscale, 2, P) % P, y * pow(unscale, 3, P) % P
    return keccak(x.to_bytes(32, "big") + y.to_bytes(32, "big"))[-20:]


def _sum(one: tuple[int, int], times: int, other: tuple[int, int], often: int) -> _Point:
    """`times * one + often * other`, both in one go of doublings."""
    first, second = (*one, 1), (*other, 1)
    both = _add(first, second)
    found: _Point = (0, 1, 0)
    for bit in range(255, -1, -1):
        found = _double(found)
        which = times >> bit & 1 | (often >> bit & 1) << 1
        if which:
            found = _add(found, (first, second, both)[which - 1])
    return found


def _double(point: _Point) -> _Point:
    x, y, z = point
    if not z or not y:
        return (0, 1, 0)
    yy = y * y % P
    s = 4 * x * yy % P
    m = 3 * x * x % P
    doubled = (m * m - 2 * s) % P
    return (doubled, (m * (s - doubled) - 8 * yy * yy) % P, 2 * y * z % P)


def _add(one: _Point, other: _Point) -> _Point:
    if not one[2]:
        return other
    if not other[2]:
        return one
    (x1, y1, z1), (x2, y2, z2) = one, other
    z1z1, z2z2 = z1 * z1 % P, z2 * z2 % P
    u1, u2 = x1 * z2z2 % P, x2 * z1z1 % P
    s1, s2 = y1 * z2 * z2z2 % P, y2 * z1 * z1z1 % P
    if u1 == u2:
        return _double(one) if s1 == s2 else (0, 1, 0)
    h, r = (u2 - u1) % P, (s2 - s1) % P
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return (x3, (r * (v - x3) - s1 * hhh) % P, h * z1 * z2 % P)
