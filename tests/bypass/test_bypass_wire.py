"""Requests that two readers take apart differently, and addresses that climb."""

from __future__ import annotations

import gzip
import json

import pytest
from siege import AGENT, TOOL, Siege, args_for

CLIMBING = [
    "/log/tile/../../access/tokens.json", "/log/tile/%2e%2e/%2e%2e/keys/log.pem", "/log/tile/..%2f..%2fkeys%2flog.pem",
    "/log/tile/0/..%2f..%2f..%2fcountermark.toml", "/log/tile/0/000/../../../../etc/passwd", "/log/tile//etc/passwd",
    "/log/tile/0/x000/../000", "/log/tile/entries/000", "/log/tile/0/000%00.pem", "/log/tile/data/journal.db",
    "/log/checkpoint/../../keys/log.pem", "/log/tile/0/%c0%ae%c0%ae/keys", "/log/tile/\\..\\..\\keys\\log.pem",
    "/v1/actions/..%2f..%2fkeys/receipt", "/v1/actions/act_%2e%2e/explanation", "/v1/actions/%00/receipt",
    "/v1/runs/..%2f..%2f", "/escalations/..%2f..%2fkeys%2flog.pem", "/openapi.json/../keys/log.pem", "/./keys/log.pem",
    "/access/tokens.json", "/keys/log.pem", "/countermark.toml", "/data/journal.db", "/.%2e/keys/log.pem",
]  # fmt: skip
# What hides a second request behind the first.
HIDING = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 0", "Transfer-Encoding: \x0bchunked\r\nContent-Length: 4",
    "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4", "Content-Length: 4\r\n\tTransfer-Encoding: chunked",
    "Content_Length: 0\r\nContent-Length: 4\r\nTransfer-Encoding: x", "Content-Length: 4, 0", "Content-Length:\x004",
    "content-length: 4\nTransfer-Encoding: chunked", "Content-Length : 4", "X: y\rContent-Length: 0",
]  # fmt: skip


def head_of(siege: Siege, target: str, *, kind: str = "application/json", method: str = "POST") -> str:
    return (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {siege.token}\r\n"
        f"Content-Type: {kind}\r\nIdempotency-Key: k-1\r\n"
    )


@pytest.mark.parametrize("target", CLIMBING)
def test_a_climbing_path(siege: Siege, target: str) -> None:
    """Prevented: a path that climbs out of the log's tiles or an action's address to keys, tokens or the journal."""
    secret = (siege.root / "keys" / "log.pem").read_bytes().splitlines()[1]
    answers = siege.raw((head_of(siege, target, method="GET") + "Connection: close\r\n\r\n").encode("latin-1"))
    assert [answer.status in (400, 403, 404, 405) for answer in answers] == [True], answers
    assert secret not in answers[0].body
    assert b"SQLite" not in answers[0].body


@pytest.mark.parametrize("face", ["/v1/actions", "/stripe/v1/transfers", "/mcp", "/v1/kills"])
@pytest.mark.parametrize("hiding", HIDING, ids=ascii)
def test_a_payment_hidden_in_a_request(siege: Siege, face: str, hiding: str) -> None:
    """Prevented: on every face, a payment smuggled behind another request by two lengths, odd spaces or bare line
    feeds: it is never read as a request.
    """
    body = json.dumps({"call_id": "hidden", "tool": TOOL, "args": args_for("WIRE-1")})
    hidden = head_of(siege, "/v1/actions") + f"Content-Length: {len(body)}\r\n\r\n{body}"
    answers = siege.raw(f"{head_of(siege, face)}{hiding}\r\n\r\n0\r\n\r\n{hidden}".encode("latin-1"))
    assert [answer.status for answer in answers] == [400], answers
    assert siege.paid("WIRE-1") == []


@pytest.mark.parametrize("name", ["Idempotency-Key", "Content-Type", "Countermark-Run", "Stripe-Account"])
def test_a_header_twice(siege: Siege, name: str) -> None:
    """Prevented: a header twice that says which payment, which run or whose account this is."""
    twice = "".join(f"{name}: {value}\r\n" for value in ("a", "b"))
    head = head_of(siege, "/stripe/v1/transfers", kind="application/x-www-form-urlencoded")
    body = "amount=1000&currency=eur&destination=acct_1AcmePaper&metadata%5Binvoice%5D=WIRE-3"
    head = "".join(line + "\r\n" for line in head.splitlines() if not line.startswith(name))
    (answer,) = siege.raw(f"{head}{twice}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert answer.status == 400, answer.body
    assert siege.paid("WIRE-3") == []


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /v1/escalations\r\n\r\n", b"GET /healthz HTTP/0.9\r\n\r\n",
        b"GET /healthz HTTP/3.0\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 64,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n",
    ],
    ids=["h2", "0.9 bare", "0.9", "3.0", "tls", "nul", "two hosts", "no host"],
)  # fmt: skip
def test_another_protocol(siege: Siege, raw: bytes) -> None:
    """Prevented: another protocol than HTTP/1.1, or a request of which nobody can say whom it is for."""
    answers = siege.raw(raw)
    assert [answer.status for answer in answers] == [400], answers


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.3"])
def test_an_upgrade(siege: Siege, protocol: str) -> None:
    """Prevented: an upgrade to another protocol, behind which requests pass a proxy unread: it is ignored."""
    upgrade = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    for target in ("/healthz", "/mcp", "/v1/escalations", "/stripe/v1/customers"):
        answers = siege.raw((head_of(siege, target, method="GET") + upgrade).encode())
        assert len(answers) == 1
        assert answers[0].status != 101
        assert "upgrade" not in answers[0].headers


@pytest.mark.parametrize(
    "forged",
    [
        {"x-http-method-override": "POST", "x-method-override": "POST", "x-http-method": "POST"},
        {"x-original-url": "/v1/kills", "x-rewrite-url": "/v1/kills"}, {"x-forwarded-prefix": "/stripe"},
        {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1;proto=https"},
        {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-forwarded-port": "443"},
        {"x-forwarded-user": AGENT, "x-forwarded-client-cert": 'By=spiffe://x;URI="spiffe://x/treasury"'},
        {"x-countermark-agent": AGENT, "countermark-agent": "clerk", "countermark-tier": "embedded"},
        {"x-ssl-client-verify": "SUCCESS", "x-ssl-client-s-dn": "CN=treasurer", "ssl-client-cert": "x"},
    ],
    ids=lambda forged: next(iter(forged)),
)  # fmt: skip
def test_headers_by_which_proxies_speak(siege: Siege, forged: dict[str, str]) -> None:
    """Prevented: forged headers by which a proxy would change the address, the method, the caller or the person."""
    assert siege.ask("GET", "/v1/escalations", headers=forged, token="").status == 401
    assert siege.ask("GET", "/v1/escalations", headers=forged).status == 403
    assert siege.ask("GET", "/v1/actions", headers=forged).status == 405
    stranger = siege.ask("POST", "/v1/actions", {"call_id": "x", "tool": TOOL, "args": {}}, forged, token="")
    assert stranger.status == 401
    told = siege.ask("POST", "/v1/runs", {"purpose": "forged"}, forged)
    assert (told.status, told.json["agent"]) == (201, AGENT)
    assert "evil.example" not in json.dumps(dict(told.headers))


def test_a_line_break_in_an_address(siege: Siege) -> None:
    """Prevented: encoded line breaks in an address or an id that would become headers of the answer."""
    for target in ("/v1/runs/%0d%0aSet-Cookie:%20x=1", "/v1/actions/act_%0d%0aX-Evil:1", "/stripe/v1/x%0d%0aX-Evil:1"):
        answer = siege.ask("GET", target)
        assert answer.status in (400, 404)
        assert not {"set-cookie", "x-evil"} & answer.headers.keys()


@pytest.mark.parametrize("face", ["/v1/actions", "/stripe/v1/transfers", "/mcp"])
def test_a_body_that_grows(siege: Siege, face: str) -> None:
    """Prevented: a compressed body, a bottomless one, one of very many members or a huge one, on every face that reads
    bodies: refused, and the gate goes on.
    """
    kind = "application/x-www-form-urlencoded" if face.startswith("/stripe") else "application/json"
    bodies = {
        "deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "brackets": b"[" * 60_000,
        "many": ("{" + ",".join(f'"k{n}":1' for n in range(6_000)) + "}").encode(),
        "fields": "&".join(f"k{n}=1" for n in range(6_000)).encode(), "huge": b" " * 5_000_000, "nothing": b"",
    }  # fmt: skip
    for name, body in bodies.items():
        answer = siege.ask("POST", face, body, {"content-type": kind, "idempotency-key": "grow"})
        assert 400 <= answer.status < 500, (name, answer.status)
    packed = gzip.compress(json.dumps({"call_id": "z", "tool": TOOL, "args": args_for("WIRE-2")}).encode())
    answer = siege.ask("POST", face, packed, {"content-type": kind, "content-encoding": "gzip"})
    assert 400 <= answer.status < 500
    assert siege.ask("GET", "/healthz", token="").json["ready"] is True
    assert siege.paid("WIRE-2") == []
