"""The last line of a report is true of just this pack: what was not checked is in it, and whose fault a mismatch is."""

from __future__ import annotations

import json
import zipfile
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from countermark_verify import Report, as_json, as_text, parse_trust, verify

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"


def trust(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / f"trust-{name}.json").read_bytes())
    return found


def checked(name: str, document: dict[str, Any]) -> Report:
    return verify((FILES / f"{name}.zip").read_bytes(), parse_trust(json.dumps(document).encode()))


def last(report: Report) -> str:
    return as_text(report).splitlines()[-1]


def of_the_lane_before(name: str) -> dict[str, Any]:
    """What an auditor has who knows the log of before the restore: its origin, its key and a head of it."""
    with zipfile.ZipFile(FILES / f"{name}.zip") as archive:
        raw = b"".join(archive.read(one) for one in archive.namelist() if one.startswith("log/tile/entries/"))
    said = raw[raw.index(b'"predecessor":') :]
    before = json.loads(said[len(b'"predecessor":') : said.index(b"}") + 1])
    key = str(before["log_key"])
    heads = [one | {"origin": None} for one in trust(name)["heads"] if one.get("origin")]
    heads = [{key: value for key, value in one.items() if value is not None} for one in heads]
    return trust(name) | {"log": {"origin": key.partition("+")[0], "keys": [key]}, "heads": heads}


def test_a_verdict_names_what_was_not_checked() -> None:
    """Steps that were skipped stand in the closing line; those that had nothing to look at do not say `0 checked`."""
    report = checked("honest-restored", trust("honest-restored"))
    assert report.verdict == "verified"
    skipped = [f"{step.step} {step.title}" for step in report.steps if step.status == "skipped"]
    assert skipped
    assert last(report) == (
        "VERIFIED: everything that was checked holds. Not checked: what stands above as not checked; the skipped steps "
        f"{', '.join(skipped)}."
    )
    text = as_text(report)
    assert " 0 checked" not in text
    empty = [step.step for step in report.steps if step.status == "ok" and not step.checked]
    assert empty
    assert text.count("nothing of it in this pack") == len(empty)
    assert all(one["checked"] == 0 for one in json.loads(as_json(report))["steps"] if one["step"] in empty)


def test_a_restored_lane_against_the_trust_file_of_before_does_not_contradict_itself() -> None:
    """It stays refuted; the last line says which lane it is of, and what to ask two people for."""
    report = checked("honest-restored", of_the_lane_before("honest-restored"))
    assert report.verdict == "refuted"
    assert {"V02.signature", "V03.origin"} <= set(report.codes())
    said = last(report)
    assert "contradicts itself" not in said
    assert "does not fit your trust file" in said
    assert "It is of lane l1" in said
    assert "your trust file knows l0" in said
    assert "take the new log's origin and key from them" in said


@pytest.mark.parametrize("name", ["restored-at-another-size", "movement-outside-a-restore"])
def test_a_restore_that_lies_is_not_excused_by_the_trust_file(name: str) -> None:
    """Whatever else refutes the pack, the closing words say so."""
    report = checked(name, of_the_lane_before(name))
    assert last(report) == "REFUTED: this pack contradicts itself, the specification or what the auditor trusts."


def test_a_pack_of_another_deployment_is_no_successor() -> None:
    """The trust file is of another log altogether: nothing is said of lanes."""
    document = trust("honest-restored") | {"log": _elsewhere(), "heads": []}
    assert last(checked("honest-restored", document)).endswith("which is of another log; nothing else refutes it.")


def _elsewhere() -> dict[str, Any]:
    """The same key under another name: its ID follows from both (C2SP signed-note)."""
    name, key = "countermark/elsewhere/l0", trust("honest-restored")["log"]["keys"][0].split("+", 2)[2]
    number = sha256(name.encode() + b"\n" + b64decode(key)).hexdigest()[:8]
    return {"origin": name, "keys": [f"{name}+{number}+{key}"]}
