"""What an agent may do in a run that it was given with a boundary (docs/spec/decision.md, stage `boundary`)."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OVER, CALLS, TOOL, ARGUMENT, BUDGET = (f"boundary_{what}" for what in ("over", "calls", "tool", "argument", "budget"))


@dataclass(slots=True)
class Bounds:
    """The boundary of one run, and what was done in it so far."""

    boundary: dict[str, Any]
    calls: int = 0
    spent: Counter[str] = field(default_factory=Counter)  # held and settled, by currency

    def decided(self, body: dict[str, Any], *, first: bool, intent: bool) -> None:
        """Fold a decision of the run: each action counts as one call, and an intent holds its amount."""
        self.calls += first
        if intent:
            self._add(body, body["terms"]["amount"])

    def settled(self, body: dict[str, Any]) -> None:
        """Fold a final outcome: what was moved instead of what was held, nothing when it failed."""
        held = body["terms"]["amount"]
        if held is None or (body["tier"] == "observing" and body["outcome"] == "failed"):
            return
        moved = 0
        if body["outcome"] == "confirmed":
            moved = held if body["settled"] is None else body["settled"]["amount"]
        self._add(body, moved - held)

    def _add(self, body: dict[str, Any], amount: int | None) -> None:
        if amount is not None and body["terms"]["currency"] is not None:
            self.spent[body["terms"]["currency"]] += amount

    def refuses(self, body: dict[str, Any], at: int, *, money: bool) -> tuple[str, list[str]] | None:
        """Code and reasons of a denial, or None. `money`: the tool is one that moves money."""
        if at >= self.boundary["until"]:
            return OVER, []
        # An action that people approved was counted when it was decided first.
        if body["escalation"] is None and self.calls >= self.boundary["calls"]:
            return CALLS, []
        if body["tool"] not in self.boundary["tools"]:
            return TOOL, []
        if crooked := self._crooked(body):
            return ARGUMENT, crooked
        return self._beyond(body, money)

    def _crooked(self, body: dict[str, Any]) -> list[str]:
        """The arguments whose clear value is not one that the boundary lists."""
        found = set()
        for tool, alias, values in self.boundary["where"]:
            value = body["args"].get(alias)
            listed = any(type(one) is type(value) and one == value for one in values)
            if tool == body["tool"] and (value is None or type(value) is dict or not listed):
                found.add(alias)
        return sorted(found)

    def _beyond(self, body: dict[str, Any], money: bool) -> tuple[str, list[str]] | None:
        currency, amount = body["terms"]["currency"], body["terms"]["amount"]
        budget = {name: most for name, most in self.boundary["budget"] if name == currency}
        if currency not in budget:
            return (BUDGET, [] if currency is None else [currency]) if money else None
        if amount is not None and self.spent[currency] + amount > budget[currency]:
            return BUDGET, [currency]
        return None
