"""Insiders who hide, leave out or bend an argument, so that the terms, a limit or a policy sees another payment (V12).

The specification gives these rules (docs/spec/record.md, `args` and `terms`) no code of their own, so every code of V12
and the record's own code will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acts import Action
from build import doc_digest, head_of
from bundle import PERMIT, plain_bundle
from cases import Case, case, trust
from fields import payment
from lies import ATTACKS, Attack, lie, put
from scribe import ALLOWED, Story
from story import PAYOUT, TRANSFER, opened, pack_of, pay, run_of

ARGUMENT = ("V04.record", "V12")


def _paid(story: Story, args: dict[str, Any], **more: Any) -> int:
    action = story.decide(run_of(story), "call-0", more.pop("tool", TRANSFER), args, ALLOWED, **more)
    return action.seq


# --- sealed, though the tool declares them clear ---


@lie(*ARGUMENT)
def clear_amount_sealed(story: Story) -> int:
    # Ten million go out, the limits hold one cent.
    args = payment(10_000_000, "aurora", "INV-1")
    return _paid(story, args, sealing=("amount",), derive=put("terms", "amount", value=1))


@lie(*ARGUMENT)
def clear_payee_sealed(story: Story) -> int:
    args = payment(10_000, "stranger", "INV-1")
    return _paid(story, args, sealing=("destination",), derive=put("terms", "payee", value="aurora"))


@lie(*ARGUMENT)
def clear_invoice_sealed_and_paid_three_times(story: Story) -> int:
    # Nobody can recompute the obligation of a sealed invoice, so each payment brings another one.
    seqs = []
    for number in range(3):
        other = doc_digest("obligation", ["payables", [["invoice", f"inv-1-{number}"], ["payee", "aurora"]]])
        args = payment(10_000, "aurora", "INV-1")
        alter = put("obligation", value=other)
        action = story.decide(
            run_of(story), f"call-{number}", TRANSFER, args, ALLOWED, sealing=("invoice",), alter=alter
        )
        seqs.append(action.seq)
    return seqs[0]


NOT_URGENT = (
    PERMIT
    + """\
@id("not-urgent")
forbid (principal, action in Action::"money", resource)
when { context has args && context.args has urgent && context.args.urgent };
"""
)


@lie(*ARGUMENT, bundle=plain_bundle(cedar=NOT_URGENT, urgent={}))
def forbid_evaded_by_sealing_its_argument(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "INV-1", urgent=True), sealing=("urgent",))


@lie(*ARGUMENT, bundle=plain_bundle(tools=[PAYOUT]))
def sensitive_argument_left_clear(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "INV-1", memo="a name"), sealing=(), tool=PAYOUT)


# --- absent, unknown, or not of the declared form ---


def _without(name: str) -> dict[str, Any]:
    return {alias: value for alias, value in payment(10_000, "aurora", "INV-1").items() if alias != name}


@lie(*ARGUMENT)
def amount_argument_absent(story: Story) -> int:
    # Without an amount no limit holds anything.
    return _paid(story, _without("amount"))


@lie(*ARGUMENT)
def amount_argument_absent_though_the_terms_have_one(story: Story) -> int:
    return _paid(story, _without("amount"), derive=put("terms", "amount", value=10_000))


@lie(*ARGUMENT)
def required_invoice_absent(story: Story) -> int:
    return _paid(story, _without("invoice"))


@lie(*ARGUMENT)
def argument_that_the_tool_does_not_have(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "INV-1", on_behalf_of="acct-drift"))


def _with(name: str, terms: dict[str, Any] | None = None, **args: Any) -> None:
    """A payment with some arguments of a form that their tool does not allow."""

    def write(story: Story) -> int:
        derive: Callable[[dict[str, Any]], None] | None = None
        if terms is not None:
            derive = lambda body: body["terms"].update(terms)  # noqa: E731
        return _paid(story, payment(10_000, "aurora", "INV-1") | args, derive=derive)

    ATTACKS.append(Attack(name, list(ARGUMENT), write, OPENINGS.get(name, {})))


FORMS = plain_bundle(invoice={"pattern": "INV-[0-9]+"}, currency={"enum": ["EUR"]})
OPENINGS: dict[str, dict[str, Any]] = {
    "amount-above-its-maximum": {"limits": [[2_000_000_000, None]]},
    "argument-matches-its-pattern-in-part": {"bundle": FORMS},
    "argument-outside-its-list": {"bundle": FORMS},
}
_with("amount-zero", amount=0)
_with("amount-true", {"amount": 1}, amount=True)
_with("amount-as-text", {"amount": 10_000}, amount="10000")
_with("amount-above-its-maximum", amount=1_000_000_001)
_with("argument-matches-its-pattern-in-part", invoice="INV-1/2")
_with("argument-outside-its-list", currency="CHF")
_with("argument-longer-than-declared", invoice="INV-" + "1" * 197)


@lie("V04.record", "V12", "V14.decision", limits=[[1_000_000, None], [1_000_000, None, "USD"]])
def currency_not_in_the_bundle(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "INV-1", currency="USD"))


@lie("V04.record", "V11.obligation", "V12")
def invoice_told_apart_by_an_invisible_character(story: Story) -> int:
    # A word joiner between the digits; on paper both invoices are the same one.
    story.settle(pay(story, 1))
    return _paid(story, payment(10_000, "aurora", "INV-\u20601"))


@lie("V04.record", "V12")
def invoice_of_nothing_but_signs(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "- / -"))


@lie(*ARGUMENT, "V04", bundle=plain_bundle(tools=[PAYOUT]))
def disclosed_value_of_another_type(story: Story) -> int:
    return _paid(story, payment(10_000, "aurora", "INV-1", memo=42), tool=PAYOUT)


# --- a payee that the tool itself declares sensitive ---

SENSITIVE = {"sensitive": True}


def _sealed_payee(label: str, account: str) -> tuple[Story, Action]:
    """A payment whose account is sealed, with terms that say `aurora`."""
    story = opened(label, bundle=plain_bundle(destination=SENSITIVE))
    args = payment(10_000, account, "INV-1")
    derive = put("terms", "payee", value="aurora")
    action = story.decide(run_of(story), "call-1", TRANSFER, args, ALLOWED, derive=derive)
    story.settle(action)
    return story, action


def _payee_case(account: str, aliases: tuple[str, ...], verdict: str, codes: list[str]) -> Case:
    label = f"sealed payee {account}"
    story, action = _sealed_payee(label, account)
    seq = action.seq if verdict == "refuted" else None
    return Case(pack_of(story, aliases).write(), verdict, codes, seq, trust([head_of(story.log.leaves)]))


@case
def honest_sealed_payee_disclosed() -> Case:
    return _payee_case("aurora", ("destination", "memo"), "verified", [])


@case
def sealed_payee_of_another_account_disclosed() -> Case:
    return _payee_case("stranger", ("destination", "memo"), "refuted", ["V12.terms"])


@case
def sealed_payee_of_another_account_withheld() -> Case:
    # Nobody but the deployment can tell whether the account is the payee's, so the best verdict is incomplete.
    return _payee_case("stranger", (), "incomplete", ["V12", "V15"])
