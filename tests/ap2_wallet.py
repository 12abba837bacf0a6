"""A user's agent provider and an agent with AP2 keys, in memory: they sign payment mandates as AP2 v0.2 has them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Key = EllipticCurvePrivateKey | Ed25519PrivateKey


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def p256(secret: int) -> EllipticCurvePrivateKey:
    return derive_private_key(secret, SECP256R1())


def text_of(key: Key) -> str:
    """The key as a policy names it."""
    if isinstance(key, Ed25519PrivateKey):
        return "ed25519:" + base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return "es256:" + b64(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def jwk_of(key: Key) -> dict[str, str]:
    if isinstance(key, Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    numbers = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": b64(numbers.x.to_bytes(32, "big")),
        "y": b64(numbers.y.to_bytes(32, "big")),
    }


def sign(key: Key, message: bytes, *, high: bool = False) -> bytes:
    """64 bytes; of the two P-256 signatures that fit, the one with the large ``s`` on demand."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    r, s = decode_dss_signature(key.sign(message, ECDSA(SHA256())))
    s = max(s, ORDER - s) if high else min(s, ORDER - s)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def hashed(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


def disclosure(value: Any, salt: str = "c2FsdC1zYWx0LXNhbHQ") -> str:
    return b64(json.dumps([salt, value]).encode())


def jws(key: Key, header: dict[str, Any], payload: dict[str, Any], *, high: bool = False) -> str:
    alg = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    parts = [b64(json.dumps(part).encode()) for part in ({"alg": alg, **header}, payload)]
    return ".".join([*parts, b64(sign(key, ".".join(parts).encode(), high=high))])


MERCHANT = {"id": "merchant_1", "name": "Acme Paper", "website": "https://acme.example"}
OTHER = {"id": "merchant_2", "name": "Borealis Hosting"}
REFERENCE = {"type": "payment.reference", "conditional_transaction_id": "b2ZhbnlvcmRlcg"}


def amounts(most: int = 20_000, currency: str = "EUR", **more: Any) -> dict[str, Any]:
    return {"type": "payment.amount_range", "currency": currency, "max": most, **more}


class Wallet:
    """``issuer`` is the agent provider's key, ``agent`` the shopping agent's."""

    def __init__(self, issuer: Key | None = None, agent: Key | None = None, now_s: int = 1_790_000_000) -> None:
        self.issuer, self.agent, self.now = issuer or p256(11), agent or p256(12), now_s

    def source(self, **members: Any) -> dict[str, Any]:
        """The policy's entry for this wallet, as a bundle has it."""
        return {
            "id": "shop", "issuer": text_of(self.issuer), "principal": "treasurer", "agent": "treasury",
            "agent_key": text_of(self.agent), "audience": "https://gate.example", "tools": ["stripe.transfers.create"],
            "payees": [["merchant_1", "acme-paper"], ["merchant_2", "borealis-hosting"]], **members,
        }  # fmt: skip

    def toml(self) -> str:
        """The same in ``limits.toml``."""
        source = self.source()
        payees = dict(source.pop("payees"))
        lines = ["", f"[ap2.{source.pop('id')}]", *(f"{name} = {json.dumps(value)}" for name, value in source.items())]
        return "\n".join([*lines, "", "[ap2.shop.payees]", *(f'{m} = "{p}"' for m, p in payees.items()), ""])

    def content(self, *constraints: dict[str, Any], **members: Any) -> dict[str, Any]:
        return {
            "vct": "mandate.payment.open.1", "constraints": [*(constraints or (amounts(),)), REFERENCE],
            "cnf": {"jwk": jwk_of(self.agent)}, "iat": self.now, "exp": self.now + 3_600, **members,
        }  # fmt: skip

    def open(
        self, *constraints: dict[str, Any], allowed: tuple[dict[str, Any], ...] = (), hide: int = 0, high: bool = False,
        header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None, **members: Any,
    ) -> str:  # fmt: skip
        """An open payment mandate; ``allowed`` merchants are disclosed one by one, but for the first ``hide``."""
        shown = [disclosure(item, f"salt-{n}") for n, item in enumerate(allowed)]
        items = [{"...": hashed(text)} for text in shown]
        listed = [{"type": "payment.allowed_payees", "allowed": items}] if allowed else []
        content = self.content(*(constraints or (amounts(),)), *listed, **members)
        own = disclosure(content, "salt-own")
        payload = {"delegate_payload": [{"...": hashed(own)}], "_sd_alg": "sha-256", **(claims or {})}
        head = {"typ": "example+sd-jwt", "kid": "provider-1"} if header is None else header
        return "~".join([jws(self.issuer, head, payload, high=high), own, *shown[hide:], ""])

    def payment(self, amount: int = 15_000, transaction: str = "dHJhbnNhY3Rpb24tMQ", **members: Any) -> dict[str, Any]:
        return {
            "vct": "mandate.payment.1", "transaction_id": transaction, "payee": MERCHANT,
            "payment_amount": {"amount": amount, "currency": "EUR"},
            "payment_instrument": {"id": "card-1", "type": "card", "description": "Card 4242"}, **members,
        }  # fmt: skip

    def closed(self, above: str | None, amount: int = 15_000, *, key: Key | None = None, **members: Any) -> str:
        """A closed mandate: below an open one and signed by the agent, or signed by the provider alone."""
        claims, header = members.pop("claims", {}), members.pop("header", {"typ": "kb+sd-jwt"})
        if above is None:
            content = self.payment(amount, **{"iat": self.now, "exp": self.now + 3_600, **members})
            own = disclosure(content)
            payload = {"delegate_payload": [{"...": hashed(own)}], **claims}
            return "~".join([jws(key or self.issuer, {"typ": "example+sd-jwt"}, payload), own, ""])
        own = disclosure(self.payment(amount, **members))
        payload = {
            "delegate_payload": [{"...": hashed(own)}], "iat": self.now + 5, "aud": "https://gate.example",
            "nonce": "a8b7", "sd_hash": hashed(above), **claims,
        }  # fmt: skip
        return above + "~" + "~".join([jws(key or self.agent, header, payload), own, ""])
