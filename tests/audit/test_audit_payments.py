"""Lists of payments: what is read, in which amounts and at which times, and what is refused with its line."""

from __future__ import annotations

import os

import pytest
from audit_day import AGENT, PAPER, STRANGER, the_day
from audit_drafts import draft_of, in_force
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.audit import Payment, PaymentsError, backtest_lines, backtest_list, read_payments
from countermark.audit.backtesting import summary, weekdays
from countermark.audit.payments import PAYMENTS_BYTES_MAX, ROWS_MAX
from countermark.model.errors import CountermarkError
from countermark.policy import Bundle

MORE = 2 if os.environ.get("COUNTERMARK_CASES") == "all" else 1

TRANSFER = "stripe.transfers.create"
HEAD = "date,amount,currency,payee,reference\n"


def policy() -> Bundle:
    store = the_day().store
    try:
        return in_force(store)
    finally:
        store.close()


def read(text: str | bytes, bundle: Bundle | None = None) -> list[Payment]:
    raw = text.encode("utf-8") if isinstance(text, str) else text
    return read_payments(raw, bundle or policy(), tool=TRANSFER)


def refused(text: str | bytes) -> str:
    with pytest.raises(PaymentsError) as error:
        read(text)
    return error.value.message


def run(text: str, bundle: Bundle | None = None) -> dict[str, object]:
    found = bundle or policy()
    return backtest_list(read(text, found), found, lambda kind, value: f"{kind}-{value}")


def test_a_line_becomes_the_action_that_an_agent_would_have_asked_for() -> None:
    """A payee of the policy stands for its account, an amount becomes minor units, a day without a time its noon."""
    (one,) = read(f"{HEAD}2026-11-03,1234.50,EUR,acme-paper,INV-1\n")
    assert one == Payment(
        2, 1_793_703_600_000_000, AGENT, TRANSFER,
        {"amount": 123_450, "currency": "eur", "destination": PAPER, "metadata[invoice]": "INV-1"},
    )  # fmt: skip
    (same,) = read("at,amount,currency,account,invoice\n2026-11-03T11:00:00Z,1234.5,eur," + PAPER + ",INV-1\n")
    assert (same.at, same.args) == (one.at, one.args)
    (timed,) = read("date,time,amount,currency,payee,reference\n2026-11-03,09:12:03,1,eur,acct_1Other,X\n")
    assert timed.at == one.at - (2 * 3_600 + 47 * 60 + 57) * 1_000_000
    assert timed.args["destination"] == "acct_1Other"


def test_lines_are_put_in_order_of_time_and_keep_theirs_within_a_moment() -> None:
    """Windows count in time, whatever the order of the file."""
    text = HEAD + "2026-11-04,1,eur,acme-paper,A\n2026-11-03,1,eur,acme-paper,B\n2026-11-03,1,eur,acme-paper,C\n"
    assert [(p.line, p.args["metadata[invoice]"]) for p in read(text)] == [(3, "B"), (4, "C"), (2, "A")]


@pytest.mark.parametrize(
    ("amount", "why"),
    [
        ("1,50", "5 cells"), ('"1,500.00"', "no grouping"), ("1.500,00", "5 cells"), ("-5", "no sign"),
        ("+5", "no sign"),
        ("1e3", "like 1234.50"), ("0", "out of range"), ("0.00", "out of range"), ("1.005", "3 digits after the point"),
        ("", "like 1234.50"), ("NaN", "like 1234.50"), ("٣", "like 1234.50"), ("9" * 16, "like 1234.50"),
        ("9" * 15, "out of range"), ("=1+1", "like 1234.50"), ("1 000", "like 1234.50"), ("0x10", "like 1234.50"),
    ],
)  # fmt: skip
def test_an_amount_that_is_not_exactly_one_is_refused_with_its_line(amount: str, why: str) -> None:
    """No sign, grouping, exponent, foreign digit or fraction of a cent is guessed at."""
    assert why in (
        said := refused(f"{HEAD}2026-11-03,1.00,eur,acme-paper,A\n2026-11-03,{amount},eur,acme-paper,B\n")
    ) or ("cells under 5 columns" in said)
    assert "line 3: " in said


def test_amounts_follow_the_exponent_of_their_currency() -> None:
    """Yen have no digits after the point, dinars three; a token without a code counts in its smallest units."""
    swaps = (
        ("limits.toml", 'currencies = ["eur"]', 'currencies = ["eur", "jpy", "bhd", "usdc2"]'),
        ("tools.toml", 'currency = "eur"', 'currency = "usdc2"'),
    )
    bundle = draft_of(policy(), *swaps)
    rows = "".join(f"2026-11-03,{amount},{code},acme-paper,{n}\n" for n, (amount, code) in enumerate(
        (("12", "jpy"), ("1.234", "bhd"), ("77", "usdc2"))))  # fmt: skip
    assert [payment.args["amount"] for payment in read(HEAD + rows, bundle)] == [12, 1_234, 77]
    with pytest.raises(PaymentsError, match="jpy has 0"):
        read(f"{HEAD}2026-11-03,12.0,jpy,acme-paper,A\n", bundle)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no payment in it"), (HEAD, "no payment in it"), (b"\xff\xfe" + HEAD.encode("utf-16-le"), "not UTF-8"),
        ("date,amount,currency,payee,amount\n1,2,3,4,5\n", "names a column twice"),
        ("date,amount,currency,payee, amount\n1,2,3,4,5\n", "names a column twice"),
        ("date,,currency,payee,reference\n1,2,3,4,5\n", "not at all"), ("date;amount;currency;payee\n", "semicolons"),
        ("amount,currency,payee\n1,eur,x\n", "column date (or at) is missing"),
        ("date,currency,payee\n2026-11-03,eur,x\n", "column amount is missing"),
        ("date,at,amount,currency,payee\n1,2,3,4,5\n", "both date and at"),
        ("date,amount,currency,payee,account\n1,2,3,4,5\n", "both payee and account"),
        (HEAD + "2026-11-03,1,eur,acme-paper\n", "line 2: 4 cells under 5 columns"),
        (HEAD + '2026-11-03,1,eur,"acme-paper,INV-1\n', "line 2"), (HEAD + "2026-02-30,1,eur,a,b\n", "no such time"),
        (HEAD + "3.11.2026,1,eur,a,b\n", "a date is written"),
        (HEAD + "1999-01-01,1,eur,a,b\n", "the year"),
        (HEAD + "2026-11-03,1,eur,,b\n", "no payee is named"), (HEAD + "2026-11-03,1,e r,a,b\n", "not a code"),
        (HEAD + "2026-11-03,1,eur,a\x1b[2Jb,c\n", "cannot be seen"),
        (HEAD + "2026-11-03,1,eur,a\u202eb,c\n", "be seen"),
        (HEAD + f"2026-11-03,1,eur,{'x' * 2_000},c\n", "too long"), (HEAD + "2026-11-03,1,eur,a\x00b,c\n", "line 2"),
        ("date,amount,currency,payee,colour\n2026-11-03,1,eur,a,red\n", "no argument colour"),
        ("date,amount,currency,payee,tool\n2026-11-03,1,eur,a,nope\n", "no tool nope"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_refused(text: str | bytes, why: str) -> None:
    """The reason is named, with its line; nothing is decided."""
    assert why in refused(text)


def test_every_wrong_line_is_named_and_the_list_of_them_ends() -> None:
    """Twenty lines stand in the message, the rest is counted; what a line holds is never repeated raw."""
    said = refused(HEAD + "2026-11-03,x,eur,a,b\n" * 30)
    assert said.count("line ") == 20
    assert "and 10 more" in said
    assert "\x1b" not in refused("date,amount,currency,payee,a\x1b[31m\n2026-11-03,1,eur,a,b\n")


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    """Bytes and payments have bounds."""
    assert "longer than" in refused(b"x" * (PAYMENTS_BYTES_MAX + 1))
    assert "more than" in refused(HEAD + "2026-11-03,1,eur,acme-paper,A\n" * (ROWS_MAX + 1))


def test_formulas_are_texts_and_what_the_policy_refuses_is_a_denial() -> None:
    """A reference that a spreadsheet would run is no invoice number here: denied, printed in one line, never run."""
    found = run(HEAD + '2026-11-03,1,eur,acme-paper,"=HYPERLINK(""http://x"",""y"")"\n')
    assert found["counts"] == {"allow": 0, "flag": 0, "escalate": 0, "deny": 1}
    (row,) = found["listed"]  # type: ignore[misc]
    assert (row["line"], row["now"]["code"], row["now"]["reasons"]) == (2, "bad_argument", ["metadata[invoice]"])
    assert all("\n" not in line for line in backtest_lines(found))


def test_a_list_runs_through_the_policy_as_if_the_gate_had_been_there() -> None:
    """Duplicates, windows and first payments are found; what is asked counts as approved, what is denied does not."""
    rows = [
        "2026-11-02,480,eur,acme-paper,INV-1", "2026-11-02,480,eur,acme-paper,inv - 1",
        "2026-11-03,3000,eur,borealis-hosting,INV-2", "2026-11-03,3000,eur,borealis-hosting,INV-3",
        f"2026-11-04,70,eur,{STRANGER},INV-4", "2026-11-04,26000,eur,acme-paper,INV-5",
        "2026-11-04,24000,eur,acme-paper,INV-6", "2026-11-04,19000,eur,borealis-hosting,INV-7",
        "2026-11-04,7000,eur,acme-paper,INV-8", "2026-11-05,100,usd,acme-paper,INV-9",
    ]  # fmt: skip
    found = run(HEAD + "\n".join(rows) + "\n")
    now = {row["references"]["invoice"]: row["now"] for row in found["listed"]}  # type: ignore[attr-defined]
    assert {name: row["disposition"] for name, row in now.items()} == {
        "inv - 1": "deny", "INV-2": "escalate", "INV-3": "flag", "INV-4": "escalate", "INV-5": "deny",
        "INV-6": "escalate", "INV-7": "escalate", "INV-8": "deny", "INV-9": "deny",
    }  # fmt: skip
    assert now["inv - 1"]["reasons"] == ["line 2"]
    assert now["INV-8"]["reasons"] == ["limits.payment.ask", "limits.window.day_total", "limits.window.payee_week"]
    assert (now["INV-5"]["code"], now["INV-9"]["code"]) == ("denied_by_policy", "bad_argument")
    assert summary(found) == "10 payments: 1 allow, 1 flag (0.3 a weekday), 4 escalate (1.0 a weekday), 4 deny"
    assert found["assumed"][0].startswith("the mandate is synthetic")  # type: ignore[index]


def test_a_list_is_not_asked_what_stood_behind_a_payee() -> None:
    """Nobody can read it any more, so a policy that reads it judges a list by all its other rules."""
    bundle = draft_of(policy(), ("tools.toml", "# resolve = ", "resolve = "))
    assert run(f"{HEAD}2026-11-02,480,eur,acme-paper,INV-1\n", bundle)["counts"]["allow"] == 1  # type: ignore[index]


def test_the_sentence_is_the_one_that_was_promised() -> None:
    """`412 payments: 389 allow, 21 escalate (1.6 a weekday), 2 deny`."""
    counts = {"allow": 389, "flag": 0, "escalate": 21, "deny": 2}
    rates = {"allow": 0, "flag": 0, "escalate": 16, "deny": 0}
    assert summary({"payments": 412, "counts": counts, "a_weekday": rates}) == (
        "412 payments: 389 allow, 21 escalate (1.6 a weekday), 2 deny"
    )


def test_weekdays_are_counted_in_the_zone_of_the_policy() -> None:
    """From the first payment's day to the last one's, Mondays to Fridays, at least one."""
    day, hour = 86_400_000_000, 3_600_000_000
    monday = 1_793_574_000_000_000  # 2 November 2026, 00:00 in Berlin
    assert weekdays(monday, monday, "Europe/Berlin") == 1
    assert weekdays(monday, monday + 6 * day + 23 * hour, "Europe/Berlin") == 5
    assert weekdays(monday - hour, monday, "Europe/Berlin") == 1, "the Sunday before counts for nothing"
    assert weekdays(monday - hour, monday - hour, "UTC") == 1
    assert weekdays(monday, monday + 13 * day, "Europe/Berlin") == 10


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No exception but ours leaves the reader, whatever stands behind a right head line."""
    for text in (raw, HEAD.encode() + raw, HEAD.encode() + b"2026-11-03,1,eur,acme-paper," + raw):
        try:
            found = read(text)
        except CountermarkError:
            continue
        assert all(type(payment.args["amount"]) is int for payment in found)


@pytest.mark.slow
@settings(max_examples=100 * MORE, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_at_length(raw: bytes) -> None:
    """The same in more examples."""
    test_any_bytes_are_read_or_refused.hypothesis.inner_test(raw)
