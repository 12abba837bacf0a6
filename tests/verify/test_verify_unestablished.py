"""What a pack cannot show is said: withheld values that decide, erased ones; and rules of tiers and bookings."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from verify_builder import Maker, bundle_document, story
from verify_bytes import canon, digest

from countermark_verify import Report, parse_trust, verify
from countermark_verify.bundle import read_bundle
from countermark_verify.decide import _after_approval, cedar_request
from countermark_verify.rules import UNSURE, Rules

PAID = {"amount": 4, "to": "iban 1", "invoice": "Q"}


def judge(maker: Maker, **more: Any) -> Report:
    return verify(maker.pack(**more), parse_trust(json.dumps(maker.trust()).encode()))


def sealing(alias: str) -> Maker:
    """A lane whose bundle declares one more argument sensitive, and one payment whose value is sealed."""
    document = json.loads(canon(bundle_document()))
    for item in document["compiled"]["tools"][0]["args"]:
        item["sensitive"] = item["sensitive"] or item["alias"] == alias
    document["compiled"]["tools"][0]["reads"] = ["amount", "facts.day_sum", "facts.payee_known"]
    asked = '{ context has args && context.args has invoice && context.args.invoice == "fraud" }'
    document["compiled"]["cedar"] = document["compiled"]["cedar"].replace(asked, "{ false }")
    document["compiled"]["schema"] = document["compiled"]["schema"].replace('"args"?: {"invoice"?: String}, ', "")
    maker = Maker()
    maker.bundle = canon(document)
    maker.bundle_digest = digest("bundle", maker.bundle)
    return maker.open()


def pay_sealed(maker: Maker, call: str, alias: str, obligation: str) -> None:
    """An honest payment, then the same with one value sealed: what the builder derived from it is derived again."""
    honest = copy.deepcopy(maker).decide(call, "bank.pay", PAID)["body"]
    args = honest["args"] | {alias: maker._seal(alias, PAID[alias])}
    action = digest("action", canon({"run": "run1", "call_id": call, "tool": "bank.pay", "args": args}))
    key = "cm_" + digest("provider-key", canon(["acme", "payer", "run1", call, action]))[7:55]
    body = honest | {"args": args, "action": action, "key": key, "salt": None, "obligation": obligation}
    record = maker.add("action.decided", body)
    maker.intents.append(record | {"outcome": None})
    maker.settle(record)


def test_a_withheld_value_that_decides_leaves_the_pack_incomplete() -> None:
    """`V12.withheld` with the count, for a payee and for a business key; a sealed memo decides nothing."""
    for alias in ("to", "invoice"):
        maker = sealing(alias)
        pay_sealed(maker, "x", alias, maker_obligation(maker) if alias == "to" else "sha256:" + "1" * 64)
        maker.opened, sealed = [], maker.sealed
        report = judge(maker, withheld=sealed, disclosed=0)
        (finding,) = [item for step in report.steps for item in step.findings]
        assert (report.verdict, finding.code, finding.actual) == ("incomplete", "V12.withheld", 1)
    maker = Maker().open()
    maker.settle(maker.decide("x", "bank.pay", PAID | {"memo": "for Jane"}))
    maker.opened, maker.salts = [], []
    assert judge(maker, withheld=1, disclosed=0).verdict == "verified"


def maker_obligation(maker: Maker) -> str:
    name: str = copy.deepcopy(maker).decide("y", "bank.pay", PAID)["body"]["obligation"]
    return name


def test_a_disclosed_value_has_one_business_key() -> None:
    """The key of a sealed value cannot be derived; but one invoice has one, or it could be paid many times."""
    maker = sealing("invoice")
    pay_sealed(maker, "x", "invoice", "sha256:" + "1" * 64)
    assert judge(maker).codes() == []
    pay_sealed(maker, "y", "invoice", "sha256:" + "2" * 64)
    assert judge(maker).codes() == ["V12.obligation"]


def test_values_that_no_record_erased_refute_the_pack() -> None:
    """Whoever has something gone has a record that says by whom, and the other way round: `V15.erased`."""
    maker = Maker().open()
    maker.settle(maker.decide("x", "bank.pay", PAID | {"memo": "for Jane"}))
    maker.opened, maker.salts = [], []
    report = judge(maker, erased=1, disclosed=0)
    assert (report.verdict, report.codes()) == ("refuted", ["V15.erased"])


def test_the_tier_is_that_of_the_last_start() -> None:
    """`V11.run`, at the decision."""
    maker = story()
    maker.settle(maker.decide("x", "bank.pay", PAID, tier="embedded"), tier="embedded")
    assert (judge(maker).codes(), judge(maker).first_bad_seq) == (["V11.run"], 20)
    started = maker.records[0]["body"] | {"tier": "embedded", "recovered": 20}
    maker = story()
    maker.add("gate.started", started)
    maker.settle(maker.decide("x", "bank.pay", PAID, tier="embedded"), tier="embedded")
    assert judge(maker).codes() == []


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({"settled": {"amount": 4, "currency": "EUR"}}, []),
        ({"settled": {"amount": 0, "currency": "EUR"}}, ["V11.outcome"]),
        ({"settled": {"amount": 5, "currency": "EUR"}}, ["V11.outcome"]),
        ({"settled": {"amount": 5, "currency": "EUR"}, "code": "booked_differently"}, []),
        ({"settled": {"amount": 4, "currency": "EUR"}, "outcome": "failed"}, ["V11.outcome"]),
    ],
)
def test_another_amount_has_its_code(more: dict[str, Any], codes: list[str]) -> None:
    """What moved is stated by confirmations alone, and another amount under `booked_differently` alone."""
    maker = story()
    maker.settle(maker.decide("x", "bank.pay", PAID), **more)
    if "code" in more:
        scope = {"kind": "tool", "value": "bank.pay"}
        maker.add("kill.set", {"scope": scope, "reason": more["code"], "kill": "kill_" + "1" * 16})
    assert judge(maker).codes() == codes


VOID = ["deny", "approval", "approval_void", ["reasons"]]


@pytest.mark.parametrize(
    ("amount", "known", "expected"),
    [
        (60_000, True, [["flag", "policy", "flagged", ["pay", "pay-large"]]]),
        (10, True, [VOID]),
        (950_000, True, [VOID]),
        (10, False, [VOID]),
        (60_000, False, [["deny", "policy", "not_permitted", []], VOID]),
        (None, True, [VOID]),
    ],
)
def test_an_approval_lifts_exactly_what_was_asked(amount: int | None, known: bool, expected: list[Any]) -> None:
    """An allow, another forbid, no permit, an error: the approval is void."""
    pytest.importorskip("cedarpy")
    source = read_bundle(canon(bundle_document()))
    policies = Rules(source)
    terms = {"amount": amount or 60_000, "currency": "EUR", "payee": "payee1"}
    body = {"agent": "payer", "tool": "bank.pay", "terms": terms, "args": {}, "bundle": "b", "request": "r"}
    body["facts"] = {"payee_known": known, "day_sum": 1}
    request = cedar_request(body, source)
    raised = {"ladders": {"finance": ["ask"]}, "bundle": "b", "request": "r"}
    answer = UNSURE if amount is None else policies.ask(request)
    assert [item.as_list() for item in _after_approval(policies, request, answer, body, raised)] == expected
    changed = raised | {"bundle": "c", "request": "s"}
    (void,) = _after_approval(policies, request, UNSURE, body, changed)
    assert void.reasons == ["bundle", "reasons", "request"]
