"""A definition drawn as a graph, and a run of it on top: what was planned against what happened. Plain SVG, no script.

Every colour is said in words too. What ran has a solid border, what was not run a dashed one; what a run did against
its definition is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from countermark.workflow.plan import UNDO, DefinitionLike, JobPlan, Plan, StepPlan, plan_of
from countermark.workflow.progress import PENDING, RUNNING, SKIPPED, Row

BYTES_MAX = 60_000
NAME_CHARS_MAX, LINE_CHARS_MAX, TITLE_CHARS_MAX, STRAYS_SHOWN_MAX = 24, 28, 40, 12

_WIDE, _GAP, _STEP, _LINE, _PAD, _HEAD = 210, 60, 40, 14, 10, 34
_STATES = ("failure", RUNNING, "success", PENDING, SKIPPED)
_SIGNS = {"success": "✓", "failure": "✗", RUNNING: "▶", PENDING: "○", SKIPPED: "–", "cancelled": "■"}
# Borders: of a lightness that stands out on white and on black, as attributes, which every page's policy allows.
_COLOURS = {
    "success": "#2a9354", "failure": "#dc4146", RUNNING: "#2f7fd1", PENDING: "#7c8794", SKIPPED: "#7c8794",
    "cancelled": "#b57512", "": "#7c8794",
}  # fmt: skip
_STYLE = (
    "<style>.wf{color:#17202b;background:#fff}"
    "@media (prefers-color-scheme:dark){.wf{color:#e8edf3;background:#12171d}}</style>"
)


def svg(
    definition: DefinitionLike, progress: Sequence[Row] | None = None, *,
    deviations: Mapping[str, str] | None = None, style: bool = True,
) -> str:  # fmt: skip
    """The graph of a definition: jobs in columns by depth, their steps as boxes, needs as lines.

    Args:
        progress: ``Machine.progress()`` of a run, to be drawn on top; None draws the definition alone.
        deviations: place -> what was done there against the definition; a place that it does not have is drawn too.
        style: whether the drawing brings its own colours of text and paper, light and dark, as a file needs them; in
            a page with a policy against inline styles it takes the page's.

    Returns:
        One ``svg`` element of at most ``BYTES_MAX`` bytes; the same text for the same arguments.
    """
    plan = plan_of(definition)
    found = dict(deviations or {})
    taken = _Taken(progress, found)
    columns = _columns(plan)
    boxes, places, height = [], {}, 0
    for column, jobs in enumerate(columns):
        y = _PAD
        for job in jobs:
            drawn, tall = _job(job, taken, _PAD + column * (_WIDE + _GAP), y)
            places[job.index] = (_PAD + column * (_WIDE + _GAP), y + _HEAD // 2)
            boxes.append(drawn)
            y += tall + 18
        height = max(height, y)
    strays, more = _strays(plan, found, height)
    width = 2 * _PAD + len(columns) * (_WIDE + _GAP) - _GAP
    said = escape(_told(plan, progress, found))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="wf" role="img" aria-label="{said}" width="{width}"'
        f' height="{height + more}" viewBox="0 0 {width} {height + more}" font-family="system-ui,sans-serif"'
        f' font-size="12" fill="currentColor">{_STYLE if style else ""}<title>{said}</title>'
        f'<path class="wf-needs" fill="none" stroke="{_COLOURS[""]}" stroke-width="1.5" d="{_lines(plan, places)}"/>'
        f'{"".join(boxes)}{strays}</svg>'
    )  # fmt: skip


class _Taken:
    """What a run did, by job and step, over all combinations of a matrix."""

    def __init__(self, progress: Sequence[Row] | None, deviations: Mapping[str, str]) -> None:
        self.drawn = progress is not None
        self.deviations = deviations
        self.rows = {row.place: row for row in progress or ()}

    def of(self, job: JobPlan, step: StepPlan) -> list[Row]:
        places = (places[step.index] for places in job.places)
        return [self.rows[place] for place in places if place in self.rows]

    def undone(self, job: JobPlan, step: StepPlan) -> list[Row]:
        places = (places[step.index] + UNDO for places in job.places)
        return [self.rows[place] for place in places if place in self.rows]

    def wrong(self, job: JobPlan, step: StepPlan) -> str:
        for places in job.places:
            for place in (places[step.index], places[step.index] + UNDO):
                if place in self.deviations:
                    return self.deviations[place] or "not as declared"
        return ""


def _columns(plan: Plan) -> list[list[JobPlan]]:
    """Jobs by the length of the longest way to them."""
    depth: dict[int, int] = {}
    while len(depth) < len(plan.jobs):
        for job in plan.jobs:
            if job.index not in depth and all(need in depth for need in job.needs):
                depth[job.index] = max((depth[need] + 1 for need in job.needs), default=0)
    return [[job for job in plan.jobs if depth[job.index] == level] for level in range(max(depth.values()) + 1)]


def _lines(plan: Plan, places: Mapping[int, tuple[int, int]]) -> str:
    """A curve for each need that no other need implies."""
    above: dict[int, set[int]] = {}
    for job in sorted(plan.jobs, key=lambda one: places[one.index][0]):
        above[job.index] = set(job.needs).union(*(above[need] for need in job.needs))
    found = []
    for job in plan.jobs:
        implied = {far for need in job.needs for far in above[need]}
        for need in (need for need in job.needs if need not in implied):
            (x, y), (to_x, to_y) = places[need], places[job.index]
            right, down = to_x - x - _WIDE, to_y - y
            found.append(f"M{x + _WIDE} {y}c30 0 {right - 30} {down} {right} {down}")
    return "".join(found)


def _job(job: JobPlan, taken: _Taken, x: int, y: int) -> tuple[str, int]:
    """A job's frame with its steps, and how high it is."""
    lines = 3 if taken.drawn else 2
    tall = _HEAD + len(job.steps) * (_STEP + (lines - 2) * _LINE + 6) + 4
    many = f" × {len(job.combos)}" if job.is_matrix else ""
    parts = [
        f'<g class="wf-job" transform="translate({x} {y})">'
        f'<rect width="{_WIDE}" height="{tall}" rx="8" fill="none" stroke="{_COLOURS[""]}"/>'
        f'<text x="10" y="21" font-weight="700">{_cut(job.id, NAME_CHARS_MAX)}{many}</text>'
    ]
    at = _HEAD
    for step in job.steps:
        parts.append(_step(job, step, taken, at))
        at += _STEP + (lines - 2) * _LINE + 6
    return "".join(parts) + "</g>", tall


def _step(job: JobPlan, step: StepPlan, taken: _Taken, y: int) -> str:
    rows = taken.of(job, step)
    state = next((name for name in _STATES if any(row.conclusion == name for row in rows)), "")
    wrong = taken.wrong(job, step)
    tall = _STEP + (_LINE if taken.drawn else 0)
    colour = _COLOURS["failure"] if wrong else _COLOURS[state]
    dash = ' stroke-dasharray="5 4"' if state in (SKIPPED, PENDING) else ""
    thick = "4" if wrong else "2" if state not in ("", SKIPPED, PENDING) else "1.2"
    title = f"<title>{_cut(step.name, TITLE_CHARS_MAX)}</title>" if step.name else ""
    lines = [
        f'<text x="8" y="16">{_cut(step.id, NAME_CHARS_MAX)}</text>',
        f'<text x="8" y="30" opacity=".75">{_cut(_what(step), LINE_CHARS_MAX)}</text>',
    ]
    if taken.drawn:
        said = f"⚠ {wrong}" if wrong else _said(rows, taken.undone(job, step), state)
        lines.append(f'<text x="8" y="46">{_cut(said, LINE_CHARS_MAX)}</text>')
    return (
        f'<g class="wf-{"wrong" if wrong else state or "step"}" transform="translate(8 {y})">{title}'
        f'<rect width="{_WIDE - 16}" height="{tall}" rx="5" fill="none" stroke="{colour}"'
        f' stroke-width="{thick}"{dash}/>'
        f"{''.join(lines)}</g>"
    )


def _what(step: StepPlan) -> str:
    spec: Mapping[str, Any] = step.spec
    if step.kind == "effect":
        return f"approve{' ⟲' if step.undo else ''}" if spec["tool"] == "workflow.approve" else str(spec["tool"])
    if step.kind == "wait":
        return f"wait: {spec['for']['kind']}"
    return f"{step.kind}: {spec['agent']}" if step.kind == "agent" else str(step.kind)


def _said(rows: Sequence[Row], undone: Sequence[Row], state: str) -> str:
    """What became of a step, in words; of several combinations, how many came to the worst."""
    if not rows:
        return ""
    if len(rows) > 1:
        said = f"{sum(row.conclusion == state for row in rows)} of {len(rows)}: {state}"
    else:
        row = rows[0]
        said = row.conclusion if row.conclusion == row.outcome else f"{row.conclusion} after {row.outcome}"
        said += f" ({row.attempts}×)" if row.attempts > 1 else ""
        said += f": {row.code}" if row.code and row.outcome == "failure" else ""
    if undone:
        done = sum(row.conclusion == "success" for row in undone)
        left = sum(row.conclusion == "failure" for row in undone)
        said = "undone" if done == len(undone) else "undo failed" if left else "being undone"
        return f"⟲ {said}" if len(rows) == 1 else f"⟲ {done} undone, {left} not"
    return f"{_SIGNS[state]} {said}"


def _strays(plan: Plan, deviations: Mapping[str, str], y: int) -> tuple[str, int]:
    """What was done at places that the definition does not have, and how high that is."""
    known = plan.where
    strange = sorted(place for place in deviations if place.removesuffix(UNDO) not in known)
    if not strange:
        return "", 0
    lines = [f"{place}: {deviations[place] or 'not in the definition'}" for place in strange[:STRAYS_SHOWN_MAX]]
    if len(strange) > STRAYS_SHOWN_MAX:
        lines.append(f"and {len(strange) - STRAYS_SHOWN_MAX} more")
    texts = "".join(
        f'<text x="{_PAD}" y="{y + 30 + number * 16}">⚠ {_cut(line, 90)}</text>' for number, line in enumerate(lines)
    )
    head = f'<text x="{_PAD}" y="{y + 12}" font-weight="700">Not in the definition</text>'
    return f'<g class="wf-wrong">{head}{texts}</g>', 34 + 16 * len(lines)


def _told(plan: Plan, progress: Iterable[Row] | None, deviations: Mapping[str, str]) -> str:
    """The drawing in a sentence."""
    steps = sum(len(job.steps) for job in plan.jobs)
    said = f"{plan.name}: {_count(len(plan.jobs), 'job')}, {_count(steps, 'step')}"
    if progress is not None:
        rows = [row for row in progress if not row.place.endswith(UNDO)]
        counts = [(name, sum(row.conclusion == name for row in rows)) for name in _STATES]
        said += "; " + ", ".join(f"{count} {name}" for name, count in counts if count)
    return said + (f"; {_count(len(deviations), 'deviation')}" if deviations else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _cut(text: str, most: int) -> str:
    """At most so many characters, fewer of those that take many bytes; escaped, and none that cannot be seen."""
    found: list[str] = []
    left = most
    for one in text:
        shown = escape(one if one.isprintable() else "?")
        size = max(1, len(shown.encode("utf-8")) - 2)
        if left < size + (1 if len(found) + 1 < len(text) else 0):
            return "".join(found) + "…"
        found.append(shown)
        left -= size
    return "".join(found)
