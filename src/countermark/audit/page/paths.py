"""The planned and the actual path of each run, drawn: what the policy looked for before an action, and what came.

Planned is what the decision itself records: the facts that it read and that count other tools' confirmed outcomes, and
the people it asked. It says nothing about a rule that was not in force; ``countermark audit paths`` asks that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from countermark.audit.page.gather import Action, Gathered
from countermark.audit.page.markup import Html, inside, tag
from countermark.audit.page.timeline import STATES

RUNS_MAX = 12
STEPS_MAX = 24
NEEDS_MAX = 2
_WIDTH, _HEIGHT, _STEP, _PLANNED, _GAP = 168, 44, 196, 48, 16
_A_ROW = 4
_CHARS = 24


def drawn(found: Gathered, shown: set[str], without: Collection[str] = ()) -> tuple[list[Html], int, int]:
    """The figures, how many runs had more to draw than there is room, and how many had a single plain action.

    ``without`` are runs that are drawn otherwise.
    """
    runs: dict[str, list[Action]] = {}
    for name in shown:
        action = found.actions[name]
        if action.first["run"] in without:
            continue
        runs.setdefault(action.first["run"], []).append(action)
    ordered = sorted(runs.items(), key=lambda item: min(action.seq for action in item[1]))
    figures: list[Html] = []
    left = plain = 0
    for run, actions in ordered:
        actions.sort(key=lambda action: action.seq)
        planned = [needs(found.bundles, action) for action in actions]
        if len(actions) == 1 and not planned[0]:
            plain += 1
        elif len(figures) == RUNS_MAX:
            left += 1
        else:
            figures.append(_figure(run, actions, planned))
    return figures, left, plain


def needs(bundles: Mapping[str, Mapping[str, Any]], action: Action) -> list[tuple[str, bool]]:
    """What the policy looked for before this action, and whether it was on record: ``[("screening.check", True)]``."""
    body = action.last.body
    bundle = bundles.get(body["bundle"])
    found: dict[str, bool] = {}
    for fact in bundle["compiled"]["facts"] if bundle is not None else ():
        tools = next((values for name, values in fact["where"] if name == "tool"), None)
        if fact["use"] == "floor" and tools and fact["name"] in body["facts"]:
            found[" or ".join(str(tool) for tool in tools)] = _met(body["facts"][fact["name"]])
    for record in action.records:
        if record.kind == "escalation.raised":
            found["people: " + ", ".join(sorted(record.body["ladders"]))] = any(
                one.kind == "escalation.answered" and one.body["state"] == "approved" for one in action.records
            )
    return list(found.items())[:NEEDS_MAX]


def _met(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value.get("known"))
    return bool(value)


def _figure(run: str, actions: list[Action], planned: list[list[tuple[str, bool]]]) -> Html:
    cut = actions[:STEPS_MAX]
    parts: list[Html] = []
    y = 4
    for first in range(0, len(cut), _A_ROW):
        row = list(zip(cut[first : first + _A_ROW], planned[first : first + _A_ROW], strict=True))
        above = max(len(wanted) for _, wanted in row) * _PLANNED
        for place, (action, wanted) in enumerate(row):
            parts += _step(place * _STEP + 4, y, above, action, wanted, linked=place > 0)
        y += above + _HEIGHT + _GAP
    said = "; ".join(f"#{one.seq} {one.first['tool']} {one.state}" for one in cut)
    more = f" The first {STEPS_MAX} of {len(actions)} actions are drawn." if len(actions) > STEPS_MAX else ""
    width, height = _A_ROW * _STEP, y
    return tag(
        "figure",
        tag("figcaption", tag("b", "Run "), run, f": {len(actions)} actions. Above, what the policy looked for; below, "
            f"what happened.{more}"),
        tag("div", tag("svg", inside(parts), viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
                       aria_label=f"Actions of the run {run} in their order: {said}"[:900]),
            cls="wide", tabindex="0", role="group", aria_label=f"Path of the run {run}"[:200]),
    )  # fmt: skip


def _step(
    x: int, y: int, above: int, action: Action, wanted: list[tuple[str, bool]], *, linked: bool
) -> list[Html]:  # fmt: skip
    """One action, an arrow from the one before it, and over it what was looked for."""
    parts: list[Html] = []
    low = y + above
    if linked:
        parts.append(tag("path", d=f"M{x - _STEP + _WIDTH} {low + 22}H{x - 6}m-6 -5l6 5l-6 5", cls="line"))
    for number, (name, met) in enumerate(wanted):
        parts += _box(x, y + number * _PLANNED, name, "found" if met else "not found", "met" if met else "unmet", 40)
    if wanted:
        parts.append(tag("path", d=f"M{x + 84} {y + len(wanted) * _PLANNED - 8}V{low}", cls="dash"))
    label = f"#{action.seq} {action.first['tool']}"
    return [*parts, *_box(x, low, label, action.state, STATES.get(action.state, "odd"), _HEIGHT)]


def _box(x: int, y: int, first: str, second: str, cls: str, height: int) -> list[Html]:
    name = first if len(first) <= _CHARS else first[: _CHARS - 1] + "\u2026"
    return [
        tag("rect", x=x, y=y, width=_WIDTH, height=height, rx=5, cls=f"box {cls}"),
        tag("text", name, x=x + 9, y=y + 17),
        tag("text", second, x=x + 9, y=y + 33, cls="strong"),
    ]
