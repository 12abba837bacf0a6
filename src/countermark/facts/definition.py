"""Fact definitions, exactly as they stand in a compiled bundle (``docs/spec/facts.md``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from countermark.model.errors import PolicyError

Kind = Literal["window", "slot", "distinct", "grounded", "details"]
Use = Literal["cap", "floor"]

KINDS: tuple[Kind, ...] = ("window", "slot", "distinct", "grounded", "details")
USES: tuple[Use, ...] = ("cap", "floor")
PLAIN_FIELDS = ("agent", "run", "mandate", "tool", "payee", "currency", "amount")
GROUP_FIELDS_MAX = 8
WHERE_VALUES_MAX = 256
OVER_US_MAX = 10 * 366 * 86_400 * 1_000_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
OUTPUT = "output."  # before the name of a confirmed action's output, in the `where` of a floor
_FIELD = re.compile(r"args\.[a-z][a-z0-9_]{0,39}")
_OUTPUT = re.compile(r"output\.[a-z][a-z0-9_]{0,39}")
_MEMBERS = ("name", "kind", "of", "over_us", "group", "where", "use", "tool", "field")

Scalar = str | int | bool


def is_field(name: str) -> bool:
    """Whether ``name`` is a field of an action: a plain one, or ``args.ALIAS``."""
    return name in PLAIN_FIELDS or _FIELD.fullmatch(name) is not None


def _listed(values: object) -> tuple[Any, ...]:
    if type(values) is not list:  # a text would fall apart into its characters
        raise TypeError("not a list")
    return tuple(values)


@dataclass(frozen=True, slots=True)
class FactDef:
    """One fact definition. ``over_us`` is microseconds; ``of`` is ``amount``, ``count`` or a field.

    Members that a kind does not use are empty: ``of`` for slots, ``tool`` and ``field`` for all but grounded facts.
    """

    name: str
    kind: Kind
    of: str = ""
    over_us: int = 0
    group: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    use: Use = "cap"
    tool: str = ""
    field: str = ""

    def document(self) -> dict[str, Any]:
        """JSON form, as it stands in a compiled bundle."""
        return {
            "name": self.name, "kind": self.kind, "of": self.of, "over_us": self.over_us, "group": list(self.group),
            "where": [[name, list(values)] for name, values in self.where],
            "use": self.use, "tool": self.tool, "field": self.field,
        }  # fmt: skip

    @classmethod
    def from_document(cls, doc: Mapping[str, Any]) -> FactDef:
        """Inverse of ``document``. Raises ``PolicyError`` when the definition is not one."""
        if set(doc) != set(_MEMBERS):
            raise PolicyError("a fact definition does not have exactly its members")
        try:
            definition = cls(
                doc["name"], doc["kind"], doc["of"], doc["over_us"], tuple(doc["group"]),
                tuple((name, _listed(values)) for name, values in doc["where"]),
                doc["use"], doc["tool"], doc["field"],
            )  # fmt: skip
        except (TypeError, ValueError):
            raise PolicyError("a fact definition has a member of the wrong shape") from None
        problem = definition.problem()
        if problem:
            raise PolicyError(f"fact {definition.name!r}: {problem}"[:200])
        return definition

    def problem(self) -> str:
        """What is wrong with this definition, in words; empty when nothing is."""
        texts = (self.name, self.of, self.use, self.tool, self.field, *self.group, *(name for name, _ in self.where))
        if any(type(text) is not str for text in texts) or type(self.over_us) is not int:
            return "a member has the wrong type"
        if _NAME.fullmatch(self.name) is None:
            return "a name is a-z, 0-9 and _, at most 40 characters, and starts with a letter"
        if self.kind not in KINDS or self.use not in USES:
            return "kind is window, slot, distinct, grounded or details; use is cap or floor"
        if len(self.group) > GROUP_FIELDS_MAX or len(set(self.group)) != len(self.group):
            return f"group names at most {GROUP_FIELDS_MAX} fields, each once"
        for name in (*self.group, *(name for name, _ in self.where if not self._is_output(name))):
            if not is_field(name):
                return f"{name!r} is not a field of an action"
        if self.use != "floor" and any(name.startswith(OUTPUT) for name, _ in self.where):
            return "an output is known once an action is confirmed: a where with one needs use = floor"
        for name, values in self.where:
            if not 1 <= len(values) <= WHERE_VALUES_MAX or any(type(v) not in (str, int, bool) for v in values):
                return f"where {name} lists 1 to {WHERE_VALUES_MAX} texts, integers or booleans"
        return self._problem_of_kind()

    def _is_output(self, name: str) -> bool:
        return _OUTPUT.fullmatch(name) is not None

    def _problem_of_kind(self) -> str:
        if self.kind == "grounded":
            return self._problem_of_grounded()
        if self.kind == "details":
            plain = self.group == ("payee",) and self.use == "floor"
            if not plain or self.of or self.over_us or self.where or self.tool or self.field:
                return "a details fact is a floor grouped by payee, and nothing else"
            return ""
        if self.tool or self.field:
            return "tool and field belong to grounded facts"
        low = 0 if self.kind == "slot" else 1
        if not low <= self.over_us <= OVER_US_MAX:
            return "over is a positive length of time, at most ten years"
        if self.kind == "window" and self.of not in ("amount", "count"):
            return "a window is of amount or of count"
        if self.kind == "slot" and self.of:
            return "a slot has no `of`"
        if self.kind == "distinct" and not is_field(self.of):
            return f"{self.of!r} is not a field of an action"
        return ""

    def _problem_of_grounded(self) -> str:
        if self.use != "floor":
            return "a grounded fact is a floor"
        if not is_field(self.of):
            return f"{self.of!r} is not a field of an action"
        if not self.tool or not self.field:
            return "a grounded fact names the tool and the output field it is grounded in"
        if self.group or self.where or self.over_us:
            return "a grounded fact has no group, where or over"
        return ""
