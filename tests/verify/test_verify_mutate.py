"""A fixed share of the mutation harness; `python -m tests.verify.mutate` runs as many as wanted."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from mutate import mutants, operator_key, run
from verify_builder import story

from countermark_verify import load_trust, parse_trust, verify

SEED = 20_261_122
FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"
EXPECTED = json.loads((FILES / "expected.json").read_text("utf-8"))
# Every honest pack: between them they have each kind of record, member and evidence.
HONEST = sorted(name for name, row in EXPECTED.items() if row["verdict"] == "verified")


def by_the_operator(name: str, count: int, seed: int) -> None:
    """Mutants of a vector, a quarter of them signed again with the key of its log."""
    trust = load_trust(FILES / EXPECTED[name]["trust"])
    verdicts = run((FILES / name).read_bytes(), trust, count, seed, 0, operator_key("log"))
    assert verdicts.total() == count


def test_no_mutant_is_verified() -> None:
    """Flips, truncations, splices, swaps, repaired and signed again: none verified, no foreign exception."""
    maker = story()
    verdicts = run(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()), 60, SEED)
    assert verdicts.total() == 60
    assert set(verdicts) <= {"refuted", "incomplete", "unreadable"}


def test_no_mutant_raises_without_trust() -> None:
    """The same without a trust file, where no signature stands in the way of the deeper steps."""
    assert run(story().pack(), None, 30, SEED).total() == 30


@pytest.mark.parametrize("name", HONEST)
def test_no_mutant_by_the_operator_is_verified(name: str) -> None:
    """Whoever holds the log's key changes nothing that means something: a share for each honest pack."""
    by_the_operator(name, 2, SEED)


def test_a_mutant_is_drawn_again_by_its_number() -> None:
    """A finding of a long run can be looked at alone."""
    pack = story().pack()
    every = {mutant.number: mutant.data for mutant in mutants(pack, 12, SEED)}
    assert every[11] == next(mutants(pack, 1, SEED, first=11)).data


def test_a_record_that_cannot_be_read_is_no_error_where_epochs_are_made_again() -> None:
    """One of another shape in a log with epochs: refuted, and said that the epochs were not made again."""
    name = "epochs-closed.zip"
    mutant = next(mutants((FILES / name).read_bytes(), 1, 71, first=5))
    report = verify(mutant.data, load_trust(FILES / EXPECTED[name]["trust"]))
    assert report.verdict == "refuted"
    assert "V18.unreadable" in {finding.code for step in report.steps for finding in step.findings}


def test_an_enrolment_that_nobody_signed_is_no_error_where_the_policy_cannot_be_read() -> None:
    """Nothing tells how many must sign, and there is no first one."""
    pack = (FILES / "enrolment-by-nobody-in-a-test.zip").read_bytes()
    mutant = next(mutants(pack, 1, 2001, 6, operator_key("log")))
    assert verify(mutant.data, None).verdict == "refuted"


@pytest.mark.slow
def test_no_mutant_is_verified_at_length() -> None:
    """A thousand more, and two hundred without trust."""
    maker = story()
    run(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()), 1_000, SEED + 1)
    run(maker.pack(), None, 200, SEED + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_no_mutant_by_the_operator_is_verified_at_length(name: str) -> None:
    """Fifteen for each honest pack."""
    by_the_operator(name, 15, SEED + 1)


@pytest.mark.slow
def test_no_mutant_of_a_forged_pack_is_an_error() -> None:
    """Packs that are refuted or incomplete as they are, changed further, with the auditor's trust file and without."""
    odd = []
    for name, row in sorted(EXPECTED.items()):
        if row["verdict"] not in ("refuted", "incomplete"):
            continue
        try:
            drawn = list(mutants((FILES / name).read_bytes(), 1, SEED, 0, operator_key("log")))
        except (zlib.error, IndexError, KeyError, ValueError):  # forged so that the harness cannot take it apart
            odd.append(name)
            continue
        trust = load_trust(FILES / row["trust"]) if row["trust"] else None
        for mutant in drawn:
            for known in (trust, None):
                assert verify(mutant.data, known).verdict != "verified", f"{name}: {mutant.number} {mutant.story}"
    assert len(odd) < 20, odd
