"""Passkeys: what an assertion must say, and that the product and the verifier judge the same."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soft_passkey import SoftPasskey, url64

from countermark.authority import Passkey, challenge_of, parse_key, verify
from countermark.model.canon import canon
from countermark.model.digest import APPROVAL, signing_bytes
from countermark.model.errors import SignatureError
from countermark_verify.crypto import parse_any, signed_text
from countermark_verify.errors import Malformed

KEY = SoftPasskey(1)
DOCUMENT = {"v": 1, "verdict": "approve"}
CHALLENGE = challenge_of(APPROVAL, DOCUMENT)
GOOD = KEY.assertion(CHALLENGE)


def holds(text: str, sig: Any) -> bool:
    """Whether both judge that the key signed the document; they must agree."""
    try:
        verify(parse_key(text), APPROVAL, DOCUMENT, sig)
        ours = True
    except SignatureError:
        ours = False
    theirs = signed_text(text, sig, signing_bytes(APPROVAL, DOCUMENT))
    assert ours == theirs
    return ours


def test_a_passkey_signs_a_document() -> None:
    """An assertion over the document's digest verifies, and the key's text is its one form."""
    assert holds(KEY.text, GOOD)
    assert str(parse_key(KEY.text)) == KEY.text
    assert KEY.sign(APPROVAL, canon(DOCUMENT)).keys() == GOOD.keys()


BAD: dict[str, Any] = {
    "another document": KEY.assertion(hashlib.sha256(b"other").digest()),
    "another page": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE, origin="http://localhost:9999")),
    "a page in a frame": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE, crossOrigin=True)),
    "a frame's top": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE, topOrigin="https://evil.example")),
    "an enrolment": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE, type="webauthn.create")),
    "another site": KEY.assertion(CHALLENGE, data=KEY.data(rp_id="evil.example")),
    "nobody present": KEY.assertion(CHALLENGE, data=KEY.data(0x04)),
    "nobody verified": KEY.assertion(CHALLENGE, data=KEY.data(0x01)),
    "attested data": KEY.assertion(CHALLENGE, data=KEY.data(0x45)),
    "bytes beyond": KEY.assertion(CHALLENGE, data=KEY.data() + b"\0"),
    "extensions that are not there": KEY.assertion(CHALLENGE, data=KEY.data(0x85)),
    "too short": KEY.assertion(CHALLENGE, data=KEY.data()[:36]),
    "no JSON": KEY.assertion(CHALLENGE, client=b"{"),
    "NaN": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE)[:-1] + b',"x":NaN}'),
    "a byte order mark": KEY.assertion(CHALLENGE, client=b"\xef\xbb\xbf" + KEY.client(CHALLENGE)),
    "UTF-16": KEY.assertion(CHALLENGE, client=KEY.client(CHALLENGE).decode().encode("utf-16")),
    "no object": KEY.assertion(CHALLENGE, client=b"[]"),
    "another key's": SoftPasskey(2).assertion(CHALLENGE),
    "text": "A" * 86 + "==",
    "nothing": None,
    "a member less": {"authenticator_data": GOOD["authenticator_data"], "client_data": GOOD["client_data"]},
    "padding": {**GOOD, "signature": GOOD["signature"] + "="},
    "empty": {**GOOD, "signature": ""},
}


@pytest.mark.parametrize("name", BAD)
def test_any_other_assertion_is_refused(name: str) -> None:
    """Another document, page, site or person, and every malformed assertion, is refused by both."""
    sig = BAD[name]
    if name in ("a member less", "empty"):  # the verifier's envelope refuses these before any signature is looked at
        with pytest.raises(SignatureError):
            verify(parse_key(KEY.text), APPROVAL, DOCUMENT, sig)
        return
    assert not holds(KEY.text, sig)


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_passes(member: str, place: int, flip: int) -> None:
    """An assertion with one byte changed anywhere is refused by both."""
    import base64

    raw = bytearray(base64.urlsafe_b64decode(GOOD[member] + "=" * (-len(GOOD[member]) % 4)))
    raw[place % len(raw)] ^= flip
    assert not holds(KEY.text, {**GOOD, member: url64(bytes(raw))})


@pytest.mark.parametrize(
    "text",
    [
        KEY.text.replace("es256", "rs256"),
        KEY.text.replace("http://localhost:8383", "http://gate.example"),
        KEY.text.replace("http://localhost:8383", "https://Gate.example"),
        KEY.text.replace("http://localhost:8383", "https://gate.example/"),
        KEY.text.replace("http://localhost:8383", "https://gate.example:0443"),
        KEY.text.replace("http://localhost:8383", ""),
        KEY.text + "\n",
        KEY.text.replace(url64(KEY.point), url64(b"\x04" + bytes(64))),
        KEY.text.replace(url64(KEY.point), url64(b"\x06" + KEY.point[1:])),
        KEY.text.replace(url64(KEY.credential), url64(bytes(256))),
        KEY.text.replace(url64(KEY.credential), ""),
        KEY.text.replace(url64(KEY.credential), "AB"),  # not the one form of a byte
        "webauthn:es256:",
        "webauthn:",
    ],
)
def test_a_weak_or_malformed_key_is_not_enrolled(text: str) -> None:
    """Both refuse a passkey of another algorithm, curve point, form or insecure page."""
    with pytest.raises(SignatureError) as caught:
        parse_key(text)
    assert caught.value.code == "bad_key"
    with pytest.raises(Malformed):
        parse_any(text)


def test_a_host_with_a_name_is_the_relying_party() -> None:
    """The relying party's id is the origin's host, without the port."""
    key = SoftPasskey(3, "https://gate.treasury.example:8443")
    parsed = parse_key(key.text)
    assert isinstance(parsed, Passkey)
    assert parsed.rp_id == "gate.treasury.example"
    assert holds(key.text, key.assertion(CHALLENGE))
