"""A fixed share of the mutation harness; `python -m tests.verify.mutate` runs as many as wanted."""

from __future__ import annotations

import json

import pytest
from mutate import mutants, run
from verify_builder import story

from countermark_verify import parse_trust

SEED = 20_261_122


def test_no_mutant_is_verified() -> None:
    """Flips, truncations, splices, swaps, repaired and signed again: none verified, no foreign exception."""
    maker = story()
    verdicts = run(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()), 90, SEED)
    assert verdicts.total() == 90
    assert set(verdicts) <= {"refuted", "incomplete", "unreadable"}


def test_no_mutant_raises_without_trust() -> None:
    """The same without a trust file, where no signature stands in the way of the deeper steps."""
    assert run(story().pack(), None, 45, SEED).total() == 45


def test_a_mutant_is_drawn_again_by_its_number() -> None:
    """A finding of a long run can be looked at alone."""
    pack = story().pack()
    every = {mutant.number: mutant.data for mutant in mutants(pack, 12, SEED)}
    assert every[11] == next(mutants(pack, 1, SEED, first=11)).data


@pytest.mark.slow
def test_no_mutant_is_verified_at_length() -> None:
    """Twenty thousand more, and a thousand without trust."""
    maker = story()
    run(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()), 20_000, SEED + 1)
    run(maker.pack(), None, 1_000, SEED + 1)
