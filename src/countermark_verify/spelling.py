"""How the JSON text of a shape is spelt: one regular expression instead of many calls (docs/spec/verify.md, Speed).

An expression here may refuse what its shape allows (an escape, a number of seventeen digits, a nested output): the
reader then asks the shape itself, which also knows the reason. It must never match text whose value the shape refuses.
Canonical form, sorted and single keys of mappings included, is not asked here: the reader renders the value again.
"""

import json
import re
from typing import Any

from countermark_verify.canon import INTEGER_MAX

# Any string in its canonical spelling: nothing within ends it, and each escape is the one that RFC 8785 has.
_ESCAPE = r'\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
STRING = rf'"[^"\\\x00-\x1f]*+(?:{_ESCAPE}[^"\\\x00-\x1f]*+)*+"'
KEY = r"[A-Za-z0-9_.$-]{1,64}"
_UNBOUNDED = 65_535  # characters that no record exceeds
_DIGITS = 15  # of a number that is within the profile whatever its digits are; with 16, while the first is not 9
# Patterns whose every part is known to match neither a quotation mark nor a backslash, once those are added to the
# negated classes: such a pattern cannot read on behind the end of its string.
_CLASS = r"\[(?:A-Z|a-z|a-f|0-9|1-9|[A-Za-z0-9+/_.$:=@](?!-[^\]]))+-?\]"
_NEGATED = r"\[\^(?:\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|-)+\]"
_CONTAINED = re.compile(rf"(?:{_NEGATED}|{_CLASS}|[A-Za-z0-9:_=|/-]|\\\.|\(\?:|[()*+?]|\{{[0-9]+(?:,[0-9]+)?\}})*")


def text(pattern: str | None, chars_max: int) -> str | None:
    within = "" if chars_max >= _UNBOUNDED else rf'(?=[^"]{{0,{chars_max}}}")'
    if pattern is None:
        return STRING if not within else rf'"{within}[^"\\\x00-\x1f]*+"'
    if not _CONTAINED.fullmatch(pattern):
        return None
    contained = pattern.replace("[^", r'[^"\\')
    return rf'(?>"{within}(?:{contained})")'


def integer(low: int, high: int) -> str | None:
    if high == INTEGER_MAX:
        most = rf"(?:[1-8][0-9]{{{_DIGITS}}}|[1-9][0-9]{{0,{_DIGITS - 1}}})"
    elif set(str(high)) == {"9"}:
        most = rf"[1-9][0-9]{{0,{len(str(high)) - 1}}}"
    else:
        return None
    signed = {1: most, 0: f"(?>0|{most})", -INTEGER_MAX: f"(?>0|-?{most})"}
    return signed.get(low)


def const(allowed: tuple[Any, ...]) -> str:
    return "(?>" + "|".join(re.escape(json.dumps(item, ensure_ascii=False)) for item in allowed) + ")"


def either(parts: list[str | None]) -> str | None:
    known = [part for part in parts if part is not None]
    return "(?>" + "|".join(known) + ")" if known else None


def listing(item: str | None, count_max: int) -> str | None:
    if item is None or not count_max:
        return None
    more = "*+" if count_max >= _UNBOUNDED else rf"{{0,{count_max - 1}}}+"
    return rf"\[(?:{item}(?:,{item}){more})?+\]"


def fixed(items: list[str | None]) -> str | None:
    known = [item for item in items if item is not None]
    return r"\[" + ",".join(known) + r"\]" if len(known) == len(items) else None


def mapping(value: str | None, key: str | None, count_max: int, *, single: bool = False) -> str | None:
    """`single`: of at most one member, whose keys are then in order."""
    if value is None or count_max < _UNBOUNDED or (key is not None and not _CONTAINED.fullmatch(key)):
        return None
    member = rf'(?>"(?={KEY}")(?:{KEY if key is None else key})":{value})'
    return rf"\{{(?:{member})?+\}}" if single else rf"\{{(?:{member}(?:,{member})*+)?+\}}"


def record(members: dict[str, str | None], optional: frozenset[str]) -> str | None:
    """Members in the order that canonical form has; those that may be absent where they are never the first."""
    parts = []
    for place, (name, value) in enumerate(sorted(members.items())):
        if value is None and name in optional:
            continue  # with this member the shape itself is asked
        if value is None or (not place and name in optional):
            return None
        own = ("," if place else "") + f'"{re.escape(name)}":{value}'
        parts.append(f"(?>{own})?+" if name in optional else own)
    return r"\{" + "".join(parts) + r"\}"


SCALAR = either([STRING, integer(-INTEGER_MAX, INTEGER_MAX), "true|false|null"])
SPELT_DEEP = 2  # values that are nested deeper are given to their shape


def value(deep: int) -> str | None:
    inner = SCALAR if not deep else value(deep - 1)
    return either([SCALAR, listing(inner, _UNBOUNDED), mapping(inner, None, _UNBOUNDED)]) if deep else inner
