"""A raw TCP peer that records every byte it gets and answers what it was told to."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

Script = Callable[[socket.socket], None]


class Peer:
    """Accepts connections one after another; ``answers`` holds, for each request, the bytes to answer with."""

    def __init__(self, answers: list[bytes | Script], tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(20)
        self.origin = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while self._answers:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with sock:
                sock.settimeout(20)
                if self._tls is None:
                    self._serve(sock)
                    continue
                with suppress(OSError), self._tls.wrap_socket(sock, server_side=True) as secured:
                    self._serve(secured)

    def _serve(self, sock: socket.socket) -> None:
        while self._answers:
            try:
                request = self._read(sock)
            except OSError:
                return
            if not request:
                return
            self.received.append(request)
            answer = self._answers.pop(0)
            try:
                if callable(answer):
                    answer(sock)
                    return
                sock.sendall(answer)
            except OSError:
                return
            if b"Connection: close" in answer:
                return

    @staticmethod
    def _read(sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65_536)
            if not part:
                return data
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += sock.recv(65_536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._answers = []
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._server.close()
        self._thread.join(20)
