"""The page's check, run by Node over every vector: what a browser can know, it says as the verifier does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from page_packs import the_pack

from countermark.model.records import KINDS

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent.parent / "src" / "countermark" / "audit" / "page" / "verify.js"
FILES = HERE.parent / "vectors" / "files"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FILES / "expected.json").read_text("utf-8"))
# Steps that the page takes whole: where one of them is what a vector is about, the page must find it.
WHOLE = ("V01", "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V15", "V18")
# What a page does in part, or not at all (NOT_DONE in the script), and of steps that it takes whole these codes.
PARTLY = (
    "V08.record",
    "V08.cosignature",
    "V09",
    "V10",
    "V11",
    "V12",
    "V13",
    "V14",
    "V16",
    "V17",
    "V19",
    "V20",
    "V21",
    "V03.second",
    "V03.compromised",
)
MISSED_SHARE_MAX = 0.65  # of the forgeries that the verifier refutes, those that a page leaves INCOMPLETE

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs debian: nodejs")


def checked(folder: Path, packs: list[tuple[Path, Path | None]]) -> list[dict[str, Any]]:
    """The reports of the page's check, in order."""
    listed = folder / "list.txt"
    listed.write_text("".join(f"{pack}\t{trust or ''}\n" for pack, trust in packs), "utf-8")
    command = ["node", str(HERE / "page_checker.js"), str(SCRIPT), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def codes_of(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for step in report["steps"] for finding in step["findings"]]


def wanted(name: str) -> list[str]:
    code = EXPECTED[name]["code"]
    return [] if code is None else [code] if isinstance(code, str) else list(code)


def verified_head(trust: Path) -> bool:
    """Does the auditor say that the whole log was verified up to some head?"""
    return any(head.get("verified") for head in json.loads(trust.read_bytes()).get("heads", []))


@pytest.mark.slow
@needs_node
def test_no_vector_that_the_verifier_refutes_is_verified_by_a_page(tmp_path: Path) -> None:
    """No crash; honest packs are never refuted; what the page takes whole it finds; and VERIFIED it says only where the
    verifier does, under a head that the auditor verified. What it cannot see is INCOMPLETE, and is counted."""
    names = sorted(EXPECTED)
    reports = checked(tmp_path, [(FILES / name, FILES / EXPECTED[name]["trust"]) for name in names])
    assert len(reports) == len(names)
    wrong, missed = [], []
    for name, report in zip(names, reports, strict=True):
        row = EXPECTED[name]
        verdicts = [row["verdict"]] if isinstance(row["verdict"], str) else row["verdict"]
        found = report["verdict"]
        if found == "crashed":
            wrong.append((name, report["error"]))
        elif found == "verified":
            if verdicts != ["verified"] or not verified_head(FILES / row["trust"]):
                wrong.append((name, "verified"))
        elif found == "incomplete" and verdicts == ["verified"]:
            if not all(code.endswith(".browser") for code in codes_of(report)):
                wrong.append((name, codes_of(report)))
        elif found == "incomplete" and "incomplete" not in verdicts and any(c.startswith(PARTLY) for c in wanted(name)):
            missed.append(name)
        elif found not in verdicts:
            wrong.append((name, f"{verdicts} {wanted(name)}, found {found} {codes_of(report)}"))
    assert wrong == []
    forged = [name for name in names if EXPECTED[name]["verdict"] == "refuted"]
    assert len(missed) <= MISSED_SHARE_MAX * len(forged), (len(missed), len(forged))


@pytest.mark.slow
@needs_node
def test_whole_steps_name_the_same_code_and_place(tmp_path: Path) -> None:
    """Where a vector is about bytes, records, tree, order or heads, code and first bad position are the verifier's."""
    names = [name for name in sorted(EXPECTED) if wanted(name) and all(
        c.startswith(WHOLE) and not c.startswith(PARTLY) for c in wanted(name))]  # fmt: skip
    reports = checked(tmp_path, [(FILES / name, FILES / EXPECTED[name]["trust"]) for name in names])
    for name, report in zip(names, reports, strict=True):
        found = codes_of(report)
        assert any(code == want or code.startswith(f"{want}.") for code in found for want in wanted(name)), name
        if "first_bad_seq" in EXPECTED[name] and wanted(name)[0][:3] in ("V04", "V05", "V06", "V07"):
            assert report["first_bad_seq"] == EXPECTED[name]["first_bad_seq"], (name, found)
    assert len(names) > 60


@pytest.mark.slow
@needs_node
def test_packs_with_a_page_are_checked_as_the_verifier_does(tmp_path: Path) -> None:
    """Good: verified only where the auditor verified the whole log up to this head; else V13.browser and V14.browser
    say what is open. A changed line or figure: refuted, with the same code, under either trust file."""
    day = the_pack()
    trust = tmp_path / "trust.json"
    trust.write_bytes(day.trust_raw)
    relied = tmp_path / "relied.json"
    relied.write_bytes(day.relied_raw)
    csv, page = day.members["population.csv"], day.members["index.html"]
    good = day.write(tmp_path / "good.zip", {})
    line = day.write(tmp_path / "line.zip", {"population.csv": csv.replace(b",48000,", b",47000,", 1)})
    short = day.write(tmp_path / "short.zip", {"population.csv": csv[:-1]})
    figure = day.write(tmp_path / "figure.zip", {"index.html": page.replace(b'"unknown":1', b'"unknown":0', 1)})
    assert good.read_bytes() == day.raw
    found = checked(tmp_path, [(good, trust), (good, None), (line, relied), (short, relied), (figure, relied),
                               (good, relied)])  # fmt: skip
    assert [one["verdict"] for one in found] == ["incomplete", "incomplete", *["refuted"] * 3, "verified"]
    assert [codes_of(one) for one in found[2:5]] == [["V15.population"], ["V15.population"], ["V15.page"]]
    assert codes_of(found[0]) == ["V13.browser", "V14.browser"]
    assert {"V02.no_trust", "V03.no_trust", "V07.no_trust"} <= set(codes_of(found[1]))
    assert found[0]["pack"]["size"] == len(day.records())
    assert [step["status"] for step in found[5]["steps"] if step["step"] in ("V13", "V14")] == ["not done here"] * 2


def test_the_script_knows_every_kind_of_record() -> None:
    """A kind without a shape, or a place among those that are followed only, would be refuted by the page."""
    source = SCRIPT.read_text("utf-8")
    assert [kind for kind in KINDS if f'\n  "{kind}": ' not in source] == []


def test_the_script_reaches_nothing_outside() -> None:
    """No network, no storage, no markup from text: the policy of the page forbids it, and the script has no call."""
    source = SCRIPT.read_text("utf-8")
    for word in (
        "fetch(", "XMLHttpRequest", "WebSocket", "import(", "innerHTML", "outerHTML",
        "insertAdjacentHTML", "document.write", "localStorage", "eval(", "new Function", "<!--", "</script",
    ):  # fmt: skip
        assert word not in source, word
