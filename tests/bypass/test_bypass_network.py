"""The gate as a stepping stone: addresses inside, spelt so that a check does not see it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from siege import Siege

from countermark.connectors.http_send import NotSentError, Sender, origin_of
from countermark.model.errors import ConfigError
from countermark.model.values import Request

LOOPBACK = ["2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "0"]
MAPPED = ["[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]"]
INSIDE = [
    "10.0.0.1", "10.1", "0x0a000001", "167772161", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fe80::1]", "[fd00:ec2::254]", "[fc00::1]", "[fec0::1]",
    "224.0.0.1", "255.255.255.255", "0.0.0.0", "192.0.0.1", "198.18.0.1", "240.0.0.1", "[ff02::1]", "[2001::1]",
    "[5f00::1]", "[4000::1]", "[3fff::1]", "[100::1]",
]  # fmt: skip
NO_ORIGINS = [
    "http://10.0.0.1", "http://169.254.169.254", "http://2130706433.example", "http://127.0.0.1.example",
    "http://localhost.example", "http://127.0.0.1@evil.example", "https://user:secret@bank.example",
    "https://bank.example/path", "https://bank.example?x", "https://bank.example#x", "https://bank.example\\@evil",
    "https://[::1%25eth0]", "https://[fe80::1%eth0]", "https://b\u00e4nk.example", "https://bank\u3002example",
    "https://\uff11\uff12\uff17.0.0.1", "https://bank.example:0", "https://bank.example:99999", "file:///etc/passwd",
    "gopher://127.0.0.1:25", "https://", "//bank.example", "https://bank.example:443:80", "https://bank.example%00",
]  # fmt: skip


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service on this machine that the gate must not call, and the word that no connection is tried at all."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.setblocking(False)

        def never(self: socket.socket, address: Any) -> None:
            raise AssertionError(f"a connection to {address} was tried")

        monkeypatch.setattr(socket.socket, "connect", never)
        yield service


@pytest.mark.parametrize("host", [*LOOPBACK, *MAPPED, *INSIDE])
def test_an_address_inside_in_another_spelling(listener: socket.socket, host: str) -> None:
    """Prevented: loopback, private, link-local and metadata addresses, written in decimal, hexadecimal, octal, short,
    or as IPv6 that carries them: no connection is tried.
    """
    port = listener.getsockname()[1]
    origin = f"https://{host}:{port}"
    with pytest.raises((NotSentError, ConfigError)):
        Sender(origin).send(Request("GET", origin + "/", (), b""), "secret", 2_000)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("text", NO_ORIGINS, ids=ascii)
def test_an_origin_that_hides_another(text: str) -> None:
    """Prevented: an origin with a user, a path, other letters or another scheme in it, or plain http to elsewhere."""
    with pytest.raises(ConfigError):
        origin_of(text)


@pytest.mark.parametrize(
    "line",
    [
        "GET http://169.254.169.254/latest HTTP/1.1", "POST http://127.0.0.1:1/v1/transfers HTTP/1.1",
        "CONNECT 127.0.0.1:22 HTTP/1.1", "GET //169.254.169.254/ HTTP/1.1", "OPTIONS * HTTP/1.1",
        "GET /stripe/http://evil.example/ HTTP/1.1", "GET /stripe//evil.example/v1/balance HTTP/1.1",
        "GET /stripe/v1/../../evil HTTP/1.1", "GET /stripe/v1/transfers/..%2f..%2fbalance HTTP/1.1",
        "GET /stripe/v1/transfers/%2e%2e HTTP/1.1", "GET /stripe/v1/transfers/.. HTTP/1.1",
        "GET /stripe/v1/transfers/tr_1%3Fexpand=x HTTP/1.1", "GET /stripe@evil.example/v1/balance HTTP/1.1",
    ],
)  # fmt: skip
def test_the_gate_as_a_proxy(siege: Siege, line: str) -> None:
    """Prevented: the gate asked to forward a request to an address of the agent's choosing, or to another of the
    provider's objects by a climbing path.
    """
    before = siege.moved
    head = f"{line}\r\nHost: localhost\r\nAuthorization: Bearer {siege.token}\r\nConnection: close\r\n"
    (answer,) = siege.raw(f"{head}Content-Length: 0\r\n\r\n".encode())
    assert answer.status in (400, 403, 404, 405), answer.body
    assert siege.moved == before
