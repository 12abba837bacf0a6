"""Mandates: strict documents, narrowing, and who may sign them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import (
    Mandate,
    check_narrower,
    grant,
    mandate_digest,
    parse_mandate,
    people_of,
    public_of,
    sign,
    verify_grant,
)
from countermark.model.digest import MANDATE, digest_of
from countermark.model.errors import AuthorityError, CountermarkError, SignatureError

DAY = 86_400_000_000
TREASURER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
CONTROLLER = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
AGENT = Ed25519PrivateKey.from_private_bytes(b"\3" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\4" * 32)
PEOPLE = people_of(
    [
        {"id": "treasurer", "name": "Treasurer", "roles": ["principal"], "keys": [str(public_of(TREASURER))]},
        {"id": "controller", "name": "Controller", "roles": ["approver"], "keys": [str(public_of(CONTROLLER))]},
        {"id": "reader", "name": "", "roles": [], "keys": []},
    ]
)
ROOT: dict[str, Any] = {
    "v": 1, "deployment": "acme", "parent": None, "principal": "treasurer", "agent": "payables",
    "agent_key": str(public_of(AGENT)), "tools": ["stripe.transfers.create", "stripe.refunds.create"],
    "payees": ["globex", "initech"],
    "limits": [
        {"currency": "usd", "amount": 10_000, "over_us": 0},
        {"currency": "usd", "amount": 50_000, "over_us": DAY},
        {"currency": "usd", "amount": 900_000, "over_us": None},
    ],
    "named": ["ab" * 16], "purpose": "Pay approved invoices.", "not_before": 1000, "not_after": 1000 + 90 * DAY,
    "nonce": "00" * 16,
}  # fmt: skip


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(base), **changes}


def child(**changes: Any) -> dict[str, Any]:
    fields = {
        "parent": mandate_digest(ROOT),
        "agent": "clerk",
        "agent_key": None,
        "tools": ROOT["tools"][:1],
        **changes,
    }
    return changed(ROOT, **fields)


def limits(amount: Any, over_us: Any = 0, currency: Any = "usd") -> list[dict[str, Any]]:
    return [{"currency": currency, "amount": amount, "over_us": over_us}]


def test_a_mandate_reads_back_as_it_was_written() -> None:
    """The document of a parsed mandate is the document: same bytes, same digest."""
    assert parse_mandate(ROOT).document() == ROOT
    assert mandate_digest(ROOT) == digest_of(MANDATE, ROOT)
    wide = changed(ROOT, tools=["*"], payees=["*"], limits=[], agent_key=None)
    assert parse_mandate(wide).document() == wide


BAD: list[dict[str, Any]] = [
    {"v": 2}, {"v": True}, {"deployment": "Acme"}, {"deployment": ""}, {"parent": "sha256:00"}, {"parent": ""},
    {"principal": 7}, {"principal": None}, {"agent": "a b"}, {"agent": "a\n"}, {"agent_key": "x"}, {"agent_key": ""},
    {"agent_key": "ed25519:" + "A" * 43 + "="},
    {"tools": []}, {"tools": "*"}, {"tools": ["*", "a"]}, {"tools": ["a", "a"]}, {"tools": [1]}, {"tools": ("a",)},
    {"tools": [f"t{n}" for n in range(257)]}, {"payees": ["p:" + "0" * 32]}, {"payees": None}, {"payees": ["x", "x"]},
    {"payees": [f"t{n}" for n in range(513)]}, {"limits": {}}, {"limits": limits(1.0)}, {"limits": limits(True)},
    {"limits": limits(-1)}, {"limits": limits("1")}, {"limits": limits(2**53)}, {"limits": limits(1, -1)},
    {"limits": limits(1, 3_661 * DAY)}, {"limits": limits(1, False)}, {"limits": limits(1, 0, "")},
    {"limits": limits(1, 0, "u s d")}, {"limits": limits(1, 0, "*")}, {"limits": limits(1, 9, "**")},
    {"limits": limits(1) + limits(2)}, {"limits": [{"currency": "usd"}]},
    {"limits": [{"currency": "usd", "amount": 1, "over_us": 0, "x": 1}]}, {"limits": [None]},
    {"limits": [item for n in range(33) for item in limits(1, n)]},
    {"named": ["AB" * 16]}, {"named": ["ab"]}, {"named": ["ab" * 16] * 2},
    {"purpose": "x" * 501}, {"purpose": "a\x00b"}, {"purpose": "\ud800"}, {"purpose": None},
    {"not_before": -1}, {"not_before": 1.0}, {"not_after": 1000}, {"not_after": 2**53}, {"nonce": "0" * 31},
    {"nonce": ""}, {"extra": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=lambda change: str(change)[:40])
def test_a_wrong_member_refuses_the_mandate(change: dict[str, Any]) -> None:
    """Each type, form and bound is enforced on its own."""
    with pytest.raises((AuthorityError, SignatureError)) as caught:
        parse_mandate(changed(ROOT, **change))
    assert caught.value.code in ("bad_mandate", "bad_key")


@pytest.mark.parametrize("name", sorted(ROOT))
def test_a_missing_member_refuses_the_mandate(name: str) -> None:
    """Every member is needed; a null is written, never left out."""
    with pytest.raises(AuthorityError):
        parse_mandate({key: value for key, value in ROOT.items() if key != name})


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.sampled_from(sorted(ROOT)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_no_foreign_exception_leaves(name: str, value: Any) -> None:
    """Any JSON value in any member parses to an equal document or raises our own error."""
    document = changed(ROOT, **{name: value})
    try:
        mandate = parse_mandate(document)
    except CountermarkError:
        return
    assert mandate.document() == document


def test_what_a_mandate_covers() -> None:
    """Validity is half-open; tools, payees and currencies cover exactly what they name, or everything."""
    mandate = parse_mandate(ROOT)
    start, end = ROOT["not_before"], ROOT["not_after"]
    assert [mandate.in_force(at) for at in (start - 1, start, end - 1, end)] == [False, True, True, False]
    assert mandate.covers_tool("stripe.refunds.create")
    assert not mandate.covers_tool("stripe.refunds")
    assert mandate.covers_payee("globex")
    assert not mandate.covers_payee("*")
    assert mandate.covers_currency("usd")
    assert not mandate.covers_currency("eur")
    wide = parse_mandate(changed(ROOT, tools=["*"], payees=["*"], limits=[]))
    assert wide.covers_tool("anything")
    assert wide.covers_payee("p:" + "0" * 32)
    assert wide.covers_currency("eur")


NARROW: list[dict[str, Any]] = [
    {}, {"payees": []}, {"payees": ["globex"]}, {"limits": []}, {"limits": limits(10_000)}, {"limits": limits(0)},
    {"limits": limits(70_000, 7 * DAY)}, {"named": []}, {"not_before": 2000}, {"not_after": 2000},
    {"agent": "payables"}, {"purpose": "Pay approved invoices.: November"}, {"limits": limits(3, None, "*")},
]  # fmt: skip
WIDE: list[dict[str, Any]] = [
    {"tools": ["*"]}, {"tools": ["stripe.payouts.create"]}, {"payees": ["*"]}, {"payees": ["globex", "hooli"]},
    {"limits": limits(10_001)}, {"limits": limits(50_001, DAY)}, {"limits": limits(900_001, None)},
    {"limits": limits(1, 0, "eur")}, {"named": ["cd" * 16]}, {"not_before": 999}, {"not_after": ROOT["not_after"] + 1},
    {"deployment": "other"}, {"purpose": "Something else."}, {"purpose": "Pay approved invoices. Or not"},
    {"purpose": ""},
]  # fmt: skip


@pytest.mark.parametrize("change", NARROW, ids=str)
def test_a_child_that_narrows_is_accepted(change: dict[str, Any]) -> None:
    """Less of everything, new windows and another agent are fine."""
    check_narrower(parse_mandate(child(**change)), parse_mandate(ROOT))


def test_a_count_of_payments_narrows_like_an_amount() -> None:
    """A limit on the number of payments grants and refuses no currency; a child's is no larger than its parent's."""
    parent = parse_mandate(changed(ROOT, limits=limits(3, None, "*")))
    assert parent.covers_currency("eur")
    check_narrower(parse_mandate(child(limits=limits(3, None, "*") + limits(9, 0, "eur"))), parent)
    with pytest.raises(AuthorityError):
        check_narrower(parse_mandate(child(limits=limits(4, None, "*"))), parent)


@pytest.mark.parametrize("change", WIDE, ids=str)
def test_a_child_that_widens_is_refused(change: dict[str, Any]) -> None:
    """More of anything is refused with one code."""
    with pytest.raises(AuthorityError) as caught:
        check_narrower(parse_mandate(child(**change)), parse_mandate(ROOT))
    assert caught.value.code == "mandate_not_narrower"


def test_a_parent_without_bounds_leaves_a_child_free() -> None:
    """Under a parent for everything, any tool, payee, limit and currency is narrower."""
    parent = parse_mandate(changed(ROOT, tools=["*"], payees=["*"], limits=[]))
    check_narrower(parse_mandate(child(tools=["*"], payees=["x"], limits=limits(10**9, 5, "eur"))), parent)


def check(body: dict[str, Any], parent: Mandate | None = None) -> Mandate:
    return verify_grant(body, deployment="acme", people=PEOPLE, parent=parent)


def test_a_root_signed_by_its_principal_is_granted() -> None:
    """The body has digest, key and signature, and opens to the mandate."""
    body = grant(ROOT, TREASURER)
    assert body.keys() == {"mandate", "digest", "key", "sig"}
    assert check(body) == parse_mandate(ROOT)


def test_a_child_is_signed_by_a_principal_or_the_parent_s_agent() -> None:
    """Both signatures grant; the agent may not write another principal's name above its own signature."""
    parent = parse_mandate(ROOT)
    for private in (TREASURER, AGENT):
        assert check(grant(child(), private), parent).agent == "clerk"
    with pytest.raises(AuthorityError) as caught:
        check(grant(child(principal="controller"), AGENT), parent)
    assert caught.value.code == "not_authorised"


def code_of(body: dict[str, Any], parent: Mandate | None = None) -> str:
    with pytest.raises(CountermarkError) as caught:
        check(body, parent)
    return caught.value.code


def test_every_wrong_grant_is_refused() -> None:
    """Wrong signer, role, deployment, digest, signature, parent or width: each has its code."""
    parent = parse_mandate(ROOT)
    good = grant(ROOT, TREASURER)
    assert code_of(grant(ROOT, STRANGER)) == "not_authorised"
    assert code_of(grant(ROOT, AGENT)) == "not_authorised"
    assert code_of(grant(changed(ROOT, principal="controller"), CONTROLLER)) == "not_authorised"
    assert code_of(grant(changed(ROOT, principal="nobody"), TREASURER)) == "not_authorised"
    assert code_of(grant(changed(ROOT, principal="reader"), TREASURER)) == "not_authorised"
    assert code_of(grant(changed(ROOT, deployment="other"), TREASURER)) == "mandate_mismatch"
    assert code_of({**good, "digest": "sha256:" + "0" * 64}) == "mandate_mismatch"
    assert code_of({**good, "sig": sign(TREASURER, MANDATE, child())}) == "bad_signature"
    assert code_of({**good, "key": str(public_of(STRANGER))}) == "bad_signature"
    assert code_of({**good, "key": "x"}) == "bad_key"
    assert code_of({**good, "extra": 1}) == "bad_mandate"
    assert code_of(good, parent) == "mandate_mismatch"
    assert code_of(grant(child(), TREASURER)) == "mandate_mismatch"
    assert code_of(grant(child(parent="sha256:" + "0" * 64), TREASURER), parent) == "mandate_mismatch"
    assert code_of(grant(child(tools=["*"]), AGENT), parent) == "mandate_not_narrower"


def test_a_wrong_document_is_not_signed() -> None:
    """``grant`` refuses what ``parse_mandate`` refuses, before a key touches it."""
    with pytest.raises(AuthorityError):
        grant(changed(ROOT, purpose=None), TREASURER)


def test_people_are_enrolled_once_with_keys_of_their_own() -> None:
    """One id, one person; one key, one person, once; no weak keys; somebody may have none."""
    one = {"id": "treasurer", "name": "T", "roles": ["principal"], "keys": [str(public_of(TREASURER))]}
    assert people_of([{**one, "keys": []}])["treasurer"].keys == ()
    for wrong in (
        [one, one], [one, {**one, "id": "second"}], [{**one, "roles": "principal"}], [{**one, "id": "T"}],
        [{**one, "keys": 7}], [{"id": "x"}], [{**one, "keys": ["ed25519:AQ" + "A" * 41 + "="]}],
        [{**one, "keys": one["keys"] * 2}],
    ):  # fmt: skip
        with pytest.raises((AuthorityError, SignatureError)):
            people_of(wrong)  # type: ignore[arg-type]
