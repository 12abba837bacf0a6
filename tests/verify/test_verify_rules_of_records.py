"""Rules of records without a step of their own: narrowing, the place of escalations, records that cannot be read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from verify_builder import DAY, Maker, story
from verify_bytes import canon, digest, key_text, sign

from countermark_verify import Report, arguments, parse_trust, verify
from countermark_verify.canon import INTEGER_MAX
from countermark_verify.facts import MISSING, Facts, Intent

LIMITS = [{"currency": "EUR", "amount": 700, "over_us": 0}, {"currency": "EUR", "amount": 9_000, "over_us": DAY}]


def judge(maker: Maker, *sizes: int) -> Report:
    return verify(maker.pack(), parse_trust(json.dumps(maker.trust(*sizes)).encode()))


def found(report: Report) -> list[tuple[str, int | None]]:
    return [(item.code, item.seq) for step in report.steps for item in step.findings]


def child(signer: str = "payer", **changes: Any) -> Report:
    maker = story()
    wide = maker.grant("principal", None, nonce="wide", limits=LIMITS, named=["0" * 32], agent_key=key_text("payer"))
    maker.grant(signer, wide, **{"nonce": "child", "limits": LIMITS, "named": ["0" * 32]} | changes)
    return judge(maker)


def limit(amount: int, over_us: int | None, currency: str = "EUR") -> list[dict[str, Any]]:
    return [{"currency": currency, "amount": amount, "over_us": over_us}]


@pytest.mark.parametrize(
    "changes",
    [{}, {"named": []}, {"limits": []}, {"limits": limit(700, 0)}, {"limits": limit(10**9, None)}, {"tools": []}],
)
def test_a_child_that_narrows_is_good(changes: dict[str, Any]) -> None:
    """Equal, smaller or other windows: every limit of the parent stays in force for the child's actions anyway."""
    assert found(child(**changes)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"named": ["0" * 32, "1" * 32]},
        {"limits": limit(701, 0)},
        {"limits": limit(9_001, DAY)},
        {"limits": [*LIMITS, *limit(1, 0, "USD")]},
        {"principal": "treasurer"},
        {"not_before": 1},
        {"payees": ["*", "payee1"], "tools": ["*"], "limits": limit(701, 0)},
    ],
)
def test_a_child_that_grants_more_is_refuted(changes: dict[str, Any]) -> None:
    """`V10.mandate` at the grant: names, amounts, currencies, and the principal of a child that an agent signed."""
    report = child(**changes)
    assert ("V10.mandate", len(story().records) + 1) in found(report)
    assert report.verdict == "refuted"


def test_a_child_of_a_mandate_without_limits_may_have_any() -> None:
    """A mandate without limits grants every currency."""
    maker = story()
    wide = maker.grant("principal", None, nonce="wide", limits=[])
    maker.grant("principal", wide, nonce="child", limits=limit(1, 0, "USD"))
    assert found(judge(maker)) == []


def test_only_an_enrolled_person_may_revoke_or_clear() -> None:
    """The auditor knows the leaver's key; the bundle in force does not, so the leaver's orders are refuted."""
    for person, codes in (("treasurer", []), ("leaver", ["V10.mandate", "V10.clearance"])):
        maker = story()
        revocation = {"deployment": "acme", "mandate": maker.mandate, "person": person, "reason": "r"}
        maker.add("mandate.revoked", {"revocation": revocation, **sign(person, "revocation", revocation)})
        kill = "kill_" + "1" * 16
        maker.add("kill.set", {"scope": {"kind": "tool", "value": "none"}, "reason": "r", "kill": kill})
        clearance = {"deployment": "acme", "kill": kill, "person": person, "reason": "r"}
        maker.add("kill.cleared", {"clearance": clearance, **sign(person, "clearance", clearance)})
        assert judge(maker).codes() == codes


def test_nothing_is_allowed_by_a_gate_that_has_stopped() -> None:
    """After `gate.stopped` only a start lets intents follow."""
    for start, codes in ((True, []), (False, ["V11.run"])):
        maker = story()
        maker.add("gate.stopped", {"reason": "r"})
        if start:
            maker.add("gate.started", maker.records[0]["body"] | {"recovered": len(maker.records)})
        maker.settle(maker.decide("x", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-1"}))
        assert judge(maker).codes() == codes


def test_what_was_executed_was_attempted() -> None:
    """A confirmation by execution has at least one attempt."""
    maker = story()
    maker.settle(maker.decide("x", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-1"}), attempts=0)
    assert judge(maker).codes() == ["V11.outcome"]


def test_a_pack_does_not_end_between_a_decision_and_its_escalation() -> None:
    """Both are in one commit: neither the pack's head nor a retained one lies between them."""
    maker = story()
    decided = maker.decide("y", "bank.pay", {"amount": 70_000, "to": "iban 3", "invoice": "y"})
    assert found(judge(maker))[0] == ("V11.escalation", decided["seq"])
    maker.escalate(decided)
    assert found(judge(maker)) == []
    assert ("V11.escalation", decided["seq"]) in found(judge(maker, decided["seq"] + 1, len(maker.records)))


def test_a_restart_names_its_own_place() -> None:
    """`recovered` is the record's own seq; findings about `gate.started` name the record."""
    for place, codes in ((0, []), (1, [("V03.mismatch", len(story().records))])):
        maker = story()
        started = maker.records[0]["body"] | {"recovered": len(maker.records) + place}
        maker.add("gate.started", started)
        assert found(judge(maker)) == codes


@pytest.mark.parametrize(
    "change",
    [{"settled": {"amount": 5, "currency": "EUR"}}, {"http_status": None}, {"ref": None}, {"http_status": True}],
)
def test_an_outcome_that_moved_nothing_says_so(change: dict[str, Any]) -> None:
    """`settled` is null unless confirmed; the answer's status is a number, 0 without an answer."""
    maker = story()
    paid = maker.decide("x", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-1"})
    maker.settle(paid, "failed", **change)
    assert judge(maker).first_bad_seq == paid["seq"] + 1


def relinked(maker: Maker, seq: int, raw: bytes) -> Maker:
    """Another record at this place; the later ones name the digests that follow from it."""
    changes = {digest("record", maker.raw[seq])[7:]: digest("record", raw)[7:]}
    maker.raw[seq] = raw
    for place in range(seq + 1, len(maker.raw)):
        text = maker.raw[place].decode()
        for old, new in changes.items():
            text = text.replace(old, new).replace("esc_" + old[:32], "esc_" + new[:32])
        changes[digest("record", maker.raw[place])[7:]] = digest("record", text.encode())[7:]
        maker.raw[place] = text.encode()
    return maker


def test_a_denial_lifts_nothing() -> None:
    """`lifted` is empty unless the disposition is allow or flag, whatever stage denied."""
    maker = story()
    args = {"amount": 70_000, "to": "iban 3", "invoice": "y"}
    raised = maker.escalate(maker.decide("y", "bank.pay", args))
    maker.answer(raised, "controller", "pending")
    kill = "kill_" + "0" * 16
    maker.add("kill.set", {"scope": {"kind": "agent", "value": "payer"}, "reason": "r", "kill": kill})
    maker.answer(raised, "treasurer", "approved")
    denied = {"disposition": "deny", "stage": "kill", "code": "killed", "reasons": [kill], "facts": {}, "budgets": []}
    last = maker.decide("y", "bank.pay", args, escalation=raised["body"]["escalation"], **denied)
    assert found(judge(maker)) == []
    lie = canon(last | {"body": last["body"] | {"lifted": ["ask"]}})
    assert found(judge(relinked(maker, last["seq"], lie))) == [("V14.decision", last["seq"])]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda raw: raw[:-1],
    "another member": lambda raw: raw[:-1] + b',"z":1}',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("seq", [4, 5, 6, 9, 12, 13, 19])
def test_a_record_that_cannot_be_read_breaks_no_stream(seq: int, damage: str) -> None:
    """What follows an unreadable record in its streams is not called a gap; the record itself is named."""
    maker = story()
    report = judge(relinked(maker, seq, DAMAGE[damage](maker.raw[seq])))
    assert ("V04.record", seq) in found(report)
    assert not [code for code in report.codes() if code.startswith("V06.")], found(report)
    assert report.first_bad_seq == seq


def test_a_gap_is_still_a_gap_behind_a_record_that_cannot_be_read() -> None:
    """An unreadable record stands for itself only: not for a second one that is missing, nor for another digest."""
    maker = story()
    relinked(maker, 5, DAMAGE["no JSON"](maker.raw[5]))
    later = json.loads(maker.raw[6])
    for change in ((1, 0), (0, 1)):
        streams = {
            name: [seq + change[0], prev if not change[1] else "sha256:" + "e" * 64]
            for name, (seq, prev) in later["streams"].items()
        }
        lying = relinked(copy.deepcopy(maker), 6, canon(later | {"streams": streams}))
        assert ("V06.stream", 6) in found(judge(lying))


def test_a_wrong_writer_is_refuted_and_the_record_still_counts() -> None:
    """`by` is judged apart, so that one lie does not make every later record of the action look wrong."""
    maker = story()
    paid = maker.decide("x", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-1"})
    maker.settle(paid)
    assert found(judge(relinked(maker, paid["seq"], canon(paid | {"by": "gate"})))) == [("V04.record", paid["seq"])]


def test_a_fact_that_no_record_could_hold_is_missing() -> None:
    """Above 2^53-1 a window has no value; at the bound it still has one."""
    document = {"name": "sum", "kind": "window", "of": "amount", "over_us": DAY, "group": [], "where": []}
    document |= {"use": "cap", "tool": "", "field": ""}
    facts = Facts([document])
    terms = {"amount": INTEGER_MAX - 1, "currency": "EUR", "payee": None}
    fields = {"agent": "a", "run": "r", "tool": "t", "mandate": "m", **terms}
    facts.intent(Intent(0, "d", "a", 0, fields, [], terms, None, "enforcing", "b"))
    assert facts.compute(document, fields | {"amount": 1}, 1, []) == INTEGER_MAX
    assert facts.compute(document, fields | {"amount": 2}, 1, []) is MISSING


def test_an_agent_that_the_bundle_does_not_know_is_nobody() -> None:
    """Cedar takes an unknown principal as one without attributes; the strict decision is `policy_error`."""
    pytest.importorskip("cedarpy")
    maker = Maker()
    document = json.loads(maker.bundle)
    document["compiled"]["agents"] = []
    document["compiled"]["entities"] = json.dumps(json.loads(document["compiled"]["entities"])[1:])
    maker.bundle = canon(document)
    maker.bundle_digest = digest("bundle", maker.bundle)
    decided = maker.open().decide("c", "erp.read", {"invoice": "I"})
    maker.settle(decided)
    report = judge(maker)
    assert found(report) == [("V10.mandate", 2), ("V11.run", 3), ("V14.decision", decided["seq"])]
    *_, finding = [item for step in report.steps for item in step.findings]
    assert finding.expected == ["deny", "policy", "policy_error", []]


def appended(**more: Any) -> list[tuple[str, int | None]]:
    """The findings about one more payment of the story, settled when it is an intent; `more` changes its body."""
    maker = story()
    args = more.pop("args", {"amount": 40, "to": "iban 1", "invoice": "X-1"})
    paid = maker.decide("x", "bank.pay", args, **more)
    if paid["body"]["disposition"] in ("allow", "flag"):
        maker.settle(paid)
    return found(judge(maker))


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"amount": 40, "to": "iban 1"}, None),
        ({"amount": 0, "to": "iban 1"}, "V12.action"),
        ({"amount": True, "to": "iban 1"}, "V04.record"),
        ({"amount": 40, "to": "iban 1", "invoice": "x" * 201}, "V12.action"),
        ({"amount": 40, "to": "iban 1", "invoice": "I\u00ad1"}, "V12.obligation"),
        ({"amount": 40, "to": "iban 1", "invoice": " - "}, "V12.obligation"),
        ({"amount": 40, "to": "iban 1", "colour": "red"}, "V12.action"),
    ],
)
def test_arguments_are_what_their_tool_declares(args: dict[str, Any], code: str | None) -> None:
    """Type, bounds, length, and what a business key may hold; nothing unknown."""
    maker = Maker().open()
    args = args | ({"invoice": "I"} if code is None else {})
    maker.settle(maker.decide("x", "bank.pay", args))
    codes = judge(maker).codes()
    assert (code in codes) if code else codes == []


def declared(**changes: Any) -> dict[str, Any]:
    item = {"type": "string", "class": "inert", "enum": [], "pattern": "", "minimum": None, "maximum": None}
    return item | {"chars_max": 50, **changes}


@pytest.mark.parametrize(
    ("item", "good", "bad"),
    [
        (declared(pattern="(ba|card)_[A-Za-z0-9]{1,64}"), "ba_1", "ba_1 "),
        (declared(enum=["a", "b"]), "a", "c"),
        (declared(chars_max=2), "ab", "abc"),
        (declared(type="integer", minimum=-2, maximum=3), -2, 4),
        (declared(type="integer", **{"class": "amount"}), 1, 0),
        (declared(type="integer"), 0, False),
        (declared(type="boolean"), True, 1),
    ],
)
def test_values_fit_their_declaration(item: dict[str, Any], good: Any, bad: Any) -> None:
    """One good and one bad value for each kind of bound."""
    assert arguments.misfit(item, good) == ""
    assert arguments.misfit(item, bad) != ""


@pytest.mark.parametrize("pattern", ["(a+)+b", "a*a*a*a*a*b", "(a|a)*b", "(a{1,9}){1,99}", "(", "(?:a|b)c"])
def test_a_pattern_that_could_take_for_ever_is_not_evaluated(pattern: str) -> None:
    """Patterns come from the pack: a costly one leaves the verdict incomplete instead of hanging the auditor."""
    item = declared(pattern=pattern, chars_max=1_000)
    assert arguments.misfit(item, "a" * 999) == ""
    assert not arguments.matches(item, "a" * 999)


def test_a_sealed_argument_is_one_that_the_tool_declares_sensitive() -> None:
    """Neither may a clear argument be hidden nor a sensitive one stand clear."""
    maker = Maker().open()
    document = json.loads(maker.bundle)
    document["compiled"]["tools"][0]["args"][3]["sensitive"] = False
    maker.bundle = canon(document)
    maker.bundle_digest = digest("bundle", maker.bundle)
    lying = Maker()
    lying.bundle, lying.bundle_digest = maker.bundle, maker.bundle_digest
    lying.open()
    lying.settle(lying.decide("x", "bank.pay", {"amount": 4, "to": "iban 1", "invoice": "I", "memo": "m"}))
    assert "V12.action" in judge(lying).codes()


def test_an_amount_is_in_a_currency_of_the_bundle() -> None:
    """A money tool's terms have an integer and a currency that may be moved."""
    terms = {"amount": 40, "currency": "XAU", "payee": "payee1"}
    assert "V12.terms" in [code for code, _ in appended(terms=terms)]


def test_a_decision_follows_the_answer_that_completed_its_approval() -> None:
    """Directly, in the same commit: a record, the pack's end or a retained head between them is refuted."""
    maker = story()
    args = {"amount": 70_000, "to": "iban 3", "invoice": "y"}
    raised = maker.escalate(maker.decide("y", "bank.pay", args))
    maker.answer(raised, "controller", "pending")
    answered = maker.answer(raised, "treasurer", "approved")
    assert ("V11.escalation", answered["seq"]) in found(judge(maker))
    between = copy.deepcopy(maker)
    scope = {"kind": "tool", "value": "none"}
    between.add("kill.set", {"scope": scope, "reason": "r", "kill": "kill_" + "0" * 16})
    for one in (maker, between):
        one.settle(one.decide("y", "bank.pay", args, escalation=raised["body"]["escalation"], lifted=["ask"]))
    assert found(judge(maker)) == []
    assert found(judge(between)) == [("V11.escalation", answered["seq"] + 1)]
    assert ("V11.escalation", answered["seq"]) in found(judge(maker, answered["seq"] + 1, len(maker.records)))


def test_the_id_of_a_kill_never_comes_twice() -> None:
    """Otherwise clearing one would clear the other."""
    maker = story()
    for _ in range(2):
        kill = {"scope": {"kind": "tool", "value": "none"}, "reason": "r", "kill": "kill_" + "1" * 16}
        maker.add("kill.set", kill)
    assert found(judge(maker)) == [("V10.clearance", len(maker.records) - 1)]


@pytest.mark.parametrize(
    ("reason", "tool", "fits"),
    [
        ("booked_differently", "bank.pay", True),
        ("looks wrong", "bank.pay", False),
        ("booked_differently", "erp.read", False),
        ("", "", False),
    ],
)
def test_a_booking_that_differs_stops_its_tool(reason: str, tool: str, fits: bool) -> None:
    """The next record is the gate's kill of that tool, for that reason; whatever else stands there is refuted."""
    maker = story()
    paid = maker.decide("x", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-1"})
    maker.settle(paid, code="booked_differently", settled={"amount": 41, "currency": "EUR"})
    next_place = len(maker.records)
    if reason:
        kill, scope = "kill_" + "1" * 16, {"kind": "tool", "value": tool}
        maker.add("kill.set", {"scope": scope, "reason": reason, "kill": kill})
        clearance = {"deployment": "acme", "kill": kill, "person": "principal", "reason": "r"}
        maker.add("kill.cleared", {"clearance": clearance, **sign("principal", "clearance", clearance)})
    later = maker.decide("z", "bank.pay", {"amount": 40, "to": "iban 1", "invoice": "X-2"})
    maker.settle(later)
    assert found(judge(maker)) == ([] if fits else [("V11.outcome", next_place)])


def activate(maker: Maker, activator: str, previous: str | None) -> None:
    activation = {"deployment": "acme", "bundle": maker.bundle_digest, "previous": previous}
    activation |= {"author": "author", "activator": activator}
    maker.add("policy.activated", {"activation": activation, **sign(activator, "activation", activation)})


def test_an_activation_names_the_record_of_the_one_before() -> None:
    """Not the bundle, which may be the same: so no activation can be used a second time."""
    maker = story()
    first = digest("record", maker.raw[1])
    activate(maker, "treasurer", first)
    assert found(judge(maker)) == []
    activate(maker, "treasurer", first)
    assert found(judge(maker)) == [("V09.chain", len(maker.records) - 1)]


def test_an_activator_is_enrolled_in_the_bundle_in_force() -> None:
    """A person whom the auditor knows and the bundle does not activates nothing."""
    maker = story()
    activate(maker, "leaver", digest("record", maker.raw[1]))
    assert found(judge(maker)) == [("V09.signature", len(maker.records) - 1)]


def test_a_person_may_have_had_several_keys() -> None:
    """The trust file lists them; another than these is refuted."""
    maker = story()
    trust = maker.trust()
    for keys, codes in (
        ([key_text("log"), key_text("principal")], []),
        ([key_text("log")], ["V09.signature", "V10.mandate"]),
        ([], ["V09.no_key", "V10.no_key"]),
    ):
        trust["people"]["principal"] = keys
        assert verify(maker.pack(), parse_trust(json.dumps(trust).encode())).codes() == codes


def test_a_question_that_waits_is_the_answer() -> None:
    """`already_waiting` names the escalation about the same payment; not once that was answered for good."""
    args = {"amount": 60_000, "to": "iban 2", "invoice": "waits"}
    for refused in (False, True):
        maker = story()
        raised = maker.escalate(maker.decide("r1", "bank.pay", args))
        if refused:
            maker.answer(raised, "controller", "refused", verdict="refuse")
        denied = {"disposition": "deny", "stage": "obligation", "code": "already_waiting", "facts": {}}
        maker.decide("r2", "bank.pay", args, **denied, reasons=[f"seq:{raised['seq']}"])
        assert judge(maker).codes() == (["V14.decision"] if refused else [])


def test_instructed_follows_from_what_is_named() -> None:
    """Which arguments a person named is recomputed from the record's pseudonyms and the mandate's."""
    maker = Maker()
    maker.open()
    for value, codes in ((["invoice"], ["V13.fact"]), ([], [])):
        again = copy.deepcopy(maker)
        facts = copy.deepcopy(again).decide("c", "erp.read", {"invoice": "I"})["body"]["facts"]
        again.settle(again.decide("c", "erp.read", {"invoice": "I"}, facts=facts | {"instructed": value}))
        assert judge(again).codes() == codes
