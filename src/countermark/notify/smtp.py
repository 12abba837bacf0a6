"""Mail by SMTP (RFC 5321), with TLS from the start or STARTTLS. One thread for each escalation (RFC 5322, 3.6.4)."""

from __future__ import annotations

import io
import smtplib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from typing import Any

from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError
from countermark.net import DeadlineReader, LostError, Network, NotSentError, dial
from countermark.notify.channel import TIMEOUT_MS, DeliveryError
from countermark.notify.text import plain_text

ANSWERS_BYTES_MAX = 1 << 16  # of everything that a server says to one message
SUBJECT_CHARS_MAX = 180


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A server and what goes there. ``user`` is ``""`` for a server that asks for no credential."""

    host: str
    port: int
    mode: str
    user: str
    sender: str
    to: tuple[str, ...]


class SmtpTransport:
    """Hands one message to a server, on a connection of its own. ``secret`` gives the password each time."""

    kind = "smtp"

    def __init__(
        self, mailbox: Mailbox, secret: Callable[[], str] | None, *, channel: str, allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._box, self._secret, self._channel = mailbox, secret, channel
        self._allowed, self._tls = tuple(allowed), tls

    def deliver(self, identity: str, doc: Mapping[str, Any], now_us: int) -> None:
        """Delivered means that the server has taken it for at least one of the recipients."""
        try:
            mail = self.mail(identity, doc, now_us)
            password = "" if self._secret is None else self._secret()
        except (ValueError, MessageError):  # a header that would hold a line break, which no text of ours has
            raise DeliveryError("the message is not one that may be sent as mail", final=True) from None
        except ConfigError as error:
            raise DeliveryError(error.message) from None
        try:
            self._hand_over(mail, password)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise DeliveryError(
                "the server refuses every recipient", final=all(code >= 500 for code in codes)
            ) from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"the server answers with {error.smtp_code}", final=error.smtp_code >= 500) from None
        except (NotSentError, LostError) as error:
            raise DeliveryError(error.message) from None
        except (smtplib.SMTPException, OSError, ValueError):  # gone, too slow, too talkative, without STARTTLS
            raise DeliveryError("the exchange with the mail server broke off") from None

    def mail(self, identity: str, doc: Mapping[str, Any], now_us: int) -> EmailMessage:
        """The message. ``identity`` makes its Message-ID, the escalation that of its thread."""
        domain = self._box.sender.rpartition("@")[2]
        thread, own = doc["escalation"], f"<{identity}.{self._channel}@{domain}>"
        root = f"<{thread}.{self._channel}@{domain}>"
        mail = EmailMessage(policy=WIRE)
        mail["From"], mail["To"] = self._box.sender, ", ".join(self._box.to)
        mail["Subject"] = doc["title"][:SUBJECT_CHARS_MAX] if thread is None or doc["event"] == "asked" else _again(doc)
        mail["Date"] = datetime.fromtimestamp(now_us // US, UTC)
        mail["Message-ID"] = root if doc["event"] == "asked" else own
        if thread is not None and doc["event"] != "asked":
            mail["In-Reply-To"] = mail["References"] = root
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answer
        mail.set_content(plain_text(doc), cte="quoted-printable")  # for servers that take seven bits only
        return mail

    def _hand_over(self, mail: EmailMessage, password: str) -> None:
        box, end_us = self._box, SystemClock().steady_us() + TIMEOUT_MS * 1_000
        context = self._tls or ssl.create_default_context()
        server = _Bounded(self._dial(end_us, context), box.sender.rpartition("@")[2], end_us)
        try:
            code, _ = server.connect(box.host, box.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, b"")
            server.ehlo_or_helo_if_needed()
            if box.mode == "starttls":
                server.starttls(context=context)
                server.ehlo()
            if box.user:
                server.login(box.user, password)
            server.send_message(mail, box.sender, list(box.to))
            with suppress(smtplib.SMTPException, OSError):  # it has taken the message: how it says goodbye is no matter
                server.quit()
        finally:
            server.close()

    def _dial(self, end_us: int, context: ssl.SSLContext) -> Callable[[], socket.socket]:
        box = self._box
        secured = None if box.mode != "tls" else lambda sock: context.wrap_socket(sock, server_hostname=box.host)
        return lambda: dial(box.host, box.port, allowed=self._allowed, end_us=end_us, secured=secured)

    def close(self) -> None:
        """There is no idle connection."""


def _again(doc: Mapping[str, Any]) -> str:
    """Every message of a thread says what happened, and which escalation it is about."""
    return f"{doc['title'][:SUBJECT_CHARS_MAX]} [{doc['escalation'][4:12]}]"


class _Bounded(smtplib.SMTP):
    """One exchange with a deadline for all of it, and a bound on what the server may say."""

    def __init__(self, connect: Callable[[], socket.socket], name: str, end_us: int) -> None:
        """``name`` is what we say we are: the domain that we write from, and nothing about this machine."""
        super().__init__(local_hostname=name)
        self._connect, self._end_us = connect, end_us

    def _get_socket(self, host: str, port: int, timeout: object) -> socket.socket:
        self._host = host  # what a certificate has to name
        return self._connect()

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(DeadlineReader(self.sock, self._end_us, ANSWERS_BYTES_MAX))
        try:
            return super().getreply()
        except smtplib.SMTPResponseException:  # a line without an end, for which the library makes up a code
            raise smtplib.SMTPServerDisconnected("not SMTP") from None
