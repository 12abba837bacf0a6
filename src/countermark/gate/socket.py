"""The gate's Unix socket: length-prefixed JSON frames, one request or a batch of them per frame.

Whoever may open the socket file (mode 0600) speaks for any agent of the deployment: the operating system's user is
the boundary here. Frames: 4 bytes big-endian length, then JSON ``{"id","op","agent","body"}`` or a list of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from countermark.gate.prepare import Caller
from countermark.model.errors import ConfigError, CountermarkError, EncodingError

if TYPE_CHECKING:
    from countermark.gate.gate import Gate

FRAME_BYTES_MAX = 1 << 20
FRAME_REQUESTS_MAX = 256
CONNECTIONS_MAX = 256
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


class SocketServer:
    """Serves a gate on ``DEPLOYMENT/gate.sock``."""

    def __init__(self, gate: Gate, path: Path) -> None:
        self._gate = gate
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

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
        """Stop accepting; let open connections finish their frame; remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, EncodingError) as error:
            log.debug("connection ended: %s", type(error).__name__)
        except asyncio.CancelledError:  # the server stops; asyncio's streams would report a cancelled task as a fault
            log.debug("connection ended by the server")
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if length > FRAME_BYTES_MAX:
                raise EncodingError("a frame is too long")
            frame = await reader.readexactly(length)
            try:
                value = orjson.loads(frame)
            except ValueError:
                raise EncodingError("a frame is not JSON") from None
            requests = value if isinstance(value, list) else [value]
            if len(requests) > FRAME_REQUESTS_MAX:
                raise EncodingError("a frame holds too many requests")
            replies = await asyncio.gather(*(self._one(request) for request in requests))
            raw = orjson.dumps(replies if isinstance(value, list) else replies[0])
            writer.write(LENGTH.pack(len(raw)) + raw)
            await writer.drain()

    async def _one(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("body"), dict):
            return {"id": None, "error": error_document(ConfigError("not a request"))}
        caller = Caller(str(request.get("agent", ""))[:64], "embedded")
        try:
            value = await self._gate.call(str(request.get("op")), request["body"], caller)
            return {"id": request.get("id"), "ok": value}
        except CountermarkError as error:
            return {"id": request.get("id"), "error": error_document(error)}
