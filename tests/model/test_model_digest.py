"""Digests, signing bytes and pseudonyms, recomputed here from hashlib alone."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from countermark.model import digest as d
from countermark.model.errors import EncodingError


@pytest.mark.parametrize("domain", d.DOMAINS)
def test_a_digest_is_the_hash_of_domain_zero_and_bytes(domain: str) -> None:
    """Every domain stands in front of the bytes, closed by a zero byte, as docs/spec/digests.md says."""
    expected = "sha256:" + hashlib.sha256(domain.encode() + b"\x00" + b'{"a":[1,true,null]}').hexdigest()
    assert d.digest(domain, b'{"a":[1,true,null]}') == expected
    assert d.digest_of(domain, {"a": [1, True, None]}) == expected
    assert d.signing_bytes(domain, {"a": [1, True, None]}) == domain.encode() + b'\x00{"a":[1,true,null]}'


def test_domains_never_share_a_digest() -> None:
    """The same bytes under different domains have different digests, and no domain could run into its bytes."""
    assert len({d.digest(domain, b"{}") for domain in d.DOMAINS}) == len(set(d.DOMAINS)) == len(d.DOMAINS)
    assert not any("\x00" in domain for domain in d.DOMAINS)


@pytest.mark.parametrize("value", [1.5, {"a b": 1}, 2**53, "\ud800"], ids=repr)
def test_what_is_outside_the_profile_has_no_digest(value: Any) -> None:
    """A value that has no canonical bytes cannot be digested or signed."""
    for function in (d.digest_of, d.signing_bytes):
        with pytest.raises(EncodingError):
            function(d.RECORD, value)


def test_a_fitting_value_has_the_same_digest_without_a_second_look() -> None:
    """What is inside the profile; what canonical bytes cannot carry is refused here too."""
    value = {"b": ["é", 1, None, True], "a": {"c": -(2**53 - 1)}}
    assert d.digest_of_fitting(d.ACTION, value) == d.digest_of(d.ACTION, value)
    for wrong in (2**53, "\ud800"):
        with pytest.raises(EncodingError):
            d.digest_of_fitting(d.ACTION, [wrong])


def test_a_pseudonym_is_keyed_and_says_what_kind_it_is() -> None:
    """A pseudonym is a truncated HMAC over kind and value: other key, kind or value, other pseudonym."""
    message = b"countermark/v1/pseudonym\x00payee\x00Caf\xc3\xa9"
    assert d.pseudonym(b"k" * 32, "payee", "Café") == hmac.new(b"k" * 32, message, hashlib.sha256).hexdigest()[:32]
    made = {
        d.pseudonym(key, kind, value)
        for key in (b"k" * 32, b"l" * 32)
        for kind in ("agent", "run", "account", "payee", "named")
        for value in ("a", "b", "")
    }
    assert len(made) == 30


def test_a_kind_cannot_run_into_the_value() -> None:
    """The zero byte between kind and value keeps ``run`` + ``x`` apart from ``ru`` + ``nx``."""
    assert d.pseudonym(b"k" * 32, "run", "x") != d.pseudonym(b"k" * 32, "ru", "nx")
