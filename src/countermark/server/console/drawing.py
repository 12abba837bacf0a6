"""Small drawings: SVG without a style or a script of its own; colours come from the style sheet's classes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH = 1_000  # a bar's own units
PARTS_MAX = 16


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
