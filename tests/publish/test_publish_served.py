"""A witness as a process: over HTTP, killed at its crash points, attacked."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from publish_support import ORIGIN, MemoryLog
from served import WAIT_S, command, serving, start, stop

from countermark.log import Cosignature, cosigned_by, parse_cosigner, parse_policy
from countermark.model.clock import US, SystemClock
from countermark.publish import (
    BODY_BYTES_MAX,
    Witness,
    WitnessClient,
    WitnessError,
    Witnesses,
    WitnessRule,
    make_witness,
)
from countermark.publish.exchange import Submission

pytestmark = pytest.mark.slow


def made(folder: Path, log: MemoryLog, name: str = "bank.example/w1") -> str:
    vkey = make_witness(folder, name)
    Witness(folder, SystemClock()).add_log(log.signer.vkey)
    return vkey


def ask(url: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WAIT_S)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_witnesses_of_a_policy_cosign_over_http(tmp_path: Path) -> None:
    """One answers and one is down: a growing log gets its quorum; monitors read the head; a rewrite stops the start."""
    log = MemoryLog(300)
    key = command("witness", "init", str(tmp_path / "a"), "--name", "a.example").strip()
    assert ORIGIN in command("witness", "add", str(tmp_path / "a"), log.signer.vkey)
    down = make_witness(tmp_path / "b", "b.example")
    with serving(tmp_path / "a") as url:
        lines = f"witness a {key} {url}\nwitness b {down} http://127.0.0.1:1\n"
        policy = parse_policy(f"{lines}group g any a b\nquorum g\n")
        rule = WitnessRule(policy, 60 * US)
        to = Witnesses(lambda: rule, "acme", log.view, SystemClock())
        to.check()
        for _ in range(3):
            log.grow(100)
            found = to.publish(log.head())
            assert found is not None
            (one,) = cosigned_by(policy, str(found[1]["note"]).encode()).values()
            assert found[1]["asked"] - US < one.at_s * US <= found[1]["answered"]
        to.close()
        status, note = ask(url, "GET", f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
        assert (status, note.startswith(log.head().note)) == (200, True)
        forged = MemoryLog(700, changed=3)
        insider = Witnesses(lambda: rule, "acme", forged.view, SystemClock())
        with pytest.raises(WitnessError) as refused:
            insider.check()
        assert refused.value.code == "witness_other_log"
        insider.close()
    shown = json.loads(command("witness", "show", str(tmp_path / "a"), "--json"))["logs"][0]
    assert shown["size"] == 600
    assert [Path(path).name.partition("-")[0] for path in shown["refused"]] == ["unproven"]


def test_a_killed_witness_forgets_nothing_that_it_answered(tmp_path: Path) -> None:
    """Killed before and after its head is in place: no answer left, and the head asked for again is cosigned."""
    log = MemoryLog(300)
    key = parse_cosigner(made(tmp_path / "w", log))

    def killed_at(point: str, *asked: Submission) -> None:
        child, url = start(tmp_path / "w", COUNTERMARK_CRASH=f"{point}:{len(asked)}")
        client = WitnessClient("w", key, url)
        assert all(isinstance(client.add(one), Cosignature) for one in asked[:-1])
        with pytest.raises(WitnessError) as lost:
            client.add(asked[-1])
        client.close()
        assert lost.value.code == "witness_unreachable"
        assert child.wait(WAIT_S) < 0
        assert child.stdout is not None
        child.stdout.close()

    killed_at("witness.written", log.submission(0, 100), log.submission(100, 200))
    assert Witness(tmp_path / "w", SystemClock()).held(ORIGIN).size == 100
    killed_at("witness.persisted", log.submission(100, 200))
    with serving(tmp_path / "w") as url:
        client = WitnessClient("w", key, url)
        assert client.add(log.submission(100, 200)) == 200
        assert isinstance(client.add(log.submission(200, 200)), Cosignature)
        with pytest.raises(WitnessError):
            client.add(MemoryLog(200, changed=150).submission(200))
        client.close()


def test_strangers_requests_are_bounded_and_answered(tmp_path: Path) -> None:
    """Long bodies, other methods, other paths, slow and half requests: refused, and the witness goes on."""
    log = MemoryLog(20)
    key = parse_cosigner(made(tmp_path / "w", log))
    child, url = start(tmp_path / "w")
    halves = []
    try:
        with pytest.raises(AssertionError, match="owner_lives"):  # one process at a time cosigns from a directory
            command("witness", "serve", str(tmp_path / "w"), "--port", "0")
        where = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        for _ in range(80):  # more than there may be connections
            halves.append(socket.create_connection(where, WAIT_S))
            halves[-1].sendall(b"POST /add-checkpoint HTTP/1.1\r\n")
        assert ask(url, "POST", "/add-checkpoint", b"x" * (BODY_BYTES_MAX + 1))[0] == 413
        assert ask(url, "POST", "/add-checkpoint", b"x")[0] == 400
        assert ask(url, "PUT", "/add-checkpoint", b"x")[0] == 405
        assert ask(url, "GET", "/add-checkpoint")[0] == 405
        assert [ask(url, "GET", path)[0] for path in ("/x", "/../witness.pem", f"/{'0' * 64}/checkpoint")] == [404] * 3
        assert ask(url, "GET", "/")[1].decode().strip() == key.vkey
        client = WitnessClient("w", key, url)
        assert isinstance(client.add(log.submission(0)), Cosignature)
        client.close()
    finally:
        for half in halves:
            half.close()
        assert stop(child) == 0
