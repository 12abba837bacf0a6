"""What agents may see of the tools: those that their mandates cover, as schemas, and what a provider answered.

A schema says what an argument is, never how much of it is allowed: thresholds stay in the policy.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import orjson

from countermark.authority import Scope
from countermark.gate.callers import no_agent
from countermark.gate.provided import told
from countermark.gate.writer import Writer
from countermark.model.ports import Connector, Describing, Description
from countermark.model.tool import ArgSpec, ToolSpec

LOOKS_MAX = 4  # questions to providers about their tools, under way at once
NESTED = ("mcp-v1", "object-v1")  # encodings in which a dot in an argument's name opens an object

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # names that models' interfaces take


@runtime_checkable
class Answering(Protocol):
    """A connector that keeps its provider's answers for a while, by their digests."""

    def answer_of(self, response: str) -> bytes | None: ...


class Catalogue:
    """The tools of a gate as its agents see them."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self._connectors = connectors
        self._looks = asyncio.Semaphore(LOOKS_MAX)

    async def listed(self, tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
        """``name``, ``connector``, ``class``, ``description`` and ``schema`` of each tool that can be called now."""
        found: list[dict[str, Any]] = []
        for name in sorted({tool.connector for tool in tools}):
            some = [tool for tool in tools if tool.connector == name]
            connector = self._connectors.get(name)
            if connector is None:
                continue
            said: Mapping[str, Description] | None = None
            if isinstance(connector, Describing):
                async with self._looks:
                    said = await asyncio.to_thread(connector.describe, some)
            found += [_entry(tool, said) for tool in some if said is None or tool.name in said]
        return sorted(found, key=lambda entry: str(entry["name"]))

    def answer(self, writer: Writer, agent: str, action: str) -> Any:
        """What the provider answered to the agent's own action, while that is kept; else None."""
        found = told(writer, agent, action)
        if found is None:
            return None
        connector: object = self._connectors.get(found.tool.connector)
        raw = connector.answer_of(found.response) if isinstance(connector, Answering) else None
        try:
            return None if raw is None else orjson.loads(raw)
        except ValueError:
            return None


def allowed(writer: Writer, agent: str, scope: Scope | None) -> list[ToolSpec]:
    """The tools that a mandate of the agent's covers now, whatever the policy will say to an action."""
    state, at = writer.state, writer.at
    bundle = state.bundle
    if bundle is None or agent not in bundle.compiled.agents:
        raise no_agent(agent)
    chains = [
        [state.mandates[one] for one in state.chain(digest)]
        for digest, doc in state.mandates.items()
        if doc["agent"] == agent and not any(one in state.revoked for one in state.chain(digest))
    ]
    chains = [chain for chain in chains if all(doc["not_before"] <= at < doc["not_after"] for doc in chain)]
    return [
        tool
        for name, tool in sorted(bundle.compiled.tools.items())
        if (scope is None or not scope.tools or name in scope.tools)
        and any(all("*" in doc["tools"] or name in doc["tools"] for doc in chain) for chain in chains)
    ]


def shape_of(tool: ToolSpec | None) -> dict[str, Any]:
    """Whose a tool is, and how agents may call arguments whose own names models refuse: ``names``, alias -> name."""
    if tool is None:
        return {"connector": "", "names": {}}
    names = {arg.alias: arg.name for arg in tool.args if _shown(tool, arg) != arg.name}
    return {"connector": tool.connector, "names": names}


def _shown(tool: ToolSpec, arg: ArgSpec) -> str:
    return arg.name if tool.encoding in NESTED or _PLAIN.fullmatch(arg.name) is not None else arg.alias


def _entry(tool: ToolSpec, said: Mapping[str, Description] | None) -> dict[str, Any]:
    words = Description("", {}) if said is None else said[tool.name]
    about = {"money": "Moves money.", "change": "Changes something.", "read": "Reads."}[tool.class_]
    gate = "A gate decides about every call, and may ask a person first."
    text = f"{words.text}\n\n{gate}" if words.text else f"{about} {gate}"
    return {
        "name": tool.name, "connector": tool.connector, "class": tool.class_, "description": text,
        "schema": _schema(tool, words.arguments),
    }  # fmt: skip


def _schema(tool: ToolSpec, texts: Mapping[str, str]) -> dict[str, Any]:
    root = _object()
    for arg in tool.args:
        path = arg.name.split(".") if tool.encoding in NESTED else [_shown(tool, arg)]
        place = root
        for part in path[:-1]:
            if arg.required and part not in place["required"]:
                place["required"].append(part)
            place = place["properties"].setdefault(part, _object())
        place["properties"][path[-1]] = _property(arg, texts.get(arg.name, ""))
        if arg.required:
            place["required"].append(path[-1])
    return root


def _object() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def _property(arg: ArgSpec, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": arg.type}
    units = "An integer in minor units (cents)." if arg.class_ == "amount" else ""
    if arg.unit:
        units = f"A whole number of base units as a text; limits count units of {arg.unit} of them, rounded up."
    if text or units:
        found["description"] = " ".join(filter(None, (text, units)))
    if arg.enum:
        found["enum"] = list(arg.enum)
    if arg.type == "string":
        found["maxLength"] = arg.chars_max
    return found
