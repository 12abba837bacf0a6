"""`--jobs`: processes that look ahead change how long a verification takes, and not a word of what it says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from verify_builder import story

from countermark_verify import as_json, load_trust, parse_trust, verify
from countermark_verify.canon import digest
from countermark_verify.certificate import Certificate, certify, unpack
from countermark_verify.cli import main
from countermark_verify.envelope import parse_record
from countermark_verify.errors import Malformed, WorkerError
from countermark_verify.order import Order
from countermark_verify.report import Ledger
from countermark_verify.trust import Trust
from countermark_verify.workers import Bundle, Examiner, Inline, Workers

FILES = Path(__file__).parent.parent / "vectors" / "files"
EXPECTED = json.loads((FILES / "expected.json").read_text("utf-8"))
NAMES = sorted(EXPECTED)


def trust_of(name: str) -> Trust | None:
    trust = EXPECTED[name].get("trust")
    return load_trust(FILES / trust) if trust else None


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def differing(names: list[str], examiner: Examiner, only: str | None = None) -> list[str]:
    """The vectors about which the whole report is another one with an examiner."""
    found = []
    for name in names:
        alone = verify(FILES / name, trust_of(name), only=only)
        if as_json(alone) != as_json(verify(FILES / name, trust_of(name), only=only, examiner=examiner)):
            found.append(name)
    return found


def test_two_processes_say_what_one_says(workers: Workers) -> None:
    """Every thirtieth vector, whole and of integrity only: the same document, finding by finding, word by word."""
    assert not differing(NAMES[::30], workers)
    assert not differing(NAMES[::30], workers, "integrity")


@pytest.mark.slow
def test_two_processes_say_of_every_vector_what_one_says(workers: Workers) -> None:
    """Every sixth vector (COUNTERMARK_CASES=all: each), whole and of integrity only, with one pool for all of them."""
    names = NAMES if os.environ.get("COUNTERMARK_CASES") == "all" else NAMES[::6]
    assert not differing(names, workers)
    assert not differing(names, workers, "integrity")


# Every way to cut a log into bundles, and every lie about its order.


def framed(raws: list[bytes]) -> bytes:
    return b"".join(len(raw).to_bytes(2, "big") + raw for raw in raws)


def entries_of(name: str) -> list[bytes]:
    import zipfile

    found = []
    with zipfile.ZipFile(FILES / name) as pack:
        for member in sorted(pack.namelist()):
            if member.startswith("log/tile/entries/"):
                data, at = pack.read(member), 0
                while at < len(data):
                    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
                    found.append(data[at + 2 : end])
                    at = end
    return found


def one_by_one(ledger: Ledger, order: Order, first: int, raws: list[bytes]) -> None:
    for position, raw in enumerate(raws, first):
        own = digest("record", raw)
        try:
            record = parse_record(raw)
        except Malformed:
            order.unreadable(position, own)
            continue
        order.check(position, record, own)


def said(ledger: Ledger) -> list[object]:
    return [(f.code, f.message, f.seq, f.expected, f.actual) for step in ledger.steps.values() for f in step.findings]


def lie(document: dict[str, object], rng: random.Random) -> None:
    """One thing about a record's place that is not so."""
    streams = document["streams"]
    assert isinstance(streams, dict)
    name = rng.choice(sorted(streams))
    place, of = streams[name]
    which = rng.randrange(9)
    if which == 0:
        document["prev"] = "sha256:" + "1" * 64
    elif which == 1:
        document["seq"] = int(str(document["seq"])) + rng.choice((-1, 1))
    elif which == 2:
        document["at"] = rng.choice((0, 2**50))
    elif which == 3:
        document["lane"] = "l9"
    elif which == 4:
        document["nonce"] = "0" * 32
    elif which == 5:
        streams[name] = [place + rng.choice((-1, 1)), of]
    elif which == 6:
        streams[name] = [place, "sha256:" + "2" * 64]
    elif which == 7:
        streams[name[:2] + "3" * 32] = streams.pop(name)
    else:
        del streams[name]


def test_however_a_log_is_cut_the_same_is_said_of_its_order() -> None:
    """Certificates of random cuts, or single records where there is none: the findings of single records alone."""
    rng, taken = random.Random(11), 0
    honest = entries_of("honest.zip")
    for turn in range(150):
        raws = list(honest)
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(len(raws))
            document = json.loads(raws[at])
            lie(document, rng)
            raws[at] = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
            if rng.random() < 0.5:  # whoever follows names it: the chain goes on, and the lie stands alone
                after = json.loads(raws[at + 1]) if at + 1 < len(raws) else None
                if after is not None:
                    after["prev"] = digest("record", raws[at])
                    raws[at + 1] = json.dumps(after, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        if turn % 10 == 9:
            raws.insert(rng.randrange(len(raws)), rng.choice(raws))
        alone, cut = Ledger(), Ledger()
        one_by_one(alone, Order(alone), 0, raws)
        order, first = Order(cut), 0
        while first < len(raws):
            some = raws[first : first + rng.randrange(1, 9)]
            made = certify(first, len(some), framed(some))
            if made is not None and order.take(unpack(made.pack())):
                taken += 1
            else:
                one_by_one(cut, order, first, some)
            first += len(some)
        assert said(alone) == said(cut), turn
        assert alone.steps["V06"].checked == cut.steps["V06"].checked
    assert taken > 500


def test_a_certificate_is_what_the_records_are() -> None:
    """Digests, leaves, times and streams of a bundle are those of its records, and survive the pipe."""
    raws = entries_of("honest.zip")
    made = certify(0, len(raws), framed(raws))
    assert made is not None
    assert unpack(made.pack()) == made
    assert [made.digest(offset) for offset in range(len(raws))] == [digest("record", raw) for raw in raws]
    records = [parse_record(raw) for raw in raws]
    assert (made.at, made.until) == (records[0]["at"], records[-1]["at"])
    assert {name for name, *_ in made.links()} == {name for record in records for name in record["streams"]}


def test_bytes_that_are_no_bundle_have_no_certificate() -> None:
    """Too few entries, bytes behind the last one, none at all, and a record that is none."""
    raws = entries_of("honest.zip")
    data = framed(raws)
    assert certify(0, len(raws) + 1, data) is None
    assert certify(0, len(raws), data + b"\0") is None
    assert certify(0, len(raws), data[:-1]) is None
    assert certify(0, 0, b"") is None
    assert certify(0, 1, framed([b"{}"])) is None
    assert certify(1, len(raws), data) is None


def test_a_worker_that_ends_is_an_error_and_no_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before it answered: `WorkerError`, and from the program exit code 70 with nothing on stdout."""
    maker = story()
    trust = parse_trust(json.dumps(maker.trust()).encode())
    with Workers(2) as pool:
        for worker in pool._workers:
            worker._process.kill()
            worker._process.wait()
        with pytest.raises(WorkerError, match="worker process"):
            verify(maker.pack(), trust, examiner=pool)
    monkeypatch.setattr("countermark_verify.workers._START", "raise SystemExit(3)")
    assert main([str(FILES / "honest.zip"), "--jobs", "2", "--json"]) == 70
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "a worker process ended before it had answered" in shown.err


def test_an_answer_that_is_no_certificate_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes out of the pipe instead of a certificate is no verdict either."""
    lying = (
        "import struct, sys, time; sys.stdout.buffer.write(struct.pack('>I', 3) + b'abc'); sys.stdout.flush();"
        " sys.stdin.buffer.read()"
    )
    monkeypatch.setattr("countermark_verify.workers._START", lying)
    with Workers(1) as pool, pytest.raises(WorkerError, match="no certificate"):
        verify(FILES / "honest.zip", trust_of("honest.zip"), examiner=pool)


def test_a_worker_reads_no_module_from_the_working_directory(tmp_path: Path) -> None:
    """A `json.py` beside a hostile pack is not run by the processes that are started there."""
    for name in ("json", "struct", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)", "utf-8")
    program = "import sys; sys.path[:] = sys.argv[1:2] + sys.path[1:]; from countermark_verify.cli import main; " + (
        "sys.exit(main(sys.argv[2:]))"
    )
    src = str(Path(__file__).parents[2] / "src")
    trust = str(FILES / EXPECTED["honest.zip"]["trust"])
    words = [sys.executable, "-I", "-c", program, src, str(FILES / "honest.zip"), "--trust", trust, "--jobs", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", ["0", "65", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_that_is_none_is_a_usage_error(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 64, before the pack is looked at."""
    assert main(["nowhere.pack", f"--jobs={number}"]) == 64
    assert "from 1 to 64" in capsys.readouterr().err


def test_who_reads_no_further_leaves_nothing_for_the_next(workers: Workers) -> None:
    """Answers that were not asked for any more are not taken for those of the next pack."""
    raws = entries_of("honest.zip")
    bundle: Bundle = (0, len(raws), memoryview(framed(raws)))
    some = workers.examine(bundle for _ in range(40))
    assert isinstance(next(some), Certificate)
    some.close()  # type: ignore[attr-defined]
    assert [one is None for one in workers.examine([(1, len(raws), bundle[2])])] == [True]


def test_one_process_with_certificates_says_the_same() -> None:
    """Where there is one processor, the same looks are taken in the process itself."""
    assert not differing(NAMES[5::60], Inline())
