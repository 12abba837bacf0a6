"""How long sealed values must be kept: ``limits.toml [retention]``, the bundle's member ``retention``.

Without a rule nothing is ever erased: silence is no permission. A year has 366 days here, so that a duty in calendar
years is never cut short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark.model.errors import PolicyError
from countermark.model.values import TOOL
from countermark.policy.toml import Table

DAY_S = 86_400
YEAR_DAYS = 366
KEEP_S_MAX = 200 * YEAR_DAYS * DAY_S
TOOLS_MAX = 1_000

_KEEP = re.compile(r"([0-9]{1,5})([dy])")
_HINT = "Write days or years, like 90d or 7y; a year has 366 days."


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds for which a tool's values are kept, from their record on. ``keep_s`` is for tools without a rule."""

    keep_s: int | None = None
    tools: Mapping[str, int] = field(default_factory=dict)

    def of(self, tool: str) -> int | None:
        """The rule for a tool, None without one."""
        return self.tools.get(tool, self.keep_s)

    def document(self) -> dict[str, Any]:
        return {"keep_s": self.keep_s, "tools": [[name, keep] for name, keep in sorted(self.tools.items())]}

    @classmethod
    def from_document(cls, doc: object) -> Retention:
        """The bundle's member, as it stands there. Raises ``PolicyError``."""
        if not isinstance(doc, Mapping) or doc.keys() != {"keep_s", "tools"} or type(doc["tools"]) is not list:
            raise PolicyError("the retention of the bundle does not have exactly its members")
        rows, keep = doc["tools"], doc["keep_s"]
        if any(type(row) is not list or len(row) != 2 or type(row[0]) is not str for row in rows):
            raise PolicyError("the retention of the bundle has a tool of an invalid form")
        names = [name for name, _ in rows]
        if names != sorted(set(names)) or (keep is None and not rows):
            raise PolicyError("the retention of the bundle has no rule, or they are not sorted")
        for value in [*(keep for _, keep in rows), *(() if keep is None else (keep,))]:
            if type(value) is not int or not 0 <= value <= KEEP_S_MAX:
                raise PolicyError("the retention of the bundle is no number of seconds")
        return cls(keep, dict(rows))


def read_retention(root: Table) -> Retention | None:
    """``[retention]``: ``keep = "7y"`` for all tools, ``[retention.tools]`` for some; None without the table."""
    if "retention" not in root:
        return None
    table = root.table("retention")
    table.only("keep", "tools")
    keep = _keep(table, "keep") if "keep" in table else None
    tools: dict[str, int] = {}
    if "tools" in table:
        below = table.table("tools")
        for name in below.value:
            if TOOL.fullmatch(name) is None:
                below.error(name, "bad_name", f"{name[:70]!r} is not a tool's name")
            else:
                tools[name] = _keep(below, name)
        if len(tools) > TOOLS_MAX:
            table.error("tools", "too_many", f"more than {TOOLS_MAX} tools")
    if keep is None and not tools:
        table.error("", "missing_key", "[retention] says nothing", 'Add keep = "7y", or [retention.tools].')
        return None
    return Retention(keep, tools)


def _keep(table: Table, key: str) -> int:
    found = _KEEP.fullmatch(table.text(key, form=_KEEP, form_hint=_HINT))
    keep_s = int(found[1]) * DAY_S * (YEAR_DAYS if found[2] == "y" else 1) if found else 0
    if keep_s > KEEP_S_MAX:
        table.error(key, "bad_value", "a retention of more than 200 years")
    return keep_s
