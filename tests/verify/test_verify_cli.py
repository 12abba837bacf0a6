"""The command: exit codes, the page for people and the document for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from verify_builder import Maker, story

from countermark_verify.cli import main


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    maker = story()
    (tmp_path / "pack.zip").write_bytes(maker.pack())
    (tmp_path / "trust.json").write_text(json.dumps(maker.trust()))
    return str(tmp_path / "pack.zip"), str(tmp_path / "trust.json")


def test_each_verdict_has_its_exit_code(files: tuple[str, str], tmp_path: Path) -> None:
    """0 verified, 1 refuted, 2 incomplete, 3 unreadable, 64 usage."""
    pack, trust = files
    forged = tmp_path / "forged.zip"
    forged.write_bytes(story().pack(key="treasurer"))
    assert main([pack, "--trust", trust]) == 0
    assert main([str(forged), "--trust", trust]) == 1
    assert main([pack]) == 2
    assert main([trust, "--trust", trust]) == 3
    assert main([str(tmp_path / "missing"), "--trust", trust]) == 3
    assert main([pack, "--trust", pack]) == 64
    assert main([pack, "--trust", str(tmp_path / "missing")]) == 64
    assert main([]) == 64
    assert main([pack, "--colour"]) == 64


def test_the_page_numbers_its_steps_and_says_the_verdict(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Fifteen numbered lines in one column, then the verdict in words."""
    main([files[0], "--trust", files[1]])
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("V") and line[3:5] == "  "]
    assert [line[:3] for line in steps] == [f"V{number:02d}" for number in range(1, 16)]
    assert lines[-1].startswith("VERIFIED: ")


def test_a_refuted_page_names_position_expected_and_actual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first bad position, and for each finding what was expected and what is there."""
    maker = story()
    maker.settle(maker.decide("x", "bank.pay", {"amount": 4, "to": "iban 1", "invoice": "Q"}, key="cm_" + "0" * 48))
    (tmp_path / "p").write_bytes(maker.pack())
    main([str(tmp_path / "p")])
    out = capsys.readouterr().out
    assert "V12.key (seq 20)" in out
    assert "actual   cm_000" in out
    assert "first bad position: seq 20" in out


def test_json_is_one_document_with_the_members_of_the_specification(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/spec/verify.md, last paragraph."""
    main([files[0], "--json"])
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["verdict", "exit", "steps", "first_bad_seq", "axes", "counts", "pack"]
    assert list(document["steps"][0]) == ["step", "title", "status", "checked", "findings"]
    finding = document["steps"][1]["findings"][0]
    assert list(finding) == ["code", "message", "seq", "expected", "actual"]
    assert {step["status"] for step in document["steps"]} <= {"ok", "refuted", "incomplete", "skipped"}
    assert document["pack"]["size"] == 20


def test_a_pack_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Control characters of a record's text reach neither the page nor the document."""
    maker = Maker().open()
    maker.add(
        "run.started", {"run": "\x9b31m\u202e", "agent": "\x9b2J", "mandate": maker.mandate, "purpose": "\x1b[2J"}
    )
    (tmp_path / "p").write_bytes(maker.pack())
    for options in ([], ["--json"]):
        main([str(tmp_path / "p"), *options])
        out = capsys.readouterr().out
        assert all(char == "\n" or char.isprintable() for char in out)


def test_it_runs_as_a_module_without_the_product(files: tuple[str, str]) -> None:
    """`python -m countermark_verify` works, and nothing of `countermark` is imported on the way."""
    code = (
        "import sys; from countermark_verify.cli import main; status = main(sys.argv[1:]);"
        "sys.exit(status or any(name.split('.')[0] == 'countermark' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, files[0], "--trust", files[1]], capture_output=True, timeout=60)
    assert done.returncode == 0, done
