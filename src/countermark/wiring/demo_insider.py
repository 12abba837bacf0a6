"""The insider of the demo: owns the database and our signing key, changes one amount and rebuilds everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.model import digest as d
from countermark.model.canon import canon, parse
from countermark.model.records import GENESIS
from countermark.model.request import prepare
from countermark.policy import Bundle


def rewrite(raws: Sequence[bytes], seq: int, amount: int, bundle: Bundle, deployment: str) -> list[bytes]:
    """All records again, with the amount of the intent at ``seq`` (and of its outcome) changed to ``amount``.

    Every digest that follows from it is recomputed: action, provider key, request, chain, streams and references.
    """
    known: dict[str, str] = {GENESIS: GENESIS}
    out: list[bytes] = []
    for index, raw in enumerate(raws):
        doc: dict[str, Any] = parse(raw)
        before = d.digest(d.RECORD, raw)
        body = doc["body"]
        if index == seq:
            _forge(body, amount, bundle, deployment, known)
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


def _forge(body: dict[str, Any], amount: int, bundle: Bundle, deployment: str, known: dict[str, str]) -> None:
    tool = bundle.compiled.tools[body["tool"]]
    body["args"]["amount"] = body["terms"]["amount"] = amount
    action = d.digest_of(d.ACTION, {name: body[name] for name in ("run", "call_id", "tool", "args")})
    identity = [deployment, body["agent"], body["run"], body["call_id"], action]
    key = "cm_" + d.digest_of(d.PROVIDER_KEY, identity)[7:55]
    args = {tool.by_alias[alias].name: value for alias, value in body["args"].items()}
    known[body["request"]] = prepare(tool, args, key).digest(body["salt"])
    known[body["action"]], known[body["key"]] = action, key


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, known) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, known) for key, item in value.items()}
    return value
