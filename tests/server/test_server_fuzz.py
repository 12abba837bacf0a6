"""A fixed share of the fuzzed requests; ``python -m tests.server.fuzz --count 1000000`` sends the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from face import PROBLEM, Answer
from fuzz import Findings, Siege, judged, lost, twin_for
from fuzz_requests import Maker

SHARE, SLOW_SHARE = 2_000, 8_000
SEED = int(os.environ.get("COUNTERMARK_SEED", "1"))


def _sound(folder: Path, seed: int, numbers: range) -> None:
    found = judged(folder, seed, numbers)
    assert found.wrong == [], f"seed {seed}"
    assert found.statuses[200] > len(numbers) // 50
    assert found.statuses[400] > len(numbers) // 4
    assert len(found.actions) > len(numbers) // 20
    assert {201, 202, 401, 403, 404, 405, 413, 415, 421, 431} <= found.statuses.keys()  # it comes to all these places


def test_a_share_of_random_requests_breaks_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """No 500, no hang, no other shape, no record lost, no effect without its intent: 2,000 requests of a fixed seed."""
    _sound(tmp_path, 1, range(SHARE))


@pytest.mark.slow
def test_a_larger_share_of_random_requests(tmp_path: Path) -> None:
    """The same for 8,000 further ones; COUNTERMARK_SEED chooses others."""
    _sound(tmp_path, SEED, range(SHARE, SHARE + SLOW_SHARE))


def test_a_request_depends_on_seed_and_number_alone() -> None:
    """So a finding can be sent again, alone."""
    one, other = Maker(1, "t", "h"), Maker(1, "t", "h")
    assert [one.made(n) for n in range(200)] == [other.made(n) for n in reversed(range(200))][::-1]
    assert one.made(7) != Maker(2, "t", "h").made(7)


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    """A 500, an error of another shape, an action and a run that nobody recorded: each of them is a finding."""
    found = Findings()
    found.hear(1, [Answer(500, {"content-type": PROBLEM}, b"{}")], "GET /")
    found.hear(2, [Answer(400, {"content-type": "text/plain"}, b"no")], "GET /")
    assert len(found.wrong) == 2
    with twin_for(tmp_path / "twin") as twin:
        siege = Siege(tmp_path, twin)
        fine = siege.act({"amount": 1, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": "I"})
        found.hear(3, [fine, siege.ask("POST", "/v1/runs", {})], "POST /v1/actions")
        assert siege.stop() == 0
    assert len(found.wrong) == 2
    assert lost(siege.root, found) == []
    found.actions = {action: (seq, "sha256:" + "0" * 64) for action, (seq, _) in found.actions.items()}
    found.runs.add("run_" + "0" * 32)
    assert len(lost(siege.root, found)) == 2
