"""``POST /hooks/{source}``: who signed, what is kept, and that an event counts once however often it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs extra: server")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from face import Answer, Face, is_problem
from hook_senders import CONFIG, OWN, SECRETS, STANDARD, STRIPE, Closing, sent, stripe_event
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import bodies
from standardwebhooks.webhooks import Webhook

from countermark.model.canon import canon
from countermark.model.clock import US, SystemClock
from countermark.model.digest import EVENT, digest
from countermark.model.errors import ConfigError, GateHaltedError, SignatureError
from countermark.server.hook_schemes import check_delivery
from countermark.wiring.workflow_settings import read_workflows
from countermark.workflow import WebhookSource, received
from countermark.workflow.sources import at, check_payload, read_body

NOW = 1_790_000_000
SOURCES = ("stripe", "standard", "github", "bank")
BODY = {"stripe": stripe_event(), "standard": b'{"type":"paid","n":1}', "github": b'{"action":"opened","ref":"main"}',
        "bank": b'{"number":17,"account":"DE1","cents":12,"rate":1.25,"deep":{"a":[1]}}'}  # fmt: skip


def source_of(name: str) -> WebhookSource:
    import tomllib

    return read_workflows(tomllib.loads(CONFIG)["workflows"], {}, "f").webhooks[name]


def checked(name: str, body: bytes, headers: dict[str, str], now: int = NOW) -> Any:
    secrets = {"stripe": STRIPE, "standard": STANDARD, "github": "github-secret", "bank": OWN}
    raw = [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]
    return check_delivery(source_of(name), raw, body, ["another", secrets[name]][name == "standard" :], now)


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_source_signed_is_taken(name: str) -> None:
    """With any of several secrets; the schemes that sign a time say when, and Standard Webhooks which event it is."""
    signed = checked(name, BODY[name], sent(name, BODY[name], NOW), NOW + 299)
    assert signed.at_s == (None if name == "github" else NOW)
    assert signed.identity == ("msg_1" if name == "standard" else None)


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_source_did_not_sign_is_refused(name: str) -> None:
    """Another secret, another body, no header, a header twice as long, an old or a future time: one refusal."""
    body, good = BODY[name], sent(name, BODY[name], NOW)
    other = STANDARD[:-4] + "AAA=" if name == "standard" else "guess"
    bad = [sent(name, body, NOW, other), sent(name, body + b" ", NOW), {}, {k: v + "0" for k, v in good.items()},
           {k: v.upper() + "é" for k, v in good.items()}, {k: v * 200 for k, v in good.items()}]  # fmt: skip
    if name != "github":
        bad += [sent(name, body, NOW - 301), sent(name, body, NOW + 301)]
    for headers in bad:
        with pytest.raises(SignatureError) as caught:
            checked(name, body, headers)
        assert caught.value.code == "bad_webhook", headers


def test_our_check_and_the_reference_agree() -> None:
    """What the Standard Webhooks library signs is taken."""
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(NOW, UTC)
    shown = Webhook(STANDARD).sign("msg_9", moment, BODY["standard"].decode())
    headers = {"webhook-id": "msg_9", "webhook-timestamp": str(NOW), "webhook-signature": "v1a,xx " + shown}
    assert checked("standard", BODY["standard"], headers).identity == "msg_9"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.sampled_from(SOURCES), st.text(max_size=60), st.binary(max_size=60))
def test_no_other_error_leaves_the_check(name: str, text: str, body: bytes) -> None:
    """Whatever stands in the headers and whatever was signed, a delivery is taken or refused as what it is."""
    latin = text.encode("latin-1", "replace").decode("latin-1")
    for headers in (dict.fromkeys(sent(name, body, NOW), latin), sent(name, body, NOW)):
        try:
            signed = checked(name, body, headers)
            canon(received(source_of(name), body, signed.identity, signed.at_s))
        except SignatureError:
            continue


def test_only_what_the_source_names_is_kept() -> None:
    """Identity, type, key and the named members; a fraction is its text; nobody's mail address is recorded."""
    body = received(source_of("stripe"), BODY["stripe"], None, NOW)
    assert body["event"] == "evt_1"
    assert body["payload"] == {"id": "evt_1", "type": "invoice.paid", "key": "o-1", "invoice": "in_1", "amount": 1_200}
    assert body["evidence"] == {"at": NOW}
    assert "ann@example.org" not in json.dumps(body)
    bank = received(source_of("bank"), BODY["bank"], None, NOW)
    assert bank["payload"] == {"id": "17", "type": "", "key": "DE1", "cents": 12, "rate": "1.25", "deep": {"a": [1]}}
    assert bank["digest"] == digest(EVENT, BODY["bank"])


def test_an_identity_is_signed_or_made_from_what_is() -> None:
    """GitHub signs no delivery id, so the body itself is the identity: a repeated body is the same event."""
    one = received(source_of("github"), BODY["github"], None, None)
    assert one["event"] == one["digest"] == digest(EVENT, BODY["github"])
    assert one["payload"] == {"id": one["event"], "type": "opened", "key": "", "ref": "main"}


def test_stripe_counts_its_attempts_in_the_body() -> None:
    """The number of pending deliveries changes between deliveries of one event, and is no difference; all else is."""
    first, again, other = stripe_event(pending=2), stripe_event(pending=1), stripe_event(type="x")
    found = [received(source_of("stripe"), one, None, NOW)["digest"] for one in (first, again, other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"\xff", b'{"number":1,"number":2}', b'{"number":null}', b'{"number":"a b"}', b'{"number":NaN}',
        b'{"number":"' + b"9" * 201 + b'"}', b'{"number":1,"account":"a\\u0000"}', b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"number":1,"deep":' + b"[" * 8 + b"]" * 8 + b"}", b'{"number":1,"deep":"' + b"x" * 16_001 + b'"}',
        b'{"number":1,"deep":{"not a key":1}}', b'{"number":1,"deep":"\\ud800"}', b'{"number":1,"account":"\\ud800"}',
        b"[" * 60_000,
    ],
)  # fmt: skip
def test_signed_bytes_that_no_record_holds_are_refused(body: bytes) -> None:
    """No object, no identity, a name twice, too deep, too long, not Unicode: signed or not, it is no event."""
    with pytest.raises(SignatureError) as caught:
        received(source_of("bank"), body, None, NOW)
    assert caught.value.code == "bad_delivery"


def test_pointers_find_what_rfc_6901_says() -> None:
    """Members, places of a list, escapes, the whole, and nothing where there is nothing."""
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "k": None}
    found = [at(document, one) for one in ("", "/foo/1", "/", "/a~1b", "/m~0n", "/foo/2", "/foo/01", "/k/x", "/x")]
    assert found == [document, "baz", 0, 1, 8, None, None, None, None]
    assert read_body(b'{"a":9007199254740993}') == {"a": "9007199254740993"}
    assert check_payload({"a": 1}) == {"a": 1}


_HOOK = {"kind": "webhook", "scheme": "github", "secret": "env:X"}


@pytest.mark.parametrize(
    "section",
    [
        [], {"more": 1}, {"folder": "../x"}, {"folder": 1}, {"sources": []}, {"sources": {"A": _HOOK}},
        {"sources": {"a": {}}}, {"sources": {"a": {"kind": "mail"}}}, {"sources": {"a": {**_HOOK, "scheme": "none"}}},
        {"sources": {"a": {**_HOOK, "secret": "plain"}}}, {"sources": {"a": {**_HOOK, "secret": []}}},
        {"sources": {"a": {**_HOOK, "header": "X"}}}, {"sources": {"a": {**_HOOK, "tolerance_s": 0}}},
        {"sources": {"a": {**_HOOK, "key": "order"}}}, {"sources": {"a": {**_HOOK, "key": "/a~2"}}},
        {"sources": {"a": {**_HOOK, "keep": ["/a"]}}}, {"sources": {"a": {**_HOOK, "keep": {"id": "/a"}}}},
        {"sources": {"a": {**_HOOK, "keep": {"a b": "/a"}}}}, {"sources": {"a": {**_HOOK, "scheme": "hmac"}}},
        {"sources": {"a": {**_HOOK, "scheme": "hmac", "header": "X-Sig", "encoding": "utf-8"}}},
        {"sources": {"a": {"kind": "chain", "chain": 1, "contract": "0x" + "0" * 40, "signature": "A()"}}},
        {"sources": {"a": {"kind": "chain", "chain": 7, "contract": "0x" + "0" * 39, "signature": "A()"}}},
        {"sources": {"a": {"kind": "chain", "chain": 7, "contract": "0x" + "0" * 40, "signature": "A(uint)"}}},
        {"sources": {"a": {"kind": "chain", "chain": 7, "contract": "0x" + "0" * 40, "signature": "A()", "key": "x"}}},
        {"sources": {"a": {"kind": "chain", "chain": 7, "contract": "0x" + "0" * 40, "signature": "A()", "final": 0}}},
    ],
)  # fmt: skip
def test_a_wrong_section_names_what_is_wrong(section: object) -> None:
    """Secrets by reference, known keys, names, pointers, events: each wrong value is refused, with the file's name."""
    with pytest.raises(ConfigError, match=r"countermark\.toml"):
        read_workflows(section, {7: "accepted"}, "countermark.toml")


def test_two_sources_do_not_share_a_secret() -> None:
    """Each would take what was signed for the other; the same secret listed twice in one source, or two, are fine."""
    shared = {"a": {**_HOOK, "secret": ["env:X", "env:Y"]}, "b": {**_HOOK, "scheme": "stripe", "secret": "env:Y"}}
    with pytest.raises(ConfigError, match=r"sources\.a and \.b have one secret, env:Y"):
        read_workflows({"sources": shared}, {}, "countermark.toml")
    alone = {"a": {**_HOOK, "secret": ["env:X", "env:X"]}, "b": {**_HOOK, "secret": "env:Y"}}
    assert sorted(read_workflows({"sources": alone}, {}, "countermark.toml").webhooks) == ["a", "b"]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Face, Closing]]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    make_face = Face.__init__
    face = Face.__new__(Face)
    monkeypatch.setattr("face.make", _with_config(sys.modules["face"].make))  # type: ignore[attr-defined]
    make_face(face, tmp_path)
    with face:
        yield face, Closing(face.handle.gate)


def _with_config(make: Any) -> Any:
    def made(root: Path, provider: Any) -> Any:
        found = make(root, provider)
        with (root / "countermark.toml").open("a") as file:
            file.write(CONFIG)
        return found

    return made


def deliver(face: Face, name: str, body: bytes, **more: Any) -> Answer:
    headers = sent(name, body, SystemClock().now_us() // US, **more)
    return face.ask("POST", f"/hooks/{name}", body, headers, token="")


def test_a_delivery_is_recorded_once_and_answered_the_same(served: tuple[Face, Closing]) -> None:
    """Each scheme; a second delivery gets the same answer and adds nothing; other bytes of the event are a conflict."""
    face, _ = served
    for name in SOURCES:
        first, again = deliver(face, name, BODY[name]), deliver(face, name, BODY[name])
        assert (first.status, first.body) == (200, again.body)
    assert len(bodies(face.root, "event.received")) == len(SOURCES)
    other = deliver(face, "stripe", stripe_event(type="invoice.voided"))
    assert (other.status, other.code) == (409, "identity_conflict")
    assert is_problem(other)
    assert len(bodies(face.root, "event.received")) == len(SOURCES)
    numbers = face.ask("GET", "/metrics").body.decode()
    for outcome, count in (("recorded", 4), ("repeated", 4), ("conflict", 1)):
        assert f'countermark_hooks_total{{outcome="{outcome}"}} {count}' in numbers


def test_what_is_not_signed_leaves_a_number_and_no_record(served: tuple[Face, Closing]) -> None:
    """401 without a word about runs, 404 for an unknown source, 400 for signed nonsense, 415 and 413 before all."""
    face, _ = served
    size = face.handle.gate.numbers()["log_records"]
    bad = deliver(face, "stripe", BODY["stripe"], secret="guess")
    assert (bad.status, bad.code) == (401, "bad_webhook")
    unfit = deliver(face, "bank", b"{}")
    assert (unfit.status, unfit.code) == (400, "bad_delivery")
    nobody = face.ask("POST", "/hooks/nobody", b"{}", token="")
    form = face.ask("POST", "/hooks/github", b"{}", {"content-type": "text/plain"}, token="")
    long = deliver(face, "github", b'"' + b"x" * 65_536 + b'"')
    assert [one.status for one in (nobody, form, long)] == [404, 415, 413]
    assert face.ask("GET", "/hooks/stripe", token="").status == 405
    assert all(map(is_problem, (bad, unfit, nobody, form, long)))
    assert bodies(face.root, "event.received") == []
    assert face.handle.gate.numbers()["log_records"] == size
    numbers = face.ask("GET", "/metrics").body.decode()
    assert 'countermark_hooks_total{outcome="refused"} 1' in numbers
    assert 'countermark_hooks_total{outcome="unfit"} 1' in numbers


def test_a_closed_gate_asks_for_the_delivery_again(served: tuple[Face, Closing]) -> None:
    """503 with Retry-After, so that the source repeats what was not made durable; then it is."""
    face, gate = served
    gate.error = GateHaltedError("the gate is closed")
    answer = deliver(face, "stripe", BODY["stripe"])
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert is_problem(answer)
    gate.error = None
    assert deliver(face, "stripe", BODY["stripe"]).status == 200
    assert len(bodies(face.root, "event.received")) == 1
