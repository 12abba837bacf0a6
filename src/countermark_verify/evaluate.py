"""What an expression of a workflow is worth: exact types, and data that is never read as an expression."""

import re
from collections.abc import Mapping
from typing import Any

from countermark_verify import canon
from countermark_verify.errors import Malformed
from countermark_verify.expression import Tree, parse

VALUE_BYTES_MAX = 16_000
VALUE_DEPTH_MAX = 8
Scope = Mapping[str, Any]
_PLACE = re.compile(r"\{\{|\}\}|\{(0|[1-9][0-9]{0,3})\}|[{}]")


class Failed(Exception):
    """The expression fails: its step does, with the code `expression_failed`."""


def value_of(text: str, scope: Scope) -> Any:
    """The value of an expression; raises `Failed`."""
    return _bounded(_eval(parse(text), scope))


def fill(template: Any, scope: Scope) -> Any:
    """A template with the values of its expressions; raises `Failed`."""
    return _bounded(_filled(template, scope))


def truth(value: Any) -> bool:
    """False are false, 0, the empty text and null; a list and an object are true."""
    return value is not None and value is not False and value != "" and not (type(value) is int and value == 0)


def short(value: Any) -> bool:
    """Whether a value is no longer than one may be. Most are so far from it that nothing has to be rendered."""
    return _most(value) <= VALUE_BYTES_MAX or len(canon.render(value)) <= VALUE_BYTES_MAX


def _most(value: Any) -> int:
    """No fewer bytes than the canonical ones: an escape has six."""
    if isinstance(value, dict):
        return 2 + sum(len(name) + 4 + _most(item) for name, item in value.items())
    if isinstance(value, list):
        return 2 + sum(1 + _most(item) for item in value)
    return 2 + 6 * len(value) if type(value) is str else 17


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(item, other[name]) for name, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def _bounded(value: Any) -> Any:
    if type(value) is int or value is None or type(value) is bool:
        return value
    if type(value) is not str and depth_of(value) > VALUE_DEPTH_MAX:
        raise Failed("is nested too deep")
    if not short(value):
        raise Failed("is too long")
    return value


def _filled(template: Any, scope: Scope) -> Any:
    if isinstance(template, dict):
        if "$" in template:
            return value_of(template["$"], scope)
        return {name: _filled(item, scope) for name, item in template.items()}
    return [_filled(item, scope) for item in template] if isinstance(template, list) else template


def _eval(tree: Tree, scope: Scope) -> Any:
    kind = tree[0]
    if kind == "const":
        return tree[1]
    if kind == "name":
        return scope.get(tree[1])
    if kind == "member":
        return _member(_eval(tree[1], scope), tree[2], scope)
    if kind == "not":
        return not truth(_eval(tree[1], scope))
    if kind in ("or", "and"):
        value = None
        for part in tree[1]:
            value = _eval(part, scope)
            if truth(value) is (kind == "or"):
                break
        return value
    if kind == "cmp":
        return _compared(tree[1], _eval(tree[2], scope), _eval(tree[3], scope))
    return _called(tree[1], [_eval(part, scope) for part in tree[2]], scope)


def _member(base: Any, key_tree: Tree, scope: Scope) -> Any:
    key = _eval(key_tree, scope)
    if base is None:
        return None
    if isinstance(base, dict) and type(key) is str:
        return base.get(key)
    if isinstance(base, list) and type(key) is int:
        return base[key] if 0 <= key < len(base) else None
    raise Failed("asks for a member of what has none of that kind")


def _compared(sign: str, left: Any, right: Any) -> bool:
    if sign in ("==", "!="):
        if left is None or right is None:
            same = left is right
        elif type(left) is not type(right):
            raise Failed("compares values of two types")
        else:
            same = alike(left, right)
        return same is (sign == "==")
    if type(left) is not type(right) or type(left) not in (int, str):
        raise Failed("orders what has no order")
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign])


def _called(name: str, given: list[Any], scope: Scope) -> Any:
    if name in ("success", "failure", "cancelled"):
        if "$status" not in scope:
            raise Failed("asks outside a condition how the run stands")
        return scope["$status"][name]
    if name == "always":
        return True
    return _bounded(_made(name, given))


def _made(name: str, given: list[Any]) -> Any:
    if name == "contains":
        return _contains(given[0], given[1])
    if name in ("startsWith", "endsWith"):
        _texts(given)
        return given[0].startswith(given[1]) if name == "startsWith" else given[0].endswith(given[1])
    if name == "format":
        _texts(given[:1])
        return _formatted(given[0], given[1:])
    if name == "join":
        if not isinstance(given[0], list):
            raise Failed("joins what is no list")
        _texts([*given[0], given[1]])
        if sum(map(len, given[0])) + len(given[0]) * len(given[1]) > 2 * VALUE_BYTES_MAX:
            raise Failed("is too long")
        return given[1].join(given[0])
    if name == "toJSON":
        return canon.render(given[0]).decode()
    if name == "fromJSON":
        return _parsed(given[0])
    if type(given[0]) is not str and not isinstance(given[0], list | dict):
        raise Failed("asks for the length of what has none")
    return len(given[0])


def _texts(values: list[Any]) -> None:
    if any(type(value) is not str for value in values):
        raise Failed("gives a function what is no text")


def _contains(whole: Any, part: Any) -> bool:
    if type(whole) is str:
        _texts([part])
        return part in whole
    if not isinstance(whole, list):
        raise Failed("looks into what is no text and no list")
    return any(alike(item, part) for item in whole)


def _formatted(text: str, given: list[Any]) -> str:
    parts, end, size = [], 0, 0
    for found in _PLACE.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        elif found[1] is None or int(found[1]) >= len(given):
            raise Failed("formats with a brace that stands for nothing")
        else:
            parts.append(_inserted(given[int(found[1])]))
        size += len(parts[-1]) + len(parts[-2])
        if size > VALUE_BYTES_MAX:
            raise Failed("is too long")
    return "".join([*parts, text[end:]])


def _inserted(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) not in (int, bool):
        raise Failed("formats a null, a list or an object")
    return canon.render(value).decode()


def _parsed(text: Any) -> Any:
    _texts([text])
    try:
        value = canon.parse_loose(text.encode(), VALUE_BYTES_MAX)
    except (Malformed, UnicodeEncodeError) as error:
        raise Failed("is no JSON of the profile") from error
    if depth_of(value) > VALUE_DEPTH_MAX:
        raise Failed("is nested too deep")
    return value
