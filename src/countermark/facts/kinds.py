"""One tracker per kind of fact. Each holds the groups of one definition and knows what an event does to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

from countermark.facts.definition import FactDef
from countermark.facts.window import BUCKETS_BACK_CAP, BUCKETS_BACK_FLOOR, Window, width_of
from countermark.model.canon import Json
from countermark.model.errors import FactError

DISTINCT_MAX = 4_096
GROUNDED_MAX = 10_000

Subject: TypeAlias = Mapping[str, Json]
Key: TypeAlias = tuple[Any, ...]

_TRUE = ("true",)  # Python holds True == 1; JSON does not, so booleans get keys of their own
_FALSE = ("false",)


class MissingFactError(FactError):
    """A fact cannot be computed. ``fact`` and the message are its name (the decision's reason), the hint says why."""

    def __init__(self, fact: str, why: str) -> None:
        super().__init__(fact, hint=f"It cannot be computed: {why}.")
        self.fact = fact


class Tracker(Protocol):
    """State of one fact. ``compute`` changes nothing and may raise ``MissingFactError``; the events cannot fail."""

    definition: FactDef

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json: ...
    def intend(self, subject: Subject, at: int) -> None: ...
    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None: ...
    def fail(self, subject: Subject, intent_at: int) -> None: ...
    def prune(self, now_us: int) -> None: ...
    def dump(self) -> list[Any]: ...
    def load(self, state: list[Any]) -> None: ...


def tracker_for(definition: FactDef, since: Mapping[str, int]) -> Tracker:
    """The empty tracker of a definition; ``since`` as for ``FactMachine``."""
    if definition.kind == "details":
        return _DetailsTracker(definition, since)
    if definition.kind == "window":
        return WindowTracker(definition)
    if definition.kind == "slot":
        return _SlotTracker(definition)
    if definition.kind == "distinct":
        return _DistinctTracker(definition)
    return _GroundedTracker(definition)


def atom(value: Any) -> Any:
    """A JSON scalar as a dictionary key that keeps ``true`` and ``1`` apart."""
    if value is True:
        return _TRUE
    return _FALSE if value is False else value


def plain(key: Any) -> Json:
    """Inverse of ``atom``."""
    if key == _TRUE:
        return True
    return False if key == _FALSE else key


def settled_amount(body: Mapping[str, Any]) -> int | None:
    """What the provider says was moved, when it says so."""
    settled = body["settled"]
    return None if settled is None else settled["amount"]


def _getter(group: tuple[str, ...]) -> Callable[[Subject], Key]:
    """The values of the group's fields as a tuple; the function raises ``KeyError`` for an absent one."""
    if len(group) > 1:
        return itemgetter(*group)
    if group:
        only = group[0]
        return lambda subject: (subject[only],)
    return lambda subject: ()


class _Grouped:
    """Matching and grouping, shared by windows, slots and distinct counts."""

    def __init__(self, definition: FactDef) -> None:
        self.definition = definition
        self.cap = definition.use == "cap"
        self.where = tuple((name, frozenset(map(atom, values))) for name, values in definition.where)
        self.group = definition.group
        self.fields = _getter(definition.group)
        # Only arguments can be booleans; spare the others the detour.
        self.mixed = any(name.startswith("args.") for name in definition.group)

    def matches(self, subject: Subject) -> bool:
        for name, values in self.where:
            value = subject.get(name)
            if value is None or (value if value.__class__ is not bool else atom(value)) not in values:
                return False
        return True

    def key(self, subject: Subject) -> Key | None:
        """The group of an action, or None when a field is missing."""
        try:
            key = self.fields(subject)
        except KeyError:
            return None
        if None in key:
            return None
        return tuple([atom(value) for value in key]) if self.mixed else key

    def missing(self, subject: Subject) -> MissingFactError:
        absent = next(name for name in self.group if subject.get(name) is None)
        return MissingFactError(self.definition.name, f"the action has no {absent}")


class WindowTracker(_Grouped):
    """Sum or count over a sliding window."""

    def __init__(self, definition: FactDef) -> None:
        super().__init__(definition)
        self.counts = definition.of == "count"
        self.width = width_of(definition.over_us)
        self.back = BUCKETS_BACK_CAP if self.cap else BUCKETS_BACK_FLOOR
        self.groups: dict[Key, Window] = {}

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json:
        key = self.key(subject)
        if key is None:
            raise self.missing(subject)
        window = self.groups.get(key)
        value = 0 if window is None else window.value(now_us, self.back)
        if self.cap and (not self.where or self.matches(subject)):
            weight = 1 if self.counts else subject.get("amount")
            if weight.__class__ is not int:
                raise MissingFactError(self.definition.name, "the action has no amount")
            value += weight
        return value

    def _add(self, key: Key | None, at: int, weight: int) -> None:
        if key is None:
            return
        window = self.groups.get(key)
        if window is None:
            window = self.groups[key] = Window(self.width)
        window.add(at, weight)

    def weight(self, subject: Subject) -> int | None:
        if self.where and not self.matches(subject):
            return None
        return 1 if self.counts else subject["amount"]  # type: ignore[return-value]

    def intend(self, subject: Subject, at: int) -> None:
        if self.cap:
            weight = self.weight(subject)
            if weight is not None:
                self._add(self.key(subject), at, weight)

    def fail(self, subject: Subject, intent_at: int) -> None:
        weight = self.weight(subject) if self.cap else None
        if weight is not None:
            self._adjust(subject, intent_at, -weight)

    def _adjust(self, subject: Subject, intent_at: int, delta: int) -> None:
        key = self.key(subject)
        window = None if key is None else self.groups.get(key)
        if window is not None:
            window.adjust(intent_at, delta)

    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None:
        moved = None if self.counts else settled_amount(body)
        if self.cap and moved is None:  # what was intended is what happened
            return
        weight = self.weight(subject)
        if weight is None:
            return
        if not self.cap:
            self._add(self.key(subject), at, weight if moved is None else moved)
        elif moved is not None and moved != weight:
            self._adjust(subject, intent_at, moved - weight)

    def prune(self, now_us: int) -> None:
        oldest = now_us // self.width - self.back
        for window in self.groups.values():
            window.expire(oldest)
        self.groups = {key: window for key, window in self.groups.items() if window.buckets}

    def dump(self) -> list[Any]:
        return [[[plain(part) for part in key], window.dump()] for key, window in self.groups.items()]

    def load(self, state: list[Any]) -> None:
        self.groups = {tuple(map(atom, key)): Window.load(self.width, pairs) for key, pairs in state}


class _SlotTracker(_Grouped):
    """When the newest matching event was."""

    def __init__(self, definition: FactDef) -> None:
        super().__init__(definition)
        self.over_us = definition.over_us
        self.groups: dict[Key, int] = {}

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json:
        key = self.key(subject)
        if key is None:
            raise self.missing(subject)
        at = self.groups.get(key)
        if at is None or 0 < self.over_us < now_us - at:
            return {"known": False}
        return {"known": True, "age_s": (now_us - at) // 1_000_000}

    def _touch(self, subject: Subject, at: int) -> None:
        if self.matches(subject):
            key = self.key(subject)
            if key is not None:
                self.groups[key] = at

    def intend(self, subject: Subject, at: int) -> None:
        if self.cap:
            self._touch(subject, at)

    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None:
        if not self.cap:
            self._touch(subject, at)

    def fail(self, subject: Subject, intent_at: int) -> None:
        """A failed attempt stays an attempt."""

    def prune(self, now_us: int) -> None:
        if self.over_us:
            self.groups = {key: at for key, at in self.groups.items() if now_us - at <= self.over_us}

    def dump(self) -> list[Any]:
        return [[[plain(part) for part in key], at] for key, at in self.groups.items()]

    def load(self, state: list[Any]) -> None:
        self.groups = {tuple(map(atom, key)): at for key, at in state}


class _DetailsTracker(_Grouped):
    """How old the present account of the payee is. It holds nothing: the register of payees is its state."""

    def __init__(self, definition: FactDef, since: Mapping[str, int]) -> None:
        super().__init__(definition)
        self.since = since

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json:
        key = self.key(subject)
        if key is None:
            raise self.missing(subject)
        at = self.since.get(key[0])
        return {"known": False} if at is None else {"known": True, "age_s": (now_us - at) // 1_000_000}

    def intend(self, subject: Subject, at: int) -> None:
        """Payments do not change a payee's account."""

    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None:
        """Payments do not change a payee's account."""

    def fail(self, subject: Subject, intent_at: int) -> None:
        """Payments do not change a payee's account."""

    def prune(self, now_us: int) -> None:
        """Nothing expires."""

    def dump(self) -> list[Any]:
        return []

    def load(self, state: list[Any]) -> None:
        """There is nothing to load."""


class _DistinctTracker(_Grouped):
    """How many different values of a field were seen in a sliding window.

    A group maps each value to its newest bucket, newest last. Only the newest ``DISTINCT_MAX + 1`` are kept: if more
    are alive, those are all alive and the count is refused either way; if fewer are, all that are alive are among them.
    """

    def __init__(self, definition: FactDef) -> None:
        super().__init__(definition)
        self.of = definition.of
        self.width = width_of(definition.over_us)
        self.back = BUCKETS_BACK_CAP if self.cap else BUCKETS_BACK_FLOOR
        self.groups: dict[Key, dict[Any, int]] = {}

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json:
        key = self.key(subject)
        if key is None:
            raise self.missing(subject)
        seen = self.groups.get(key, {})
        oldest = now_us // self.width - self.back
        count = len(seen)
        for bucket in seen.values():
            if bucket >= oldest:
                break
            count -= 1
        if self.cap and self.matches(subject):
            own = subject.get(self.of)
            if own is not None and seen.get(atom(own), oldest - 1) < oldest:
                count += 1
        if count > DISTINCT_MAX:
            raise MissingFactError(self.definition.name, f"more than {DISTINCT_MAX} distinct values")
        return count

    def _see(self, subject: Subject, at: int) -> None:
        value = subject.get(self.of)
        if value is None or not self.matches(subject):
            return
        key = self.key(subject)
        if key is None:
            return
        seen = self.groups.setdefault(key, {})
        mark = atom(value)
        seen.pop(mark, None)
        seen[mark] = at // self.width
        if len(seen) > DISTINCT_MAX + 1:
            del seen[next(iter(seen))]

    def intend(self, subject: Subject, at: int) -> None:
        if self.cap:
            self._see(subject, at)

    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None:
        if not self.cap:
            self._see(subject, at)

    def fail(self, subject: Subject, intent_at: int) -> None:
        """A failed attempt stays an attempt."""

    def prune(self, now_us: int) -> None:
        oldest = now_us // self.width - self.back
        alive = (
            (key, {mark: bucket for mark, bucket in seen.items() if bucket >= oldest})
            for key, seen in self.groups.items()
        )
        self.groups = {key: seen for key, seen in alive if seen}

    def dump(self) -> list[Any]:
        return [
            [[plain(part) for part in key], [[plain(mark), bucket] for mark, bucket in seen.items()]]
            for key, seen in self.groups.items()
        ]

    def load(self, state: list[Any]) -> None:
        self.groups = {tuple(map(atom, key)): {atom(mark): bucket for mark, bucket in pairs} for key, pairs in state}


class _GroundedTracker:
    """Whether a cited, confirmed action's output says the same as this action.

    ``outputs`` maps the newest confirmations of the tool, by action id, to the named output: ``[value]`` or ``[]``.
    """

    def __init__(self, definition: FactDef) -> None:
        self.definition = definition
        self.of = definition.of
        self.tool = definition.tool
        self.field = definition.field
        self.outputs: dict[str, list[Json]] = {}

    def compute(self, subject: Subject, because: Sequence[str], now_us: int) -> Json:
        own = subject.get(self.of)
        known = equal = False
        for cited in because:
            for value in self.outputs.get(cited, ()):
                known = True
                if value.__class__ is own.__class__ and value == own:
                    equal = True
        return {"known": known, "equal": equal}

    def intend(self, subject: Subject, at: int) -> None:
        """Only outcomes ground anything."""

    def confirm(self, subject: Subject, intent_at: int, at: int, body: Mapping[str, Any]) -> None:
        if body["tool"] != self.tool:
            return
        output = body["output"]
        self.outputs[body["id"]] = [output[self.field]] if self.field in output else []
        if len(self.outputs) > GROUNDED_MAX:
            del self.outputs[next(iter(self.outputs))]

    def fail(self, subject: Subject, intent_at: int) -> None:
        """Only confirmations ground anything."""

    def prune(self, now_us: int) -> None:
        """Nothing expires by time."""

    def dump(self) -> list[Any]:
        return [[cited, *found] for cited, found in self.outputs.items()]

    def load(self, state: list[Any]) -> None:
        self.outputs = {cited: found for cited, *found in state}
