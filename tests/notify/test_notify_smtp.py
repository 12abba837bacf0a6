"""Mail through a real SMTP server on loopback: threads, TLS, no header of others' making, answers and their meaning."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from notify_support import Desk
from rig import AGENT
from test_notify_http import DOC, HOSTILE, NOW

from countermark.model.errors import ConfigError
from countermark.net import networks_of
from countermark.notify import Mailbox, SmtpTransport
from countermark.notify import smtp as smtp_module
from countermark.notify.channel import DeliveryError
from countermark.wiring import load_config

PASSWORD = "correct horse"
ANNA, BEN = "anna@ledger.example", "ben@ledger.example"


@dataclass
class Post:
    """What a mail server took, and how it answers."""

    taken: list[EmailMessage] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    data_answer: str = "250 taken"
    refused: dict[str, str] = field(default_factory=dict)

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        raw = envelope.content if isinstance(envelope.content, bytes) else b""
        found = message_from_bytes(raw, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.taken.append(found)
        self.secured.append(session.ssl is not None)
        self.recipients.append(list(envelope.rcpt_tos))
        return self.data_answer


Serve = Callable[..., tuple[Post, int]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def serve(certificate: Path) -> Iterator[Serve]:
    running: list[Controller] = []

    def begin(mode: str = "none", *, login: bool = False) -> tuple[Post, int]:
        post = Post()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

        def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"gate", PASSWORD.encode())
            return AuthResult(success=good, handled=False)

        more: dict[str, Any] = {"authenticator": check, "auth_required": True} if login else {}
        if mode == "tls":
            more |= {"ssl_context": context, "auth_require_tls": False}
        elif mode == "starttls":
            more |= {"tls_context": context, "require_starttls": True}
        controller = Controller(post, hostname="localhost", port=_free(), **more)
        controller.start()
        running.append(controller)
        return post, controller.port

    yield begin
    for controller in running:
        controller.stop()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def _transport(port: int, mode: str = "none", tls: ssl.SSLContext | None = None, **more: Any) -> SmtpTransport:
    box = Mailbox("localhost", port, mode, more.get("user", ""), "gate@ledger.example", more.get("to", (ANNA, BEN)))
    return SmtpTransport(box, more.get("secret"), channel="mail", tls=tls)


def _channel(port: int) -> str:
    return (
        f'\n[[notify]]\nname = "mail"\nkind = "smtp"\nhost = "localhost"\nport = {port}\ntls = "none"\n'
        f'from = "gate@ledger.example"\nto = ["{ANNA}", "{BEN}"]\n'
    )


def test_one_thread_holds_everything_about_an_escalation(tmp_path: Path, serve: Serve) -> None:
    """The question begins a thread; each further mail refers to it; another escalation has another thread."""
    post, port = serve()
    with Desk(tmp_path / "d", _channel(port)) as desk:
        first = desk.ask(1)
        desk.answer(first)
        desk.ask(2)
        desk.tell("mail")
    assert len(post.taken) == 5
    of_first = [mail for mail in post.taken if first in mail.get_content()]
    root = of_first[0]["Message-ID"]
    assert of_first[0]["In-Reply-To"] is None
    assert first in root
    assert [mail["In-Reply-To"] for mail in of_first[1:]] == [root] * 3
    assert [mail["References"] for mail in of_first[1:]] == [root] * 3
    assert len({mail["Message-ID"] for mail in post.taken}) == 5
    assert of_first[0]["Subject"] == "Waiting for an answer: 6,000.00 EUR to Acme Paper GmbH"
    assert post.recipients[0] == [ANNA, BEN]
    assert all(mail["Auto-Submitted"] == "auto-generated" for mail in post.taken)


def test_a_repeat_has_the_same_message_id(serve: Serve) -> None:
    """Handed over twice, a mail is one message to every reader that looks at Message-ID."""
    post, port = serve()
    doc = {**DOC, "title": "t", "event": "test"}
    _transport(port).deliver("msg_x-l0-7", doc, NOW)
    _transport(port).deliver("msg_x-l0-7", doc, NOW)
    assert post.taken[0]["Message-ID"] == post.taken[1]["Message-ID"] == "<msg_x-l0-7.mail@ledger.example>"


INJECTED = ["x\r\nBcc: eve@evil.example", "x\nSubject: paid", "x\r\n.\r\nMAIL FROM:<e@e.example>"]
OURS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
    "MIME-Version", "X-Peer", "X-MailFrom", "X-RcptTo",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_reason_makes_a_header_or_ends_the_mail(tmp_path: Path, serve: Serve, text: str) -> None:
    """Whatever reason is given, the mail has our headers only, our recipients only, and is one mail."""
    post, port = serve()
    with Desk(tmp_path / "d", _channel(port)) as desk:
        reason = text.replace("\n", "\u2060")[:500]
        desk.handle.call("kill.set", {"kind": "agent", "value": AGENT, "reason": reason})
        assert desk.tell("mail") == 1
    (mail,) = post.taken
    assert set(mail.keys()) <= OURS
    assert mail["To"] == f"{ANNA}, {BEN}"
    assert post.recipients == [[ANNA, BEN]]
    assert "\u202e" not in mail.get_content()
    assert "://" not in mail.get_content().partition("Reason given")[2].partition("http://localhost")[0]


@pytest.mark.parametrize("text", INJECTED)
def test_a_line_break_in_a_header_is_never_sent(serve: Serve, text: str) -> None:
    """A title with a line break, which nothing here makes, ends the message instead of beginning a header."""
    post, port = serve()
    with pytest.raises(DeliveryError) as error:
        _transport(port).deliver("msg_1", {**DOC, "title": text}, NOW)
    assert error.value.final
    assert post.taken == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")  # of the test's server: TLS is around all of it
@pytest.mark.parametrize("mode", ["starttls", "tls"])
def test_mail_goes_through_tls_with_a_login(serve: Serve, certificate: Path, mode: str) -> None:
    """Secured, logged in with the secret, taken; a wrong password is final, an untrusted certificate is not."""
    post, port = serve(mode, login=True)
    more = {"user": "gate", "secret": lambda: PASSWORD}
    _transport(port, mode, _trust(certificate), **more).deliver("msg_1", DOC, NOW)
    assert post.secured == [mode == "starttls"]  # with TLS from the first byte the server has no word for it
    with pytest.raises(DeliveryError) as error:
        _transport(port, mode, _trust(certificate), user="gate", secret=lambda: "wrong").deliver("msg_1", DOC, NOW)
    assert error.value.final
    assert "wrong" not in str(error.value)
    with pytest.raises(DeliveryError) as error:
        _transport(port, mode, None, **more).deliver("msg_1", DOC, NOW)
    assert not error.value.final
    assert len(post.taken) == 1


def test_without_starttls_nothing_is_said(serve: Serve, certificate: Path) -> None:
    """A server that offers no STARTTLS, or has it stripped on the way, gets no login and no mail."""
    post, port = serve("none")
    with pytest.raises(DeliveryError) as error:
        _transport(port, "starttls", _trust(certificate)).deliver("msg_1", DOC, NOW)
    assert not error.value.final
    assert post.taken == []


@pytest.mark.parametrize(
    ("data", "refused", "final"),
    [
        ("451 later", {}, False), ("554 no", {}, True), ("250 ok", {ANNA: "550 unknown", BEN: "550 unknown"}, True),
        ("250 ok", {ANNA: "450 busy", BEN: "550 unknown"}, False),
    ],
)  # fmt: skip
def test_the_servers_code_says_whether_to_try_again(
    serve: Serve, data: str, refused: dict[str, str], final: bool
) -> None:
    """4yz is tried again, 5yz is final; with several recipients, when it is so for all of them."""
    post, port = serve()
    post.data_answer, post.refused = data, refused
    with pytest.raises(DeliveryError) as error:
        _transport(port).deliver("msg_1", DOC, NOW)
    assert error.value.final is final


def test_one_recipient_that_takes_it_is_a_delivery(serve: Serve) -> None:
    """A mail that is taken for one of two is delivered, and is not sent to that one again."""
    post, port = serve()
    post.refused = {BEN: "550 unknown"}
    _transport(port).deliver("msg_1", DOC, NOW)
    assert post.recipients == [[ANNA]]


@pytest.mark.parametrize("talk", [b"220 hi\r\n", b"220-more\r\n" * 20_000, b"SSH-2.0\r\n", b"\xff" * 9_000, b""])
def test_a_server_that_talks_too_much_or_hangs_is_left(monkeypatch: pytest.MonkeyPatch, talk: bytes) -> None:
    """An endless answer, another protocol or silence cost a bounded time and memory, and are tried again."""
    monkeypatch.setattr(smtp_module, "TIMEOUT_MS", 400)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                try:
                    peer.sendall(talk)
                except OSError:
                    return
                over.wait(5)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(DeliveryError) as error:
            _transport(server.getsockname()[1]).deliver("msg_1", DOC, NOW)
        over.set()
        thread.join()
    assert not error.value.final


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('tls = "none"', 'tls = "never"'), ('host = "localhost"', 'host = "mail.example"'),
        ('"gate@ledger.example"', '"a\\nb@c"'), (f'"{ANNA}"', '"anna"'), (f'"{ANNA}"', '"a@b, c@d"'),
        ("port = ", 'user = "u"\nport = '), ("port = ", "port = 0\n#"),
        ("port = ", 'user = "u"\nsecret = "plain"\nport = '), (f'to = ["{ANNA}", "{BEN}"]', "to = []"),
    ],
)  # fmt: skip
def test_a_wrong_mail_channel_is_refused(tmp_path: Path, old: str, new: str) -> None:
    """In clear to another machine, addresses that are none, half a login, a secret itself: the channel is refused."""
    os.environ.setdefault("NOTIFY_HMAC", "x")
    text = _channel(2525)
    assert old in text
    (tmp_path / "countermark.toml").write_text('version = 1\ndeployment = "t"\n' + text.replace(old, new, 1))
    with pytest.raises(ConfigError, match="notify mail"):
        load_config(tmp_path)


def test_a_mail_server_inside_is_reached_only_when_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to a private address is refused before a connection; listed, it is tried."""
    tried: list[Any] = []

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.1.2.3", port))]

    def connect(_: object, address: Any) -> None:
        tried.append(address)
        raise OSError("unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    box = Mailbox("mail.ledger.example", 587, "starttls", "", "gate@ledger.example", (ANNA,))
    with pytest.raises(DeliveryError, match="not allowed"):
        SmtpTransport(box, None, channel="mail").deliver("msg_1", DOC, NOW)
    assert tried == []
    with pytest.raises(DeliveryError, match="no connection"):
        SmtpTransport(box, None, channel="mail", allowed=networks_of(["10.0.0.0/8"])).deliver("msg_1", DOC, NOW)
    assert tried == [("10.1.2.3", 587)]
