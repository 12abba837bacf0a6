"""A connector that answers from a recording: replays what tools said in an earlier trajectory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.connectors.read_back import arguments, key_of, terms
from countermark.model.errors import CountermarkError
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request

_TYPES = {"string": str, "integer": int, "boolean": bool}


@dataclass(frozen=True, slots=True)
class Executed:
    """One call that took effect, as far as the recording is concerned."""

    tool: str
    args: Mapping[str, Value]
    key: str
    outcome: Outcome


class RecordedConnector:
    """Implements ``Connector``. ``executed`` lists the calls in the order they were executed.

    ``answers`` is called with a tool's name and its arguments and returns the recorded result; a
    ``CountermarkError`` that it raises is the provider's refusal. A repeated key gets the first answer again.
    """

    blocking = False

    def __init__(
        self,
        answers: Callable[[str, Mapping[str, Value]], Any],
        drafts: Sequence[ToolSpec] = (),
        name: str = "recorded",
    ) -> None:
        self.name = name
        self.executed: list[Executed] = []
        self._answers = answers
        self._drafts = tuple(drafts)
        self._by_key: dict[str, Outcome] = {}

    def tools(self) -> Sequence[ToolSpec]:
        return self._drafts

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        key, args = key_of(request), arguments(tool, request)
        if key and key in self._by_key:
            return self._by_key[key]
        try:
            result = self._answers(tool.name, args)
        except CountermarkError as error:
            return Outcome("failed", "provider_refused", result={"error": error.message})
        amount, currency = terms(tool, args)
        ref = "rec_" + hashlib.sha256(f"{key}|{len(self.executed)}".encode()).hexdigest()[:24]
        outcome = Outcome(
            "confirmed", "ok", ref=ref, amount=amount, currency=currency, output=_outputs(tool, result), result=result
        )
        self.executed.append(Executed(tool.name, args, key, outcome))
        self._by_key[key] = outcome
        return outcome

    def close(self) -> None:
        """Nothing is held open."""

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        done = self._by_key.get(key)
        if done is None:
            return Outcome("failed", "not_found")
        return Outcome(
            "confirmed", "found", ref=done.ref, amount=done.amount, currency=done.currency, output=done.output,
            result=done.result,
        )  # fmt: skip


def _outputs(tool: ToolSpec, result: Any) -> dict[str, Value]:
    if type(result) is not dict:
        return {}
    return {name: result[name] for name, kind in tool.outputs if type(result.get(name)) is _TYPES.get(kind)}
