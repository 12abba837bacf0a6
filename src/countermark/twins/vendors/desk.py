"""The desk: `screening.check`, `vendors.update` and `bank.pay`, with books that know nothing of the gate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.model.errors import CountermarkError

CALLS_MAX = 100_000
CURRENCY = "eur"


@dataclass(frozen=True, slots=True)
class Screened:
    """A vendor was screened. ``list_day`` is the day from which the list holds, 20261110."""

    at: int
    vendor: str
    result: str
    list_day: int
    list_digest: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The account of a vendor was written into the file."""

    at: int
    vendor: str
    account: str


@dataclass(frozen=True, slots=True)
class Paid:
    """The bank moved money to the account that the vendor file named at that moment."""

    at: int
    vendor: str
    invoice: str
    amount: int
    account: str


def list_digest(day: int, names: Iterable[str]) -> str:
    """What tells two screening lists apart: SHA-256 over the day and the sorted names."""
    text = "\n".join([str(day), *sorted(names)])
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


class VendorDesk:
    """``answers`` is what a ``RecordedConnector`` asks; ``now_us`` gives the time in microseconds."""

    def __init__(self, now_us: Callable[[], int], accounts: Mapping[str, str]) -> None:
        self._now_us = now_us
        self._accounts = dict(accounts)
        self._list: tuple[int, tuple[str, ...]] = (0, ())
        self.screened: list[Screened] = []
        self.changed: list[Changed] = []
        self.paid: list[Paid] = []

    def publish(self, day: int, names: Iterable[str]) -> str:
        """Put a screening list in the place of the one before; answers its digest."""
        self._list = (day, tuple(sorted(names)))
        return list_digest(*self._list)

    def answers(self, tool: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The result of one call. Raises ``CountermarkError`` for a refusal."""
        if len(self.screened) + len(self.changed) + len(self.paid) >= CALLS_MAX:
            raise CountermarkError("the simulator has seen too many calls")
        vendor = str(args["vendor"])
        if vendor not in self._accounts:
            raise CountermarkError(f"the vendor file has no {vendor}")
        if tool == "screening.check":
            return self._screen(vendor)
        if tool == "vendors.update":
            self._accounts[vendor] = str(args["account"])
            self.changed.append(Changed(self._now_us(), vendor, self._accounts[vendor]))
            return {"account": self._accounts[vendor]}
        if tool == "bank.pay":
            return self._pay(vendor, args)
        raise CountermarkError(f"the simulator has no {tool}")

    def _screen(self, vendor: str) -> dict[str, Any]:
        day, names = self._list
        result = "hit" if vendor in names else "clear"
        self.screened.append(Screened(self._now_us(), vendor, result, day, list_digest(day, names)))
        return {"result": result, "list_day": day, "list_digest": list_digest(day, names)}

    def _pay(self, vendor: str, args: Mapping[str, Any]) -> dict[str, Any]:
        account = self._accounts[vendor]
        self.paid.append(Paid(self._now_us(), vendor, str(args["invoice"]), int(args["amount"]), account))
        return {"account": account}
