"""C2SP tlog-cosignature: witnesses' keys and what they signed about a checkpoint (docs/spec/pack.md)."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from countermark_verify.canon import sha256
from countermark_verify.crypto import check_key, decode64, signed
from countermark_verify.errors import Malformed
from countermark_verify.notes import COSIGNATURE, Checkpoint

ML_DSA_44 = 6
_KEY_BYTES_ML_DSA = 1_312
_SIGNATURE_BYTES = {COSIGNATURE: 64, ML_DSA_44: 2_420}
_TIME_BYTES = 8
_OPAQUE_BYTES_MAX = 255


@dataclass(frozen=True)
class CosignerKey:
    """A witness's key: Ed25519 (type 4) or ML-DSA-44 (type 6)."""

    name: str
    key_id: bytes
    kind: int
    key: bytes


def parse_cosigner(text: str) -> CosignerKey:
    """`NAME+HEXID+BASE64(type || public key)`; raises `Malformed`."""
    name, _, rest = text.partition("+")
    hex_id, _, encoded = rest.partition("+")
    if not name or not name.isprintable() or any(char.isspace() for char in name):
        raise Malformed("is not a witness's key, written NAME+HEXID+BASE64")
    data = decode64(encoded)
    kind, key = data[0] if data else 0, data[1:]
    if kind == COSIGNATURE:
        check_key(key)
    elif kind != ML_DSA_44 or len(key) != _KEY_BYTES_ML_DSA or len(name.encode()) > _OPAQUE_BYTES_MAX:
        raise Malformed("is not a witness's key of type 4 or 6")
    key_id = sha256(name.encode() + b"\n" + data)[:4]
    if hex_id != key_id.hex():
        raise Malformed("does not have the key ID of its key")
    return CosignerKey(name, key_id, kind, key)


def times(head: Checkpoint, key: CosignerKey) -> list[int] | None:
    """The times (seconds) of this key's lines; None when it has none. Raises `Malformed` when one does not verify."""
    lines = [line.payload for line in head.lines if (line.name, line.key_id) == (key.name, key.key_id)]
    for payload in lines:
        if len(payload) != _TIME_BYTES + _SIGNATURE_BYTES[key.kind] or not _verifies(head, key, payload):
            raise Malformed(f"has a cosignature of {key.name} that does not verify")
    if len(lines) > 1:
        raise Malformed(f"has two lines of {key.name}")
    return [int.from_bytes(payload[:_TIME_BYTES], "big") for payload in lines] or None


def _verifies(head: Checkpoint, key: CosignerKey, payload: bytes) -> bool:
    time, signature = payload[:_TIME_BYTES], payload[_TIME_BYTES:]
    if key.kind == COSIGNATURE:
        message = b"cosignature/v1\ntime %d\n" % int.from_bytes(time, "big") + head.text
        return signed(key.key, signature, message)
    origin = head.origin.encode()
    if len(origin) > _OPAQUE_BYTES_MAX:
        return False
    # struct cosigned_message of tlog-cosignature: label, name, time, origin, first and last of the range, its hash.
    parts = [b"subtree/v1\n\0", _opaque(key.name.encode()), time, _opaque(origin), bytes(8)]
    message = b"".join(parts) + head.size.to_bytes(8, "big") + head.root
    try:
        MLDSA44PublicKey.from_public_bytes(key.key).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _opaque(data: bytes) -> bytes:
    return bytes([len(data)]) + data
