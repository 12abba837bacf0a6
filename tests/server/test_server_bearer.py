"""JWTs as credentials: issuers, keys, algorithms, times, audiences, SPIFFE IDs and chains of delegation."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from countermark.authority import Behalf
from countermark.connectors import LostError
from countermark.gate import Caller
from countermark.model.clock import US, FakeClock, SystemClock
from countermark.model.errors import AuthorityError, ConfigError, CountermarkError
from countermark.server import jwks
from countermark.server.bearer import Bearers
from countermark.wiring.issuers import read_issuers

NOW = 1_790_000_000
ISSUER = "https://idp.example"
AUDIENCE = "countermark/acme"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()


def jwk(private: Any, kid: str, algorithm: str) -> dict[str, Any]:
    """The public half as an issuer publishes it."""
    made = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}[algorithm]
    found: dict[str, Any] = dict(made.to_jwk(private.public_key(), as_dict=True))  # type: ignore[attr-defined]
    return {k: v for k, v in found.items() if k != "key_ops"} | {"kid": kid, "use": "sig", "alg": algorithm}


KEYS = [jwk(RSA, "r", "RS256"), jwk(EC, "e", "ES256"), jwk(ED, "d", "EdDSA")]


def claims(**more: Any) -> dict[str, Any]:
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "treasury", "iat": NOW, "exp": NOW + 300} | more
    return {name: value for name, value in found.items() if value is not None}


def token(key: Any = ED, algorithm: str = "EdDSA", kid: str | None = "d", *, headers: Mapping[str, Any] | None = None,
          **more: Any) -> str:  # fmt: skip
    head = {**({} if kid is None else {"kid": kid}), **(headers or {})}
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=head)


def bearers(folder: Path, keys: Any = None, **section: Any) -> Bearers:
    (folder / "jwks.json").write_text(json.dumps({"keys": KEYS if keys is None else keys}))
    table = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": "jwks.json"} | section
    return Bearers(read_issuers([table], folder, "countermark.toml"), FakeClock(NOW * US))


def ask(found: Bearers, text: str) -> Caller:
    return asyncio.run(found.caller(text, "enforcing"))


def refused(found: Bearers, text: str) -> str:
    """The reason, which only the server's own log has."""
    with pytest.raises(AuthorityError) as error:
        ask(found, text)
    assert error.value.code == "not_authenticated"
    return error.value.message


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")])
def test_a_token_of_a_known_issuer_names_its_agent(tmp_path: Path, key: Any, algorithm: str, kid: str) -> None:
    """Each asymmetric algorithm that is allowed works, and the caller is the claim's agent."""
    caller = ask(bearers(tmp_path), token(key, algorithm, kid))
    assert caller == Caller("treasury", "enforcing")


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": NOW - 31}, {"exp": None}, {"iat": None}, {"aud": None}, {"aud": "countermark/umbra"}, {"iss": "https://x"},
        {"iss": None}, {"sub": None}, {"sub": "Not A Name"}, {"sub": ["treasury"]}, {"nbf": NOW + 31},
        {"iat": NOW + 31}, {"exp": NOW + 90_000}, {"iat": NOW - 90_000}, {"exp": "soon"}, {"exp": True},
        {"aud": ["a"] * 40}, {"aud": []}, {"exp": NOW + 300.5}, {"nbf": "x"},
    ],
)  # fmt: skip
def test_a_claim_that_is_missing_late_or_of_another_kind_refuses(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Expiry, issue, audience, issuer and subject must be there and right."""
    assert refused(bearers(tmp_path), token(**wrong))


def test_clocks_may_differ_a_little_and_one_of_several_audiences_suffices(tmp_path: Path) -> None:
    """Half a minute either way; ``aud`` may be a list."""
    found = bearers(tmp_path)
    assert ask(found, token(exp=NOW - 29, iat=NOW - 300)).agent == "treasury"
    assert ask(found, token(nbf=NOW + 30, iat=NOW + 30)).agent == "treasury"
    assert ask(found, token(aud=["another", AUDIENCE])).agent == "treasury"


def test_the_algorithm_is_the_issuers_never_the_tokens_choice(tmp_path: Path) -> None:
    """``none``, a shared secret made of the public key, and an algorithm that is not allowed here are refused."""
    found = bearers(tmp_path, algorithms=["RS256"])
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def made(header: dict[str, Any], secret: bytes | None) -> str:
        parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, claims())]
        raw = b".".join(parts)
        mac = b"" if secret is None else hmac.new(secret, raw, hashlib.sha256).digest()
        return (raw + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

    assert refused(found, made({"alg": "none"}, None))
    assert refused(found, made({"alg": "none", "kid": "r"}, b"x"))
    assert "algorithm" in refused(found, made({"alg": "HS256", "kid": "r"}, public))
    assert "algorithm" in refused(found, token(EC, "ES256", "e"))
    assert "algorithm" in refused(found, token(RSA, "RS512", "r"))


def test_a_key_answers_for_its_own_id_and_algorithm_only(tmp_path: Path) -> None:
    """Another key's ID, an unknown ID, an ambiguous one and none at all among several keys are refused."""
    found = bearers(tmp_path)
    assert refused(found, token(OTHER, "EdDSA", "d"))
    assert refused(found, token(ED, "EdDSA", "r"))
    assert refused(found, token(ED, "EdDSA", "unknown"))
    two = bearers(tmp_path, [KEYS[2], jwk(OTHER, "d", "EdDSA")])
    assert refused(two, token())
    assert refused(bearers(tmp_path, [KEYS[2], jwk(OTHER, "o", "EdDSA")]), token(kid=None))
    assert ask(bearers(tmp_path, [KEYS[2]]), token(kid=None)).agent == "treasury"


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example"}, {"jwk": KEYS[2]}, {"x5u": "https://evil.example"}, {"x5c": ["AA"]},
        {"crit": ["exp"]}, {"zip": "DEF"}, {"cty": "JWT"}, {"typ": "dpop+jwt"}, {"typ": "logout+jwt"},
    ],
)  # fmt: skip
def test_a_header_that_brings_or_names_keys_is_refused(tmp_path: Path, headers: dict[str, Any]) -> None:
    """Only alg, kid, typ and a certificate's thumbprint may stand there; other kinds of token are none."""
    assert refused(bearers(tmp_path), token(headers=headers))


def test_a_key_set_with_a_private_a_weak_or_no_key_opens_nothing(tmp_path: Path) -> None:
    """A private or symmetric key in the set spoils it; RSA of 1,024 bits and keys for encryption verify nothing."""
    private = dict(OKPAlgorithm.to_jwk(ED, as_dict=True)) | {"kid": "d", "alg": "EdDSA"}
    assert refused(bearers(tmp_path, [private]), token())
    assert refused(bearers(tmp_path, [*KEYS, {"kty": "oct", "k": "AAAA", "kid": "s"}]), token())
    assert refused(bearers(tmp_path, [KEYS[2] | {"use": "enc"}]), token())
    with pytest.warns(InsecureKeyLengthWarning):
        weak = token(WEAK, "RS256", "w")
    assert refused(bearers(tmp_path, [jwk(WEAK, "w", "RS256")]), weak)
    assert refused(bearers(tmp_path, {}), token())
    found = bearers(tmp_path)
    (tmp_path / "jwks.json").unlink()
    assert refused(found, token())


def test_a_key_set_in_a_file_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    """A key that was taken out verifies nothing any more."""
    found = bearers(tmp_path)
    assert ask(found, token()).agent == "treasury"
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk(OTHER, "d", "EdDSA")]}))
    assert refused(found, token())
    assert ask(found, token(OTHER)).agent == "treasury"


@settings(derandomize=True, max_examples=150)
@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True)
)
def test_junk_is_refused_like_everything_else(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Nothing but ``not_authenticated`` comes out, whatever goes in."""
    assert refused(bearers(tmp_path_factory.getbasetemp()), text)


def test_long_and_changed_tokens_are_refused(tmp_path: Path) -> None:
    """A token has a bound, and every part of it is signed."""
    found, good = bearers(tmp_path), token()
    assert "signed JWT" in refused(found, token(extra="x" * 9_000))
    for part in range(3):
        pieces = good.split(".")
        pieces[part] = pieces[part][:-2] + ("AA" if pieces[part][-2:] != "AA" else "BB")
        assert refused(found, ".".join(pieces))
    assert refused(found, good + ".x")


def test_a_token_for_one_request_is_good_for_one(tmp_path: Path) -> None:
    """With ``once``, a jti is needed and works a single time."""
    found = bearers(tmp_path, once=True)
    assert refused(found, token())
    assert ask(found, token(jti="1")).agent == "treasury"
    assert "before" in refused(found, token(jti="1"))
    assert ask(found, token(jti="2")).agent == "treasury"


def test_a_claim_may_be_mapped_to_the_policys_names(tmp_path: Path) -> None:
    """With a table, only what stands in it is an agent; another claim than ``sub`` may name it."""
    found = bearers(tmp_path, claim="azp", agents={"client-7": "treasury"})
    assert ask(found, token(azp="client-7")).agent == "treasury"
    assert refused(found, token(azp="treasury"))
    assert refused(found, token())


def test_a_spiffe_id_names_an_agent_by_the_table_of_its_trust_domain(tmp_path: Path) -> None:
    """A JWT-SVID needs no issuer and no iat; another trust domain, another path and a borrowed prefix are refused."""
    spiffe = "spiffe://example.org"
    found = bearers(tmp_path, issuer=spiffe, agents={spiffe + "/pay": "treasury"})
    assert ask(found, token(iss=None, iat=None, sub=spiffe + "/pay")).agent == "treasury"
    assert ask(found, token(iss="https://spire.example", sub=spiffe + "/pay")).agent == "treasury"
    for subject in (spiffe + "/other", spiffe, "spiffe://example.org.evil/pay", "spiffe://evil/pay", "treasury"):
        assert refused(found, token(iss=spiffe, sub=subject))


def delegated(*actors: str, **more: Any) -> dict[str, Any]:
    act: dict[str, Any] | None = None
    for actor in reversed(actors):
        act = {"sub": actor, **({} if act is None else {"act": act})}
    return {"sub": "alice@idp", "act": act} | more


def test_a_delegated_token_states_principal_and_actors(tmp_path: Path) -> None:
    """The outermost actor calls; its chain and the person behind it go along, to be held against the mandates."""
    found = bearers(tmp_path, principals={"alice@idp": "treasurer"})
    caller = ask(found, token(**delegated("clerk", "treasury")))
    assert caller == Caller("clerk", "enforcing", behalf=Behalf("treasurer", ("clerk", "treasury")))


@pytest.mark.parametrize(
    "wrong",
    [
        delegated("clerk", sub="mallory@idp"), delegated(*["clerk"] * 9), delegated("Not A Name"), {"act": {}},
        {"act": "clerk"}, {"act": {"sub": "clerk", "extra": 1}}, {"act": {"sub": "clerk", "iss": "https://evil"}},
        {"act": {"sub": "clerk", "act": []}}, {"act": None},
    ],
)  # fmt: skip
def test_a_chain_with_a_stranger_in_it_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Everybody in the chain is declared, and it is not long."""
    found = bearers(tmp_path, principals={"alice@idp": "treasurer"})
    assert refused(found, token(**({"sub": "alice@idp"} | wrong)))


@pytest.mark.parametrize(
    "section",
    [
        "x", [1], [{}], [{"issuer": "a", "audience": "b"}], [{"issuer": "a", "audience": "b", "jwks": "http://evil/x"}],
        [{"issuer": "a", "audience": "b", "jwks": "ftp://evil/x"}], [{"issuer": "a", "audience": "b", "jwks": "https://u:p@h/x"}],
        [{"issuer": "a", "audience": "b", "jwks": "f", "algorithms": ["HS256"]}],
        [{"issuer": "a", "audience": "b", "jwks": "f", "algorithms": ["none"]}],
        [{"issuer": "a", "audience": "b", "jwks": "f", "algorithms": []}],
        [{"issuer": "a", "audience": "b", "jwks": "f", "secret": "s"}],
        [{"issuer": "a", "audience": "b", "jwks": "f", "agents": {"x": "Not A Name"}}],
        [{"issuer": "spiffe://a/b", "audience": "b", "jwks": "f", "agents": {"spiffe://a/b/c": "x"}}],
        [{"issuer": "spiffe://a", "audience": "b", "jwks": "f"}],
        [{"issuer": "spiffe://a", "audience": "b", "jwks": "f", "agents": {"spiffe://ab/c": "x"}}],
        [{"issuer": "a", "audience": "b", "jwks": "f"}] * 2,
    ],
)  # fmt: skip
def test_a_section_that_would_trust_too_much_is_refused(tmp_path: Path, section: Any) -> None:
    """Symmetric algorithms, plain http, unknown keys and names that are none are errors of the configuration."""
    with pytest.raises(ConfigError):
        read_issuers(section, tmp_path, "countermark.toml")


class Publisher:
    """An issuer's key set on loopback."""

    def __init__(self) -> None:
        self.body, self.status, self.location, self.asked = b"", 200, "", 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


def over_http(publisher: Publisher, folder: Path) -> tuple[Bearers, FakeClock]:
    clock = FakeClock(NOW * US)
    table = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": publisher.url}
    return Bearers(read_issuers([table], folder, "countermark.toml"), clock), clock


def test_keys_are_fetched_seldom_whatever_key_ids_strangers_invent(publisher: Publisher, tmp_path: Path) -> None:
    """One fetch serves many tokens; unknown key IDs cause one more in half a minute; a new key is then found."""
    publisher.publish(KEYS[2])
    found, clock = over_http(publisher, tmp_path)

    async def all_of_it() -> None:
        for _ in range(5):
            assert (await found.caller(token(), "enforcing")).agent == "treasury"
        assert publisher.asked == 1
        for n in range(5):
            with pytest.raises(AuthorityError):
                await found.caller(token(OTHER, kid=f"invented-{n}"), "enforcing")
        assert publisher.asked == 1
        publisher.publish(KEYS[2], jwk(OTHER, "next", "EdDSA"))
        clock.advance(31)
        assert (await found.caller(token(OTHER, kid="next"), "enforcing")).agent == "treasury"
        assert publisher.asked == 2

    asyncio.run(all_of_it())


def test_a_publisher_that_sends_a_byte_now_and_then_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole answer has to come in time, not each piece of it: no thread of the gate's waits for ever."""
    monkeypatch.setattr(jwks, "FETCH_S_MAX", 1)
    done = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(4_096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not done.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        slow = threading.Thread(target=drip, args=(listener,))
        slow.start()
        began = SystemClock().steady_us()
        with pytest.raises(LostError):
            jwks.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/keys")
        assert SystemClock().steady_us() - began < 10 * US
        done.set()
        slow.join()


def test_keys_that_cannot_be_refreshed_are_used_for_an_hour_and_no_longer(publisher: Publisher, tmp_path: Path) -> None:
    """A publisher that is away for a while stops nobody; one that stays away stops everybody."""
    publisher.publish(KEYS[2])
    found, clock = over_http(publisher, tmp_path)

    async def all_of_it() -> None:
        await found.caller(token(), "enforcing")
        publisher.status = 500
        clock.advance(1_000)
        await found.caller(token(iat=NOW + 1_000, exp=NOW + 1_300), "enforcing")
        clock.advance(2_700)
        with pytest.raises(AuthorityError):
            await found.caller(token(iat=NOW + 3_700, exp=NOW + 4_000), "enforcing")

    asyncio.run(all_of_it())


def test_a_redirect_an_endless_answer_and_junk_bring_no_keys(publisher: Publisher, tmp_path: Path) -> None:
    """Only a bounded answer of 200 from the configured place counts."""
    publisher.publish(KEYS[2])
    good = publisher.body
    for status, body, location in (
        (302, good, publisher.url),
        (200, b"x" * 300_000, ""),
        (200, b"{", ""),
        (200, b"[]", ""),
    ):
        publisher.status, publisher.body, publisher.location = status, body, location
        found, _ = over_http(publisher, tmp_path)
        assert refused(found, token())


def test_errors_of_this_room_are_of_one_family(tmp_path: Path) -> None:
    """Whoever catches the product's error catches these."""
    with pytest.raises(CountermarkError):
        ask(bearers(tmp_path), "a.b.c")
