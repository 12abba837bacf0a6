"""A connection to a host: its name is resolved once, and what it resolved to is checked before it is connected to."""

from __future__ import annotations

import io
import ipaddress
import socket
from collections.abc import Callable, Sequence

from countermark.model.clock import US, SystemClock
from countermark.model.errors import CountermarkError
from countermark.net.addresses import Network, address_of, may_reach


class NotSentError(CountermarkError):
    """The request did not leave: nothing can have happened at the provider because of this try.

    ``reason`` says why, in the words of ``docs/reference/errors.md``; an outcome records it.
    """

    code = "not_sent"

    def __init__(self, message: str, reason: str = "malformed_request") -> None:
        super().__init__(message)
        self.reason = reason


class LostError(CountermarkError):
    """The request may have arrived, and no usable answer came back. ``code``: ``timeout`` or ``provider_error``."""

    code = "provider_error"


class DeadlineReader(io.RawIOBase):
    """Reads a socket so that the whole answer, not each piece of it, has to come in time, and within a size.

    Raises ``TimeoutError`` when the time is over, ``OSError`` when there are more than ``bytes_max`` bytes.
    """

    def __init__(self, sock: socket.socket, end_us: int, bytes_max: int | None = None) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._end_us = end_us
        self._left = bytes_max

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int | None:
        self._sock.settimeout(left_s(self._end_us))
        count: int | None = self._raw.readinto(buffer)  # type: ignore[arg-type]
        if self._left is not None:
            self._left -= count or 0
            if self._left < 0:
                raise OSError("the other side says too much")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def left_s(end_us: int) -> float:
    """Seconds until ``end_us`` of the steady clock, for a socket's timeout. Raises ``TimeoutError``."""
    left = end_us - SystemClock().steady_us()
    if left <= 0:
        raise TimeoutError
    return left / US


def is_loopback_name(host: str) -> bool:
    """Whether a name or an address (an IPv6 one perhaps in brackets) is plainly this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def dial(
    host: str, port: int, *, allowed: Sequence[Network], end_us: int,
    secured: Callable[[socket.socket], socket.socket] | None = None,
) -> socket.socket:  # fmt: skip
    """A connection; nothing of a request has left when this raises ``NotSentError``.

    ``allowed`` are networks that may be reached although they are not public; ``secured`` puts TLS around a socket.
    """
    local = is_loopback_name(host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotSentError("the origin's name does not resolve", "no_connection") from None
    for family, kind, proto, _, address in found:
        if not may_reach(address_of(str(address[0])), local=local, allowed=allowed):
            raise NotSentError("the origin resolves to an address that is not allowed", "no_connection")
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(left_s(end_us))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock if secured is None else secured(sock)
        except OSError:  # refused, unreachable, too slow, or a certificate that does not verify
            sock.close()
    raise NotSentError("no connection to the origin", "no_connection")
