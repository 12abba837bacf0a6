"""Passkeys that are offered: bounded, forgotten in time, worth nothing without the passkey's own signature."""

from __future__ import annotations

from typing import Any

import pytest
from soft_passkey import SoftPasskey

from countermark.authority import fingerprint, generate, public_of
from countermark.model.canon import canon
from countermark.model.clock import US, FakeClock
from countermark.model.digest import ENROLMENT, ENROLMENT_PROOF
from countermark.model.errors import CountermarkError
from countermark.server.offers import CODE, ENROL_S, OFFER_S_MAX, OFFERS_MAX, Offers

NOW = 1_800_000_000 * US


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def offers(clock: FakeClock) -> Offers:
    return Offers("acme", clock)


def signed(offers: Offers, number: int, person: str = "anna") -> tuple[dict[str, Any], dict[str, str]]:
    """A draft and the passkey's one assertion over it."""
    passkey = SoftPasskey(number)
    draft = offers.draft(person, passkey.text, "phone")
    return draft, passkey.sign(ENROLMENT_PROOF, canon(draft))


def code_of(offers: Offers, draft: Any, proof: Any) -> str:
    with pytest.raises(CountermarkError) as caught:
        offers.add(draft, proof)
    return caught.value.code


def test_an_offer_is_found_by_its_code_as_people_type_it(offers: Offers) -> None:
    """Lower case, blanks and dashes make no difference; the document is what the passkey signed."""
    draft, proof = signed(offers, 1)
    offer = offers.add(draft, proof)
    assert CODE.fullmatch(offer.code)
    for typed in (offer.code, offer.code.lower(), offer.code.replace("-", ""), offer.code.replace("-", " ")):
        assert offers.find(typed) == offer
    assert offer.document()["fingerprint"] == fingerprint(draft["key"])
    assert offer.document()["enrolment"] == draft
    for wrong in ("", "0000-0000", "x" * 500, "\u0130" * 8):
        assert offers.find(wrong) is None


def test_an_offer_is_forgotten_after_half_an_hour(offers: Offers, clock: FakeClock) -> None:
    """To the second; what waited longer is not there any more."""
    offer = offers.add(*signed(offers, 1))
    clock.advance(OFFER_S_MAX - 1)
    assert offers.find(offer.code) is not None
    clock.advance(1)
    assert offers.find(offer.code) is None


def test_what_the_passkey_did_not_sign_is_no_offer(offers: Offers, clock: FakeClock) -> None:
    """Another document, another domain, another passkey, no proof, a key in a file, another deployment, too late."""
    draft, proof = signed(offers, 1)
    assert code_of(offers, {**draft, "person": "bert"}, proof) == "bad_signature"
    assert code_of(offers, {**draft, "label": "else"}, proof) == "bad_signature"
    assert code_of(offers, draft, SoftPasskey(1).sign(ENROLMENT, canon(draft))) == "bad_signature"
    assert code_of(offers, draft, SoftPasskey(2).sign(ENROLMENT_PROOF, canon(draft))) == "bad_signature"
    for wrong in (None, "x", [], 5):
        assert code_of(offers, draft, wrong) == "bad_enrolment"
    for wrong in (None, [], {}, {**draft, "more": 1}, {**draft, "v": 2}):
        assert code_of(offers, wrong, proof) == "bad_enrolment"
    filed = offers.draft("anna", str(public_of(generate())), "file")
    assert code_of(offers, filed, proof) == "bad_enrolment"
    other, shown = signed(Offers("other", clock), 1)
    assert code_of(offers, other, shown) == "not_authorised"
    clock.advance(ENROL_S)
    assert code_of(offers, draft, proof) == "enrolment_late"


def test_a_stranger_fills_the_list_and_nothing_else(offers: Offers, clock: FakeClock) -> None:
    """At the bound further offers are refused, retryable; the same passkey again takes its own place; time frees it."""
    first = offers.add(*signed(offers, 0))
    for number in range(1, OFFERS_MAX):
        offers.add(*signed(offers, number))
    assert code_of(offers, *signed(offers, OFFERS_MAX)) == "gate_busy"
    again = offers.add(*signed(offers, 0))
    assert offers.find(first.code) is None
    assert offers.find(again.code) == again
    clock.advance(OFFER_S_MAX)
    assert offers.find(offers.add(*signed(offers, OFFERS_MAX)).code) is not None


def test_a_draft_is_checked_before_anybody_signs_it(offers: Offers) -> None:
    """A key that is none, a person's name that cannot be one, a label with a line break."""
    good = SoftPasskey(1).text
    for person, key, label in (("anna", "webauthn:x", ""), ("An na", good, ""), ("anna", good, "a\nb"),
                               ("anna", good, "x" * 65)):  # fmt: skip
        with pytest.raises(CountermarkError):
            offers.draft(person, key, label)
