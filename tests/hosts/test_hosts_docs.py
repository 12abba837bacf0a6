"""What docs/hosts.md shows is what a program can write."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import temporalio.worker
from fake_driver import FakeGate

import countermark

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "hosts.md"


def shown(heading: str) -> str:
    """The first program under a heading."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return section.partition("```python\n")[2].partition("```")[0]


@dataclass
class Refund:
    account: str
    amount: int


@pytest.mark.slow
def test_the_program_for_dbos_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands on the page, it starts one run and hears its end."""
    gate = FakeGate()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(countermark, "open", lambda *_, **__: nullcontext(gate))
    exec(shown("DBOS"), {"definition": "sha256:d"})
    assert "'status': 'success'" in capsys.readouterr().out
    assert list(gate.runs) == ["dbos:INV-1"]


def test_the_program_for_temporal_makes_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands on the page, the worker has the governed activity, the gate's own, and the interceptor."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(temporalio.worker, "Worker", lambda client, **given: made.append(given))

    def load_ticket() -> None:
        """Reads a ticket."""

    given = {"Refund": Refund, "deployment": None, "RUN": "run_" + "0" * 32, "load_ticket": load_ticket, "client": None}
    exec(shown("Temporal"), {**given, "bank": None})
    assert len(made[0]["activities"]) == 3
    assert isinstance(made[0]["interceptors"][0], temporalio.worker.Interceptor)
