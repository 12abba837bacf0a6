"""One witness over HTTP: what its answers mean, and that nothing it says is taken on trust."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from publish_support import MemoryLog, key

from countermark.log import Cosignature, Cosigner
from countermark.model.errors import ConfigError
from countermark.publish import WitnessClient, WitnessError
from countermark.publish.exchange import text_of

LOG = MemoryLog(20)
ASKED = LOG.submission(10)
MINE, OTHER = Cosigner("w", key(5)), Cosigner("w", key(6))
TEXT = text_of(ASKED.note)


class Peer(HTTPServer):
    """Answers every request with ``answer``: status, media type, body."""

    answer = (200, "text/plain", b"")
    seen: tuple[str, bytes] = ("", b"")


class Handler(BaseHTTPRequestHandler):
    server: Peer

    def do_POST(self) -> None:
        self.server.seen = (self.path, self.rfile.read(int(self.headers["content-length"])))
        status, media, body = self.server.answer
        self.send_response(status)
        for name, value in (("content-type", media), ("content-length", str(len(body))), ("location", "/elsewhere")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    server = Peer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(peer: Peer) -> Iterator[WitnessClient]:
    made = WitnessClient("bank/w", MINE.key, f"http://127.0.0.1:{peer.server_port}/prefix/")
    yield made
    made.close()


def test_a_cosignature_is_taken_from_among_other_lines(peer: Peer, client: WitnessClient) -> None:
    """The request is what the specification says; lines of other keys in the answer are ignored."""
    peer.answer = (200, "text/plain", OTHER.cosign(TEXT, 7) + MINE.cosign(TEXT, 8))
    found = client.add(ASKED)
    assert isinstance(found, Cosignature)
    assert (found.key, found.at_s) == (MINE.key, 8)
    assert peer.seen == ("/prefix/add-checkpoint", ASKED.render())


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        ((200, "text/plain", b""), "witness_bad_answer", False),
        ((200, "text/plain", b"ok\n"), "witness_bad_answer", False),
        ((200, "text/plain", OTHER.cosign(TEXT, 8)), "witness_bad_answer", False),
        ((200, "text/plain", MINE.cosign(TEXT, 0)), "witness_bad_answer", False),
        ((200, "text/plain", MINE.cosign(text_of(LOG.head(19).note), 8)), "witness_bad_answer", False),
        ((200, "text/plain", MINE.cosign(TEXT, 8) * 2), "witness_bad_answer", False),
        ((200, "text/plain", b"x" * 2_000_000), "witness_unreachable", True),
        ((409, "text/x.tlog.size", b"ten\n"), "witness_bad_answer", False),
        ((409, "text/x.tlog.size", b"010\n"), "witness_bad_answer", False),
        ((409, "text/x.tlog.size", b"10\n"), "witness_other_log", False),
        ((409, "text/plain", b"9\n"), "witness_other_log", False),
        ((422, "text/plain", b""), "witness_other_log", False),
        ((403, "text/plain", b""), "witness_refused", False),
        ((404, "text/plain", b""), "witness_refused", False),
        ((302, "text/plain", b""), "witness_refused", False),
        ((503, "text/plain", b""), "witness_refused", True),
    ],
)
def test_whatever_else_is_answered_has_its_code(
    peer: Peer, client: WitnessClient, answer: tuple[int, str, bytes], code: str, retryable: bool
) -> None:
    """Nothing but a verified line of the witness's own key, over this head and with a time, is a cosignature."""
    peer.answer = answer
    with pytest.raises(WitnessError) as refused:
        client.add(ASKED)
    assert (refused.value.code, refused.value.retryable) == (code, retryable)


def test_another_size_is_told_to_the_caller(peer: Peer, client: WitnessClient) -> None:
    """A conflict that names a size is no error yet: whoever has the log can prove from there."""
    peer.answer = (409, "text/x.tlog.size; charset=utf-8", b"12345678901\n")
    assert client.add(ASKED) == 12_345_678_901


def test_a_witness_that_is_not_there_is_unreachable() -> None:
    """Nobody listens: an error that says to ask again."""
    with pytest.raises(WitnessError) as refused:
        WitnessClient("w", MINE.key, "http://127.0.0.1:1").add(ASKED)
    assert (refused.value.code, refused.value.retryable) == ("witness_unreachable", True)


@pytest.mark.parametrize("url", ["", "w.example", "http://w.example", "ftp://w.example", "https://w.example/a?b",
                                 "https://user@w.example", "https://w.example/a b", "https://"])  # fmt: skip
def test_where_a_witness_is_asked_is_checked_beforehand(url: str) -> None:
    """Only https, or plain http to this machine; no query, no user, no spaces."""
    with pytest.raises(ConfigError):
        WitnessClient("w", MINE.key, url)
