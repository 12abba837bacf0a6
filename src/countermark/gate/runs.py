"""What a caller may ask of its runs: to begin one, to look at one, to end one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.gate.actions import end_run, start_run
from countermark.gate.looking import show_run
from countermark.gate.prepare import Caller
from countermark.gate.writer import Writer


def _start(writer: Writer, caller: Caller, body: Mapping[str, Any]) -> Any:
    return start_run(writer, caller.agent, body.get("mandate"), body.get("purpose", ""), caller.behalf)


def _show(writer: Writer, caller: Caller, body: Mapping[str, Any]) -> Any:
    return show_run(writer, caller.agent, body.get("run", ""))


def _end(writer: Writer, caller: Caller, body: Mapping[str, Any]) -> Any:
    return end_run(writer, caller.agent, body.get("run", ""), body.get("reason", ""), body.get("outputs"))


RUNS: Mapping[str, Callable[[Writer, Caller, Mapping[str, Any]], Any]] = {
    "run.start": _start,
    "run.show": _show,
    "run.end": _end,
}
