"""Mandates drawn as a tree: who may do what under whom, and what is used, held and free of each limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.cli.base import careful, good, short, table

NAMES_SHOWN_MAX = 12
_ENDED = {"revoked": "revoked", "early": "not yet valid", "late": "over", "ancestor": "ended with one above it"}


def drawn(mandates: Sequence[Mapping[str, Any]], only: str | None = None) -> list[str]:
    """Lines of the whole forest, or of the tree below the mandate ``only``. Texts of others are spelled out safely."""
    below: dict[str | None, list[Mapping[str, Any]]] = {}
    known = {entry["mandate"] for entry in mandates}
    for entry in mandates:
        below.setdefault(entry["parent"] if entry["parent"] in known else None, []).append(entry)
    tops = [entry for entry in mandates if entry["mandate"] == only] if only else below.get(None, [])
    lines: list[str] = []
    for number, top in enumerate(tops):
        lines += [""] if number else []
        lines += _branch(top, below, "", "")
    return lines


def _branch(
    entry: Mapping[str, Any], below: Mapping[str | None, list[Mapping[str, Any]]], first: str, rest: str
) -> list[str]:
    children = below.get(entry["mandate"], [])
    bar = rest + ("│  " if children else "   ")
    lines = [first + _title(entry), *(bar + line for line in _details(entry))]
    for place, child in enumerate(children):
        last = place == len(children) - 1
        lines += _branch(child, below, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return lines


def _title(entry: Mapping[str, Any]) -> str:
    from countermark.audit import safe, when

    state = good("in force") if entry["in_force"] else careful(_ENDED[entry["why_not"]])
    return (
        f"{short(entry['mandate'])}  agent {safe(entry['agent'])}, granted by {safe(entry['principal'])}, "
        f"until {when(entry['not_after'])}: {state}"
    )


def _details(entry: Mapping[str, Any]) -> list[str]:
    from countermark.audit import limit, safe

    lines = [f"purpose  {safe(entry['purpose'])}"] if entry["purpose"].strip() else []
    lines += [f"tools    {_names(entry['tools'])}", f"payees   {_names(entry['payees'])}"]
    rows = [[*numbers(row), limit(row)] for row in entry["limits"]]
    return [*lines, *table(("used", "held", "free", "of"), rows, right=(0, 1, 2))]


def _names(names: Sequence[str]) -> str:
    from countermark.audit import safe

    if list(names) == ["*"]:
        return "all"
    shown = ", ".join(safe(name) for name in names[:NAMES_SHOWN_MAX]) or "none"
    more = len(names) - NAMES_SHOWN_MAX
    return shown if more <= 0 else f"{shown} and {more} more"


def numbers(row: Mapping[str, Any]) -> list[str]:
    """What is used, held and free of a limit, as text; nothing adds up in one on each single payment."""
    from countermark.audit import counted

    if row["over_us"] == 0:
        return ["", "", ""]
    return [counted(row[name], row["currency"]) for name in ("used", "held", "free")]
