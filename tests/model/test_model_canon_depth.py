"""The look at nesting before a document is decoded: exact on JSON, and linear in its bytes whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import DEPTH_MAX, read_json
from countermark.model.errors import EncodingError

TEXTS = st.text(alphabet='[]{}"\\,:a\n', max_size=12)
VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if type(value) is list:
        return 1 + max(map(depth, value), default=0)
    if type(value) is dict:
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@settings(derandomize=True, max_examples=300)
@given(VALUES, st.integers(0, 5), st.sampled_from((None, 1)))
def test_the_depth_is_the_depth_of_the_value(value: Any, depth_max: int, indent: int | None) -> None:
    """Brackets count outside of strings only: exactly what is nested deeper than allowed is refused."""
    raw = json.dumps(value, indent=indent).encode()
    if depth(value) > depth_max:
        with pytest.raises(EncodingError, match="nested deeper"):
            read_json(raw, depth_max=depth_max)
    else:
        assert read_json(raw, depth_max=depth_max) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b'\\"' * 500_000 + b"[" * 20, b'"' * 999_999, b"[" * 1_000_000, b"]" * 1_000_000,
        b'["' + b"\\" * 999_990, b"[" * 17 + b'"' + b"[]" * 400_000, b"[]," * 300_000,
    ],
)  # fmt: skip
def test_no_document_takes_long(raw: bytes) -> None:
    """A million bytes of quotes, escapes or brackets are refused in one pass over them."""
    with pytest.raises(EncodingError):
        read_json(raw, bytes_max=1 << 20)


def test_many_flat_values_are_not_deep() -> None:
    """A document with more brackets than the bound on nesting, none of them deep, is read."""
    assert read_json(b"[" + b",".join([b"[1]"] * 5_000) + b"]") == [[1]] * 5_000
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("raw", [rb'"\ud800"', rb'{"\udfff":1}', rb'["a",{"b":["\uDC00"]}]'])
def test_half_a_surrogate_pair_is_refused(raw: bytes) -> None:
    """Escapes that make no character are refused wherever they stand."""
    with pytest.raises(EncodingError, match="surrogate"):
        read_json(raw)
