"""The trust file is the auditor's own input: strict, and any fault in it is a usage error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from verify_builder import story
from verify_bytes import b64, key_text, public, verifier_key

from countermark_verify import TrustError, load_trust, parse_trust
from countermark_verify.crypto import check_key
from countermark_verify.errors import Malformed

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def honest(**more: Any) -> dict[str, Any]:
    return story().trust(**more)


def parse(document: Any) -> Any:
    return parse_trust(json.dumps(document, indent=1).encode())


def small_order_points() -> set[bytes]:
    """The eight points whose order divides 8, computed from the curve: points times the order of the group."""
    order = 2**252 + 27742317777372353535851937790883648493

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        product = D * a[0] * b[0] * a[1] * b[1] % P
        x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P) % P
        return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P

    def times(n: int, point: tuple[int, int]) -> tuple[int, int]:
        result = (0, 1)
        while n:
            result = add(result, point) if n & 1 else result
            point, n = add(point, point), n >> 1
        return result

    found: set[bytes] = set()
    for y in range(2, 40):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
        if x * x % P == square:
            torsion = times(order, (x, y))
            for n in range(8):
                point = times(n, torsion)
                found.add((point[1] | (point[0] & 1) << 255).to_bytes(32, "little"))
    return found


def test_every_point_of_small_order_is_refused() -> None:
    """All eight of them, with either sign bit; and coordinates that are not reduced."""
    points = small_order_points()
    assert len(points) == 8
    for point in points:
        for encoded in (point, point[:31] + bytes([point[31] ^ 0x80])):
            with pytest.raises(Malformed):
                check_key(encoded)
    for y in (P, P + 1, 2**255 - 1):
        with pytest.raises(Malformed):
            check_key(y.to_bytes(32, "little"))
    assert check_key(public("principal")) == public("principal")


def test_the_honest_file_is_read() -> None:
    """Heads are sorted by size, people's keys stay as written, the deployment is the origin's."""
    trust = parse(honest(heads=[{"size": 7, "root": b64(bytes(32)), "source": "s"}] * 1))
    assert (trust.deployment, trust.people["author"], trust.heads[0].size) == (
        "acme",
        ("ed25519:" + b64(public("author")),),
        7,
    )


KEY = verifier_key("w.example", public("w"), 4)
HEAD = {"size": 1, "root": b64(bytes(32)), "source": "s"}
WRONG: dict[str, dict[str, Any]] = {
    "unknown member": {"extra": 1},
    "another version": {"v": 2},
    "boolean version": {"v": True},
    "person without a key": {"people": {"x": "ed25519:"}},
    "person with a small key": {"people": {"x": "ed25519:" + b64(bytes(32))}},
    "person with a bare key": {"people": {"x": b64(public("x"))}},
    "negative size": {"heads": [HEAD | {"size": -1}]},
    "short root": {"heads": [HEAD | {"root": b64(bytes(31))}]},
    "loose base64": {"heads": [HEAD | {"root": b64(bytes(32))[:-1] + "\n="}]},
    "quorum of nobody": {"witnesses": {"quorum": 0, "keys": []}},
    "log key as witness": {
        "witnesses": {"quorum": 1, "keys": [{"key": verifier_key("w", public("w")), "operator": "o"}]}
    },
    "wrong key id": {"witnesses": {"quorum": 1, "keys": [{"key": KEY.replace("+", "+0", 1), "operator": "o"}]}},
    "leaf hash in capitals": {"leaf_hashes": {"from": 0, "hashes": ["A" * 64]}},
    "another origin": {"log": {"origin": "acme/l0", "keys": []}},
    "a key of another log": {"log": {"origin": "countermark/b/l0", "keys": [verifier_key("x", public("log"))]}},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_faulty_file_is_refused(case: str) -> None:
    """Nothing is guessed or skipped."""
    with pytest.raises(TrustError):
        parse(honest() | WRONG[case])


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"v":1,"v":1}', b"[" * 100_000, b'{"v":1.5}'])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    """Damaged text gives a trust error and nothing else."""
    with pytest.raises(TrustError):
        parse_trust(raw)


def test_a_missing_file_is_a_trust_error(tmp_path: Path) -> None:
    """So are a directory and a file that is none."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(TrustError):
            load_trust(path)


def test_a_trust_file_may_be_short() -> None:
    """People, heads, witnesses and leaf hashes may be absent."""
    document = honest()
    assert parse({"v": 1, "log": document["log"]}).heads == ()
    assert key_text("author").startswith("ed25519:")
