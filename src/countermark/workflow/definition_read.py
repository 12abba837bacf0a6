"""Reading the canonical document member by member: exact members, exact types, bounds. Every error names the path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, Final, NoReturn

from countermark.model.canon import canon
from countermark.model.errors import EncodingError
from countermark.workflow.errors import DefinitionError, Mistakes, Path, nearest
from countermark.workflow.expression_types import TYPES
from countermark.workflow.expressions import VALUE_DEPTH_MAX, canonical, has_status, kind

ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
ARGUMENT: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")  # a provider's own name: metadata[invoice]
TEXT_CHARS_MAX = 16_000
MINUTE_S, TIMEOUT_S_MAX = 60, 366 * 86_400

_FORMS: Final = {
    ID: "1 to 40 of A-Z a-z 0-9 _ -, and begins with no digit or -",
    ARGUMENT: "1 to 128 characters",
}

Pairs = tuple[tuple[str, Any], ...]


def fail(path: Path, what: str, hint: str = "") -> NoReturn:
    """Raise ``DefinitionError``."""
    raise DefinitionError(what, hint=hint, path=path)


def members(value: Any, path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """An object with exactly these members."""
    if type(value) is not dict:
        fail(path, f"an object was expected, not a {kind(value)}")
    for key in value:
        if key not in wanted:
            fail((*path, str(key)[:60]), "unknown member", nearest(str(key), wanted))
    for key in wanted:
        if key not in value:
            fail(path, f"the member `{key}` is missing")
    return value


def items(value: Any, path: Path, most: int, *, least: int = 0, hint: str = "") -> list[Any]:
    """A list."""
    if type(value) is not list:
        fail(path, f"a list was expected, not a {kind(value)}")
    if not least <= len(value) <= most:
        fail(path, f"{len(value)} members, but {least} to {most} are allowed", hint)
    return value


def text(value: Any, path: Path, *, most: int = TEXT_CHARS_MAX) -> str:
    """A text."""
    if type(value) is not str:
        fail(path, f"a text was expected, not a {kind(value)}")
    if len(value) > most:
        fail(path, f"the text is longer than {most:,} characters")
    return value


def named(value: Any, path: Path, form: re.Pattern[str], what: str = "") -> str:
    """A text of this form; ``what`` says which, of forms that are not this module's."""
    found = text(value, path)
    if form.fullmatch(found) is None:
        fail(path, f"`{found[:60]}` is no name here: it has {what or _FORMS.get(form, form.pattern)}")
    return found


def integer(value: Any, path: Path, least: int, most: int) -> int:
    """An integer within bounds."""
    if type(value) is not int:
        fail(path, f"an integer was expected, not a {kind(value)}")
    if not least <= value <= most:
        fail(path, f"{value} is not between {least:,} and {most:,}")
    return value


def flag(value: Any, path: Path) -> bool:
    """true or false."""
    if type(value) is not bool:
        fail(path, f"true or false was expected, not a {kind(value)}")
    return value


def choice(value: Any, path: Path, words: Collection[str]) -> str:
    """One of these words."""
    if type(value) is not str or value not in words:
        fail(path, f"`{str(value)[:60]}` is not known here", nearest(str(value), words))
    return value


def in_order(values: list[Any], path: Path) -> None:
    """Sorted, none twice: there is one way to write a document."""
    for before, after in pairwise(values):
        if not before < after:
            fail(
                path, f"`{after}` stands twice" if before == after else f"`{after}` stands after `{before}`: not sorted"
            )


def pairs(value: Any, path: Path, form: re.Pattern[str] = ID, *, most: int = 64) -> Pairs:
    """``[[NAME, TEMPLATE]...]``, sorted by name."""
    found = []
    mistakes = Mistakes()
    for number, item in enumerate(items(value, path, most)):
        with mistakes:
            pair = items(item, (*path, number), 2, least=2)
            name = named(pair[0], (*path, number), form)
            template(pair[1], (*path, name))
            found.append((name, pair[1]))
    mistakes.tell()
    in_order([name for name, _ in found], path)
    return tuple(found)


def typed_names(value: Any, path: Path, *, most: int = 64) -> dict[str, str]:
    """``{NAME: TYPE}``."""
    if type(value) is not dict:
        fail(path, f"an object was expected, not a {kind(value)}")
    if len(value) > most:
        fail(path, f"more than {most} members")
    return {named(name, path, ID): choice(what, (*path, name), TYPES) for name, what in value.items()}


def optional(value: Any, path: Path, read: Callable[..., Any], *more: Any) -> Any:
    """null, or what ``read`` makes of it."""
    return None if value is None else read(value, path, *more)


def expression(value: Any, path: Path, *, condition: bool) -> str:
    """An expression in canonical spelling."""
    if type(value) is not str:
        fail(path, f"an expression is a text, not a {kind(value)}")
    try:
        spelled = canonical(value)
    except DefinitionError as error:
        raise error.within(path) from None
    if spelled != value:
        fail(path, "an expression is not in its one spelling", f"Write `{spelled[:200]}`.")
    if not condition and has_status(value):
        fail(path, "success(), failure(), cancelled() and always() belong in an `if` only")
    return value


def template(value: Any, path: Path, depth: int = 0) -> Any:
    """A template: a value of the profile, in which ``{"$": TEXT}`` are expressions."""
    if type(value) is dict:
        if "$" in value:
            members(value, path, ("$",))
            expression(value["$"], path, condition=False)
            return value
        inner: Mapping[Any, Any] = value
    elif type(value) is list:
        inner = dict(enumerate(value))
    else:
        check_profile(value, path)
        return value
    if depth == VALUE_DEPTH_MAX:
        fail(path, f"a value is more than {VALUE_DEPTH_MAX} deep")
    for key, item in inner.items():
        template(item, (*path, key), depth + 1)
    return value


def plain(value: Any, path: Path, depth: int = 0) -> Any:
    """A value: JSON of the profile, no expression in it."""
    check_profile(value, path)
    if type(value) in (dict, list):
        if depth == VALUE_DEPTH_MAX:
            fail(path, f"a value is more than {VALUE_DEPTH_MAX} deep")
        if type(value) is dict and "$" in value:
            fail(path, "a value has no member `$`: an expression cannot stand here")
        for key, item in value.items() if type(value) is dict else enumerate(value):
            plain(item, (*path, key), depth + 1)
    return value


def check_profile(value: Any, path: Path) -> None:
    """Raise ``DefinitionError`` for a value that no record can hold."""
    try:
        canon(value)
    except EncodingError as error:
        raise DefinitionError(error.message, hint=error.hint, path=path) from None


def misfit(value: Any, path: Path = ()) -> Path:
    """Where the innermost value stands that no record can hold: jobs and steps by id, members of pairs by name."""
    for key, item in value.items() if type(value) is dict else enumerate(value) if type(value) is list else ():
        try:
            canon(item)
        except EncodingError:
            if type(item) is list and len(item) == 2 and type(item[0]) is str:
                return misfit(item[1], (*path, item[0]))
            name = item.get("id") if type(item) is dict else None
            return misfit(item, (*path, name if type(name) is str else str(key)))
    return path


def condition(value: Any, path: Path) -> str | None:
    """An ``if``, or null."""
    return None if value is None else expression(value, path, condition=True)


def timeout(value: Any, path: Path) -> int:
    """Seconds that are whole minutes."""
    seconds = integer(value, path, MINUTE_S, TIMEOUT_S_MAX)
    if seconds % MINUTE_S:
        fail(path, f"{seconds} seconds are not whole minutes")
    return seconds
