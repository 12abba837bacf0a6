"""The pack's manifest: a Sigstore bundle around a DSSE envelope around an in-toto statement (docs/spec/pack.md)."""

from dataclasses import dataclass
from typing import Any

from countermark_verify import canon
from countermark_verify.container import MANIFEST_BYTES_MAX, MEMBERS_MAX
from countermark_verify.crypto import decode64
from countermark_verify.errors import Malformed
from countermark_verify.scope import SCOPE
from countermark_verify.shape import const, fixed, integer, listing, record, text

_TEXT = text(chars_max=1_000)
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_BUNDLE = record(
    {
        "mediaType": const("application/vnd.dev.sigstore.bundle.v0.3+json"),
        "verificationMaterial": record({"publicKey": record({"hint": _TEXT}), "tlogEntries": fixed()}),
        "dsseEnvelope": record(
            {
                "payload": text(chars_max=MANIFEST_BYTES_MAX),
                "payloadType": const(_PAYLOAD_TYPE),
                "signatures": fixed(record({"keyid": _TEXT, "sig": text(r"[A-Za-z0-9+/]{86}==")})),
            }
        ),
    }
)
_STATEMENT = record(
    {
        "_type": const("https://in-toto.io/Statement/v1"),
        "subject": listing(
            record({"name": _TEXT, "digest": record({"sha256": text(r"[0-9a-f]{64}")})}),
            MEMBERS_MAX,
        ),
        "predicateType": const("urn:countermark:pack:v1"),
        "predicate": record(
            {
                "v": const(1),
                "deployment": _TEXT,
                "lane": _TEXT,
                "origin": _TEXT,
                "size": integer(0),
                "root": text(r"[A-Za-z0-9+/]{43}="),
                "withheld": integer(0),
                "erased": integer(0),
                "disclosed": integer(0),
                "scope": SCOPE,
            },
            optional=("scope",),
        ),
    }
)


@dataclass(frozen=True)
class Manifest:
    """`subjects` in the order of the statement; `signed` are the DSSE bytes under the signature."""

    key_name: str
    signature: bytes
    signed: bytes
    subjects: tuple[tuple[str, str], ...]
    predicate: dict[str, Any]


def read_manifest(raw: bytes) -> Manifest:
    """Raises `Malformed` with what does not fit."""
    document: Any = canon.parse(raw, MANIFEST_BYTES_MAX)
    if reason := _BUNDLE(document):
        raise Malformed(f"does not have the shape of a manifest{reason}")
    envelope = document["dsseEnvelope"]
    payload = decode64(envelope["payload"])
    statement: Any = canon.parse(payload, MANIFEST_BYTES_MAX)
    if reason := _STATEMENT(statement):
        raise Malformed(f"does not have the shape of a statement{reason}")
    signature = envelope["signatures"][0]
    hint = document["verificationMaterial"]["publicKey"]["hint"]
    if signature["keyid"] != hint:
        raise Malformed("names two keys")
    return Manifest(
        key_name=hint,
        signature=decode64(signature["sig"]),
        signed=pae(payload),
        subjects=tuple((item["name"], item["digest"]["sha256"]) for item in statement["subject"]),
        predicate=statement["predicate"],
    )


def pae(payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
