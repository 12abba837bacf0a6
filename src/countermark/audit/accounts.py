"""What is said about a payee's account: who set it, from which to which, and what was found just before sending."""

from __future__ import annotations

from collections.abc import Iterable

from countermark.audit import words
from countermark.audit.told import Told
from countermark.model.records import Record
from countermark.policy import last4


def last(account: str) -> str:
    """An account as people recognise it: ``...7712``."""
    return "..." + words.safe(last4(account)) if account else "no account (closed)"


def changed(told: Told, record: Record) -> str:
    """One order about a payee in a sentence."""
    order = record.body["details"]
    before = order["previous"]
    moved = f"from {last(before['account'])} to {last(order['account'])}" if before else f"to {last(order['account'])}"
    return (
        f"{told.person(order['person'])} changed {words.safe(order['name'])} ({order['payee']}) {moved} on "
        f"{words.when(record.at)}: {words.safe(order['reason'])} (#{record.seq})."
    )


def replaced(told: Told) -> str:
    """Why an account is paid no more."""
    seq = int(told.body["reasons"][-1].removeprefix("seq:"))
    return f"{told.deal()}: this account is the payee's no longer. {changed(told, told.store.record(seq))}"


def _orders(told: Told, records: Iterable[Record]) -> str:
    """The orders about the payee among records, each in a sentence with a space before it."""
    payee = told.body["terms"]["payee"]
    found = (record for record in records if record.kind == "payee.changed")
    return "".join(
        f" {changed(told, record)}"
        for record in found
        if payee in (record.body["details"]["payee"], record.body["was"], record.body["now"])
    )


def why(told: Told) -> str:
    """What was ordered about the payee between the question and the decision after the answer."""
    return _orders(told, told.store.records(told.first.seq, told.last.seq)) if "payee" in told.body["reasons"] else ""


def why_not(told: Told, outcome: Record) -> str:
    """What the account was when it was decided, and what it was just before sending; empty when that was not it."""
    body, intent = outcome.body, told.last
    if body["code"] != "not_sent":
        return ""
    if body["request_id"] == "payee_changed":
        return _orders(told, told.store.records(intent.seq, outcome.seq)).lstrip() + " "
    if body["request_id"] != "reference_changed":
        return ""
    people = words.listed([told.person(answer.body["approval"]["person"]) for answer in told.answers])
    verb, by = ("approved", f" The approval is by {people}.") if people else ("decided", "")
    first, last = words.when(told.first.at), words.when(outcome.at)
    since = f"at {first}" if first == last else f"between {first} and {last}"
    return (
        f"It was {verb} for {_named(told.first.body['reference'])}, now {_named(body['reference'])}, changed at the "
        f"provider {since}; nothing was sent.{by} "
    )


def _named(reference: dict[str, str]) -> str:
    return f"...{words.safe(reference['last4'])}" if reference["last4"] else f"the account {reference['digest'][7:19]}"
