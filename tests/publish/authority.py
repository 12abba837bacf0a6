"""A test authority of time on loopback: RFC 3161 over HTTP, by a function that makes the answer to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from rfc3161_client import _rust
from vectors.stamps import Authority, response

REPLY = "application/timestamp-reply"
Answer = Callable[[bytes], tuple[int, str, bytes]]


def honest(authority: Authority, now: Callable[[], int]) -> Answer:
    """Answers every request by its own clock."""

    def answer(raw: bytes) -> tuple[int, str, bytes]:
        request = _rust.parse_timestamp_request(raw)
        token = authority.over(bytes(request.message_imprint.message), now(), request.nonce)
        return 200, REPLY, response(token)

    return answer


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The URL of an authority that answers so, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, kind, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsa"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
