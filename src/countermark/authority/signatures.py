"""HTTP message signatures (RFC 9421) of agents: a strict subset, Ed25519 only, kept in the record as evidence.

One signature per request, over components from a short list, since their values stand in the record. What covers less
than the whole request, or was made for another deployment, is refused: ``REQUIRED`` and the ``tag`` hold that.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from countermark.authority.keys import SIGNATURE_BYTES, PublicKey, public_of
from countermark.model.clock import US
from countermark.model.errors import SignatureError

ALGORITHM = "ed25519"
LABEL = "sig1"
REQUIRED = ("@method", "@authority", "@path", "content-digest")
COVERABLE = (*REQUIRED, "@query", "content-type", "content-length", "date", "idempotency-key")
INPUT_CHARS_MAX = 1_024
VALUE_CHARS_MAX = 2_048
SKEW_S_MAX = 300  # between the signature and the decision (docs/spec/record.md)
TAG = "countermark/"  # and the deployment's name: a signature made for one deployment is worth nothing at another

_KEY = r"[a-z*][a-z0-9_.*-]{0,63}"  # RFC 8941 section 3.1.2
_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'  # RFC 8941 section 3.3.3
_INPUT = re.compile(
    rf"(?P<label>{_KEY})=(?P<params>\((?P<items>[^()]*)\)(?P<rest>(?:;{_KEY}=(?:-?[0-9]{{1,15}}|{_STRING}))*))"
)
_PARAMETER = re.compile(rf";(?P<name>{_KEY})=(?P<value>-?[0-9]{{1,15}}|{_STRING})")
_SIGNATURE = re.compile(rf"(?P<label>{_KEY})=:(?P<raw>[A-Za-z0-9+/]{{86}}==):")
_DIGEST = re.compile(r"sha-256=:(?P<raw>[A-Za-z0-9+/]{43}=):")  # RFC 9530 section 2
_NONCE = re.compile(r"[A-Za-z0-9+/=_.-]{16,128}")
_VALUE = re.compile(r"[\x20-\x7e]*")
_TYPES: Mapping[str, type] = {"created": int, "expires": int, "nonce": str, "alg": str, "keyid": str, "tag": str}


@dataclass(frozen=True, slots=True)
class Head:
    """What of a request's head can be signed. ``query`` is without the question mark, ``None`` when there is none.

    ``fields`` maps a lower-case header name to its lines' values, in order.
    """

    method: str
    authority: str
    path: str
    query: str | None
    fields: Mapping[str, Sequence[str]]

    def value(self, name: str) -> str:
        """A component's value (RFC 9421 sections 2.1 and 2.2). Raises ``SignatureError``."""
        derived = {
            "@method": self.method, "@authority": self.authority, "@path": self.path or "/",
            "@query": "?" + (self.query or ""),
        }.get(name)  # fmt: skip
        if derived is not None:
            value = derived
        elif self.fields.get(name):
            value = ", ".join(line.strip(" \t") for line in self.fields[name])
        else:
            raise _refused(f"the signature covers {name}, which the request does not have")
        if len(value) > VALUE_CHARS_MAX or _VALUE.fullmatch(value) is None:
            raise _refused(f"the value of {name} cannot be signed here")
        return value


@dataclass(frozen=True, slots=True)
class Parameters:
    """``Signature-Input`` of one signature, read. Times are seconds; ``text`` ends the signature base."""

    label: str
    components: tuple[str, ...]
    text: str
    created: int | None
    expires: int | None
    nonce: str
    alg: str
    keyid: str
    tag: str


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that an agent's own key signed: what a verifier needs to check that again. Times are seconds."""

    key: str
    covered: tuple[tuple[str, str], ...]
    params: str
    signature: str
    created: int
    expires: int | None
    nonce: str
    body: bytes


def _refused(message: str, hint: str = "") -> SignatureError:
    return SignatureError(message, hint=hint)


def parse_input(text: str) -> Parameters:
    """Read ``Signature-Input``: exactly one signature, no parameters on components, each parameter once.

    Raises:
        SignatureError: it has another form, or is longer than ``INPUT_CHARS_MAX``.
    """
    match = _INPUT.fullmatch(text) if len(text) <= INPUT_CHARS_MAX else None
    if match is None:
        raise _refused("Signature-Input does not have the form of one signature")
    items = match["items"].split(" ") if match["items"] else []
    names = tuple(item[1:-1] for item in items)
    if any(item != f'"{name}"' or name not in COVERABLE for item, name in zip(items, names, strict=True)):
        raise _refused("the signature covers something else than " + ", ".join(COVERABLE))
    if len(set(names)) != len(names):
        raise _refused("the signature covers something twice")
    found: dict[str, int | str] = {}
    for part in _PARAMETER.finditer(match["rest"]):
        name, raw = part["name"], part["value"]
        value = re.sub(r"\\(.)", r"\1", raw[1:-1]) if raw[0] == '"' else int(raw)
        if name in found or type(value) is not _TYPES.get(name):
            raise _refused(f"the signature's parameter {name} is unknown, repeated or of the wrong type")
        found[name] = value
    created, expires = found.get("created"), found.get("expires")
    return Parameters(
        match["label"], names, match["params"],
        created if isinstance(created, int) else None, expires if isinstance(expires, int) else None,
        *(str(found.get(name, "")) for name in ("nonce", "alg", "keyid", "tag")),
    )  # fmt: skip


def parse_signature(text: str, label: str) -> bytes:
    """Read ``Signature``: exactly the one that ``Signature-Input`` describes. Raises ``SignatureError``."""
    match = _SIGNATURE.fullmatch(text) if len(text) <= INPUT_CHARS_MAX else None
    if match is None or match["label"] != label:
        raise _refused("Signature is not the one signature that Signature-Input describes")
    raw = base64.b64decode(match["raw"])
    if len(raw) != SIGNATURE_BYTES or base64.b64encode(raw).decode("ascii") != match["raw"]:
        raise _refused("the signature is not base64 in its one form")
    return raw


def signature_base(covered: Sequence[tuple[str, str]], params: str) -> bytes:
    """The bytes that are signed (RFC 9421 section 2.5)."""
    lines = [f'"{name}": {value}' for name, value in covered]
    return "\n".join([*lines, f'"@signature-params": {params}']).encode("ascii")


def content_digest(body: bytes) -> str:
    """``Content-Digest`` (RFC 9530) of a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"


def read_signed(input_text: str, signature_text: str, head: Head, body: bytes, deployment: str) -> SignedRequest:
    """A request's signature, verified with the key that it names. Whose key that is and when it is, judges the caller.

    Raises:
        SignatureError: ``bad_signature``: malformed, covering too little, made for something else, or not verifying;
            ``bad_key``: the key is not one that may sign.
    """
    params = parse_input(input_text)
    signature = parse_signature(signature_text, params.label)
    needed = {*REQUIRED, *(("@query",) if head.query is not None else ())}
    if missing := sorted(needed - set(params.components)):
        raise _refused(f"the signature does not cover {', '.join(missing)}")
    if params.alg not in ("", ALGORITHM):
        raise _refused("the signature's alg is not ed25519")
    if params.tag != TAG + deployment:
        raise _refused("the signature was not made for this deployment", hint=f'Sign with tag="{TAG}{deployment}".')
    if params.created is None or _NONCE.fullmatch(params.nonce) is None:
        raise _refused("the signature has no created, or no nonce of 16 to 128 characters")
    if len(head.fields.get("content-digest", ())) != 1 or head.value("content-digest") != content_digest(body):
        raise _refused("Content-Digest is not the sha-256 of the body")
    key = PublicKey.parse(params.keyid)
    covered = tuple((name, head.value(name)) for name in params.components)
    check_signature(key, signature, signature_base(covered, params.text))
    text = base64.b64encode(signature).decode("ascii")
    return SignedRequest(str(key), covered, params.text, text, params.created, params.expires, params.nonce, body)


def recheck(body: Mapping[str, object], *, deployment: str, keys: Sequence[str], at_us: int) -> tuple[str, str]:
    """A recorded signature (the body of ``request.signed``) checked again, decided at ``at_us`` microseconds.

    Returns:
        Key and nonce, which together never come twice.

    Raises:
        SignatureError: it is not the agent's, not of that time, or not over what stands there.
    """
    covered = [(str(name), str(value)) for name, value in body["covered"]]  # type: ignore[attr-defined]
    text = str(body["params"])
    params = parse_input(f"{LABEL}={text}")
    if params.components != tuple(name for name, _ in covered) or not set(REQUIRED) <= set(params.components):
        raise _refused("the values are not those of the components that must be signed")
    if params.keyid != body["key"] or params.keyid not in keys:
        raise _refused("the key is not one that the policy enrols for the agent")
    if params.alg not in ("", ALGORITHM) or params.tag != TAG + deployment or _NONCE.fullmatch(params.nonce) is None:
        raise _refused("the signature was made for something else")
    if params.created is None or abs(params.created * US - at_us) > SKEW_S_MAX * US:
        raise _refused("the signature is of another time")
    if params.expires is not None and at_us >= params.expires * US:
        raise _refused("the signature had expired")
    raw = parse_signature(f"{LABEL}=:{body['sig']}:", LABEL)
    check_signature(PublicKey.parse(params.keyid), raw, signature_base(covered, text))
    signed = body["body"]
    if signed is not None and dict(covered)["content-digest"] != content_digest(str(signed).encode("utf-8")):
        raise _refused("the body is not the one that was signed")
    return params.keyid, params.nonce


def check_signature(key: PublicKey, signature: bytes, base: bytes) -> None:
    """Raises ``SignatureError`` unless ``signature`` is ``key``'s over ``base``."""
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, base)
    except InvalidSignature:
        raise _refused("the signature does not verify") from None


def sign_request(
    private: Ed25519PrivateKey, head: Head, body: bytes, deployment: str, *, created: int, nonce: str
) -> dict[str, str]:
    """The headers that sign a request: ``Content-Digest``, ``Signature-Input``, ``Signature``.

    Whatever of ``COVERABLE`` the head has is covered. ``created`` is seconds; ``nonce`` must never repeat.
    """
    digest = content_digest(body)
    full = Head(head.method, head.authority, head.path, head.query, {**head.fields, "content-digest": [digest]})
    names = [*REQUIRED, *(("@query",) if head.query is not None else ())]
    names += [name for name in COVERABLE if name not in names and name in full.fields]
    listed = " ".join(f'"{name}"' for name in names)
    params = (
        f'({listed});created={created};keyid="{public_of(private)}";nonce="{nonce}";alg="{ALGORITHM}"'
        f';tag="{TAG}{deployment}"'
    )
    raw = private.sign(signature_base([(name, full.value(name)) for name in names], params))
    signature = base64.b64encode(raw).decode("ascii")
    return {
        "Content-Digest": digest, "Signature-Input": f"{LABEL}={params}", "Signature": f"{LABEL}=:{signature}:",
    }  # fmt: skip
