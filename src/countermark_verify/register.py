"""Who is paid, and to which account: the bundle's payees, overlaid by people's orders (docs/spec/record.md)."""

from collections.abc import Mapping
from typing import Any

from countermark_verify.bundle import Bundle

REGISTERED_MAX = 10_000


class Register:
    """Folded like the rest of the state; `since` is shared with the facts."""

    def __init__(self) -> None:
        # Payee -> its name and its account, "" for one that is closed.
        self.payees: dict[str, tuple[str, str]] = {}
        # Account -> the payees that have it. Two have it only in what is refuted elsewhere.
        self._owners: dict[str, set[str]] = {}
        # Payee of an order -> the digest of the newest record about it, and who set the present account.
        self.records: dict[str, str] = {}
        self.setters: dict[str, str] = {}
        # Payee -> when its present account was set, unless the first bundle brought it.
        self.since: dict[str, int] = {}
        # Pseudonym of a replaced account -> the payee that had it, and the seq of the order.
        self.retired: dict[str, tuple[str, int]] = {}
        # Payee or pseudonym -> the seq of the newest order about it.
        self.touched: dict[str, int] = {}

    def having(self, account: str) -> frozenset[str]:
        """The payees that have an account now."""
        return frozenset(self._owners.get(account, ()))

    def previous(self, payee: str) -> dict[str, Any] | None:
        """What an order about this payee must say that it replaces."""
        known = self.payees.get(payee)
        return None if known is None else {"account": known[1], "record": self.records.get(payee)}

    def misfit(self, order: Mapping[str, Any]) -> str:
        """Why an order does not fit what is known, or ""."""
        payee, account = order["payee"], order["account"]
        known = self.payees.get(payee)
        if known is None and not account:
            return "closes a payee that nobody knows"
        if known == (order["name"], account):
            return "changes nothing"
        if known is None and len(self.records) >= REGISTERED_MAX:
            return f"a register has no more than {REGISTERED_MAX} payees"
        if account and (self.having(account) - {payee} or (account != payee and account in self.payees)):
            return "gives a payee what is another payee's"
        return "takes another payee's account as its id" if self.having(payee) - {payee} else ""

    def clash(self, bundle: Bundle) -> str:
        """An account that two payees would share if the bundle were in force, or ""."""
        if not self.records:
            return ""
        registered = {name: self.payees[name] for name in self.records}
        payees = {**bundle.details, **registered}
        owners: dict[str, str] = {}
        for name, (_, account) in payees.items():
            if not account:
                continue
            taken = owners.setdefault(account, name) != name
            confused = account != name and account in payees and not registered.keys().isdisjoint((account, name))
            if taken or confused:
                return account
        return ""

    def activated(self, bundle: Bundle, at: int, *, first: bool) -> None:
        for name in self.payees.keys() - bundle.details.keys() - self.records.keys():
            self._forget(name)
        for name, (title, account) in bundle.details.items():
            if name in self.records:
                continue
            known = self.payees.get(name)
            if not first and (known is None or known[1] != account):
                self.since[name] = at
            self._put(name, title, account)

    def changed(self, body: Mapping[str, Any], seq: int, at: int, digest: str) -> None:
        order = body["details"]
        name, account = order["payee"], order["account"]
        known = self.payees.get(name)
        self.records[name] = digest
        if known is None or known[1] != account:
            self.since[name] = at
            self.setters[name] = order["person"]
            if body["was"] is not None:
                self.retired[body["was"]] = (name, seq)
        if body["now"] is not None:
            self.retired.pop(body["now"], None)
        for touched in (name, body["was"], body["now"]):
            if touched is not None:
                self.touched[touched] = seq
        self._put(name, order["name"], account)

    def _put(self, name: str, title: str, account: str) -> None:
        if name in self.payees:
            self._owners.get(self.payees[name][1], set()).discard(name)
        self.payees[name] = (title, account)
        if account:
            self._owners.setdefault(account, set()).add(name)

    def _forget(self, name: str) -> None:
        self._owners.get(self.payees.pop(name)[1], set()).discard(name)
        self.since.pop(name, None)
