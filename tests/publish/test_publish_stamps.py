"""A head goes to an authority of time; what comes back is verified before it is a record."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import pytest
from publish.authority import REPLY, Answer, honest, serving
from vectors.stamps import Authority, response

from countermark.log import Offset, leaf_hash, offset_of
from countermark.model.clock import US, FakeClock
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Destination, Head
from countermark.publish import Stamps, StampSettings, read_token
from countermark.publish.stamps import EVERY_US, RETRY_US, note_text
from countermark.publish.tokens import StampError, accept, ask, read_certificates

TSA = Authority("tsa.example")
OTHER = Authority("other.example")
TEXT = "countermark/acme/l0\n6\n" + base64.b64encode(leaf_hash(b"")).decode() + "\n"
HEAD = Head(6, leaf_hash(b""), f"{TEXT}\n— countermark/acme/l0 AAAAAAAA\n".encode())


@dataclass
class Ticking(FakeClock):
    """A clock that goes on by a tenth of a second whenever it is read."""

    def now_us(self) -> int:
        self.advance(0.1)
        return self.wall_us


def stamps(url: str, clock: FakeClock, every_us: int = EVERY_US) -> Stamps:
    return Stamps(StampSettings("tsa.example", url, read_certificates(TSA.pem.encode()), every_us), clock)


def asked(answer: Answer) -> tuple[str, dict[str, object]]:
    with serving(answer) as url:
        destination = stamps(url, Ticking())
        found = destination.publish(HEAD)
        destination.close()
    assert found is not None
    return found[0], dict(found[1])


def test_a_head_becomes_a_record_with_a_verified_token() -> None:
    """The token is over the note's text; asked and answered stand around the authority's time."""
    clock = Ticking()
    with serving(honest(TSA, clock.now_us)) as url:
        destination: Destination = stamps(url, clock)
        destination.check()
        kind, body = destination.publish(HEAD) or ("", {})
        destination.close()
    assert (kind, body["size"], body["root"], body["authority"]) == ("head.stamped", 6, HEAD.root.hex(), "tsa.example")
    token = read_token(base64.b64decode(body["token"]))
    assert body["asked"] < body["answered"]
    offset = offset_of(body["asked"], body["answered"], token.earliest, token.latest)
    assert offset.low <= 0 <= offset.high
    assert note_text(HEAD.note) == TEXT.encode()


def _forged(raw: bytes, token: bytes) -> tuple[int, str, bytes]:
    return 200, REPLY, response(token)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda raw: (503, REPLY, b""), "503"),
        (lambda raw: (200, "text/html", b"<html>"), "did not answer"),
        (lambda raw: (200, REPLY, b""), "cannot be read"),
        (lambda raw: (200, REPLY, b"\x30\x05\x30\x03\x02\x01\x02"), "refused"),
        (lambda raw: (200, REPLY, b"\x30\x05\x30\x03\x02\x01\x63"), "cannot be read"),
        (lambda raw: (200, REPLY, b"\x30\x05\x30\x03\x02\x01\x00"), "cannot be read"),
        (honest(OTHER, lambda: 1_790_000_000 * US), "does not verify"),
        (honest(Authority("tsa.example", stamping=False), lambda: 1_790_000_000 * US), "does not verify"),
        (lambda raw: _forged(raw, TSA.token(TEXT.encode(), 1_790_000_000 * US)), "Nonce"),
        (lambda raw: _forged(raw, TSA.over(bytes(32), 1_790_000_000 * US, ask(b"x").nonce)), "does not verify"),
    ],
)
def test_an_answer_that_is_not_this_heads_stamp_becomes_no_record(answer: Answer, said: str) -> None:
    """Refusals, junk, other authorities, certificates for other uses, old tokens and other digests are errors."""
    with pytest.raises(StampError, match=said) as error:
        asked(answer)
    assert error.value.retryable


def test_an_answer_whose_imprint_is_another_is_refused() -> None:
    """The authority signs another digest under the right nonce: it is not over this head."""
    asking = ask(TEXT.encode())
    with pytest.raises(StampError, match="Mismatch"):
        accept(
            asking, response(TSA.over(bytes(32), 1_790_000_000 * US, asking.nonce)), read_certificates(TSA.pem.encode())
        )


def test_an_authority_is_asked_once_an_hour_and_only_about_something_new() -> None:
    """After a stamp an hour passes, after a failure a minute; a clock that goes back holds nothing up."""
    clock = FakeClock()
    with serving(honest(TSA, clock.now_us)) as url:
        destination = stamps(url, clock)
        assert not destination.due(HEAD, False, clock.now_us())
        assert destination.due(HEAD, True, clock.now_us())
        destination.publish(HEAD)
        clock.advance(EVERY_US / US - 1)
        assert not destination.due(HEAD, True, clock.now_us())
        clock.advance(1)
        assert not destination.due(HEAD, False, clock.now_us())
        assert destination.due(HEAD, True, clock.now_us())
        destination.publish(HEAD)
        clock.step(-10)
        assert destination.due(HEAD, True, clock.now_us())
        destination.close()
    destination = stamps("http://127.0.0.1:9/", clock)  # discard: nobody listens there
    with pytest.raises(CountermarkError):
        destination.publish(HEAD)
    assert not destination.due(HEAD, True, clock.now_us() + RETRY_US - 1)
    assert destination.due(HEAD, True, clock.now_us() + RETRY_US)


def test_stamps_go_only_to_an_allowed_origin() -> None:
    """Plain http to another machine is refused when the destination is made, as for every sender of the house."""
    with pytest.raises(ConfigError):
        stamps("http://tsa.example/", FakeClock())


def test_no_bent_token_leaks_a_foreign_error() -> None:
    """Whatever byte is changed, reading and verifying a token ends well or with the house's own error."""
    rng, good = Random(16), TSA.token(TEXT.encode(), 1_790_000_000 * US)
    asking, pinned = ask(TEXT.encode()), read_certificates(TSA.pem.encode())
    for _ in range(300):
        bent = bytearray(good)
        bent[rng.randrange(len(bent))] ^= 1 << rng.randrange(8)
        token = bytes(bent[: rng.choice((len(bent), len(bent), rng.randrange(len(bent))))])
        with suppress(StampError):
            read_token(token)
        with suppress(StampError):
            accept(asking, response(token), pinned)


def test_an_exchange_bounds_the_offset_of_two_clocks() -> None:
    """Ours is at least `low` and at most `high` ahead."""
    assert offset_of(100, 140, 90, 95) == Offset(5, 50)
    assert (Offset(5, 50).ahead, Offset(5, 50).behind) == (5, 0)
    assert (Offset(-50, -5).ahead, Offset(-50, -5).behind) == (0, 5)
