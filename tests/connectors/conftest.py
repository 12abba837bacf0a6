"""A raw TCP peer that records every byte it gets, and a simulator for a whole test file."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from countermark.twins import StripeTwin

Script = Callable[[socket.socket], None]


class Peer:
    """Accepts connections one after another; ``answers`` holds, for each request, the bytes to answer with."""

    def __init__(self, answers: list[bytes | Script]) -> None:
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
                self._serve(sock)

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
        self._server.close()
        self._thread.join(20)


@pytest.fixture
def peer_of() -> Iterator[Callable[[list[bytes | Script]], Peer]]:
    made: list[Peer] = []

    def make(answers: list[bytes | Script]) -> Peer:
        made.append(Peer(answers))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeTwin]:
    folder = tmp_path_factory.mktemp("stripe-twin")
    accounts = ["acct_ada", "acct_bob", "ba_house"]
    with StripeTwin.start(folder, seed=11, accounts=accounts, balances={"usd": 10_000_000}) as running:
        yield running
