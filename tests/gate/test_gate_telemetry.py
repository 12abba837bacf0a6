"""Telemetry: what is told of an action, that no argument is in it, and that nothing depends on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rig import ACME, TOOL, Provider, args_for, hold, make

import countermark
from countermark.model.errors import ArgumentError
from countermark.wiring import telemetry as names
from countermark.wiring.telemetry import OpenTelemetry

CANARY = "canary-7c1e09"
AMOUNT = 31_337


class Watched:
    """A deployment whose telemetry lies in memory."""

    def __init__(self, root: Path, provider: Provider, exporter: SpanExporter | None = None) -> None:
        self.made = make(root, provider)
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(exporter or self.spans))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.gate = hold(root, provider)
        self.telemetry = OpenTelemetry(self.gate.gate, tracers=tracers, meters=meters)

    def close(self) -> None:
        self.telemetry.close()
        self.gate.close()

    def metrics(self) -> dict[str, Any]:
        """Metric name -> its points."""
        found = json.loads(self.reader.get_metrics_data().to_json())
        scopes = [scope for resource in found["resource_metrics"] for scope in resource["scope_metrics"]]
        return {metric["name"]: metric["data"]["data_points"] for scope in scopes for metric in scope["metrics"]}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(tmp_path / "gate", Provider())
    yield found
    found.close()


def counted(points: list[Any], **labels: str) -> int:
    wanted = {f"countermark.{name}": value for name, value in labels.items()}
    return sum(p["value"] for p in points if wanted.items() <= p["attributes"].items())


def test_an_action_is_a_span_with_its_steps(watched: Watched) -> None:
    """act holds decide, commit wait and execute, in this order and one after the other; a denial has no execute."""
    done = watched.gate.act(TOOL, args_for(1), call_id="one")
    watched.gate.act(TOOL, args_for(1), call_id="two")
    watched.telemetry.close()
    spans = watched.spans.get_finished_spans()
    act = next(s for s in spans if s.name == names.SPAN_ACT and (s.attributes or {})[names.ACTION] == done.action)
    assert {**(act.attributes or {})} == {
        names.AGENT: "treasury", names.TOOL: TOOL, names.ACTION: done.action, names.RUN: done.run, names.CODE: "ok",
        names.DISPOSITION: "allow", names.STATUS: "confirmed", names.TIER: "embedded",
    }  # fmt: skip
    steps = [s for s in spans if s.parent is not None and act.context and s.parent.span_id == act.context.span_id]
    assert [s.name for s in steps] == [names.SPAN_DECIDE, names.SPAN_COMMIT, names.SPAN_EXECUTE]
    times = [moment for s in steps for moment in (s.start_time or 0, s.end_time or 0)]
    assert times == sorted(times)
    assert [s.name for s in spans].count(names.SPAN_EXECUTE) == 1


def test_metrics_count_what_the_records_say(watched: Watched) -> None:
    """Decisions by disposition, outcomes by what happened, commits by their time; the queue's depth is there."""
    watched.gate.act(TOOL, args_for(1), call_id="one")
    watched.gate.act(TOOL, args_for(1), call_id="two")
    watched.telemetry.close()
    found = watched.metrics()
    assert counted(found[names.DECISIONS], disposition="allow") == 1
    assert counted(found[names.DECISIONS], disposition="deny", code="duplicate_obligation", stage="obligation") == 1
    assert counted(found[names.OUTCOMES], outcome="confirmed", via="execute") == 1
    assert sum(point["count"] for point in found[names.COMMIT]) >= 3
    assert [point["value"] for point in found[names.INBOX]] == [0]


def test_no_argument_and_no_reason_is_told(watched: Watched) -> None:
    """Canaries in every kind of argument, in the reason and in a refused request stand in no span and no metric."""
    args = {**args_for(CANARY, AMOUNT), "description": CANARY, "transfer_group": CANARY}
    watched.gate.act(TOOL, args, call_id="one", reason=CANARY)
    with pytest.raises(ArgumentError):
        watched.gate.act(TOOL, {**args, CANARY: CANARY}, call_id="two")
    watched.telemetry.close()
    spans = watched.spans.get_finished_spans()
    refused = [s for s in spans if s.name == names.SPAN_ACT and names.ACTION not in (s.attributes or {})]
    assert [(s.attributes or {})[names.CODE] for s in refused] == ["unknown_argument"]
    told = "".join(span.to_json() for span in spans) + json.dumps(watched.metrics())
    assert [word for word in (CANARY, str(AMOUNT), ACME) if word in told] == []


class Broken(SpanExporter):
    """An exporter that fails each time, as a collector that is not there."""

    def export(self, spans: Any) -> Any:
        raise RuntimeError("no collector")


def test_an_exporter_that_fails_fails_no_action(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Actions are answered and recorded the same, whatever becomes of what is told about them."""
    found = Watched(tmp_path / "gate", Provider(), Broken())
    try:
        assert [found.gate.act(TOOL, args_for(n), call_id=f"c{n}").status for n in range(3)] == ["confirmed"] * 3
    finally:
        found.close()
    caplog.clear()


def test_without_the_switch_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """A gate that nobody watches imports no OpenTelemetry; with the switch set it does."""
    make(tmp_path / "gate", Provider())
    program = (
        "import sys, countermark; countermark.open(sys.argv[1]).close(); "
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    for switch, imported in (("", "False"), ("0", "False"), ("1", "True")):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "gate")], capture_output=True, text=True, check=True,
            env={"COUNTERMARK_OTEL": switch, "PATH": "/usr/bin:/bin"}, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == imported


def test_a_switch_without_the_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for telemetry that is not installed is told so, before the gate opens."""
    make(tmp_path / "gate", Provider())
    monkeypatch.setenv(names.SWITCH, "1")
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    with pytest.raises(countermark.CountermarkError) as error:
        hold(tmp_path / "gate", Provider())
    assert error.value.code == "missing_extra"
