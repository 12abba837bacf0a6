"""Sending a prepared request, byte for byte, once: no redirects, no proxies, one origin, everything bounded.

What is added to the prepared headers is fixed: Host, User-Agent, Accept, Authorization, Content-Length. Before the
first byte of a request leaves, every failure is ``NotSentError``; after it, every failure is ``LostError``.
"""

from __future__ import annotations

import io
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError
from countermark.model.values import Request
from countermark.net.addresses import Network
from countermark.net.dial import DeadlineReader, LostError, NotSentError, dial, is_loopback_name, left_s

ANSWER_BYTES_MAX = 1 << 20
IDLE_CONNECTIONS_MAX = 32
SECRET_CHARS_MAX = 4_096
USER_AGENT = "countermark/0.1"
RESERVED = frozenset(
    ("authorization", "host", "content-length", "connection", "transfer-encoding", "user-agent", "accept", "expect")
)

_METHOD = re.compile(r"[A-Z]{1,10}")
_TARGET = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_HOST = re.compile(r"[a-z0-9.-]{1,253}|\[[0-9a-f:]{2,45}\]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer. Header names are in lower case; ``body`` is as long as its sender allows at most."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Answering:
    """What ``HTTPResponse`` needs of a socket: a file to read, here one with a deadline."""

    def __init__(self, sock: socket.socket, end_us: int) -> None:
        self._sock = sock
        self._end_us = end_us

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(DeadlineReader(self._sock, self._end_us))


def origin_of(text: str) -> str:
    """Check an origin: ``https://host[:port]``, or ``http://`` to loopback only. Raises ``ConfigError``."""
    parts = urlsplit(text)
    host, colon, port = parts.netloc.rpartition(":") if re.search(r":[0-9]+$", parts.netloc) else (parts.netloc, "", "")
    if parts.scheme not in ("http", "https") or text != f"{parts.scheme}://{parts.netloc}" or not _HOST.fullmatch(host):
        raise ConfigError("an origin is https://HOST or https://HOST:PORT, without a path")
    if colon and not 0 < int(port) < 65_536:
        raise ConfigError("an origin's port is 1 to 65535")
    if parts.scheme == "http" and not is_loopback_name(host):
        raise ConfigError("plain http goes only to this machine", hint="Use https.")
    return text


class Sender:
    """Sends to one origin and keeps idle connections for the next request. Safe to use from many threads."""

    def __init__(
        self, origin: str, accept: str = "application/json", *, secret_header: str = "",
        allowed: Sequence[Network] = (), tls: ssl.SSLContext | None = None, answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:  # fmt: skip
        """Raises ``ConfigError`` unless ``origin`` is one (see ``origin_of``).

        ``secret_header`` is the header that carries the secret as it is; without one it is a bearer token. ``allowed``
        are networks that the origin may lead to although they are not public. ``tls`` says whose certificates are good,
        when it is not the system.
        """
        self.origin = origin_of(origin)
        self._accept = accept
        self._secret_header = secret_header
        self._allowed = tuple(allowed)
        parts = urlsplit(origin)
        self._netloc = parts.netloc
        self._host = parts.hostname or ""
        self._https = parts.scheme == "https"
        self._answer_bytes_max = answer_bytes_max
        self._tls = tls  # made at the first connection: reading the roots takes a while
        self._port = parts.port or (443 if self._https else 80)
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def send(self, request: Request, secret: str | None, timeout_ms: int) -> Answer:
        """Send ``request`` once with ``secret``, if any; the whole exchange has ``timeout_ms``.

        Raises:
            NotSentError: nothing left this process.
            LostError: it may have arrived; there is no answer to rely on.
        """
        target = self._checked(request, secret)
        end_us = SystemClock().steady_us() + timeout_ms * 1000
        sock = self._take() or self._connect(end_us)
        reusable = False
        try:
            answer, reusable = self._exchange(sock, request, target, secret, end_us)
        except TimeoutError:
            raise LostError("no answer in time", code="timeout") from None
        except (OSError, HTTPException, ValueError):
            raise LostError("the connection broke, or the answer is not HTTP") from None
        finally:
            self._put(sock, reusable)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for sock in idle:
            sock.close()

    def _checked(self, request: Request, secret: str | None) -> str:
        """The request target, when everything about the request may go on the wire. Raises ``NotSentError``."""
        if not request.url.startswith(self.origin + "/"):
            raise NotSentError("the request's origin is not the configured one", "other_origin")
        target = request.url[len(self.origin) :]
        if _METHOD.fullmatch(request.method) is None or _TARGET.fullmatch(target) is None or "#" in target:
            raise NotSentError("the request's method or URL is malformed")
        for name, value in request.headers:
            taken = name.lower() in RESERVED or name.lower() == self._secret_header.lower()
            if taken or _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                raise NotSentError("a header of the request is malformed or reserved")
        if secret is not None and (len(secret) > SECRET_CHARS_MAX or re.fullmatch(r"[!-~]+", secret) is None):
            raise NotSentError("the credential is empty or malformed", "missing_secret")
        return target

    def _exchange(
        self, sock: socket.socket, request: Request, target: str, secret: str | None, end_us: int
    ) -> tuple[Answer, bool]:
        connection = HTTPConnection(self._netloc)
        connection.auto_open = 0  # the socket is ours: http.client must never open one itself
        connection.sock = sock
        sock.settimeout(left_s(end_us))
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        fixed = (("Host", self._netloc), ("User-Agent", USER_AGENT), ("Accept", self._accept))
        credential = (self._secret_header or "Authorization", secret if self._secret_header else f"Bearer {secret}")
        shown = () if secret is None else (credential,)
        for name, value in (*fixed, *shown, *request.headers):
            connection.putheader(name, value)
        if request.body or request.method != "GET":
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        response = HTTPResponse(_Answering(sock, end_us), method=request.method)  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read(self._answer_bytes_max + 1)
            if len(body) > self._answer_bytes_max:
                raise LostError(f"the answer is longer than {self._answer_bytes_max} bytes")
            if response.length:  # http.client reports a cut body only when it is asked for all of it
                raise LostError("the answer ended before its declared length")
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, body), response.isclosed() and not response.will_close
        finally:
            response.close()

    def _take(self) -> socket.socket | None:
        """An idle connection that the other side has not closed meanwhile."""
        while True:
            with self._lock:
                sock = self._idle.pop() if self._idle else None
            if sock is None:
                return None
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            if not poll.poll(0):  # readable without a question means closed, or out of step
                return sock
            sock.close()

    def _put(self, sock: socket.socket, reusable: bool) -> None:
        with self._lock:
            if reusable and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(sock)
                return
        sock.close()

    def _connect(self, end_us: int) -> socket.socket:
        """A connection to the origin; nothing of a request has left when this raises ``NotSentError``."""
        secured = self._secured if self._https else None
        return dial(self._host, self._port, allowed=self._allowed, end_us=end_us, secured=secured)

    def _secured(self, sock: socket.socket) -> socket.socket:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls.wrap_socket(sock, server_hostname=self._host)
