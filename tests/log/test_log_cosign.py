"""Cosignatures of witnesses: their bytes as the specification writes them, and one refusal for each way to be wrong."""

from __future__ import annotations

import base64
import struct
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.log import (
    Cosigner,
    LogSigner,
    cosigner_key,
    leaf_hash,
    open_checkpoint,
    parse_cosigner,
    parse_vkey,
    read_cosignatures,
    sign_checkpoint,
    split_lines,
    vkey,
    with_lines,
)
from countermark.model.curve import SMALL_ORDER
from countermark.model.errors import CountermarkError, SignatureError

ORIGIN = "countermark/acme/l0"
ROOT = leaf_hash(b"root")
LOG = LogSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1"))
NOTE = sign_checkpoint(LOG, 1234, ROOT)
TEXT = NOTE.partition(b"\n\n")[0].decode() + "\n"
ED = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\2")
ML = MLDSA44PrivateKey.from_seed_bytes(bytes(31) + b"\3")
CLASSIC = Cosigner("bank.example/w1", ED)
LATTICE = Cosigner("regulator.example", ML)
AT_S = 1_790_000_000


def blob_of(line: bytes) -> bytes:
    return base64.b64decode(line.rstrip(b"\n").rpartition(b" ")[2])


def test_an_ed25519_cosignature_has_exactly_these_bytes() -> None:
    """Key ID over type 4, eight bytes of time, and a signature over two lines and the note's text."""
    line = CLASSIC.cosign(TEXT, AT_S)
    assert line.startswith("— bank.example/w1 ".encode())
    blob = blob_of(line)
    public = ED.public_key().public_bytes_raw()
    assert blob[:4] == sha256(b"bank.example/w1\n\x04" + public).digest()[:4]
    assert blob[4:12] == struct.pack(">Q", AT_S)
    ED.public_key().verify(blob[12:], b"cosignature/v1\ntime 1790000000\n" + TEXT.encode())
    assert len(blob) == 76


def test_an_ml_dsa_44_cosignature_has_exactly_these_bytes() -> None:
    """Key ID over type 6, eight bytes of time, and a signature over name, time, origin, 0, size and root."""
    blob = blob_of(LATTICE.cosign(TEXT, AT_S))
    public = ML.public_key().public_bytes_raw()
    assert blob[:4] == sha256(b"regulator.example\n\x06" + public).digest()[:4]
    message = b"subtree/v1\n\x00" + b"\x11regulator.example" + struct.pack(">Q", AT_S)
    message += b"\x13" + ORIGIN.encode() + struct.pack(">QQ", 0, 1234) + ROOT
    ML.public_key().verify(blob[12:], message)
    assert len(blob) == 4 + 8 + 2420


@pytest.mark.parametrize("one", [CLASSIC, LATTICE])
def test_a_cosigned_head_still_opens_as_the_logs_own(one: Cosigner) -> None:
    """A witness's line beside the log's does not disturb who only knows the log, and is found by who knows both."""
    note = with_lines(NOTE, [one.cosign(TEXT, AT_S)])
    assert open_checkpoint(note, [LOG.vkey]).size == 1234
    (found,) = read_cosignatures(note, [one.key])
    assert (found.key, found.at_s) == (one.key, AT_S)
    assert with_lines(NOTE, [found.line]) == note
    assert parse_cosigner(one.vkey) == one.key


def test_lines_of_unknown_keys_are_ignored() -> None:
    """Somebody else's cosignature neither helps nor harms, not even one with a known name."""
    namesake = Cosigner("bank.example/w1", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\4"))
    note = with_lines(NOTE, [namesake.cosign(TEXT, AT_S), LATTICE.cosign(TEXT, AT_S)])
    assert read_cosignatures(note, [CLASSIC.key]) == ()
    assert [one.key for one in read_cosignatures(note, [CLASSIC.key, LATTICE.key])] == [LATTICE.key]


@pytest.mark.parametrize("one", [CLASSIC, LATTICE])
def test_a_cosignature_of_other_bytes_does_not_verify(one: Cosigner) -> None:
    """Another head, another time, another length, a flipped bit, a line twice: each refuses the note."""
    other = sign_checkpoint(LOG, 1235, ROOT)
    right = one.cosign(TEXT, AT_S)
    blob = blob_of(right)
    prefix = right[: right.rindex(b" ") + 1]
    later = blob[:4] + struct.pack(">Q", AT_S + 1) + blob[12:]
    flipped = blob[:-1] + bytes((blob[-1] ^ 1,))
    beyond = blob[:4] + b"\xff" * 8 + blob[12:]
    wrong = [later, flipped, blob[:-1], blob + b"\0", blob[:11], beyond]
    notes = [with_lines(NOTE, [prefix + base64.b64encode(bad) + b"\n"]) for bad in wrong]
    for note in (*notes, with_lines(other, [right]), with_lines(NOTE, [right, right])):
        with pytest.raises(SignatureError):
            read_cosignatures(note, [one.key])


def test_only_the_lattice_type_binds_the_name() -> None:
    """The Ed25519 message has no name in it, which is why one key must not serve two witnesses."""
    for private, same in ((ED, True), (ML, False)):
        a, b = Cosigner("a", private), Cosigner("b", private)
        blob = blob_of(a.cosign(TEXT, AT_S))
        line = "— b ".encode() + base64.b64encode(b.key.key_id + blob[4:]) + b"\n"
        if same:
            assert len(read_cosignatures(with_lines(NOTE, [line]), [b.key])) == 1
        else:
            with pytest.raises(SignatureError):
                read_cosignatures(with_lines(NOTE, [line]), [b.key])


def test_a_logs_key_is_no_witnesses_key_and_the_other_way_round() -> None:
    """The type is in the key's text and in its ID, so that neither stands in for the other."""
    with pytest.raises(SignatureError, match="neither 4 nor 6"):
        parse_cosigner(LOG.vkey)
    with pytest.raises(SignatureError, match="not of type Ed25519"):
        parse_vkey(CLASSIC.vkey)


@pytest.mark.parametrize("raw", sorted(SMALL_ORDER))
def test_keys_of_small_order_are_refused(raw: bytes) -> None:
    """A key under which anybody's signature fits is neither a log's nor a witness's."""
    text = f"w+{sha256(b'w' + chr(10).encode() + bytes((4,)) + raw).digest()[:4].hex()}+"
    with pytest.raises(SignatureError) as refused:
        parse_cosigner(text + base64.b64encode(b"\x04" + raw).decode())
    assert refused.value.code == "bad_key"
    with pytest.raises(SignatureError) as refused:
        parse_vkey(vkey("log", raw))
    assert refused.value.code == "bad_key"


@pytest.mark.parametrize(
    ("name", "kind", "public"),
    [
        ("w", 4, bytes(31)), ("w", 6, bytes(1311)), ("w", 1, bytes(32)), ("w", 5, bytes(32)), ("", 6, bytes(1312)),
        ("a b", 6, bytes(1312)), ("a+b", 6, bytes(1312)), ("é" * 128, 6, bytes(1312)),
    ],
)  # fmt: skip
def test_keys_of_other_forms_are_refused(name: str, kind: int, public: bytes) -> None:
    """Wrong lengths and types, and names that have no place in a signed line or message."""
    with pytest.raises(SignatureError):
        cosigner_key(name, kind, public)


def test_an_answer_is_signature_lines_and_nothing_else() -> None:
    """A witness's answer is split strictly: bounded, newline at the end, each line in its one form."""
    line, other = CLASSIC.cosign(TEXT, AT_S), LATTICE.cosign(TEXT, AT_S)
    assert split_lines(line + other, 2) == (line, other)
    for bad in (b"", b"\n", line[:-1], line + b"\n", line * 3, b"\xff" + line, line.replace(b"=\n", b"\n"), b"hello\n"):
        with pytest.raises(SignatureError):
            split_lines(bad, 2)


def test_what_is_added_to_a_note_stays_after_its_text() -> None:
    """Lines that would move the border between text and signatures are refused."""
    line = CLASSIC.cosign(TEXT, AT_S)
    for bad in (b"\n" + line, line[:-1], line + line, b"x\n"):
        with pytest.raises(SignatureError):
            with_lines(NOTE, [bad])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", NOTE[:-1], NOTE]))
def test_foreign_bytes_raise_only_our_error(raw: bytes, before: bytes) -> None:
    """Whatever a witness answers, nothing but our own error comes out."""
    calls = (
        lambda: split_lines(raw, 4),
        lambda: read_cosignatures(before + raw, [CLASSIC.key]),
        lambda: with_lines(before, [raw]),
        lambda: parse_cosigner(raw.decode("latin-1")),
    )
    for call in calls:
        try:
            call()
        except CountermarkError:
            pass
