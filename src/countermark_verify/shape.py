"""Exact shapes of JSON values: each check returns "" or the path and the reason of the first misfit."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from countermark_verify import spelling
from countermark_verify.canon import INTEGER_MAX

Check = Callable[[Any], str]

# Check -> the expression that its JSON text matches, where there is one.
_SPELT: dict[Check, str] = {}
# Check -> one that matches canonical text alone, where there is one.
_PROVEN: dict[Check, str] = {}
# The checks of objects -> their members, and which of them may be absent.
_PARTS: dict[Check, tuple[dict[str, Check], frozenset[str]]] = {}
# The checks of mappings -> an expression of text that is canonical but for the order of its own keys.
_LOOSE: dict[Check, str] = {}


def spelt(check: Check) -> str | None:
    """An expression that matches only text whose value the check accepts, or None where there is none."""
    return _SPELT.get(check)


def proven(check: Check) -> str | None:
    """The same, of canonical text alone: what it matches need not be rendered again."""
    return _PROVEN.get(check)


def captured(check: Check, name: str) -> Check:
    """The check, whose proven text is a group of this name. Of a mapping's group the order of keys is left to ask."""
    whole: Check = lambda value: check(value)  # noqa: E731
    if (expression := _LOOSE.get(check, _PROVEN.get(check))) is not None:
        _PROVEN[whole] = f"(?P<{name}>{expression})"
    return whole


def member(check: Check, name: str) -> Check:
    """The check of one member of an object."""
    return _PARTS[check][0][name]


def with_members(check: Check, changed: dict[str, Check], *, bare: bool = False) -> Check:
    """The check of an object, with other checks of some of its members; `bare`: without those that may be absent."""
    members, optional = _PARTS[check]
    if bare:
        return record({name: one for name, one in (members | changed).items() if name not in optional})
    return record(members | changed, optional)


def _known(check: Check, expression: str | None, exact: str | None) -> Check:
    if expression is not None:
        _SPELT[check] = expression
    if exact is not None:
        _PROVEN[check] = exact
    return check


def text(pattern: str | None = None, chars_max: int = 65_535) -> Check:
    compiled = re.compile(pattern, re.ASCII) if pattern else None

    def check(value: Any) -> str:
        if type(value) is not str:
            return ": not a string"
        if len(value) > chars_max:
            return ": too long"
        if compiled and not compiled.fullmatch(value):
            return ": ill-formed"
        return ""

    spelled = spelling.text(pattern, chars_max)
    return _known(check, spelled, spelled)


def integer(low: int = -INTEGER_MAX, high: int = INTEGER_MAX) -> Check:
    # `type is int` keeps booleans out, which are integers to isinstance.
    check: Check = lambda value: "" if type(value) is int and low <= value <= high else ": not an integer in range"  # noqa: E731
    return _known(check, spelled := spelling.integer(low, high), spelled)


def boolean(value: Any) -> str:
    return "" if type(value) is bool else ": not a boolean"


def null(value: Any) -> str:
    return "" if value is None else ": not null"


def anything(value: Any) -> str:
    return ""


_known(boolean, "(?>true|false)", "(?>true|false)")
_known(null, "null", "null")
_known(anything, spelling.SCALAR, spelling.SCALAR)


def value(deep: int) -> Check:
    """Any value, nested at most so deep: a scalar is not nested."""

    def check(found: Any, left: int = deep) -> str:
        if isinstance(found, dict | list):
            if not left:
                return ": nested too deep"
            items = found.values() if isinstance(found, dict) else found
            return next(filter(None, (check(item, left - 1) for item in items)), "")
        return ""

    return _known(check, spelling.value(min(deep, spelling.SPELT_DEEP)), None)


def const(*allowed: Any) -> Check:
    pairs = {(type(item), item) for item in allowed}

    def check(value: Any) -> str:
        if isinstance(value, dict | list) or (type(value), value) not in pairs:
            return ": not one of " + ", ".join(str(item) for item in allowed)
        return ""

    return _known(check, spelled := spelling.const(allowed), spelled)


def either(*checks: Check) -> Check:
    def check(value: Any) -> str:
        reason = ""
        for one in checks:
            reason = one(value)
            if not reason:
                return ""
        return reason

    return _known(check, *(spelling.either([of(one) for one in checks]) for of in (spelt, proven)))


def maybe(check: Check) -> Check:
    whole: Check = lambda value: "" if value is None else check(value)  # noqa: E731
    return _known(whole, *(spelling.either(["null", of(check)]) for of in (spelt, proven)))


def listing(check: Check, count_max: int = 65_535) -> Check:
    def whole(value: Any) -> str:
        if type(value) is not list:
            return ": not a list"
        if len(value) > count_max:
            return ": too many items"
        for index, item in enumerate(value):
            if reason := check(item):
                return f"[{index}]{reason}"
        return ""

    return _known(whole, *(spelling.listing(of(check), count_max) for of in (spelt, proven)))


def fixed(*checks: Check) -> Check:
    """A list of exactly these items."""

    def whole(value: Any) -> str:
        if type(value) is not list or len(value) != len(checks):
            return f": not a list of {len(checks)}"
        for index, (check, item) in enumerate(zip(checks, value, strict=True)):
            if reason := check(item):
                return f"[{index}]{reason}"
        return ""

    return _known(whole, *(spelling.fixed([of(check) for check in checks]) for of in (spelt, proven)))


def mapping(check: Check, key: str | None = None, count_max: int = 65_535) -> Check:
    pattern = re.compile(key, re.ASCII) if key else None

    def whole(value: Any) -> str:
        if type(value) is not dict:
            return ": not an object"
        if len(value) > count_max:
            return ": too many members"
        for name, item in value.items():
            if pattern and not pattern.fullmatch(name):
                return f".{name}: ill-formed name"
            if reason := check(item):
                return f".{name}{reason}"
        return ""

    if (loose := spelling.mapping(proven(check), key, count_max)) is not None:
        _LOOSE[whole] = loose
    return _known(
        whole,
        spelling.mapping(spelt(check), key, count_max),
        spelling.mapping(proven(check), key, count_max, single=True),
    )


def record(members: dict[str, Check], optional: Iterable[str] = ()) -> Check:
    """An object with exactly these members (the optional ones may be absent)."""
    names = frozenset(members)
    required = names - frozenset(optional)
    items = tuple(members.items())

    def whole(value: Any) -> str:
        if type(value) is not dict:
            return ": not an object"
        present = value.keys()
        if present != names:
            if missing := sorted(required - present):
                return f".{missing[0]}: missing"
            if unknown := sorted(present - names):
                return f".{unknown[0]}: unknown member"
        for name, check in items:
            if name in value and (reason := check(value[name])):
                return f".{name}{reason}"
        return ""

    _PARTS[whole] = members, names - required
    spelled = ({name: of(check) for name, check in items} for of in (spelt, proven))
    return _known(whole, *(spelling.record(parts, names - required) for parts in spelled))
