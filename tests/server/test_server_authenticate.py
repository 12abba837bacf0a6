"""Who asks: tokens, signatures and delegated tokens, from the header to the record and the independent verifier."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from face import Face, is_problem
from rig import AGENT, TOOL, Provider, args_for, grant_to, kinds, make, unsound
from support import records

import countermark
from countermark.audit import export_pack
from countermark.authority import (
    Behalf,
    Head,
    Scope,
    generate,
    grant,
    issue,
    load_private,
    public_of,
    revoke_token,
    sign_request,
)
from countermark.authority import rotate as rotated
from countermark.gate import Caller
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.clock import US, SystemClock
from countermark.model.errors import AuthorityError, CountermarkError, SignatureError
from countermark.server import Listener
from countermark.server.authenticate import AgentAuthenticator
from countermark.wiring import ServeSettings, TokenFile
from countermark.wiring.init import Made, mandate_document
from countermark_verify import load_trust, verify

SIGNER = generate()
STRANGER = generate()
KEYS = {'[agents.treasury]\nowner = "treasurer"\n': (
    f'[agents.treasury]\nowner = "treasurer"\nkeys = ["{public_of(SIGNER)}"]\n\n[agents.clerk]\nowner = "treasurer"\n'
)}  # fmt: skip
Raw = list[tuple[bytes, bytes]]


class Ward:
    """A deployment whose agent has a key, and an authenticator over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.provider = Provider()
        self.made: Made = make(root, self.provider, changes=KEYS)
        self.handle = countermark.open(root, agent=AGENT, connectors={"stripe": self.provider})
        self.files = TokenFile(root)
        self.gate = self.handle.gate
        self.who = AgentAuthenticator(self.handle.config, self.gate)
        self.nonces = 0
        self.open = True

    def close(self) -> None:
        if self.open:
            self.open = False
            self.handle.close()

    def token(self, **scope: Any) -> tuple[str, str]:
        """A fresh token and its ID."""
        now = SystemClock().now_us()

        def made(book: Any) -> Any:
            after, token, plain = issue(book, AGENT, now, life_s=600, **scope)
            return after, (plain, token.id)

        found: tuple[str, str] = self.files.change(made)
        return found

    def ask(self, headers: Raw, body: bytes = b"", method: str = "POST", target: str = "/v1/actions") -> Caller:
        found: Caller = self.gate.wait(self.who.authenticate(method, target, headers, body))
        return found

    def bearer(self, plain: str) -> Caller:
        return self.ask([(b"authorization", b"Bearer " + plain.encode())])

    def signed(
        self, body: bytes, *, key: Any = SIGNER, age_s: int = 0, target: str = "/v1/actions", nonce: str = ""
    ) -> Raw:
        """The headers of a request signed now."""
        self.nonces += 1
        created = SystemClock().now_us() // US - age_s
        path, question, query = target.partition("?")
        head = Head("POST", "gate.example", path, query if question else None, {"content-type": ["application/json"]})
        made = sign_request(key, head, body, "test", created=created, nonce=nonce or f"nonce-{self.nonces:020}")
        shown = [(name.lower().encode(), value.encode()) for name, value in made.items()]
        return [(b"host", b"Gate.Example"), (b"content-type", b"application/json"), *shown]

    def call(self, op: str, body: Mapping[str, Any], caller: Caller) -> Any:
        return self.gate.wait(self.gate.call(op, body, caller))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path / "d")
    yield made
    made.close()


def refused(work: Any) -> AuthorityError:
    with pytest.raises(AuthorityError) as error:
        work()
    assert error.value.code == "not_authenticated"
    return error.value


def pay_body(run: str | None, number: int, **more: Any) -> bytes:
    body = {"call_id": f"pay-{number}", "tool": TOOL, "args": args_for(number)} | more
    return json.dumps(body if run is None else {"run": run} | body).encode()


# --- tokens ---


def test_a_token_names_its_agent_and_scope_as_bearer_and_as_basic_user(ward: Ward) -> None:
    """Both ways in which a Stripe SDK sends its key; the scheme's name in any case."""
    run = "run_" + "0" * 32
    plain, _ = ward.token(tools=[TOOL], run=run)
    expected = Caller(AGENT, "enforcing", scope=Scope((TOOL,), run))
    basic = base64.b64encode(plain.encode() + b":")
    for value in (b"Bearer " + plain.encode(), b"bearer   " + plain.encode(), b"Basic " + basic):
        assert ward.ask([(b"authorization", value)]) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"", b"Bearer", b"Bearer ", b"Bearer cmk_", b"Bearer sk_test_123", b"Bearer a.b.c", b"Digest x", b"Basic !!!",
        b"Basic " + base64.b64encode(b"cmk_x:password"), b"Basic " + base64.b64encode(b"user:"), b"Bearer \xff\xfe",
        b"Bearer " + b"a" * 9_000, b"Bearer cmk_" + b"0" * 16 + b"_" + b"0" * 48, b"Bearer x y",
    ],
)  # fmt: skip
def test_whatever_is_no_valid_credential_is_refused(ward: Ward, value: bytes) -> None:
    """One code for all of them."""
    refused(lambda: ward.ask([(b"authorization", value)]))


def test_requests_of_one_turn_share_a_look_at_the_file_and_later_ones_do_not(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that ends while requests wait is looked up by what was read before its end, and by nothing read after."""
    plain, name = ward.token()
    looks, look = [], ward.files.book

    def counted(files: TokenFile) -> Any:
        looks.append(files)
        return look()

    monkeypatch.setattr(TokenFile, "book", counted)
    headers = [(b"authorization", b"Bearer " + plain.encode())]

    async def both() -> list[Any]:
        asked = (ward.who.authenticate("POST", "/v1/actions", headers, b"") for _ in range(3))
        return await asyncio.gather(*asked)

    assert [caller.agent for caller in ward.gate.wait(both())] == [AGENT] * 3
    assert len(looks) == 1
    ward.files.change(lambda book: (revoke_token(book, name, SystemClock().now_us()), None))
    refused(lambda: ward.bearer(plain))
    assert len(looks) == 2


def test_strangers_are_told_one_thing(ward: Ward) -> None:
    """Unknown, wrong, revoked and malformed tokens, and JWTs of nobody, get the same words."""
    plain, name = ward.token()
    ward.files.change(lambda book: (revoke_token(book, name, SystemClock().now_us()), None))
    said = {
        str(refused(lambda text=text: ward.bearer(text)))  # type: ignore[misc]
        for text in (plain, plain[:-1] + "x", "cmk_" + "1" * 16 + "_" + "2" * 48, "cmk_", "eyJh.eyJh.AAAA", "zzz")
    }
    assert len(said) == 1


def test_revocation_and_rotation_work_with_the_next_request(ward: Ward) -> None:
    """The server reads the file anew as soon as it changed: nothing waits for a restart."""
    plain, name = ward.token()
    assert ward.bearer(plain).agent == AGENT
    now = SystemClock().now_us()

    def turn(book: Any) -> Any:
        after, _, text = rotated(book, name, now, life_s=600, overlap_s=0)
        return after, text

    following: str = ward.files.change(turn)
    refused(lambda: ward.bearer(plain))
    assert ward.bearer(following).agent == AGENT


def test_a_token_file_that_others_could_write_opens_for_nobody(ward: Ward) -> None:
    """A mode that lets others in, a damaged file, or none: no token is valid, not even one that was a moment ago."""
    plain, _ = ward.token()
    path = ward.root / "access" / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ward.bearer(plain).agent == AGENT
    raw = path.read_bytes()
    path.write_bytes(raw + b" ")
    refused(lambda: ward.bearer(plain))
    path.write_bytes(raw)
    path.chmod(0o644)
    refused(lambda: ward.bearer(plain))
    path.chmod(0o600)
    os.utime(path, ns=(1, 1))
    assert ward.bearer(plain).agent == AGENT
    path.unlink()
    refused(lambda: ward.bearer(plain))


def test_two_credentials_at_once_are_refused(ward: Ward) -> None:
    """A header twice, or two ways of saying who one is, could mean one thing here and another at a proxy."""
    plain, _ = ward.token()
    good = (b"authorization", b"Bearer " + plain.encode())
    signed = ward.signed(b"{}")
    for headers in ([good, good], [good, *signed], [good, signed[-1]], signed[:-1], [*signed, signed[-1]], []):
        refused(lambda headers=headers: ward.ask(headers, b"{}"))  # type: ignore[misc]


def test_a_token_for_one_tool_or_run_does_nothing_else(ward: Ward) -> None:
    """What is out of its scope is refused and recorded; such a token starts and ends no other run."""
    run = ward.handle.start_run()
    for scope in (Scope(("stripe.refunds.create",), ""), Scope((), "run_" + "1" * 32)):
        caller = Caller(AGENT, "enforcing", scope=scope)
        with pytest.raises(CountermarkError) as error:
            ward.call("act", json.loads(pay_body(run, 1)), caller)
        assert error.value.code == "out_of_scope"
    bound = Caller(AGENT, "enforcing", scope=Scope((), run))
    for op, body in (("run.start", {}), ("run.end", {"run": ward.handle.start_run()})):
        with pytest.raises(AuthorityError) as denied:
            ward.call(op, body, bound)
        assert denied.value.code == "out_of_scope"
    assert ward.call("act", json.loads(pay_body(run, 2)), bound)["status"] == "confirmed"
    assert len(ward.provider.effects) == 1
    ward.close()
    assert kinds(ward.root).count("action.refused") == 2


# --- signatures ---


def test_a_signed_request_stands_in_the_log_and_both_verifiers_check_it(tmp_path: Path) -> None:
    """The signature is recorded right before its decision; re-performance and the independent verifier agree on it."""
    ward = Ward(tmp_path / "d")
    run = ward.handle.start_run()
    for number in (1, 2):
        raw = pay_body(run, number, model="m-1", because=[], reason="")
        caller = ward.ask(ward.signed(raw), raw)
        assert caller.agent == AGENT
        assert ward.call("act", json.loads(raw), caller)["status"] == "confirmed"
    ward.close()
    found = records(ward.root)
    signed = [record for record in found if record.kind == "request.signed"]
    assert [found[record.seq + 1].kind for record in signed] == ["action.decided"] * 2
    assert [record.body["body"] is not None for record in signed] == [True, True]
    assert unsound(ward.root) == []
    report = judged(ward, tmp_path)
    assert report.verdict == "verified", [(f.code, f.message) for s in report.steps for f in s.findings]
    assert report.axes["authority"]["level"] == "agent"


def test_one_unsigned_action_leaves_the_axis_where_it_was(tmp_path: Path) -> None:
    """That some actions are signed proves nothing about the others."""
    ward = Ward(tmp_path / "d")
    run = ward.handle.start_run()
    raw = pay_body(run, 1)
    ward.call("act", json.loads(raw), ward.ask(ward.signed(raw), raw))
    ward.call("act", json.loads(pay_body(run, 2)), Caller(AGENT, "enforcing"))
    ward.close()
    report = judged(ward, tmp_path)
    assert (report.verdict, report.axes["authority"]["level"]) == ("verified", "mandate")


def test_a_body_with_a_reason_is_kept_as_a_digest_only(tmp_path: Path) -> None:
    """What may have to be erased does not stand in a record in clear."""
    ward = Ward(tmp_path / "d")
    raw = pay_body(ward.handle.start_run(), 1, reason="for Ada Lovelace, personally")
    ward.call("act", json.loads(raw), ward.ask(ward.signed(raw), raw))
    ward.close()
    [signed] = [record for record in records(ward.root) if record.kind == "request.signed"]
    assert signed.body["body"] is None
    assert b"Lovelace" not in b"".join(record.raw for record in records(ward.root))
    report = judged(ward, tmp_path)
    assert (report.verdict, report.axes["authority"]["level"]) == ("verified", "mandate")


def judged(ward: Ward, folder: Path) -> Any:
    """The independent verifier's report on the deployment's pack."""
    config = ward.handle.config
    signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
    store = SqliteStore(config.journal, readonly=True)
    try:
        told = export_pack(folder / "pack.zip", store, signer, deployment=config.deployment)
    finally:
        store.close()
    people = {name: [str(public_of(load_private(path)))] for name, path in ward.made.people.items()}
    heads = [{"size": told.size, "root": told.root, "source": "test"}]
    trust = {"v": 1, "log": {"origin": config.origin, "keys": [signer.vkey]}, "people": people, "heads": heads}
    (folder / "trust.json").write_text(json.dumps(trust))
    return verify(folder / "pack.zip", load_trust(folder / "trust.json"))


def test_a_signature_is_good_once_and_only_now(ward: Ward) -> None:
    """A replay, an old one, one of the future, and one from before this server began are refused."""
    body = b"{}"
    headers = ward.signed(body)
    assert ward.ask(headers, body).agent == AGENT
    assert "before" in refused(lambda: ward.ask(headers, body)).message
    same = ward.signed(body, nonce="nonce-of-a-replay-1")
    ward.ask(same, body)
    refused(lambda: ward.ask(ward.signed(body, nonce="nonce-of-a-replay-1"), body))
    refused(lambda: ward.ask(ward.signed(body, age_s=120), body))
    refused(lambda: ward.ask(ward.signed(body, age_s=-60), body))
    old = AgentAuthenticator(ward.handle.config, ward.gate, later_clock())
    with pytest.raises(AuthorityError):
        asyncio.run(old.authenticate("POST", "/v1/actions", ward.signed(body), body))


def later_clock() -> Any:
    class Later(SystemClock):
        def now_us(self) -> int:
            return super().now_us() + 5 * US

    return Later()


def test_a_key_that_the_policy_does_not_know_is_nobodys(ward: Ward) -> None:
    """A valid signature by a stranger is told what every stranger is told."""
    error = refused(lambda: ward.ask(ward.signed(b"{}", key=STRANGER), b"{}"))
    assert str(error) == str(refused(lambda: ward.bearer("cmk_x")))


def test_what_a_signature_lacks_in_form_is_said(ward: Ward) -> None:
    """Another body, target or host than was signed, and a missing digest."""
    good = ward.signed(b"{}")
    without = [pair for pair in good if pair[0] != b"content-digest"]
    for headers, body, target in (
        (good, b"{} ", "/v1/actions"), (good, b"{}", "/v1/runs"), (good, b"{}", "/v1/actions?wait=decision"),
        (without, b"{}", "/v1/actions"), (good[1:], b"{}", "/v1/actions"), ([good[0], *good], b"{}", "/v1/actions"),
    ):  # fmt: skip
        with pytest.raises(SignatureError):
            ward.ask(headers, body, target=target)
    assert ward.ask(good, b"{}").agent == AGENT


def test_a_signature_that_waited_too_long_decides_nothing(ward: Ward) -> None:
    """What the verifier would not accept as being of now, the gate does not either; the refusal is recorded."""
    run = ward.handle.start_run()
    raw = pay_body(run, 1)
    caller = ward.ask(ward.signed(raw), raw)
    assert caller.signed is not None
    late = replace(caller, signed=replace(caller.signed, created=caller.signed.created - 301))
    other = replace(caller, signed=replace(caller.signed, key=str(public_of(STRANGER))))
    over, never = (replace(caller, signed=replace(caller.signed, expires=end)) for end in (caller.signed.created, 0))
    for wrong in (late, other, over, never):
        with pytest.raises(CountermarkError) as error:
            ward.call("act", json.loads(raw), wrong)
        assert error.value.code == "stale_signature"
    good = replace(caller, signed=replace(caller.signed, expires=caller.signed.created + 250))
    assert ward.call("act", json.loads(raw), good)["status"] == "confirmed"


def test_a_retried_signed_request_gets_the_recorded_answer(ward: Ward) -> None:
    """The same action signed anew is the same action; its first signature is the one that is kept."""
    run = ward.handle.start_run()
    raw = pay_body(run, 1)
    answers = [ward.call("act", json.loads(raw), ward.ask(ward.signed(raw), raw)) for _ in range(2)]
    assert answers[0]["receipt"]["decided"] == answers[1]["receipt"]["decided"]
    ward.close()
    assert kinds(ward.root).count("request.signed") == 1


# --- delegation ---


def test_a_delegated_token_is_held_against_the_mandates(ward: Ward) -> None:
    """Runs begin, and actions are decided, only under mandates whose chain is the token's."""
    mine = Caller(AGENT, "enforcing", behalf=Behalf("treasurer", (AGENT,)))
    run = ward.call("run.start", {}, mine)
    assert ward.call("act", json.loads(pay_body(run, 1)), mine)["status"] == "confirmed"
    for behalf in (Behalf("controller", (AGENT,)), Behalf("treasurer", (AGENT, "clerk")), Behalf("treasurer", ())):
        other = replace(mine, behalf=behalf)
        with pytest.raises(AuthorityError) as none:
            ward.call("run.start", {}, other)
        assert none.value.code == "mandate_missing"
        with pytest.raises(CountermarkError) as wrong:
            ward.call("act", json.loads(pay_body(run, 2)), other)
        assert wrong.value.code == "other_delegation"


def test_a_chain_of_mandates_is_the_chain_of_the_token(ward: Ward) -> None:
    """The clerk acts under a child of the treasury's mandate: its token must say so, step by step."""
    now = SystemClock().now_us()
    parent = grant_to(ward.handle, ward.made, now, tools=[TOOL], payees=["*"], limits=[])
    document = mandate_document(
        ward.made.deployment, "treasurer", "clerk", not_before=now - US, not_after=now + 3_000 * US, parent=parent,
        tools=[TOOL], payees=["*"],
    )  # fmt: skip
    child = ward.handle.call("mandate.grant", grant(document, load_private(ward.made.people["treasurer"])))
    clerk = Caller("clerk", "enforcing", behalf=Behalf("treasurer", ("clerk", AGENT)))
    run = ward.call("run.start", {"mandate": child}, clerk)
    assert ward.call("act", json.loads(pay_body(run, 1)), clerk)["status"] == "confirmed"
    with pytest.raises(AuthorityError):
        ward.call("run.start", {"mandate": child}, replace(clerk, behalf=Behalf("treasurer", ("clerk",))))


# --- over HTTP ---


def test_over_http_strangers_get_401_leave_no_record_and_lose_their_connection(tmp_path: Path) -> None:
    """The one error shape, a challenge, an end of the connection; a token works, until it is revoked."""
    with Face(tmp_path / "d") as face:
        who = AgentAuthenticator(face.handle.config, face.handle.gate)
        before = len(records(face.root))
        listener = Listener(face.handle, who, ServeSettings(port=0))
        url = listener.start()
        try:
            host, port = url.removeprefix("http://").split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request(
                "POST", "/v1/runs", b"{}", {"authorization": "Bearer cmk_x", "content-type": "application/json"}
            )
            answer = connection.getresponse()
            shown = answer.read()
            assert answer.status == 401
            assert answer.getheader("www-authenticate") == "Bearer"
            assert answer.getheader("connection") == "close"
            assert json.loads(shown)["code"] == "not_authenticated"
            assert "countermark token issue" in json.loads(shown)["hint"]
            connection.close()
            made = issued(face.root)
            connection.request(
                "POST", "/v1/runs", b"{}", {"authorization": f"Bearer {made[0]}", "content-type": "application/json"}
            )
            assert connection.getresponse().status == 201
            connection.close()
        finally:
            listener.stop()
        assert face.ask("POST", "/v1/runs", {}, token="").status == 401
        assert is_problem(face.ask("POST", "/v1/runs", {}, token="nobody"))
        assert len(records(face.root)) - before == 1  # the run that the token started


def issued(root: Path) -> tuple[str, str]:
    def made(book: Any) -> Any:
        after, token, plain = issue(book, AGENT, SystemClock().now_us(), life_s=600)
        return after, (plain, token.id)

    found: tuple[str, str] = TokenFile(root).change(made)
    return found
