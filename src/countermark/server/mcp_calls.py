"""What an MCP client's words mean to the gate, and the gate's to it; free of the SDK and of any transport."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from countermark.model.clock import US, SystemClock
from countermark.model.errors import CountermarkError
from countermark.model.values import CALL_ID, RUN
from countermark.model.words import quoted

META_CALL = "countermark/call_id"
META_RUN = "countermark/run"
META_REASON = "countermark/reason"
META_ACTION = "countermark/action"
NESTING_MAX = 4
ARGUMENTS_MAX = 256
WAITING_MAX = 10_000  # calls without a final answer that are known again by their arguments
RUNS_MAX = 10_000
RUN_US_MAX = 86_400 * US  # a client that stays for longer begins another run
PATIENCE_MS_MAX = 20_000
LOOK_MS = 250
OPEN = ("escalated", "pending", "unknown")

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

_STATE = re.compile(rf"({RUN.pattern})/({CALL_ID.pattern})")


@dataclass(frozen=True, slots=True)
class Party:
    """Who calls: ``ask`` puts an operation to the gate in the agent's name.

    ``behalf`` tells apart for whom the agent acts. ``run``: the only one that the credential is for, if so.
    ``connector``: the only one whose tools are offered here, if so. ``page`` makes the address where people see an
    escalation, when there is one.
    """

    agent: str
    ask: Ask
    run: str = ""
    connector: str = ""
    page: Callable[[str], str] | None = None
    behalf: str = ""

    @property
    def name(self) -> str:
        """Whose runs and waiting calls these are."""
        return self.behalf or self.agent


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call: the gate's ``result`` or its ``error``, and what the provider said, if it is kept."""

    run: str
    call_id: str
    result: Mapping[str, Any] | None = None
    error: CountermarkError | None = None
    said: Any = None

    @property
    def state(self) -> str:
        """What brings a client that asks again back to the same action."""
        return f"{self.run}/{self.call_id}"

    @property
    def escalation(self) -> str:
        """The escalation that people have to answer first, or an empty string."""
        waits = self.result is not None and self.result["status"] == "escalated"
        return str(self.result["escalation"] or "") if waits and self.result is not None else ""

    @property
    def failed(self) -> bool:
        """Whether the client is told that the call did not work."""
        return self.result is None or self.result["status"] != "confirmed"

    def document(self) -> dict[str, Any]:
        """The gate's answer for a program."""
        names = {"run": self.run, "call_id": self.call_id}
        if self.result is not None:
            return {**self.result, **names}
        if self.error is None:
            return {"status": "refused", "code": "internal_error", **names}
        return {
            "status": "refused", "code": self.error.code, "message": self.error.message,
            "retryable": self.error.retryable, "next_step": self.error.hint, **names,
        }  # fmt: skip

    def text(self) -> str:
        """The gate's answer for a model: a code and the next step, never a threshold."""
        doc = self.document()
        parts = [f"{doc['status']} [{doc['code']}]", doc.get("message", ""), doc.get("next_step", "")]
        if self.result is None and doc.get("retryable"):
            parts.append("Nothing was decided: call again later.")
        if self.result is not None and self.result["status"] in OPEN:
            parts.append(
                "To see the answer, call this tool again later with exactly the same arguments"
                f" (or with _meta {META_RUN}={self.run} and {META_CALL}={self.call_id})."
            )
        return " ".join(filter(None, parts))


@dataclass(slots=True)
class Calls:
    """Puts tool calls to the gate. One for a server; everything that it remembers is bounded, and lost on a restart."""

    clock: SystemClock = field(default_factory=SystemClock)
    _runs: OrderedDict[str, tuple[str, int]] = field(default_factory=OrderedDict)
    _waiting: OrderedDict[bytes, tuple[str, str]] = field(default_factory=OrderedDict)

    async def tools(self, party: Party) -> list[dict[str, Any]]:
        """The tools that this party may call now. Raises ``CountermarkError``."""
        found = await party.ask("tools", {})
        return [entry for entry in found if party.connector in ("", entry["connector"])]

    async def call(
        self, party: Party, tool: str, arguments: Mapping[str, Any], meta: Mapping[str, Any], state: str = "",
        patient: bool = False,
    ) -> Reply:  # fmt: skip
        """One call. ``state`` is that of an earlier reply; ``patient`` waits a little for people's answer.

        A call without a name of its own that is put again while its answer was not final is the same action again.
        """
        known = _STATE.fullmatch(state)
        key = _key(party.name, tool, arguments)
        run, call_id = known.groups() if known is not None else self._waiting.get(key, ("", ""))
        run, call_id = meta.get(META_RUN) or run, meta.get(META_CALL) or call_id or "mcp_" + secrets.token_hex(12)
        try:
            body = {"call_id": call_id, "tool": tool, "args": await self._arguments(party, tool, arguments)}
            if type(meta.get(META_REASON)) is str:
                body["reason"] = meta[META_REASON]
            run, result = await self._act(party, run, body)
            if patient and result["status"] == "escalated":
                result = await self._patiently(party, result)
            said = None if result["status"] == "denied" else await party.ask("content", {"id": result["action"]})
        except CountermarkError as error:
            return Reply(str(run), str(call_id), error=error)
        self._remember(key, (run, call_id) if result["status"] in OPEN else None)
        return Reply(run, call_id, result, said=said)

    async def _act(self, party: Party, run: Any, body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        if run:
            return run, await party.ask("act", {"run": run, **body})
        run = party.run or await self._run(party)
        try:
            return run, await party.ask("act", {"run": run, **body})
        except CountermarkError as error:
            if error.code != "unknown_run" or party.run:
                raise
        self._runs.pop(party.name, None)  # somebody ended it
        run = await self._run(party)
        return run, await party.ask("act", {"run": run, **body})

    async def _run(self, party: Party) -> str:
        """The run of the agent's calls here: one a day, minted when it is needed."""
        now = self.clock.steady_us()
        run, born = self._runs.get(party.name, ("", 0))
        if not run or now - born > RUN_US_MAX:
            run = await party.ask("run.start", {"purpose": "mcp"})
            self._runs[party.name] = (run, now)
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)
        return run

    async def _arguments(self, party: Party, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by the provider's own names, nested ones by dotted names. What does not fit, the gate refuses."""
        shape = await party.ask("tool.shape", {"tool": tool[:128]})
        if party.connector not in ("", shape["connector"]):
            raise CountermarkError(f"there is no tool {quoted(tool)} here", code="unknown_tool")
        names = shape["names"]
        flat = flattened(arguments)
        renamed = {
            names.get(name, name) if names.get(name) not in flat else name: value for name, value in flat.items()
        }
        return renamed if len(renamed) == len(flat) else flat

    async def _patiently(self, party: Party, result: Mapping[str, Any]) -> Mapping[str, Any]:
        end_us = self.clock.steady_us() + PATIENCE_MS_MAX * 1000
        while result["status"] == "escalated" and self.clock.steady_us() < end_us:
            await asyncio.sleep(LOOK_MS / 1000)
            result = await party.ask("result", {"id": result["action"]})
        return result

    def _remember(self, key: bytes, call: tuple[str, str] | None) -> None:
        self._waiting.pop(key, None)
        if call is not None:
            self._waiting[key] = call
            if len(self._waiting) > WAITING_MAX:
                self._waiting.popitem(last=False)


def flattened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Objects opened into dotted names; what is too deep, empty, too much or there twice stays as it came."""
    flat: dict[str, Any] = {}
    left = [("", dict(arguments), 1)]
    while left:
        prefix, members, depth = left.pop()
        for name, value in members.items():
            if type(value) is dict and value and depth < NESTING_MAX:
                left.append((f"{prefix}{name}.", value, depth + 1))
            elif f"{prefix}{name}" in flat or len(flat) >= ARGUMENTS_MAX:
                return dict(arguments)
            else:
                flat[f"{prefix}{name}"] = value
    return flat


def _key(name: str, tool: str, arguments: Mapping[str, Any]) -> bytes:
    """What a call is known again by; the arguments themselves are not kept."""
    try:
        raw = orjson.dumps([name, tool, arguments], option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # huge integers or half characters: such a call is refused, not remembered
        raw = json.dumps([name, tool], default=str).encode()
    return hashlib.sha256(raw).digest()
