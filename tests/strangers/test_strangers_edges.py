"""Edge cases in the manner of Wycheproof and of RFC 8785's appendix: product and verifier refuse and accept the same.

The cases are our own; they are made here from keys of this run, so that no list has to be believed.
"""

from __future__ import annotations

import base64
import json

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark.log import Cosigner, LogSigner, open_note, read_cosignatures, sign_checkpoint
from countermark.model.canon import canon, parse
from countermark.model.errors import CountermarkError, EncodingError, SignatureError
from countermark_verify import canon as verifier_canon
from countermark_verify.crypto import check_key, signed
from countermark_verify.errors import Malformed

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # order of the base point (RFC 8032 section 5.1)
NAME = "countermark/acme/l0"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = LogSigner(NAME, PRIVATE)
NOTE = sign_checkpoint(SIGNER, 7, bytes(32))
TEXT = NOTE.partition(b"\n\n")[0] + b"\n"
GOOD = PRIVATE.sign(TEXT)


def _more(scalar: bytes, times: int) -> bytes:
    return (int.from_bytes(scalar, "little") + times * L).to_bytes(32, "little")


SIGNATURES = {
    "scalar plus the order": GOOD[:32] + _more(GOOD[32:], 1),
    "scalar plus eight times the order": GOOD[:32] + _more(GOOD[32:], 8),
    "scalar of all ones": GOOD[:32] + b"\xff" * 32,
    "scalar zero": GOOD[:32] + bytes(32),
    "point of order one": (1).to_bytes(32, "little") + GOOD[32:],
    "point of order two": (P - 1).to_bytes(32, "little") + GOOD[32:],
    "point that is not reduced": (P + 1).to_bytes(32, "little") + GOOD[32:],
    "the other sign": GOOD[:31] + bytes((GOOD[31] ^ 0x80,)) + GOOD[32:],
    "all zero": bytes(64),
    "halves exchanged": GOOD[32:] + GOOD[:32],
    "a byte too few": GOOD[:-1],
    "a byte too many": GOOD + b"\0",
    "nothing": b"",
    "in DER": b"\x30\x44\x02\x20" + GOOD[:32] + b"\x02\x20" + GOOD[32:],
    "of another message": PRIVATE.sign(TEXT + b"\n"),
    "of its hash": PRIVATE.sign(b""),
}


def _with(signature: bytes) -> bytes:
    line = base64.b64encode(SIGNER.key_id + signature).decode()
    return TEXT + b"\n" + f"— {NAME} {line}\n".encode()


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_ed25519_signature_has_one_form(name: str) -> None:
    """What strict verification refuses (RFC 8032 section 5.1.7), both readers of a head refuse."""
    public = PRIVATE.public_key().public_bytes_raw()
    assert signed(public, GOOD, TEXT)
    assert open_note(_with(GOOD), [SIGNER.vkey])
    assert not signed(public, SIGNATURES[name], TEXT)
    with pytest.raises(SignatureError):
        open_note(_with(SIGNATURES[name]), [SIGNER.vkey])


@pytest.mark.parametrize("y", [0, 1, P - 1, P, P + 1, 2**255 - 1])
def test_a_key_of_small_order_or_not_reduced_is_no_key(y: int) -> None:
    """With either sign: under such keys one signature fits many messages, or one key has two names."""
    for sign in (0, 1):
        with pytest.raises(Malformed):
            check_key((y | sign << 255).to_bytes(32, "little"))


LATTICE = Cosigner("witness.example/w", MLDSA44PrivateKey.from_seed_bytes(bytes(range(32))))
COSIGNED = LATTICE.cosign(TEXT.decode(), 1_793_606_400)
PARTS = {"challenge": 0, "response": 40, "end of the response": 2_330, "hints": 2_340, "end of the hints": 2_415}


def _blob() -> bytearray:
    return bytearray(base64.b64decode(COSIGNED.split(b" ")[-1]))


def _cosigned(blob: bytes) -> bytes:
    return NOTE + f"— {LATTICE.key.name} {base64.b64encode(blob).decode()}\n".encode()


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_an_ml_dsa_44_signature_can_be_changed(part: str) -> None:
    """A flipped bit in challenge, response or hints (FIPS 204 section 7.2), and each wrong length, is refused."""
    assert len(read_cosignatures(_cosigned(bytes(_blob())), [LATTICE.key])) == 1
    for bit in (1, 0x80):
        bent = _blob()
        bent[12 + PARTS[part]] ^= bit  # after the key ID and the time
        with pytest.raises(SignatureError):
            read_cosignatures(_cosigned(bytes(bent)), [LATTICE.key])
    for wrong in (_blob()[:-1], _blob() + b"\0", _blob()[:12]):
        with pytest.raises(SignatureError):
            read_cosignatures(_cosigned(bytes(wrong)), [LATTICE.key])


def test_the_time_in_an_ml_dsa_44_cosignature_is_signed() -> None:
    """Another second under the same signature is refused."""
    bent = _blob()
    bent[11] ^= 1
    with pytest.raises(SignatureError):
        read_cosignatures(_cosigned(bytes(bent)), [LATTICE.key])


CANONICAL = (
    b"{}", b"[]", b'""', b"0", b"-1", b"true", b"null", b"9007199254740991", b"-9007199254740991",
    rb'"\u0000\u001f\b\t\n\f\r\"\\/"', '"\u007f\u0080\u20ac\U0001f600\ufffd"'.encode(), b'{"A":1,"B":2,"a":3,"b":4}',
    b'{"a":{"b":[1,{"c":[]}]}}', b'{"a":1,"a.b":2,"a_b":3}',
)  # fmt: skip
REFUSED = (
    b"", b" ", b"{", b"{}x", b"{} ", b" {}", b"\xef\xbb\xbf{}", b'{"a":1,"a":1}', b'{"b":1,"a":1}', b'{"a": 1}',
    b"[1,]", b"1.0", b"1e0", b"1E3", b"0.1", b"-0", b"01", b"+1", b"0x1", b"NaN", b"Infinity", b"9007199254740992",
    b"-9007199254740992", b"1" + b"0" * 400, rb'"\u0041"', rb'"\/"', rb'"\u001F"', rb'"\ud800"', rb'"\udc00\ud800"',
    rb'"\ud83d\ude00"', b'"\x01"', b'"\x80"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b"'a'", b"{a:1}",
    b"//\n{}", b"[" * 200 + b"]" * 200, b'{"\xc3\xa4":1}', b'{"":1}', b'{"a b":1}', b"tru", b"undefined",
)  # fmt: skip


@pytest.mark.parametrize("raw", CANONICAL)
def test_canonical_texts_are_read_by_both_and_are_those_of_rfc_8785(raw: bytes) -> None:
    """The value reads back to the same bytes, by ours and by another's implementation."""
    value = json.loads(raw)
    assert parse(raw) == verifier_canon.parse(raw) == value
    assert canon(value) == rfc8785.dumps(value) == raw


@pytest.mark.parametrize("raw", REFUSED)
def test_other_texts_are_refused_by_both(raw: bytes) -> None:
    """Whatever is not the one encoding of a value of the profile is no document for either."""
    with pytest.raises(EncodingError):
        parse(raw)
    with pytest.raises(Malformed):
        verifier_canon.parse(raw)
    assert issubclass(EncodingError, CountermarkError)
