"""Records: what was sealed reads back, and nothing else does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import RECORD_BYTES_MAX, canon
from countermark.model.errors import EncodingError
from countermark.model.records import GENESIS, Record, read, seal

FIELDS = {"v", "lane", "seq", "prev", "kind", "at", "nonce", "by", "streams", "body"}


def sample(**changes: Any) -> Record:
    """A record of the kind that refuses an action, with some fields replaced."""
    fields: dict[str, Any] = {
        "lane": "l0", "seq": 7, "prev": GENESIS, "kind": "action.refused", "at": 1_790_000_000_000_000,
        "nonce": "00ff" * 8, "by": "gate", "streams": {"a." + "0f" * 16: [0, GENESIS]},
        "body": {"agent": "payer", "run": "", "call_id": "c-1", "tool": "", "code": "unknown_tool", "field": "tool"},
    }  # fmt: skip
    return seal(**{**fields, **changes})


def test_a_sealed_record_reads_back_equal() -> None:
    """Reading a record's bytes gives the record that was sealed, with the digest that hashlib gives."""
    record = sample()
    assert read(record.raw) == record
    assert record.digest == "sha256:" + hashlib.sha256(b"countermark/v1/record\x00" + record.raw).hexdigest()
    assert json.loads(record.raw).keys() == FIELDS


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1),
    st.dictionaries(st.text("abc_.$-", min_size=1, max_size=5), st.integers(-9, 9) | st.text(max_size=9), max_size=4),
)
def test_any_record_in_the_profile_round_trips(seq: int, at: int, body: dict[str, Any]) -> None:
    """Position, time and body come back as they went in."""
    record = sample(seq=seq, at=at, body=body)
    back = read(record.raw)
    assert (back.seq, back.at, back.body, back.digest) == (seq, at, body, record.digest)


def test_any_changed_byte_is_refused_or_changes_the_digest() -> None:
    """Every flipped bit, deleted byte and inserted byte of a record either does not parse or gives another digest."""
    record = sample()
    raw = record.raw
    changed = [raw[:i] + bytes([raw[i] ^ 1 << bit]) + raw[i + 1 :] for i in range(len(raw)) for bit in range(8)]
    changed += [raw[:i] + raw[i + 1 :] for i in range(len(raw))]
    changed += [raw[:i] + extra + raw[i:] for i in range(len(raw) + 1) for extra in (b" ", b"0", b",", b"\x00")]
    parsed = 0
    for other in changed:
        if other == raw:  # deleting one of two equal neighbours is the same deletion; inserting is never neutral
            continue
        try:
            back = read(other)
        except EncodingError:
            continue
        parsed += 1
        assert back.digest != record.digest
        assert back != record
    assert parsed > 100  # otherwise the loop proves nothing about digests


def test_two_records_never_share_bytes() -> None:
    """A different nonce is enough for a different digest, so equal actions leave different leaves."""
    assert sample(nonce="11" * 16).digest != sample().digest


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"v": None},
        {"seq": True},
        {"seq": "7"},
        {"seq": None},
        {"at": False},
        {"at": "1790000000000000"},
        {"kind": 1},
        {"kind": None},
        {"by": None},
        {"nonce": 5},
        {"prev": None},
        {"lane": 0},
        {"streams": []},
        {"streams": None},
        {"body": []},
        {"body": "x"},
        {"extra": 1},
    ],
    ids=repr,
)
def test_an_envelope_with_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    """Another version, a wrong type (true is not 1) or a field too many is no record."""
    with pytest.raises(EncodingError):
        read(canon({**json.loads(sample().raw), **change}))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_an_envelope_without_a_field_is_refused(field: str) -> None:
    """Every field of the envelope is required."""
    value = json.loads(sample().raw)
    del value[field]
    with pytest.raises(EncodingError):
        read(canon(value))


@pytest.mark.parametrize("raw", [b"", b"[]", b"1", b"null", b'"x"', b"{}", b"\x00", b"{" * 50], ids=repr)
def test_what_is_no_object_is_no_record(raw: bytes) -> None:
    """Other JSON, and bytes that are no JSON, raise the product's error."""
    with pytest.raises(EncodingError):
        read(raw)


def test_a_record_has_at_most_the_bytes_of_a_log_entry() -> None:
    """65,535 bytes seal and read; one more does neither."""
    room = RECORD_BYTES_MAX - len(sample(body={"x": ""}).raw)
    largest = sample(body={"x": "y" * room})
    assert len(read(largest.raw).raw) == RECORD_BYTES_MAX
    with pytest.raises(EncodingError):
        sample(body={"x": "y" * (room + 1)})
    with pytest.raises(EncodingError):
        read(largest.raw.replace(b'"yy', b'"yyy', 1))


@pytest.mark.parametrize("body", [{"x": 0.5}, {"x y": 1}, {"x": 2**53}, {"x": b""}, {"x": {"y": {1, 2}}}], ids=repr)
def test_a_body_outside_the_profile_is_not_sealed(body: dict[str, Any]) -> None:
    """A float, a bad key, a big integer or a foreign type is refused before anything is written."""
    with pytest.raises(EncodingError):
        sample(body=body)
