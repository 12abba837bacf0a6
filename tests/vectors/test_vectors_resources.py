"""A small file does not cost its reader much: each strain gets a report within seconds and half a gigabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cases import canonical_trust
from resources import STRAINS

CPU_S = 20  # an eighth of it is used, on a slow machine a half; what is not bounded takes minutes
MEMORY_BYTES = 500 * 2**20
# The limits are set within the child: a fork of a process with threads may hang.
LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
runpy.run_module("countermark_verify", run_name="__main__", alter_sys=True)
"""
EXITS = {"verified": 0, "refuted": 1, "incomplete": 2, "unreadable": 3}

# Strains that the verifier does not bear yet; an entry that passes fails the test, so that it is taken out here.
PENDING: dict[str, str] = {}
CASES = [
    pytest.param(name, marks=pytest.mark.xfail(reason=PENDING[name], strict=True)) if name in PENDING else name
    for name in sorted(STRAINS)
]


@pytest.mark.parametrize("name", CASES)
def test_a_strain_gets_its_report_in_time_and_memory(tmp_path: Path, name: str) -> None:
    """The verifier ends with a report, not with a crash, and does not call verified what the specification refuses."""
    strain = STRAINS[name]()
    (tmp_path / "pack.zip").write_bytes(strain.data)
    (tmp_path / "trust.json").write_bytes(canonical_trust(strain.trust))
    arguments = ["--json", "--trust", str(tmp_path / "trust.json"), str(tmp_path / "pack.zip")]
    command = [sys.executable, "-c", LIMITED, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode in EXITS.values(), done.stderr[-2_000:]
    report = json.loads(done.stdout)
    assert EXITS[report["verdict"]] == done.returncode
    assert done.stderr == b""
    if strain.refused:
        assert report["verdict"] in ("refuted", "unreadable", "incomplete")
