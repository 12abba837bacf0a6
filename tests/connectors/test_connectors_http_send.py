"""What goes on the wire is exactly the prepared request, and every failure is told apart by when it happened."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_peer import Peer

from countermark.connectors.http_send import ANSWER_BYTES_MAX, LostError, NotSentError, Sender, origin_of
from countermark.model.errors import ConfigError
from countermark.model.values import Request

OK = b"HTTP/1.1 200 OK\r\nRequest-Id: req_1\r\nContent-Length: 2\r\n\r\n{}"
SECRET = "sk_test_canary_0123456789"
Peers = Callable[[list[Any]], Any]


def request_to(origin: str, body: bytes = b"amount=1&metadata%5Ba%5D=%C3%A9", **more: Any) -> Request:
    headers = (
        ("Stripe-Version", "v1"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Idempotency-Key", "k"),
    )
    return Request(more.get("method", "POST"), more.get("url", origin + "/v1/transfers"), headers, body)


@pytest.fixture
def sender_to() -> Iterator[Callable[[str], Sender]]:
    made: list[Sender] = []

    def make(origin: str) -> Sender:
        made.append(Sender(origin))
        return made[-1]

    yield make
    for sender in made:
        sender.close()


def test_the_wire_holds_exactly_the_prepared_request(peer_of: Peers, sender_to: Callable[[str], Sender]) -> None:
    """Every byte that arrives is the request line, the five fixed headers, the prepared headers and the body."""
    peer = peer_of([OK])
    request = request_to(peer.origin)
    answer = sender_to(peer.origin).send(request, SECRET, 5_000)
    assert (answer.status, answer.body, answer.headers["request-id"]) == (200, b"{}", "req_1")
    expected = (
        b"POST /v1/transfers HTTP/1.1\r\n"
        b"Host: " + peer.origin[7:].encode() + b"\r\n"
        b"User-Agent: countermark/0.1\r\n"
        b"Accept: application/json\r\n"
        b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
        b"Stripe-Version: v1\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n"
        b"Idempotency-Key: k\r\n"
        b"Content-Length: 31\r\n"
        b"\r\n"
        b"amount=1&metadata%5Ba%5D=%C3%A9"
    )
    assert peer.received == [expected]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=3))
def test_any_body_arrives_unchanged(bodies: list[bytes]) -> None:
    """Whatever bytes were prepared arrive as they are, also over a reused connection."""
    peer = Peer([OK] * len(bodies))
    sender = Sender(peer.origin)
    try:
        for body in bodies:
            sender.send(request_to(peer.origin, body), SECRET, 5_000)
        assert [got.partition(b"\r\n\r\n")[2] for got in peer.received] == bodies
        assert peer.connections == 1
    finally:
        sender.close()
        peer.close()


def test_a_get_has_no_body(peer_of: Peers, sender_to: Callable[[str], Sender]) -> None:
    """A query is sent in the request line, without Content-Length."""
    peer = peer_of([OK])
    url = peer.origin + "/v1/transfers?limit=1"
    sender_to(peer.origin).send(Request("GET", url, (), b""), SECRET, 5_000)
    assert peer.received[0].startswith(b"GET /v1/transfers?limit=1 HTTP/1.1\r\n")
    assert b"Content-Length" not in peer.received[0]


def test_a_closed_idle_connection_is_not_used_again(peer_of: Peers, sender_to: Callable[[str], Sender]) -> None:
    """When the provider closed the connection after its answer, the next request opens a new one and is not lost."""

    closed = threading.Event()

    def answer_and_close(sock: socket.socket) -> None:
        sock.sendall(OK)
        sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    peer = peer_of([answer_and_close, OK])
    sender = sender_to(peer.origin)
    assert sender.send(request_to(peer.origin), SECRET, 5_000).status == 200
    assert closed.wait(5)
    assert sender.send(request_to(peer.origin), SECRET, 5_000).status == 200
    assert peer.connections == 2


def test_a_redirect_is_not_followed(peer_of: Peers, sender_to: Callable[[str], Sender]) -> None:
    """A 307 is an answer like any other: the secret goes nowhere else."""
    other = peer_of([OK])
    peer = peer_of([f"HTTP/1.1 307 T\r\nLocation: {other.origin}/x\r\nContent-Length: 0\r\n\r\n".encode()])
    assert sender_to(peer.origin).send(request_to(peer.origin), SECRET, 5_000).status == 307
    assert other.received == []


def test_proxies_of_the_environment_are_ignored(
    peer_of: Peers, sender_to: Callable[[str], Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and its relatives change nothing."""
    proxy, peer = peer_of([OK]), peer_of([OK])
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.origin)
    assert sender_to(peer.origin).send(request_to(peer.origin), SECRET, 5_000).status == 200
    assert proxy.received == []


def drip(sock: socket.socket) -> None:
    """Send a byte of a header again and again, faster than any timeout of a single read."""
    try:
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        sock.settimeout(0.02)
        while True:
            sock.sendall(b"x")
            try:
                if sock.recv(1) == b"":
                    return
            except TimeoutError:
                pass
    except OSError:
        pass


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda sock: sock.recv(1), "timeout"),
        (drip, "timeout"),
        (lambda sock: None, "provider_error"),
        (b"garbage\r\n\r\n", "provider_error"),
        (lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"), "provider_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n" + b"x" * (ANSWER_BYTES_MAX + 1), "provider_error"),
    ],
    ids=["silent", "drip", "closed", "garbage", "cut", "too long"],
)
def test_after_the_first_byte_every_failure_is_lost(
    peer_of: Peers, sender_to: Callable[[str], Sender], answer: Any, code: str
) -> None:
    """Silence, dripping, a closed connection, garbage, a cut and a flood all mean: it may have happened."""
    peer = peer_of([answer])
    with pytest.raises(LostError) as caught:
        sender_to(peer.origin).send(request_to(peer.origin), SECRET, 300)
    assert caught.value.code == code
    assert len(peer.received) == 1


def test_a_refused_connection_is_not_sent(sender_to: Callable[[str], Sender]) -> None:
    """Nobody listens: nothing was sent, and the error says so."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(NotSentError):
        sender_to(origin).send(request_to(origin), SECRET, 1_000)


@pytest.mark.parametrize(
    "path", ["http://127.0.0.1:1/v1/x", "@evil/v1", ".evil/v1", "", "/a b", "/a#b", "/é", "/a\r\nX: y"]
)
def test_only_the_configured_origin_is_reached(peer_of: Peers, sender_to: Callable[[str], Sender], path: str) -> None:
    """Another origin, one that only begins alike, and a malformed target are refused before a connection is made."""
    peer = peer_of([OK])
    url = path if path.startswith("http") else peer.origin + path
    with pytest.raises(NotSentError):
        sender_to(peer.origin).send(request_to(peer.origin, url=url), SECRET, 1_000)
    assert peer.connections == 0


@pytest.mark.parametrize(
    "header",
    [("Authorization", "x"), ("host", "x"), ("Content-Length", "0"), ("Transfer-Encoding", "chunked"),
     ("A", "b\r\nC: d"), ("A b", "c"), ("A", ""), ("A", "é")],
)  # fmt: skip
def test_prepared_headers_cannot_smuggle(peer_of: Peers, sender_to: Callable[[str], Sender], header: Any) -> None:
    """Headers that the sender owns, and line breaks or other bytes in any header, are refused before sending."""
    peer = peer_of([OK])
    with pytest.raises(NotSentError):
        sender_to(peer.origin).send(Request("POST", peer.origin + "/x", (header,), b""), SECRET, 1_000)
    assert peer.connections == 0


@pytest.mark.parametrize("secret", ["", "a b", "a\r\nX: y", "é", "x" * 5_000])
def test_a_malformed_secret_is_not_sent_and_not_quoted(
    peer_of: Peers, sender_to: Callable[[str], Sender], secret: str
) -> None:
    """A credential that could break the header is refused, and no error repeats it."""
    peer = peer_of([OK])
    with pytest.raises(NotSentError) as caught:
        sender_to(peer.origin).send(request_to(peer.origin), secret, 1_000)
    assert not secret or secret not in repr(caught.value) + str(caught.value)
    assert peer.connections == 0


@pytest.mark.parametrize(
    "text",
    ["http://example.com", "ftp://127.0.0.1", "https://a/b", "https://a/", "https://u@a", "https://a:0", "https://a:99999",
     "https://", "127.0.0.1", "https://A", "http://127.0.0.1.evil.com", "https://a?x", "http://[fe80::1]"],
)  # fmt: skip
def test_wrong_origins_are_refused(text: str) -> None:
    """Plain http leaves no machine; paths, users, odd ports and odd hosts are no origins."""
    with pytest.raises(ConfigError):
        origin_of(text)


@pytest.mark.parametrize(
    "text", ["https://api.stripe.com", "http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:9"]
)
def test_right_origins_are_taken(text: str) -> None:
    """https anywhere, http on this machine."""
    assert origin_of(text) == text


def test_a_private_address_behind_a_public_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves into a private network is not contacted."""

    def resolve(*args: Any, **more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NotSentError, match="not allowed"):
        Sender("https://api.stripe.com").send(request_to("https://api.stripe.com"), SECRET, 1_000)


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key for ``name``, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(*form) + cert.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("name", "trusted", "arrives"), [("localhost", True, True), ("localhost", False, False), ("evil", True, False)]
)
def test_tls_is_verified(
    peer_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trusted: bool,
    arrives: bool,
) -> None:
    """A certificate must come from a trusted root and bear the origin's name; else no byte of the request leaves."""
    pem = certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    peer = peer_of([OK, OK], context)
    if trusted:
        make = ssl.create_default_context
        monkeypatch.setattr(ssl, "create_default_context", lambda: make(cafile=str(pem)))
    origin = peer.origin.replace("http://127.0.0.1", "https://localhost")
    sender = Sender(origin)
    try:
        if arrives:
            assert sender.send(request_to(origin), SECRET, 5_000).status == 200
            assert sender.send(request_to(origin), SECRET, 5_000).status == 200
            assert peer.received[0].endswith(request_to(origin).body)
        else:
            with pytest.raises(NotSentError):
                sender.send(request_to(origin), SECRET, 5_000)
            assert peer.received == []
    finally:
        sender.close()
