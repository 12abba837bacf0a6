"""Exact shapes of JSON values: each check returns "" or the path and the reason of the first misfit."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from countermark_verify.canon import INTEGER_MAX

Check = Callable[[Any], str]


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

    return check


def integer(low: int = -INTEGER_MAX, high: int = INTEGER_MAX) -> Check:
    # `type is int` keeps booleans out, which are integers to isinstance.
    return lambda value: "" if type(value) is int and low <= value <= high else ": not an integer in range"


def boolean(value: Any) -> str:
    return "" if type(value) is bool else ": not a boolean"


def null(value: Any) -> str:
    return "" if value is None else ": not null"


def anything(value: Any) -> str:
    return ""


def const(*allowed: Any) -> Check:
    pairs = {(type(item), item) for item in allowed}

    def check(value: Any) -> str:
        if isinstance(value, dict | list) or (type(value), value) not in pairs:
            return ": not one of " + ", ".join(str(item) for item in allowed)
        return ""

    return check


def either(*checks: Check) -> Check:
    def check(value: Any) -> str:
        reason = ""
        for one in checks:
            reason = one(value)
            if not reason:
                return ""
        return reason

    return check


def maybe(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


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

    return whole


def fixed(*checks: Check) -> Check:
    """A list of exactly these items."""

    def whole(value: Any) -> str:
        if type(value) is not list or len(value) != len(checks):
            return f": not a list of {len(checks)}"
        for index, (check, item) in enumerate(zip(checks, value, strict=True)):
            if reason := check(item):
                return f"[{index}]{reason}"
        return ""

    return whole


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

    return whole


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

    return whole
