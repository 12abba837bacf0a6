"""The witness: which heads it cosigns, with which status it refuses the others, and what it keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publish_support import ORIGIN, MemoryLog, key

from countermark.log import LogSigner, open_checkpoint, parse_cosigner, read_cosignatures, with_lines
from countermark.model.clock import US, FakeClock
from countermark.model.errors import ConfigError, CountermarkError, SignatureError, StoreError
from countermark.publish import Reply, Witness, make_witness
from countermark.publish.exchange import PROOF_MAX, SIZE_TYPE, Submission, parse_submission
from countermark.publish.witness import KEPT_MAX, NOTHING_HELD, judge

LOG = MemoryLog(600)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    make_witness(tmp_path / "w", "bank.example/w1")
    made = Witness(tmp_path / "w", FakeClock())
    made.add_log(LOG.signer.vkey)
    return made


def kept(witness: Witness) -> list[str]:
    return [path.name.partition("-")[0] for path in witness.kept(ORIGIN)]


def cosigned(witness: Witness, reply: Reply, note: bytes) -> bool:
    found = read_cosignatures(with_lines(note, [reply.body]), [parse_cosigner(witness.vkey)])
    return reply.status == 200 and len(found) == 1 and found[0].at_s == FakeClock().wall_us // US


def test_a_log_that_only_grows_is_cosigned_at_every_size(witness: Witness) -> None:
    """First sight, growth and the same head again: a cosignature each, kept in the directory with both signatures."""
    for old, size in ((0, 1), (1, 255), (255, 256), (256, 256), (256, 600)):
        asked = LOG.submission(old, size)
        assert cosigned(witness, witness.add_checkpoint(asked.render()), asked.note)
        held = witness.held(ORIGIN)
        assert (held.size, held.root) == (size, LOG.head(size).root)
        assert held.note.startswith(asked.note)
    assert kept(witness) == []


def test_attacks_are_refused_with_the_specified_codes_and_kept(witness: Witness) -> None:
    """A rewrite, a truncation, a split view: 422, 409, 422, nothing cosigned, the two heads kept side by side."""
    witness.add_checkpoint(LOG.submission(0, 300).render())
    before = witness.held(ORIGIN)
    forged = MemoryLog(600, changed=5)
    rewritten = witness.add_checkpoint(forged.submission(300, 500).render())
    smaller = witness.add_checkpoint(LOG.submission(200, 200).render())
    split = witness.add_checkpoint(forged.submission(300, 300).render())
    assert [rewritten.status, smaller.status, split.status] == [422, 409, 422]
    assert (smaller.body, smaller.media) == (b"300\n", SIZE_TYPE)
    assert split.media != SIZE_TYPE
    assert witness.held(ORIGIN) == before
    assert kept(witness) == ["smaller", "split", "unproven"]
    document = json.loads(witness.kept(ORIGIN)[1].read_text())
    asked = parse_submission(document["request"].encode())
    assert (asked.note, document["held"]) == (forged.head(300).note, before.note.decode())


def test_a_split_view_is_kept_whatever_old_size_came_with_it(witness: Witness) -> None:
    """Two signed heads of one size convict by themselves; asking with a wrong old size does not hide them."""
    witness.add_checkpoint(LOG.submission(0, 300).render())
    reply = witness.add_checkpoint(MemoryLog(600, changed=5).submission(0, 300).render())
    assert (reply.status, reply.body, kept(witness)) == (409, b"300\n", ["split"])


def test_the_status_codes_are_the_specifications(witness: Witness) -> None:
    """400, 404, 403 and 409 in that order of checks; none of them leaves anything behind."""
    other = MemoryLog(3, origin="countermark/other/l0")
    imposter = MemoryLog(3, number=9)
    asked = [
        (b"", 400), (b"old 0\n\nhello\n", 400), (b"old 00\n\n" + LOG.head(1).note, 400),
        (other.submission(0).render(), 404), (imposter.submission(0).render(), 403),
        (LOG.submission(5, 3).render(), 400), (LOG.submission(2, 3).render(), 409),
        (Submission(0, (bytes(32),), LOG.head(3).note).render(), 422),
        (Submission(0, (), LOG.head(3).note[:-5] + b"AAA=\n").render(), 403),
    ]  # fmt: skip
    assert [witness.add_checkpoint(body).status for body, _ in asked] == [status for _, status in asked]
    assert witness.add_checkpoint(LOG.submission(2, 3).render()).body == b"0\n"
    assert witness.held(ORIGIN) == NOTHING_HELD
    assert kept(witness) == []


def test_other_signatures_on_a_head_are_not_kept(witness: Witness) -> None:
    """What others signed was not checked, so it does not enter what the witness holds."""
    note = with_lines(LOG.head(3).note, [LogSigner("stranger", key(8)).sign_checkpoint(3, bytes(32)).split(b"\n\n")[1]])
    assert witness.add_checkpoint(Submission(0, (), note).render()).status == 200
    assert b"stranger" not in witness.held(ORIGIN).note


def test_what_is_kept_is_bounded(witness: Witness) -> None:
    """However often a log is shown wrongly, so many files of a kind are kept, the first ones, each head once."""
    witness.add_checkpoint(LOG.submission(0, 300).render())
    for size in [*range(1, KEPT_MAX + 10), 1, 2, 3]:
        witness.add_checkpoint(LOG.submission(size, size).render())
    assert len(kept(witness)) == KEPT_MAX


def test_a_further_key_of_a_log_is_accepted_beside_the_first(witness: Witness) -> None:
    """While a log's key changes, heads signed by either are cosigned; a key of another name makes another log."""
    rotated = MemoryLog(600, number=2)
    assert witness.add_checkpoint(rotated.submission(0, 3).render()).status == 403
    assert witness.add_log(rotated.signer.vkey) == ORIGIN
    assert witness.add_checkpoint(rotated.submission(0, 3).render()).status == 200
    assert witness.add_checkpoint(LOG.submission(3, 9).render()).status == 200
    assert witness.add_log(LogSigner("b", key(3)).vkey) == "b"
    assert witness.origins() == ("b", ORIGIN)


def test_a_damaged_or_foreign_head_is_never_taken_for_none(witness: Witness, tmp_path: Path) -> None:
    """A head file that was cut, or that another key cosigned, stops the witness for that log instead of forgetting."""
    witness.add_checkpoint(LOG.submission(0, 300).render())
    (path,) = (tmp_path / "w" / "heads").iterdir()
    whole = path.read_bytes()
    for raw in (b"", whole[:-10], LOG.head(300).note):
        path.write_bytes(raw)
        with pytest.raises(StoreError):
            witness.add_checkpoint(LOG.submission(300, 301).render())
    path.write_bytes(whole)
    assert witness.add_checkpoint(LOG.submission(300, 301).render()).status == 200


def test_a_head_that_cannot_be_kept_is_not_cosigned(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails while syncing: no cosignature leaves, and the head before is still there."""
    witness.add_checkpoint(LOG.submission(0, 300).render())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError):
        witness.add_checkpoint(LOG.submission(300, 301).render())
    assert witness.held(ORIGIN).size == 300
    split = witness.add_checkpoint(MemoryLog(600, changed=1).submission(300, 300).render())
    assert split.status == 422, "a refusal stands although it cannot be kept"


def test_a_clock_that_goes_back_is_not_put_under_a_head(tmp_path: Path) -> None:
    """Cosignatures of a log never go back in time: until the clock is past the last one, none is made."""
    make_witness(tmp_path / "w", "w")
    clock = FakeClock()
    witness = Witness(tmp_path / "w", clock)
    witness.add_log(LOG.signer.vkey)
    assert witness.add_checkpoint(LOG.submission(0, 3).render()).status == 200
    clock.step(-60)
    assert witness.add_checkpoint(LOG.submission(3, 9).render()).status == 503
    assert witness.held(ORIGIN).size == 3
    clock.advance(60)
    assert witness.add_checkpoint(LOG.submission(3, 9).render()).status == 200


def test_a_witness_has_its_directory_and_key_to_itself(tmp_path: Path) -> None:
    """The key is readable by its owner alone, a directory is made once, and one process serves it at a time."""
    vkey = make_witness(tmp_path / "w", "bank/w")
    assert (tmp_path / "w" / "witness.pem").stat().st_mode & 0o777 == 0o600
    first, second = (Witness(tmp_path / "w", FakeClock()) for _ in range(2))
    assert first.vkey == vkey
    first.claim()
    with pytest.raises(ConfigError, match="another process"):
        second.claim()
    first.close()
    second.claim()
    second.close()
    with pytest.raises(ConfigError):
        make_witness(tmp_path / "w", "bank/w")
    with pytest.raises(ConfigError):
        Witness(tmp_path, FakeClock())
    with pytest.raises(SignatureError):
        make_witness(tmp_path / "v", "a name")


def test_a_request_has_one_form() -> None:
    """What is written is read back, and anything around or within it is refused."""
    asked = LOG.submission(300, 600)
    body = asked.render()
    assert parse_submission(body) == asked
    hashes = body.split(b"\n")[1]
    for bad in (
        b"old -1" + body[7:], b"Old" + body[3:], b" " + body, body.replace(b"\n", b"\r\n"), b"old 1\nx",
        body.replace(hashes, hashes[:-4]), body.replace(hashes, hashes + b"="), body.replace(hashes, b"\xff"),
        b"old 1\n" + (hashes + b"\n") * (PROOF_MAX + 1) + b"\n" + LOG.head(1).note, b"old 9223372036854775808\n\nx",
    ):  # fmt: skip
        with pytest.raises(SignatureError):
            parse_submission(bad)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 12)), max_size=12))
def test_whatever_is_shown_one_history_is_cosigned(asks: list[tuple[bool, int, int]]) -> None:
    """Against a naive model: heads of two histories with one key, in any order; what is cosigned is one growing log."""
    logs = {False: MemoryLog(12), True: MemoryLog(12, changed=4)}
    held, history = NOTHING_HELD, None
    for forged, old, size in asks:
        log = logs[forged]
        asked, head = log.submission(old, size), log.head(size)
        leaves = log.raws[:size]
        good = old == held.size <= size and (history is None or leaves[: len(history)] == history)
        refusal = judge(asked, open_checkpoint(head.note, [log.signer.vkey]), held)
        assert (refusal is None) == good
        if good:
            held, history = type(held)(size, head.root, head.note), leaves


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 5), st.integers(0, 400))
def test_foreign_bytes_are_answered_or_refused(raw: bytes, how: int, at: int) -> None:
    """Whatever is sent, the body is read or refused with our own error."""
    body = LOG.submission(3, 9).render()
    mixed = (raw, body[:at] + raw + body[at:], body[:at], raw + body, body + raw, body[:at] + body[at + 1 :])[how]
    try:
        parse_submission(mixed)
    except CountermarkError:
        pass
