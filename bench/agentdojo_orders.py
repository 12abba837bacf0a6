"""The account holder's device: from a prompt and the bank's own books to one order, or to none.

An order is one exact call. The device signs a mandate that names its values; whatever else an assistant asks for in
that run is denied or goes to a person. So the device reads little: imperative sentences of a small grammar, in which
every number, account and quotation must be accounted for, and whose blanks the books fill in one way only. Nothing
that a tool returned to the assistant is read here: no file, and of an incoming payment only who sent it and how much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

ACCOUNT = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}")
NAME = re.compile(r"[A-Z][a-z]{1,30}")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{1,30}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SUBJECTS = (
    "VAT",
    "Refund",
    "Subscription",
    "Rent",
    "Invoice",
    "Difference",
    "Fee",
    "Gift",
)  # as policies/subjects.cedar

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_PLAIN_NUMBER = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,2}))?")
_QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"](?!\w)")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?%")
_FEE = re.compile(r"(?:\+|\bplus|\band) a fee of ([0-9]+(?:\.[0-9]{2})?)\b")
_START = r"(?:^|[.!?]\s+)(?:[Pp]lease\s+)?"
_REFUND = re.compile(
    _START
    + r"[Rr]efund ("
    + ACCOUNT.pattern
    + r") for what (?:they|he|she)(?:['’]ve|['’]s| have| has)? sent me[.!]?\s*$"
)
_DIFFERENCE = re.compile(_START + r"[Ss]end (?:them|him|her|[A-Z][a-z]+) the difference\b")
_RECURRING = re.compile(_START + r"[Ss]et up a recurring (?:scheduled )?(?:transaction|payment|transfer)\b")
_USUAL = re.compile(r"\bamount I (?:usually |always )?pay for ([A-Z][a-z]+)\b")
_KEEP = re.compile(_START + r"(?:[Cc]heck and )?[Uu]pdate my (\w+) payment(?: for (?:the )?next month)?[.!]?\s*$")
_PASSWORD = re.compile(
    rf"(?:{_START}|\bmake sure to )(?:[Uu]pdate|[Cc]hange|[Ss]et) (?:the|my) password to ['\"]([^'\"]+)['\"]"
)


def minor_units(value: object) -> int | None:
    """A plain, non-negative decimal number as integer minor units, by its digits; None for anything else.

    ``98.7`` is 9870 and ``0.01`` is 1. Signs, exponents, more than two decimals and more than 13 digits are not plain.
    """
    if type(value) is not int and type(value) is not Decimal:
        return None
    found = _PLAIN_NUMBER.fullmatch(str(value))
    return None if found is None else int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


@dataclass(frozen=True, slots=True)
class Booking:
    """One line of the books. ``other`` is the other side's account, ``amount`` minor units."""

    id: object
    other: str
    amount: int
    subject: str
    date: str


@dataclass(frozen=True, slots=True)
class Books:
    """What the bank itself says about the account."""

    outgoing: tuple[Booking, ...]
    credits: tuple[Booking, ...]
    scheduled: tuple[Booking, ...]

    @property
    def accounts(self) -> list[str]:
        """Accounts that this one paid, or pays by standing order."""
        found = {line.other for line in (*self.outgoing, *self.scheduled)}
        return sorted(account for account in found if ACCOUNT.fullmatch(account))

    @property
    def words(self) -> list[str]:
        """Words of the subjects of the holder's own payments; an incoming payment's subject is a stranger's."""
        return sorted({word for line in (*self.outgoing, *self.scheduled) for word in WORD.findall(line.subject)})

    @property
    def names(self) -> list[str]:
        """Those of the words that can be the name of a payee."""
        return [word for word in self.words if NAME.fullmatch(word)]

    @property
    def next_day(self) -> str | None:
        """The bank's next booking day: the first day of a standing order after the last booking."""
        last = max((line.date for line in (*self.outgoing, *self.credits)), default="")
        return min((line.date for line in self.scheduled if line.date > last), default=None)

    def paid_to(self, name: str) -> list[Booking]:
        """Outgoing bookings whose subject holds the name as a word."""
        return [line for line in self.outgoing if name in WORD.findall(line.subject)]


def read_books(environment: Mapping[str, Any]) -> Books:
    """The books of the environment. A line that is not of the expected form is left out."""
    account = environment.get("bank_account", {})
    own = ("me", account.get("iban"))
    booked, planned = account.get("transactions", []), account.get("scheduled_transactions", [])
    return Books(
        tuple(_lines(booked, own, "sender", "recipient")),
        tuple(_lines(booked, own, "recipient", "sender")),
        tuple(_lines(planned, own, "sender", "recipient")),
    )


def _lines(rows: list[Mapping[str, Any]], own: tuple[Any, ...], mine: str, theirs: str) -> list[Booking]:
    found = []
    for row in rows:
        amount, other, subject, date = (
            minor_units(row.get("amount")),
            row.get(theirs),
            row.get("subject"),
            row.get("date"),
        )
        if row.get(mine) not in own or other in own or amount is None:
            continue
        if type(other) is str and type(subject) is str and type(date) is str and DATE.fullmatch(date):
            found.append(Booking(row.get("id"), other, amount, subject, date))
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """One exact call. ``named`` are its values; ``payee`` and ``amount`` (minor units) only where money moves."""

    tool: str
    named: tuple[str | int, ...]
    payee: str | None = None
    amount: int | None = None


def read_order(prompt: str, books: Books) -> Order | None:
    """The order that a prompt gives, when exactly one reading fits; None when the device cannot tell."""
    found = [order for read in _READERS if (order := read(prompt, books)) is not None]
    return found[0] if len(found) == 1 else None


def _payment(tool: str, to: str, amount: int | None, subject: str | None, books: Books) -> Order | None:
    day = books.next_day
    if not amount or subject is None or day is None or to not in {*books.accounts, *books.names}:
        return None
    return Order(tool, (to, amount, subject, day), to, amount)


def _left(prompt: str, *taken: re.Pattern[str]) -> bool:
    """Whether a number or a quotation is left over that the reading did not take."""
    for pattern in taken:
        prompt = pattern.sub(" ", prompt)
    return re.search(r"[0-9]", prompt) is not None or _QUOTED.search(prompt) is not None


def _subject(prompt: str, books: Books) -> str | None:
    """The most telling purpose word of the prompt; for a subscription, with the word before it if the books know it."""
    for word in SUBJECTS:
        if re.search(rf"\b{word}\b", prompt, re.IGNORECASE):
            before = re.search(rf"\b(\w+) {word}\b", prompt, re.IGNORECASE)
            known = before is not None and before[1] in books.words
            return f"{before[1]} {word}" if before is not None and known and word == "Subscription" else word
    return None


def _refund(prompt: str, books: Books) -> Order | None:
    """What one account sent, back to it."""
    found = _REFUND.search(prompt)
    if found is None or _left(prompt, ACCOUNT) or len(ACCOUNT.findall(prompt)) != 1:
        return None
    received = [line.amount for line in books.credits if line.other == found[1]]
    return _payment("send_money", found[1], received[0] if len(received) == 1 else None, "Refund", books)


def _difference(prompt: str, books: Books) -> Order | None:
    """A percentage of one booked payment, and perhaps a fee, to the name that stands in its subject."""
    percents, fees = _PERCENT.findall(prompt), _FEE.findall(prompt)
    names = sorted({word for word in WORD.findall(prompt) if word in books.names})
    if _DIFFERENCE.search(prompt) is None or len(percents) != 1 or len(names) != 1 or _left(prompt, _PERCENT, _FEE):
        return None
    months = [f"-{n:02d}-" for n, month in enumerate(_MONTHS, 1) if re.search(rf"\b{month}\b", prompt)]
    booked = [line for line in books.paid_to(names[0]) if not months or line.date[4:8] in months]
    if len(booked) != 1 or len(months) > 1:
        return None
    amount = Fraction(percents[0]) * booked[0].amount / 100 + sum(Fraction(fee) * 100 for fee in fees)
    whole = int(amount) if amount.denominator == 1 else None
    return _payment("send_money", names[0], whole, _subject(prompt, books), books)


def _recurring(prompt: str, books: Books) -> Order | None:
    """A standing order to one account, over what is usually paid for something else."""
    usual, accounts = _USUAL.findall(prompt), ACCOUNT.findall(prompt)
    if _RECURRING.search(prompt) is None or len(usual) != 1 or len(accounts) != 1 or _left(prompt, ACCOUNT):
        return None
    amounts = {line.amount for line in books.paid_to(usual[0])}
    amount = amounts.pop() if len(amounts) == 1 else None
    return _payment("schedule_transaction", accounts[0], amount, _subject(prompt, books), books)


def _keep(prompt: str, books: Books) -> Order | None:
    """A standing order that is to be updated, without a word about how: only what is booked already."""
    found = _KEEP.search(prompt)
    if found is None or _left(prompt):
        return None
    lines = [line for line in books.scheduled if line.subject.casefold() == found[1].casefold()]
    if len(lines) != 1:
        return None
    number, amount = lines[0].id, lines[0].amount
    if type(number) is not int or not 0 <= number < amount:  # the policy tells the two apart by their size
        return None
    return Order("update_scheduled_transaction", (number, amount))


def _password(prompt: str, books: Books) -> Order | None:
    """The one quotation of the prompt, as the new password."""
    found = _PASSWORD.findall(prompt)
    if len(found) != 1 or len(_QUOTED.findall(prompt)) != 1 or _left(prompt, _QUOTED):
        return None
    return Order("update_password", (found[0],))


_READERS: tuple[Callable[[str, Books], Order | None], ...] = (_refund, _difference, _recurring, _keep, _password)
