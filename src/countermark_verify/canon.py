"""Canonical bytes, digests and the strict JSON profile (docs/spec/digests.md).

One value has one encoding: what was parsed is rendered again and compared, so that duplicate keys, white space, odd
escapes and odd number forms are all refused by the same comparison.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NoReturn

from countermark_verify.errors import Malformed

DEPTH_MAX = 16
RECORD_BYTES_MAX = 65_535
INTEGER_MAX = 2**53 - 1
INTEGER_CHARS_MAX = 17
# What one document may hold beyond a record, which is short: a value of one byte takes a hundred in memory.
VALUES_MAX = 400_000

ZERO = "sha256:" + "0" * 64

# Possessive, and satisfied by an unfinished string as well: hostile quotes cost linear time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# The next bracket outside of strings, or the end.
_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:' + _STRING.pattern + rb'[^"\[\]{}]*+)*+([\[\]{}]|\Z)', re.DOTALL)
_OPENING = (b"{", b"[")
_QUICK_BYTES_MAX = 1024**2
_OPENED_MAX = 512  # brackets of a record that a scanner which recurses may be given before its depth is known
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_KEY = re.compile(r"[A-Za-z0-9_.$-]{1,64}")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def digest(domain: str, data: bytes) -> str:
    """`sha256:` + hex of SHA-256(domain || 0x00 || data); `domain` without its `countermark/v1/`."""
    return "sha256:" + hashlib.sha256(b"countermark/v1/" + domain.encode() + b"\0" + data).hexdigest()


def signing_bytes(domain: str, document: object) -> bytes:
    """What people, agents and principals sign: domain || 0x00 || canonical document."""
    return b"countermark/v1/" + domain.encode() + b"\0" + render(document)


def render(value: object) -> bytes:
    """The RFC 8785 bytes of a value inside the profile.

    The standard library's escapes are exactly those of RFC 8785 3.2.2.2 when `ensure_ascii` is off, and keys are ASCII
    here, so that sorting by code point equals the RFC's sorting by UTF-16 unit.
    """
    return "".join(_ENCODE(value, 0)).encode("utf-8")


def parse(raw: bytes, bytes_max: int = RECORD_BYTES_MAX, values_max: int = VALUES_MAX) -> object:
    """The value of canonical bytes; raises `Malformed` for anything else."""
    value = _read(raw, bytes_max, values_max)
    try:
        again = render(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"cannot be rendered: {type(error).__name__}") from error
    if again != raw:
        raise Malformed("is not in canonical form")
    return value


def reread(raw: bytes) -> tuple[str, dict[str, Any]] | None:
    """Text and value of an object whose text is the one that its value is rendered to; None says nothing about it.

    What else `parse` asks (depth, keys, sizes of integers) is not asked here: it is for a reader that asks it of the
    text. Without a second key of the same name, or the text would have been longer.
    """
    if len(raw) > RECORD_BYTES_MAX or raw.count(b"[") + raw.count(b"{") > _OPENED_MAX:
        return None
    try:
        text = raw.decode("utf-8")
        value, end = _SCAN(text, 0)
        if type(value) is not dict or end != len(text) or "".join(_ENCODE(value, 0)) != text:
            return None
    except (StopIteration, ValueError, RecursionError):
        return None
    return text, value


def value_of(raw: bytes) -> dict[str, Any]:
    """The value of a record's text that was found to be canonical before."""
    value: dict[str, Any] = _SCAN(raw.decode("utf-8"), 0)[0]
    return value


def parse_loose(raw: bytes, bytes_max: int, values_max: int = VALUES_MAX) -> object:
    """The value of JSON text that need not be canonical: white space is welcome, all other bounds hold."""
    return _read(raw, bytes_max, values_max)


def _read(raw: bytes, bytes_max: int, values_max: int) -> object:
    if len(raw) > bytes_max:
        raise Malformed(f"is longer than {bytes_max} bytes")
    if len(raw) > RECORD_BYTES_MAX and values_of(raw) > values_max:
        raise Malformed(f"holds more than {values_max} values")
    check_depth(raw)
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except Malformed:
        raise
    except UnicodeDecodeError as error:
        raise Malformed("is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Malformed("is not JSON") from error


def values_of(raw: bytes) -> int:
    """At least how many values the JSON text holds, and not many more: signs within strings are counted too."""
    return raw.count(b",") + raw.count(b"{") + raw.count(b"[") + raw.count(b'"') // 4


def check_depth(raw: bytes) -> None:
    """Raises `Malformed` for JSON text that is nested deeper than a document may be."""
    if len(raw) > _QUICK_BYTES_MAX:
        _check_depth_slowly(raw)
        return
    depth = 0
    # Without escapes every second piece between quotes is a string: most records are read by this quicker way.
    plain = _STRING.sub(b"", raw) if b"\\" in raw else b"".join(raw.split(b'"')[::2])
    for byte in plain.translate(None, _NOT_BRACKETS):
        if byte in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"is nested deeper than {DEPTH_MAX}")
        else:
            depth -= 1


def _check_depth_slowly(raw: bytes) -> None:
    """The same in constant memory: the pieces of a long document would need more than the document."""
    depth = 0
    for found in _BRACKET.finditer(raw):
        if found[1] in _OPENING:
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"is nested deeper than {DEPTH_MAX}")
        else:
            depth -= 1


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Malformed("has a key twice")
    for key in document:
        if not _fits(key):
            raise Malformed("has a key outside the profile")
    return document


@lru_cache(maxsize=4_096)
def _fits(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _integer(text: str) -> int:
    if len(text) > INTEGER_CHARS_MAX or abs(value := int(text)) > INTEGER_MAX:
        raise Malformed("has an integer beyond 2^53-1")
    return value


def _no_float(text: str) -> NoReturn:
    raise Malformed("has a number that is no integer")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)
# Values come from parsed JSON, where nothing can contain itself.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)
# Numbers as Python reads them, and objects as they come: what this is used for looks at the text itself.
_SCAN: Any = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float).scan_once  # type: ignore[attr-defined]


def _encode_slowly(value: object, level: int) -> Iterable[str]:
    return (_ENCODER.encode(value),)


# The encoder's part in C, which `encode` makes again for each call, where the interpreter has it.
_MADE: Any = getattr(json.encoder, "c_make_encoder", None)
_ENCODE: Callable[[object, int], Iterable[str]] = (
    _encode_slowly
    if _MADE is None
    else _MADE(None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", True, False, False)
)
