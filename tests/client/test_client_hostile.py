"""Whatever is not exactly a gate's answer to this very question is an error of ours, and never a yes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import far_gate  # noqa: F401  (puts the other rooms' helpers on the path)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_peer import Peer, Script

import countermark
from countermark.client.answers import acted, answered, explained, proof_of, result_of, run_of, said, wait_s_of
from countermark.model.errors import CountermarkError, EncodingError, GateHaltedError
from countermark.model.values import Result, action_id

TOKEN = "cmk_canary_0123456789"
RUN, AGENT, CALL = "run_" + "1" * 32, "treasury", "c-1"
ACTION = action_id(AGENT, RUN, CALL)
DIGEST = "sha256:" + "a" * 64
GONE: dict[str, Any] = {}  # stands for: the member is taken out


def result(**changes: Any) -> dict[str, Any]:
    """A good answer to ``admit``, with members replaced or taken out."""
    document = {
        "action": ACTION, "run": RUN, "disposition": "allow", "status": "pending", "code": "allowed",
        "retryable": False, "next_step": "Run the tool now.", "escalation": None, "ref": "", "output": {},
        "receipt": {
            "decided_seq": 7, "decided": DIGEST, "settled_seq": None, "settled": None, "log_size": 8,
            "tier": "observing",
        },
    }  # fmt: skip
    return {name: value for name, value in {**document, **changes}.items() if value is not GONE}


def receipt(**changes: Any) -> dict[str, Any]:
    return {**result()["receipt"], **changes}


def problem(status: int, code: str, **changes: Any) -> dict[str, Any]:
    return {"type": "urn:countermark:problem:" + code, "title": "T", "status": status, "detail": "no", "code": code,
            "retryable": False, "hint": "", **changes}  # fmt: skip


def http(status: int, document: Any, kind: str = "application/json", more: str = "") -> bytes:
    body = document if type(document) is bytes else json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


WHO = http(200, {"run": RUN, "agent": AGENT, "mandate": DIGEST, "open": True, "records": 1})
PROBLEM = "application/problem+json"


@pytest.fixture
def asked_of() -> Iterator[Callable[..., tuple[countermark.Client, Peer]]]:
    """A client of a peer that says who the agent is, and then what it is told to say."""
    made: list[Any] = []

    def make(*answers: bytes | Script, first: bytes = WHO, **more: Any) -> tuple[countermark.Client, Peer]:
        peer = Peer([first, *answers])
        client = countermark.Client(peer.origin, TOKEN, **{"tries": 1, "timeout_ms": 20_000, **more})
        made.extend((client, peer))
        return client, peer

    yield make
    for one in made:
        one.close()


def admit(client: countermark.Client) -> Result:
    return client.admit("desk.refund", {"amount": 1}, run=RUN, call_id=CALL)


def test_the_good_answer_is_a_go(asked_of: Callable[..., Any]) -> None:
    """The answer that the other tests spoil is one that is taken: 202, pending, of this action."""
    client, peer = asked_of(http(202, result()))
    assert admit(client).admitted
    assert b"Authorization: Bearer " + TOKEN.encode() in peer.received[1]


SPOILED: dict[str, dict[str, Any]] = {
    "another action": {"action": "act_" + "0" * 32},
    "no action": {"action": GONE},
    "another run": {"run": "run_" + "2" * 32},
    "a disposition of no kind": {"disposition": "yes"},
    "a list for a disposition": {"disposition": ["allow"]},
    "allowed and denied": {"status": "denied"},
    "denied and pending": {"disposition": "deny"},
    "escalated and pending": {"disposition": "escalate"},
    "a status of no kind": {"status": "go"},
    "confirmed without a record": {"status": "confirmed"},
    "no code": {"code": GONE},
    "a code of no kind": {"code": "A b"},
    "retryable as text": {"retryable": "false"},
    "retryable as a number": {"retryable": 0},
    "no next step": {"next_step": None},
    "an escalation of no kind": {"escalation": "esc_1"},
    "ref as a number": {"ref": 1},
    "output as a list": {"output": []},
    "output that is nested": {"output": {"a": {}}},
    "no receipt": {"receipt": GONE},
    "receipt null": {"receipt": None},
    "settled by half": {"receipt": receipt(settled=DIGEST)},
    "pending and settled": {"receipt": receipt(settled_seq=8, settled=DIGEST, log_size=9)},
    "a digest of no kind": {"receipt": receipt(decided="sha256:1")},
    "a record beyond the log": {"receipt": receipt(log_size=7)},
    "a truth for a place": {"receipt": receipt(decided_seq=True)},
    "a place below zero": {"receipt": receipt(decided_seq=-1)},
    "a tier of no kind": {"receipt": receipt(tier="trusted")},
    "an admission in the gate's own tier": {"receipt": receipt(tier="enforcing")},
    "the credential": {"next_step": f"send {TOKEN}"},
    "the credential as a name": {"x": {TOKEN: 1}},
}


@pytest.mark.parametrize("changes", SPOILED.values(), ids=SPOILED)
def test_one_wrong_member_and_it_is_no_answer(asked_of: Callable[..., Any], changes: dict[str, Any]) -> None:
    """Each spoiled answer is refused, and the error does not repeat what it said."""
    client, _ = asked_of(http(202, result(**changes)))
    with pytest.raises(EncodingError) as caught:
        admit(client)
    assert (caught.value.code, caught.value.retryable) == ("bad_answer", False)
    assert TOKEN not in str(caught.value)


WRONG: dict[str, bytes] = {
    "the status of something done": http(200, result()),
    "the status of a run": http(201, result()),
    "the status of a denial": http(403, result()),
    "a denial that allows": http(403, problem(403, "killed", result=result()), PROBLEM),
    "a redirect": http(307, result(), more="Location: http://127.0.0.1:1/\r\n"),
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "a page": http(200, b"<html>", "text/html"),
    "a page called JSON": http(200, b"<html>"),
    "a list": http(202, [result()]),
    "null": http(202, None),
    "a number": http(202, 1),
    "nothing": http(202, b""),
    "a key twice": http(202, b'{"a":1,"a":1}'),
    "too deep": http(202, b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    "not UTF-8": http(202, b'{"a":"\xff"}'),
    "half a surrogate pair": http(202, b'{"a":"\\ud800"}'),
    "a fraction": http(202, b'{"a":1.5}'),
    "NaN": http(202, b'{"a":NaN}'),
    "a huge number": http(202, b'{"a":' + b"9" * 5_000 + b"}"),
    "compressed": http(202, b"\x1f\x8b\x08\x00", more="Content-Encoding: gzip\r\n"),
    "a proxy's error": http(502, b"bad gateway", "text/plain"),
    "a problem of no kind": http(400, {}, PROBLEM),
    "a problem of another status": http(400, problem(403, "killed"), PROBLEM),
    "a problem with a code of no kind": http(400, problem(400, "A b"), PROBLEM),
    "a problem with the credential": http(400, problem(400, "killed", detail=TOKEN), PROBLEM),
    "a problem with success": http(202, problem(202, "killed"), PROBLEM),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_what_no_gate_says(asked_of: Callable[..., Any], answer: bytes) -> None:
    """Statuses, media types and bytes that are no answer of a gate."""
    client, peer = asked_of(answer)
    with pytest.raises(EncodingError) as caught:
        admit(client)
    assert caught.value.code == "bad_answer"
    assert TOKEN not in str(caught.value)
    assert len(peer.received) == 2  # nothing was followed, nothing asked again


BROKEN: dict[str, bytes] = {
    "too long": http(202, b" " * ((1 << 20) + 1)),
    "no HTTP": b"SSH-2.0-x\r\n",
    "closed at once": b"",
    "cut": http(202, result())[:-5],
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500,
    "a long line": b"HTTP/1.1 200 " + b"x" * 100_000,
    "a length of no kind": b"HTTP/1.1 202 X\r\nContent-Length: -5\r\n\r\n{}",
    "chunks of no kind": b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_says_nothing(asked_of: Callable[..., Any], answer: bytes) -> None:
    """What breaks on the wire or has no end is no answer: nothing is known, and asking again is right."""

    def then_close(sock: Any) -> None:
        sock.sendall(answer)

    client, _ = asked_of(then_close)
    with pytest.raises(CountermarkError) as caught:
        admit(client)
    assert caught.value.code in ("gate_halted", "bad_answer")
    assert caught.value.code == "bad_answer" or caught.value.retryable


def test_an_answer_to_who_the_agent_is_that_is_about_another_run(asked_of: Callable[..., Any]) -> None:
    """Without knowing the agent no action is asked for."""
    other = http(200, {"run": "run_" + "2" * 32, "agent": AGENT})
    client, peer = asked_of(first=other)
    with pytest.raises(EncodingError):
        admit(client)
    assert len(peer.received) == 1


def test_texts_of_a_server_are_one_line(asked_of: Callable[..., Any]) -> None:
    """Control characters in a problem reach no terminal, and no text is without end."""
    client, _ = asked_of(http(409, problem(409, "identity_conflict", detail="a\x1b[2J\nb", hint="h" * 9_000), PROBLEM))
    with pytest.raises(CountermarkError) as caught:
        admit(client)
    assert (caught.value.code, caught.value.message) == ("identity_conflict", "a [2J b")
    assert len(caught.value.hint) == 2_000


def test_a_lost_answer_is_asked_for_again_under_the_same_name(
    asked_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After broken connections the very same bytes are sent again, a minted call_id among them, as often as told."""
    waited: list[float] = []
    monkeypatch.setattr("countermark.client.asker.sleep", waited.append)
    client, peer = asked_of(*[lambda sock: None] * 3, tries=3)
    with pytest.raises(GateHaltedError) as caught:
        client.act("stripe.transfers.create", {"amount": 1}, run=RUN)
    questions = [request.partition(b"\r\n\r\n")[2] for request in peer.received[1:]]
    assert len(questions) == 3
    assert len(set(questions)) == 1
    assert json.loads(questions[0])["call_id"] in caught.value.hint
    assert len(waited) == 2
    assert all(0.05 <= seconds <= 2 for seconds in waited)


def test_what_would_mint_twice_is_not_asked_twice(asked_of: Callable[..., Any]) -> None:
    """A run may have been minted when its answer is lost: it is not asked for again by itself."""
    client, peer = asked_of(*[lambda sock: None] * 4, first=lambda sock: None, tries=5)
    with pytest.raises(GateHaltedError):
        client.start_run()
    assert len(peer.received) == 1


@pytest.mark.parametrize(
    ("status", "more", "document", "again", "wait_s"),
    [
        (503, {"retry-after": "3"}, problem(503, "gate_busy", retryable=True), False, 3),
        (503, {"retry-after": "3"}, problem(503, "gate_halted", retryable=True), False, None),
        (503, {"retry-after": "3"}, problem(503, "gate_halted", retryable=True), True, 3),
        (503, {"retry-after": "3"}, problem(503, "store_failed"), True, None),
        (503, {}, problem(503, "gate_busy", retryable=True), True, None),
        (503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, problem(503, "gate_busy", retryable=True), True, None),
        (503, {"retry-after": "99999"}, problem(503, "gate_busy", retryable=True), True, None),
        (503, {"retry-after": "2"}, {}, True, 2), (503, {"retry-after": "2"}, {}, False, None),
        (429, {"retry-after": "1"}, problem(429, "too_many_waiting", retryable=True), True, 1),
        (429, {}, problem(429, "too_many_waiting", retryable=True), True, 1),
        (429, {"retry-after": "1"}, problem(429, "too_many_runs"), False, None),
        (500, {"retry-after": "1"}, problem(500, "internal_error"), True, None),
        (409, {"retry-after": "1"}, problem(409, "identity_conflict", retryable=True), True, None),
    ],
)  # fmt: skip
def test_when_the_same_is_asked_again(
    status: int, more: dict[str, str], document: dict[str, Any], again: bool, wait_s: int | None
) -> None:
    """503 with a number of seconds, and 429: as long as the problem itself says that it may be retried."""
    answer = said(status, {"content-type": PROBLEM, **more}, json.dumps(document).encode())
    assert wait_s_of(answer, TOKEN, again=again) == wait_s


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([ACTION, RUN, AGENT, DIGEST, "allow", "flag", "pending", "confirmed", "observing", TOKEN]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*result(), *receipt(), "agent", "id"]), inner, max_size=8)
    ),
    max_leaves=20,
)
kinds = st.sampled_from(["application/json", PROBLEM, "application/json; charset=utf-8", "text/html", ""])
statuses = st.sampled_from([100, 200, 201, 202, 204, 301, 400, 401, 403, 404, 409, 429, 500, 503])
READERS: tuple[Callable[[Any], Any], ...] = (
    lambda answer: acted(answer, TOKEN, ACTION, RUN), lambda answer: result_of(answered(answer, TOKEN, 200), ACTION),
    lambda answer: proof_of(answered(answer, TOKEN, 200), ACTION), lambda answer: run_of(answered(answer, TOKEN, 201)),
    lambda answer: explained(answered(answer, TOKEN, 200), ACTION), lambda answer: wait_s_of(answer, TOKEN, again=True),
)  # fmt: skip


def told_by(ask: Callable[[], Any]) -> str:
    """What an error of ours says, or nothing when there was none. Any other exception ends the test."""
    try:
        ask()
    except CountermarkError as error:
        return str(error)
    return ""


@settings(max_examples=80, deadline=None)
@given(statuses, kinds, st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_an_error_of_ours(status: int, kind: str, body: bytes) -> None:
    """No foreign exception leaves a reader, whatever bytes come under whatever status."""
    answer = said(status, {"content-type": kind, "retry-after": body[:3].decode("latin-1")}, body)
    for read in READERS:
        assert TOKEN not in told_by(lambda read=read: read(answer))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(statuses, kinds, st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_an_error_of_ours_at_length(status: int, kind: str, body: bytes) -> None:
    """The same in more examples."""
    test_any_bytes_are_an_answer_or_an_error_of_ours.hypothesis.inner_test(status, kind, body)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([200, 202, 403]),
    st.dictionaries(st.sampled_from(list(result())), json_values | st.just(GONE), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(list(receipt())), json_values, max_size=2),
)
def test_a_good_answer_with_anything_in_it(status: int, changes: dict[str, Any], inner: dict[str, Any]) -> None:
    """An answer near a good one is a go only if it is about this action, pending, allowed and not settled."""
    document = result(**{"receipt": receipt(**inner), **changes})
    answer = said(status, {"content-type": "application/json"}, json.dumps(document).encode())
    try:
        found = acted(answer, TOKEN, ACTION, RUN)
    except CountermarkError:
        return
    assert (found.action, found.run) == (ACTION, RUN)
    assert type(found.retryable) is bool
    if found.admitted:
        assert (status, document["status"], document["receipt"]["settled"]) == (202, "pending", None)
        assert document["disposition"] in ("allow", "flag")


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([200, 202, 403]),
    st.dictionaries(st.sampled_from(list(result())), json_values | st.just(GONE), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(list(receipt())), json_values, max_size=2),
)
def test_a_good_answer_with_anything_in_it_at_length(
    status: int, changes: dict[str, Any], inner: dict[str, Any]
) -> None:
    """The same in more examples."""
    test_a_good_answer_with_anything_in_it.hypothesis.inner_test(status, changes, inner)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400) | st.integers(0, 700).map(lambda cut: http(202, result())[:cut]))
def test_any_bytes_on_the_wire(raw: bytes) -> None:
    """Over a real connection too: what a peer sends instead of an answer is an error of ours, or this very answer."""
    peer = Peer([WHO, lambda sock: sock.sendall(raw)])
    try:
        with countermark.Client(peer.origin, TOKEN, tries=1, timeout_ms=20_000) as client:
            found: list[Result] = []
            told = told_by(lambda: found.append(admit(client)))
            assert TOKEN not in told
            assert bool(found) == (told == "") == raw.startswith(http(202, result()))
    finally:
        peer.close()
