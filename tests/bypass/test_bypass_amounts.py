"""Amounts that one reader takes for another number than the next one does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from siege import ASK, TOOL, Siege, args_for

NOT_INTEGERS: list[Any] = ["1000", "1e3", "", " 5", "0x10", True, None, [1_000], {"value": 1_000}, -1, 0, -(2**53)]
HUGE: list[Any] = [2_500_001, 2**53, 2**63, 2**64 + 1_000, 10**400]
# What JSON itself may hold, or what lenient readers take for it.
LITERALS = [
    "10.5", "1000.0", "1e3", "1E+3", "1000.00000000000001", "NaN", "Infinity", "-Infinity", "-0", "0x3e8", "01000",
    "+1000", "1_000", "1000n", "\uff11000", "\u0661000", "1000,\"amount\":5",
]  # fmt: skip
# The same in a form, where everything is text.
TEXTS = [
    "10.5", "1e3", "-5", "+5", " 5", "5 ", "5\n", "0005", "0x10", "1_000", "NaN", "inf", "", "\uff15",
    "\u0665", "5\x00", "1,000",
    "9223372036854775808", "1" * 400,
]  # fmt: skip


def refused(siege: Siege, invoice: str, before: int, answer: Any) -> None:
    assert answer.status in (400, 403), (answer.status, answer.body)
    assert siege.moved == before
    assert siege.paid(invoice) == []


@pytest.mark.parametrize("amount", NOT_INTEGERS, ids=repr)
def test_not_an_amount(siege: Siege, amount: Any) -> None:
    """Prevented: an amount as text, boolean, null, list or object, and one that is zero or negative."""
    before = siege.moved
    refused(siege, "AMOUNT-1", before, siege.act(args_for("AMOUNT-1", amount)))


@pytest.mark.parametrize("amount", HUGE, ids=["limit", "2^53", "2^63", "2^64", "10^400"])
def test_a_huge_amount(siege: Siege, amount: int) -> None:
    """Prevented: an amount above the limit, or one that wraps around, rounds or becomes infinite somewhere."""
    before = siege.moved
    refused(siege, "AMOUNT-2", before, siege.act(args_for("AMOUNT-2", amount)))


@pytest.mark.parametrize("literal", LITERALS)
def test_a_number_that_readers_differ_on(siege: Siege, literal: str) -> None:
    """Prevented: fractions, exponents, NaN, infinities, leading zeros and signs, other digits, a key written twice."""
    args = json.dumps(args_for("AMOUNT-3", 0)).replace('"amount": 0', f'"amount":{literal}')
    body = f'{{"call_id":"literal","tool":"{TOOL}","args":{args}}}'
    before = siege.moved
    refused(siege, "AMOUNT-3", before, siege.ask("POST", "/v1/actions", body.encode()))


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_that_is_nearly_an_integer(siege: Siege, text: str) -> None:
    """Prevented: in a Stripe SDK's form, an amount that some languages read as an integer and others do not."""
    before = siege.moved
    refused(siege, "AMOUNT-4", before, siege.form(args_for("AMOUNT-4", text)))


def test_a_large_payment_in_small_parts(siege: Siege) -> None:
    """Not covered: one bill paid in parts, each below what people are asked about, under invoice numbers that the agent
    made up. The windows of the policy bound the sum; nobody sees that the parts are one bill.
    """
    whole = siege.act(args_for("BILL-1", ASK))
    assert (whole.status, whole.json["status"]) == (202, "escalated")
    parts = [siege.act(args_for(f"BILL-1-{part}", ASK // 2)) for part in ("a", "b", "c")]
    assert [part.json["status"] for part in parts] == ["confirmed"] * 3
    assert sum(m.amount for part in "abc" for m in siege.paid(f"BILL-1-{part}")) > ASK
