"""Custody: secrets by reference, a key for each tool, and canaries that must be nowhere but where they belong."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import select
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from face import Face
from jwt.algorithms import OKPAlgorithm
from rig import AGENT, TOOL, args_for, edited
from support import AGENT as PAYING_AGENT

from countermark.authority import Head, generate, public_of, sign_request
from countermark.connectors import StripeConnector
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError
from countermark.twins.stripe import StripeTwin
from countermark.twins.stripe.webhooks import signature
from countermark.wiring.config import load_config
from countermark.wiring.connectors import connectors_of
from countermark.wiring.custody import is_reference, resolve_secret
from countermark.wiring.init import init_deployment

WAIT_S = 30
WEBHOOK = "whsec_canary0webhook0canary0webhook"
MEMO = "canary-memo-of-Ada-Lovelace"
REASON = "canary-reason-about-Grace-Hopper"
IN_JUNK = "canary-in-junk-5f0e"
IN_NAME = "canary-in-a-name-77aa"
SENSITIVE = '[tool."stripe.transfers.create".args."metadata[invoice]"]\n'
DESCRIPTION = '[tool."stripe.transfers.create".args.description]\nsensitive = true\n\n'


# --- references ---


@pytest.mark.parametrize(
    "value",
    ["sk_live_123", "env:", "file:", "keyring:x", "env:A B", "ENV:A", "vault:x", "", None, 7, "env:A\n", "keyring:/x"],
)
def test_a_secret_itself_is_not_a_reference(value: Any) -> None:
    """Only the three forms are; a configuration that holds anything else is refused."""
    assert not is_reference(value)
    assert is_reference("env:NAME")
    assert is_reference("file:keys/x")
    assert is_reference("keyring:countermark/stripe")


def test_a_secret_file_is_ours_alone(tmp_path: Path) -> None:
    """Mode, owner and kind are looked at, through the descriptor that is read; errors do not quote the content."""
    path = tmp_path / "key"
    path.write_text("rk_canary\n")
    path.chmod(0o600)
    assert resolve_secret("file:key", tmp_path) == "rk_canary"
    assert resolve_secret(f"file:{path}", Path("/nowhere")) == "rk_canary"
    for mode in (0o640, 0o604, 0o620, 0o777):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="others"):
            resolve_secret("file:key", tmp_path)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
        with pytest.raises(ConfigError, match="another user"):
            resolve_secret("file:key", tmp_path)
        os.chown(path, 0, 0)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, raw in (
        ("pipe", None),
        ("absent", None),
        ("empty", b""),
        ("long", b"x" * 5_000),
        ("bad", b"rk_canary\xff"),
    ):
        if raw is not None:
            (tmp_path / name).write_bytes(raw)
            (tmp_path / name).chmod(0o600)
        with pytest.raises(ConfigError) as error:
            resolve_secret(f"file:{name}", tmp_path)
        assert "canary" not in str(error.value)


def test_an_empty_variable_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty are the same: there is none."""
    monkeypatch.setenv("CANARY", "")
    for name in ("CANARY", "CANARY_UNSET"):
        with pytest.raises(ConfigError) as error:
            resolve_secret(f"env:{name}", tmp_path)
        assert error.value.code == "missing_secret"


def test_a_keyring_is_asked_only_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install; what its store says in an error is not passed on."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="keyring") as error:
        resolve_secret("keyring:countermark/stripe", tmp_path)
    assert error.value.code == "missing_secret"

    class KeyringError(Exception):
        pass

    known = {("countermark", "stripe/live"): "rk_canary"}

    def get_password(service: str, name: str) -> str | None:
        if name == "locked":
            raise KeyringError("rk_canary")
        return known.get((service, name))

    fake, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    fake.get_password, errors.KeyringError = get_password, KeyringError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", fake)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert resolve_secret("keyring:countermark/stripe/live", tmp_path) == "rk_canary"
    for name in ("absent", "locked"):
        with pytest.raises(ConfigError) as error:
            resolve_secret(f"keyring:countermark/{name}", tmp_path)
        assert "canary" not in str(error.value)


def test_each_tool_may_have_a_key_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool's key is asked for under its name; a tool without one takes the connector's."""
    (tmp_path / "countermark.toml").write_text(
        'version = 1\ndeployment = "test"\n[connector.stripe]\nsecret = "env:RK_ALL"\norigin = "https://api.stripe.com"\n'
        '[connector.stripe.tools]\n"stripe.transfers.create" = "env:RK_TRANSFERS"\n'
    )
    monkeypatch.setenv("RK_ALL", "rk_all")
    monkeypatch.setenv("RK_TRANSFERS", "rk_transfers")
    stripe = connectors_of(load_config(tmp_path))["stripe"]
    assert isinstance(stripe, StripeConnector)
    assert [stripe._secret(tool) for tool in (TOOL, "stripe.refunds.create")] == ["rk_transfers", "rk_all"]
    stripe.close()


@pytest.mark.parametrize(
    "tools", ['"stripe.transfers.create" = "rk_live_1"', '"../x" = "env:A"', '"stripe.transfers.create" = 1']
)
def test_a_key_of_a_tool_stands_by_reference_too(tmp_path: Path, tools: str) -> None:
    """A key itself in the configuration is refused, and not repeated."""
    (tmp_path / "countermark.toml").write_text(
        f'version = 1\ndeployment = "test"\n[connector.stripe]\nsecret = "env:A"\n[connector.stripe.tools]\n{tools}\n'
    )
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path)
    assert "rk_live_1" not in str(error.value)


# --- canaries ---


class Served:
    """``countermark serve`` in a process of its own over the Stripe simulator, with a canary as every secret."""

    def __init__(self, folder: Path, twin: StripeTwin) -> None:
        self.root = folder / "d"
        self.twin = twin
        self.agent_key = generate()
        policy = edited(
            {'[agents.treasury]\nowner = "treasurer"\n': '[agents.treasury]\nowner = "treasurer"\n'
             f'keys = ["{public_of(self.agent_key)}"]\n'},
            {SENSITIVE: DESCRIPTION + SENSITIVE},
        )  # fmt: skip
        os.environ["STRIPE_API_KEY"] = twin.key
        self.made = init_deployment(self.root, "vendor-payments", "test", stripe_origin=twin.url, edit=policy)
        issuer = Ed25519PrivateKey.generate()
        keys = {"keys": [dict(OKPAlgorithm.to_jwk(issuer.public_key(), as_dict=True)) | {"kid": "k", "use": "sig"}]}
        (self.root / "jwks.json").write_text(json.dumps(keys))
        with (self.root / "countermark.toml").open("a") as file:
            file.write('[stripe]\nwebhook_secrets = ["env:CANARY_WEBHOOK"]\n')
            file.write('[[serve.issuer]]\nissuer = "https://idp.example"\naudience = "test"\njwks = "jwks.json"\n')
        now = SystemClock().now_us() // US
        claims = {"iss": "https://idp.example", "aud": "test", "sub": PAYING_AGENT, "iat": now, "exp": now + 600}
        self.jwt = jwt.encode(claims, issuer, algorithm="EdDSA", headers={"kid": "k"})
        self.token = str(json.loads(self.cli("token", "issue", AGENT, "--json"))["token"])
        self.said: list[bytes] = []
        env = {**os.environ, "CANARY_WEBHOOK": WEBHOOK, "COUNTERMARK_LOG": "json", "COUNTERMARK_LOG_LEVEL": "debug"}
        with (folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "countermark.cli", "-C", str(self.root), "serve", "--port", "0", "--json"],
                env=env, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        try:
            self.url = self._ready()
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> str:
        """The address that the server says when it is ready."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], WAIT_S)[0], "the server did not come up"
        line = self.process.stdout.readline()
        assert b'"url"' in line, (line, (self.root.parent / "stderr").read_bytes())
        return str(json.loads(line)["url"])

    def cli(self, *words: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "countermark.cli", "-C", str(self.root), *words], capture_output=True,
            timeout=WAIT_S, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> int:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 0), timeout=WAIT_S)
        try:
            connection.request(method, target, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            self.said += [answer.read(), repr(answer.getheaders()).encode()]
            return answer.status
        finally:
            connection.close()

    def pay(self, number: object, headers: dict[str, str], **args: Any) -> int:
        body = {
            "call_id": f"pay-{number}", "tool": TOOL, "args": args_for(number) | {"description": MEMO} | args,
            "reason": REASON,
        }  # fmt: skip
        return self.ask("POST", "/v1/actions", json.dumps(body).encode(), headers)

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, _ = self.process.communicate(timeout=WAIT_S)
            self.said.append(out)
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("STRIPE_API_KEY", "")  # put back afterwards
    with StripeTwin.start(tmp_path / "twin", accounts=["acct_1AcmePaper"], balances={"eur": 10_000_000}) as twin:
        made = Served(tmp_path, twin)
        try:
            yield made
        finally:
            made.stop()


def _errors(served: Served, bearer: dict[str, str], other: dict[str, str]) -> None:
    """Whatever may go wrong, with a canary in it."""
    served.pay(2, bearer, amount=10**9)  # denied
    served.pay(3, bearer, destination="acct_1Unknown")  # asks people
    served.pay(4, other, amount="1000")  # no valid action
    served.pay(5, bearer, metadata=IN_JUNK)
    served.ask("POST", "/v1/actions", b'{"tool": "' + IN_JUNK.encode(), bearer)
    served.ask("POST", "/v1/runs", json.dumps({"purpose": 1, IN_NAME: 2}).encode(), bearer)
    for wrong in (served.token[:-1] + "x", served.jwt[:-4] + "AAAA", IN_JUNK):
        assert served.ask("POST", "/v1/runs", b"{}", {"authorization": f"Bearer {wrong}"}) == 401
    basic = base64.b64encode(f"{served.token}:{IN_JUNK}".encode()).decode()
    assert served.ask("POST", "/v1/runs", b"{}", {"authorization": f"Basic {basic}"}) == 401
    assert served.ask("GET", f"/{IN_JUNK}?key={IN_JUNK}", b"", bearer) == 404


def _signed(served: Served) -> int:
    body = json.dumps({"call_id": "signed", "tool": TOOL, "args": args_for(9) | {"description": MEMO}}).encode()
    host = urlsplit(served.url).netloc
    head = Head("POST", host, "/v1/actions", None, {"content-type": ["application/json"]})
    run = json.loads(served.said[0])["run"]
    body = json.dumps(json.loads(body) | {"run": run}).encode()
    now = SystemClock().now_us() // US
    made = sign_request(served.agent_key, head, body, "test", created=now, nonce="canary-nonce-0001")
    return served.ask("POST", "/v1/actions", body, made)


def _webhooks(served: Served) -> None:
    event = json.dumps({"id": "evt_1", "object": "event", "type": "transfer.created", "data": {"object": {}}}).encode()
    now = SystemClock().now_us() // US
    for header in (signature(WEBHOOK, event, now), signature("whsec_wrong", event, now), f"t={now},v1={WEBHOOK}"):
        served.ask("POST", "/webhooks/stripe", event, {"stripe-signature": header})


def test_no_secret_and_no_sensitive_value_is_anywhere_it_does_not_belong(served: Served, tmp_path: Path) -> None:
    """Every file of the deployment, every answer, the logs at their most talkative, explanations and the pack."""
    bearer, other = {"authorization": f"Bearer {served.token}"}, {"authorization": f"Bearer {served.jwt}"}
    assert served.ask("POST", "/v1/runs", b"{}", bearer) == 201
    assert served.pay(1, bearer) == 200
    assert served.pay("1b", other) == 200
    assert _signed(served) == 200
    _errors(served, bearer, other)
    _webhooks(served)
    served.twin.stop()
    served.pay(6, bearer)  # the provider is gone
    for target in ("/metrics", "/healthz", "/openapi.json", "/log/checkpoint"):
        served.ask("GET", target, b"", bearer)
    served.stop()
    pack = tmp_path / "pack.zip"
    printed = [
        served.cli("status"), served.cli("status", "--json"), served.cli("doctor"),
        served.cli("token", "list", "--json"), served.cli("audit", "reperform"), served.cli("export", str(pack)),
    ]  # fmt: skip
    assert pack.is_file(), printed[-1]
    own = {"countermark.toml", "jwks.json"}
    files = {
        path: path.read_bytes()
        for path in sorted(served.root.rglob("*"))
        if path.is_file() and path.parent.name != "people" and path.name not in own
    }
    places = {**files, pack: pack.read_bytes(), Path("stderr"): (tmp_path / "stderr").read_bytes()}
    places |= {Path("answers"): b"\n".join(served.said), Path("commands"): b"\n".join(printed)}
    person = (served.root / "people" / "treasurer.pem").read_text().splitlines()[1]
    canaries = {
        "provider key": served.twin.key, "token": served.token, "token's secret": served.token.rpartition("_")[2],
        "jwt": served.jwt, "jwt's signature": served.jwt.rpartition(".")[2], "person's key": person,
        "webhook secret": WEBHOOK, "memo": MEMO, "reason": REASON, "junk": IN_JUNK, "name": IN_NAME,
    }  # fmt: skip
    found = [
        (what, str(place))
        for what, canary in canaries.items()
        for place, raw in places.items()
        if canary.encode() in raw or base64.b64encode(canary.encode())[:-4] in raw
    ]
    assert found == [("name", "answers")]  # an unknown member is named to whoever sent it, and nowhere else
    assert any(b"acct_1AcmePaper" in raw for raw in places.values())  # what is looked for can be found this way


def test_the_served_deployment_of_other_tests_has_no_key_in_its_configuration(tmp_path: Path) -> None:
    """What ``init`` writes refers to the key."""
    with Face(tmp_path / "d") as face:
        text = (face.root / "countermark.toml").read_text()
    assert 'secret = "env:STRIPE_API_KEY"' in text
