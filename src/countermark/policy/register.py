"""The register of payees: the bundle's, overlaid by what people ordered since. A pure fold like the rest of the state.

What is registered stays registered: a later bundle adds payees and changes those that no order was ever about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from countermark.authority import PayeeOrder, Previous
from countermark.model.errors import ArgumentError, AuthorityError
from countermark.model.records import Record
from countermark.policy.bundle import Bundle, Payee

REGISTERED_MAX = 10_000
LAST_CHARS = 4
VERSIONS_MAX = 16  # accounts remembered of one payee, the newest


@dataclass(slots=True)
class Version:
    """An account that a payee had. ``at`` (microseconds) and ``person`` are None where the first policy brought it;
    ``person`` is None for every policy's. ``paid`` counts the payments confirmed of what was decided under it.
    """

    seq: int
    at: int | None
    person: str | None
    account: str
    paid: int = 0

    def dump(self) -> list[Any]:
        return [self.seq, self.at, self.person, self.account, self.paid]


@dataclass(frozen=True, slots=True)
class Known:
    """Who is known at one moment, safe to hand out: nothing in it ever changes. ``version`` tells moments apart."""

    version: str
    payees: Mapping[str, Payee]
    by_account: Mapping[str, str]


NOBODY = Known("", MappingProxyType({}), MappingProxyType({}))


class Register:
    """Payees, their present accounts, and what became of the accounts that they had."""

    def __init__(self) -> None:
        self.known = NOBODY
        self.records: dict[str, str] = {}  # payees of the register -> digest of the newest order's record
        self.versions: dict[str, list[Version]] = {}
        self.since: dict[str, int] = {}  # payee -> when its present account was set, where that is known
        self.retired: dict[str, tuple[str, int]] = {}  # pseudonym of a replaced account -> its payee, and seq
        self.touched: dict[str, int] = {}  # payee or pseudonym -> seq of the newest order about it

    def setter(self, payee: str | None) -> str | None:
        """The person who set the present account of a payee; None when no person's order did."""
        versions = self.versions.get(payee or "")
        return versions[-1].person if versions else None

    def previous(self, payee: str) -> Previous | None:
        """What an order about this payee replaces now."""
        found = self.known.payees.get(payee)
        return None if found is None else Previous(found.account, self.records.get(payee))

    def check(self, order: PayeeOrder) -> None:
        """Whether an order fits what is known now. Raises ``AuthorityError``, each kind of misfit with its own code."""
        if order.previous != self.previous(order.payee):
            raise AuthorityError("the order replaces other details than the present ones", code="payee_stale",
                                 hint="See `countermark payee show`, and sign anew.")  # fmt: skip
        found = self.known.payees.get(order.payee)
        if found is None and not order.account:
            raise AuthorityError("there is no such payee to close", code="payee_unknown")
        if found is not None and (found.name, found.account) == (order.name, order.account):
            raise AuthorityError("the payee has exactly these details", code="payee_unchanged")
        if found is None and len(self.records) >= REGISTERED_MAX:
            raise AuthorityError(f"a register has at most {REGISTERED_MAX} payees", code="payee_too_many")
        other = self.known.by_account.get(order.account, order.payee)
        if other != order.payee or _collides(order.payee, order.account, self.known.payees):
            raise AuthorityError("the account is another payee's", code="payee_account_taken",
                                 hint="Close the other payee first, if they are one.")  # fmt: skip

    def evades(self, payee: str, now: str | None, kills: Iterable[Mapping[str, Any]]) -> bool:
        """Whether an account that people stopped, by its pseudonym or as a payee's that had it, would be another's."""
        former = self.retired.get(now or "")
        stopped = {scope["value"] for scope in kills if scope["kind"] == "payee"} - {payee}
        return now in stopped or (former is not None and former[0] in stopped)

    def clash(self, bundle: Bundle) -> str | None:
        """Why a bundle cannot be put over this register: the account that two payees would share; None when it can."""
        payees = self._overlaid(bundle)
        owners: dict[str, str] = {}
        for payee in payees.values():
            account = payee.account
            if not account or not self.records:
                continue
            if owners.setdefault(account, payee.id) != payee.id:
                return account
            if account != payee.id and account in payees and {account, payee.id} & self.records.keys():
                return account  # one payee's account is another one's id
        return None

    def activated(self, bundle: Bundle, record: Record, *, first: bool) -> None:
        """A bundle came into force: its payees count where no order did, and an account it changes is new."""
        payees = self._overlaid(bundle)
        for name in self.versions.keys() - payees.keys():
            del self.versions[name]
            self.since.pop(name, None)
        for payee in payees.values():
            versions = self.versions.get(payee.id)
            if versions is None or versions[-1].account != payee.account:
                self._version(payee.id, Version(record.seq, None if first else record.at, None, payee.account))
        self._publish(payees, record.digest)

    def changed(self, record: Record) -> None:
        """A person's order was recorded."""
        body, details = record.body, record.body["details"]
        name, account = details["payee"], details["account"]
        before = self.known.payees.get(name)
        self.records[name] = record.digest
        if before is None or before.account != account:
            self._version(name, Version(record.seq, record.at, details["person"], account))
            if body["was"] is not None:
                self.retired[body["was"]] = (name, record.seq)
        if body["now"] is not None:
            self.retired.pop(body["now"], None)
        for touched in (name, body["was"], body["now"]):
            if touched is not None:
                self.touched[touched] = record.seq
        self._publish({**self.known.payees, name: Payee(name, details["name"], account)}, record.digest)

    def paid(self, payee: str | None, intent: int) -> None:
        """A payment to a payee was confirmed: it belongs to the account of the time when it was decided."""
        for version in reversed(self.versions.get(payee or "", ())):
            if version.seq < intent:
                version.paid += 1
                return

    def moved_since(self, payee: str | None, seq: int) -> bool:
        """Whether an order about a payee, or about an account by its pseudonym, came after a record."""
        return payee is not None and self.touched.get(payee, -1) > seq

    def listed(self, after: str = "", limit: int = REGISTERED_MAX) -> list[dict[str, Any]]:
        """Payees of the moment by id, behind ``after``; ``record`` is what an order has to name as the one before."""
        later = (payee for payee in self.known.payees.values() if payee.id > after)
        return [
            {
                "payee": payee.id, "name": payee.name, "account": payee.account, "record": self.records.get(payee.id),
                "since": self.since.get(payee.id), "by": self.setter(payee.id),
            }
            for payee in nsmallest(limit, later, key=lambda payee: payee.id)
        ]  # fmt: skip

    def history(self, name: str) -> dict[str, Any]:
        """A payee's present account, every change of it, and what was paid to which.

        ``changes`` are the newest, the oldest first: ``{"seq", "at", "by", "from", "to"}`` with the last characters of
        the accounts, ``by`` null when a policy made the change. ``paid`` counts the confirmed payments by the account
        that the payee had when they were decided. Raises ``ArgumentError`` (``unknown_payee``).
        """
        payee = self.known.payees.get(name)
        if payee is None:
            raise ArgumentError("no payee has this ID", field="payee", code="unknown_payee",
                                hint="See `countermark payee list`.")  # fmt: skip
        versions = self.versions.get(name, [])
        return {
            "payee": name, "name": payee.name, "last4": last4(payee.account), "closed": not payee.account,
            "registered": name in self.records, "since": self.since.get(name), "by": self.setter(name),
            "changes": [
                {"seq": new.seq, "at": new.at, "by": new.person, "from": last4(old.account), "to": last4(new.account)}
                for old, new in pairwise(versions)
            ],
            "paid": [{"last4": last4(one.account), "count": one.paid} for one in versions],
        }  # fmt: skip

    def barrier(self) -> Register:
        """What the barrier before an effect needs of it, apart: ``moved_since`` as of now."""
        view = Register()
        view.touched = dict(self.touched)
        return view

    def _overlaid(self, bundle: Bundle) -> dict[str, Payee]:
        registered = {name: self.known.payees[name] for name in sorted(self.records)}  # after a start as before it
        return {**bundle.compiled.payees, **registered}

    def _version(self, payee: str, version: Version) -> None:
        self.versions.setdefault(payee, []).append(version)
        del self.versions[payee][:-VERSIONS_MAX]
        if version.at is not None:
            self.since[payee] = version.at

    def _publish(self, payees: dict[str, Payee], version: str) -> None:
        by_account = {payee.account: payee.id for payee in payees.values() if payee.account}
        self.known = Known(version, MappingProxyType(payees), MappingProxyType(by_account))

    def dump(self) -> dict[str, Any]:
        """The register as JSON, part of a snapshot; ``load`` restores it."""
        return {
            "version": self.known.version,
            "payees": [[payee.id, payee.name, payee.account] for payee in self.known.payees.values()],
            "records": dict(self.records), "retired": {k: list(v) for k, v in self.retired.items()},
            "versions": {name: [one.dump() for one in versions] for name, versions in self.versions.items()},
            "since": dict(self.since), "touched": dict(self.touched),
        }  # fmt: skip

    def load(self, doc: Mapping[str, Any]) -> None:
        """Restore what ``dump`` wrote."""
        self.records, self.touched = dict(doc["records"]), dict(doc["touched"])
        self.retired = {name: (row[0], row[1]) for name, row in doc["retired"].items()}
        self.versions = {name: [Version(*one) for one in rows] for name, rows in doc["versions"].items()}
        self.since.clear()  # the machine of facts reads this very mapping
        self.since.update(doc["since"])
        self._publish({row[0]: Payee(*row) for row in doc["payees"]}, doc["version"])


def last4(account: str) -> str:
    """What people recognise an account by: its last characters."""
    return account[-LAST_CHARS:]


def _collides(payee: str, account: str, payees: Mapping[str, Payee]) -> bool:
    """An account that is some other payee's id, or a new id that is some other payee's account, would mislead."""
    if account and account != payee and account in payees:
        return True
    return any(other.account == payee and other.id != payee for other in payees.values())
