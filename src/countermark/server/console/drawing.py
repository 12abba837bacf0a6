"""Small drawings: SVG without a style or a script of its own; colours come from the style sheet's classes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH = 1_000  # a bar's own units
PARTS_MAX = 16
PATH_LINES_MAX = 6


def bar(parts: Sequence[tuple[int, str]], total: int, title: str, *, mark: int | None = None) -> Markup:
    """A bar of ``parts`` (amount, class) of ``total``. ``title`` says the same in words: a drawing is never alone.

    Classes: ``used``, ``held``, ``this``, ``free``, ``over``. ``mark`` draws a line at an amount. More than the total
    fills the bar to its end.
    """
    whole = max(total, sum(amount for amount, _ in parts[:PARTS_MAX]), 1)
    pieces, at = [], 0
    for amount, kind in parts[:PARTS_MAX]:
        width = max(0, amount) * WIDTH // whole
        if amount > 0:
            width = max(width, 6)  # what is there is seen
            pieces.append(Markup('<rect class="bar-{}" x="{}" y="0" width="{}" height="24"/>').format(kind, at, width))
        at += width
    if mark is not None:
        x = max(0, min(mark * WIDTH // whole, WIDTH - 4))
        pieces.append(Markup('<rect class="bar-mark" x="{}" y="0" width="4" height="24"/>').format(x))
    body = Markup("").join(pieces)
    return Markup(
        '<svg class="bar" role="img" viewBox="0 0 {} 24" preserveAspectRatio="none"><title>{}</title>'
        '<rect class="bar-free" x="0" y="0" width="{}" height="24"/>{}</svg>'
    ).format(WIDTH, title, WIDTH, body)


PATH_WIDTH = 300  # of a phone's page, so that its words are not shrunk there
_LINE, _TOP, _CHARS = 15, 22, 18
_MARKS = {
    "done": Markup('<circle class="path-done" cx="{x}" cy="{y}" r="6"/>'),
    "open": Markup('<circle class="path-open" cx="{x}" cy="{y}" r="6"/>'),
    "never": Markup('<circle class="path-never" cx="{x}" cy="{y}" r="4"/>'),
    "stopped": Markup('<rect class="path-stopped" x="{left}" y="{top}" width="12" height="12"/>'),
    "differs": Markup('<path class="path-differs" d="M{left} {top}l12 12m0-12l-12 12"/>'),
}
_SAID = {
    "done": "as planned",
    "open": "open",
    "stopped": "ends here",
    "differs": "not as planned",
    "never": "not reached",
}


def path(steps: Sequence[Mapping[str, str]], title: str) -> Markup:
    """What was planned on the left, what happened on the right, step by step (``audit.path_of``).

    The words of the drawing are its text; ``title`` says the whole in a sentence.
    """
    parts, y, right = [], _TOP, PATH_WIDTH // 2 + 6
    ends: list[int] = []
    for step in steps:
        planned, actual = _wrapped(step["planned"]), _wrapped(step["actual"])
        parts.append(_mark("done" if step["state"] != "never" else "never", 8, y))
        parts.append(_words(20, y, step["step"], planned, "path-step"))
        parts.append(_mark(step["state"], right + 8, y))
        parts.append(_words(right + 20, y, _SAID[step["state"]], actual, f"path-said-{step['state']}"))
        ends.append(y)
        y += _LINE * (max(len(planned), len(actual)) + 1) + 16
    lines = [_line(8, ends[0], ends[-1], "path-plan")] if len(ends) > 1 else []
    reached = [end for end, step in zip(ends, steps, strict=True) if step["state"] != "never"]
    if len(reached) > 1:
        lines.append(_line(right + 8, reached[0], reached[-1], "path-real"))
    return Markup(
        '<svg class="path" role="img" viewBox="0 0 {} {}" aria-labelledby="path-title path-desc">'
        '<title id="path-title">{}</title><desc id="path-desc">{}</desc>{}{}</svg>'
    ).format(PATH_WIDTH, y, title, _told(steps), Markup("").join(lines), Markup("").join(parts))


def _told(steps: Sequence[Mapping[str, str]]) -> str:
    return " ".join(f"{s['step']}: planned {s['planned']}; actual {s['actual']} ({_SAID[s['state']]})." for s in steps)


def _mark(state: str, x: int, y: int) -> Markup:
    return _MARKS[state].format(x=x, y=y, left=x - 6, top=y - 6)


def _line(x: int, top: int, bottom: int, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x, top, x, bottom)


def _words(x: int, y: int, first: str, rest: Sequence[str], kind: str) -> Markup:
    text = Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, x, y + 4, first)
    return text + Markup("").join(
        Markup('<text class="path-text" x="{}" y="{}">{}</text>').format(x, y + 4 + _LINE * number, line)
        for number, line in enumerate(rest, 1)
    )


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, _CHARS, break_on_hyphens=False)
    return lines[:PATH_LINES_MAX] if len(lines) <= PATH_LINES_MAX else [*lines[: PATH_LINES_MAX - 1], "…"]
