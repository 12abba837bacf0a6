"""The document of ``audit_paths`` for people: what was required, what happened, and which rule was in force."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from countermark.audit.preview import deal
from countermark.audit.words import listed, safe, when

OUTPUT_CHARS_MAX = 80
SHOWN_MAX = 100
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def paths_lines(found: Mapping[str, Any]) -> list[str]:
    """For a terminal: the count first, then every deviation with its order of events, then what was cleared."""
    rules = listed([rule["id"] for rule in found["rules"]])
    count = found["deviating"]
    lines = [f"{found['checked']:,} actions that were carried out, held against {safe(rules)}: {count:,} deviate."]
    for row in found["deviations"][:SHOWN_MAX]:
        lines += ["", *_deviation(row)]
    rest = found["more"] + max(0, len(found["deviations"]) - SHOWN_MAX)
    lines += [f"and {rest:,} more"] if rest else []
    if found["failed"]:
        lines.append(f"{found['failed']:,} more would deviate, but failed: nothing was moved.")
    if found["cleared"]:
        lines += ["", f"Cleared by an exception: {found['cleared_count']:,}"]
        lines += [f"  #{row['seq']} {deal(row)}: {_exceptions(row)}" for row in found["cleared"][:SHOWN_MAX]]
    if found["undecided"]:
        lines += ["", f"Cannot be established: {found['undecided_count']:,}"]
        lines += [f"  #{row['seq']} {deal(row)}: {safe('; '.join(row['words']))}"
                  for row in found["undecided"][:SHOWN_MAX]]  # fmt: skip
    return lines


def _exceptions(row: Mapping[str, Any]) -> str:
    return safe(listed([f"{item['id']}, ticket {item['ticket']}" for item in row["exceptions"]]))


def _deviation(row: Mapping[str, Any]) -> list[str]:
    ref = f" as {safe(row['ref'])}" if row["ref"] else ""
    lines = [f"#{row['seq']} {deal(row)}: {row['outcome']}{ref}, decided {when(row['at'])} ({row['id']})"]
    lines += _titled("broken", [_cut(text) for text in row["words"]])
    lines += _titled("in force", [_in_force(row)])
    lines += _titled("required", [_cut(text) for text in row["required"]])
    return lines + _titled("actual", [_event(event) for event in row["actual"]])


def _titled(title: str, rows: list[str]) -> list[str]:
    return [f"  {title if n == 0 else '':<10}{text}" for n, text in enumerate(rows)]


def _in_force(row: Mapping[str, Any]) -> str:
    force = row["in_force"]
    since = "" if force["since"] is None else f" since {when(force['since'])}"
    lacking = [name for name in row["rules"] if name not in force["had"]]
    text = f"policy {force['bundle'][7:19]}{since}"
    if lacking:
        text += f", which did not have {listed(lacking)}"
    if force["had"]:
        text += f"; {listed(force['had'])} stood in it and did not stop this"
    return safe(text)


def _event(event: Mapping[str, Any]) -> str:
    output = ", ".join(f"{name} {_short(value)}" for name, value in sorted(event["output"].items()))
    said = f"{event['tool']} {event['outcome']}" + (f" ({output})" if output else "")
    why = " <- this action" if event["why"] is None else f": {'; '.join(event['why'])}" if event["why"] else ""
    return f"{when(event['settled_at'] or event['at'])}  #{event['seq']} {_cut(said + why)}"


def _short(value: Any) -> str:
    text = ("true" if value else "false") if type(value) is bool else str(value)
    return text if len(text) <= OUTPUT_CHARS_MAX else text[:OUTPUT_CHARS_MAX] + "..."


def _cut(text: str) -> str:
    """Digests as people compare them; ``--json`` has them whole."""
    return _DIGEST.sub(lambda found: found[0][: len("sha256:") + 12], safe(text))
