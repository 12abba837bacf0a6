"""Every vector gets from the independent verifier the verdict that the specification demands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from countermark_verify import Report, load_trust, verify

HERE = Path(__file__).parent
FILES = HERE / "files"
EXPECTED = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
EXITS = {"verified": 0, "refuted": 1, "incomplete": 2, "unreadable": 3}


# Lies that the verifier does not find yet; an entry that passes fails the test, so that it is taken out here.
PENDING: dict[str, str] = {}
CASES = [
    pytest.param(name, marks=pytest.mark.xfail(reason=PENDING[name], strict=True)) if name in PENDING else name
    for name in sorted(EXPECTED)
]


def report_of(name: str) -> Report:
    return verify(FILES / name, load_trust(FILES / EXPECTED[name]["trust"]))


def findings(report: Report) -> list[tuple[str, str]]:
    """(code, status of its step) of every finding."""
    return [(finding.code, step.status) for step in report.steps for finding in step.findings]


@pytest.mark.parametrize("name", CASES)
def test_vector_gets_its_verdict_code_and_position(name: str) -> None:
    """The verdict, one of the named codes and the first bad position are as `expected.json` says."""
    row = EXPECTED[name]
    report = report_of(name)
    found = findings(report)
    verdicts = [row["verdict"]] if isinstance(row["verdict"], str) else row["verdict"]
    assert report.verdict in verdicts, found
    assert report.exit == EXITS[report.verdict]
    codes = [] if row["code"] is None else [row["code"]] if isinstance(row["code"], str) else row["code"]
    if codes:
        assert any(code == want or code.startswith(f"{want}.") for code, _ in found for want in codes), found
    else:
        assert found == []
    if "first_bad_seq" in row:
        assert report.first_bad_seq == row["first_bad_seq"], found


@pytest.mark.slow
def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    """Generating again gives the same names and the same bytes."""
    subprocess.run([sys.executable, str(HERE / "generate.py"), str(tmp_path)], check=True, timeout=180)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in FILES.iterdir())
    assert [name for name in names if (tmp_path / name).read_bytes() != (FILES / name).read_bytes()] == []


def test_the_files_stay_small_enough_to_commit() -> None:
    """Each file is below 200 kB, all together below 18 MB."""
    sizes = [path.stat().st_size for path in FILES.iterdir()]
    assert max(sizes) < 200_000
    assert sum(sizes) < 18_000_000


@pytest.mark.parametrize("module", sorted(path.stem for path in HERE.glob("*.py") if not path.name.startswith("test_")))
def test_the_encoder_imports_nothing_of_the_product(module: str) -> None:
    """The vectors are an independent reading of the specification."""
    source = (HERE / f"{module}.py").read_text(encoding="utf-8")
    assert "import countermark" not in source
    assert "from countermark" not in source
