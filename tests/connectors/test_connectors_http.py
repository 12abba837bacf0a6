"""The http connector: declared answers, exact requests, and nowhere that a request may not go."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import generate, public_of
from countermark.connectors import HttpConnector, networks_of
from countermark.connectors.addresses import address_of, may_reach
from countermark.connectors.http import judge
from countermark.connectors.http_send import Answer, NotSentError, Sender, origin_of
from countermark.model.answers import Answers, pointed
from countermark.model.errors import ArgumentError, ConfigError, PolicyError
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.model.values import Request
from countermark.policy import compile_bundle, template_files, template_people, with_keys
from countermark.wiring.http_settings import HttpSettings, split_http

KEY = "cm_" + "0" * 48
SECRET = "canary_0123456789"
ANSWERS = Answers((201,), (400, 402, 422), "/id", "/sum/value", "/sum/currency", "GET {origin}/payments?key={key}")
Peers = Callable[[list[Any]], Any]


def wire(origin: str, **more: Any) -> ToolSpec:
    args = (
        ArgSpec("sum.value", "integer", "amount", "amount"),
        ArgSpec("sum.currency", "string", "currency", "currency"),
        ArgSpec("account", "string", "payee", "account"),
        ArgSpec("note", "string", "inert", "note", required=False),
    )
    answers = more.pop("answers", Answers(*ANSWERS.document().values()))  # type: ignore[arg-type]
    if answers is not None:
        lookup = ANSWERS.lookup.replace("{origin}", origin)
        answers = Answers(answers.confirmed, answers.failed, answers.ref, answers.amount, answers.currency, lookup)
    return ToolSpec(
        "bank.pay", "bank", "money", args, encoding="object-v1",
        endpoint=f"POST {origin}/accounts/{{account}}/payments",
        headers=(("Bank-Version", "3"),), outputs=(("id", "string"),), answers=answers, timeout_ms=2_000, **more,
    )  # fmt: skip


ARGS = {"sum.value": 1234, "sum.currency": "eur", "account": "acct 1", "note": "x"}


def reply(status: int, document: Any = None, head: str = "") -> bytes:
    body = b"" if document is None else json.dumps(document).encode()
    return f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


DONE = {"id": "pay_1", "sum": {"value": 1234, "currency": "eur"}}


def connector(origin: str, **more: Any) -> HttpConnector:
    return HttpConnector("bank", origin, lambda tool: SECRET, **more)


def test_the_wire_holds_exactly_the_declared_request(peer_of: Peers) -> None:
    """Path argument encoded, the rest one canonical object, fixed headers, the key, and the secret as bearer token."""
    peer = peer_of([reply(201, DONE, "X-Request-Id: req-7\r\n")])
    bank = connector(peer.origin)
    tool = wire(peer.origin)
    request = bank.prepare(tool, ARGS, KEY)
    outcome = bank.execute(tool, request)
    assert (outcome.status, outcome.code, outcome.ref) == ("confirmed", "ok", "pay_1")
    assert (outcome.amount, outcome.currency, dict(outcome.output)) == (1234, "eur", {"id": "pay_1"})
    assert (outcome.http_status, outcome.request_id) == (201, "req-7")
    body = b'{"note":"x","sum":{"currency":"eur","value":1234}}'
    assert peer.received == [
        b"POST /accounts/acct%201/payments HTTP/1.1\r\nHost: " + peer.origin[7:].encode()
        + b"\r\nUser-Agent: countermark/0.1\r\nAccept: application/json\r\nAuthorization: Bearer " + SECRET.encode()
        + b"\r\nBank-Version: 3\r\nContent-Type: application/json\r\nIdempotency-Key: " + KEY.encode()
        + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    ]  # fmt: skip
    bank.close()


def test_a_secret_may_have_a_header_of_its_own(peer_of: Peers) -> None:
    """``header:NAME`` carries the secret as it is, and no request header of the policy may stand in for it."""
    peer = peer_of([reply(201, DONE)])
    bank = connector(peer.origin, header="X-Api-Key")
    tool = wire(peer.origin)
    request = bank.prepare(tool, ARGS, KEY)
    assert bank.execute(tool, request).status == "confirmed"
    assert b"\r\nX-Api-Key: " + SECRET.encode() + b"\r\n" in peer.received[0]
    assert b"Authorization" not in peer.received[0]
    forged = Request(request.method, request.url, (("x-api-key", "mine"), *request.headers), request.body)
    assert bank.execute(tool, forged).request_id == "malformed_request"
    bank.close()


def test_without_a_secret_nothing_is_sent(peer_of: Peers) -> None:
    """A credential that cannot be read is said to be missing, and nothing else about it."""

    def unreadable(tool: str) -> str:
        raise ConfigError(f"{SECRET} cannot be read")

    bank = HttpConnector("bank", "http://127.0.0.1:9", unreadable)
    outcome = bank.execute(wire("http://127.0.0.1:9"), bank.prepare(wire("http://127.0.0.1:9"), ARGS, KEY))
    assert (outcome.status, outcome.code, outcome.request_id) == ("failed", "not_sent", "missing_secret")


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (201, DONE, ("confirmed", "ok")),
        (200, DONE, ("unknown", "provider_error")),  # only 201 is declared to confirm
        (201, {"sum": DONE["sum"]}, ("unknown", "provider_error")),  # no ref
        (201, {"id": "pay_1"}, ("unknown", "provider_error")),  # no amount
        (201, {**DONE, "sum": {"value": "1234", "currency": "eur"}}, ("unknown", "provider_error")),
        (201, {**DONE, "sum": {"value": 12.5, "currency": "eur"}}, ("unknown", "provider_error")),
        (201, {**DONE, "sum": {"value": True, "currency": "eur"}}, ("unknown", "provider_error")),
        (201, {**DONE, "id": "a\nb"}, ("unknown", "provider_error")),
        (201, ["no object"], ("unknown", "provider_error")),
        (402, {}, ("failed", "provider_refused")),
        (404, {}, ("unknown", "provider_error")),  # not declared to fail
        (429, {}, ("unknown", "provider_rate_limited")),
        (302, {}, ("unknown", "provider_error")),
        (500, {}, ("unknown", "provider_error")),
    ],
)
def test_an_answer_means_what_was_declared(status: int, document: Any, expected: tuple[str, str]) -> None:
    """Statuses and pointers of the policy decide; whatever they do not cover is unknown."""
    outcome = judge(wire("https://bank.example"), Answer(status, {}, json.dumps(document).encode()), "ok")
    assert (outcome.status, outcome.code) == expected


@pytest.mark.parametrize("status", range(200, 600))
def test_without_a_declaration_only_plain_statuses_decide(status: int) -> None:
    """2xx confirms, 4xx but 408, 409, 425 and 429 fails, the rest says nothing."""
    outcome = judge(wire("https://bank.example", answers=None), Answer(status, {}, b""), "ok")
    plain = "confirmed" if status < 300 else "failed" if 400 <= status < 500 else "unknown"
    assert outcome.status == ("unknown" if status in (408, 409, 425, 429) else plain)


def test_a_key_twice_is_no_object() -> None:
    """Two readers could see two amounts in it."""
    raw = b'{"id":"pay_1","sum":{"value":1234,"value":1,"currency":"eur"}}'
    assert judge(wire("https://bank.example"), Answer(201, {}, raw), "ok").status == "unknown"


def test_a_lookup_asks_by_the_key(peer_of: Peers) -> None:
    """Found is confirmed, 404 is not found, everything else stays unknown; without a lookup nobody is asked."""
    answers = [(200, DONE), (404, None), (200, {}), (201, DONE), (500, None), (302, None)]
    peer = peer_of([reply(*one) for one in answers])
    bank = connector(peer.origin)
    tool = wire(peer.origin, answers=Answers((200, 201), (), "/id", "/sum/value", "/sum/currency"))
    request = bank.prepare(tool, ARGS, KEY)
    found = [bank.lookup(tool, request, KEY, 0) for _ in answers]
    assert [(one.status, one.code) for one in found] == [
        ("confirmed", "found"), ("failed", "not_found"), *[("unknown", "provider_error")] * 4,
    ]  # fmt: skip
    assert peer.received[0].startswith(f"GET /payments?key={KEY} HTTP/1.1\r\n".encode())
    assert bank.lookup(wire(peer.origin, answers=None), request, KEY, 0).status == "unknown"
    bank.close()


def test_a_redirect_is_not_followed(peer_of: Peers) -> None:
    """The second place is never asked, and so never sees the credential."""
    other = peer_of([reply(200, DONE)])
    peer = peer_of([reply(307, None, f"Location: {other.origin}/payments\r\n")])
    bank = connector(peer.origin)
    tool = wire(peer.origin)
    assert bank.execute(tool, bank.prepare(tool, ARGS, KEY)).status == "unknown"
    assert other.connections == 0
    bank.close()


def test_a_proxy_of_the_environment_is_not_used(peer_of: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets a variable does not get to see requests."""
    other, peer = peer_of([reply(201, DONE)]), peer_of([reply(201, DONE)])
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other.origin)
    bank = connector(peer.origin)
    tool = wire(peer.origin)
    assert bank.execute(tool, bank.prepare(tool, ARGS, KEY)).status == "confirmed"
    assert other.connections == 0
    bank.close()


@pytest.mark.parametrize(
    "text",
    [
        "http://bank.example", "https://user@bank.example", "https://user:pw@bank.example", "https://bank.example/",
        "https://bank.example@evil.example", "https://bank.example#@evil.example", "https://bank.example?x",
        "https://bank.example\\@evil.example", "ftp://bank.example", "https://bank.example:0", "https://bänk.example",
        "https://", "//bank.example", "https://bank.example:443:443", "https://BANK.example",
    ],
)  # fmt: skip
def test_an_origin_is_a_name_and_a_port_only(text: str) -> None:
    """No credentials, no path, no second host in it."""
    with pytest.raises(ConfigError):
        origin_of(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://bank.example.evil.example/x", "https://bank.example@evil.example/x", "https://evil.example/x",
        "http://bank.example/x", "https://bank.example", "https://bank.example:8443/x", "//bank.example/x",
    ],
)  # fmt: skip
def test_a_request_leaves_only_for_its_origin(url: str) -> None:
    """Whatever begins like the origin and goes elsewhere is refused before a name is resolved."""
    with pytest.raises(NotSentError) as caught:
        Sender("https://bank.example").send(Request("GET", url, (), b""), SECRET, 1_000)
    assert caught.value.reason == "other_origin"


def _resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> tuple[list[str], list[Any]]:
    """Names resolve to ``addresses``, one answer after the other; returns what was asked and connected to."""
    asked: list[str] = []
    connected: list[Any] = []
    left = list(addresses)

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = left.pop(0)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        place = (address, port, 0, 0) if ":" in address else (address, port)
        return [(family, socket.SOCK_STREAM, 6, "", place)]

    def connect(_: socket.socket, place: Any) -> None:
        connected.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return asked, connected


PRIVATE = [
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00::1", "ff02::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "64:ff9b:1::a00:1",
    "2002:a00:1::", "2001:0:a00:1::", "::a00:1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_inside_is_not_followed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Private, link-local, loopback, and whatever a translator would turn into one: no connection is tried."""
    _, connected = _resolving(monkeypatch, address)
    with pytest.raises(NotSentError) as caught:
        Sender("https://bank.example").send(Request("GET", "https://bank.example/x", (), b""), SECRET, 1_000)
    assert caught.value.reason == "no_connection"
    assert connected == []


def test_listed_networks_are_reached_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """``allow_addresses`` opens exactly what it lists."""
    sender = Sender("https://bank.internal", allowed=networks_of(["10.20.0.0/16", "fd12::/16"]))
    reached = []
    for address in ("10.20.3.4", "10.21.0.1", "fd12::9", "fd13::9", "::ffff:10.20.3.4"):
        _, connected = _resolving(monkeypatch, address)
        with pytest.raises(NotSentError):
            sender.send(Request("GET", "https://bank.internal/x", (), b""), SECRET, 1_000)
        reached += connected
    assert reached == ["10.20.3.4", "fd12::9", "::ffff:10.20.3.4"]


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is connected to: a second answer of the name server is never asked for."""
    asked, connected = _resolving(monkeypatch, "93.184.216.34", "127.0.0.1")
    with pytest.raises(NotSentError):
        Sender("https://bank.example").send(Request("GET", "https://bank.example/x", (), b""), SECRET, 1_000)
    assert (asked, connected) == (["bank.example"], ["93.184.216.34"])


def test_a_local_name_goes_to_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """``localhost`` that a resolver sends elsewhere is refused, also to a listed network."""
    _, connected = _resolving(monkeypatch, "93.184.216.34")
    sender = Sender("http://localhost:8080", allowed=networks_of(["93.184.216.0/24"]))
    with pytest.raises(NotSentError):
        sender.send(Request("GET", "http://localhost:8080/x", (), b""), SECRET, 1_000)
    assert connected == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.ip_addresses())
def test_no_private_address_is_public_in_other_clothes(address: Any) -> None:
    """What may be reached without being listed is global, by itself and as what it maps to."""
    if may_reach(address_of(str(address)), local=False, allowed=()):
        assert address_of(str(address)).is_global


def test_a_slow_answer_is_unknown(peer_of: Peers) -> None:
    """What may have arrived is not called failed."""
    done = threading.Event()
    peer = peer_of([lambda sock: done.wait(5)])
    bank = connector(peer.origin)
    tool = ToolSpec(**{**wire(peer.origin).__dict__, "timeout_ms": 50})
    outcome = bank.execute(tool, bank.prepare(tool, ARGS, KEY))
    done.set()
    assert (outcome.status, outcome.code) == ("unknown", "timeout")
    bank.close()


def test_pointers_follow_the_standard() -> None:
    """RFC 6901: ``~1`` is a slash, ``~0`` a tilde, numbers index lists, what is not there is nothing."""
    document = {"a/b": 1, "m~n": 2, "l": [10, {"x": 3}], "": 4}
    pointers = ("/a~1b", "/m~0n", "/l/1/x", "/l/2", "/l/-", "/l/01x", "/none", "/", "/a~1b/c")
    assert [pointed(document, pointer) for pointer in pointers] == [1, 2, 3, None, None, None, None, 4, None]


GOOD = {"kind": "http", "origin": "https://bank.example", "secret": "env:BANK"}


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "http://bank.example"}, {"origin": None}, {"secret": "sk_live_1"}, {"secret": ""}, {"auth": "basic"},
        {"auth": "none"}, {"auth": "header:"}, {"auth": "header:a b"}, {"allow_addresses": "10.0.0.0/8"},
        {"allow_addresses": ["10.0.0.1/8"]}, {"allow_addresses": ["everything"]}, {"verify": False},
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused(change: dict[str, Any]) -> None:
    """A section that says less or more than it may is an error that names it, never a guess."""
    with pytest.raises(ConfigError) as caught:
        split_http({"bank": {**GOOD, **change}}, "countermark.toml")
    assert "connector.bank" in caught.value.message
    assert "sk_live_1" not in str(caught.value)


def test_sections_of_other_kinds_are_left_alone() -> None:
    """Only ``kind = "http"`` is read here; a built-in connector's name cannot be taken."""
    found, rest = split_http({"bank": GOOD, "stripe": {"secret": "env:X"}}, "f")
    assert found == {"bank": HttpSettings("https://bank.example", "env:BANK")}
    assert rest == {"stripe": {"secret": "env:X"}}
    for name in ("stripe", "caller", "noop", "Bank"):
        with pytest.raises(ConfigError):
            split_http({name: GOOD}, "f")


TOOL = """
[connector.bank]
origin = "https://bank.example"

[tool."bank.pay"]
connector = "bank"
class = "money"
encoding = "object-v1"
endpoint = "POST /accounts/{account}/payments"
once_per = ["payee", "invoice"]
recovery = "lookup"

[tool."bank.pay".answers]
confirmed = [201]
failed = [422, 400]
ref = "/id"
amount = "/sum/value"
currency = "/sum/currency"
lookup = "GET /payments?key={key}"

[tool."bank.pay".args."sum.value"]
type = "integer"
class = "amount"
required = true
[tool."bank.pay".args."sum.currency"]
class = "currency"
required = true
[tool."bank.pay".args.account]
class = "payee"
required = true
[tool."bank.pay".args.invoice]
class = "reference"
required = true
"""


def compiled(text: str) -> Any:
    files = {"limits.toml": template_files("vendor-payments")["limits.toml"], "tools.toml": text}
    keys = {person: str(public_of(generate())) for person in template_people(files)}
    return compile_bundle(sorted(with_keys(files, keys).items()), {})


def test_a_declared_tool_stands_in_the_bundle() -> None:
    """The declaration is part of the policy that people sign, and comes back from the bundle as it was."""
    bundle = compiled(TOOL)
    tool = bundle.compiled.tools["bank.pay"]
    lookup = "GET https://bank.example/payments?key={key}"
    assert tool.answers == Answers((201,), (400, 422), "/id", "/sum/value", "/sum/currency", lookup)
    assert tool.endpoint == "POST https://bank.example/accounts/{account}/payments"
    assert type(bundle).from_document(bundle.document).compiled.tools["bank.pay"] == tool


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("confirmed = [201]", "confirmed = [99]"), ("confirmed = [201]", "confirmed = [201, 201]"),
        ("confirmed = [201]", "confirmed = [422]"), ('ref = "/id"', 'ref = "id"'), ('ref = "/id"', 'ref = "/a~2"'),
        ('currency = "/sum/currency"\n', ""), ("key={key}", "all=1"), ('lookup = "GET', 'lookup = "POST'),
        ('ref = "/id"', 'reference = "/id"'), ("args.invoice]", 'args."sum"]'), ("args.invoice]", 'args."a[b]"]'),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(old: str, new: str) -> None:
    """A status that is none, a pointer that is none, an amount without currency, names that make no object."""
    assert old in TOOL
    with pytest.raises(PolicyError) as caught:
        compiled(TOOL.replace(old, new))
    assert {finding.file for finding in caught.value.findings if finding.severity == "error"} == {"tools.toml"}


def test_a_path_argument_cannot_leave_its_place() -> None:
    """The value is refused before a decision, whatever servers make of encoded slashes and dots."""
    tool = wire("https://bank.example")
    for account in ("../admin", "..", "a/b", "a%2fb", ""):
        with pytest.raises(ArgumentError):
            connector("https://bank.example").prepare(tool, {**ARGS, "account": account}, KEY)


def test_nothing_of_the_secret_stands_in_the_module(tmp_path: Path) -> None:
    """The connector keeps no credential between two requests."""
    bank = connector("https://bank.example")
    assert SECRET not in repr(vars(bank))
    assert SECRET not in repr(vars(bank._sender))
