"""AP2 payment mandates that a gate accepted (docs/spec/ap2.md), honestly and not, and limits that count payments."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from build import Key, digest, doc_digest, seeded
from bundle import plain_bundle
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lies import lie
from scribe import DEPLOYMENT, START_US, Story
from story import TRANSFER, opened, pay, root_of_story

START_S = START_US // 1_000_000
ISSUER = Key("ap2/provider")
AGENT = ec.derive_private_key(int.from_bytes(seeded("ap2/agent", 32), "big") >> 1, ec.SECP256R1())
POINT = AGENT.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
AUDIENCE = "https://gate.example"
AURORA = {"id": "M-1", "name": "Aurora"}
ANSWER_LIMIT = ("deny", "mandate", "mandate_limit")


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


SOURCE = {
    "id": "wallet",
    "issuer": ISSUER.text,
    "principal": "director",
    "agent": "payer",
    "agent_key": "es256:" + b64url(POINT),
    "audience": AUDIENCE,
    "tools": [TRANSFER],
    "payees": [["M-1", "aurora"], ["M-2", "borealis"]],
}


def ap2_bundle(**more: Any) -> dict[str, Any]:
    bundle = plain_bundle("ap2")
    bundle["compiled"]["ap2"] = [SOURCE | more]
    return bundle


def told(value: Any) -> str:
    return b64url(json.dumps(["c2FsdA", value]).encode())


def named(text: str) -> str:
    return b64url(hashlib.sha256(text.encode()).digest())


def signed(kind: str, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A JWS, by the provider (EdDSA) or by the agent (ES256; RFC 6979, so that it comes out the same every time)."""
    message = ".".join(b64url(json.dumps(part).encode()) for part in ({"alg": kind, **header}, claims))
    if kind == "EdDSA":
        return f"{message}.{b64url(ISSUER.private.sign(message.encode()))}"
    der = AGENT.sign(message.encode(), ec.ECDSA(SHA256(), deterministic_signing=True))
    return f"{message}.{b64url(b''.join(part.to_bytes(32, 'big') for part in decode_dss_signature(der)))}"


def opening(most: int = 20_000, often: int | None = 2, **more: Any) -> str:
    """An open payment mandate of the provider's user."""
    recurs = [{"type": "payment.agent_recurrence", "frequency": "ON_DEMAND", "max_occurrences": often}] if often else []
    content = {
        "vct": "mandate.payment.open.1",
        "constraints": [
            {"type": "payment.amount_range", "currency": "EUR", "max": most},
            {"type": "payment.allowed_payees", "allowed": [{"...": named(told(AURORA))}]},
            {"type": "payment.reference", "conditional_transaction_id": "b3JkZXI"},
            *recurs,
        ],
        "cnf": {"jwk": {"kty": "EC", "crv": "P-256", "x": b64url(POINT[1:33]), "y": b64url(POINT[33:])}},
        "iat": START_S,
        "exp": START_S + 7_200,
    } | more
    own = told(content)
    return "~".join([signed("EdDSA", {"typ": "dc+sd-jwt"}, {"delegate_payload": [{"...": named(own)}]}), own,
                     told(AURORA), ""])  # fmt: skip


def closing(above: str, transaction: str, amount: int = 9_000, **more: Any) -> str:
    """The same with a closed mandate of the agent below it."""
    content = {
        "vct": "mandate.payment.1",
        "transaction_id": transaction,
        "payee": AURORA,
        "payment_amount": {"amount": amount, "currency": "EUR"},
        "payment_instrument": {"id": "i-1", "type": "card"},
    } | more
    own = told(content)
    claims = {"delegate_payload": [{"...": named(own)}], "iat": START_S, "aud": AUDIENCE, "nonce": "n-1",
              "sd_hash": named(above)}  # fmt: skip
    return above + "~" + "~".join([signed("ES256", {"typ": "kb+sd-jwt"}, claims), own, ""])


def name_of(kind: str, text: str) -> str:
    return digest("redemption", f"{kind}\0{text}".encode())


def accept(story: Story, text: str, limits: list[list[Any]], *, parent: str | None = None, transaction: str = "",
           source: str = "wallet", **more: Any) -> str:  # fmt: skip
    """Write the acceptance of a text's last document. `limits` are [currency, amount, over]. Answers the digest."""
    last = text.split("~~")[-1].split("~")[0].rpartition(".")[0]
    redeems = [name_of("mandate", last)] + ([name_of("transaction", transaction)] if transaction else [])
    purpose = "AP2 payment mandate" + (f": transaction {transaction}" if transaction else "")
    document = {
        "v": 1,
        "deployment": DEPLOYMENT,
        "parent": parent,
        "principal": "director",
        "agent": "payer",
        "agent_key": None,
        "tools": [TRANSFER],
        "payees": ["aurora"],
        "limits": [{"currency": coin, "amount": amount, "over_us": over} for coin, amount, over in limits],
        "named": [],
        "purpose": purpose,
        "not_before": START_S * 1_000_000,
        "not_after": (START_S + 7_200) * 1_000_000,
        "nonce": redeems[0].removeprefix("sha256:")[:32],
    } | more
    name = doc_digest("mandate", document)
    story.mandates[name] = document
    body = {"source": source, "ap2": text, "mandate": document, "digest": name, "redeems": redeems}
    story.add("mandate.accepted", "gate", [], body)
    return name


GRANTED: list[list[Any]] = [["EUR", 20_000, 0], ["*", 2, None]]


def once(amount: int = 9_000) -> list[list[Any]]:
    return [["EUR", amount, 0], ["EUR", amount, None], ["*", 1, None]]


def accepted(story: Story) -> tuple[str, str]:
    """An open mandate and a closed one below it; answers their digests."""
    above = opening()
    wide = accept(story, above, GRANTED)
    return wide, accept(story, closing(above, "t-1"), once(), parent=wide, transaction="t-1")


def honest() -> Story:
    """Two payments under one open mandate, the second after a failure; a third is one too many."""
    story = opened("honest-ap2", bundle=ap2_bundle())
    wide, first = accepted(story)
    run = story.run("payer", first)
    story.settle(pay(story, 1, 9_000, run=run), "failed")
    story.settle(pay(story, 2, 9_000, run=run))
    pay(story, 3, 100, answer=(*ANSWER_LIMIT, [first]), run=run)
    above = opening()
    second = accept(story, closing(above, "t-2", 8_000), once(8_000), parent=wide, transaction="t-2")
    other = story.run("payer", second)
    story.settle(pay(story, 4, 8_000, run=other))
    third = accept(story, closing(above, "t-3", 7_000), once(7_000), parent=wide, transaction="t-3")
    pay(story, 5, 7_000, answer=(*ANSWER_LIMIT, [wide]), run=story.run("payer", third))
    counted = story.grant("payer", [[50_000, None], [2, 3_600_000_000, "*"]])
    run = story.run("payer", counted)
    for number in (6, 7):
        story.settle(pay(story, number, 1_000, run=run))
    pay(story, 8, 1_000, answer=(*ANSWER_LIMIT, [counted]), run=run)
    return story


def last(story: Story) -> int:
    return len(story.log.leaves) - 1


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_document_altered_by_a_byte(story: Story) -> int:
    # One character of the signature: everything that is read from the document stays as it was.
    text = opening()
    jwt, rest = text.split("~", 1)
    place = len(jwt) - 20
    changed = jwt[:place] + ("A" if jwt[place] != "A" else "B") + jwt[place + 1 :] + "~" + rest
    accept(story, changed, GRANTED)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_mandate_redeemed_twice(story: Story) -> int:
    accepted(story)
    accept(story, opening(), GRANTED)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_transaction_redeemed_twice(story: Story) -> int:
    # Another document for the same order: the agent closed it again under a later mandate of its user.
    accepted(story)
    above = opening(exp=START_S + 7_000)
    end = {"not_after": (START_S + 7_000) * 1_000_000}
    wide = accept(story, above, GRANTED, **end)
    accept(story, closing(above, "t-1"), once(), parent=wide, transaction="t-1", **end)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_mandate_larger_than_its_document(story: Story) -> int:
    accept(story, opening(), [["EUR", 200_000, 0], ["*", 2, None]])
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_mandate_for_more_payments_than_its_document(story: Story) -> int:
    accept(story, opening(often=None), GRANTED)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_mandate_for_another_agent(story: Story) -> int:
    accept(story, opening(), GRANTED, agent="clerk")
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_mandate_for_any_payee(story: Story) -> int:
    accept(story, opening(), GRANTED, payees=["*"])
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_of_a_source_that_the_policy_lacks(story: Story) -> int:
    accept(story, opening(), GRANTED, source="elsewhere")
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle(issuer=Key("ap2/another").text))
def ap2_signed_by_another_provider(story: Story) -> int:
    accept(story, opening(), GRANTED)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle(principal="controller"))
def ap2_source_whom_no_principal_answers_for(story: Story) -> int:
    accept(story, opening(), GRANTED, principal="controller")
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_accepted_after_its_end(story: Story) -> int:
    story.wait(7_200)
    accept(story, opening(), GRANTED)
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_closed_above_what_was_opened(story: Story) -> int:
    above = opening()
    wide = accept(story, above, GRANTED)
    accept(story, closing(above, "t-1", 20_001), once(20_001), parent=wide, transaction="t-1")
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_closed_below_an_open_one_that_was_never_accepted(story: Story) -> int:
    wide = accept(story, opening(), GRANTED)
    accept(story, closing(opening(most=30_000), "t-1"), once(), parent=wide, transaction="t-1")
    return last(story)


@lie("V10.ap2", bundle=ap2_bundle())
def ap2_closed_before_its_open_one_was_accepted(story: Story) -> int:
    # What the open one would become is no secret: its digest can be named before there is such a mandate.
    wide, _ = accepted(opened("ap2 elsewhere", bundle=ap2_bundle()))
    accept(story, closing(opening(), "t-1"), once(), parent=wide, transaction="t-1")
    accept(story, opening(), GRANTED)
    return last(story) - 1


@lie("V14.decision", bundle=ap2_bundle())
def payment_below_a_revoked_ap2_mandate(story: Story) -> int:
    wide, first = accepted(story)
    run = story.run("payer", first)
    story.revoke(wide)
    return pay(story, 1, 9_000, run=run).seq


@lie("V13.limit", "V14.decision", bundle=ap2_bundle())
def second_payment_of_an_ap2_mandate_for_one(story: Story) -> int:
    _, first = accepted(story)
    run = story.run("payer", first)
    story.settle(pay(story, 1, 4_000, run=run))
    return pay(story, 2, 4_000, run=run).seq


# --- bundles ---


def _activated(story: Story, **more: Any) -> int:
    bundle = plain_bundle("bent")
    bundle["compiled"] |= more
    return story.activate(bundle)


@lie("V09.bundle")
def policy_with_an_empty_list_of_ap2_sources(story: Story) -> int:
    return _activated(story, ap2=[])


@lie("V09.bundle")
def policy_whose_ap2_agent_is_its_provider(story: Story) -> int:
    return _activated(story, ap2=[SOURCE | {"agent_key": ISSUER.text}])


@lie("V09.bundle")
def policy_with_an_ap2_key_that_is_no_point(story: Story) -> int:
    return _activated(story, ap2=[SOURCE | {"agent_key": "es256:" + b64url(b"\x04" + bytes(64))}])


@lie("V09.bundle")
def policy_with_a_merchant_of_two_payees(story: Story) -> int:
    return _activated(story, ap2=[SOURCE | {"payees": [["M-1", "aurora"], ["M-1", "borealis"]]}])


@lie("V09.bundle")
def policy_whose_console_is_no_page(story: Story) -> int:
    return _activated(story, console="https://pay.example/somewhere")


@lie("V09.bundle")
def policy_with_a_key_that_signs_whatever_is_wanted(story: Story) -> int:
    # A point of small order: anybody makes signatures that fit it.
    people = plain_bundle("bent")["compiled"]["people"]
    weak = [row | {"keys": ["ed25519:" + base64.b64encode(bytes(32)).decode()]} if row["id"] == "treasurer" else row
            for row in people]  # fmt: skip
    return _activated(story, people=weak)


# --- purposes and counts of ordinary mandates ---


@lie("V10.mandate")
def child_for_another_purpose(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story), purpose="pay salaries")
    return last(story)


@lie("V10.mandate")
def child_whose_purpose_only_begins_alike(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story), purpose="pay invoices and salaries")
    return last(story)


@lie("V10.mandate", limits=[[1_000_000, None], [3, None, "*"]])
def child_for_more_payments(story: Story) -> int:
    story.grant("clerk", [[1_000, 0], [4, None, "*"]], root_of_story(story))
    return last(story)


@lie("V13.limit", "V14.decision", limits=[[1_000_000, None], [1, None, "*"]])
def one_payment_more_than_the_mandate_counts(story: Story) -> int:
    story.settle(pay(story, 1))
    return pay(story, 2).seq


@lie("V13.budget", limits=[[1_000_000, None], [5, None, "*"]])
def payments_counted_by_their_amount(story: Story) -> int:
    return pay(story, 1, alter=lambda body: body["budgets"][1].__setitem__(2, body["terms"]["amount"])).seq
