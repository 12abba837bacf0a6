"""C2SP signed notes, checkpoints, cosignatures and verifier keys (docs/spec/pack.md)."""

import base64
import re
from dataclasses import dataclass

from countermark_verify.canon import INTEGER_MAX, sha256
from countermark_verify.crypto import check_key, decode64, signed
from countermark_verify.errors import Malformed

NOTE_BYTES_MAX = 1024**2
SIGNATURES_MAX = 64
ED25519 = 1  # note signature type of a log
COSIGNATURE = 4  # cosignature/v1 of a witness
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_NAME = re.compile(r"[^\s+\x00-\x20\x7f]{1,200}")


@dataclass(frozen=True)
class VerifierKey:
    """`NAME+HEXID+BASE64(type || public key)`; the key ID is derived again and compared."""

    name: str
    key_id: bytes
    kind: int
    key: bytes
    text: str


@dataclass(frozen=True)
class SignatureLine:
    name: str
    key_id: bytes
    payload: bytes


@dataclass(frozen=True)
class Checkpoint:
    text: bytes
    origin: str
    size: int
    root: bytes
    lines: tuple[SignatureLine, ...]


def parse_verifier_key(text: str, kind: int) -> VerifierKey:
    parts = text.split("+", 2)
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
        raise Malformed("is not written NAME+HEXID+BASE64")
    name, hex_id, encoded = parts
    data = decode64(encoded)
    if not data or data[0] != kind:
        raise Malformed(f"is not a verifier key of type {kind}")
    key = check_key(data[1:])
    key_id = sha256(name.encode() + b"\n" + data)[:4]
    if hex_id != key_id.hex():
        raise Malformed("does not have the key ID of its key")
    return VerifierKey(name, key_id, kind, key, text)


def verifier_key(name: str, key: bytes) -> VerifierKey:
    """The key of a log by that name."""
    data = bytes([ED25519]) + key
    key_id = sha256(name.encode() + b"\n" + data)[:4]
    return VerifierKey(name, key_id, ED25519, key, f"{name}+{key_id.hex()}+{base64.b64encode(data).decode()}")


def parse_checkpoint(raw: bytes) -> Checkpoint:
    """A note of exactly origin, size and root; then at least one signature line."""
    if len(raw) > NOTE_BYTES_MAX:
        raise Malformed(f"is longer than {NOTE_BYTES_MAX} bytes")
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("is not UTF-8") from error
    head, mark, tail = whole.partition("\n\n")
    body = head.split("\n")
    if not mark or len(body) != 3:
        raise Malformed("is not origin, size and root, an empty line and signatures")
    origin, size_text, root_text = body
    if not _NAME.fullmatch(origin) or not _SIZE.fullmatch(size_text) or int(size_text) > INTEGER_MAX:
        raise Malformed("has an ill-formed origin or size")
    root = decode64(root_text)
    if len(root) != 32:
        raise Malformed("has a root that is not 32 bytes")
    lines = tail.split("\n")
    if lines[-1] != "" or not 2 <= len(lines) <= SIGNATURES_MAX + 1:
        raise Malformed("has no signature lines, too many, or no final newline")
    parsed = tuple(_signature_line(line) for line in lines[:-1])
    return Checkpoint((head + "\n").encode(), origin, int(size_text), root, parsed)


def _signature_line(line: str) -> SignatureLine:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "\N{EM DASH}" or not _NAME.fullmatch(parts[1]):
        raise Malformed("has an ill-formed signature line")
    data = decode64(parts[2])
    if len(data) < 5:
        raise Malformed("has a signature line without a signature")
    return SignatureLine(parts[1], data[:4], data[4:])


def log_signed(checkpoint: Checkpoint, key: VerifierKey) -> bool | None:
    """None when the checkpoint has no line of this key."""
    found = [line for line in checkpoint.lines if (line.name, line.key_id) == (key.name, key.key_id)]
    if not found:
        return None
    return all(signed(key.key, line.payload, checkpoint.text) for line in found)
