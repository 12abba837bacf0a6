"""Names that look like others: tools, payees, invoices, agents."""

from __future__ import annotations

import pytest
from siege import ACME, TOOL, Siege, args_for, escalation_of

TOOLS = [
    TOOL.upper(), "Stripe.transfers.create", TOOL + " ", " " + TOOL, TOOL + "\u200b", TOOL + "\x00",
    "\u0455tripe.transfers.create",
    "stripe.transfers.\u0441reate", "\uff53tripe.transfers.create",
    "stripe.transfers.create/../payouts.create", "stripe..transfers.create",
    "stripe.transfers", "stripe.transfers.create.create", "stripe.transfers.*", "*", "",
]  # fmt: skip
PAYEES = [
    "acct_1\u0410cmePaper", "acct_1AcmePap\u0435r", ACME.lower(), ACME.upper(), "acct_1AcmePaper2",
    "acct_1AcmePape", "acct_lAcmePaper",
]  # fmt: skip
NOT_PAYEES = [
    ACME + "\u200b", ACME + " ", " " + ACME, ACME + "\x00", ACME + "\n", ACME + "%00", ACME + "/../x",
    "\u202e" + ACME, "",
]  # fmt: skip
SAME_INVOICE = ["look-1", "LOOK-1", "Look-1", "LOOK-1 ", " LOOK-1", "LOOK -1"]
NOT_INVOICES = [
    "LOOK\u20112", "LOOK-2\u200b", "\uff2cOOK-2", "LOOK-\u0662", "LOOK-2\u0301", "LOOK-2\t", "LOOK-2\u00a0",
    "\u202eLOOK-2",
]  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS, ids=ascii)
def test_a_tool_that_looks_like_another(siege: Siege, tool: str) -> None:
    """Prevented: a tool in other case, with look-alike letters, invisible characters, wildcards or a climbing path."""
    answer = siege.act(args_for("LOOK-0"), tool=tool)
    assert answer.status in (400, 404), answer.body
    assert siege.paid("LOOK-0") == []


@pytest.mark.parametrize("payee", PAYEES, ids=ascii)
def test_a_payee_that_looks_like_an_enrolled_one(siege: Siege, payee: str) -> None:
    """Prevented: a payee in other case, with a look-alike letter, one letter more or less: it is a stranger, so people
    are asked or it is refused, and nothing is paid.
    """
    answer = siege.act(args_for("LOOK-P", 1_000, payee))
    assert answer.status in (202, 400, 403), answer.body
    if answer.status == 202:
        assert siege.answer(escalation_of(answer), "refuse").status == 200
    assert siege.paid("LOOK-P") == []


@pytest.mark.parametrize("payee", NOT_PAYEES, ids=ascii)
def test_a_payee_with_something_around_it(siege: Siege, payee: str) -> None:
    """Prevented: an enrolled payee with spaces, invisible characters, a NUL or a path behind it, which a provider may
    cut off.
    """
    answer = siege.act(args_for("LOOK-Q", 1_000, payee))
    assert (answer.status, answer.code) == (400, "bad_argument"), answer.body
    assert siege.paid("LOOK-Q") == []


def test_one_invoice_in_many_spellings(siege: Siege) -> None:
    """Prevented: an invoice paid again in other case or with other spaces: it is the same obligation."""
    found = [siege.act(args_for(invoice)) for invoice in SAME_INVOICE]
    assert [one.status for one in found if one.status == 200] == [200], [one.body for one in found]
    assert {one.code for one in found if one.status != 200} <= {"duplicate_obligation", "bad_argument"}
    assert sum(len(siege.paid(invoice)) for invoice in SAME_INVOICE) == 1


@pytest.mark.parametrize("invoice", NOT_INVOICES, ids=ascii)
def test_an_invoice_with_characters_that_cannot_be_told_apart(siege: Siege, invoice: str) -> None:
    """Prevented: an invoice number of other digits, hyphens, full-width letters or invisible characters."""
    answer = siege.act(args_for(invoice))
    assert (answer.status, answer.code) == (400, "bad_argument"), answer.body
    assert siege.form(args_for(invoice)).status == 400
    assert siege.paid(invoice) == []


@pytest.mark.parametrize("currency", ["EUR", "eu\u0433", "eur ", "\uff45ur", "usd", "", "xxx"], ids=ascii)
def test_a_currency_that_looks_like_another(siege: Siege, currency: str) -> None:
    """Prevented: a currency in other case, with a look-alike letter, or one that no limit counts."""
    answer = siege.act({**args_for("LOOK-C"), "currency": currency})
    assert answer.status in (400, 403), answer.body
    assert siege.paid("LOOK-C") == []
