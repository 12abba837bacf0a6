"""Requests, identities and the values around them, recomputed here from the specification with the standard library."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.clock import US, FakeClock, SystemClock, iso
from countermark.model.errors import ArgumentError
from countermark.model.request import KEY_FIELD, encode_form, encode_json, encode_query, path_aliases, prepare
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.model.values import Action, Request, Result, action_id

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
ARGS = st.dictionaries(
    st.sampled_from(["amount", "currency", "metadata[invoice]", "metadata[a b]", "ü"]),
    TEXT | st.booleans() | st.integers(),
)
TOOL = ToolSpec(
    "t", "c", "money", (ArgSpec("amount", "integer", "amount", "amount"),), encoding="form-v1",
    endpoint="POST https://api.example/v1/pay", headers=(("X-Version", "1"),),
)  # fmt: skip
REQUEST = Request("POST", "https://api.example/v1/pay", (("X-Version", "1"), ("Content-Type", "x")), b"amount=1")
SALT = "0123456789abcdef" * 2


def sha(domain: str, raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(domain.encode() + b"\x00" + raw).hexdigest()


@settings(max_examples=300, derandomize=True, deadline=None)
@given(ARGS)
def test_a_form_body_is_percent_encoded_and_sorted(args: dict[str, Any]) -> None:
    """The body equals the standard library's encoding of the sorted pairs, and a server reads the same pairs back."""
    text = {name: {True: "true", False: "false"}[v] if type(v) is bool else str(v) for name, v in args.items()}
    pairs = sorted([*text.items(), ("metadata[countermark_key]", "cm_1")])
    body = encode_form(args, "cm_1")
    assert body == urlencode(pairs, quote_via=quote, safe="").encode()
    assert parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True) == pairs
    assert re.fullmatch(rb"[A-Za-z0-9_.~&=%-]*", body)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(ARGS)
def test_a_json_body_is_a_sorted_list_of_pairs(args: dict[str, Any]) -> None:
    """The body is the array of ``[name, value]`` sorted by name, compact, in UTF-8, with types kept."""
    args = {name: value for name, value in args.items() if type(value) is not int or abs(value) < 2**53}
    body = encode_json(args)
    assert repr(json.loads(body)) == repr([[name, args[name]] for name in sorted(args)])
    assert body.count(b"\n") == 0


def test_the_order_of_arguments_does_not_matter() -> None:
    """The same arguments in another order make the same bytes."""
    args = {"b": 1, "a": True, "c": "x"}
    other = dict(reversed(args.items()))
    assert encode_form(args, "k") == encode_form(other, "k")
    assert encode_json(args) == encode_json(other)


def test_a_request_is_the_tool_s_endpoint_headers_and_body() -> None:
    """Method and URL come from the endpoint; the tool's headers stand first, then content type, then the key."""
    assert prepare(TOOL, {"amount": 5}, "cm_1") == Request(
        "POST",
        "https://api.example/v1/pay",
        (("X-Version", "1"), ("Content-Type", "application/x-www-form-urlencoded"), ("Idempotency-Key", "cm_1")),
        b"amount=5&metadata%5Bcountermark_key%5D=cm_1",
    )
    as_json = prepare(replace(TOOL, encoding="json-v1"), {"amount": 5}, "cm_1")
    assert as_json.body == b'[["amount",5]]'
    assert as_json.headers[1] == ("Content-Type", "application/json")
    assert KEY_FIELD == "metadata[countermark_key]"


def test_a_read_has_its_arguments_in_the_url_and_nothing_else() -> None:
    """A query carries only the tool's own headers and no body; its arguments follow the URL, encoded and sorted."""
    read = replace(TOOL, encoding="query-v1", endpoint="GET https://api.example/v1/pay")
    assert prepare(read, {}, "cm_1") == Request("GET", "https://api.example/v1/pay", TOOL.headers, b"")
    asked = prepare(read, {"limit": 5, "a b": "é&=", "all": True}, "cm_1")
    assert asked.url == "https://api.example/v1/pay?a%20b=%C3%A9%26%3D&all=true&limit=5"
    assert (asked.headers, asked.body) == (TOOL.headers, b"")
    assert encode_query({}) == ""


CAPTURE = replace(
    TOOL, class_="change", encoding="form-bare-v1", endpoint="POST https://api.example/v1/holds/{hold}/capture",
    args=(ArgSpec("hold", "string", "reference", "hold"), ArgSpec("amount_to_capture", "integer", "inert", "part")),
)  # fmt: skip


def test_an_argument_of_the_path_stands_there_alone() -> None:
    """It is percent-encoded into its segment, and stands neither in the body nor in the query; a bare form has no key
    in its body, only in the header."""
    sent = prepare(CAPTURE, {"hold": "a b+ü", "amount_to_capture": 5}, "cm_1")
    assert sent.url == "https://api.example/v1/holds/a%20b%2B%C3%BC/capture"
    assert sent.body == b"amount_to_capture=5"
    assert ("Idempotency-Key", "cm_1") in sent.headers
    read = replace(CAPTURE, encoding="query-v1", endpoint="GET https://api.example/v1/holds/{hold}?full=1")
    assert prepare(read, {"hold": "h"}, "").url == "https://api.example/v1/holds/h?full=1"
    assert path_aliases(CAPTURE.endpoint) == ("hold",)
    assert path_aliases("GET https://api.example/v1/holds?q={hold}") == ()


@pytest.mark.parametrize("value", ["", ".", "..", "...", "a/b", "../refunds", "a\\b", "a%2fb", "a\nb", "/", "\x85"])
def test_a_value_that_might_name_another_path_is_refused(value: str) -> None:
    """Empty, dots alone, separators, percent signs and control characters: servers do not agree on those."""
    with pytest.raises(ArgumentError):
        prepare(CAPTURE, {"hold": value}, "cm_1")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=8))
def test_a_path_keeps_its_segments(value: str) -> None:
    """Whatever stands there, the path has the endpoint's segments, and the value comes back out of its own."""
    try:
        url = prepare(CAPTURE, {"hold": value}, "cm_1").url
    except ArgumentError:
        return
    assert re.fullmatch(r"https://api\.example/v1/holds/[A-Za-z0-9_.~%-]+/capture", url)
    assert unquote(url.split("/")[5]) == value


def test_an_absent_argument_of_the_path_is_refused() -> None:
    """A path with a hole would be another path."""
    with pytest.raises(ArgumentError, match="hold is required"):
        prepare(CAPTURE, {"amount_to_capture": 5}, "cm_1")


def test_an_unknown_encoding_makes_no_request() -> None:
    """A tool whose encoding nobody knows is refused, not sent as something else."""
    with pytest.raises(ArgumentError):
        prepare(replace(TOOL, encoding="xml-v1"), {"amount": 5}, "cm_1")


def test_the_request_digest_is_the_specified_one() -> None:
    """The digest covers method, URL, headers and the digest of the salted body, in canonical form."""
    body = sha("countermark/v1/body", SALT.encode() + b"amount=1")
    document = {"body": body, "headers": [list(pair) for pair in REQUEST.headers], "method": "POST", "url": REQUEST.url}
    raw = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    assert REQUEST.digest(SALT) == sha("countermark/v1/request", raw)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"url": REQUEST.url + "/"},
        {"headers": REQUEST.headers[::-1]},
        {"headers": REQUEST.headers[:1]},
        {"headers": (("x-version", "1"), REQUEST.headers[1])},
        {"body": b"amount=2"},
        {"body": b""},
    ],
    ids=repr,
)
def test_any_change_of_a_request_changes_its_digest(change: dict[str, Any]) -> None:
    """Another method, URL, header, header order or body is another request."""
    assert replace(REQUEST, **change).digest(SALT) != REQUEST.digest(SALT)


def test_the_salt_hides_a_guessable_body() -> None:
    """Another salt gives another digest, so a digest alone confirms no guess."""
    assert REQUEST.digest(SALT) != REQUEST.digest(SALT[::-1])


def test_an_action_id_is_agent_run_and_call() -> None:
    """The ID is the head of a digest over the three names; moving a character between them changes it."""
    expected = "act_" + sha("countermark/v1/action-id", b'["payer","run_1","c1"]')[7:39]
    assert action_id("payer", "run_1", "c1") == expected
    assert action_id("payer", "run_1c", "1") != expected


GOOD_NAMES = ("run_" + "0f" * 16, "c-1.a:b_C", "stripe.transfers.create")


@pytest.mark.parametrize(
    ("position", "value", "field"),
    [
        *((0, value, "run") for value in (None, 1, "", "run_", "run_" + "0F" * 16, "run_" + "0f" * 16 + "\n", b"run_")),
        *((1, value, "call_id") for value in (None, 1, "", "a b", "a\n", "é", "x" * 129, ["c"])),
        *((2, value, "tool") for value in (None, 1, "", ".a", "A", "a b", "a\n", "a" * 97)),
    ],
)
def test_names_of_an_action_have_their_exact_form(position: int, value: Any, field: str) -> None:
    """Run, call and tool are refused unless they have the declared form, whole."""
    Action.check_names(*GOOD_NAMES)
    names: list[Any] = [*GOOD_NAMES]
    names[position] = value
    with pytest.raises(ArgumentError) as caught:
        Action.check_names(*names)
    assert caught.value.field == field


def test_a_result_has_a_plain_document() -> None:
    """What travels over the socket is JSON and keeps the provider's raw answer to itself."""
    result = Result("act_1", "run_1", "deny", "denied", "killed", False, "stop", result={"secret": 1})
    document = json.loads(json.dumps(result.document()))
    assert document["code"] == "killed"
    assert "secret" not in json.dumps(document)


def test_the_fake_clock_moves_only_when_told() -> None:
    """Advancing moves both clocks; a step of the wall clock leaves the steady one alone."""
    clock = FakeClock()
    before = clock.now_us(), clock.steady_us()
    clock.advance(2)
    clock.step(-3600)
    assert clock.now_us() == before[0] + (2 - 3600) * US
    assert clock.steady_us() == before[1] + 2 * US


def test_times_are_whole_microseconds() -> None:
    """The system clock gives integers, its steady side never falls, and people read RFC 3339 in UTC."""
    clock = SystemClock()
    first, second = clock.steady_us(), clock.steady_us()
    assert type(clock.now_us()) is int
    assert second >= first
    assert iso(1_790_000_000_123_456) == "2026-09-21T14:13:20.123Z"
