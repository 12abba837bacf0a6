"""The client over a real way: a server that dies and comes back, TLS, forks, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from far_gate import certificate, far_gate, pay
from rig import TOOL
from siege import args_for, ended, make, paid_at, serve, twin_for, unsound
from stripe_support import token_for

import countermark
from countermark.model.errors import CountermarkError, GateHaltedError


@pytest.mark.slow
def test_the_server_dies_after_the_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the payment and its record, and started anew: the client's same call finds it paid, once."""
    with twin_for(tmp_path / "twin") as twin:
        root = make(tmp_path / "d", twin).root
        token = token_for(root)
        with monkeypatch.context() as armed:
            armed.setenv("COUNTERMARK_CRASH", "effect.done:1")
            first, url = serve(root)
        servers = []

        def restart(seconds: float) -> None:
            if not servers:
                first.communicate(timeout=60)
                servers.append(serve(root, "--port", str(urlsplit(url).port))[0])

        monkeypatch.setattr("countermark.client.asker.sleep", restart)
        with countermark.Client(url, token) as client:
            try:
                found = client.act(TOOL, args_for("INV-1"), call_id="pay-1")
                again = client.act(TOOL, args_for("INV-1"), call_id="pay-1", run=found.run)
            finally:
                assert [ended(child) for child in servers] == [0]
        assert first.returncode == -9
        assert (found.status, again[:-2]) == ("confirmed", found[:-2])
        assert len(paid_at(twin, "INV-1")) == 1
    assert unsound(root) == []


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that is away is asked as often as said, and then it is an error that says what to do."""
    waited: list[float] = []
    monkeypatch.setattr("countermark.client.asker.sleep", waited.append)
    with far_gate(tmp_path / "d") as gate:
        url = gate.url
    client = countermark.Client(url, "cmk_for_tests", tries=4)
    with pytest.raises(GateHaltedError, match="same run and call_id") as caught:
        client.act(TOOL, {}, run="run_" + "0" * 32, call_id="1")
    assert caught.value.retryable
    assert len(waited) == 3


def test_certificates_are_verified(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused before the token leaves; named in ``ca_file`` it serves."""
    pem, other = certificate(tmp_path, "localhost"), certificate(tmp_path, "elsewhere")
    with far_gate(tmp_path / "d", pem=pem) as gate:
        url = f"https://localhost:{urlsplit(gate.url).port}"
        for trusted in (None, other):
            with countermark.Client(url, "cmk_for_tests", ca_file=trusted, tries=1) as client:
                with pytest.raises(CountermarkError) as caught:
                    pay(client, "1")
                assert caught.value.code == "gate_halted"
        with countermark.Client(url, "cmk_for_tests", ca_file=pem) as client:
            assert pay(client, "1").status == "confirmed"
        unnamed = url.replace("localhost", "127.0.0.1")
        with (
            countermark.Client(unnamed, "cmk_for_tests", ca_file=pem, tries=1) as client,
            pytest.raises(GateHaltedError),
        ):
            pay(client, "2")
    assert len(gate.provider.effects) == 1


def test_no_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says about proxies changes nothing."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with far_gate(tmp_path / "d") as gate, gate.client() as client:
        assert pay(client, "1").status == "confirmed"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(tmp_path: Path) -> None:
    """A child of a fork never reads its parent's answers: it asks on a new connection, as the same agent and run."""
    with far_gate(tmp_path / "d") as gate, gate.client() as client:
        first = pay(client, "1")
        kept = list(client._asker._sender._idle)
        child = os.fork()
        if not child:
            os._exit(0 if not client._asker._sender._idle and client._run == first.run else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client._asker._sender._idle == kept
        assert pay(client, "2").run == first.run


def test_it_loads_nothing_of_the_server() -> None:
    """An agent's program that imports the client loads no server, no policy engine and no journal; nor does --help."""
    heavy = ("starlette", "uvicorn", "msgspec", "httptools", "jwt", "mcp", "cedarpy", "sqlite3", "click",
             "countermark.server", "countermark.wiring", "countermark.gate", "countermark.policy")  # fmt: skip
    code = f"import sys, countermark; countermark.Client; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, countermark.cli; print('countermark.client' in sys.modules, 'ssl' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "False False\n"
