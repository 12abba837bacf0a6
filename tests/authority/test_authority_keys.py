"""Keys: what may be enrolled, what verifies, and how private keys lie on disk."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import PublicKey, generate, load_private, public_of, save_private, sign, verify
from countermark.model.curve import SMALL_ORDER
from countermark.model.digest import APPROVAL, MANDATE
from countermark.model.errors import ConfigError, CountermarkError, SignatureError

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)


def text_of(raw: bytes) -> str:
    return "ed25519:" + base64.b64encode(raw).decode()


def point(raw: bytes) -> tuple[int, int] | None:
    """Affine point of an encoding, or None: RFC 8032 decompression with an explicit root."""
    value = int.from_bytes(raw, "little")
    sign_bit, y = value >> 255, value & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * SQRT_M1 % P
    if y >= P or x * x % P != square or (x == 0 and sign_bit):
        return None
    return (P - x if x & 1 != sign_bit else x), y


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
    return x, y


def order_divides_eight(at: tuple[int, int]) -> bool:
    for _ in range(3):
        at = add(at, at)
    return at == (0, 1)


def test_the_listed_points_are_all_points_of_small_order() -> None:
    """The eight encodings are eight different points that vanish when multiplied by 8: there are no others."""
    points = {point(raw) for raw in SMALL_ORDER}
    assert len(points) == 8
    assert None not in points
    assert all(found is not None and order_divides_eight(found) for found in points)
    generator = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    assert generator is not None
    assert not order_divides_eight(generator)


@pytest.mark.parametrize("raw", sorted(SMALL_ORDER))
def test_a_key_of_small_order_is_refused(raw: bytes) -> None:
    """The library takes such a key; we do not enrol it."""
    Ed25519PublicKey.from_public_bytes(raw)
    with pytest.raises(SignatureError) as caught:
        PublicKey.parse(text_of(raw))
    assert caught.value.code == "bad_key"


def test_one_signature_fits_many_messages_under_a_key_of_small_order() -> None:
    """Why small order is refused: under the identity point one made-up signature verifies for any message."""
    weak = Ed25519PublicKey.from_public_bytes(bytes.fromhex("01" + "00" * 31))
    forged = bytes.fromhex("01" + "00" * 31) + bytes(32)
    weak.verify(forged, b"pay 1")
    weak.verify(forged, b"pay 1000000")


@pytest.mark.parametrize(
    "raw",
    [
        *((P + k).to_bytes(32, "little") for k in range(19)),
        *((P + k + 2**255).to_bytes(32, "little") for k in range(19)),
        (1 + 2**255).to_bytes(32, "little"),
        (P - 1 + 2**255).to_bytes(32, "little"),
    ],
)
def test_a_key_that_is_not_canonical_is_refused(raw: bytes) -> None:
    """All encodings with y >= p, and the two zeros with a sign, are second names of a point."""
    with pytest.raises(SignatureError):
        PublicKey(raw)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_accepted_exactly_when_it_is_a_point(raw: bytes) -> None:
    """Acceptance equals decompression, for random encodings of which about half are no points."""
    expected = point(raw) is not None and raw not in SMALL_ORDER
    try:
        PublicKey(raw)
        accepted = True
    except SignatureError:
        accepted = False
    assert accepted == expected


@pytest.mark.parametrize(
    "text",
    [
        None, 7, "", "ed25519:", text_of(bytes(31)), text_of(bytes(33)),
        "ED25519:" + text_of(public_of(PRIVATE).raw)[8:], text_of(public_of(PRIVATE).raw)[8:],
        str(public_of(PRIVATE)) + "\n", str(public_of(PRIVATE)).replace("=", " "),
        text_of(public_of(PRIVATE).raw)[:-2] + chr(ord(text_of(public_of(PRIVATE).raw)[-2]) + 1) + "=",
    ],
)  # fmt: skip
def test_a_key_in_another_form_is_refused(text: object) -> None:
    """Prefix, length and base64 have one form; trailing bits count."""
    with pytest.raises(SignatureError):
        PublicKey.parse(text)


def test_a_key_reads_back_as_it_was_written() -> None:
    """Parse of str is the same key, for fresh keys."""
    for _ in range(5):
        key = public_of(generate())
        assert PublicKey.parse(str(key)) == key


def test_a_signature_binds_domain_document_and_key() -> None:
    """The same signature fails for another domain, document or key, and when any byte of it changes."""
    key, document = public_of(PRIVATE), {"v": 1, "amount": 5}
    sig = sign(PRIVATE, MANDATE, document)
    verify(key, MANDATE, document, sig)
    raw = base64.b64decode(sig)
    changed = [base64.b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).decode() for at in range(64)]
    wrong: list[tuple[PublicKey, str, object, object]] = [
        (key, APPROVAL, document, sig),
        (key, MANDATE, {"v": 1, "amount": 6}, sig),
        (public_of(generate()), MANDATE, document, sig),
        (key, MANDATE, document, None),
        (key, MANDATE, document, ""),
        (key, MANDATE, document, sig[:-2] + "!="),
        (key, MANDATE, document, base64.b64encode(raw[:63]).decode()),
        *((key, MANDATE, document, item) for item in changed),
    ]
    for public, domain, value, given_sig in wrong:
        with pytest.raises(SignatureError):
            verify(public, domain, value, given_sig)


def test_a_malleated_signature_is_refused() -> None:
    """S + L gives a second signature over the same document (RFC 8032 section 5.1.7); it does not verify."""
    order = 2**252 + 27742317777372353535851937790883648493
    raw = base64.b64decode(sign(PRIVATE, MANDATE, {"a": 1}))
    bigger = (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(SignatureError):
        verify(public_of(PRIVATE), MANDATE, {"a": 1}, base64.b64encode(raw[:32] + bigger).decode())


def test_a_document_outside_the_profile_cannot_be_signed() -> None:
    """A float raises our own error, both ways."""
    with pytest.raises(CountermarkError):
        sign(PRIVATE, MANDATE, {"amount": 1.5})
    with pytest.raises(CountermarkError):
        verify(public_of(PRIVATE), MANDATE, {"amount": 1.5}, sign(PRIVATE, MANDATE, {}))


def test_a_saved_key_loads_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The file is PKCS #8 PEM with mode 0600 whatever the umask, and gives back the same key."""
    path = tmp_path / "key.pem"
    before = os.umask(0o277)
    try:
        save_private(path, PRIVATE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert load_private(path).private_bytes_raw() == PRIVATE.private_bytes_raw()


def test_an_existing_key_is_never_replaced(tmp_path: Path) -> None:
    """Saving over a key raises and leaves it as it was."""
    path = tmp_path / "key.pem"
    save_private(path, PRIVATE)
    with pytest.raises(ConfigError):
        save_private(path, generate())
    assert load_private(path).private_bytes_raw() == PRIVATE.private_bytes_raw()
    with pytest.raises(ConfigError):
        save_private(tmp_path / "absent" / "key.pem", PRIVATE)


def test_a_process_that_dies_while_a_key_is_written_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty ``log.next.pem`` would keep the gate from starting, and `keys prepare` from making another."""
    path, seen = tmp_path / "key.pem", []

    def dies(_: int) -> None:
        seen.append(path.exists())
        raise OSError(5, "no")

    with monkeypatch.context() as patch:
        patch.setattr("countermark.authority.keyfile.os.fsync", dies)
        with pytest.raises(ConfigError):
            save_private(path, PRIVATE)
    assert (seen, list(tmp_path.iterdir())) == ([False], [])
    save_private(path, PRIVATE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o777])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others refuses the file, and the hint says what to run."""
    path = tmp_path / "key.pem"
    save_private(path, PRIVATE)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_private(path)
    assert "chmod 600" in caught.value.hint


def test_what_is_no_ed25519_key_file_is_refused(tmp_path: Path) -> None:
    """Missing, empty, garbage, too long, a directory, a pipe, an encrypted and an elliptic-curve key: all refused."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = PRIVATE.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x"))
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption())
    for index, raw in enumerate((b"", b"garbage", secret, curve, b"x" * 5000)):
        path = tmp_path / f"{index}.pem"
        path.write_bytes(raw)
        path.chmod(0o600)
        with pytest.raises(CountermarkError):
            load_private(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("absent", ".", "pipe"):
        with pytest.raises(ConfigError):
            load_private(tmp_path / name)
