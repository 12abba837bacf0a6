"""Past decisions under another policy: what a draft changes, and the back-test of the journal's own payments."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_day import STRANGER, the_day
from audit_drafts import diff, draft_of, in_force, own_backtest, random_day

from countermark.audit import bundle_changes, diff_lines
from countermark.audit.redecide import start_of_last
from countermark.policy import Bundle

LIMITS, TOOLS = "limits.toml", "tools.toml"
MORE = '\n[people.clerk]\nname = "Clerk"\nroles = ["approver"]\n\n[agents.second]\nowner = "controller"\n'


def current() -> Bundle:
    store = the_day().store
    try:
        return in_force(store)
    finally:
        store.close()


def test_a_policy_against_itself_changes_nothing() -> None:
    """No part differs, no decision of a day with every way to end is another one, no open question is voided."""
    found = diff(the_day())
    assert found["bundle"]["same"]
    assert (found["bundle"]["files"], found["bundle"]["parts"], found["bundle"]["words"]) == ([], {}, [])
    assert found["decisions"]["decided"] == found["decisions"]["same"] == 16
    assert (found["decisions"]["changed"], found["decisions"]["listed"], found["approvals"]) == (0, [], [])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_policy_in_force_says_again_what_it_said(tmp_path: Path, seed: int) -> None:
    """With no answers of people and no stops, the back-test under the policy in force is the record of what it did."""
    print("seed", seed)
    day = random_day(tmp_path, seed)
    store = day.store
    decided = [r.body for r in store.records() if r.kind == "action.decided"]
    store.close()
    found = own_backtest(day)
    counts: dict[str, int] = dict.fromkeys(("allow", "flag", "escalate", "deny"), 0)
    for body in decided:
        counts[body["disposition"]] += 1
    assert found["counts"] == counts
    assert found["payments"] == len(decided) == 40
    assert min(counts.values()) > 0, "a day in which something never happens shows less"
    again = {row["seq"]: row for row in found["listed"]}
    assert all(row["now"] == {**row["was"], "reasons": list(row["was"]["reasons"])} for row in again.values())
    assert len(again) == len(decided) - counts["allow"]


def test_a_lower_limit_changes_exactly_the_payments_above_it() -> None:
    """Asking above 50.00 puts four payments to people; what was denied, refused or asked anyway stays as it was."""
    draft = draft_of(current(), (LIMITS, "ask_above = 500000", "ask_above = 5000"), (LIMITS, "200000", "4000"))
    found = diff(the_day(), draft)
    assert found["decisions"]["counts"] == [
        {"was": "allow", "now": "escalate", "count": 3}, {"was": "flag", "now": "escalate", "count": 1},
    ]  # fmt: skip
    assert [row["references"]["invoice"] for row in found["decisions"]["listed"]] == [
        "INV-1", "INV-2", "FAIL-1", "LOST-1",
    ]  # fmt: skip
    assert found["bundle"]["words"] == [
        "limit payment_ask_above: 5,000.00 EUR -> 50.00 EUR", "limit payment_flag_above: 2,000.00 EUR -> 40.00 EUR",
    ]  # fmt: skip
    row = found["decisions"]["listed"][0]
    assert row["words"] == ["limits.payment.ask: the amount 480.00 EUR is above payment_ask_above (50.00 EUR)"]


def test_what_people_approved_is_not_told_as_a_change() -> None:
    """INV-3 was asked about and approved: under the same rule it is asked about again, and that is no difference."""
    draft = draft_of(current(), (LIMITS, "ask_above = 500000", "ask_above = 500001"))
    assert diff(the_day(), draft)["decisions"]["changed"] == 0
    newest = diff(the_day(), draft, last=1)["decisions"]
    assert (newest["decided"], newest["changed"]) == (1, 0)


def test_a_cut_between_question_and_answer_makes_no_difference() -> None:
    """Wherever the looked-at decisions begin, a policy against itself changes none."""
    store = the_day().store
    size = store.size()
    store.close()
    for last in range(1, 17):
        found = diff(the_day(), last=last)["decisions"]
        assert (found["decided"], found["changed"], found["to"]) == (last, 0, size)


def test_the_newest_decisions_are_found_from_the_end() -> None:
    """``start_of_last`` is the seq of the first of the newest n first decisions; more than there are is everything."""
    store = the_day().store
    try:
        firsts = [r.seq for r in store.records() if r.kind == "action.decided" and r.body["escalation"] is None]
        assert [start_of_last(store, n) for n in range(1, 17)] == firsts[::-1]
        assert start_of_last(store, 1_000) == 0
        assert start_of_last(store, 0) == store.size()
    finally:
        store.close()


def test_open_questions_are_voided_and_payments_under_way_named() -> None:
    """Every question raised under another policy is listed with what the draft would say; unknown payments stay."""
    draft = draft_of(current(), (LIMITS, "ask_above = 500000", "ask_above = 400000"))
    found = diff(the_day(), draft)
    assert {row["escalation"] for row in found["approvals"]} == {
        the_day().escalations["INV-6"], the_day().escalations["INV-10"],
    }  # fmt: skip
    assert {row["now"] for row in found["approvals"]} == {"deny"}, "the mandate was revoked meanwhile"
    assert [(row["status"], row["tool_stays"]) for row in found["open"]] == [("unknown", True)]
    text = "\n".join(diff_lines(found))
    assert "Open questions: 2" in text
    assert "invoice LOST-1" in text


def test_a_payee_that_becomes_known_is_paid_as_one() -> None:
    """The account is read as the draft reads it: nobody is asked about a stranger."""
    payee = f'\n[payees.somebody]\nname = "Somebody"\naccount = "{STRANGER}"\n'
    found = diff(the_day(), draft_of(current(), add={LIMITS: payee}))
    changed = {row["references"]["invoice"]: row["now"]["disposition"] for row in found["decisions"]["listed"]}
    assert changed == {"INV-4": "allow", "INV-5": "allow", "INV-10": "allow"}
    assert {row["terms"]["payee"] for row in found["decisions"]["listed"]} == {"somebody"}
    assert found["bundle"]["words"] == ["payee somebody added"]


def test_a_payee_that_is_taken_out_is_a_stranger() -> None:
    """Its payments would have been asked about, under a pseudonym of its account."""
    hosting = '[payees.borealis-hosting]\nname = "Borealis Hosting AB"\naccount = "acct_1BorealisHosting"\n'
    found = diff(the_day(), draft_of(current(), (LIMITS, hosting, "")))
    (row,) = found["decisions"]["listed"]
    assert (row["references"]["invoice"], row["now"]["disposition"]) == ("LOST-1", "escalate")
    assert row["terms"]["payee"].startswith("p:")


def test_a_tool_that_is_taken_out_denies_and_is_named_where_it_is_needed() -> None:
    """Past payments with it are denied; a payment that is unknown can then not be asked about, and the page says so."""
    files = dict(current().document["source"])
    start = files[TOOLS].index('[tool."stripe.transfers.create"]')
    stop = files[TOOLS].index('[tool."stripe.refunds.create"]')
    policies = files["policies/vendors.cedar"]
    refunds = policies[policies.index('@id("vendors.payouts_stay_ours")') :]
    draft = draft_of(
        current(), (TOOLS, files[TOOLS][start:stop], ""), ("policies/vendors.cedar", policies, refunds),
        (TOOLS, files[TOOLS][files[TOOLS].index('\n[tool."stripe.transfers.create".args.description]') :], "\n"),
        ("tests/vendors.toml", files["tests/vendors.toml"], ""),
    )  # fmt: skip
    found = diff(the_day(), draft)
    assert {row["now"]["code"] for row in found["decisions"]["listed"]} == {"unknown_tool"}
    assert [row["tool_stays"] for row in found["open"]] == [False]
    assert "NO SUCH TOOL" in "\n".join(diff_lines(found))


def test_another_business_key_finds_other_duplicates() -> None:
    """Were a vendor paid once only, whatever the invoice, the second payment would have been a duplicate."""
    found = diff(the_day(), draft_of(current(), (TOOLS, 'once_per = ["payee", "invoice"]', 'once_per = ["payee"]')))
    rows = {row["references"]["invoice"]: row for row in found["decisions"]["listed"]}
    assert rows["INV-2"]["now"]["code"] == "duplicate_obligation"
    assert "INV-1" not in rows


def test_a_form_that_arguments_do_not_have_denies_with_its_code() -> None:
    """A stricter pattern is applied to what was asked then."""
    draft = draft_of(
        current(), (TOOLS, 'pattern = "[A-Za-z0-9][A-Za-z0-9 ./_-]{0,63}"', 'pattern = "PO-[0-9]{1,8}"'),
        ("tests/vendors.toml", dict(current().document["source"])["tests/vendors.toml"], ""),
    )  # fmt: skip
    found = diff(the_day(), draft)
    assert {row["now"]["reasons"][0] for row in found["decisions"]["listed"]} == {"metadata[invoice]"}
    assert found["decisions"]["changed"] == 10


def test_sealed_values_that_cannot_be_opened_are_counted() -> None:
    """Without the vault's key the sealed argument is taken as it was: nothing changes for it, and it is counted."""
    payee = f'\n[payees.somebody]\nname = "Somebody"\naccount = "{STRANGER}"\n'
    draft = draft_of(current(), add={LIMITS: payee})
    assert diff(the_day(), draft, reveal=False)["decisions"]["partial"] == 2
    assert diff(the_day(), draft)["decisions"]["partial"] == 0


def test_every_part_of_a_policy_is_told_in_words() -> None:
    """What is new, gone or other in limits, rules, people, agents, ladders, tools and zone, with both values."""
    draft = draft_of(
        current(), (LIMITS, 'deadline = "4h"', 'deadline = "8h"'), (LIMITS, 'zone = "Europe/Berlin"', 'zone = "UTC"'),
        (LIMITS, "max = 20\n", "max = 30\n"), (TOOLS, 'once_per = ["charge"]', 'once_per = ["charge", "amount"]'),
        ("policies/vendors.cedar", "context.amount > 250000", "context.amount > 240000"),
add={LIMITS: MORE},
    )  # fmt: skip
    words = bundle_changes(current(), draft)["words"]
    assert words == [
        "limit window_hour_count: 20 -> 30", "policy vendors.first_large_payment changed",
        "tool stripe.refunds.create changed: once_per charge -> charge, amount", "person clerk added",
        "agent second added", "ladder finance changed: deadline 4 hours -> 8 hours", "zone: Europe/Berlin -> UTC",
    ]  # fmt: skip
    assert bundle_changes(draft, draft)["words"] == []
    first = bundle_changes(None, draft)
    assert first["from"] is None
    assert "payee acme-paper added" in first["words"]


def test_what_nobody_read_then_cannot_be_read_now() -> None:
    """A draft that looks behind the payee is not held against payments of which nobody looked: it is counted."""
    draft = draft_of(current(), (TOOLS, "# resolve = ", "resolve = "))
    found = diff(the_day(), draft)["decisions"]
    assert (found["changed"], found["partial"]) == (0, 16)
