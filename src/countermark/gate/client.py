"""The other end of the gate's socket: a small pool of connections, one request per frame."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from countermark.gate.socket import FRAME_BYTES_MAX, LENGTH, address_of
from countermark.model.errors import CountermarkError, EncodingError, GateHaltedError

POOL_MAX = 64
TIMEOUT_S = 120.0


class SocketClient:
    """Speaks to the process that owns the deployment. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool: deque[socket.socket] = deque()
        self._lock = threading.Lock()

    def call(self, op: str, body: Mapping[str, Any], agent: str) -> Any:
        """One operation. Raises the gate's error, or ``ConnectionError`` when the owner is gone."""
        try:
            raw = orjson.dumps({"id": 0, "op": op, "agent": agent, "body": body})
        except orjson.JSONEncodeError as wrong:
            raise EncodingError(f"the request cannot be written as JSON: {wrong}") from None
        if len(raw) > FRAME_BYTES_MAX:
            raise EncodingError(f"a request is longer than {FRAME_BYTES_MAX} bytes")
        connection = self._take()
        try:
            connection.sendall(LENGTH.pack(len(raw)) + raw)
            reply = orjson.loads(_frame(connection))
        except TimeoutError:
            connection.close()
            hint = "Ask again with the same run and call_id."
            raise GateHaltedError("the gate did not answer in time", hint=hint) from None
        except OSError:
            connection.close()
            raise
        self._give(connection)
        if "error" in reply:
            error = reply["error"]
            raise CountermarkError(
                error["message"], code=error["code"], hint=error["hint"], retryable=error["retryable"]
            )
        return reply["ok"]

    def close(self) -> None:
        """Close the pool."""
        with self._lock:
            while self._pool:
                self._pool.pop().close()

    def _take(self) -> socket.socket:
        with self._lock:
            if self._pool:
                return self._pool.pop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_S)
        address, folder = address_of(self._path)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            raise ConnectionError(f"the gate's socket does not answer: {error.strerror}") from None
        finally:
            os.close(folder)
        return connection

    def _give(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._pool) < POOL_MAX:
                self._pool.append(connection)
                return
        connection.close()


def _frame(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise ConnectionError("the gate closed the connection")
        parts += part
    return bytes(parts)
