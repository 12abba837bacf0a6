"""C2SP signed-note and tlog-checkpoint: the signed head of a log.

    countermark/acme/l0
    1234
    BASE64 ROOT

    — countermark/acme/l0 BASE64(key ID || signature)

One value has one encoding: what was parsed is rendered again and compared.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from countermark.log.tree import HASH_BYTES
from countermark.model.curve import check_point
from countermark.model.errors import SignatureError

NOTE_BYTES_MAX = 65_536  # room for SIGNATURES_MAX lines even when some are ML-DSA-44 (3.3 kB each)
SIGNATURES_MAX = 64
EXTENSIONS_MAX = 16
KEY_NAME_CHARS_MAX = 200
VKEY_CHARS_MAX = 400
SIZE_MAX = 2**63 - 1  # C2SP tlog-checkpoint: a size fits a signed 64-bit integer

_ED25519 = b"\x01"  # C2SP signed-note: signature type of Ed25519 over the note's text
_ED25519_KEY_BYTES = 32
KEY_ID_BYTES = 4
DASH = "— "  # em dash and space open a signature line
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's public key: its name, the 4-byte key ID that signature lines carry, and the 32 Ed25519 bytes."""

    name: str
    key_id: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head. ``extensions`` are the further lines that C2SP allows; they are signed, kept and not read."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def render(self) -> bytes:
        """The text that is signed. Raises ``SignatureError`` for a value that has no such form."""
        lines = (self.origin, *self.extensions)
        if any(not line or "\n" in line or _CONTROL.search(line) for line in lines):
            raise SignatureError("a checkpoint's line is empty or holds control characters")
        if not 0 <= self.size <= SIZE_MAX or len(self.root) != HASH_BYTES or len(self.extensions) > EXTENSIONS_MAX:
            raise SignatureError("a checkpoint's size, root or number of lines is out of bounds")
        head = f"{self.origin}\n{self.size}\n{b64(self.root)}\n"
        return utf8(head + "".join(f"{line}\n" for line in self.extensions))


class LogSigner:
    """A log's signing key under its name, which is the log's origin.

    ``following`` is the key that a rotation hands over to, or may; ``retired`` are verifier keys of earlier ones.
    """

    __slots__ = ("_line", "_origin", "_private", "following", "key_id", "name", "retired", "vkey")

    def __init__(
        self, name: str, private_key: Ed25519PrivateKey, *, following: LogSigner | None = None,
        retired: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.following = following
        self.retired = retired
        public = private_key.public_key().public_bytes_raw()
        self.name = name
        self.vkey = vkey(name, public)
        self.key_id = _key_id(name, public)
        self._private = private_key
        # Both ends of every note are known beforehand: a head is signed with each commit.
        self._origin = name.encode("utf-8") + b"\n"
        self._line = f"\n{DASH}{name} ".encode()

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature."""
        return self._private.sign(message)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """Every key that signs, or signed, heads of this log: for reading them."""
        following = () if self.following is None else (self.following.vkey,)
        return (self.vkey, *following, *self.retired)

    def holds(self, key: str) -> LogSigner | None:
        """The signer of a verifier key, if it is this one or the following."""
        return next((one for one in (self, self.following) if one is not None and one.vkey == key), None)

    def of_head(self, note: bytes) -> LogSigner:
        """The newest of the two signers whose line a head of this log has; this one for a head of an earlier key."""
        following = self.following
        if following is not None:
            line = f"\n{DASH}{following.name} {b64(following.key_id)[:5]}".encode()  # 30 bits of the key's 32
            if line in note:
                return following
        return self

    def sign_checkpoint(self, size: int, root: bytes, also: LogSigner | None = None) -> bytes:
        """The signed note of a head: no validation, because the lane calls it with what its own tree says.

        ``also``: a second key of the log, for the overlap of a rotation.
        """
        text = b"%s%d\n%s\n" % (self._origin, size, base64.b64encode(root))
        note = text + self._line + base64.b64encode(self.key_id + self._private.sign(text)) + b"\n"
        if also is not None:
            note += also._line[1:] + base64.b64encode(also.key_id + also._private.sign(text)) + b"\n"
        return note


def sign_checkpoint(signer: LogSigner, size: int, root: bytes) -> bytes:
    """Sign the head of a log of ``size`` leaves: the note's bytes, with one Ed25519 line."""
    return signer.sign_checkpoint(size, root)


def vkey(name: str, public: bytes) -> str:
    """Write an Ed25519 verifier key: ``NAME+HEXID+BASE64(0x01 || public key)``."""
    check_name(name)
    if len(public) != _ED25519_KEY_BYTES:
        raise SignatureError("an Ed25519 public key has 32 bytes")
    return f"{name}+{_key_id(name, public).hex()}+{b64(_ED25519 + public)}"


def parse_vkey(text: str) -> VerifierKey:
    """Read a log's verifier key (signature type 1). Raises ``SignatureError`` for anything else."""
    if type(text) is not str or len(text) > VKEY_CHARS_MAX:
        raise SignatureError("not a verifier key")
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    if _KEY_ID.fullmatch(key_id) is None:
        raise SignatureError("not a verifier key", hint="Its form is NAME+HEXID+BASE64.")
    raw = unb64(encoded)
    if raw[:1] != _ED25519:
        raise SignatureError("a verifier key is not of type Ed25519")
    if vkey(name, raw[1:]) != text:
        raise SignatureError("a verifier key's ID does not fit its name and key")
    check_point(raw[1:])
    return VerifierKey(name, bytes.fromhex(key_id), raw[1:])


def open_note(raw: bytes, vkeys: Iterable[str]) -> tuple[str, frozenset[str]]:
    """Check a signed note: its text, and the names of the given keys that signed it.

    Lines of keys that are not given are ignored, as C2SP asks; a line of a given key must verify.

    Raises:
        SignatureError: the note is not well-formed, a given key's line does not verify or stands twice, or none of the
            given keys signed it.
    """
    known = _known(vkeys)
    text, lines = parse_note(raw)
    message = utf8(text)
    signed: set[tuple[str, bytes]] = set()
    for name, blob in lines:
        key = known.get((name, blob[:KEY_ID_BYTES]))
        if key is None:
            continue
        if (name, key.key_id) in signed:
            raise SignatureError("a note carries two lines of one key")
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(blob[KEY_ID_BYTES:], message)
        except (InvalidSignature, ValueError):
            raise SignatureError(f"the signature of {name} does not verify") from None
        signed.add((name, key.key_id))
    if not signed:
        raise SignatureError("a note is not signed by any known key")
    return text, frozenset(name for name, _ in signed)


def open_checkpoint(raw: bytes, vkeys: Iterable[str]) -> Checkpoint:
    """Check a signed head against a log's verifier keys.

    Raises:
        SignatureError: as ``open_note``; or the text is no checkpoint in its one form; or no key named like the origin
            signed it, so that one log's key never vouches for another's head.
    """
    text, names = open_note(raw, vkeys)
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin not in names:
        raise SignatureError("a checkpoint is not signed by the log that it names")
    return checkpoint


def read_checkpoint(raw: bytes) -> Checkpoint:
    """What a signed head says, with none of its signatures looked at. Raises ``SignatureError``."""
    return parse_checkpoint(parse_note(raw)[0])


def _known(vkeys: Iterable[str]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for text in vkeys:
        key = parse_vkey(text)
        if known.setdefault((key.name, key.key_id), key) != key:
            raise SignatureError("two verifier keys share a name and a key ID")
    return known


def parse_note(raw: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """A note's text and its signature lines (name; key ID and signature), unverified. Raises ``SignatureError``."""
    if len(raw) > NOTE_BYTES_MAX:
        raise SignatureError(f"a note is longer than {NOTE_BYTES_MAX} bytes")
    try:
        note = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise SignatureError("a note is not UTF-8") from None
    # The signatures follow the last empty line; the text before it keeps its own newline.
    body, gap, tail = note.rpartition("\n\n")
    if _CONTROL.search(note) or not body or not gap or not tail.endswith("\n"):
        raise SignatureError("not a signed note")
    rows = tail[:-1].split("\n")
    if len(rows) > SIGNATURES_MAX:
        raise SignatureError(f"a note carries more than {SIGNATURES_MAX} signatures")
    lines = [parse_line(row) for row in rows]
    again = "".join(f"{DASH}{name} {b64(blob)}\n" for name, blob in lines)
    if f"{body}\n\n{again}" != note:
        raise SignatureError("a note is not in its one form")
    return f"{body}\n", lines


def parse_line(row: str) -> tuple[str, bytes]:
    """A signature line without its newline: the name; the key ID with what follows. Raises ``SignatureError``."""
    if not row.startswith(DASH):
        raise SignatureError("a signature line does not start with a dash")
    name, _, encoded = row[len(DASH) :].partition(" ")
    check_name(name)
    blob = unb64(encoded)
    if len(blob) <= KEY_ID_BYTES:
        raise SignatureError("a signature line is too short")
    return name, blob


def parse_checkpoint(text: str) -> Checkpoint:
    """The head that a note's text says, unverified. Raises ``SignatureError``."""
    lines = text.split("\n")[:-1]
    if len(lines) < 3 or _SIZE.fullmatch(lines[1]) is None:
        raise SignatureError("a note is not a checkpoint")
    checkpoint = Checkpoint(lines[0], int(lines[1]), unb64(lines[2]), tuple(lines[3:]))
    if checkpoint.render() != utf8(text):
        raise SignatureError("a checkpoint is not in its one form")
    return checkpoint


def check_name(name: str) -> None:
    """C2SP signed-note: a key name is not empty and holds neither a Unicode space nor a plus."""
    bad = not name or len(name) > KEY_NAME_CHARS_MAX or "+" in name or _CONTROL.search(name)
    if bad or any(ch.isspace() for ch in name):
        raise SignatureError("a key name is empty, too long, or holds a space, a plus or a control character")
    utf8(name)


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode("utf-8") + b"\n" + _ED25519 + public).digest()[:KEY_ID_BYTES]


def utf8(text: str) -> bytes:
    """Raises ``SignatureError`` for text that has no such form."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise SignatureError("a note holds a lone surrogate") from None


def b64(raw: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(raw).decode("ascii")


def unb64(text: str) -> bytes:
    """Standard base64 in its one form. Raises ``SignatureError``."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureError("not base64") from None
    if b64(raw) != text:
        raise SignatureError("base64 is not in its one form")
    return raw
