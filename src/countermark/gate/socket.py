"""The gate's Unix socket: length-prefixed JSON frames, one request or a batch of them per frame.

Whoever may open the socket file (mode 0600) speaks for any agent of the deployment: the operating system's user is
the boundary here. Frames: 4 bytes big-endian length, then JSON ``{"id","op","agent","body"}`` or a list of them.

A hijacked agent must not keep people from stopping it. So a connection that only waits gives way to a new one, a frame
must arrive whole in a few seconds, large frames are decoded on another thread, what agents ask for begins a few at a
time, and orders of people pass all of that by.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from countermark.gate.bodies import rank_of
from countermark.gate.lane import Rank
from countermark.gate.prepare import Caller
from countermark.model.canon import read_json
from countermark.model.errors import ArgumentError, ConfigError, CountermarkError, EncodingError, GateBusyError

if TYPE_CHECKING:
    from countermark.gate.gate import Gate

FRAME_BYTES_MAX = 1 << 20
FRAME_REQUESTS_MAX = 256
FRAME_WAIT_S = 5  # from a frame's first byte to its last, and for an answer to be taken
INLINE_BYTES_MAX = 1 << 14  # a longer frame is decoded beside the loop
ANSWER_BYTES_MAX = 4 << 20
CONNECTIONS_MAX = 256
CONNECTION_REQUESTS_MAX = 64  # under way at once for one connection
REQUESTS_MAX = 4_096  # of agents, under way at once for all connections
STARTS_MAX = 32  # requests of agents that begin in one turn of the loop
STOP_WAIT_S = 10
ID_CHARS_MAX = 64
BACKLOG = 128
LENGTH = struct.Struct(">I")

log = logging.getLogger("countermark.socket")


def error_document(error: CountermarkError) -> dict[str, Any]:
    """The one error shape."""
    return {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}


def address_of(path: Path) -> tuple[str, int]:
    """An address short enough for a Unix socket, and the directory descriptor that keeps it valid."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}", folder


@dataclass(slots=True)
class Peer:
    """One connection. ``busy`` while its requests are worked on: all other time it only waits."""

    task: asyncio.Task[Any]
    writer: asyncio.StreamWriter
    busy: bool = False


class SocketServer:
    """Serves a gate on ``DEPLOYMENT/gate.sock``."""

    def __init__(self, gate: Gate, path: Path) -> None:
        self._gate = gate
        self._path = path
        self._server: asyncio.Server | None = None
        self._peers: dict[asyncio.Task[Any], Peer] = {}  # whoever was answered last stands last
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starts = asyncio.Semaphore(STARTS_MAX)
        self._requests = 0
        self._stopping = False

    async def start(self) -> None:
        """Bind, with mode 0600 from the first moment. The owner's lock makes replacing a left-over socket safe."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address, folder = address_of(self._path)
        mask = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(address)
        except OSError as error:
            listener.close()
            raise ConfigError(f"the socket {self._path.name} cannot be opened: {error.strerror}") from None
        finally:
            os.umask(mask)
            os.close(folder)
        listener.listen(BACKLOG)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)

    async def stop(self) -> None:
        """Stop accepting; let requests under way be answered; remove the socket."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        for task in self._tasks - {peer.task for peer in self._peers.values() if peer.busy}:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_WAIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._stopping:
            writer.transport.abort()
            return
        if len(self._peers) >= CONNECTIONS_MAX:
            self._make_room()
        self._tasks.add(task)
        peer = self._peers[task] = Peer(task, writer)
        try:
            await self._serve(reader, peer)
            writer.close()
            async with asyncio.timeout(FRAME_WAIT_S):
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, EncodingError) as error:
            log.debug("connection ended: %s", type(error).__name__)
        except asyncio.CancelledError:  # the server stops; asyncio's streams would report a cancelled task as a fault
            log.debug("connection ended by the server")
        finally:
            self._peers.pop(task, None)
            writer.transport.abort()  # a peer that takes no answers must not hold what is left of them
            with suppress(OSError):
                await writer.wait_closed()
            self._tasks.discard(task)

    def _make_room(self) -> None:
        """End the connection that has only waited for longest; when all are busy, the one that has been so longest.

        What a busy one asked for goes on; nobody hears the answer, and asking again tells it.
        """
        peer = next((peer for peer in self._peers.values() if not peer.busy), next(iter(self._peers.values())))
        del self._peers[peer.task]
        peer.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, peer: Peer) -> None:
        while not self._stopping:
            try:
                frame = await _frame(reader)
            except asyncio.IncompleteReadError as end:
                if not end.partial:
                    return
                raise
            peer.busy = True
            raw = await self._answered(frame, peer)
            peer.busy = False
            if self._peers.pop(peer.task, None) is None:
                return
            self._peers[peer.task] = peer
            peer.writer.write(LENGTH.pack(len(raw)) + raw)
            async with asyncio.timeout(FRAME_WAIT_S):
                await peer.writer.drain()

    async def _answered(self, frame: bytes, peer: Peer) -> bytes:
        """The bytes that answer a frame; of a batch, only so many requests are under way at once."""
        read = partial(read_json, frame, bytes_max=FRAME_BYTES_MAX)
        try:
            value = read() if len(frame) <= INLINE_BYTES_MAX else await self._gate.aside(read)
            requests = value if type(value) is list else [value]
            if len(requests) > FRAME_REQUESTS_MAX:
                raise EncodingError(f"a frame holds more than {FRAME_REQUESTS_MAX} requests")
        except CountermarkError as error:
            return orjson.dumps({"id": None, "error": error_document(error)})
        answers: list[bytes] = []
        for first in range(0, len(requests), CONNECTION_REQUESTS_MAX):
            if peer.task not in self._peers:
                break  # nobody hears the answers any more, so nothing more is begun
            some = requests[first : first + CONNECTION_REQUESTS_MAX]
            room = ANSWER_BYTES_MAX - sum(map(len, answers))
            for request, answer in zip(
                some, await asyncio.gather(*map(self._one, some), return_exceptions=True), strict=True
            ):
                answers.append(_written(request, answer, room))
                room -= len(answers[-1])
        return b"[" + b",".join(answers) + b"]" if type(value) is list else b"".join(answers)

    async def _one(self, request: Any) -> Any:
        op, body, caller = _read(request)
        if rank_of(op) is not Rank.REST:
            return await self._gate.call(op, body, caller)
        if self._requests >= REQUESTS_MAX:
            raise GateBusyError("the gate is busy; nothing was recorded", hint="Ask the same again, later.")
        self._requests += 1
        try:
            async with self._starts:
                await asyncio.sleep(0)  # those that begin are spread over turns: a stop is read between two of them
            return await self._gate.call(op, body, caller)
        finally:
            self._requests -= 1


async def _frame(reader: asyncio.StreamReader) -> bytes:
    first = await reader.readexactly(1)
    async with asyncio.timeout(FRAME_WAIT_S):
        (length,) = LENGTH.unpack(first + await reader.readexactly(LENGTH.size - 1))
        if length > FRAME_BYTES_MAX:
            raise EncodingError("a frame is too long")
        return await reader.readexactly(length)


def _id(request: Any) -> Any:
    number = request.get("id") if type(request) is dict else None
    return number if type(number) is int or (type(number) is str and len(number) <= ID_CHARS_MAX) else None


def _read(request: Any) -> tuple[str, dict[str, Any], Caller]:
    """Operation, body and caller of a request, by type. Raises ``ConfigError`` or ``ArgumentError``."""
    if type(request) is not dict or type(request.get("body")) is not dict or type(request.get("op")) is not str:
        raise ConfigError("not a request")
    agent = request.get("agent", "")
    if type(agent) is not str:
        raise ArgumentError("agent must be a string", field="agent")
    return request["op"], request["body"], Caller(agent, "embedded")


def _written(request: Any, answer: Any, room: int) -> bytes:
    """One answer as JSON: the value, or the error in its one shape. ``room``: the bytes it may take."""
    if not isinstance(answer, BaseException):
        raw = orjson.dumps({"id": _id(request), "ok": answer})
        if len(raw) <= room:
            return raw
        answer = GateBusyError("the answers to this frame are too long", hint="Ask again, for less at once.")
    elif not isinstance(answer, CountermarkError):
        log.error("a request failed: %s", type(answer).__name__, exc_info=answer)
        answer = CountermarkError("the gate could not handle this", code="internal_error")
    return orjson.dumps({"id": _id(request), "error": error_document(answer)})
