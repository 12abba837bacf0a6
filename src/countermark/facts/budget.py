"""Budgets: every limit of every mandate is a window cap, and a hold debits the whole chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.facts.kinds import settled_amount
from countermark.facts.window import BUCKETS_BACK_CAP, LIFE_WIDTH_US, Window, width_of
from countermark.model.errors import AuthorityError, StoreError
from countermark.model.records import Record
from countermark.model.values import EXECUTING

COUNT = "*"  # the currency of a limit on the number of payments

_SNAPSHOT_VERSION = 1


@dataclass(slots=True)
class _Limit:
    """One limit of a mandate. ``window`` is None for a limit on each single payment (``over_us`` 0)."""

    currency: str
    amount: int
    over_us: int | None
    window: Window | None


def _empty(over_us: int | None) -> Window | None:
    if over_us == 0:
        return None
    return Window(LIFE_WIDTH_US if over_us is None else width_of(over_us))


class BudgetMachine:
    """What each mandate has used, folded from records. Amounts are integer minor units, times microseconds."""

    def __init__(self) -> None:
        self._mandates: dict[str, tuple[_Limit, ...]] = {}
        self._open: dict[int, tuple[int, Sequence[str], str, int]] = {}
        self._at = 0

    def grant(self, digest: str, limits: Sequence[Mapping[str, Any]]) -> None:
        """Enrol a mandate's limits (``[{"currency", "amount", "over_us"}]``). Doing so again changes nothing."""
        if digest not in self._mandates:
            self._mandates[digest] = tuple(
                _Limit(item["currency"], item["amount"], item["over_us"], _empty(item["over_us"])) for item in limits
            )

    def limit(self, digest: str, index: int) -> int:
        """The amount of a mandate's limit."""
        return self._limits(digest)[index].amount

    def used_after(
        self, chain: Sequence[str], currency: str | None, amount: int | None, now_us: int
    ) -> list[list[Any]]:
        """``[[digest, index, used including this action], ...]`` in the order of the chain and of its limits.

        Limits in other currencies are skipped; one on the number of payments counts this one. An action without an
        amount uses nothing.

        Raises:
            AuthorityError: a mandate of the chain was never granted.
        """
        used: list[list[Any]] = []
        if amount is None:
            return used
        for digest in chain:
            for index, limit in enumerate(self._limits(digest)):
                if limit.currency == currency or limit.currency == COUNT:
                    window = limit.window
                    before = 0 if window is None else window.value(now_us, BUCKETS_BACK_CAP)
                    used.append([digest, index, before + (amount if limit.currency == currency else 1)])
        return used

    def standing(self, now_us: int) -> dict[str, list[tuple[int, int]]]:
        """``{digest: [(used, held), ...]}``: of every limit, what is settled for good and what open intents hold.

        Both are what the next decision would count; of a limit on each single payment both are 0.
        """
        totals = {
            digest: [[0 if limit.window is None else limit.window.value(now_us, BUCKETS_BACK_CAP), 0] for limit in rows]
            for digest, rows in self._mandates.items()
        }
        for at, chain, currency, amount in self._open.values():
            for digest in chain:
                for index, limit in enumerate(self._limits(digest)):
                    counts, window = limit.currency == COUNT, limit.window
                    if window is None or not (counts or limit.currency == currency):
                        continue
                    if window.covers(at, now_us, BUCKETS_BACK_CAP):
                        totals[digest][index][1] += 1 if counts else amount
        return {digest: [(both - held, held) for both, held in rows] for digest, rows in totals.items()}

    def _limits(self, digest: str) -> tuple[_Limit, ...]:
        limits = self._mandates.get(digest)
        if limits is None:
            raise AuthorityError(f"mandate {digest} was never granted")
        return limits

    def apply(self, record: Record) -> None:
        """Fold one record in: an intent holds its amount, a failure releases it, a settled amount replaces it."""
        kind = record.kind
        if kind == "action.decided":
            body = record.body
            if body["disposition"] not in EXECUTING:
                return
            terms = body["terms"]
            amount = terms["amount"]
            if amount is None:
                return
            self._at = record.at
            held = (record.at, body["mandates"], terms["currency"], amount)
            self._open[record.seq] = held
            for window, counts in self._windows(held[1], held[2]):
                window.add(record.at, 1 if counts else amount)
        elif kind == "action.settled":
            self._settle(record)

    def _windows(self, chain: Sequence[str], currency: str) -> list[tuple[Window, bool]]:
        """The windows that a payment is held in, and whether each counts payments."""
        return [
            (limit.window, limit.currency == COUNT)
            for digest in chain
            for limit in self._limits(digest)
            if limit.window is not None and limit.currency in (currency, COUNT)
        ]

    def _settle(self, record: Record) -> None:
        body = record.body
        outcome = body["outcome"]
        if outcome == "unknown" or body["terms"]["amount"] is None:
            return
        held = self._open.pop(body["intent"], None)
        if held is None:
            raise StoreError(f"record {record.seq} settles a hold that is not open")
        self._at = record.at
        at, chain, currency, amount = held
        delta = count = 0
        if body["tier"] == "observing":  # a report by the agent's own process releases nothing
            return
        if outcome == "failed":
            delta, count = -amount, -1
        else:
            moved = settled_amount(body)
            delta = 0 if moved is None else moved - amount
        if delta or count:
            for window, counts in self._windows(chain, currency):
                window.adjust(at, count if counts else delta)

    def dump(self) -> dict[str, Any]:
        """The whole state as JSON values; buckets that can no longer count are dropped first."""
        mandates: list[Any] = []
        for digest, limits in self._mandates.items():
            rows: list[Any] = []
            mandates.append([digest, rows])
            for limit in limits:
                window = limit.window
                if window is not None:
                    window.expire(self._at // window.width - BUCKETS_BACK_CAP)
                rows.append([limit.currency, limit.amount, limit.over_us, [] if window is None else window.dump()])
        return {
            "v": _SNAPSHOT_VERSION,
            "at": self._at,
            "mandates": mandates,
            "open": [[seq, at, list(chain), *rest] for seq, (at, chain, *rest) in self._open.items()],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that ``dump`` made. Raises ``StoreError`` when its form is unknown."""
        if state.get("v") != _SNAPSHOT_VERSION:
            raise StoreError("a snapshot of budgets has an unknown form")
        self._mandates = {}
        for digest, rows in state["mandates"]:
            limits = []
            for currency, amount, over_us, pairs in rows:
                window = _empty(over_us)
                if window is not None:
                    window = Window.load(window.width, pairs)
                limits.append(_Limit(currency, amount, over_us, window))
            self._mandates[digest] = tuple(limits)
        self._open = {seq: (at, chain, currency, amount) for seq, at, chain, currency, amount in state["open"]}
        self._at = state["at"]
