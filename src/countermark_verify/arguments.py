"""Does a value fit the declaration of its argument? (docs/spec/record.md, `args`)"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from countermark_verify.onchain import counted

_TYPES = {"string": str, "integer": int, "boolean": bool}
# Patterns come from the pack: how often one could be retried is bounded before it is run.
_RETRIES_MAX = 10_000_000
_PATTERN_CHARS_MAX = 1_000
_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]*,[0-9]*\}")
_ATOMS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_AMOUNT_MAX = 10**15
_NAMEABLE = re.compile(r"[\t\n -~]*[A-Za-z0-9][\t\n -~]*")


def misfit(item: Mapping[str, Any], value: Any) -> str:
    """Why the value does not fit its declaration, or ""."""
    if type(value) is not _TYPES[item["type"]]:
        return f"is no {item['type']}"
    if item["enum"] and value not in item["enum"]:
        return "is not one of the declared values"
    if type(value) is int:
        lowest = 1 if item["minimum"] is None and item["class"] == "amount" else item["minimum"]
        low = lowest is not None and value < lowest
        return "is out of its bounds" if low or (item["maximum"] is not None and value > item["maximum"]) else ""
    if "unit" in item:
        units, most = counted(item, value), _AMOUNT_MAX if item["maximum"] is None else item["maximum"]
        low_units = 1 if item["minimum"] is None else item["minimum"]
        if units is None or not low_units <= units <= most:
            return "is no amount of base units within its bounds"
    if type(value) is not str:
        return ""
    if len(value) > item["chars_max"]:
        return "is longer than declared"
    if not item["pattern"] or not matches(item, value):
        return ""
    pattern = _compiled(item["pattern"])
    return "" if pattern is not None and pattern.fullmatch(value) else "does not have the declared form"


def matches(item: Mapping[str, Any], value: Any) -> bool:
    """Could the pattern be evaluated, if there is one?"""
    if type(value) is not str or not item["pattern"]:
        return True
    return _retries(item["pattern"], len(value)) <= _RETRIES_MAX and _compiled(item["pattern"]) is not None


def nameable(value: str) -> bool:
    """May a business key hold the text? Printable ASCII, tabs and line feeds, with at least one letter or digit."""
    return _NAMEABLE.fullmatch(value) is not None


@lru_cache(maxsize=4_096)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError, ValueError):
        return None


@lru_cache(maxsize=4_096)
def _retries(pattern: str, chars: int) -> int:
    """An upper bound of the ways in which a backtracking matcher could try to fit a text of this length."""
    if len(pattern) > _PATTERN_CHARS_MAX:
        return _RETRIES_MAX + 1
    plain = _ATOMS.sub("a", pattern)
    if re.search(r"\)(?:[*+]|\{)", plain) or "(?" in plain:
        return _RETRIES_MAX + 1
    return min(_RETRIES_MAX + 1, int((chars + 1) ** len(_QUANTIFIER.findall(plain))) << min(plain.count("|"), 64))
