"""The insider of the demo: owns the database and our signing key, changes one amount and rebuilds everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model import digest as d
from countermark.model.canon import canon, parse
from countermark.model.records import GENESIS


def rewrite(raws: Sequence[bytes], seq: int, amount: int, deployment: str) -> list[bytes]:
    """All records again, with the amount of the intent at ``seq`` (and of its outcome) changed to ``amount``.

    Every digest that follows from it is recomputed: the action's, the provider key, chain, streams and references.
    """
    known: dict[str, str] = {GENESIS: GENESIS}
    out: list[bytes] = []
    for index, raw in enumerate(raws):
        doc: dict[str, Any] = parse(raw)
        before = d.digest(d.RECORD, raw)
        body = doc["body"]
        if index == seq:
            body["args"]["amount"] = body["terms"]["amount"] = amount
            identity = {name: body[name] for name in ("run", "call_id", "tool", "args")}
            action = d.digest_of(d.ACTION, identity)
            key = [deployment, body["agent"], body["run"], body["call_id"], action]
            known[body["action"]], known[body["key"]] = action, "cm_" + d.digest_of(d.PROVIDER_KEY, key)[7:55]
        elif doc["kind"] == "action.settled" and body["intent"] == seq:
            body["terms"]["amount"] = amount
            if body["settled"] is not None:
                body["settled"]["amount"] = amount
        changed = canon(_replaced(doc, known))
        after = d.digest(d.RECORD, changed)
        known[before] = after
        known["esc_" + before[7:39]] = "esc_" + after[7:39]
        out.append(changed)
    return out


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, known) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, known) for key, item in value.items()}
    return value
