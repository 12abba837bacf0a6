"""Payees of the register on the pages: what is shown is the account that would be paid, and what people did to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage
from visitor import text_of

from countermark.audit import told
from countermark.authority import load_private, set_payee
from countermark.model.clock import US

NEW = "acct_1AcmeOtherBank7712"
STRANGE = "acct_1Newcomer4242"
CLERK = """
[people.anna]
name = "Anna Clerk"
roles = ["payees", "approver"]
key = "{{KEY:anna}}"
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    head = "[agents.treasury]\n"
    changes = {head: CLERK.lstrip() + "\n" + head}
    with Stage(Path(tmp_path_factory.mktemp("console")) / "d", changes=changes) as found:
        ordered(found, "acme-paper", NEW)
        ordered(found, "newcomer", STRANGE, "Newcomer Ltd")
        yield found


def ordered(stage: Stage, payee: str, account: str, name: str = "") -> None:
    """Anna's signed order puts another account into the register."""
    known = {row["payee"]: row for row in stage.handle.call("payees", {})}.get(payee)
    document = {
        "v": 1, "deployment": stage.made.deployment, "payee": payee, "account": account,
        "name": name or (known["name"] if known else payee),
        "previous": None if known is None else {"account": known["account"], "record": known["record"]},
        "alike": [], "reason": "their letter", "person": "anna", "nonce": "0f" * 16, "not_after": 8 * 10**15 + US,
    }  # fmt: skip
    stage.handle.call("payee.set", set_payee(document, load_private(stage.made.people["anna"])))


def asked(stage: Stage, number: str, account: str, person: str = "controller") -> str:
    name = stage.ask_people(number, destination=account)
    page = re.sub(r"<[^>]+>", " ", text_of(stage.visitor(person).get(f"/waiting/{name}")))
    return " ".join(page.split())


def test_the_account_shown_is_the_one_that_would_be_paid(stage: Stage) -> None:
    """After a change of bank details the page ends with the new account's last four, not with those of the policy."""
    page = asked(stage, "a", NEW)
    assert "Account …7712" in page
    assert "Bank details changed" in page
    assert "by Anna Clerk: from …aper to …7712" in page


def test_who_set_the_account_is_told_why_others_answer(stage: Stage) -> None:
    """Anna, who changed the bank details, has the role that is asked, and reads why she has no button."""
    assert "You set the account of this payee, so somebody else answers." in asked(stage, "d", NEW, "anna")


def test_a_payee_whom_people_registered_is_named(stage: Stage) -> None:
    """Somebody who stands in the register alone has a name on the page and in the list, and a history."""
    page = asked(stage, "b", STRANGE)
    assert "to Newcomer Ltd" in page
    assert "Account …4242" in page
    assert "somebody whom the policy does not know" not in page
    assert "Nobody has vouched" not in page
    assert "Newcomer Ltd" in text_of(stage.visitor("controller").get("/waiting"))


def test_a_name_of_the_register_costs_no_reading_of_the_state(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of payments to registered payees folds the journal for none of its lines: all pages share one thread."""

    def folded(store: object) -> None:
        raise AssertionError("the state was read for a name")

    name = stage.ask_people("c", destination=STRANGE)
    monkeypatch.setattr(told, "present_state", folded)
    visitor = stage.visitor("controller")
    page = text_of(visitor.get("/payments"))
    assert "Newcomer Ltd (newcomer)" in page
    action = re.search(r'href="/payments/(act_[0-9a-f]{32})"', page)
    assert action is not None
    assert "Newcomer Ltd" in text_of(visitor.get(f"/payments/{action[1]}"))
    assert visitor.get(f"/waiting/{name}").status == 200


def test_a_payee_whom_people_registered_can_be_stopped(stage: Stage) -> None:
    """The page of stops offers everybody who is known, not only those of the policy."""
    visitor = stage.visitor("controller")
    page = text_of(visitor.get("/agents"))
    assert '<option value="newcomer">' in page
    body = {"kind": "payee", "value": "newcomer", "reason": "a call", "token": visitor.token()}
    assert visitor.post("/agents/stop", body).status == 303
