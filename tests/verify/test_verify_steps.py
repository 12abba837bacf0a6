"""The numbered steps: an honest pack is verified, and each lie is named by the step that the specification gives it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from verify_builder import DAY, Maker, story
from verify_bytes import ORIGIN, b64, canon, cosignature, digest, head_text, key_text, public, sign, verifier_key

from countermark_verify import Report, parse_trust, rules, verify


def judge(maker: Maker, trust: dict[str, Any] | None = None, **more: Any) -> Report:
    document = trust if trust is not None else maker.trust()
    return verify(maker.pack(**more), parse_trust(json.dumps(document).encode()))


def describe(report: Report) -> list[tuple[str, int | None, str]]:
    return [(item.code, item.seq, item.message) for step in report.steps for item in step.findings]


def test_the_honest_story_is_verified() -> None:
    """Every step ran and none has a finding; the axes say how far the evidence reaches."""
    report = judge(story())
    assert (report.verdict, report.exit, describe(report)) == ("verified", 0, [])
    assert {step.step: step.status for step in report.steps if step.status != "ok"} == dict.fromkeys(
        ("V08", "V16", "V17", "V20"), "skipped"
    )
    assert {name: axis["level"] for name, axis in report.axes.items()} == {
        "authority": "mandate",
        "integrity": "retained",
        "computation": "recorded",
        "effect": "gate observed",
        "completeness": "gap-free",
    }
    assert report.counts["totals"] == {"EUR": 61_200}
    assert report.first_bad_seq is None


def test_without_trust_nothing_is_verified() -> None:
    """The same pack is incomplete, and the reasons say what is missing."""
    report = verify(story().pack())
    assert (report.verdict, report.exit) == ("incomplete", 2)
    assert {"V02.no_trust", "V03.no_trust", "V07.no_trust", "V09.no_key", "V10.no_key"} == set(report.codes())
    assert report.axes["integrity"]["level"] == "log"


def test_a_lie_is_refuted_without_trust_as_well() -> None:
    """Refuted beats incomplete: what contradicts itself needs no key to show."""
    maker = lie(lambda maker: maker.decide("x", "bank.pay", PAY_ARGS, code="flagged"))
    report = verify(maker.pack())
    assert report.verdict == "refuted"
    assert "V14.decision" in report.codes()


def test_without_cedar_the_policy_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other steps run; V14 says how many decisions were not recomputed, and earlier stages still are."""
    monkeypatch.setattr(rules, "cedarpy", None)
    report = judge(story())
    assert (report.verdict, report.codes()) == ("incomplete", ["V14.no_cedar"])
    assert report.axes["authority"]["level"] == "operator"


PAY_ARGS = {"amount": 40, "to": "iban 1", "invoice": "X-1"}


def lie(act: Callable[[Maker], object]) -> Maker:
    """The honest story with something appended, settled where it is an intent."""
    maker = story()
    act(maker)
    for intent in list(maker.intents):
        if intent["outcome"] is None:
            maker.settle(intent)
    return maker


def _terms(amount: Any = 40, currency: Any = "EUR", payee: Any = "payee1") -> dict[str, Any]:
    return {"amount": amount, "currency": currency, "payee": payee}


def _pay(maker: Maker, **more: Any) -> None:
    maker.decide("x", "bank.pay", PAY_ARGS, **more)


def _last_intent(maker: Maker) -> dict[str, Any]:
    return next(item for item in reversed(maker.intents) if item["outcome"])


def _fact(name: str, value: Any) -> Callable[[Maker], None]:
    def act(maker: Maker) -> None:
        probe = copy.deepcopy(maker)
        facts = dict(probe.decide("x", "bank.pay", PAY_ARGS)["body"]["facts"])
        facts = facts | {name: value} if value is not None else {k: v for k, v in facts.items() if k != name}
        _pay(maker, facts=facts)

    return act


def _mandate(signer: str = "principal", parent_digest: str | None = None, **changes: Any) -> Callable[[Maker], None]:
    def act(maker: Maker) -> None:
        maker.grant(signer, parent_digest, **{"nonce": "other"} | changes)

    return act


def _outlives(maker: Maker) -> None:
    maker.grant("principal", maker.mandate, nonce="child", not_after=maker.now + 900 * DAY)


def _wider(maker: Maker) -> None:
    narrow = maker.grant("principal", None, nonce="narrow", tools=["erp.read"])
    maker.grant("principal", narrow, nonce="child", tools=["erp.read", "bank.pay"])


def _settle(outcome: str = "confirmed", **more: Any) -> Callable[[Maker], None]:
    def act(maker: Maker) -> None:
        maker.settle(maker.decide("x", "bank.pay", PAY_ARGS), outcome, **more)

    return act


def _escalated(maker: Maker, call: str = "y") -> dict[str, Any]:
    return maker.decide(call, "bank.pay", {"amount": 70_000, "to": "iban 3", "invoice": call})


def _answers(*answers: tuple[str, str, dict[str, Any]]) -> Callable[[Maker], None]:
    def act(maker: Maker) -> None:
        raised = maker.escalate(_escalated(maker))
        for person, state, more in answers:
            maker.answer(raised, person, state, **more)

    return act


def _late(maker: Maker) -> None:
    raised = maker.escalate(_escalated(maker))
    maker.now += 3_600_000_000
    maker.answer(raised, "controller", "pending")


def _unapproved(maker: Maker) -> None:
    decided = _escalated(maker)
    raised = maker.escalate(decided)
    maker.answer(raised, "controller", "pending")
    args = {"amount": 70_000, "to": "iban 3", "invoice": "y"}
    maker.decide("y", "bank.pay", args, escalation=raised["body"]["escalation"], lifted=["ask"])


def _skip_raising(maker: Maker) -> None:
    _escalated(maker)
    maker.add("gate.stopped", {"reason": "test"})


def _kill(maker: Maker) -> None:
    maker.add("kill.set", {"scope": {"kind": "agent", "value": "payer"}, "reason": "r", "kill": "kill_" + "0" * 16})
    _pay(maker)


def _forged_clearance(maker: Maker) -> None:
    kill = "kill_" + "1" * 16
    maker.add("kill.set", {"scope": {"kind": "tool", "value": "none"}, "reason": "r", "kill": kill})
    clearance = {"deployment": "acme", "kill": kill, "person": "principal", "reason": "r"}
    maker.add("kill.cleared", {"clearance": clearance, **sign("treasurer", "clearance", clearance)})


def _revoked(maker: Maker) -> None:
    revocation = {"deployment": "acme", "mandate": maker.mandate, "person": "principal", "reason": "r"}
    maker.add("mandate.revoked", {"revocation": revocation, **sign("principal", "revocation", revocation)})
    _pay(maker)


def _over_limit(maker: Maker) -> None:
    probe = {"amount": 850_000, "to": "iban 3", "invoice": "big"}
    permits = {"code": "flagged", "disposition": "flag", "reasons": ["pay", "pay-large"], "stage": "policy"}
    maker.decide("z", "bank.pay", probe, **permits)


def _foreign_activation(maker: Maker) -> None:
    activation = {"deployment": "acme", "bundle": maker.bundle_digest}
    activation |= {"previous": digest("record", maker.raw[1])}
    activation |= {"author": "author", "activator": "principal"}
    maker.add("policy.activated", {"activation": activation, **sign("treasurer", "activation", activation)})


def _broken_chain(maker: Maker) -> None:
    activation = {"deployment": "acme", "bundle": maker.bundle_digest, "previous": None}
    activation |= {"author": "author", "activator": "principal"}
    maker.add("policy.activated", {"activation": activation, **sign("principal", "activation", activation)})


def _again(maker: Maker) -> None:
    _pay(maker)
    maker.settle(maker.intents[-1], "failed")
    _pay(maker)


def _same_payment(maker: Maker) -> None:
    maker.taken.clear()
    maker.decide("x", "bank.pay", {"amount": 1200, "to": "iban 0", "invoice": "i-1"})


LIES: dict[str, tuple[str, Callable[[Maker], Any]]] = {
    "envelope member": ("V04.record", lambda m: m.add("gate.stopped", {"reason": "r"}, extra=1)),
    "unknown kind": ("V04.record", lambda m: m.add("gate.paused", {"reason": "r"})),
    "body member": ("V04.record", lambda m: m.add("gate.stopped", {"reason": "r", "more": 1})),
    "boolean as integer": ("V04.record", lambda m: m.add("gate.stopped", {"reason": "r"}, v=True)),
    "another writer": ("V04.record", lambda m: m.add("gate.stopped", {"reason": "r"}, by="person:principal")),
    "nonce twice": ("V04.record", lambda m: m.add("gate.stopped", {"reason": "r"}, nonce=m.records[0]["nonce"])),
    "negative amount": ("V04.record", lambda m: _pay(m, terms=_terms(-1))),
    "seq": ("V06.seq", lambda m: m.add("gate.stopped", {"reason": "r"}, seq=99)),
    "prev": ("V06.prev", lambda m: m.add("gate.stopped", {"reason": "r"}, prev="sha256:" + "0" * 64)),
    "time falls": ("V06.at", lambda m: m.add("gate.stopped", {"reason": "r"}, at=m.now - 5_000_000)),
    "stream of nobody": (
        "V06.stream",
        lambda m: m.add("gate.stopped", {"reason": "r"}, streams={"a." + "0" * 32: [0, m.records[0]["prev"]]}),
    ),
    "foreign activation": ("V09.signature", _foreign_activation),
    "activation chain": ("V09.chain", _broken_chain),
    "mandate signed by another": ("V10.mandate", _mandate("treasurer")),
    "mandate without role": ("V10.mandate", _mandate("treasurer", principal="treasurer")),
    "mandate granted twice": ("V10.mandate", lambda m: m.grant("principal", None, nonce="root")),
    "mandate of another house": ("V10.mandate", _mandate(deployment="other")),
    "agent key of small order": ("V10.mandate", _mandate(agent_key="ed25519:" + b64(bytes(32)))),
    "child outlives": ("V10.mandate", _outlives),
    "child of nobody": ("V10.mandate", _mandate(parent_digest="sha256:" + "7" * 64)),
    "child wider": ("V10.mandate", _wider),
    "forged clearance": ("V10.clearance", _forged_clearance),
    "approved other terms": ("V10.approval", _answers(("controller", "pending", {"terms": _terms(1)}))),
    "approved other ids": ("V10.approval", _answers(("controller", "pending", {"ids": ["ask", "never"]}))),
    "approved another request": (
        "V10.approval",
        _answers(("controller", "pending", {"request": "sha256:" + "0" * 64})),
    ),
    "approved twice": ("V10.approval", _answers(("controller", "pending", {}), ("controller", "approved", {}))),
    "approved too early": ("V10.approval", _answers(("controller", "approved", {}))),
    "approved too late": ("V10.approval", _late),
    "approved without role": ("V10.approval", _answers(("principal", "pending", {}))),
    "approved by the owner": ("V10.separation", _answers(("owner", "pending", {}))),
    "approved by the author": ("V10.separation", _answers(("author", "pending", {}))),
    "quorum not reached": ("V11.escalation", _unapproved),
    "escalation not raised": ("V11.escalation", _skip_raising),
    "escalation skipped": (
        "V11.escalation",
        lambda m: (
            m.escalate(_escalated(m)),
            m.decide("y", "bank.pay", {"amount": 70_000, "to": "iban 3", "invoice": "y"}, disposition="allow"),
        ),
    ),
    "run never started": ("V11.run", lambda m: m.add("run.ended", {"run": "run9", "agent": "payer", "reason": "r"})),
    "mandate of another agent": (
        "V11.run",
        lambda m: m.add("run.started", {"run": "r2", "agent": "other", "mandate": m.mandate, "purpose": "p"}),
    ),
    "decided twice": ("V11.double", _again),
    "paid twice": ("V11.obligation", _same_payment),
    "outcome twice": ("V11.outcome", lambda m: m.settle(_last_intent(m))),
    "outcome with other terms": ("V11.outcome", _settle(terms=_terms(41))),
    "outcome in another currency": ("V11.outcome", _settle(settled={"amount": 1, "currency": "USD"})),
    "outcome of another tier": ("V11.outcome", _settle(tier="observing")),
    "outcome with a foreign output": ("V11.outcome", _settle(output={"other": 1})),
    "effect without intent": (
        "V11.effect_without_intent",
        lambda m: m.settle(m.decide("d", "bank.pay", {"amount": 1, "to": "x"})),
    ),
    "outcome of another intent": ("V11.effect_without_intent", _settle(intent_digest="sha256:" + "0" * 64)),
    "action id": ("V12.action", lambda m: _pay(m, id="act_" + "0" * 32)),
    "action digest": ("V12.action", lambda m: _pay(m, action="sha256:" + "0" * 64)),
    "provider key": ("V12.key", lambda m: _pay(m, key="cm_" + "0" * 48)),
    "request digest": ("V12.request", lambda m: _pay(m, request="sha256:" + "0" * 64)),
    "request salt hidden": ("V12.request", lambda m: _pay(m, salt=None)),
    "obligation": ("V12.obligation", lambda m: _pay(m, obligation="sha256:" + "0" * 64)),
    "obligation left out": ("V12.obligation", lambda m: _pay(m, obligation=None)),
    "terms smaller": ("V12.terms", lambda m: _pay(m, terms=_terms(4))),
    "terms of another payee": ("V12.terms", lambda m: _pay(m, terms=_terms(payee="payee2"))),
    "known payee hidden": ("V12.terms", lambda m: _pay(m, terms=_terms(payee="p:" + "0" * 32))),
    "window": ("V13.fact", _fact("day_sum", 1)),
    "slot": ("V13.fact", _fact("last_pay", {"known": True, "age_s": 1})),
    "distinct": ("V13.fact", _fact("payees", 1)),
    "grounded": ("V13.fact", _fact("amount_checked", {"known": True, "equal": True})),
    "clock": ("V13.fact", _fact("local_minute", 1)),
    "fact left out": ("V13.fact", _fact("payees", None)),
    "fact invented": ("V13.fact", _fact("extra", 1)),
    "boolean as one": ("V13.fact", _fact("payee_known", 1)),
    "budget": ("V13.budget", lambda m: _pay(m, budgets=[])),
    "over the limit": ("V13.limit", _over_limit),
    "disposition": ("V14.decision", lambda m: _pay(m, disposition="flag")),
    "denied without ground": (
        "V14.decision",
        lambda m: _pay(m, disposition="deny", code="denied_by_policy", reasons=[]),
    ),
    "reasons": ("V14.decision", lambda m: _pay(m, reasons=["look"])),
    "effect for ever": ("V14.decision", lambda m: _pay(m, not_after=m.now + DAY)),
    "another bundle": ("V14.decision", lambda m: _pay(m, bundle="sha256:" + "0" * 64)),
    "despite a kill": ("V14.decision", _kill),
    "after revocation": ("V14.decision", _revoked),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lie_of_the_insider_is_named(case: str) -> None:
    """Signed with the log's own key and on a trusted head, each lie is refuted by its own step, at its own record."""
    code, act = LIES[case]
    maker = lie(act)
    report = judge(maker)
    assert report.verdict == "refuted", describe(report)
    assert code in report.codes(), describe(report)
    assert report.first_bad_seq is not None
    assert report.first_bad_seq >= len(story().records)


def test_open_intents_are_listed() -> None:
    """An intent without an outcome leaves the verdict incomplete and names its seq."""
    maker = story()
    _pay(maker)
    report = judge(maker)
    assert (report.verdict, report.codes(), report.counts["open"]) == ("incomplete", ["V11.open"], 1)


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("README.txt", lambda data: data + b"!", None),
        ("log/tile/0/000.p/20", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "V05.tile"),
        ("log/tile/entries/000.p/20", lambda data: data[:-1], "V05.size"),
        ("log/checkpoint", lambda data: data.replace(b"\n20\n", b"\n19\n"), "V03.signature"),
        ("log/checkpoint", lambda data: data[:-2], "V03.form"),
        ("disclosures.json", lambda data: data.replace(b"Jane", b"John"), "V12.disclosure"),
        ("disclosures.json", lambda data: data + b" ", "V12.disclosure"),
    ],
)
def test_a_member_changed_before_signing(name: str, change: Callable[[bytes], bytes], code: str | None) -> None:
    """The manifest then covers the lie, so that only the step of the member itself can find it."""

    def alter(members: dict[str, bytes]) -> None:
        members[name] = change(members[name])

    report = judge(story(), change=alter)
    assert report.codes()[:1] == ([code] if code else []) or code in report.codes(), describe(report)
    assert report.verdict == ("refuted" if code else "verified")


@pytest.mark.parametrize("name", ["disclosed", "withheld", "erased"])
def test_counts_of_the_predicate_are_counted_again(name: str) -> None:
    """V15 refutes a predicate that claims other numbers than the records hold."""
    assert judge(story(), **{name: 7}).codes()[0] == ("V15.erased" if name == "erased" else "V15.count")


def test_a_foreign_key_is_refuted() -> None:
    """A pack and head signed by another key under the same name."""
    assert {"V02.signature", "V03.signature"} <= set(judge(story(), key="treasurer").codes())


class TestTrustedHeads:
    """V07: what retained heads, leaf hashes and witnesses show."""

    def rewritten(self) -> tuple[Maker, Maker]:
        """(what the auditor saw, what is shown now): the same length, another record at seq 18."""
        seen, shown = story(), story()
        shown.raw[18] = canon(seen.records[18] | {"nonce": "f" * 32})
        return seen, shown

    def test_a_rewrite_is_located_between_heads(self) -> None:
        """The last agreeing and the first disagreeing size are named; no seq is claimed."""
        seen, shown = self.rewritten()
        report = judge(shown, seen.trust(5, 12, 19, 20))
        found = next(item for step in report.steps for item in step.findings if item.code == "V07.rewritten")
        assert (found.expected["agrees"], found.expected["disagrees"], found.seq) == (12, 19, None)

    def test_leaf_hashes_locate_a_rewrite_exactly(self) -> None:
        """The seq, the retained leaf hash and the one of the record shown."""
        seen, shown = self.rewritten()
        hashes = [hashlib.sha256(b"\0" + raw).hexdigest() for raw in seen.raw]
        report = judge(shown, seen.trust(12, 20, leaf_hashes={"from": 10, "hashes": hashes[10:]}))
        found = next(item for step in report.steps for item in step.findings if item.code == "V07.rewritten")
        actual = hashlib.sha256(b"\0" + shown.raw[18]).hexdigest()
        assert (found.seq, found.expected, found.actual) == (18, hashes[18], actual)

    def test_later_records_are_counted(self) -> None:
        """A pack longer than the newest trusted head is incomplete."""
        report = judge(story(), story().trust(5, 17))
        found = report.steps[6].findings[0]
        assert (report.verdict, found.code, found.expected, found.actual) == ("incomplete", "V07.later", 17, 20)

    def test_a_truncated_log_is_incomplete(self) -> None:
        """A pack shorter than a trusted head."""
        seen = story()
        short = Maker().open()
        report = judge(short, seen.trust(4, 20))
        assert (report.verdict, report.codes()) == ("incomplete", ["V07.truncated"])

    def witnessed(self, *operators: str, quorum: int = 1, text: str | None = None) -> Report:
        maker = story()
        names = [f"w{index}" for index in range(len(operators))]
        lines = "".join(cosignature(text or head_text(maker.raw), name) for name in names).encode()
        keys = [
            {"key": verifier_key(f"{name}.example", public(name), 4), "operator": operator}
            for name, operator in zip(names, operators, strict=True)
        ]

        def cosign(members: dict[str, bytes]) -> None:
            members["log/checkpoint"] += lines

        trust = maker.trust(witnesses={"quorum": quorum, "keys": keys})
        return judge(maker, trust | {"heads": []}, change=cosign)

    def test_a_quorum_of_witnesses_makes_the_head_trusted(self) -> None:
        """No retained head is needed then."""
        report = self.witnessed("bank", "museum", quorum=2)
        assert (report.verdict, report.axes["integrity"]["level"]) == ("verified", "witnessed")

    def test_the_deployment_does_not_witness_itself(self) -> None:
        """Nor does one operator have two votes."""
        assert self.witnessed("bank", "ACME", quorum=2).codes() == ["V07.no_trust", "V08.quorum"]
        assert self.witnessed("bank", "bank", quorum=2).codes() == ["V07.no_trust", "V08.quorum"]

    def test_a_cosignature_of_another_head_is_refuted(self) -> None:
        """The line of a known witness that does not verify."""
        assert "V08.cosignature" in self.witnessed("bank", text=f"{ORIGIN}\n1\n{b64(bytes(32))}\n").codes()


def test_a_child_signed_by_the_parents_agent_is_good() -> None:
    """Delegation: the parent's agent key may sign a mandate that only narrows."""
    maker = story()
    maker.grant("payer", maker.mandate, nonce="child", tools=["bank.pay"], agent_key=key_text("helper"))
    assert judge(maker).verdict == "verified"


def test_policy_text_that_would_crash_its_parser_is_refuted() -> None:
    """Nesting is bounded before Cedar sees the text: such a bundle is refuted, and the process lives."""
    maker = Maker()
    document = json.loads(maker.bundle)
    document["compiled"]["cedar"] = '@id("a") permit(principal, action, resource) when {' + "(" * 9_999 + "};"
    maker.bundle = canon(document)
    maker.bundle_digest = digest("bundle", maker.bundle)
    maker.open()
    maker.settle(maker.decide("c", "erp.read", {"invoice": "I"}))
    assert judge(maker).codes() == ["V09.bundle"]
