"""HTML as a type of its own: text becomes markup in one place, and there it is escaped.

Every value in a pack was chosen by somebody else, perhaps to be read by whoever opens it. So there is no template and
no way to mark a value as safe: what is not already ``Html`` is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from countermark.model.words import escaped

_VOID = frozenset(("meta", "input", "br"))


class Html(str):
    """Markup that this module made. Nothing else may make one of what a record says."""

    __slots__ = ()


Child = Html | str | int | None


def text(value: object) -> Html:
    """A value as text: whatever could not be seen is spelled out, whatever means something to HTML is escaped."""
    said = str(value)
    shown = said if said.isascii() and said.isprintable() else escaped(said)
    return Html(escape(shown, quote=True))


def tag(element: str, /, *children: Child | Iterable[Child], **attributes: str | int | bool | None) -> Html:
    """One element. ``cls`` is ``class``, underscores are hyphens; an attribute of None or False is left out."""
    parts = [f"<{element}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        called = {"cls": "class", "for_": "for"}.get(key, key.replace("_", "-"))
        parts.append(f" {called}" if value is True else f' {called}="{text(value)}"')
    parts.append(">")
    if element in _VOID:
        return Html("".join(parts))
    parts += [inside(*children), f"</{element}>"]
    return Html("".join(parts))


def inside(*children: Child | Iterable[Child]) -> Html:
    """Several children as one."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int):
            parts.append(text(child))
        else:
            parts.append(inside(*child))
    return Html("".join(parts))


def table(head: Iterable[str], rows: Iterable[Iterable[Child | Iterable[Child]]], caption: str = "") -> Html:
    """A table that may scroll sideways by itself on a small screen."""
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", [tag("th", name, scope="col") for name in head])),
            tag("tbody", [tag("tr", [tag("td", cell) for cell in row]) for row in rows]),
        ),
        cls="wide",
        tabindex="0",
        role="group",
        aria_label=caption or "Table",
    )
