"""Approvals and the other signed orders: strict documents, signatures, eligibility."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority import (
    Asked,
    activate,
    build_approval,
    check_eligible,
    clear,
    eligible,
    parse_activation,
    parse_approval,
    parse_clearance,
    parse_revocation,
    people_of,
    public_of,
    revoke,
    sign_approval,
    verify_activation,
    verify_approval,
    verify_clearance,
    verify_revocation,
)
from countermark.model.errors import AuthorityError, CountermarkError

KEYS = {name: Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at, name in enumerate(
    ("treasurer", "controller", "author", "owner", "stranger"), 1
)}  # fmt: skip
PEOPLE = people_of(
    {
        "id": name,
        "name": name,
        "roles": ["approver"] if name != "controller" else ["reader"],
        "keys": [str(public_of(key))],
    }
    for name, key in KEYS.items()
    if name != "stranger"
)
FINANCE = Asked("finance", 1, frozenset(("approver", "principal")), 5_000, 5_000)


def named(letter: str) -> str:
    return "sha256:" + letter * 64


ESCALATION: dict[str, Any] = {
    "escalation": "esc_" + "0" * 32, "id": "act_" + "1" * 32, "agent": "payables", "run": "run_" + "2" * 32,
    "decided": 7, "decided_digest": named("3"), "ladders": {"finance": ["above-5000", "new-payee"], "board": ["x"]},
    "action": named("a"), "request": named("b"), "terms": {"amount": 900, "currency": "usd", "payee": "p:" + "0" * 32},
    "bundle": named("c"), "mandate": named("d"), "not_after": 5_000,
}  # fmt: skip
DOC = build_approval(ESCALATION, deployment="acme", ladder="finance", verdict="approve", person="treasurer")


def test_the_document_is_what_the_specification_says() -> None:
    """An approval repeats all that it answers, and reads back as it was written."""
    assert {
        "v": 1, "deployment": "acme", "escalation": "esc_" + "0" * 32, "ladder": "finance",
        "ids": ["above-5000", "new-payee"], "rung": 1, "verdict": "approve", "person": "treasurer",
        "action": named("a"), "request": named("b"), "bundle": named("c"), "mandate": named("d"),
        "terms": {"amount": 900, "currency": "usd", "payee": "p:" + "0" * 32}, "not_after": 5_000,
    } == DOC  # fmt: skip
    assert parse_approval(DOC).document() == DOC


BAD: list[dict[str, Any]] = [
    {"v": 2}, {"rung": 9}, {"rung": 0}, {"rung": True}, {"verdict": "yes"}, {"verdict": "approve\n"}, {"verdict": None},
    {"ids": []}, {"ids": ["a", "a"]}, {"ids": [1]}, {"ids": "a"}, {"ids": [str(n) for n in range(257)]},
    {"ids": ["x" * 129]}, {"escalation": "esc_1"}, {"person": ""}, {"ladder": "A"}, {"action": "a"},
    {"request": None}, {"bundle": named("C")}, {"mandate": ""}, {"terms": None}, {"terms": {}},
    {"terms": {**DOC["terms"], "amount": 9.0}}, {"terms": {**DOC["terms"], "amount": True}},
    {"terms": {**DOC["terms"], "amount": -1}}, {"terms": {**DOC["terms"], "payee": "p:1"}},
    {"terms": {**DOC["terms"], "currency": ""}}, {"terms": {**DOC["terms"], "x": 1}}, {"not_after": "5000"},
    {"extra": None},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=lambda change: str(change)[:40])
def test_a_wrong_member_refuses_the_approval(change: dict[str, Any]) -> None:
    """Each type, form and bound is enforced on its own, before anything is signed."""
    for use in (parse_approval, lambda value: sign_approval(value, KEYS["treasurer"])):
        with pytest.raises(AuthorityError) as caught:
            use({**DOC, **change})
        assert caught.value.code == "bad_approval"


@pytest.mark.parametrize("name", sorted(DOC))
def test_a_missing_member_refuses_the_approval(name: str) -> None:
    """Every member is needed."""
    with pytest.raises(AuthorityError):
        parse_approval({key: value for key, value in DOC.items() if key != name})


def test_absent_terms_are_null() -> None:
    """A change tool has no amount, currency or payee: an approval of it says null for each."""
    terms = {"amount": None, "currency": None, "payee": None}
    assert parse_approval({**DOC, "terms": terms}).terms.document() == terms


def test_only_the_person_s_enrolled_key_signs() -> None:
    """Another person's, a stranger's and a changed signature are refused; so is another deployment."""
    body = sign_approval(DOC, KEYS["treasurer"])
    assert verify_approval(body, deployment="acme", people=PEOPLE).document() == DOC

    def code(wrong: dict[str, Any], deployment: str = "acme") -> str:
        with pytest.raises(CountermarkError) as caught:
            verify_approval(wrong, deployment=deployment, people=PEOPLE)
        return caught.value.code

    assert code(sign_approval(DOC, KEYS["author"])) == "not_authorised"
    assert code(sign_approval(DOC, KEYS["stranger"])) == "not_authorised"
    assert code(sign_approval({**DOC, "person": "stranger"}, KEYS["stranger"])) == "not_authorised"
    assert code({**body, "key": str(public_of(KEYS["author"]))}) == "bad_signature"
    assert code({**body, "approval": {**DOC, "not_after": 5_001}}) == "bad_signature"
    assert code({**body, "approval": {**DOC, "verdict": "refuse"}}) == "bad_signature"
    assert code({**body, "state": "approved"}) == "bad_approval"
    assert code(body, "other") == "approval_deployment"


def answer(doc: dict[str, Any], now_us: int = 100, **changes: Any) -> str:
    """Code of the answer, or an empty string when the person may give it."""
    given = {
        "asked": FINANCE, "people": PEOPLE, "barred": ("owner", "author"), "now_us": now_us,
        "escalation_doc": ESCALATION, **changes,
    }  # fmt: skip
    try:
        check_eligible(parse_approval(doc), **given)
    except AuthorityError as error:
        return error.code
    return ""


def test_an_eligible_person_answers_until_the_deadline() -> None:
    """At the deadline itself it is too late: no answer means no."""
    assert answer(DOC, 4_999) == ""
    assert answer(DOC, 5_000) == "approval_expired"
    assert answer({**DOC, "verdict": "refuse"}) == ""


def test_roles_decide_who_is_eligible() -> None:
    """Without a role of the ladder, or unknown to the bundle, nobody answers."""
    assert answer({**DOC, "person": "controller"}) == "approval_not_eligible"
    assert answer({**DOC, "person": "nobody"}) == "approval_not_eligible"
    assert answer(DOC, asked=replace(FINANCE, roles=frozenset())) == "approval_not_eligible"


def test_the_initiator_and_the_author_do_not_answer() -> None:
    """Separation of duties holds even with the right role, and nobody counts twice."""
    assert answer({**DOC, "person": "owner"}) == "approval_same_person"
    assert answer({**DOC, "person": "author"}) == "approval_same_person"
    assert answer(DOC, answered={"treasurer": "treasurer"}) == "approval_same_person"
    assert answer(DOC, answered={"somebody": "somebody"}) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"escalation": "esc_" + "9" * 32}, {"action": named("0")}, {"request": named("0")}, {"bundle": named("0")},
        {"mandate": named("0")}, {"not_after": 5_001}, {"terms": {**DOC["terms"], "amount": 901}},
        {"terms": {**DOC["terms"], "payee": None}}, {"terms": {**DOC["terms"], "currency": "eur"}},
    ],
    ids=str,
)  # fmt: skip
def test_an_approval_of_anything_else_is_void(change: dict[str, Any]) -> None:
    """Each binding is compared: digests, terms, deadline."""
    assert answer({**DOC, **change}) == "approval_mismatch"


@pytest.mark.parametrize(
    "change",
    [{"ids": ["above-5000"]}, {"ids": ["new-payee", "above-5000"]}, {"ladder": "board", "ids": ["x"]}],
    ids=str,
)
def test_an_approval_on_another_ladder_is_void(change: dict[str, Any]) -> None:
    """An answer names the ladder that it is for, and exactly the ids that this ladder is asked about."""
    assert answer({**DOC, **change}) == "approval_ladder"


def test_an_answer_belongs_to_the_rung_that_is_asked() -> None:
    """Neither a rung that was left nor one that is not asked yet, nor the present one after its end."""
    second = replace(FINANCE, rung=2, until=3_000)
    assert answer(DOC, asked=second) == "approval_rung"
    assert answer({**DOC, "rung": 3}, asked=second) == "approval_rung"
    assert answer({**DOC, "rung": 2}, 2_999, asked=second) == ""
    assert answer({**DOC, "rung": 2}, 3_000, asked=second) == "approval_rung"
    assert answer({**DOC, "rung": 2}, 3_000, asked=replace(second, ends=3_000)) == "approval_expired"


def test_a_stand_in_takes_the_place_of_the_absent() -> None:
    """Who stands in counts as the absent person, once, and neither of them answers again."""
    absent = {"controller": ["treasurer"]}
    doc = {**DOC, "person": "controller"}

    def place(**more: Any) -> str:
        given = {"people": PEOPLE, "barred": ("owner", "author"), "now_us": 1, "stands_in": absent, **more}
        return check_eligible(parse_approval(doc), FINANCE, escalation_doc=ESCALATION, **given)

    assert answer(doc) == "approval_not_eligible"
    assert place() == "treasurer"
    assert answer(doc, stands_in=absent, answered={"treasurer": "treasurer"}) == "approval_same_person"
    assert answer(DOC, stands_in=absent, answered={"controller": "treasurer"}) == "approval_same_person"
    assert answer(doc, stands_in=absent, answered={"controller": "somebody"}) == "approval_same_person"
    assert answer(doc, stands_in={"controller": ["owner"]}) == "approval_same_person"
    assert answer(doc, stands_in={"controller": ["author"]}) == "approval_same_person"
    assert answer(doc, stands_in={"controller": ["nobody"]}) == "approval_not_eligible"
    # Who set the account that is paid does not answer, and nobody answers in their place.
    assert answer(doc, stands_in=absent, setter="treasurer") == "approval_payee_setter"
    assert answer(doc, stands_in=absent, setter="controller") == "approval_payee_setter"
    assert answer(doc, stands_in=absent, setter="owner") == ""
    # With a role of their own they answer for themselves.
    own = {"treasurer": ["owner"]}
    found = check_eligible(parse_approval(DOC), FINANCE, PEOPLE, ("controller", "author"), 1, ESCALATION, stands_in=own)
    assert found == "treasurer"
    assert eligible(FINANCE, PEOPLE, ("owner", "author"), {}, absent) == ["controller", "treasurer"]
    assert eligible(FINANCE, PEOPLE, ("owner", "author"), {"controller": "treasurer"}, absent) == []


def test_a_ladder_that_is_not_asked_cannot_be_answered() -> None:
    """Building an approval for another ladder raises."""
    with pytest.raises(AuthorityError) as caught:
        build_approval(ESCALATION, deployment="acme", ladder="none", verdict="approve", person="treasurer")
    assert caught.value.code == "approval_ladder"


ORDERS: list[tuple[str, Any, Any, Any, dict[str, Any], dict[str, list[Any]]]] = [
    (
        "activation", parse_activation, activate, verify_activation,
        {"deployment": "acme", "bundle": named("a"), "previous": None, "author": "author", "activator": "treasurer"},
        {"bundle": [None, "a"], "previous": ["", named("A")], "author": ["", None], "activator": [1, "X"]},
    ),
    (
        "revocation", parse_revocation, revoke, verify_revocation,
        {"deployment": "acme", "mandate": named("a"), "person": "treasurer", "reason": "Contract ended."},
        {"mandate": [None, "a"], "person": [""], "reason": ["", "x" * 501, 5], "deployment": [None]},
    ),
    (
        "clearance", parse_clearance, clear, verify_clearance,
        {"deployment": "acme", "kill": "kill_" + "0" * 16, "person": "treasurer", "reason": "Clock repaired."},
        {"kill": ["kill_0", None], "person": [""], "reason": ["", "\x1b[2J"], "deployment": [None]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parse", "sign", "check", "doc", "bad"), ORDERS, ids=[item[0] for item in ORDERS])
def test_orders_are_strict_signed_and_bound(name: str, parse: Any, sign: Any, check: Any, doc: Any, bad: Any) -> None:
    """Form, signer, signature and deployment of activations, revocations and clearances."""
    assert parse(doc).document() == doc
    for member, values in bad.items():
        for value in values:
            with pytest.raises(AuthorityError) as caught:
                parse({**doc, member: value})
            assert caught.value.code == f"bad_{name}"
    for wrong in ({**doc, "x": 1}, {}, None, []):
        with pytest.raises(AuthorityError):
            parse(wrong)

    body = sign(doc, KEYS["treasurer"])
    assert body.keys() == {name, "key", "sig"}
    assert check(body, deployment="acme", people=PEOPLE).document() == doc
    cases = (
        (sign(doc, KEYS["stranger"]), "acme", "not_authorised"),
        (sign(doc, KEYS["controller"]), "acme", "not_authorised"),
        ({**body, "key": str(public_of(KEYS["controller"]))}, "acme", "bad_signature"),
        (body, "other", "not_authorised"),
        ({**body, "extra": 1}, "acme", f"bad_{name}"),
    )
    for given, deployment, code in cases:
        with pytest.raises(CountermarkError) as refused:
            check(given, deployment=deployment, people=PEOPLE)
        assert refused.value.code == code


def test_a_clearance_of_no_stop_says_what_a_stop_is_called() -> None:
    """Whoever names an agent, or half a name, where a stop's name belongs is told what that looks like."""
    order = {"deployment": "acme", "kill": "treasury", "person": "treasurer", "reason": "Looked into."}
    with pytest.raises(AuthorityError, match="no valid kill") as caught:
        clear(order, KEYS["treasurer"])
    assert "kill_ and 16 hex digits" in caught.value.hint
