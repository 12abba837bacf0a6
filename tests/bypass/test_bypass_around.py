"""Past the gate, straight to the provider."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from siege import ACME, ASK, Siege, make, twin_for

stripe = pytest.importorskip("stripe")


def transfer(invoice: str, amount: int = ASK) -> dict[str, object]:
    return {"amount": amount, "currency": "eur", "destination": ACME, "metadata": {"invoice": invoice}}


def test_the_provider_without_its_key(siege: Siege) -> None:
    """Prevented: the agent calls the provider itself: it has no key of it, and its token for the gate is none."""
    before = siege.moved
    for key in (siege.token, "sk_test_" + "0" * 24, "rk_test_guessed", "cm_" + "0" * 48):
        client = stripe.StripeClient(key, base_addresses={"api": siege.twin.url}, max_network_retries=0)
        with pytest.raises(stripe.AuthenticationError):
            client.v1.transfers.create(transfer("AROUND-1"))
    assert siege.moved == before


def test_the_providers_key_is_not_to_be_had(siege: Siege) -> None:
    """Prevented: the agent asks the gate's own faces for the key: no answer or error of any of them holds it."""
    for method, target in (
        ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/healthz"), ("GET", "/log/checkpoint"),
        ("GET", "/stripe/v1/transfers/tr_none"), ("GET", "/stripe/v1/account"), ("POST", "/v1/actions"),
        ("GET", "/v1/escalations"), ("GET", "/stripe/v1/../../"), ("TRACE", "/"), ("OPTIONS", "/"),
    ):  # fmt: skip
        answer = siege.ask(method, target, {} if method == "POST" else None)
        told = answer.body + repr(dict(answer.headers)).encode()
        assert siege.twin.key.encode() not in told, target
        assert siege.token.encode() not in told, target


def test_the_provider_with_its_key(siege: Siege) -> None:
    """Not covered: whoever has a key of the provider pays without the gate, above every limit and with no record; what
    bounds it is what the key may do at the provider, and who can read it.
    """
    size = siege.size
    client = stripe.StripeClient(siege.twin.key, base_addresses={"api": siege.twin.url}, max_network_retries=0)
    made = client.v1.transfers.create(transfer("AROUND-2", 3_000_000))
    assert [made.id] == [paid.id for paid in siege.paid("AROUND-2")]
    assert siege.size == size


def test_the_gates_port_taken_while_it_is_down(tmp_path: Path) -> None:
    """Detected: another user's program that listens on the gate's port while the gate is down, to be shown tokens: the
    gate then does not start, and says why. With TLS nobody else answers in its name.
    """
    with twin_for(tmp_path / "twin") as twin, socket.create_server(("127.0.0.1", 0)) as squatter:
        made = make(tmp_path / "d", twin)
        port = str(squatter.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "countermark.cli", "-C", str(made.root), "serve", "--port", port, "--json"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "cannot_listen"


def listen_there(host: str, port: int, option: int) -> None:
    """Listen where somebody listens already, as far as the kernel lets one."""
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, option, 1)
        thief.bind((host, port))
        thief.listen()


def test_the_gates_port_taken_while_it_is_up(siege: Siege) -> None:
    """Prevented: a program that shares the living gate's address, by reusing the address or the port."""
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        for host in (siege.address[0], "0.0.0.0"):
            with pytest.raises(OSError, match="in use"):
                listen_there(host, siege.address[1], option)


def test_the_same_port_at_the_other_loopback_address(siege: Siege) -> None:
    """Not covered: the gate listens on 127.0.0.1 alone, so another user's program may listen on the same port of ::1,
    where a client that is told "localhost" may ask first. Give clients the number, or TLS.
    """
    place = ("::1", siege.address[1])
    try:
        thief = socket.create_server(place, family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")
    with thief, socket.create_connection(place, timeout=20) as victim:
        victim.sendall(b"Authorization: Bearer a-token")
        end, _ = thief.accept()
        with end:
            assert end.recv(100).startswith(b"Authorization")
