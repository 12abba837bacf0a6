"""Test each adapter against its framework, each in an environment of its own; print framework x case.

    uv run python tests/adapters/run_all.py            all seven (1.4 GB of packages the first time)
    uv run python tests/adapters/run_all.py --light    those that CI runs
    uv run python tests/adapters/run_all.py crewai     one or more by name

The exit status is 0 only if every case of every framework was run and passed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RUN_S_MAX = 1_200

LIGHT = ("langchain", "openai-agents", "pydantic-ai", "fastmcp")
FILES = {
    "langchain": "langchain", "openai-agents": "openai_agents", "pydantic-ai": "pydantic_ai", "fastmcp": "fastmcp",
    "google-adk": "google_adk", "claude-agent-sdk": "claude_agent", "crewai": "crewai",
}  # fmt: skip
CASES = {
    "allow": "test_allow",
    "deny": "test_deny",
    "approve": "test_escalate_then_approve",
    "crash": "test_our_hook_crashing_blocks",
    "no gate": "test_an_unreachable_gate_blocks",
    "twice": "test_a_call_that_is_asked_about_again_runs_once",
    "raises": "test_a_failing_tool_is_unknown",
}


def main(asked: list[str]) -> int:
    """Run those that are asked for; 64 for a name that is none."""
    extras = list(LIGHT) if asked == ["--light"] else asked or list(FILES)
    if unknown := [name for name in extras if name not in FILES]:
        print(f"no such framework: {', '.join(unknown)}; there are {', '.join(FILES)}", file=sys.stderr)
        return 64
    rows, good = [], True
    for extra in extras:
        found, status = outcomes(extra)
        cells = [found.pop(test, "missing") for test in CASES.values()]
        good = good and status == 0 and all(cell == "pass" for cell in [*cells, *found.values()])
        rows.append([f"{extra} {version(extra)}", *cells, f"{sum(o == 'pass' for o in found.values())}/{len(found)}"])
    print()
    show([["", *CASES, "others"], *rows])
    print("all passed" if good else "NOT all passed")
    return 0 if good else 1


def outcomes(extra: str) -> tuple[dict[str, str], int]:
    """The outcome of each test function, the worst of its parameters, and the status of the whole run."""
    test = HERE / f"test_adapters_{FILES[extra]}.py"
    tools = [line for line in project()["dependency-groups"]["dev"] if line.startswith("pytest==")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        environment = ["uv", "run", "--isolated", "--no-default-groups", "--extra", extra, "--with", *tools]
        pytest = ["python", "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "-rs", "-W", "default"]
        print(f"\n== {extra}", flush=True)
        ran = subprocess.run([*environment, *pytest, f"--junitxml={report}", test], cwd=ROOT, timeout=RUN_S_MAX)
        cases = ET.parse(report).iter("testcase") if report.exists() else ()
        found: dict[str, str] = {}
        for case in cases:
            name = str(case.get("name")).partition("[")[0]
            bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            found[name] = bad[0] if bad else found.get(name, "pass")
    return found, ran.returncode


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return found


def version(extra: str) -> str:
    """The version that pyproject.toml names, which is the one that was tested."""
    [first, *_] = project()["project"]["optional-dependencies"][extra]
    return str(first).partition("==")[2]


def show(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
