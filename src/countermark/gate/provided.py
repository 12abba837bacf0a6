"""What a provider told about an action, and which intent still waits to hear from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.gate.actions import recorded
from countermark.gate.writer import Writer
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import ACT_ID

LOOKED_AT_MAX = 10_000  # intents without a final outcome; with more than that, the background finds what is left


@dataclass(frozen=True, slots=True)
class Told:
    """The outcome of an action as its record has it; ``response`` is the digest of the provider's answer."""

    tool: ToolSpec
    outcome: str
    code: str
    ref: str
    response: str
    http_status: int
    request_id: str
    output: Mapping[str, Value]


def told(writer: Writer, agent: str, action: str) -> Told | None:
    """The newest outcome of the agent's own action; None while there is none."""
    seq = writer.state.newest(action) if ACT_ID.fullmatch(action) is not None else None
    if seq is None:
        return None
    found = recorded(writer, writer.record(seq))
    if found.settled is None or found.record.body["agent"] != agent:
        return None
    body = found.settled.body
    tool = writer.bundle(found.record.body["bundle"]).compiled.tools[body["tool"]]
    return Told(
        tool, body["outcome"], body["code"], body["ref"], body["response"], body["http_status"], body["request_id"],
        body["output"],
    )  # fmt: skip


def open_about(writer: Writer, key: str, ref: str) -> list[int]:
    """The intents without a final outcome that have this provider key, or name this object of the provider's."""
    found = []
    for seq in list(writer.state.open)[-LOOKED_AT_MAX:]:
        body = writer.record(seq).body
        if body["key"] == key or (ref and ref in body["args"].values()):
            found.append(seq)
    return found
