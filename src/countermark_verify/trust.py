"""The auditor's trust file (docs/spec/pack.md): never taken from the pack."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countermark_verify import notes, shape
from countermark_verify.canon import INTEGER_MAX, parse_loose
from countermark_verify.crypto import PASSKEY_CHARS_MAX, decode64, parse_any
from countermark_verify.errors import Malformed, TrustError

TRUST_BYTES_MAX = 256 * 1024**2
HEADS_MAX = 100_000
LEAF_HASHES_MAX = 4_000_000
_KEYS_MAX = 1_000

_ORIGIN = re.compile(r"countermark/([A-Za-z0-9_.-]{1,100})/([A-Za-z0-9_.-]{1,64})", re.ASCII)


@dataclass(frozen=True)
class TrustedHead:
    size: int
    root: bytes
    source: str
    origin: str = ""


@dataclass(frozen=True)
class Witness:
    key: notes.VerifierKey
    operator: str


@dataclass(frozen=True)
class Trust:
    """What the auditor brings: log keys, people's keys, retained heads, witnesses, retained leaf hashes."""

    origin: str
    deployment: str
    log_keys: tuple[notes.VerifierKey, ...]
    people: Mapping[str, tuple[str, ...]]
    heads: tuple[TrustedHead, ...] = ()
    quorum: int = 0
    witnesses: tuple[Witness, ...] = ()
    leaf_from: int = 0
    leaf_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    # Heads of the lanes that this log may be the successor of.
    foreign: tuple[TrustedHead, ...] = ()


_KEY_TEXT = shape.text(chars_max=PASSKEY_CHARS_MAX)
_SHAPE = shape.record(
    {
        "v": shape.const(1),
        "log": shape.record({"origin": shape.text(), "keys": shape.listing(shape.text(chars_max=1_000), _KEYS_MAX)}),
        "people": shape.mapping(
            shape.either(shape.listing(_KEY_TEXT, _KEYS_MAX), _KEY_TEXT),
            count_max=_KEYS_MAX,
        ),
        "heads": shape.listing(
            shape.record(
                {
                    "size": shape.integer(0),
                    "root": shape.text(chars_max=1_000),
                    "source": shape.text(chars_max=1_000),
                    "origin": shape.text(chars_max=300),
                },
                optional=("origin",),
            ),
            HEADS_MAX,
        ),
        "witnesses": shape.record(
            {
                "quorum": shape.integer(1, _KEYS_MAX),
                "keys": shape.listing(
                    shape.record({"key": shape.text(chars_max=1_000), "operator": shape.text(r"\S.{0,99}")}), _KEYS_MAX
                ),
            }
        ),
        "leaf_hashes": shape.record(
            {"from": shape.integer(0), "hashes": shape.listing(shape.text(r"[0-9a-f]{64}"), LEAF_HASHES_MAX)}
        ),
    },
    optional=("people", "heads", "witnesses", "leaf_hashes"),
)


def load_trust(path: str | Path) -> Trust:
    """Read a trust file. Errors: `TrustError` (it is the auditor's own input, so this is a usage error)."""
    try:
        file = Path(path)
        if file.is_dir():
            raise TrustError(f"the trust file cannot be read: {path} is a directory")
        if file.stat().st_size > TRUST_BYTES_MAX:
            raise TrustError(f"the trust file is larger than {TRUST_BYTES_MAX} bytes")
        raw = file.read_bytes()
    except (OSError, ValueError) as error:
        raise TrustError(f"the trust file cannot be read: {error}") from error
    return parse_trust(raw)


def parse_trust(raw: bytes) -> Trust:
    """The trust of a trust file's bytes. Errors: `TrustError`."""
    try:
        document: Any = parse_loose(raw, TRUST_BYTES_MAX)
    except Malformed as error:
        raise TrustError(f"the trust file {error}") from error
    if reason := _SHAPE(document):
        raise TrustError(f"the trust file's member {reason[1:]}" if reason[0] == "." else f"the trust file{reason}")
    origin = document["log"]["origin"]
    named = _ORIGIN.fullmatch(origin)
    if named is None:
        raise TrustError("log.origin is not countermark/DEPLOYMENT/LANE")
    witnesses = document.get("witnesses", {"quorum": 0, "keys": []})
    leaves = document.get("leaf_hashes", {"from": 0, "hashes": []})
    if leaves["from"] + len(leaves["hashes"]) > INTEGER_MAX:
        raise TrustError("leaf_hashes goes beyond the largest log")
    heads = sorted((_head(head, origin) for head in document.get("heads", [])), key=lambda head: head.size)
    return Trust(
        origin=origin,
        deployment=named.group(1),
        log_keys=_log_keys(origin, document["log"]["keys"]),
        people={name: _person(name, keys) for name, keys in document.get("people", {}).items()},
        heads=tuple(head for head in heads if head.origin == origin),
        foreign=tuple(head for head in heads if head.origin != origin),
        quorum=witnesses["quorum"],
        witnesses=tuple(_witness(item) for item in witnesses["keys"]),
        leaf_from=leaves["from"],
        leaf_hashes=tuple(bytes.fromhex(item) for item in leaves["hashes"]),
    )


def _log_keys(origin: str, texts: list[str]) -> tuple[notes.VerifierKey, ...]:
    keys = []
    for text in texts:
        try:
            key = notes.parse_verifier_key(text, notes.ED25519)
        except Malformed as error:
            raise TrustError(f"a log key {error}") from error
        if key.name != origin:
            raise TrustError("a log key is not named like log.origin")
        keys.append(key)
    return tuple(keys)


def _person(name: str, keys: str | list[str]) -> tuple[str, ...]:
    """The keys that a person had, over time."""
    try:
        return tuple(parse_any(text) for text in ([keys] if isinstance(keys, str) else keys))
    except Malformed as error:
        raise TrustError(f"the key of {name} {error}") from error


def _witness(item: dict[str, str]) -> Witness:
    try:
        return Witness(notes.parse_verifier_key(item["key"], notes.COSIGNATURE), item["operator"])
    except Malformed as error:
        raise TrustError(f"the witness key of {item['operator']} {error}") from error


def _head(item: dict[str, Any], origin: str) -> TrustedHead:
    """A retained head; one of another lane says so, and then it is one of the same deployment."""
    named = item.get("origin", origin)
    if named.rpartition("/")[0] != origin.rpartition("/")[0] or _ORIGIN.fullmatch(named) is None:
        raise TrustError(f"the trust file's head of size {item['size']} is of another deployment")
    try:
        root = decode64(item["root"])
    except Malformed:
        root = b""
    if len(root) != 32:
        raise TrustError(f"the trust file's head of size {item['size']}: root must be base64 of 32 bytes")
    return TrustedHead(item["size"], root, item["source"], named)
