"""Canonical bytes and strict decoding: what is written has one form, what is read has no second meaning."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import (
    DEPTH_MAX,
    DOCUMENT_BYTES_MAX,
    INTEGER_ABS_MAX,
    RECORD_BYTES_MAX,
    canon,
    check,
    parse,
    read_json,
)
from countermark.model.errors import CountermarkError, EncodingError

KEY_CHARS = string.ascii_letters + string.digits + "_.$-"
KEYS = st.text(KEY_CHARS, min_size=1, max_size=6)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-INTEGER_ABS_MAX, INTEGER_ABS_MAX) | TEXT
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def nested(depth: int, inner: Any = 1) -> Any:
    """``depth`` lists around ``inner``."""
    for _ in range(depth):
        inner = [inner]
    return inner


def random_document(rng: random.Random, depth: int = 0) -> Any:
    """A document of the profile: every type, every plane of Unicode, control characters, integers up to the bounds."""
    kind = rng.randrange(8 if depth < 5 else 5)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind <= 2:
        return rng.randint(-1, 1) * rng.randrange(2 ** rng.randrange(1, 54))
    if kind <= 4:
        planes = ((0, 0x20), (0x20, 0x7F), (0x20, 0x7F), (0x7F, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))
        return "".join(chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randrange(12)))
    if kind == 5:
        return [random_document(rng, depth + 1) for _ in range(rng.randrange(5))]
    keys = ("".join(rng.choices(KEY_CHARS, k=rng.randrange(1, 9))) for _ in range(rng.randrange(6)))
    return {key: random_document(rng, depth + 1) for key in keys}


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    """On 5,000 seeded documents the fast serialiser gives exactly the bytes of the reference for RFC 8785."""
    rng = random.Random(8785)
    for number in range(5_000):
        value = random_document(rng)
        assert canon(value) == rfc8785.dumps(value), f"document {number} of seed 8785: {value!r}"


@settings(max_examples=250, derandomize=True, deadline=None)
@given(DOCUMENTS)
def test_canonical_bytes_are_those_of_rfc_8785_near_the_edges(value: Any) -> None:
    """The same for documents that a search for counterexamples makes up."""
    assert canon(value) == rfc8785.dumps(value)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(DOCUMENTS)
def test_canonical_bytes_read_back_as_the_same_value(value: Any) -> None:
    """Parsing canonical bytes gives the value back, with every type as it was (1 is not true)."""
    back = parse(canon(value))
    assert back == value
    assert repr(back) == repr(json.loads(json.dumps(value, sort_keys=True)))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(DOCUMENTS)
def test_only_one_form_of_a_document_is_read(value: Any) -> None:
    """Whatever another serialiser writes is refused by ``parse`` unless it is byte for byte the canonical form."""
    for raw in (
        json.dumps(value).encode(),
        json.dumps(value, indent=1, ensure_ascii=False).encode(),
        canon(value) + b"\n",
        b"\xef\xbb\xbf" + canon(value),
    ):
        if raw != canon(value):
            with pytest.raises(EncodingError):
                parse(raw)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.binary(max_size=40))
def test_no_foreign_exception_leaves_the_readers(raw: bytes) -> None:
    """Arbitrary bytes are either read or refused with the product's own error, by both readers."""
    for reader in (parse, read_json):
        try:
            reader(raw)
        except CountermarkError as error:
            code = error.code
        else:
            code = "bad_encoding"
        assert code == "bad_encoding"


def test_keys_sort_as_rfc_8785_sorts_them() -> None:
    """Within the key alphabet, byte order and the UTF-16 order of RFC 8785 section 3.2.3 are the same."""
    value = dict.fromkeys(("b", "a", "A", "_", "$", ".", "-", "0", "aa", "a.b", "a-b", "Z"), 1)
    assert canon(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        float("inf"),
        -0.0,
        [0.5],
        {"a": 1e3},
        INTEGER_ABS_MAX + 1,
        -INTEGER_ABS_MAX - 1,
        2**64,
        10**400,
        "\ud800",
        ["a\udfffb"],
        {"\ud800": 1},
        {"": 1},
        {"a b": 1},
        {"metadata[invoice]": 1},
        {"é": 1},
        {"k" * 65: 1},
        {"a\n": 1},
        {1: 1},
        {None: 1},
        {True: 1},
        b"bytes",
        {1, 2},
        type,
        type("Text", (str,), {})("x"),
        type("Whole", (int,), {})(1),
    ],
    ids=repr,
)
def test_values_outside_the_profile_are_refused(value: Any) -> None:
    """Floats, big integers, lone surrogates, other keys, other types and subclasses never become canonical bytes."""
    with pytest.raises(EncodingError):
        canon(value)
    with pytest.raises(EncodingError):
        check([value])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" 1",
        b"1 ",
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'"\\u0061"',
        b'"\\/"',
        b'"\\u001F"',
        b'"\xff"',
        b'"\\ud800"',
        b"1.0",
        b"1e2",
        b"-0",
        b"01",
        b"NaN",
        b"Infinity",
        b"9007199254740992",
        b"1" * 400,
        b"'a'",
        b"[1,]",
        b"{}x",
        b"\x00",
        b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_bytes_that_are_not_canonical_are_refused(raw: bytes) -> None:
    """White space, key order, duplicates, escapes, floats, bad UTF-8 and bottomless nesting do not parse."""
    with pytest.raises(EncodingError):
        parse(raw)


def test_the_bounds_are_exact() -> None:
    """The last integer, depth and size inside the bounds pass; the next one does not."""
    assert parse(canon(INTEGER_ABS_MAX)) == INTEGER_ABS_MAX
    assert parse(canon(-INTEGER_ABS_MAX)) == -INTEGER_ABS_MAX
    assert parse(canon(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    assert len(canon("x" * (RECORD_BYTES_MAX - 2), bytes_max=RECORD_BYTES_MAX)) == RECORD_BYTES_MAX
    for call in (
        lambda: canon(nested(DEPTH_MAX + 1)),
        lambda: canon(nested(DEPTH_MAX, {"a": 1})),
        lambda: parse(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1)),
        lambda: canon("x" * (RECORD_BYTES_MAX - 1), bytes_max=RECORD_BYTES_MAX),
        lambda: canon("é" * (RECORD_BYTES_MAX // 2), bytes_max=RECORD_BYTES_MAX),
        lambda: parse(b'"' + b"x" * DOCUMENT_BYTES_MAX + b'"'),
    ):
        with pytest.raises(EncodingError):
            call()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"amount":100,"amount":1}',
        b'{"args":{"a":1,"\\u0061":2}}',
        b'{"amount":1.0}',
        b'{"amount":1e2}',
        b'{"amount":-1E+2}',
        b'{"amount":NaN}',
        b'{"amount":Infinity}',
        b'{"amount":-Infinity}',
        b'{"amount":100000000000000000000}',
        b'{"amount":"\\ud83d"}',
        b'{"\\udc00":1}',
        b'["\\ud800"]',
        b'{"a":"\xc3"}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xff\xfe{}",
        b'{"a":1}{"b":2}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\n"}',
        b"",
        b"nul",
        b"[" * 17 + b"]" * 17,
        b"[" * 60_000,
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b'{"a":"' + b"x" * 65_536 + b'"}',
    ],
    ids=lambda raw: repr(raw[:32]),
)
def test_requests_with_two_meanings_are_refused(raw: bytes) -> None:
    """Duplicate keys (also by escapes), floats, NaN, huge numbers, bad Unicode, depth and size deny a request."""
    with pytest.raises(EncodingError):
        read_json(raw)


def test_a_request_keeps_the_names_and_types_of_its_provider() -> None:
    """Provider names such as ``metadata[invoice]`` pass, true stays a boolean, brackets inside strings are no depth."""
    raw = b' {"metadata[invoice]": "[[[[\\"{{", "live": true, "amount": 100, "text": "\\ud83d\\ude00"} '
    value = read_json(raw, depth_max=1)
    assert value == {"metadata[invoice]": '[[[["{{', "live": True, "amount": 100, "text": "\U0001f600"}
    assert type(value["live"]) is bool
    assert type(value["amount"]) is int


@settings(max_examples=200, derandomize=True, deadline=None)
@given(DOCUMENTS, st.booleans())
def test_whatever_a_foreign_serialiser_writes_strictly_is_read(value: Any, ascii_only: bool) -> None:
    """A document of the profile, written by the standard library in any spacing, reads back as the same value."""
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode()
    assert repr(read_json(raw)) == repr(value)
