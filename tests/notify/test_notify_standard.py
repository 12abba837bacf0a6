"""Standard Webhooks signatures, judged by others: the specification's library, and HMAC and Ed25519 from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook

from countermark.model.errors import ConfigError
from countermark.notify import check_secret
from countermark.notify.standard import signatures

SEED = 20_261_129


def _key(raw: bytes, prefix: str) -> str:
    return prefix + base64.b64encode(raw).decode()


def independently(secret: str, identity: str, at: str, body: bytes) -> str:
    """HMAC-SHA256 as RFC 2104 spells it out, sharing nothing with the product."""
    key = base64.b64decode(secret.removeprefix("whsec_")).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + f"{identity}.{at}.".encode() + body).digest()
    return "v1," + base64.b64encode(hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()).decode()


def test_the_published_vector_holds() -> None:
    """Secret, id, time and body of the specification's own libraries give the signature that they publish."""
    body = b'{"test": 2432232314}'
    found = signatures(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_symmetric_signatures_agree_with_two_others() -> None:
    """The specification's library (at UTC times) and an independent HMAC give the same for random messages."""
    rng = random.Random(SEED)
    print("seed", SEED)
    for _ in range(100):
        secret = _key(rng.randbytes(rng.randint(24, 64)), "whsec_")
        identity, at_s = f"msg_{rng.getrandbits(64):x}", rng.randrange(1, 2**32)
        body = "".join(chr(rng.randint(32, 0x2FFF)) for _ in range(rng.randint(0, 200))).encode()
        found = signatures([secret], identity, at_s, body)
        assert found == Webhook(secret).sign(identity, datetime.fromtimestamp(at_s, UTC), body.decode())
        assert found == independently(secret, identity, str(at_s), body)


def test_asymmetric_signatures_verify_under_the_published_key() -> None:
    """A v1a signature verifies under the whpk_ key, over exactly ID.TIMESTAMP.BODY, and over nothing else."""
    secret = _key(bytes(range(32)), "whsk_")
    public = check_secret(secret)
    assert public.startswith("whpk_")
    version, _, raw = signatures([secret], "msg_1", 77, b"{}").partition(",")
    assert version == "v1a"
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    key.verify(base64.b64decode(raw), b"msg_1.77.{}")
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(raw), b"msg_1.78.{}")
    whole = _key(bytes(range(32)) + base64.b64decode(public.removeprefix("whpk_")), "whsk_")
    assert signatures([whole], "msg_1", 77, b"{}") == signatures([secret], "msg_1", 77, b"{}")


def test_every_secret_signs() -> None:
    """While an old secret is replaced, the header holds a signature of each, with a space between."""
    old, new = _key(b"o" * 24, "whsec_"), _key(b"n" * 32, "whsec_")
    both = signatures([old, new], "msg_1", 1, b"x").split(" ")
    assert both == [signatures([old], "msg_1", 1, b"x"), signatures([new], "msg_1", 1, b"x")]


@pytest.mark.parametrize(
    "secret",
    [
        "", "whsec_", "whsec_" + "!" * 40, _key(b"short", "whsec_"), _key(b"l" * 65, "whsec_"),
        _key(b"s" * 31, "whsk_"), _key(b"s" * 64, "whsk_"), "sk_live_x", "whsec_\u00e9" + "a" * 40, "whsec_" + "a" * 41,
    ],
)  # fmt: skip
def test_a_malformed_secret_is_refused_and_not_quoted(secret: str) -> None:
    """What is no secret of the specification raises the product's own error, which says nothing of the value."""
    with pytest.raises(ConfigError) as error:
        signatures([secret], "msg_1", 1, b"")
    assert error.value.code == "bad_webhook_secret"
    assert len(secret) < 8 or secret[7:] not in str(error.value)


def test_the_comparison_is_not_of_ourselves() -> None:
    """The oracle refuses what was changed: it would notice a wrong signature."""
    secret = _key(b"k" * 32, "whsec_")
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1", "webhook-timestamp": str(now),
        "webhook-signature": signatures([secret], "msg_1", now, b"{}"),
    }  # fmt: skip
    assert Webhook(secret).verify(b"{}", headers) == {}
    with pytest.raises(Exception, match="No matching"):
        Webhook(secret).verify(b"{ }", headers)
    assert not hmac.compare_digest(independently(secret, "msg_1", "1", b"a"), independently(secret, "msg_1", "1", b"b"))
