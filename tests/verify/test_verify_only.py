"""`--only integrity`: the first eight steps, quickly; it can refute and never verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from verify_builder import story

from countermark_verify import parse_trust, verify
from countermark_verify.cli import main
from countermark_verify.report import STEPS

ASKED = [step for step, _ in STEPS[:8]]
FILES = Path(__file__).parent.parent / "vectors" / "files"
EXPECTED = json.loads((FILES / "expected.json").read_text("utf-8"))


def test_an_honest_pack_is_incomplete_and_no_later_step_ran() -> None:
    """What was not asked is skipped, shows no counts, and keeps the verdict from being verified."""
    maker = story()
    report = verify(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()), only="integrity")
    assert (report.verdict, report.exit, report.codes()) == ("incomplete", 2, [])
    assert {step.status for step in report.steps if step.step not in ASKED} == {"skipped"}
    assert all(step.status == "ok" for step in report.steps if step.step in set(ASKED) - {"V08"})
    assert (set(report.axes), report.counts, report.pack["only"]) == ({"integrity"}, {}, "integrity")
    assert report.axes["integrity"]["level"] == "retained"


def test_a_lie_of_the_decisions_is_not_looked_at_and_nothing_is_verified() -> None:
    """An insider's false key is V12's to find: this mode says incomplete, where the whole verification refutes."""
    maker = story()
    maker.settle(maker.decide("x", "bank.pay", {"amount": 4, "to": "iban 1", "invoice": "Q"}, key="cm_" + "0" * 48))
    trust = parse_trust(json.dumps(maker.trust()).encode())
    assert verify(maker.pack(), trust).verdict == "refuted"
    assert verify(maker.pack(), trust, only="integrity").verdict == "incomplete"


def trust_of(name: str) -> str | None:
    trust = EXPECTED[name].get("trust")
    return str(FILES / trust) if trust else None


@pytest.mark.slow
def test_it_finds_in_its_steps_what_the_whole_verification_finds() -> None:
    """Of every fourth vector: the same findings of V01 to V08, code and position."""
    from countermark_verify import load_trust

    differing = []
    for name in sorted(EXPECTED)[::4]:
        given = trust_of(name)
        trust = load_trust(given) if given else None
        whole, part = verify(FILES / name, trust), verify(FILES / name, trust, only="integrity")
        assert part.verdict != "verified", name
        own = [[(f.code, f.seq) for step in r.steps[:8] for f in step.findings] for r in (whole, part)]
        if own[0] != own[1]:
            differing.append((name, own))
    assert not differing


def test_the_command_takes_it_and_says_what_was_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that names the mode; with the proof of one record, and another word, it is wrong usage."""
    maker = story()
    pack, trust = tmp_path / "pack.zip", tmp_path / "trust.json"
    pack.write_bytes(maker.pack())
    trust.write_text(json.dumps(maker.trust()))
    assert main([str(pack), "--trust", str(trust), "--only", "integrity"]) == 2
    page = capsys.readouterr().out
    assert "only integrity was asked" in page
    assert "VERIFIED" not in page
    assert main([str(pack), "--only", "everything"]) == 64
    assert main([str(pack), "--record", str(trust), "--only", "integrity"]) == 64
