"""Actions as they stand in the log, and the facts that later decisions draw from them (docs/spec/facts.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fields import bucket, field_of, matches


@dataclass
class Action:
    """An action's decision as it stands in the log."""

    body: dict[str, Any]
    seq: int
    at: int
    outcome: str | None = None
    settled: int | None = None
    settled_at: int = 0
    output: dict[str, Any] = field(default_factory=dict)

    @property
    def released(self) -> bool:
        """It failed, and that was not only the word of the agent's own process."""
        return self.outcome == "failed" and self.body["tier"] != "observing"

    @property
    def confirmed(self) -> bool:
        return self.outcome == "confirmed" and self.body["tier"] != "observing"

    @property
    def weight(self) -> int:
        """What it counts in sums: the amount settled when it is confirmed, else the intent's."""
        amount: int = self.body["terms"]["amount"] if self.settled is None or not self.confirmed else self.settled
        return amount


def fact_value(fact: dict[str, Any], body: dict[str, Any], intents: list[Action], now: int) -> Any:
    """A fact of a decision, from the intents before it."""
    cap, kind, over = fact["use"] == "cap", fact["kind"], fact["over_us"]
    if kind == "grounded":
        return _grounded(fact, body, intents)
    group = [field_of(body, name) for name in fact["group"]]
    events = []  # (time, action)
    for action in intents:
        if (
            matches(fact, action.body, action.output if action.confirmed and not cap else None)
            and [field_of(action.body, name) for name in fact["group"]] == group
        ):
            if cap:
                events.append((action.at, action))
            elif action.confirmed:
                events.append((action.settled_at, action))
    if kind == "slot":
        ages = [now - at for at, _ in events]
        if not ages or 0 < over < min(ages):
            return {"known": False}
        return {"known": True, "age_s": min(ages) // 1_000_000}
    since = bucket(now, over) - (63 if cap else 62)
    recent = [action for at, action in events if bucket(at, over) >= since]
    own = [body] if cap and matches(fact, body) else []
    if kind == "distinct":
        return len({field_of(b, fact["of"]) for b in [a.body for a in recent] + own})
    if fact["of"] == "count":
        return len([a for a in recent if not a.released]) + len(own)
    total = sum(a.weight for a in recent if not a.released)
    return total + sum(b["terms"]["amount"] for b in own)


def _grounded(fact: dict[str, Any], body: dict[str, Any], intents: list[Action]) -> dict[str, bool]:
    outputs = [
        a.output[fact["field"]]
        for a in intents
        if a.body["id"] in body["claimed"]["because"]
        and a.confirmed
        and a.body["tool"] == fact["tool"]
        and fact["field"] in a.output
    ]
    mine = field_of(body, fact["of"])
    return {"known": bool(outputs), "equal": any(type(o) is type(mine) and o == mine for o in outputs)}
