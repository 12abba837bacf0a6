"""Jinja2 as the pages use it: every value is escaped, every name must exist, templates are ours and in the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from countermark.server.console import drawing, words


def environment(assets: Mapping[str, str], shared: Mapping[str, Any]) -> Environment:
    """The templates, with the words of ``words.py`` as filters and what every page may use as globals."""
    made = Environment(
        loader=PackageLoader("countermark.server.console"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters.update(
        money=words.money, day=words.day, hostile=words.hostile, named=words.named, short=words.short,
        span=words.span, listed=words.listed, moment=words.moment, ago=words.ago, cannot=words.cannot,
        factname=words.fact_name, shown=words.shown,
    )  # fmt: skip
    made.globals.update(left=words.left, bar=drawing.bar, path=drawing.path, asset=assets.__getitem__, **shared)
    return made
