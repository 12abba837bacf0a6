"""The strict JSON profile of docs/spec/digests.md, against an independent RFC 8785 implementation."""

from __future__ import annotations

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark_verify import canon
from countermark_verify.errors import Malformed

KEYS = st.text("abcXYZ019_.$-", min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers(-canon.INTEGER_MAX, canon.INTEGER_MAX) | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(VALUES)
@settings(derandomize=True, max_examples=300, deadline=None)
def test_rendering_equals_rfc_8785_and_reads_back(value: object) -> None:
    """Inside the profile the rendered bytes are those of RFC 8785, and parsing them gives the value again."""
    raw = canon.render(value)
    assert raw == rfc8785.dumps(value)  # type: ignore[arg-type]
    assert canon.parse(raw) == value


@pytest.mark.parametrize("char", [chr(code) for code in (*range(0x20), 0x22, 0x5C, 0x7F, 0x2028, 0xFFFF, 0x1F600)])
def test_every_escape_is_the_one_of_rfc_8785(char: str) -> None:
    """Control characters, quotes and the characters that other encoders escape."""
    assert canon.render(char) == rfc8785.dumps(char)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" {}",
        b"{} ",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b"9" * 5_000,
        b'{"a":NaN}',
        b"Infinity",
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u001F"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xff"}',
        b'{"":1}',
        b'{"a b":1}',
        b'{"\xc3\xa9":1}',
        b'{"' + b"a" * 65 + b'":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\x01"}',
        b'"open',
        b"[1,]",
        nested(17),
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_anything_outside_the_profile_is_refused(raw: bytes) -> None:
    """Each of these is JSON to somebody, or nearly; none has exactly one encoding."""
    with pytest.raises(Malformed):
        canon.parse(raw)


def test_the_bounds_themselves_are_inside() -> None:
    """Depth 16, the largest integer and 65,535 bytes are accepted; one more of each is not."""
    assert canon.parse(nested(16)) is not None
    assert canon.parse(b"[9007199254740991,-9007199254740991]") == [canon.INTEGER_MAX, -canon.INTEGER_MAX]
    assert canon.parse(b'"' + b"a" * 65_533 + b'"') == "a" * 65_533
    with pytest.raises(Malformed):
        canon.parse(b'"' + b"a" * 65_534 + b'"')


def test_brackets_inside_strings_are_not_nesting() -> None:
    """The depth is counted outside strings only, whatever they escape."""
    assert canon.parse(b'"' + rb"\"[[[[\\" * 10 + b'"') == '"[[[[\\' * 10


@given(st.binary(max_size=60))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_arbitrary_bytes_give_a_value_or_malformed(raw: bytes) -> None:
    """No foreign exception leaves the parser, and what is accepted renders to the same bytes."""
    try:
        value = canon.parse(raw)
    except Malformed:
        return
    assert canon.render(value) == raw


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(alphabet='[]{}"\\a', max_size=80))
def test_depth_is_counted_the_same_in_long_documents(text: str) -> None:
    """A long document is followed in constant memory, and judged like a short one."""
    verdicts = []
    for check in (canon.check_depth, canon._check_depth_slowly):
        try:
            check(text.encode() * 5)
        except Malformed:
            verdicts.append("deep")
        else:
            verdicts.append("flat")
    assert verdicts[0] == verdicts[1]


def test_a_long_document_has_the_same_bounds() -> None:
    """Brackets within a string are text; seventeen outside are too many."""
    long = b"a" * 1_200_000
    assert canon.parse(b'"' + b"[" * 1_000 + long + b'"', 2**24) == "[" * 1_000 + long.decode()
    with pytest.raises(Malformed, match="nested"):
        canon.parse(b"[" * 17 + b'"' + long + b'"' + b"]" * 17, 2**24)
