"""Connections to the gate's socket that send whatever bytes a test likes, and a lane that is kept busy."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig import AGENT

import countermark

LENGTH = struct.Struct(">I")
TRIES_MAX = 4_000


class Raw:
    """A connection that sends whatever bytes a test likes."""

    def __init__(self, root: Path) -> None:
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.end.settimeout(10)
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.end.connect(f"/proc/self/fd/{folder}/gate.sock")
        finally:
            os.close(folder)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()

    def frame(self, value: object) -> None:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.end.sendall(LENGTH.pack(len(raw)) + raw)

    def answer(self) -> Any:
        """The answer, or None when the gate hung up."""
        raw = b""
        while len(raw) < 4 or len(raw) < 4 + LENGTH.unpack(raw[:4])[0]:
            try:
                part = self.end.recv(65_536)
            except ConnectionResetError:
                return None
            if not part:
                return None
            raw += part
        return json.loads(raw[4:])


def request(op: str = "status", body: object = None, number: object = 1) -> dict[str, object]:
    return {"id": number, "op": op, "agent": AGENT, "body": {} if body is None else body}


@contextmanager
def busy_lane(handle: countermark.Deployment) -> Iterator[threading.Event]:
    """The lane's thread is held inside a message until the block ends."""
    inside, go = threading.Event(), threading.Event()

    def wait(writer: object) -> None:
        inside.set()
        assert go.wait(30)

    done = threading.Thread(target=lambda: handle.gate.wait(handle.gate.lane.ask(wait)))
    done.start()
    assert inside.wait(10)
    try:
        yield go
    finally:
        go.set()
        done.join()


def until(holds: Callable[[], object]) -> None:
    """Look again and again, for some seconds at most, until something holds."""
    for _ in range(TRIES_MAX):
        if holds():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came to hold")


class Later:
    """A call on a thread of its own. ``value`` is its answer or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.value: Any = None

        def run() -> None:
            try:
                self.value = call()
            except Exception as error:
                self.value = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def join(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.value
