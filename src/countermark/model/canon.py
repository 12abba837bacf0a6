"""Canonical bytes: RFC 8785 under a strict profile, and nothing else.

Inside the profile orjson with sorted keys produces exactly the RFC 8785 bytes (a test holds this against the
``rfc8785`` package); outside it the two differ, so everything outside is refused before it is written.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

import orjson

from countermark.model.errors import EncodingError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"

INTEGER_ABS_MAX = 2**53 - 1  # RFC 8785 section 3.2.2.3: beyond this, ECMAScript numbers lose integers
DEPTH_MAX = 16
KEY_CHARS_MAX = 64
KEYS_REMEMBERED_MAX = 4_096
DOCUMENT_BYTES_MAX = 1 << 20
RECORD_BYTES_MAX = 65_535  # C2SP tlog-tiles: an entry's length is a uint16

_SCALARS = frozenset((str, int, bool, type(None)))
_CONTAINERS = frozenset((dict, list, tuple))
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER  # refuses integers beyond INTEGER_ABS_MAX, and surrogates
_KEY = re.compile(r"[A-Za-z0-9_.$-]{1,64}")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)  # a string, or a bracket outside of one


_FITTING: set[object] = set()  # keys that were seen to fit: records have few, so most are known already


def _check_keys(value: dict[object, object]) -> None:
    if not all(type(key) is str and _KEY.fullmatch(key) is not None for key in value):
        raise EncodingError("an object key is outside [A-Za-z0-9_.$-]{1,64}")
    if len(_FITTING) < KEYS_REMEMBERED_MAX:
        _FITTING.update(value)


def check(value: object) -> None:
    """Raise ``EncodingError`` unless ``value`` is inside the record profile."""
    canon(value)


def structure(value: Any, depth: int = 0) -> None:
    """The part of the profile that orjson does not enforce: types, keys and depth. This runs for every record.

    Raises:
        EncodingError: an object key, a type (floats are none of the profile) or the nesting does not fit.
    """
    if type(value) is dict:
        if not _FITTING.issuperset(value):
            _check_keys(value)
        value = value.values()
    elif type(value) not in _CONTAINERS:
        value, depth = (value,), depth - 1
    if depth >= DEPTH_MAX:
        raise EncodingError(f"a value is nested deeper than {DEPTH_MAX}")
    for item in value:
        if type(item) not in _SCALARS:
            if type(item) not in _CONTAINERS:
                raise EncodingError(f"a value of type {type(item).__name__} is not allowed (floats never are)")
            if item or depth + 1 == DEPTH_MAX:
                structure(item, depth + 1)


def render(value: object, bytes_max: int) -> bytes:
    """Canonical bytes of a value that ``structure`` has passed. Raises ``EncodingError``."""
    try:
        raw = orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        raise _misfit(value) from None
    if len(raw) > bytes_max:
        raise EncodingError(f"a document is longer than {bytes_max} bytes")
    return raw


def _misfit(value: object) -> EncodingError:
    """Why orjson refused a value of fitting types: a string or an integer in it that JSON cannot carry."""
    if isinstance(value, int):
        return EncodingError("an integer is outside ±(2^53-1)", hint="Write larger amounts as decimal strings.")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        try:
            orjson.dumps(item, option=_OPTIONS)
        except TypeError:
            return _misfit(item)
    return EncodingError("a string holds a lone surrogate")


def canon(value: object, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
    """Return the canonical bytes of ``value`` (UTF-8, sorted keys, no white space).

    Raises:
        EncodingError: ``value`` is outside the profile or longer than ``bytes_max`` bytes.
    """
    structure(value)
    return render(value, bytes_max)


def parse(raw: bytes, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> Any:
    """Parse canonical bytes; anything that does not render back to the same bytes is refused."""
    if len(raw) > bytes_max:
        raise EncodingError(f"a document is longer than {bytes_max} bytes")
    try:
        value = orjson.loads(raw)
    except (ValueError, RecursionError):
        raise EncodingError("not JSON") from None
    if canon(value, bytes_max=bytes_max) != raw:
        raise EncodingError("not in canonical form (key order, white space, duplicate keys or escapes)")
    return value


def _no_float(text: str) -> Any:
    raise EncodingError(f"a number is not an integer: {text[:40]}", hint="Amounts are integers in minor units.")


def _no_constant(text: str) -> Any:
    raise EncodingError(f"{text} is not a number")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > INTEGER_ABS_MAX:
        raise EncodingError("an integer is outside ±(2^53-1)")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EncodingError("an object holds a key twice")
    return found


_STRICT = json.JSONDecoder(
    parse_float=_no_float, parse_constant=_no_constant, parse_int=_integer, object_pairs_hook=_unique
)  # made once: making it takes as long as reading an action


def read_json(raw: bytes, *, bytes_max: int = 65_536, depth_max: int = DEPTH_MAX) -> Any:
    """Decode JSON written by somebody else, strictly: no floats, NaN, duplicate keys, deep nesting or bad Unicode.

    Keys may hold any characters (provider names such as ``metadata[invoice]``); the profile of records does not
    apply here.
    """
    if len(raw) > bytes_max:
        raise EncodingError(f"the document is longer than {bytes_max} bytes")
    _check_depth(raw, depth_max)
    try:
        value = _STRICT.decode(raw.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise EncodingError("not valid UTF-8 JSON") from None
    if b"\\u" in raw:  # only an escape can make half of a surrogate pair: the bytes themselves were UTF-8
        _check_strings(value)
    return value


def _check_depth(raw: bytes, depth_max: int) -> None:
    if raw.count(b"[") + raw.count(b"{") <= depth_max:
        return  # too few brackets to be deep, even if none stood in a string
    depth = 0
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            if depth > depth_max:
                raise EncodingError(f"a value is nested deeper than {depth_max}")
        elif first != 0x22:
            depth -= 1


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise EncodingError("a string holds a lone surrogate") from None


def _check_strings(value: Any) -> None:
    if type(value) is str:
        _check_unicode(value)
    elif type(value) is list:
        for item in value:
            _check_strings(item)
    elif type(value) is dict:
        for key, item in value.items():
            _check_unicode(key)
            _check_strings(item)
