"""The command: exit codes, the page for people and the document for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from verify_builder import Maker, story
from verify_bytes import public, verifier_key

from countermark_verify.cli import main
from countermark_verify.report import STEPS, Ledger, money


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
    """A numbered line for every step, in one column, then the verdict in words."""
    main([files[0], "--trust", files[1]])
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("V") and line[3:5] == "  "]
    assert [line[:3] for line in steps] == [step for step, _ in STEPS]
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
    assert list(document) == ["verdict", "exit", "steps", "first_bad_seq", "axes", "not_checked", "counts", "pack"]
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


def test_the_trust_file_of_another_deployment_is_named_as_such(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One finding for each step on the page, the others counted; the document has them all."""
    other = story().trust()
    origin = other["log"]["origin"]
    name = "countermark/elsewhere/l0"
    other["log"] = {"origin": name, "keys": [verifier_key(name, public("elsewhere"))]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    options = [files[0], "--trust", str(tmp_path / "other.json")]
    assert main(options) == 1
    page = capsys.readouterr().out
    assert "V03.origin: this pack is of another log than the trust file" in page
    assert origin in page
    assert " more)" in page
    lines = page.splitlines()
    assert sum(line.startswith("       V") for line in lines) == sum("refuted  " in line for line in lines) + 1
    main([*options, "--json"])
    codes = [item["code"] for step in json.loads(capsys.readouterr().out)["steps"] for item in step["findings"]]
    assert {"V02.signature", "V03.origin", "V03.signature", "V07.no_trust"} <= set(codes)
    assert "V07.rewritten" not in codes


def test_a_faulty_trust_file_names_its_member(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where, and what should stand there."""
    trust = story().trust()
    for change, said in (
        ({"heads": [trust["heads"][0] | {"size": "7"}]}, "the trust file's member heads[0].size: not an integer"),
        ({"heads": [trust["heads"][0] | {"root": "AAAA"}]}, "root must be base64 of 32 bytes"),
        ({"heads": [trust["heads"][0] | {"root": "not base64"}]}, "root must be base64 of 32 bytes"),
        ({"extra": 1}, "the trust file's member extra: unknown member"),
        ({"log": trust["log"] | {"keys": [*trust["log"]["keys"], "x"]}}, "log.keys[1] "),
        ({"people": {"author": ["ed25519:AAAA"]}}, "people.author[0] "),
        (
            {"witnesses": {"quorum": 1, "keys": [{"key": "x", "operator": "elsewhere"}]}},
            "witnesses.keys[0] (elsewhere) ",
        ),
        ({"stamps": [{"certificate": "x", "operator": "elsewhere"}]}, "stamps[0] (elsewhere): not PEM"),
    ):
        (tmp_path / "t.json").write_text(json.dumps(trust | change))
        assert main([files[0], "--trust", str(tmp_path / "t.json")]) == 64
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith(str(tmp_path / "t.json"))
    for raw, said in ((b'{\n"v": 1,\n}', "line 3, column 1"), (b'{\n"v": "\xff"}', "line 2")):
        (tmp_path / "t.json").write_bytes(raw)
        assert main([files[0], "--trust", str(tmp_path / "t.json")]) == 64
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nope.zip", "text.zip"])
def test_what_is_no_pack_is_one_sentence(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With its name and why, and no line of a step that had nothing to look at; a program gets the whole document."""
    (tmp_path / "text.zip").write_text("no pack")
    pack = str(tmp_path / name)
    assert main([pack]) == 3
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"UNREADABLE: {pack}: ")
    assert line.endswith("]")
    assert main([pack, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["exit"], len(document["steps"])) == ("unreadable", 3, len(STEPS))


def test_a_directory_is_called_one(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a pack and as a trust file."""
    assert main([str(tmp_path), "--trust", files[1]]) == 3
    assert "it is a directory" in capsys.readouterr().out
    assert main([files[0], "--trust", str(tmp_path)]) == 64
    assert "is a directory" in capsys.readouterr().err


def test_totals_are_in_the_units_that_people_use(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """ISO 4217 digits; what it does not know stays in smallest units. Sources are said not to be compiled."""
    assert money(4_727_505, "EUR") == "47,275.05 EUR"
    assert money(4_727_505, "jpy") == "4,727,505 JPY"
    assert money(4_727_505, "KWD") == "4,727.505 KWD"
    assert money(7, "usd") == "0.07 USD"
    assert money(7, "credits") == "7 (smallest units) credits"
    main([files[0], "--trust", files[1]])
    page = capsys.readouterr().out
    assert "confirmed     612.00 EUR" in page
    assert "sources" in page.partition("not checked")[2]


def test_what_refutes_is_shown_before_what_only_lacks() -> None:
    """A step's first finding is a reason for its status, however many others came before it."""
    ledger = Ledger()
    for seq in range(150):
        ledger.lack("V10.no_key", "lacks", seq)
    ledger.refute("V10.mandate", "wrong", 200)
    result = ledger.steps["V10"]
    assert (result.findings[0].code, len(result.findings), result.left_out) == ("V10.mandate", 100, 51)
