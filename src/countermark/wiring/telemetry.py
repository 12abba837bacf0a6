"""OpenTelemetry over the API package alone: every name that this product gives stands here.

The SDK, its exporters and their settings are the operator's (``opentelemetry-instrument``, ``OTEL_*``). The gate only
leaves facts in a bounded queue; a thread of its own makes spans and metrics of them. Attributes are names and codes of
the policy and of records: no argument, no amount, no payee, no free text.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from countermark.gate import Gate, Watch
from countermark.model.errors import ConfigError
from countermark.model.records import Record

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

SWITCH = "COUNTERMARK_OTEL"
SCOPE = "countermark"
FACTS_MAX = 16_384
STOP_WAIT_S = 5

SPAN_ACT, SPAN_DECIDE, SPAN_COMMIT, SPAN_EXECUTE = (
    "countermark.act", "countermark.decide", "countermark.commit_wait", "countermark.execute",
)  # fmt: skip
ACTION, AGENT, TOOL, RUN = "countermark.action", "countermark.agent", "countermark.tool", "countermark.run"
DISPOSITION, STAGE, CODE = "countermark.disposition", "countermark.stage", "countermark.code"
STATUS, OUTCOME, VIA, TIER = "countermark.status", "countermark.outcome", "countermark.via", "countermark.tier"
KIND = "countermark.record.kind"
DECISIONS, OUTCOMES, RECORDS = "countermark.decisions", "countermark.outcomes", "countermark.records"
INBOX, COMMIT, DROPPED = "countermark.inbox.depth", "countermark.commit.duration", "countermark.telemetry.dropped"
COMMIT_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

log = logging.getLogger("countermark.telemetry")

Fact = Watch | tuple[Sequence[Record], int] | None  # None ends the thread


def wanted() -> bool:
    """Whether the environment asks for telemetry (``COUNTERMARK_OTEL=1``)."""
    return os.environ.get(SWITCH, "") not in ("", "0")


def check_installed() -> None:
    """Raises ``ConfigError`` (``missing_extra``) when the API package is not there."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.metrics") is None:
        raise ConfigError(
            f"{SWITCH} is set, and telemetry needs the extra [otel]", code="missing_extra",
            hint=f"Install countermark[otel], or unset {SWITCH}.",
        )  # fmt: skip


class OpenTelemetry:
    """Implements the gate's ``Telemetry``."""

    def __init__(
        self, gate: Gate, *, tracers: TracerProvider | None = None, meters: MeterProvider | None = None
    ) -> None:
        """Watch a gate until ``close``. The providers are the process's own unless given."""
        from opentelemetry import context, metrics, trace

        self._gate = gate
        self._trace, self._context = trace, context
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracers)
        meter = metrics.get_meter(SCOPE, meter_provider=meters)
        self._decisions = meter.create_counter(DECISIONS, "1", "Decisions recorded, by disposition and stage.")
        self._outcomes = meter.create_counter(OUTCOMES, "1", "Outcomes recorded.")
        self._records = meter.create_counter(RECORDS, "1", "Records made durable, by kind.")
        self._dropped = meter.create_counter(DROPPED, "1", "Facts that found the queue full and were left out.")
        self._commit = meter.create_histogram(
            COMMIT, "s", "From a batch's last decision to its fsync.",
            explicit_bucket_boundaries_advisory=COMMIT_BOUNDS_S,
        )  # fmt: skip
        self._observation = metrics.Observation
        meter.create_observable_gauge(INBOX, [self._depth], "1", "Messages that wait for the lane.")
        self._queue: queue.Queue[Fact] = queue.Queue(FACTS_MAX)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="countermark-telemetry", daemon=True)
        self._thread.start()
        gate.observe(self)

    def context(self) -> Any:
        """The caller's context, so that a span of its own is the parent of ours."""
        return self._context.get_current()

    def acted(self, watch: Watch) -> None:
        self._put(watch)

    def committed(self, records: Sequence[Record], took_us: int) -> None:
        self._put((records, took_us))

    def _put(self, fact: Fact) -> None:
        try:
            self._queue.put_nowait(fact)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Stop watching, and report what is queued."""
        self._gate.observe(None)
        try:
            self._queue.put(None, timeout=STOP_WAIT_S)
        except queue.Full:
            log.warning("the exporter does not keep up; telemetry ends here")
            return
        self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        while (fact := self._queue.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                self._dropped.add(lost)
            if isinstance(fact, Watch):
                self._spans(fact)
            else:
                self._count(*fact)

    def _depth(self, _: CallbackOptions) -> Iterable[Observation]:
        return [self._observation(self._gate.lane.depth)]

    def _count(self, records: Sequence[Record], took_us: int) -> None:
        self._commit.record(took_us / 1_000_000)
        for record in records:
            body = record.body
            self._records.add(1, {KIND: record.kind})
            if record.kind == "action.decided":
                self._decisions.add(1, {DISPOSITION: body["disposition"], STAGE: body["stage"], CODE: body["code"]})
            elif record.kind == "action.settled":
                self._outcomes.add(1, {OUTCOME: body["outcome"], CODE: body["code"], VIA: body["via"]})

    def _spans(self, watch: Watch) -> None:
        result = watch.result
        told = {AGENT: watch.agent, TOOL: watch.tool, CODE: watch.code}
        if result is not None:
            told |= {
                ACTION: result.action, RUN: result.run, DISPOSITION: result.disposition, STATUS: result.status,
                CODE: result.code, TIER: "" if result.receipt is None else result.receipt.tier,
            }  # fmt: skip
        attributes = {name: value for name, value in told.items() if value}
        span = self._tracer.start_span(
            SPAN_ACT, context=watch.context, attributes=attributes, start_time=watch.began * 1_000
        )
        if result is None:
            span.set_status(self._trace.StatusCode.ERROR, watch.code)
        below = self._trace.set_span_in_context(span, watch.context)
        steps = (
            (SPAN_DECIDE, watch.began, watch.decided_at),
            (SPAN_COMMIT, watch.decided_at, watch.durable_at),
            (SPAN_EXECUTE, watch.durable_at, watch.ended if _executed(watch) else 0),
        )
        for name, start, end in steps:
            if start and end:
                step: Span = self._tracer.start_span(name, context=below, start_time=start * 1_000)
                step.end(max(start, end) * 1_000)
        span.end(max(watch.began, watch.ended) * 1_000)


def _executed(watch: Watch) -> bool:
    """Whether an effect was waited for: an answer without an outcome had none."""
    return watch.result is not None and watch.result.status in ("confirmed", "failed", "unknown")
