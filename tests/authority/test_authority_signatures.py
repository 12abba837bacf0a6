"""Request signatures (RFC 9421): official vectors, an independent implementation's, and what is refused."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import Head, PublicKey, SignedRequest, public_of, read_signed, recheck, sign_request
from countermark.authority.signatures import check_signature, parse_input, parse_signature, signature_base
from countermark.model.clock import US
from countermark.model.errors import CountermarkError, SignatureError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = str(public_of(PRIVATE))
BODY = b'{"run":"run_0","tool":"t"}'
NONCE = "0123456789abcdef"
CREATED = 1_790_000_000
HEAD = Head("POST", "gate.example", "/v1/actions", None, {"content-type": ["application/json"]})

# Made by the PyPI package http-message-signatures 3.0.0 with the key above: URL, Signature-Input, Signature.
FOREIGN = [
    (
        "https://gate.example/v1/actions",
        'pyhms=("@method" "@authority" "@path" "content-digest");created=1790000000;keyid="ed25519:'
        'A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";alg="ed25519";nonce="nnnnnnnnnnnnnnnnnnnnnn"'
        ';tag="countermark/acme"',
        "pyhms=:lFFMRS1+ACBtLcIKaVg5Er3KbdLdy0/56CxMQ3PHDBd98pNBbBrD42Z9Zt0UUyQPJU/+K2LblYrt6Tu1m6v0Aw==:",
    ),
    (
        "https://gate.example:8443/v1/actions?wait=outcome",
        'mine=("content-type" "@query" "@path" "@authority" "@method" "content-digest");created=179'
        '0000000;keyid="ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";alg="ed25519";expires'
        '=1790000060;nonce="abc+/=_.-abc+/=_.-abc+/=_.-";tag="countermark/acme"',
        "mine=:RZZGlILfwtDES+JtZs+1oeluoaO04ElJ56PcyEJJliqSF1EkXn0GJZJ6wyo1hQoUjyiE1cYXzd+yi+fc4O5TCA==:",
    ),
    (
        "https://gate.example/v1/runs",
        'pyhms=("@method" "@authority" "@path" "date" "content-length" "content-digest");created=17'
        '90000000;keyid="ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";nonce="0123456789abc'
        'def";tag="countermark/acme"',
        "pyhms=:8n8oZnRpkfaa5OcHuR/YE63ZJYT9X64KqB1lTQZXr2hB7boDoERqr8suJoBm+KpxpmmHamE3hycXh7ytbT/8Dg==:",
    ),
]
FIELDS = {
    "content-type": ["application/json"],
    "date": ["Mon, 21 Sep 2026 14:13:20 GMT"],
    "content-length": ["26"],
}


def signed(head: Head = HEAD, body: bytes = BODY, **more: object) -> tuple[dict[str, str], Head]:
    """The headers of a signed request, and its head with the digest."""
    given_ = {"created": CREATED, "nonce": NONCE} | more
    made = sign_request(PRIVATE, head, body, "acme", **given_)  # type: ignore[arg-type]
    return made, replace(head, fields={**head.fields, "content-digest": [made["Content-Digest"]]})


def read(headers: dict[str, str], head: Head, body: bytes = BODY, deployment: str = "acme") -> SignedRequest:
    return read_signed(headers["Signature-Input"], headers["Signature"], head, body, deployment)


def test_the_vector_of_rfc_9421_verifies() -> None:
    """Appendix B.2.6: the base that is built from the request is the one that the RFC's key signed."""
    key = PublicKey(base64.b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")[-32:])
    params = parse_input(
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    raw = parse_signature(
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        params.label,
    )
    fields = {"date": ["Tue, 20 Apr 2021 02:07:55 GMT"], "content-type": ["application/json"], "content-length": ["18"]}
    head = Head("POST", "example.com", "/foo", "param=Value&Pet=dog", fields)
    base = signature_base([(name, head.value(name)) for name in params.components], params.text)
    check_signature(key, raw, base)
    with pytest.raises(SignatureError):
        check_signature(key, raw, base.replace(b"POST", b"GET"))
    assert params.keyid == "test-key-ed25519"
    assert params.created == 1618884473


@pytest.mark.parametrize(("url", "input_", "signature"), FOREIGN)
def test_what_another_implementation_signed_verifies(url: str, input_: str, signature: str) -> None:
    """Other orders, labels and parameters than ours mean the same."""
    host, _, target = url.removeprefix("https://").partition("/")
    path, question, query = target.partition("?")
    digest = "sha-256=:TphKUAzWXUn6Tc7MIkqFpYGvXB1w6qv0pF1ccG1jIU8=:"
    head = Head("POST", host, "/" + path, query if question else None, FIELDS | {"content-digest": [digest]})
    found = read_signed(input_, signature, head, BODY, "acme")
    assert found.key == PUBLIC
    assert found.created == CREATED
    with pytest.raises(SignatureError):
        read_signed(input_, signature, replace(head, authority="other.example"), BODY, "acme")


def test_what_is_signed_here_is_read_here_and_checked_again_from_the_record() -> None:
    """The evidence that is kept suffices to verify the signature once more."""
    headers, head = signed(replace(HEAD, query="wait=decision"))
    found = read(headers, head)
    assert (found.key, found.created, found.nonce, found.body) == (PUBLIC, CREATED, NONCE, BODY)
    body = {
        "key": found.key, "covered": [list(pair) for pair in found.covered], "params": found.params,
        "sig": found.signature, "body": BODY.decode(),
    }  # fmt: skip
    at = CREATED * US
    assert recheck(body, deployment="acme", keys=[PUBLIC], at_us=at) == (PUBLIC, NONCE)
    for wrong, where in (
        ({"sig": body["sig"][:-3] + "A=="}, {}), ({"body": "{}"}, {}), ({"covered": body["covered"][1:]}, {}),
        ({}, {"deployment": "umbra"}), ({}, {"keys": []}),
        ({}, {"at_us": at + 301 * US}), ({}, {"at_us": at - 301 * US}),
    ):  # fmt: skip
        with pytest.raises(CountermarkError):
            recheck({**body, **wrong}, **({"deployment": "acme", "keys": [PUBLIC], "at_us": at} | where))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"}, {"authority": "evil.example"}, {"path": "/v1/actions/"}, {"query": "wait=decision"},
        {"fields": {"content-type": ["text/plain"]}},
        {"fields": {"content-type": ["application/json", "application/json"]}},
    ],
)  # fmt: skip
def test_no_signed_part_of_a_request_can_be_changed(change: dict[str, object]) -> None:
    """Method, authority, path, query and covered headers are what was signed."""
    headers, head = signed()
    fields = {**head.fields, **change.pop("fields", {})}  # type: ignore[dict-item]
    with pytest.raises(SignatureError):
        read(headers, replace(head, fields=fields, **change))  # type: ignore[arg-type]


def test_the_body_is_signed_through_its_digest() -> None:
    """Another body, a digest that is not the body's, two digests and none are refused."""
    headers, head = signed()
    with pytest.raises(SignatureError, match="Content-Digest"):
        read(headers, head, BODY + b" ")
    for lines in ([], head.fields["content-digest"] * 2, ["sha-512=:AAAA:"]):
        with pytest.raises(SignatureError):
            read(headers, replace(head, fields={**head.fields, "content-digest": lines}))


def test_a_signature_for_one_deployment_is_worth_nothing_at_another() -> None:
    """The tag names the deployment."""
    headers, head = signed()
    with pytest.raises(SignatureError, match="not made for this deployment"):
        read(headers, head, deployment="umbra")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"@path" ', ""), ('"content-digest" ', ""), ("@authority", "@target-uri"), ('"@path"', '"@path";req'),
        ("content-type", "authorization"), ('"@method" "@authority"', '"@method" "@method"'),
        (";created=1790000000", ""), (";created=1790000000", ";created=1790000000;created=1790000000"),
        (";created=1790000000", ';created="1790000000"'), (";created=1790000000", ";created=1790000000.5"),
        (f';nonce="{NONCE}"', ""), (NONCE, "short"), ('alg="ed25519"', 'alg="hmac-sha256"'),
        (';tag="countermark/acme"', ""), (";alg=", ";unknown="), ("sig1=(", "sig1=((("), ("sig1=", "sig1=(),sig2="),
        ('"@method" ', '"@method"  '), ("keyid=", "keyid=1;x="),
    ],
)  # fmt: skip
def test_parameters_of_another_form_are_refused(old: str, new: str) -> None:
    """Whatever covers too little, says something twice, or could be read in two ways."""
    headers, head = signed()
    assert old in headers["Signature-Input"]
    headers["Signature-Input"] = headers["Signature-Input"].replace(old, new, 1)
    with pytest.raises(SignatureError):
        read(headers, head)


@pytest.mark.parametrize(
    "signature", ["", "sig1", "sig1=::", "sig2=:{}:", "sig1=:{}", "sig1=:{}:, sig2=:{}:", "sig1=:{}:;a"]
)
def test_signatures_of_another_form_are_refused(signature: str) -> None:
    """There is exactly one, under the label of its input."""
    headers, head = signed()
    raw = headers["Signature"][6:-1]
    headers["Signature"] = signature.replace("{}", raw)
    with pytest.raises(SignatureError):
        read(headers, head)


def test_a_key_under_which_everything_verifies_is_refused() -> None:
    """A point of small order is nobody's key, whatever it seems to have signed."""
    headers, head = signed()
    weak = "ed25519:" + base64.b64encode(b"\x01" + bytes(31)).decode()
    headers["Signature-Input"] = headers["Signature-Input"].replace(PUBLIC, weak)
    with pytest.raises(SignatureError):
        read(headers, head)


@settings(derandomize=True, max_examples=200)
@given(st.text(max_size=200), st.text(max_size=200))
def test_junk_raises_one_kind_of_error(input_: str, signature: str) -> None:
    """Nothing but ``SignatureError`` comes out, whatever goes in."""
    with pytest.raises(SignatureError):
        read_signed(input_, signature, HEAD, BODY, "acme")


@settings(derandomize=True, max_examples=100)
@given(st.integers(0, 10_000), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_changed_input_never_verifies(place: int, char: str) -> None:
    """Every character of ``Signature-Input`` after the label is signed."""
    headers, head = signed()
    text = headers["Signature-Input"]
    place = 5 + place % (len(text) - 5)
    if text[place] == char:
        return
    headers["Signature-Input"] = text[:place] + char + text[place + 1 :]
    with pytest.raises(CountermarkError):
        read(headers, head)
