"""The fact engine (docs/spec/facts.md): windows, slots, distinct counts, groundings and budgets.

`facts(n) = f(records < n)`: `compute` reads, then the record is folded with `intent`, `confirmed` or `failed`. Buckets
only ever advance because `at` never falls, so that every structure forgets from its old end and stays small.
"""

import json
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from countermark_verify.canon import INTEGER_MAX

DISTINCT_MAX = 4_096
GROUNDED_NEWEST = 10_000
_BUCKETS = 63
_CAP_REACH = 63  # a cap rounds up: the oldest bucket counts whole
_FLOOR_REACH = 62  # a floor rounds down: it does not count at all


@dataclass(slots=True)
class Intent:
    """An intent as the facts see it. `fields` are the action's fields by name, clear arguments as `args.ALIAS`."""

    seq: int
    digest: str
    action: str
    at: int
    fields: dict[str, Any]
    mandates: list[str]
    terms: dict[str, Any]
    obligation: str | None
    tier: str
    bundle: str
    state: str = "open"


class Missing:
    """A fact that cannot be computed: the decision must be `fact_missing`."""


MISSING = Missing()


def _key(value: Any) -> Hashable:
    # Python holds True == 1; JSON does not.
    return (value,) if type(value) is bool else value


# The currency of a budget that counts payments.
COUNT = "*"


class Window:
    """Sums by bucket. `over_us` None: one bucket for ever; 0: nothing earlier ever counts."""

    __slots__ = ("_buckets", "_reach", "_width", "total")

    def __init__(self, over_us: int | None, reach: int) -> None:
        self._width = None if over_us is None else -(-over_us // _BUCKETS)
        self._reach = reach
        # Ordered: a plain dict looks past all that was ever removed from its front.
        self._buckets: OrderedDict[int, int] = OrderedDict()
        self.total = 0

    def _bucket(self, at: int) -> int:
        return at // self._width if self._width else 0

    def add(self, at: int, weight: int) -> None:
        if self._width == 0:
            return
        bucket = self._bucket(at)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + weight
        self.total += weight

    def change(self, at: int, difference: int) -> None:
        """Correct an earlier weight, in the bucket that it was counted in, if that is still there."""
        bucket = self._bucket(at)
        if bucket in self._buckets:
            self._buckets[bucket] += difference
            self.total += difference

    def value(self, now: int) -> int:
        if self._width:
            first = now // self._width - self._reach
            while self._buckets and (oldest := next(iter(self._buckets))) < first:
                self.total -= self._buckets.pop(oldest)
        return self.total


class _Definition:
    """One definition and its state for every group."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.kind: str = document["kind"]
        self.of: str | None = document.get("of")
        self.over_us: int | None = document.get("over_us")
        self.group: list[str] = document.get("group") or []
        self.cap = document["use"] == "cap"
        self.tool: str | None = document.get("tool")
        self.field: str | None = document.get("field")
        self.where = [(name, frozenset(map(_key, values))) for name, values in document.get("where") or []]
        self.reach = _CAP_REACH if self.cap else _FLOOR_REACH
        self.windows: dict[Hashable, Window] = {}
        self.newest: dict[Hashable, int] = {}
        self.values: dict[Hashable, OrderedDict[Hashable, int]] = {}

    def matches(self, fields: dict[str, Any]) -> bool:
        for name, values in self.where:
            value = fields.get(name)
            if value is None or _key(value) not in values:
                return False
        return True

    def group_of(self, fields: dict[str, Any]) -> Hashable | None:
        """None when a group field is missing."""
        values = tuple(_key(fields.get(name)) for name in self.group)
        return None if None in values else values

    def weight(self, fields: dict[str, Any]) -> int:
        if self.of == "amount":
            return fields.get("amount") or 0
        return 1

    def count(self, fields: dict[str, Any], at: int, weight: int) -> None:
        """Fold one matching event at its own time."""
        if self.kind == "grounded" or not self.matches(fields):
            return
        group = self.group_of(fields)
        if group is None:
            return
        if self.kind == "window":
            window = self.windows.get(group)
            if window is None:
                window = self.windows[group] = Window(self.over_us, self.reach)
            window.add(at, weight)
        elif self.kind == "slot":
            self.newest[group] = at
        elif (value := fields.get(self.of or "")) is not None:
            seen = self.values.setdefault(group, OrderedDict())
            seen[_key(value)] = self._distinct_bucket(at)
            seen.move_to_end(_key(value))

    def change(self, intent: Intent, difference: int) -> None:
        if self.kind != "window" or not self.cap or not self.matches(intent.fields):
            return
        group = self.group_of(intent.fields)
        if group in self.windows:
            self.windows[group].change(intent.at, difference)

    def _distinct_bucket(self, at: int) -> int:
        return at // -(-self.over_us // _BUCKETS) if self.over_us else 0

    def value(self, fields: dict[str, Any], now: int) -> Any:
        """The value for an action with these fields (all kinds but `grounded`), or `MISSING`."""
        group = self.group_of(fields)
        if group is None:
            return MISSING
        if self.kind == "slot":
            return self._slot(group, now)
        own = self.cap and self.matches(fields)
        if self.kind == "distinct":
            return self._distinct(group, now, fields.get(self.of or "") if own else None)
        window = self.windows.get(group)
        return (window.value(now) if window else 0) + (self.weight(fields) if own else 0)

    def _slot(self, group: Hashable, now: int) -> dict[str, Any]:
        at = self.newest.get(group)
        if at is None or (self.over_us and now - at > self.over_us):
            return {"known": False}
        return {"known": True, "age_s": (now - at) // 1_000_000}

    def _distinct(self, group: Hashable, now: int, own: Any) -> Any:
        seen = self.values.get(group, OrderedDict())
        first = self._distinct_bucket(now) - self.reach
        while seen and next(iter(seen.values())) < first:
            seen.popitem(last=False)
        # With `over_us` 0 nothing earlier counts, as for a window.
        live = 0 if self.over_us == 0 else len(seen)
        if own is not None and not (live and _key(own) in seen):
            live += 1
        return live if live <= DISTINCT_MAX else MISSING


class Facts:
    """Every definition of every bundle in the pack, fed from the first record: so a later bundle's are backfilled."""

    def __init__(self, definitions: Iterable[dict[str, Any]]) -> None:
        self._definitions: dict[str, _Definition] = {}
        for document in definitions:
            self._definitions.setdefault(definition_identity(document), _Definition(document))
        self._identities: dict[int, tuple[dict[str, Any], str]] = {}
        self._budgets: dict[str, list[tuple[str, Window]]] = {}
        self._confirmations: dict[str, OrderedDict[str, dict[str, Any]]] = {}

    def _definition(self, document: dict[str, Any]) -> _Definition:
        # Bundles outlive the engine's use of them, so an object's id stands for its text.
        known = self._identities.get(id(document))
        if known is None:
            known = self._identities[id(document)] = (document, definition_identity(document))
        return self._definitions[known[1]]

    def compute(self, document: dict[str, Any], fields: dict[str, Any], now: int, because: list[str]) -> Any:
        """The fact's value, or `MISSING`: also when no record could hold the value."""
        definition = self._definition(document)
        if definition.kind == "grounded":
            return self._grounded(definition, fields, because)
        value = definition.value(fields, now)
        return MISSING if type(value) is int and value > INTEGER_MAX else value

    def _grounded(self, definition: _Definition, fields: dict[str, Any], because: list[str]) -> Any:
        if definition.group_of(fields) is None:
            return MISSING
        newest: dict[str, dict[str, Any]] = self._confirmations.get(definition.tool or "", OrderedDict())
        name = definition.field or ""
        outputs = [newest[action][name] for action in because if action in newest and name in newest[action]]
        own = fields.get(definition.of or "")
        equal = own is not None and any(type(item) is type(own) and item == own for item in outputs)
        return {"known": bool(outputs), "equal": equal}

    def open_budgets(self, mandate: str, limits: list[dict[str, Any]]) -> None:
        self._budgets[mandate] = [(limit["currency"], Window(limit["over_us"], _CAP_REACH)) for limit in limits]

    def used(self, mandate: str, index: int, terms: dict[str, Any], now: int) -> int:
        """What a limit has used, this action included when it is in the limit's currency."""
        currency, window = self._budgets[mandate][index]
        own = 0
        if terms["amount"] is not None:
            own = 1 if currency == COUNT else terms["amount"] if terms["currency"] == currency else 0
        return window.value(now) + own

    def intent(self, intent: Intent) -> None:
        for definition in self._definitions.values():
            if definition.cap:
                definition.count(intent.fields, intent.at, definition.weight(intent.fields))
        for window, counts in self._held(intent):
            window.add(intent.at, 1 if counts else intent.terms["amount"])

    def _held(self, intent: Intent) -> list[tuple[Window, bool]]:
        """The budgets in which the intent is held, of every mandate in its chain, and whether each counts payments."""
        if intent.terms["amount"] is None:
            return []
        return [
            (window, currency == COUNT)
            for mandate in intent.mandates
            for currency, window in self._budgets.get(mandate, [])
            if currency in (intent.terms["currency"], COUNT)
        ]

    def _correct(self, intent: Intent, amount: int, failed: bool) -> None:
        difference = amount - (intent.terms["amount"] or 0)
        for definition in self._definitions.values():
            if definition.of == "amount":
                definition.change(intent, difference)
            elif failed:
                definition.change(intent, -1)
        for window, counts in self._held(intent):
            window.change(intent.at, (-1 if failed else 0) if counts else difference)

    def failed(self, intent: Intent) -> None:
        """Restores windows and budgets; slots and distinct counts keep what was tried."""
        self._correct(intent, 0, failed=True)

    def confirmed(self, intent: Intent, at: int, settled: int | None, output: dict[str, Any]) -> None:
        """A confirmation that is not an observing report; `settled` replaces the intent's amount when given."""
        amount = intent.terms["amount"] if settled is None else settled
        if settled is not None:
            self._correct(intent, settled, failed=False)
        for definition in self._definitions.values():
            if not definition.cap:
                definition.count(intent.fields, at, (amount or 0) if definition.of == "amount" else 1)
        newest = self._confirmations.setdefault(intent.fields["tool"], OrderedDict())
        newest[intent.action] = output
        if len(newest) > GROUNDED_NEWEST:
            newest.popitem(last=False)


def definition_identity(document: dict[str, Any]) -> str:
    """Definitions that differ in their name alone count the same."""
    return json.dumps({name: value for name, value in document.items() if name != "name"}, sort_keys=True)
