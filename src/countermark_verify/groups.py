"""V21: groups of runs, of which one at a time goes on (docs/spec/workflow.md, Groups)."""

from collections.abc import Mapping
from typing import Any

from countermark_verify.definition import Definition
from countermark_verify.evaluate import Failed, fill

Group = tuple[str, str]  # the name of the definition, and the group's


class Groups:
    """Who is in which group, and who came first."""

    def __init__(self) -> None:
        self._of: dict[str, set[Group]] = {}  # of a run: that in which it began, and those of later definitions
        self._newest: dict[Group, int] = {}  # the last run that cancels those before it
        self._open: dict[Group, dict[str, None]] = {}  # runs that began in it and have not ended, in their order
        self._in: dict[str, Group] = {}

    def began(self, run: str, seq: int, definition: Definition, inputs: Mapping[str, Any]) -> str:
        """Why this is no beginning of a run, or ""."""
        try:
            group = self._join(run, seq, definition, inputs)
        except Failed as error:
            return f"the group of the run {error}"
        if group is not None:
            self._in[run] = group
            self._open.setdefault(group, {})[run] = None
        return ""

    def changed(self, run: str, began: int, definition: Definition, inputs: Mapping[str, Any]) -> None:
        """The run goes on by another definition, in the group in which it began."""
        try:
            self._join(run, began, definition, inputs)
        except Failed:
            return

    def _join(self, run: str, seq: int, definition: Definition, inputs: Mapping[str, Any]) -> Group | None:
        concurrency = definition.document["concurrency"]
        if concurrency is None:
            return None
        value = fill(concurrency["group"], {"inputs": inputs, "run": {"name": definition.name}})
        group = definition.name, value if type(value) is str else str(value)
        self._of.setdefault(run, set()).add(group)
        if concurrency["cancel"]:
            self._newest[group] = max(seq, self._newest.get(group, seq))
        return group

    def ended(self, run: str) -> None:
        self._of.pop(run, None)
        if (group := self._in.pop(run, None)) is not None:
            del self._open[group][run]
            if not self._open[group]:
                del self._open[group]

    def ahead(self, run: str) -> str:
        """The run of the same group that this one waits for, or ""."""
        group = self._in.get(run)
        first = run if group is None else next(iter(self._open[group]))
        return "" if first == run else first

    def superseded(self, run: str, began: int) -> bool:
        """Whether a newer run of a group of this one ends those before it."""
        return any(self._newest.get(group, -1) > began for group in self._of.get(run, ()))
