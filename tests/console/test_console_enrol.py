"""Enrolment without a browser: what a page may offer, and that an offer is nothing yet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from soft_passkey import SoftPasskey
from stage import Stage
from visitor import Visitor, fields_of, text_of

from countermark.authority import decode64, encode64


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d", fresh=True) as found:
        yield found


def spki(public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return encode64(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def begun(visitor: Visitor, key: SoftPasskey, **changes: str) -> tuple[int, str]:
    """Send the first form, as the script does when the browser has made a passkey. Status and page."""
    fields = fields_of(text_of(visitor.get("/enrol")), "/enrol/key")
    made = {"credential": encode64(key.credential), "public": spki(key.private.public_key())}
    answer = visitor.post("/enrol/key", {**fields, "person": "controller", "label": "phone", **made, **changes})
    return answer.status, text_of(answer)


def signed(page: str, key: SoftPasskey) -> dict[str, str]:
    fields = fields_of(page, "/enrol/offer")
    found = re.search(r'name="draft" value="(.*)">', page)
    assert found is not None
    assertion = json.dumps(key.assertion(decode64(fields["challenge"], 32)))
    return {**fields, "draft": found[1], "credential": encode64(key.credential), "assertion": assertion}


def test_an_offer_has_a_code_and_enrols_nobody(stage: Stage) -> None:
    """The page ends with a code and a fingerprint; the person has no key more than before."""
    visitor, key = stage.visitor(), SoftPasskey(77, stage.console)
    before = stage.handle.call("people", {})
    status, page = begun(visitor, key)
    assert status == 200
    answer = visitor.post("/enrol/offer", signed(page, key))
    code = re.search(r"big-code\">([0-9A-Z]{4}-[0-9A-Z]{4})<", text_of(answer))
    assert code is not None, text_of(answer)
    offer = stage.offered(code[1])
    assert offer["enrolment"]["key"] == key.text
    assert offer["fingerprint"] in text_of(answer)
    assert stage.handle.call("people", {}) == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"public": "AAAA"}, "bad_key"),
        ({"public": ""}, "bad_signature"),
        ({"public": spki(ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32).public_key())}, "bad_key"),
        ({"public": spki(ec.derive_private_key(7, ec.SECP384R1()).public_key())}, "bad_key"),
        ({"credential": ""}, "bad_signature"),
        ({"person": "no body"}, "bad_enrolment"),
        ({"person": ""}, "bad_enrolment"),
    ],
)
def test_what_is_no_passkey_is_not_drafted(stage: Stage, change: dict[str, str], code: str) -> None:
    """A key of another kind, none, or nobody's name: refused with its code."""
    status, page = begun(stage.visitor(), SoftPasskey(78, stage.console), **change)
    assert status in (400, 403)
    assert f"<code>{code}</code>" in page


def test_an_offer_is_signed_by_the_very_passkey_for_the_very_draft(stage: Stage) -> None:
    """Another passkey's signature, an altered draft and another page's passkey are refused."""
    visitor, key, other = stage.visitor(), SoftPasskey(79, stage.console), SoftPasskey(80, stage.console)
    _, page = begun(visitor, key)
    fields = signed(page, key)
    assert visitor.post("/enrol/offer", signed(page, other)).status == 403
    for old, new in (("controller", "treasurer"), ("phone", "other"), (key.text, other.text)):
        assert visitor.post("/enrol/offer", {**fields, "draft": fields["draft"].replace(old, new)}).status == 409
    for draft in ("", "{}", "[]", "x" * 5_000):
        assert visitor.post("/enrol/offer", {**fields, "draft": draft}).status in (400, 403)
    foreign = SoftPasskey(81, "https://elsewhere.example")
    moved = {**fields, "draft": fields["draft"].replace(key.text, foreign.text)}
    assert "bad_enrolment" in text_of(visitor.post("/enrol/offer", moved))
    assert visitor.post("/enrol/offer", fields).status == 200


def test_under_another_name_no_passkey_is_made(stage: Stage) -> None:
    """The page under the loopback's number says where passkeys work instead."""
    page = text_of(Visitor(stage, f"127.0.0.1:{stage.address[1]}").get("/enrol"))
    assert "Passkeys work only at" in page
    assert "data-passkey" not in page
