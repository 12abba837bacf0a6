"""The auditor's trust file (docs/spec/pack.md): never taken from the pack."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm

from countermark_verify import notes, shape
from countermark_verify.canon import INTEGER_MAX, parse_loose
from countermark_verify.cosigned import ML_DSA_44, CosignerKey, parse_cosigner
from countermark_verify.crypto import PASSKEY_CHARS_MAX, decode64, parse_any
from countermark_verify.errors import Malformed, TrustError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

TRUST_BYTES_MAX = 256 * 1024**2
HEADS_MAX = 100_000
LEAF_HASHES_MAX = 4_000_000
_KEYS_MAX = 1_000
STAMPS_MAX = 16
CERTIFICATES_MAX = 8  # of one authority: a root and what lies between it and the signer
_CHAINS_MAX = 100

_ORIGIN = re.compile(r"countermark/([A-Za-z0-9_.-]{1,100})/([A-Za-z0-9_.-]{1,64})", re.ASCII)


@dataclass(frozen=True)
class TrustedHead:
    size: int
    root: bytes
    source: str
    origin: str = ""
    at: int = 0  # when the auditor took it, microseconds; 0 where it is not said
    # The auditor verified the whole log up to this head.
    verified: bool = False


@dataclass(frozen=True)
class Witness:
    key: CosignerKey
    operator: str


@dataclass(frozen=True)
class Stamp:
    """An authority of time: its tokens must lead to these certificates. `own`: the deployment runs it itself."""

    certificates: "tuple[Certificate, ...]"
    operator: str
    own: bool


@dataclass(frozen=True)
class Chain:
    """A chain as the auditor knows it: blocks by number, and the anchor contract with its owner, or two empty texts."""

    chain_id: int
    blocks: Mapping[int, bytes]
    contract: str = ""
    owner: str = ""


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
    stamps: tuple[Stamp, ...] = ()
    # Keys that others may have, and since when (microseconds): log keys as verifier keys, others as their text.
    compromised: tuple[tuple[str, int], ...] = ()
    second_keys: tuple[CosignerKey, ...] = ()  # the log's keys by ML-DSA-44
    chains: tuple[Chain, ...] = ()

    def chain(self, chain_id: int) -> Chain | None:
        return next((chain for chain in self.chains if chain.chain_id == chain_id), None)


_ADDRESS = shape.text(r"0x[0-9a-fA-F]{40}")
_CHAIN = shape.record(
    {
        "chain_id": shape.integer(1),
        "blocks": shape.listing(
            shape.record({"number": shape.integer(0), "hash": shape.text(r"[0-9a-f]{64}")}), HEADS_MAX
        ),
        "anchor": shape.record({"contract": _ADDRESS, "owner": _ADDRESS}),
    },
    optional=("anchor",),
)
_KEY_TEXT = shape.text(chars_max=PASSKEY_CHARS_MAX)
_SHAPE = shape.record(
    {
        "v": shape.const(1),
        "log": shape.record({"origin": shape.text(), "keys": shape.listing(shape.text(chars_max=2_048), _KEYS_MAX)}),
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
                    "at": shape.integer(1),
                    "verified": shape.boolean,
                },
                optional=("origin", "at", "verified"),
            ),
            HEADS_MAX,
        ),
        "witnesses": shape.record(
            {
                "quorum": shape.integer(1, _KEYS_MAX),
                "keys": shape.listing(
                    shape.record({"key": shape.text(chars_max=2_100), "operator": shape.text(r"\S.{0,99}")}), _KEYS_MAX
                ),
            }
        ),
        "compromised": shape.listing(
            shape.record({"key": shape.text(chars_max=1_000), "since": shape.integer(0)}), _KEYS_MAX
        ),
        "leaf_hashes": shape.record(
            {"from": shape.integer(0), "hashes": shape.listing(shape.text(r"[0-9a-f]{64}"), LEAF_HASHES_MAX)}
        ),
        "stamps": shape.listing(
            shape.record({"certificate": shape.text(), "operator": shape.text(r"\S.{0,99}")}), STAMPS_MAX
        ),
        "chains": shape.listing(_CHAIN, _CHAINS_MAX),
    },
    optional=("people", "heads", "witnesses", "leaf_hashes", "stamps", "compromised", "chains"),
)


def load_trust(path: str | Path) -> Trust:
    """Read a trust file. Errors: `TrustError` (it is the auditor's own input, so this is a usage error); it names the
    file, and the line where it ceases to be JSON, or else the member.
    """
    try:
        file = Path(path)
        if file.is_dir():
            raise TrustError(f"the trust file cannot be read: {path} is a directory")
        if file.stat().st_size > TRUST_BYTES_MAX:
            raise TrustError(f"the trust file is larger than {TRUST_BYTES_MAX} bytes")
        raw = file.read_bytes()
    except (OSError, ValueError) as error:
        raise TrustError(f"the trust file cannot be read: {error}") from error
    try:
        return parse_trust(raw)
    except TrustError as error:
        raise TrustError(f"{path}: {error}") from error


def parse_trust(raw: bytes) -> Trust:
    """The trust of a trust file's bytes. Errors: `TrustError`."""
    try:
        document: Any = parse_loose(raw, TRUST_BYTES_MAX)
    except Malformed as error:
        raise TrustError(f"the trust file {error}{_line(raw, error.__cause__)}") from error
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
    keys = list(enumerate(document["log"]["keys"]))
    heads = sorted((_head(head, origin) for head in document.get("heads", [])), key=lambda head: head.size)
    return Trust(
        origin=origin,
        deployment=named.group(1),
        log_keys=_log_keys(origin, keys),
        second_keys=_second_keys(origin, keys),
        people={name: _person(name, keys) for name, keys in document.get("people", {}).items()},
        # A head of no records agrees with every log.
        heads=tuple(head for head in heads if head.origin == origin and head.size),
        foreign=tuple(head for head in heads if head.origin != origin),
        chains=_chains(document.get("chains", [])),
        quorum=witnesses["quorum"],
        witnesses=tuple(_witness(item, number) for number, item in enumerate(witnesses["keys"])),
        compromised=tuple((item["key"], item["since"]) for item in document.get("compromised", [])),
        leaf_from=leaves["from"],
        leaf_hashes=tuple(bytes.fromhex(item) for item in leaves["hashes"]),
        stamps=tuple(_stamp(item, number, named.group(1)) for number, item in enumerate(document.get("stamps", []))),
    )


def _line(raw: bytes, error: BaseException | None) -> str:
    """Where a text ceases to be JSON, or UTF-8; nothing where that is not known."""
    if isinstance(error, json.JSONDecodeError):
        return f": line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return f": line {raw.count(bytes([10]), 0, error.start) + 1}"
    return ""


def _stamp(item: dict[str, str], number: int, deployment: str) -> Stamp:
    where = f"stamps[{number}] ({item['operator']})"
    # Slow to load, and of use only to who trusts a time stamp authority.
    from cryptography.x509 import load_pem_x509_certificates

    try:
        certificates = tuple(load_pem_x509_certificates(item["certificate"].encode("ascii")))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(f"{where}: not PEM") from error
    if len(certificates) > CERTIFICATES_MAX:
        raise TrustError(f"{where}: more than {CERTIFICATES_MAX} certificates")
    return Stamp(certificates, item["operator"], item["operator"].casefold() == deployment.casefold())


def _log_keys(origin: str, texts: list[tuple[int, str]]) -> tuple[notes.VerifierKey, ...]:
    keys = []
    for number, text in texts:
        if _is_second(text):
            continue
        try:
            key = notes.parse_verifier_key(text, notes.ED25519)
        except Malformed as error:
            raise TrustError(f"log.keys[{number}] {error}") from error
        if key.name != origin:
            raise TrustError(f"log.keys[{number}] is not named like log.origin")
        keys.append(key)
    return tuple(keys)


def _is_second(text: str) -> bool:
    return text.split("+", 2)[-1].startswith("B")  # base64 of a first byte 4 to 7; one of 1 begins with A


def _second_keys(origin: str, texts: list[tuple[int, str]]) -> tuple[CosignerKey, ...]:
    keys = []
    for number, text in texts:
        if not _is_second(text):
            continue
        try:
            key = parse_cosigner(text)
        except Malformed as error:
            raise TrustError(f"log.keys[{number}] {error}") from error
        if key.name != origin or key.kind != ML_DSA_44:
            raise TrustError(f"log.keys[{number}] is not named like log.origin, or not of type 1 or 6")
        keys.append(key)
    return tuple(keys)


def _chains(items: list[dict[str, Any]]) -> tuple[Chain, ...]:
    chains: list[Chain] = []
    for item in items:
        blocks = {block["number"]: bytes.fromhex(block["hash"]) for block in item["blocks"]}
        if len(blocks) != len(item["blocks"]) or any(chain.chain_id == item["chain_id"] for chain in chains):
            raise TrustError("chains names a chain, or a block of one, twice")
        anchor = item.get("anchor", {"contract": "", "owner": ""})
        chains.append(Chain(item["chain_id"], blocks, anchor["contract"].lower(), anchor["owner"].lower()))
    return tuple(chains)


def _person(name: str, keys: str | list[str]) -> tuple[str, ...]:
    """The keys that a person had, over time."""
    found = []
    for number, text in enumerate([keys] if isinstance(keys, str) else keys):
        try:
            found.append(parse_any(text))
        except Malformed as error:
            where = f"people.{name}" + ("" if isinstance(keys, str) else f"[{number}]")
            raise TrustError(f"{where} {error}") from error
    return tuple(found)


def _witness(item: dict[str, str], number: int) -> Witness:
    try:
        return Witness(parse_cosigner(item["key"]), item["operator"])
    except Malformed as error:
        raise TrustError(f"witnesses.keys[{number}] ({item['operator']}) {error}") from error


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
    return TrustedHead(item["size"], root, item["source"], named, item.get("at", 0), item.get("verified", False))
