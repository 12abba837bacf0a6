"""A connector without a provider, for benchmarks: every effect is confirmed at once and nothing happens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from countermark.connectors.read_back import key_of
from countermark.model.request import prepare
from countermark.model.tool import ArgSpec, ToolSpec, Value
from countermark.model.values import Outcome, Request

REMEMBERED_MAX = 100_000

PAY = ToolSpec(
    name="noop.pay", connector="noop", class_="money", recovery="lookup", encoding="form-v1", endpoint="POST /pay",
    args=(
        ArgSpec("amount", "integer", "amount", "amount"),
        ArgSpec("currency", "string", "currency", "currency", pattern="[a-z]{3}"),
        ArgSpec("payee", "string", "payee", "payee", chars_max=128),
        ArgSpec("invoice", "string", "reference", "invoice", required=False, chars_max=200),
    ),
)  # fmt: skip


class NoopConnector:
    """Implements ``Connector``. ``executed`` counts effects; ``drafts`` are the tools it offers."""

    name = "noop"
    blocking = False

    def __init__(self, drafts: Sequence[ToolSpec] = (PAY,)) -> None:
        self._drafts = tuple(drafts)
        self._done: OrderedDict[str, None] = OrderedDict()
        self._forgot = False
        self.executed = 0

    def tools(self) -> Sequence[ToolSpec]:
        return self._drafts

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        key = key_of(request)
        self.executed += 1
        self._done[key] = None
        if len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)
            self._forgot = True
        return _confirmed(key, "ok")

    def close(self) -> None:
        """Nothing is held open."""

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        if key in self._done:
            return _confirmed(key, "found")
        if self._forgot:  # it may have been among those that no longer fit in memory
            return Outcome("unknown", "provider_error")
        return Outcome("failed", "not_found")


def _confirmed(key: str, code: str) -> Outcome:
    """Nothing moved, so no amount is reported back."""
    return Outcome("confirmed", code, ref="noop_" + key)
