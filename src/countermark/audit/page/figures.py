"""The figures of a page, as programs read them: the page's own check, and the verifier, make them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit.page.gather import Gathered


def figures(
    found: Gathered, *, origin: str, size: int, root: str, withheld: int, erased: int, disclosed: int,
    scope: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """See ``docs/spec/pack.md``; those of an extract say what it is about, and what is of that.

    Sums are text: they may exceed what a number in JSON can hold.
    """
    open_, unknown = found.open_and_unknown()
    about = {} if scope is None else {"scope": dict(scope), "inside": found.population.inside(scope)}
    return {
        "v": 1, **about, "origin": origin, "size": size, "root": root, "kinds": dict(sorted(found.kinds.items())),
        "dispositions": dict(sorted(found.dispositions.items())), "waived": found.waived,
        "outcomes": dict(sorted(found.outcomes.items())), "actions": len(found.population.lines),
        "open": len(open_), "unknown": len(unknown), "withheld": withheld, "erased": erased, "disclosed": disclosed,
        "totals": [[currency, str(amount)] for currency, amount in sorted(found.totals.items())],
        "asked": [[currency, str(amount)] for currency, amount in found.population.asked().items()],
    }  # fmt: skip
