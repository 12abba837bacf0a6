"""An MCP server as a child process: one JSON message per line, everything bounded, nothing inherited.

The child gets exactly the environment that is given, no open descriptor, and a process group of its own. A server that
floods, stalls or writes anything but messages is stopped: what was asked of it is then lost, never guessed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from countermark.connectors.http_send import LostError, NotSentError
from countermark.connectors.mcp.definition import UpstreamError, read_message
from countermark.model.clock import US, SystemClock

LINE_BYTES_MAX = 1 << 20
UNASKED_MAX = 10_000  # messages in a row that answer nothing
STOP_WAIT_S = 2
REPLY_WAIT_US = US
READ_BYTES = 1 << 16


class Answer(NamedTuple):
    """A server's answer: the message, and its bytes as they came."""

    message: Mapping[str, Any]
    raw: bytes


class _Waiter:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: Answer | None = None


def left_s(end_us: int) -> float:
    """Seconds until ``end_us`` of the clock that never steps; never negative."""
    return max(0, end_us - SystemClock().steady_us()) / US


class StdioWire:
    """One running server. ``changes`` grows whenever it says that its tools changed. Safe to use from many threads."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Raises ``NotSentError`` when the command cannot be started."""
        self.changes = 0
        self.alive = True
        self.volatile = False
        self._waiting: dict[str, _Waiter] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env=dict(environment), cwd="/", close_fds=True, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError):
            raise NotSentError("the MCP server's command cannot be started", "no_connection") from None
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # both were asked for as pipes
            raise NotSentError("the MCP server has no pipes", "no_connection")
        self._in, self._out = stdin, stdout
        os.set_blocking(self._in.fileno(), False)
        self._reader = threading.Thread(target=self._read, name="countermark-mcp", daemon=True)
        self._reader.start()

    def greeted(self, result: Mapping[str, Any]) -> None:
        """The server agreed on a protocol; over a pipe nothing follows from it."""

    def ask(
        self, body: bytes, id_: str, headers: Sequence[tuple[str, str]], end_us: int, still: Callable[[], bool]
    ) -> Answer:
        """Write one request and wait for its answer. ``still`` is asked right before the first byte.

        Raises:
            NotSentError: nothing was written; ``tool_changed`` when ``still`` says no.
            LostError: it may have arrived, and there is no answer to rely on.
        """
        waiter = _Waiter()
        if not self._sending.acquire(timeout=left_s(end_us)):
            raise NotSentError("the MCP server takes no more requests", "no_connection")
        try:
            if not self.alive:
                raise NotSentError("the MCP server ended", "no_connection")
            if not still():
                raise NotSentError("the MCP server's tools are changing", "tool_changed")
            with self._lock:
                if id_ in self._waiting:
                    raise NotSentError("this request is under way already")
                self._waiting[id_] = waiter
            self._write(body + b"\n", end_us)
        finally:
            self._sending.release()
        waiter.done.wait(left_s(end_us))
        with self._lock:
            self._waiting.pop(id_, None)
        if waiter.answer is not None:
            return waiter.answer
        if self.alive:
            raise LostError("no answer in time", code="timeout")
        raise LostError("the MCP server ended, or said what is not MCP")

    def tell(self, body: bytes, end_us: int) -> None:
        """Write a message that has no answer. Raises ``LostError``."""
        with self._sending:
            self._write(body + b"\n", end_us)

    def close(self) -> None:
        """End the process and wait for it."""
        self.alive = False
        with suppress(OSError):
            self._in.close()
        try:
            self._process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._kill()  # what it started may live on in its group
        self._process.wait()
        self._reader.join(STOP_WAIT_S)
        with suppress(OSError):
            self._out.close()

    def _kill(self) -> None:
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _write(self, data: bytes, end_us: int) -> None:
        """All of ``data``, or the server is stopped: half a message would make nonsense of the next one."""
        sent = 0
        try:
            poll = select.poll()
            poll.register(self._in.fileno(), select.POLLOUT)
            while sent < len(data):
                wait_ms = int(left_s(end_us) * 1000)
                if not wait_ms or not poll.poll(wait_ms):
                    raise TimeoutError
                sent += os.write(self._in.fileno(), data[sent:])
        except (OSError, ValueError) as error:
            self._broken()
            if not sent:
                raise NotSentError("the MCP server takes no requests", "no_connection") from None
            raise LostError("the MCP server took half a request", code="timeout" if isinstance(error, TimeoutError)
                            else None) from None  # fmt: skip

    def _read(self) -> None:
        buffer, unasked = b"", 0
        try:
            while chunk := os.read(self._out.fileno(), READ_BYTES):
                *lines, buffer = (buffer + chunk).split(b"\n")
                if len(buffer) > LINE_BYTES_MAX:
                    break
                for line in filter(None, (line.rstrip(b"\r") for line in lines)):
                    unasked = 0 if self._take(line) else unasked + 1
                if unasked > UNASKED_MAX:
                    break
        except (OSError, ValueError, UpstreamError, LostError, NotSentError):
            pass  # whatever it was, the server is of no use any more
        self._broken()

    def _broken(self) -> None:
        """Nothing more can be asked; whoever waits is told."""
        self.alive = False
        self._kill()
        with self._lock:
            waiting = list(self._waiting.values())
        for waiter in waiting:
            waiter.done.set()

    def _take(self, line: bytes) -> bool:
        """Handle one message; whether it answered something. Raises ``UpstreamError``."""
        if len(line) > LINE_BYTES_MAX:
            raise UpstreamError("the MCP server's message is too long")
        message = read_message(line)
        id_, method = message.get("id"), message.get("method")
        if method is None:
            with self._lock:
                waiter = self._waiting.pop(id_, None) if type(id_) is str else None
            if waiter is not None:
                waiter.answer = Answer(message, line)
                waiter.done.set()
            return waiter is not None
        if method == "notifications/tools/list_changed":
            self.changes += 1
        if isinstance(id_, (str, int)):
            self._refuse(id_, method)
        return False

    def _refuse(self, id_: str | int, method: object) -> None:
        """A gate has no model, no user and no files to offer to a server; it only says that it is there."""
        reply = reply_to(id_, method)
        if self._sending.acquire(timeout=REPLY_WAIT_US / US):
            try:
                self._write(orjson.dumps(reply) + b"\n", SystemClock().steady_us() + REPLY_WAIT_US)
            finally:
                self._sending.release()


def reply_to(id_: str | int, method: object) -> dict[str, Any]:
    """The answer to a request of the server's own."""
    if method == "ping":
        return {"jsonrpc": "2.0", "id": id_, "result": {}}
    return {"jsonrpc": "2.0", "id": id_, "error": {"code": -32601, "message": "not offered by this client"}}
