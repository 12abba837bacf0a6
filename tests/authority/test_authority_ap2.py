"""AP2 payment mandates: what they become here, and what is refused, by both readers of the specification."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import Ap2Source, Here, JoseKey, Mandate, accept_ap2
from countermark.authority.keys import generate
from countermark.model.errors import AuthorityError, CountermarkError, SignatureError
from countermark_verify import ap2 as again
from countermark_verify.errors import Malformed

sys.path.insert(0, str(Path(__file__).parents[1]))
from ap2_wallet import MERCHANT, ORDER, OTHER, Wallet, amounts, b64, disclosure, hashed, jwk_of, jws, p256, sign

NOW_S = 1_790_000_000
AT = (NOW_S + 60) * 1_000_000
WALLET = Wallet()
HERE = Here("test", ("eur",), AT)
ALLOWED = (MERCHANT, OTHER)


def taken(text: str, wallet: Wallet = WALLET, here: Here = HERE, known: dict[str, Mandate] | None = None) -> list[Any]:
    """What both readings of the specification make of a document: the same, or a refusal by both."""
    source = wallet.source()
    known = known or {}
    place = again.Place(source, here.deployment, here.currencies, here.at, lambda name: _document(known.get(name)))
    try:
        found = accept_ap2(text, Ap2Source.of(source), here, known.get)
    except CountermarkError:
        with pytest.raises(Malformed):
            again.derive(text, place)
        raise
    for one in found:
        derived, redeems = again.derive(one.ap2, place)
        assert derived == one.mandate.document()
        assert tuple(redeems) == one.redeems
        known[one.redeems[0]] = one.mandate
    return found


def _document(mandate: Mandate | None) -> dict[str, Any] | None:
    return None if mandate is None else mandate.document()


def limits_of(mandate: Mandate) -> list[tuple[str, int, int | None]]:
    return [(limit.currency, limit.amount, limit.over_us) for limit in mandate.limits]


def test_an_open_mandate_becomes_a_mandate() -> None:
    """Amount, merchants, validity, agent and tools are those of the document and of the policy; it is for once."""
    (one,) = taken(WALLET.open(amounts(20_000, min=0), allowed=ALLOWED))
    mandate = one.mandate
    assert limits_of(mandate) == [("eur", 20_000, 0), ("*", 1, None)]
    assert mandate.payees == ("acme-paper", "borealis-hosting")
    assert (mandate.agent, mandate.principal, mandate.tools) == ("treasury", "treasurer", ("stripe.transfers.create",))
    assert (mandate.not_before, mandate.not_after) == (NOW_S * 1_000_000, (NOW_S + 3_600) * 1_000_000)
    assert mandate.parent is None
    assert len(one.redeems) == 1


RECURRING: list[tuple[dict[str, Any], list[tuple[str, int, int | None]]]] = [
    ({"frequency": "ON_DEMAND"}, []),
    ({"frequency": "ON_DEMAND", "max_occurrences": 12}, [("*", 12, None)]),
    ({"frequency": "WEEKLY"}, [("*", 1, 604_800_000_000)]),
    ({"frequency": "MONTHLY", "max_occurrences": 3}, [("*", 1, 30 * 86_400_000_000), ("*", 3, None)]),
]


@pytest.mark.parametrize(("members", "expected"), RECURRING, ids=str)
def test_recurrence_becomes_a_count(members: dict[str, Any], expected: list[tuple[str, int, int | None]]) -> None:
    """How often a user lets it happen is a limit on the number of payments; a budget is one over the mandate's life."""
    budget = {"type": "payment.budget", "max": 500, "currency": "EUR"}
    (one,) = taken(WALLET.open(amounts(), budget, {"type": "payment.agent_recurrence", **members}))
    assert limits_of(one.mandate) == [("eur", 20_000, 0), ("eur", 50_000, None), *expected]


def test_dates_and_preset_members_narrow() -> None:
    """An execution date narrows the validity; a payee or amount that is already set narrows payees and limits."""
    dates = {
        "type": "payment.execution_date",
        "not_before": "2026-09-21T14:14:00Z",
        "not_after": "2026-09-21T14:30:00Z",
    }
    preset = {"payee": OTHER, "payment_amount": {"amount": 700, "currency": "EUR"}}
    (one,) = taken(WALLET.open(amounts(), dates, allowed=ALLOWED, **preset))
    assert one.mandate.payees == ("borealis-hosting",)
    assert limits_of(one.mandate)[0] == ("eur", 700, 0)
    assert one.mandate.not_after - one.mandate.not_before == 16 * 60 * 1_000_000 + 1


def test_a_merchant_that_is_not_disclosed_is_not_paid() -> None:
    """The agent may keep merchants to itself: they are then none of the payees."""
    (one,) = taken(WALLET.open(allowed=ALLOWED, hide=1))
    assert one.mandate.payees == ("borealis-hosting",)


@pytest.mark.parametrize("binding", ["sd_hash", "issuer_jwt_hash"])
def test_a_closed_mandate_stands_below_its_open_one(binding: str) -> None:
    """One payment, of this amount to this payee, below what the user granted; the parent comes with it if it is new."""
    above = WALLET.open(allowed=ALLOWED)
    claims = {"issuer_jwt_hash": hashed(above.split("~")[0])} if binding == "issuer_jwt_hash" else {}
    text = WALLET.closed(above, claims=claims)
    if claims:
        with pytest.raises(AuthorityError):  # both bindings at once
            taken(text)
        own = disclosure(WALLET.payment())
        payload = {"delegate_payload": [{"...": hashed(own)}], "iat": NOW_S, "aud": "https://gate.example", **claims}
        text = above + "~" + "~".join([jws(WALLET.agent, {"typ": "kb+sd-jwt"}, payload), own, ""])
    parent, child = taken(text)
    assert child.mandate.parent is not None
    assert limits_of(child.mandate) == [("eur", 15_000, 0), ("eur", 15_000, None), ("*", 1, None)]
    assert child.mandate.payees == ("acme-paper",)
    assert child.mandate.purpose.startswith(parent.mandate.purpose + ": ")
    (alone,) = taken(text, known={parent.redeems[0]: parent.mandate})
    assert alone == child


def test_a_closed_mandate_may_be_signed_by_the_provider_alone() -> None:
    """With the person present there is no open mandate: one payment, under no parent."""
    (one,) = taken(WALLET.closed(None))
    assert one.mandate.parent is None
    assert len(one.redeems) == 2


def test_ed25519_keys_sign_too_and_the_agent_may_delegate_with_its_own() -> None:
    """EdDSA is read where the policy has such a key; the mandate then names the agent's key."""
    wallet = Wallet(generate(), generate())
    parent, child = taken(wallet.closed(wallet.open()), wallet)
    assert str(parent.mandate.agent_key) == wallet.source()["agent_key"] == str(child.mandate.agent_key)


def test_two_signatures_of_one_document_redeem_the_same() -> None:
    """P-256 lets anybody write a signature in a second way: what is redeemed is what was signed, not how."""
    low, high = WALLET.open(), WALLET.open(high=True)
    parts = low.split("~")[0].split(".")
    raw = base64.urlsafe_b64decode(parts[2] + "==")
    other = ".".join([*parts[:2], b64(raw[:32] + (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big"))])
    assert low != high
    again_ = "~".join([other, *low.split("~")[1:]])
    (one,), (two,) = taken(low), taken(again_)
    assert one.redeems == two.redeems
    assert one.mandate == two.mandate


THIEF = p256(99)
REFUSED: dict[str, tuple[Any, str]] = {
    "another issuer": (lambda: Wallet(issuer=THIEF).open(), "bad_signature"),
    "another agent's key": (lambda: Wallet(agent=THIEF).open(), "ap2_constraint"),
    "no key": (lambda: WALLET.open(cnf={}), "bad_ap2"),
    "a private key": (lambda: WALLET.open(cnf={"jwk": {**jwk_of(WALLET.agent), "d": "AA"}}), "bad_ap2"),
    "another algorithm": (lambda: WALLET.open(header={"alg": "EdDSA"}), "bad_signature"),
    "no algorithm": (lambda: WALLET.open(header={"alg": "none"}), "bad_signature"),
    "a key in the header": (lambda: WALLET.open(header={"jwk": "x"}), "bad_ap2"),
    "critical header": (lambda: WALLET.open(header={"crit": "x"}), "bad_ap2"),
    "another hash": (lambda: WALLET.open(claims={"_sd_alg": "sha-512"}), "ap2_unsupported"),
    "over": (lambda: WALLET.open(exp=NOW_S + 60), "ap2_expired"),
    "over by its token": (lambda: WALLET.open(claims={"exp": NOW_S + 60}), "ap2_expired"),
    "never over": (lambda: _without(WALLET, "exp"), "ap2_unsupported"),
    "unknown constraint": (lambda: WALLET.open(amounts(), {"type": "payment.moon_phase"}), "ap2_unsupported"),
    "instrument constraint": (
        lambda: WALLET.open(amounts(), {"type": "payment.allowed_payment_instruments"}), "ap2_unsupported"
    ),
    "the same constraint twice": (lambda: WALLET.open(amounts(1), amounts(2)), "ap2_unsupported"),
    "a least amount": (lambda: WALLET.open(amounts(min=5)), "ap2_unsupported"),
    "no amount": (lambda: WALLET.open({"type": "payment.execution_date"}), "ap2_unsupported"),
    "an amount in another member": (lambda: WALLET.open(amounts(maximum=5)), "ap2_unsupported"),
    "a float": (lambda: WALLET.open(amounts(1.5)), "bad_ap2"),  # type: ignore[arg-type]
    "a negative amount": (lambda: WALLET.open(amounts(-1)), "bad_ap2"),
    "true": (lambda: WALLET.open(amounts(True)), "bad_ap2"),
    "a budget too large": (
        lambda: WALLET.open({"type": "payment.budget", "max": 2**53 - 1, "currency": "EUR"}), "bad_ap2"
    ),
    "another currency": (lambda: WALLET.open(amounts(currency="USD")), "ap2_constraint"),
    "a currency in small letters": (lambda: WALLET.open(amounts(currency="eur")), "bad_ap2"),
    "two currencies": (
        lambda: Wallet().open(amounts(), {"type": "payment.budget", "max": 1, "currency": "CHF"}), "ap2_constraint"
    ),
    "unknown merchant": (lambda: WALLET.open(allowed=({"id": "thief", "name": "x"},)), "unknown_merchant"),
    "nobody disclosed": (lambda: WALLET.open(allowed=ALLOWED, hide=2), "ap2_constraint"),
    "a hidden constraint": (lambda: _hidden(WALLET), "ap2_unsupported"),
    "unknown frequency": (
        lambda: WALLET.open(amounts(), {"type": "payment.agent_recurrence", "frequency": "HOURLY"}), "bad_ap2"
    ),
    "an unknown member": (lambda: WALLET.open(pisp={"legal_name": "x"}), "ap2_unsupported"),
    "the version before": (lambda: WALLET.open(vct="mandate.payment.open"), "ap2_unsupported"),
    "a checkout mandate": (lambda: WALLET.open(vct="mandate.checkout.open.1"), "ap2_unsupported"),
    "v0.1": (lambda: '{"payment_mandate_contents": {}}', "ap2_unsupported"),
    "not ASCII": (lambda: WALLET.open() + "é", "bad_ap2"),
    "nothing": (lambda: "", "ap2_unsupported"),
    "too long": (lambda: "a" * 24_001, "bad_ap2"),
    "a disclosure that belongs nowhere": (lambda: WALLET.open() + disclosure("x") + "~", "bad_ap2"),
    "a disclosed member": (lambda: WALLET.open() + b64(b'["salt","exp",5]') + "~", "ap2_unsupported"),
    "cut short": (lambda: WALLET.open()[:-1], "ap2_unsupported"),
    "below a closed one": (lambda: WALLET.closed(WALLET.closed(None)), "bad_ap2"),
    "three in a chain": (lambda: WALLET.closed(WALLET.closed(WALLET.open())), "ap2_unsupported"),
    "closed by a thief": (lambda: WALLET.closed(WALLET.open(), key=THIEF), "bad_signature"),
    "closed for another audience": (lambda: WALLET.closed(WALLET.open(), claims={"aud": "x"}), "ap2_constraint"),
    "closed below another one": (
        lambda: WALLET.open(exp=NOW_S + 99) + "~" + WALLET.closed(WALLET.open()).split("~~")[1], "ap2_constraint"
    ),
    "closed above the range": (lambda: WALLET.closed(WALLET.open(amounts(10)), 11), "ap2_constraint"),
    "closed in another currency": (
        lambda: WALLET.closed(WALLET.open(), payment_amount={"amount": 1, "currency": "USD"}), "ap2_constraint"
    ),
    "closed for another payee": (
        lambda: WALLET.closed(WALLET.open(allowed=(MERCHANT,)), payee=OTHER), "ap2_constraint"
    ),
    "closed for a payee of the same id": (
        lambda: WALLET.closed(WALLET.open(allowed=(MERCHANT,)), payee={**MERCHANT, "name": "Thief"}), "ap2_constraint"
    ),
    "closed with another amount than was set": (
        lambda: WALLET.closed(WALLET.open(payment_amount={"amount": 9, "currency": "EUR"}), 8), "ap2_constraint"
    ),
    "closed by an ordinary token": (lambda: WALLET.closed(WALLET.open(), header={"typ": "jwt"}), "bad_ap2"),
    "closed without a transaction": (lambda: WALLET.closed(WALLET.open(), transaction_id=""), "bad_ap2"),
    "a closed one that stays open": (lambda: WALLET.closed(None, cnf={}), "ap2_unsupported"),
}  # fmt: skip


def _without(wallet: Wallet, name: str) -> str:
    content = {key: value for key, value in wallet.content().items() if key != name}
    own = disclosure(content)
    return "~".join([jws(wallet.issuer, {}, {"delegate_payload": [{"...": hashed(own)}]}), own, ""])


def _hidden(wallet: Wallet) -> str:
    """A constraint that the agent does not disclose, since it would be in its way."""
    secret = disclosure(amounts(1))
    content = wallet.content()
    content["constraints"] = [amounts(10**9), {"...": hashed(secret)}]
    own = disclosure(content)
    return "~".join([jws(wallet.issuer, {}, {"delegate_payload": [{"...": hashed(own)}]}), own, ""])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_verified_or_enforced_is_refused(name: str) -> None:
    """Each with its reason, and by the independent verifier too."""
    make, code = REFUSED[name]
    with pytest.raises(CountermarkError) as caught:
        taken(make())
    assert caught.value.code == code


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_altered_anywhere_refuses_the_document(place: int, mask: int) -> None:
    """Whatever is flipped in a chain of two: no mandate comes of it, and no foreign exception."""
    text = CHAIN
    index = place % len(text)
    altered = text[:index] + chr(ord(text[index]) ^ mask) + text[index + 1 :]
    with pytest.raises(CountermarkError):
        taken(altered)


CHAIN = WALLET.closed(WALLET.open(allowed=ALLOWED))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text("ey.~JA_-=", max_size=60))
def test_no_foreign_exception_leaves(text: str) -> None:
    """Junk is refused with our own error by both readers."""
    with pytest.raises((AuthorityError, SignatureError)):
        taken(text)


@pytest.mark.parametrize(
    "text", ["", "es256:", "es256:AA", "es256:" + b64(b"\4" + b"\1" * 64), "es256:" + b64(b"\2" * 65), "rsa:x", None, 7]
)
def test_a_key_that_is_no_key_is_not_enrolled(text: Any) -> None:
    """Points that are not on the curve, compressed ones and other kinds are refused."""
    with pytest.raises(SignatureError) as caught:
        JoseKey.parse(text)
    assert caught.value.code in ("bad_key", "bad_signature")


def _raw(payload: bytes) -> str:
    """A document whose payload is these bytes, signed by the provider."""
    head = b64(b'{"alg":"ES256"}') + "." + b64(payload)
    return head + "." + b64(sign(WALLET.issuer, head.encode())) + "~"


JUNK = {
    "UTF-16": '{"delegate_payload":[]}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"delegate_payload":[]}',
    "half of a surrogate pair": b'{"delegate_payload":[],"iss":"\\ud800"}',
    "too deep": b'{"delegate_payload":' + b'{"a":' * 900 + b"1" + b"}" * 901,
    "an integer that JSON readers round": b'{"delegate_payload":[],"iat":9007199254740992}',
}


@pytest.mark.parametrize("name", JUNK)
def test_json_that_is_not_strict_is_refused(name: str) -> None:
    """Also when the provider's own key signed it: before anything in it is read, and by both readers."""
    place = again.Place(WALLET.source(), HERE.deployment, HERE.currencies, HERE.at, lambda _: None)
    with pytest.raises(Malformed, match=r"JSON|nested|integer"):
        again.derive(_raw(JUNK[name]), place)
    with pytest.raises(AuthorityError, match="strict JSON"):
        taken(_raw(JUNK[name]))


@pytest.mark.parametrize("frequency", [["DAILY"], {"a": 1}, None, 7, True])
def test_a_frequency_that_is_no_word_is_refused(frequency: Any) -> None:
    """Values that cannot be looked up end as a refusal like any other."""
    with pytest.raises(AuthorityError):
        taken(WALLET.open(amounts(), {"type": "payment.agent_recurrence", "frequency": frequency}))


def test_unused_members_are_read_strictly_too() -> None:
    """An integer that nobody looks at may still be no other to the next reader of JSON."""
    with pytest.raises(AuthorityError):
        taken(WALLET.open(risk_data={"score": 99_999_999_999_999_999}))


def test_a_private_key_is_no_key_of_an_agent() -> None:
    """Of either kind."""
    for wallet in (WALLET, Wallet(agent=generate())):
        with pytest.raises(CountermarkError):
            taken(wallet.open(cnf={"jwk": {**jwk_of(wallet.agent), "d": b64(b"\1" * 32)}}), wallet)
