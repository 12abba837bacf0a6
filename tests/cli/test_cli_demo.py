"""The demo and the benchmark through the command line, as a newcomer runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from anvil_support import BINARY, needs_anvil
from cli_support import document, ok, run

from countermark.twins.stripe.books import Books


@pytest.mark.slow
def test_the_demo_ends_verified_and_its_rewrite_refuted(tmp_path: Path) -> None:
    """`demo`, then a bare `verify`: the honest pack is verified, the insider's is refuted, every decision follows.

    The witness, which cosigned the day's heads in a process and a directory of its own, refuses and keeps the other.
    """
    figures = _document(tmp_path, "demo")
    assert figures["honest"] == "verified"
    assert figures["rewritten"]["verdict"] == "refuted"
    met = figures["witness"]
    assert (met["refused"], len(met["cosigned"]), len(met["kept"])) == ("witness_other_log", 3, 1)
    checked = _document(tmp_path, "verify")
    assert checked["verdict"] == "verified"
    assert next(one["status"] for one in checked["steps"] if one["step"] == "V08") == "skipped"  # it is the demo's own
    _tie_out(figures["governed"], tmp_path / "countermark-demo")
    assert _document(tmp_path, "-C", "countermark-demo/deployment", "audit", "reperform")["ok"]


@needs_anvil
@pytest.mark.slow
def test_a_contract_refuses_the_insider_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`demo anchor` on a real EVM: each second history is refused, a forced one fails in a block, the gate stays shut.

    It can be played again, in a new contract; without a demo, or without a node's program, it says what is missing.
    """
    monkeypatch.setenv("PATH", str(BINARY.parent), prepend=os.pathsep)
    none = document(run("demo", "anchor", "--dir", str(tmp_path / "none"), "--json"), 1)["error"]
    assert none["hint"] == "Run `countermark demo` first."
    _document(tmp_path, "demo")
    for _ in range(2):
        figures = _document(tmp_path, "demo", "anchor")
        assert [one["sequence"] for one in figures["anchored"]] == [1, 2]
        assert list(figures["refused"].values()) == ["same size, other root", "a fork", "shrunk"]
        assert (figures["forced_status"], figures["unchanged"], figures["gate"]) == (0, True, "anchor_fork")
        assert (figures["verdict"], figures["integrity"]) == ("verified", "anchored")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert "npm install" in document(run("demo", "anchor", "--json"), 1)["error"]["hint"]


def _tie_out(table: dict[str, Any], folder: Path) -> None:
    """The sums of the printed table are those of population.csv, of the verifier and of the simulator's books."""
    with zipfile.ZipFile(folder / "evidence.zip") as archive:
        lines = list(csv.DictReader(io.StringIO(archive.read("population.csv").decode())))
    paid = [int(line["settled_amount"] or line["amount"]) for line in lines if line["outcome"] == "confirmed"]
    signed = [line for line in lines if line["outcome"] == "confirmed" and line["asked"] == "escalate"]
    assert sum(paid) == table["at_once"] + table["signed"] == table["moved"]
    assert len(paid) == table["answers"]["confirmed"] + len(signed)
    assert [int(line["amount"]) for line in signed] == [table["signed"]]
    books = Books(folder / "simulator")
    assert sum(one.amount for one in books.movements() if one.kind == "transfer") == table["moved"]


def _document(folder: Path, *words: str) -> Any:
    """The document of a command in a process of its own, started in ``folder``."""
    command = [sys.executable, "-m", "countermark.cli", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_benchmark_prints_one_document_with_the_raw_fsync_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Durable figures never stand without the fsync rate of the same minutes."""
    monkeypatch.chdir(tmp_path)
    assert document(run("bench", "--quick", "--json"))["fsync_per_s"] > 0
    assert ok(run("bench", "--help"))
