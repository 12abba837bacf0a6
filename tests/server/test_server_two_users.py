"""The gate and an agent under two real OS users: what the agent's user cannot reach, and the one way that it can."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_users import as_user, environment, python_for, unused_uids

from countermark.twins.stripe import StripeTwin

AGENT_PROGRAM = Path(__file__).with_name("two_users_agent.py")
CANARY = "canary-two-users-4d70"
ACME = "acct_1AcmePaper"
TOOL = "stripe.transfers.create"


class Stand:
    """A gate that serves as one user, beside an agent's user."""

    def __init__(self, base: Path, twin: StripeTwin) -> None:
        self.gate_uid, self.agent_uid = unused_uids()
        self.base, self.twin = base, twin
        base.chmod(0o755)
        self.python, self.path = python_for(self.gate_uid, base / "copies")
        home = base / "gate"
        home.mkdir(mode=0o700)
        os.chown(home, self.gate_uid, self.gate_uid)
        self.root = home / "deployment"
        self.command("init", str(self.root), "--deployment", "acme")
        for name in ("countermark.toml", "policy/tools.toml"):
            path = self.root / name
            path.write_text(path.read_text().replace("https://api.stripe.com", twin.url))
        toml = self.root / "countermark.toml"
        toml.write_text(toml.read_text().replace("env:STRIPE_API_KEY", "file:keys/stripe.key"))
        secret = self.root / "keys" / "stripe.key"
        secret.write_text(twin.key)
        secret.chmod(0o600)
        os.chown(secret, self.gate_uid, self.gate_uid)
        key = str(self.root / "people" / "treasurer.pem")
        self.command("-C", str(self.root), "policy", "activate", "--author", "treasurer", "--key", key, "--yes")
        made = self.command("-C", str(self.root), "token", "issue", "treasury", "--json")
        self.token = next(value for value in json.loads(made).values() if str(value).startswith("cm"))

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [self.python, "-m", "countermark.cli", *words], capture_output=True, text=True, timeout=120, cwd="/",
            env=environment(self.path), check=False, **as_user(self.gate_uid),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def serve(self) -> tuple[subprocess.Popen[str], str]:
        """Start serving; the child and its URL."""
        child = subprocess.Popen(
            [self.python, "-m", "countermark.cli", "-C", str(self.root), "serve", "--port", "0", "--json"],
            stdout=subprocess.PIPE, text=True, cwd="/", **as_user(self.gate_uid),
            env=environment(self.path, GATE_CANARY=CANARY, COUNTERMARK_LOG="json"),
        )  # fmt: skip
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert ready["tier"] == "enforcing"
        return child, ready["url"]


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    if os.getuid() != 0:
        pytest.skip("needs root: two OS users")
    base = Path(tempfile.mkdtemp(prefix="countermark-two-users-", dir="/tmp"))
    try:
        accounts = {"accounts": [ACME], "balances": {"eur": 1_000_000}}
        with StripeTwin.start(base / "twin", seed=5, running=True, **accounts) as twin:  # type: ignore[arg-type]
            yield Stand(base, twin)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.slow
def test_the_agents_user_reaches_nothing_but_the_port(stand: Stand) -> None:
    """Credential, keys, journal, policy, socket, memory, environment and the process itself are out of reach.

    The port with its token pays, in the tier ``enforcing``; people's routes and the provider without a key do not.
    """
    files = sorted(str(path) for path in stand.root.rglob("*") if path.is_file())
    wanted = ("journal.db", "vault.db", "stripe.key", "log.pem", "vault.key", "pseudonym.key", "countermark.toml")
    assert {Path(name).name for name in files} >= set(wanted)
    child, url = stand.serve()
    try:
        given = {
            "pid": child.pid, "url": url, "token": stand.token, "root": str(stand.root), "files": files,
            "socket": str(stand.root / "gate.sock"), "tool": TOOL, "provider": stand.twin.url,
            "args": {"amount": 48_000, "currency": "eur", "destination": ACME, "metadata[invoice]": "INV-1"},
        }  # fmt: skip
        done = subprocess.run(
            ["/usr/bin/python3", "-c", AGENT_PROGRAM.read_text()], input=json.dumps(given), capture_output=True,
            text=True, timeout=120, env={}, cwd="/", check=False, **as_user(stand.agent_uid),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert child.poll() is None, "the gate still runs"
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        if child.stdout is not None:
            child.stdout.close()
    answers = {name: found.pop(name) for name in ("uid", "run", "paid", "stranger", "people", "provider")}
    assert {name: came for name, came in found.items() if came != "PermissionError"} == {}
    assert len(found) > 2 * len(wanted)
    assert answers["uid"] == stand.agent_uid
    status, paid = answers["paid"]
    assert (status, paid["status"], paid["receipt"]["tier"]) == (200, "confirmed", "enforcing")
    assert (answers["stranger"], answers["provider"]) == (401, 401)
    assert answers["people"] in (401, 403, 404)
    assert [m.metadata.get("invoice") for m in stand.twin.books().movements()] == ["INV-1"]
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.slow
def test_doctor_finds_what_would_let_the_agents_user_in(stand: Stand) -> None:
    """The gate's user is told when a folder of secrets is open to others; closed again, nothing is wrong."""
    checks = json.loads(stand.command("-C", str(stand.root), "doctor", "--json"))["checks"]
    assert [c for c in checks if c["name"] == "users"] == [
        {"name": "users", "state": "ok",
         "message": f"only uid {stand.gate_uid} can read keys and journal, or change configuration and policy"}
    ]  # fmt: skip
