"""How the server listens, stops and tells about itself: loopback or TLS, drained, bounded, in numbers without names."""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "client"))

from click.testing import CliRunner
from face import TOKEN, Answer, Face, OneToken, is_problem
from far_gate import certificate
from rig import AGENT, Provider, bodies, make, unsound

import countermark
from countermark.cli import main
from countermark.model.errors import ConfigError, GateHaltedError
from countermark.server import Listener
from countermark.wiring import ServeLimits, ServeSettings

WAIT_S = 20
LABEL = r"[a-z]+=\"[A-Za-z0-9_./+{}:-]*\""
LINE = re.compile(rf"countermark_[a-z_]+(\{{{LABEL}(,{LABEL})*\}})? [0-9]+")


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[countermark.Deployment]:
    provider = Provider()
    make(tmp_path / "d", provider)
    with countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": provider}) as opened:
        yield opened


# --- where it listens ---


def test_it_listens_on_loopback_unless_told_otherwise(handle: countermark.Deployment) -> None:
    """The default address is this machine's own; another one in clear is refused before anything is bound."""
    assert handle.config.serve.host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "10.0.0.5", "gate.example"):
        with pytest.raises(ConfigError) as caught:
            Listener(handle, OneToken(), ServeSettings(host=host, port=0))
        assert caught.value.code == "needs_tls", host


def test_the_command_refuses_to_serve_others_in_clear(tmp_path: Path) -> None:
    """``--host`` is held against the same rule."""
    make(tmp_path / "d", Provider())
    said = CliRunner().invoke(main, ["-C", str(tmp_path / "d"), "serve", "--host", "0.0.0.0", "--port", "0"])
    assert said.exit_code == 1
    assert "needs_tls" in said.output


def test_tls_comes_from_files(handle: countermark.Deployment, tmp_path: Path) -> None:
    """A client that trusts the certificate is answered; one that speaks in clear, or trusts another, is not."""
    pem = certificate(tmp_path, "localhost")
    with Listener(handle, OneToken(), ServeSettings(port=0, tls_cert=pem, tls_key=pem)) as listener:
        assert listener.url.startswith("https://127.0.0.1:")
        address = ("127.0.0.1", int(listener.url.rpartition(":")[2]))
        with countermark.Client(f"https://localhost:{address[1]}", TOKEN, ca_file=pem) as client:
            assert client.start_run().startswith("run_")
        ours = ssl.create_default_context(cafile=str(pem))
        with ours.wrap_socket(socket.create_connection(address, WAIT_S), server_hostname="localhost") as tls:
            assert (tls.version() or "") >= "TLSv1.2"
        with socket.create_connection(address, WAIT_S) as raw, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
        with socket.create_connection(address, WAIT_S) as raw:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not raw.recv(1_024).startswith(b"HTTP/1.1 200")


def test_clients_that_begin_no_handshake_are_bounded(handle: countermark.Deployment, tmp_path: Path) -> None:
    """Of those that connect and say nothing no more are kept than may be connected, the newest; others are answered."""
    pem = certificate(tmp_path, "localhost")
    settings = ServeSettings(port=0, tls_cert=pem, tls_key=pem, limits=replace(ServeLimits(), connections_max=4))
    with Listener(handle, OneToken(), settings) as listener:
        address = ("127.0.0.1", int(listener.url.rpartition(":")[2]))
        silent = [socket.create_connection(address, WAIT_S) for _ in range(12)]
        for one in silent[:8]:
            assert one.recv(1) == b""
        with countermark.Client(f"https://localhost:{address[1]}", TOKEN, ca_file=pem) as client:
            assert client.start_run().startswith("run_")
        assert select.select(silent[-3:], [], [], 0)[0] == []
        for one in silent:
            one.close()


def test_tls_files_that_cannot_be_right_are_refused(handle: countermark.Deployment, tmp_path: Path) -> None:
    """One without the other, a key that others can read, files that are none: nothing is served."""
    pem, other, junk = certificate(tmp_path, "localhost"), certificate(tmp_path, "other"), tmp_path / "junk.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    fine = ServeSettings(port=0, tls_cert=pem, tls_key=pem)
    for wrong in (replace(fine, tls_key=None), replace(fine, tls_cert=None)):
        with pytest.raises(ConfigError, match="both"):
            Listener(handle, OneToken(), wrong)
    for wrong in (replace(fine, tls_cert=junk), replace(fine, tls_cert=tmp_path / "no"), replace(fine, tls_key=other)):
        with pytest.raises(ConfigError):
            Listener(handle, OneToken(), wrong).start()
    pem.chmod(0o640)
    with pytest.raises(ConfigError, match="others"):
        Listener(handle, OneToken(), fine).start()


# --- how it stops ---


def paying(face: Face, number: int) -> tuple[threading.Thread, list[Answer]]:
    """A payment that is under way at the provider."""
    heard: list[Answer] = []
    thread = threading.Thread(target=lambda: heard.append(face.pay(number)))
    thread.start()
    assert isinstance(face.provider, Provider)
    assert face.provider.held.acquire(timeout=WAIT_S)
    return thread, heard


def test_told_to_stop_it_answers_what_is_under_way_and_takes_nothing_new(tmp_path: Path) -> None:
    """The payment's own answer comes before the end; nobody else gets in meanwhile."""
    provider = Provider(["hold"])
    with Face(tmp_path / "d", provider) as face:
        waiting = face.connect()  # a connection that only waits is closed at once, which shows that it is stopping
        thread, heard = paying(face, 1)
        face.listener.ask_to_stop()
        assert waiting.recv(1) == b""
        waiting.close()
        with pytest.raises(ConnectionError):
            face.connect()
        assert heard == []
        provider.go.set()
        face.listener.wait()
        thread.join()
        assert [answer.status for answer in heard] == [200]
        assert heard[0].headers["connection"] == "close"


@pytest.mark.parametrize("twice", [False, True])
def test_nobody_holds_the_stop_up_and_no_record_is_lost(tmp_path: Path, twice: bool) -> None:
    """After ``drain_ms_max`` whoever still waits hears 503; told twice, nobody is waited for; the effect is settled."""
    provider = Provider(["hold"])
    with Face(tmp_path / "d", provider, {"drain_ms_max": 1_000 if not twice else 600_000}) as face:
        thread, heard = paying(face, 1)
        face.listener.ask_to_stop()
        if twice:
            face.listener.ask_to_stop()
        face.listener.wait()
        provider.go.set()
        thread.join()
        assert is_problem(heard[0]) or heard[0].status == 200
        assert twice or (heard[0].status, heard[0].code) == (503, "gate_halted")
    assert len(provider.effects) == 1
    assert [body["outcome"] for body in bodies(tmp_path / "d", "action.settled")] == ["confirmed"]
    assert unsound(tmp_path / "d") == []


# --- what a client may cost ---


def test_an_answer_that_nobody_takes_is_cut(tmp_path: Path) -> None:
    """Whoever asks and asks and reads nothing loses the connection after ``answer_ms_max``."""
    with Face(tmp_path / "d", limits={"answer_ms_max": 200}) as face:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(WAIT_S)
        connection.connect(face.address)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        watch = select.poll()
        watch.register(connection, select.POLLERR | select.POLLHUP)
        try:
            for _ in range(10_000):
                connection.sendall(ask)
                if watch.poll(0):
                    break
        except (ConnectionError, TimeoutError):
            pass
        assert watch.poll(WAIT_S * 1_000)
        connection.close()
        assert face.ask("GET", "/healthz").status == 200


# --- what it tells ---


def test_ready_means_that_the_lane_answers_and_every_condition_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the reason while the lane is halted or a further condition fails; the metrics say the same."""
    with Face(tmp_path / "d") as face:
        assert face.ask("GET", "/healthz").json == {"ready": True, "reasons": {}, "trigger_faults": 0}
        conditions: Any = face.listener.surroundings.checks
        conditions["witness"] = lambda: "too old"
        late = face.ask("GET", "/healthz")
        assert (late.status, late.json) == (
            503,
            {"ready": False, "reasons": {"witness": "too old"}, "trigger_faults": 0},
        )
        conditions["witness"] = lambda: ""

        async def halted(*_: object, **__: object) -> None:
            raise GateHaltedError("the lane is halted")

        monkeypatch.setattr(face.handle.gate.lane, "ask", halted)
        late = face.ask("GET", "/healthz")
        assert (late.status, late.json["reasons"]) == (503, {"lane": "gate_halted"})
        assert b"\ncountermark_ready 0\n" in face.ask("GET", "/metrics").body
        refused = face.ask("POST", "/v1/runs", {})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert is_problem(refused)
        monkeypatch.undo()
        assert face.ask("GET", "/healthz").status == 200
        assert b"\ncountermark_ready 1\n" in face.ask("GET", "/metrics").body


def test_the_metrics_are_numbers_without_names(tmp_path: Path) -> None:
    """Prometheus' text format, counts that are right, and nothing that somebody asked for."""
    with Face(tmp_path / "d") as face:
        face.pay("canary-1")
        face.pay("canary-1")
        face.pay("canary-2", args={"amount": 1})
        face.ask("POST", "/v1/actions", {}, token="cmk_canary")
        face.ask("GET", "/canary")
        text = face.ask("GET", "/metrics").body.decode()
    values = {}
    for line in text.splitlines():
        if not line.startswith(("# HELP countermark_", "# TYPE countermark_")):
            assert LINE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            values[name] = int(value)
    assert values['countermark_actions_total{status="confirmed",disposition="allow"}'] == 2  # asked twice, paid once
    assert values['countermark_requests_total{route="/v1/actions",status="200"}'] == 2
    assert values['countermark_requests_total{route="/v1/actions",status="400"}'] == 1
    assert values['countermark_requests_total{route="other",status="404"}'] == 1
    assert values['countermark_unauthenticated_total{code="not_authenticated"}'] == 1
    assert values["countermark_action_ms_count"] == values['countermark_action_ms_bucket{le="+Inf"}'] == 2
    assert values["countermark_log_records"] > 5
    assert values["countermark_requests_in_flight"] == 1
    assert "canary" not in text
    assert AGENT not in text


# --- what a start tells ---


def test_a_start_without_a_secret_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Which connector and which reference, in the log; /healthz names the connector while nothing stands behind it."""
    secret = tmp_path / "d" / "keys" / "stripe.key"
    make(tmp_path / "d", Provider())
    toml = tmp_path / "d" / "countermark.toml"
    toml.write_text(toml.read_text().replace("env:STRIPE_API_KEY", "file:keys/stripe.key"))
    with (
        countermark.open(tmp_path / "d", agent=AGENT) as opened,
        Listener(opened, OneToken(), ServeSettings(port=0)) as listener,
    ):
        listener.warn()

        def health() -> Any:
            with urllib.request.urlopen(listener.url + "/healthz", timeout=WAIT_S) as answer:
                return json.load(answer)

        assert "the connector stripe: the secret file stripe.key cannot be read" in caplog.text
        assert health() == {"ready": True, "reasons": {"stripe": "missing_secret"}, "trigger_faults": 0}
        secret.write_text("sk_test_x")
        secret.chmod(0o600)
        assert health()["reasons"] == {}
    assert "sk_test_x" not in caplog.text


@pytest.mark.parametrize(
    ("console", "warned"),
    [("http://localhost:1", True), ("http://localhost:{port}", False), ("https://pay.example", False), ("", False)],
)
def test_a_start_says_when_people_are_sent_to_another_port(
    handle: countermark.Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, console: str,
    warned: bool,
) -> None:  # fmt: skip
    """On this machine only: elsewhere a proxy may stand before it."""
    with Listener(handle, OneToken(), ServeSettings(port=0)) as listener:
        named = console.format(port=listener.url.rpartition(":")[2])
        monkeypatch.setattr(listener, "console", lambda: named)
        listener.warn()
    assert ("people answer at port 1 of this machine" in caplog.text) == warned
