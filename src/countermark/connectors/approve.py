"""The effect of an approve step: nothing. What counts is the decision before it, which a policy leaves to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from countermark.connectors.read_back import key_of
from countermark.model.request import prepare
from countermark.model.tool import ArgSpec, ToolSpec, Value
from countermark.model.values import Outcome, Request

APPROVE = ToolSpec(
    name="workflow.approve", connector="workflow", class_="change", recovery="lookup", encoding="form-v1",
    endpoint="POST workflow://gate/approve",
    args=(
        ArgSpec("question", "string", "inert", "question"),
        ArgSpec("details", "string", "inert", "details", required=False),
        ArgSpec("subject", "string", "reference", "subject", required=False, chars_max=200),
    ),
)  # fmt: skip


class ApproveConnector:
    """Implements ``Connector``: whoever comes as far as here was let through by people."""

    name = "workflow"
    blocking = False

    def tools(self) -> Sequence[ToolSpec]:
        return (APPROVE,)

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        return Outcome("confirmed", "ok", ref=key_of(request))

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        return Outcome("confirmed", "found", ref=key)

    def close(self) -> None:
        """Nothing is held open."""
