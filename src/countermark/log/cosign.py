"""C2SP tlog-cosignature: what a witness says about a checkpoint, in both of its types.

    type 4, Ed25519     8 bytes of time, 64 of signature over "cosignature/v1\\ntime T\\n" and the note's text
    type 6, ML-DSA-44   8 bytes of time, 2420 of signature over name, time, origin, size and root of the checkpoint

The time is in seconds since 1970. Only the second type binds the cosigner's name, and only the first the further lines
that a checkpoint may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from countermark.log.notes import (
    DASH,
    KEY_ID_BYTES,
    Checkpoint,
    b64,
    check_name,
    parse_checkpoint,
    parse_line,
    parse_note,
    unb64,
    utf8,
)
from countermark.model.curve import check_point
from countermark.model.errors import SignatureError

COSIGNATURE = 4  # C2SP signed-note: signature type of a timestamped Ed25519 cosignature
SUBTREE = 6  # C2SP tlog-cosignature: signature type of an ML-DSA-44 cosignature
KEY_BYTES = {COSIGNATURE: 32, SUBTREE: 1_312}
SIGNATURE_BYTES = {COSIGNATURE: 64, SUBTREE: 2_420}
VKEY_CHARS_MAX = 2_048  # an ML-DSA-44 key alone is 1,752 characters
AT_S_MAX = 2**63 - 1
COSIGNED_NAME_BYTES_MAX = 255  # opaque name<1..2^8-1>

_TIME_BYTES = 8
_LABEL = b"subtree/v1\n\0"
_HEX_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A witness's public key: its name, the 4-byte key ID of its lines, the signature type, the key's bytes."""

    name: str
    key_id: bytes
    kind: int
    public: bytes

    @property
    def vkey(self) -> str:
        """``NAME+HEXID+BASE64(type || public key)``."""
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes((self.kind,)) + self.public)}"


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A cosignature that verified. ``at_s`` is 0 when an ML-DSA-44 one says nothing of when, nor of the newest head."""

    key: CosignerKey
    at_s: int
    line: bytes


class Cosigner:
    """A key that cosigns under a name: Ed25519 makes lines of type 4, ML-DSA-44 lines of type 6."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, private: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
        """Raises ``SignatureError`` for a name or a key that cannot be used."""
        kind = COSIGNATURE if isinstance(private, Ed25519PrivateKey) else SUBTREE
        self.key = cosigner_key(name, kind, private.public_key().public_bytes_raw())
        self._private = private

    @property
    def vkey(self) -> str:
        return self.key.vkey

    def cosign(self, text: str, at_s: int) -> bytes:
        """The signature line, with its newline, for the text of a checkpoint. Raises ``SignatureError``."""
        message = _message(self.key, text, parse_checkpoint(text), at_s)
        signature = self._private.sign(message)
        blob = self.key.key_id + at_s.to_bytes(_TIME_BYTES, "big") + signature
        return utf8(f"{DASH}{self.key.name} {b64(blob)}\n")


def cosigner_key(name: str, kind: int, public: bytes) -> CosignerKey:
    """A key of its parts, checked. Raises ``SignatureError``."""
    check_name(name)
    if len(public) != KEY_BYTES.get(kind, -1):
        raise SignatureError("a witness's key is neither 32 bytes of Ed25519 nor 1312 of ML-DSA-44", code="bad_key")
    if kind == COSIGNATURE:
        check_point(public)
    elif len(utf8(name)) > COSIGNED_NAME_BYTES_MAX:
        raise SignatureError(f"a name that ML-DSA-44 signs has at most {COSIGNED_NAME_BYTES_MAX} bytes")
    # C2SP tlog-cosignature: the type's byte is part of the key ID, so one key has another ID for another type.
    key_id = sha256(utf8(name) + b"\n" + bytes((kind,)) + public).digest()[:KEY_ID_BYTES]
    return CosignerKey(name, key_id, kind, public)


def parse_cosigner(text: str) -> CosignerKey:
    """Read a witness's verifier key, of type 4 or 6, in its one form. Raises ``SignatureError``."""
    if type(text) is not str or len(text) > VKEY_CHARS_MAX:
        raise SignatureError("not a verifier key")
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if _HEX_ID.fullmatch(key_id) is None:
        raise SignatureError("not a verifier key", hint="Its form is NAME+HEXID+BASE64.")
    raw = unb64(encoded)
    if raw[:1] not in (b"\x04", b"\x06"):
        raise SignatureError("a verifier key is not a witness's: its type is neither 4 nor 6")
    key = cosigner_key(name, raw[0], raw[1:])
    if key.vkey != text:
        raise SignatureError("a verifier key's ID does not fit its name and key")
    return key


def read_cosignatures(note: bytes, keys: Iterable[CosignerKey]) -> tuple[Cosignature, ...]:
    """The cosignatures of the given keys on a checkpoint, in the order of its lines, each verified.

    Lines of other keys are ignored, as C2SP asks. Whether the log itself signed is ``open_checkpoint``'s to say.

    Raises:
        SignatureError: the note is no checkpoint, or a line of a given key does not verify or stands twice.
    """
    known: dict[tuple[str, bytes], CosignerKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise SignatureError("two verifier keys share a name and a key ID")
    text, lines = parse_note(note)
    head = parse_checkpoint(text)
    found: dict[CosignerKey, Cosignature] = {}
    for name, blob in lines:
        signer = known.get((name, blob[:KEY_ID_BYTES]))
        if signer is None:
            continue
        if signer in found:
            raise SignatureError("a note carries two lines of one key")
        at_s = _verify(signer, text, head, blob[KEY_ID_BYTES:])
        found[signer] = Cosignature(signer, at_s, utf8(f"{DASH}{name} {b64(blob)}\n"))
    return tuple(found.values())


def with_lines(note: bytes, lines: Sequence[bytes]) -> bytes:
    """The note with further signature lines at its end; each must be one line with its newline.

    Raises:
        SignatureError: what comes of it is not a note in its one form.
    """
    whole = note + b"".join(lines)
    text, found = parse_note(whole)
    if (text, len(found)) != (parse_note(note)[0], len(parse_note(note)[1]) + len(lines)):
        raise SignatureError("what was added to a note is not signature lines")
    return whole


def cosigned(note: bytes, cosigner: Cosigner, at_s: int) -> bytes:
    """A checkpoint's note with one more line, by this cosigner. Raises ``SignatureError``."""
    return with_lines(note, [cosigner.cosign(parse_note(note)[0], at_s)])


def split_lines(raw: bytes, count_max: int) -> tuple[bytes, ...]:
    """A witness's answer: one or more signature lines, each in its one form. Raises ``SignatureError``."""
    try:
        rows = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise SignatureError("signature lines are not UTF-8") from None
    if rows[-1] or not 2 <= len(rows) <= count_max + 1:
        raise SignatureError("an answer holds no signature line, or too many, or does not end with a newline")
    lines = []
    for row in rows[:-1]:
        name, blob = parse_line(row)
        if f"{DASH}{name} {b64(blob)}" != row:
            raise SignatureError("a signature line is not in its one form")
        lines.append(utf8(f"{row}\n"))
    return tuple(lines)


def _message(key: CosignerKey, text: str, head: Checkpoint, at_s: int) -> bytes:
    """What a cosigner signs. Raises ``SignatureError`` for a time or an origin that has no such form."""
    if type(at_s) is not int or not 0 <= at_s <= AT_S_MAX:
        raise SignatureError("a cosignature's time is out of bounds")
    if key.kind == COSIGNATURE:
        return b"cosignature/v1\ntime %d\n" % at_s + utf8(text)
    origin, name = utf8(head.origin), utf8(key.name)
    if len(origin) > COSIGNED_NAME_BYTES_MAX:
        raise SignatureError(f"an origin that ML-DSA-44 signs has at most {COSIGNED_NAME_BYTES_MAX} bytes")
    # struct cosigned_message; for a checkpoint the subtree begins at 0 and ends at the tree's size.
    times = at_s.to_bytes(_TIME_BYTES, "big")
    span = (0).to_bytes(8, "big") + head.size.to_bytes(8, "big")
    return _LABEL + _opaque(name) + times + _opaque(origin) + span + head.root


def _opaque(raw: bytes) -> bytes:
    """RFC 8446 section 3.4: a vector of at most 255 bytes, after its length."""
    return bytes((len(raw),)) + raw


def _verify(key: CosignerKey, text: str, head: Checkpoint, payload: bytes) -> int:
    if len(payload) != _TIME_BYTES + SIGNATURE_BYTES[key.kind]:
        raise SignatureError(f"a cosignature of {key.name} has another length than its type")
    at_s = int.from_bytes(payload[:_TIME_BYTES], "big")
    message, signature = _message(key, text, head, at_s), payload[_TIME_BYTES:]
    try:
        if key.kind == COSIGNATURE:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
        else:
            MLDSA44PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        raise SignatureError(f"the cosignature of {key.name} does not verify") from None
    return at_s
