"""Faults, sudden death and webhooks of the simulator."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from countermark.model.errors import ConfigError, StoreError
from countermark.twins import FAULTS, Books, Faults, StripeTwin
from countermark.twins.stripe.faults import faults_from, faults_from_text

PAY: Any = {"amount": 100, "currency": "usd", "destination": "acct_ada"}
Clients = Callable[..., stripe.StripeClient]


def start(folder: Path, **more: Any) -> StripeTwin:
    return StripeTwin.start(folder, seed=3, accounts=["acct_ada"], balances={"usd": 1_000_000}, **more)


def try_pay(twin: StripeTwin, key: str, timeout_s: float = 10) -> int | type[Exception]:
    """POST one transfer without an SDK: the status, or the kind of failure."""
    connection = http.client.HTTPConnection(urlsplit(twin.url).netloc, timeout=timeout_s)
    body = "amount=100&currency=usd&destination=acct_ada"
    try:
        connection.request(
            "POST", "/v1/transfers", body, {"Authorization": f"Bearer {twin.key}", "Idempotency-Key": key}
        )
        return connection.getresponse().status
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return type(error)
    finally:
        connection.close()


def test_the_schedule_is_a_function_of_the_seed() -> None:
    """The same seed draws the same faults, another seed draws others, and the rates hold roughly."""
    rates = {name: 100_000 for name in FAULTS if name != "ok"}
    drawn = [Faults(5, rates).at("transfers.create", n) for n in range(1_000)]
    assert drawn == [Faults(5, rates).at("transfers.create", n) for n in range(1_000)]
    assert drawn != [Faults(6, rates).at("transfers.create", n) for n in range(1_000)]
    assert set(drawn) == set(FAULTS)
    assert 60 < drawn.count("reset_after") < 140


def test_a_schedule_is_read_from_text() -> None:
    """A list of chances and JSON give the same schedule; a misspelt fault or an impossible rate is refused."""
    assert faults_from_text("slow=5,http_429=7", 2) == Faults(2, {"slow": 5, "http_429": 7})
    assert faults_from_text('{"rates": {"slow": 5}}', 2) == Faults(2, {"slow": 5})
    for bad in ("slwo=5", "slow=x", "slow=1000001", '{"rats": {}}', "{"):
        with pytest.raises(ConfigError):
            faults_from_text(bad, 0)
    schedule = Faults(4, {"slow": 1}, {"*": ["ok"]}, ordinals={"x": 3})
    assert faults_from(schedule.document()) == schedule


@pytest.mark.parametrize(
    ("fault", "seen", "effects"),
    [
        ("reset_before", ConnectionResetError, 0),
        ("reset_after", ConnectionResetError, 1),
        ("timeout_after_commit", TimeoutError, 1),
        ("http_500_before", 500, 0),
        ("http_500_after", 500, 1),
        ("http_409", 409, 0),
        ("http_429", 429, 0),
        ("ok", 200, 1),
    ],
)
def test_each_fault_does_what_it_says(twin: StripeTwin, fault: str, seen: Any, effects: int) -> None:
    """What the client sees and what the books say, for every fault."""
    twin.faults({"script": {"transfers.create": [fault]}})
    assert try_pay(twin, f"fault-{fault}", 1.0) == seen
    assert sum(move.idempotency_key == f"fault-{fault}" for move in twin.books().movements()) == effects
    assert twin.counters()[f"fault:{fault}"] >= 1


def test_an_unknown_fault_is_refused(twin: StripeTwin) -> None:
    """The control refuses a schedule that names no fault there is, and the clock never goes back."""
    with pytest.raises(StoreError, match="unknown fault"):
        twin.faults({"script": {"*": ["explode"]}})
    with pytest.raises(StoreError, match="only goes forward"):
        twin.advance(-1)


def test_books_survive_a_kill_after_the_commit(tmp_path: Path, client_of: Clients) -> None:
    """Killed while a committed request waits for its answer: after a restart the key replays that very transfer."""
    with start(tmp_path, faults={"script": {"transfers.create": ["timeout_after_commit"]}}) as twin:
        assert try_pay(twin, "k", 1.0) is TimeoutError
        twin.kill()
    (move,) = Books(tmp_path).movements()
    with StripeTwin.start(tmp_path) as twin:
        assert client_of(twin).v1.transfers.create(PAY, {"idempotency_key": "k"}).id == move.id
        assert twin.books().movements() == [move]
        assert twin.books().check() == []


def test_books_survive_a_kill_in_mid_request(tmp_path: Path, client_of: Clients) -> None:
    """Killed while a request is held before its effect: nothing is in the books, and the key works afterwards."""
    with start(tmp_path, faults={"script": {"transfers.create": ["slow"]}}) as twin, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(try_pay, twin, "k")
        twin.wait_held()
        twin.kill()
        assert answer.result(20) in (ConnectionResetError, http.client.RemoteDisconnected)
    assert Books(tmp_path).movements() == []
    with StripeTwin.start(tmp_path) as twin:
        client_of(twin).v1.transfers.create(PAY, {"idempotency_key": "k"})
        assert len(twin.books().movements()) == 1


def test_books_survive_a_kill_under_load(tmp_path: Path) -> None:
    """Killed among many requests: whatever was answered 200 is in the books once, and the ledger adds up."""
    with start(tmp_path) as twin, ThreadPoolExecutor(4) as pool:
        tries = {f"k{n}": pool.submit(try_pay, twin, f"k{n}") for n in range(60)}
        tries["k20"].result(20)
        twin.kill()
        answered = {key for key, answer in tries.items() if answer.result(20) == 200}
    made = [move.idempotency_key for move in Books(tmp_path).movements()]
    assert len(made) == len(set(made))
    assert answered <= set(made)
    assert "k20" in answered
    assert Books(tmp_path).check() == []


def test_clock_seed_and_schedule_go_on_after_a_restart(tmp_path: Path) -> None:
    """A restart continues the clock, the key and the rest of the fault script."""
    with start(tmp_path, faults={"script": {"transfers.create": ["ok", "http_429", "http_409"]}}) as twin:
        key, now = twin.key, twin.advance(500)
        assert [try_pay(twin, "a"), try_pay(twin, "b")] == [200, 429]
    with StripeTwin.start(tmp_path, seed=99) as twin:
        assert (twin.key, twin.control("clock")["now"]) == (key, now)
        assert [try_pay(twin, "c"), try_pay(twin, "d")] == [409, 200]


def test_the_simulator_runs_in_its_own_session(twin: StripeTwin) -> None:
    """A signal to our process group does not reach it."""
    assert os.getsid(twin.pid) != os.getsid(0)
    assert os.getpgid(twin.pid) != os.getpgid(0)


def test_a_running_clock_runs(tmp_path: Path) -> None:
    """With ``running`` the simulator's clock is the machine's plus what it was advanced by."""
    with start(tmp_path, running=True) as twin:
        now = twin.control("clock")["now"]
        assert now > 1_790_000_000
        assert twin.advance(1_000) >= now + 1_000


def test_no_books_is_an_error(tmp_path: Path) -> None:
    """Reading books where there are none raises, and creates nothing."""
    with pytest.raises(StoreError):
        Books(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Receiver:
    """A loopback webhook endpoint that keeps what it gets."""

    def __init__(self) -> None:
        got = self.got = []  # type: list[tuple[str, bytes]]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((self.headers["Stripe-Signature"], body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_webhooks_are_signed_and_may_come_twice_and_out_of_order(tmp_path: Path) -> None:
    """stripe-python verifies every delivery; with faults, deliveries are doubled and reordered, yet none is lost."""
    receiver = Receiver()
    try:
        with start(tmp_path) as twin:
            chances = {"duplicated": 400_000, "reordered": 400_000, "late": 300_000}
            twin.control("webhook", {"url": receiver.url, "secret": "whsec_test", "faults": chances})
            assert [try_pay(twin, f"k{n}") for n in range(12)] == [200] * 12
            assert twin.control("deliver")["events"] == 12
            now = twin.control("clock")["now"]
            assert twin.control("deliver") == {"events": 0, "statuses": []}
    finally:
        receiver.close()
    ids = []
    for header, body in receiver.got:
        stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_test")
        assert header.startswith(f"t={now},")
        ids.append(json.loads(body)["data"]["object"]["id"])
    made = [move.id for move in Books(tmp_path).movements()]
    assert set(ids) == set(made)
    assert len(ids) > len(made)
    assert list(dict.fromkeys(ids)) != made
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(receiver.got[0][1].decode() + " ", receiver.got[0][0], "whsec_test")


def test_webhooks_go_only_to_loopback(twin: StripeTwin) -> None:
    """Another address is refused; a receiver that is not there is told with status 0."""
    for url in ("http://10.0.0.1:80/", "https://127.0.0.1:1/", "http://127.0.0.1/"):
        with pytest.raises(StoreError, match="pushes only to"):
            twin.control("webhook", {"url": url, "secret": "s"})
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    twin.control("webhook", {"url": f"http://127.0.0.1:{port}/", "secret": "s"})
    assert set(twin.control("deliver")["statuses"]) <= {0}
