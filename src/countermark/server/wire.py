"""The wire: uvicorn's HTTP/1.1 protocol with bounds on everything that a client could make large, slow or ambiguous.

What cannot be a request is answered here, in the one error shape, and the connection ends: nothing behind it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from countermark.authority import SCHEME
from countermark.model.errors import CountermarkError, GateHaltedError
from countermark.server.bodies import too_large
from countermark.server.problems import HttpError, raw_problem
from countermark.server.surroundings import WHOLE, Counters
from countermark.wiring import ServeSettings

PIPELINED_MAX = 16
IDLE_TICKS = 4  # looks at a connection in the time that it may be idle
LINGER_S = 1.0  # how long a refused client may go on talking before the connection is cut
PEOPLE_MAX = 16  # connections beyond ``connections_max``, for requests that a person signed
PASS = SCHEME.encode("ascii") + b" "
LOCAL = ("127.0.0.1", "localhost", "[::1]")
PACK_PATH = b"/evidence/check"  # takes an evidence pack
PACK_BYTES_MAX = 32 << 20


class _Refused(Exception):
    """Ends the parser; the reason stands in the protocol."""


def _no_room() -> HttpError:
    hint = "Keep connections and use them again."
    return HttpError(503, "too many connections", code="gate_busy", hint=hint, retryable=True)


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Answer in one piece; False when that cannot be done, and nothing was sent.

        Every write to a socket gives up the interpreter's lock, and getting it back beside a busy lane costs more than
        the write. ``headers`` hold the body's length.
        """
        if self.response_started or self.disconnected or self.flow.write_paused:
            return False
        parts = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            if b"\r" in value or b"\n" in value or name == b"connection":
                return False
            parts += (name, b": ", value, b"\r\n")
        closing = not self.keep_alive
        parts.append(b"connection: close\r\n\r\n" if closing else b"\r\n")
        if self.scope["method"] != "HEAD":
            parts.append(body)
        self.waiting_for_100_continue = False
        self.response_started = self.response_complete = True
        self.transport.write(b"".join(parts))
        self.message_event.set()
        if closing:
            self.transport.close()
        self.on_response()
        return True


class Wire(HttpToolsProtocol):
    """One connection. ``settings`` and ``counters`` are set by ``wire_of``."""

    settings: ServeSettings
    counters: Counters
    hosts: frozenset[bytes]
    turns: Iterator[int]  # in which order connections began to wait
    refusal: Callable[[CountermarkError], bytes]  # how this face says no before there is a request

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.parser = httptools.HttpRequestParser(self)  # a fresh one, without the leniencies that uvicorn sets
        self.limits = self.settings.limits
        self._ticker: asyncio.TimerHandle | None = None
        self._quiet = 0  # ticks since anything happened
        self._reading = False  # between a request's first byte and its last
        self._in_head = False
        self._fresh = False  # the request began within the chunk that is being read
        self._head_bytes = self._header_bytes = self._body_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._active: RequestResponseCycle | None = None
        self._fault: HttpError | None = None
        self.for_people = False
        self._ended = False
        self._eof = False

    # The connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = next(self.turns)
        if len(self.connections) > self.limits.connections_max and not self._room():
            self.refuse(_no_room())
            return
        self._tick_later()

    def _room(self) -> bool:
        """Whether there is room for this connection: the one that is cheapest to end gives way to it, so that nobody
        keeps others out by opening many and sending nothing, or half a request. Where all have a request under way,
        some are left for people, who may want to stop just that.
        """
        others = [one for one in self.connections if one is not self and isinstance(one, Wire) and not one.gone]
        for reserved, most in ((False, self.limits.connections_max), (True, PEOPLE_MAX)):
            self.for_people = reserved
            some = [one for one in others if one.for_people == reserved]
            if len(some) < most:
                return True
            costs = ((one.cost, one.since, one.transport) for one in some)
            found = min(((cost, since, there) for cost, since, there in costs if cost is not None), default=None)
            if found is not None:
                found[2].abort()  # to close it politely would take as long as its client likes
                return True
        return False

    @property
    def gone(self) -> bool:
        """Whether this connection has ended, but for being told so."""
        return self.transport.is_closing() and not self.transport.get_write_buffer_size()

    @property
    def cost(self) -> int | None:
        """What is lost with this connection: 0 nothing, it ends already; 1 nothing, it waits; 2 a request that is not
        whole, so that nothing came of it yet. None where a request is under way.
        """
        active = self._active
        done = active is None or active.response_complete
        if self.transport.is_closing():
            return 0
        if self._reading and (done or (active is self.cycle and not self._in_head)):
            return 2
        return (0 if self._ended else 1) if done else None

    @property
    def waiting(self) -> bool:
        """Whether nothing is being read or answered here."""
        done = self._active is None or self._active.response_complete
        return done and not self._reading and not self._ended and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._deadline, self._slow, self._ticker):
            if timer is not None:
                timer.cancel()
        if self._active is not None and not self._active.response_complete:
            self._active.disconnected = True
            self._active.message_event.set()

    def _tick_later(self) -> None:
        self._ticker = self.loop.call_later(self.limits.idle_ms_max / 1000 / IDLE_TICKS, self._tick)

    def _tick(self) -> None:
        """A look now and then costs less than a timer for each request. A request under way has a deadline of its own;
        where nothing came for so long, the connection ends, and an answer that nobody takes is cut, the last one too.
        """
        self._quiet = self._quiet + 1 if self.waiting or self.transport.is_closing() else 0
        if self._quiet <= IDLE_TICKS:
            self._tick_later()
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not take its answer: it gets a little time."""
        super().pause_writing()
        if self._slow is None:
            self._slow = self.loop.call_later(self.limits.answer_ms_max / 1000, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def refuse(self, error: HttpError) -> None:
        """Answer with an error and read nothing more. A whole request that is under way is still answered."""
        if self._ended or self.transport.is_closing():
            return
        active, whole = self._active, self._in_head or not self._reading
        self._ended = True
        self._reading = False
        self.counters.add("refused", error.code)
        if active is not None and not active.response_complete and (whole or active is not self.cycle):
            active.keep_alive = False  # its answer ends the connection
            self.pipeline.clear()
            return
        if active is not None and not active.response_complete:
            started = active.response_started
            active.disconnected = True
            active.message_event.set()
            if started:
                self.transport.abort()
                return
        self.transport.write(self.refusal(error))
        # A connection closed while bytes are still coming is reset, and the answer is lost on its way: some may linger.
        if self.transport.can_write_eof() and len(self.connections) <= 2 * self.limits.connections_max:
            with suppress(OSError):  # the client is gone already
                self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def leave(self) -> None:
        """Tell whoever still waits here that the server stops. What was asked for goes on; only its answer is lost."""
        active = self._active
        self._ended = True
        if active is not None and not active.response_complete:
            self.pipeline.clear()
            active.disconnected = True
            active.message_event.set()
            if not active.response_started:
                stopping = GateHaltedError("the server is stopping", hint="Ask the same again, later.")
                self.transport.write(self.refusal(stopping))
        self.transport.close()

    # What comes in ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._fresh = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(HttpError(400, "connections are not upgraded here"))
        except httptools.HttpParserError:
            self.refuse(self._fault or HttpError(400, "this is no HTTP/1.1 request"))
        if not self._reading:
            return
        if self._in_head and not self._fresh:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.header_bytes_max:
                self.refuse(self._long_head())
        if self._deadline is None and not self._ended:
            self._deadline = self.loop.call_later(self.limits.read_ms_max / 1000, self._late)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whoever only stopped sending still gets the answers to its whole requests; TLS cannot stop by halves."""
        self._eof = True
        active = self._active
        busy = active is not None and not active.response_complete and not active.disconnected
        return self.scheme == "http" and busy and not self._reading

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.since, self._quiet = next(self.turns), 0
        if self._active is not None:  # a reference to itself: only the garbage collector, which stops all, would end it
            self._active.scope.pop(WHOLE, None)  # type: ignore[misc]
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._eof and self.waiting:
            self.transport.close()

    def _late(self) -> None:
        self._deadline = None
        if self.pipeline and self.flow.read_paused:  # we stopped reading, not they sending
            self._deadline = self.loop.call_later(self.limits.read_ms_max / 1000, self._late)
        elif self._reading:
            hint = "Send the same request again, at once."
            self.refuse(HttpError(408, "the request did not arrive in time", code="request_timeout", hint=hint))

    def _stop(self, error: HttpError) -> None:
        self._fault = error
        raise _Refused

    def _long_head(self) -> HttpError:
        return HttpError(431, "the headers are too many or too long", code="headers_too_large")

    def on_message_begin(self) -> None:
        self._quiet, self.since = 0, next(self.turns)
        self._reading = self._in_head = self._fresh = True
        self._head_bytes = self._header_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.target_bytes_max:
            self._stop(HttpError(414, "the address is too long", code="target_too_long"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # behind a body: whoever looked at the head has not seen it (RFC 9110 section 6.5.1)
            self._stop(HttpError(400, "fields behind the body are not taken"))
        self._header_bytes += len(name) + len(value)
        if len(self.headers) >= self.limits.headers_max or self._header_bytes > self.limits.header_bytes_max:
            self._stop(self._long_head())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        self._in_head = False
        version = self.parser.get_http_version()
        scope, raw, (path, _, query) = self.scope, self.url, self.url.partition(b"?")
        text = path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(text) if "%" in text else text
        scope["raw_path"], scope["query_string"] = path, query
        if b"#" in raw:
            self._stop(HttpError(400, "an address that is sent has no fragment"))
        earlier, cycle = self.cycle, Cycle(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=False, default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(), expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(), on_response=self.on_response_complete,
        )  # fmt: skip
        scope[WHOLE] = cycle.whole  # type: ignore[literal-required]
        self.cycle = cycle
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # sent ahead of the answer to the one before
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _check_head(self) -> None:
        """One host, one length, one meaning: RFC 9112 sections 3.2 and 6.3."""
        hosts, lengths, codings = [], [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
        if not self.url.startswith(b"/"):
            self._stop(HttpError(400, "the address must begin with a slash"))
        if len(hosts) != 1:
            self._stop(HttpError(400, "a request has exactly one Host header"))
        name, _, port = hosts[0].lower().rpartition(b":")
        if not name or not port.isdigit():
            name = hosts[0].lower()
        if name not in self.hosts:
            hint = "Add the name to serve.names in countermark.toml."
            self._stop(HttpError(421, "this server does not answer to that name", code="wrong_host", hint=hint))
        if len(lengths) + len(codings) > 1 or any(coding.lower() != b"chunked" for coding in codings):
            self._stop(HttpError(400, "the length of the body is not clear"))
        if lengths and (not lengths[0].isdigit() or len(lengths[0]) > 18):
            self._stop(HttpError(400, "the length of the body is not clear"))
        most = self._body_bytes_max()
        if lengths and int(lengths[0]) > most:
            self._stop(too_large(most))
        if self.for_people and not any(name == b"authorization" and one.startswith(PASS) for name, one in self.headers):
            self._stop(_no_room())
        if len(self.pipeline) >= PIPELINED_MAX:
            self._stop(HttpError(400, f"more than {PIPELINED_MAX} requests were sent ahead of their answers"))

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        most = self._body_bytes_max()
        if self._body_bytes > most:
            self._stop(too_large(most))
        super().on_body(body)

    def _body_bytes_max(self) -> int:
        """One page takes a file; its body is read only when everything else about the request was judged."""
        return PACK_BYTES_MAX if self.url == PACK_PATH else self.limits.body_bytes_max

    def on_message_complete(self) -> None:
        self._reading = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: it is refused."""


def wire_of(
    settings: ServeSettings, counters: Counters, refusal: Callable[[CountermarkError], bytes] = raw_problem
) -> type[Wire]:
    """The protocol class for a server with these settings; ``refusal`` renders what is refused at once."""
    own = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = frozenset(name.encode("ascii", "replace") for name in (*LOCAL, own.lower(), *settings.names))
    members = {
        "settings": settings, "counters": counters, "hosts": names, "turns": count(), "refusal": staticmethod(refusal)
    }  # fmt: skip
    return type("BoundWire", (Wire,), members)
