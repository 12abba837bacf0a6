"""The Cedar context of a tool's actions: which members it has, and whether a context fits its schema exactly.

``fits`` answers what Cedar's own validation of a request answers, for the few types that ``schema.py`` writes. Asking
Cedar costs a quarter of a decision each time (ADR 0006); a test compares the two on thousands of contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from countermark.facts import FactDef
from countermark.model.canon import Json
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import BUILT_IN_FACTS

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1

Fits = Callable[[Any], bool]


def _is_long(value: Any) -> bool:
    return value.__class__ is int and LONG_MIN <= value <= LONG_MAX


def _is_string(value: Any) -> bool:
    return value.__class__ is str


def _is_bool(value: Any) -> bool:
    return value.__class__ is bool


def _is_strings(value: Any) -> bool:
    return value.__class__ is list and all(item.__class__ is str for item in value)


def _is_slot(value: Any) -> bool:
    if value.__class__ is not dict or value.get("known").__class__ is not bool:
        return False
    if len(value) == 1:
        return True
    return len(value) == 2 and "age_s" in value and _is_long(value["age_s"])


def _is_grounded(value: Any) -> bool:
    return (
        value.__class__ is dict
        and len(value) == 2
        and value.get("known").__class__ is bool
        and value.get("equal").__class__ is bool
    )


_ARGUMENTS: Mapping[str, Fits] = {"string": _is_string, "integer": _is_long, "boolean": _is_bool}
_FACTS: Mapping[str, Fits] = {
    "window": _is_long, "distinct": _is_long, "slot": _is_slot, "details": _is_slot, "grounded": _is_grounded,
}  # fmt: skip
_INSIDE: Mapping[Fits, tuple[str, ...]] = {_is_slot: (".known", ".age_s"), _is_grounded: (".known", ".equal")}
_BUILT_IN: Mapping[str, Fits] = {"Bool": _is_bool, "Long": _is_long, "Set<String>": _is_strings}


class Shape:
    """The members of one tool's context (its ``reads``), by where they come from, each with the test of its type.

    ``leaves`` are the paths of all that it can hold but objects.
    """

    def __init__(self, tool: ToolSpec, facts: Mapping[str, FactDef]) -> None:
        self._terms: dict[str, Fits] = {}
        self._args: dict[str, Fits] = {}
        self._facts: dict[str, Fits] = {}
        optional: set[str] = set()
        for member in tool.reads:
            place, _, name = member.partition(".")
            if place == "args":
                self._args[name] = _ARGUMENTS[tool.by_alias[name].type]
                if not tool.by_alias[name].required:
                    optional.add(name)
            elif place != "facts":
                self._terms[member] = _is_long if member == "amount" else _is_string
            elif name in BUILT_IN_FACTS:
                self._facts[name] = _BUILT_IN[BUILT_IN_FACTS[name]]
            else:
                self._facts[name] = _FACTS[facts[name].kind]
        self._required = frozenset(self._args) - optional
        self.leaves = frozenset((*self._terms, *(f"args.{name}" for name in self._args), *self._of_facts()))

    def _of_facts(self) -> Iterator[str]:
        """Paths of the members of ``facts`` that are no objects, and of what is in those that are."""
        for name, fits in self._facts.items():
            yield from (f"facts.{name}{inner}" for inner in _INSIDE.get(fits, ("",)))

    def context(
        self, terms: Mapping[str, Any], clear_args: Mapping[str, Any], facts: Mapping[str, Json]
    ) -> dict[str, Any]:
        """The members that the tool's policies read, and no other; one that is missing stays missing."""
        context: dict[str, Any] = {name: terms[name] for name in self._terms}
        if self._args:
            members = {name: clear_args[name] for name in self._args if name in clear_args}
            if members:
                context["args"] = members
        if self._facts:
            members = {name: facts[name] for name in self._facts if name in facts}
            if members:
                context["facts"] = members
        return context

    def fits(self, context: Mapping[str, Any]) -> bool:
        """Whether a context has every required member, each of its type, and nothing else."""
        args, facts = context.get("args"), context.get("facts")
        if len(context) != len(self._terms) + ("args" in context) + ("facts" in context):
            return False
        for name, fits in self._terms.items():
            if name not in context or not fits(context[name]):
                return False
        return self._args_fit(args, "args" in context) and self._facts_fit(facts, "facts" in context)

    def _args_fit(self, args: Any, given: bool) -> bool:
        if not given:
            return not self._required
        if args.__class__ is not dict or not self._args or not self._required <= args.keys():
            return False
        tests = self._args
        for name, value in args.items():  # noqa: SIM110  a generator would cost more than what it looks at
            if name not in tests or not tests[name](value):
                return False
        return True

    def _facts_fit(self, facts: Any, given: bool) -> bool:
        if not given:
            return not self._facts
        if facts.__class__ is not dict or not self._facts or len(facts) != len(self._facts):
            return False
        for name, fits in self._facts.items():  # noqa: SIM110
            if name not in facts or not fits(facts[name]):
                return False
        return True
