"""What a rule compared, in numbers: the policies of a bundle as text, and the facts, limits and amounts they read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.audit import words

_ID = re.compile(r'@id\("([^"]+)"\)')
_FLAG = re.compile(r'@flag\("((?:[^"\\]|\\.)*)"\)')
_TICKET = re.compile(r'@ticket\("([^"]*)"\)')
_LADDER = re.compile(r'@escalate\("([^"]+)"\)')
_SIDE = r"context\.[a-z_]+(?:\.[A-Za-z0-9_]+)*|[0-9]+"
_COMPARED = re.compile(rf"({_SIDE})\s*(?:>=|<=|==|!=|>|<)\s*({_SIDE})")
_READ = re.compile(r"context\.facts\.([a-z][a-z0-9_]*)")
_PAYEES = {
    'Payee::"$unknown"': "the payee is not in the policy",
    'Payee::"$none"': "no payee is named",
}
_RELATIONS = {"": ("is above", "is below", "equals"), "day": ("is after", "is before", "is")}
_QUOTED = re.compile(r'"[^"]*"')
_CLAUSE = re.compile(r"\b(?:when|unless)\b")
_EFFECT = re.compile(r"\b(permit|forbid)\b")
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*')


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy of a bundle. ``text`` is its Cedar text without comments."""

    id: str
    text: str

    @property
    def ladder(self) -> str | None:
        found = _LADDER.search(self.text)
        return found[1] if found else None

    @property
    def ticket(self) -> str | None:
        """What an exception refers to."""
        found = _TICKET.search(self.text)
        return found[1] if found else None

    @property
    def forbids(self) -> bool:
        return _EFFECT.search(_QUOTED.sub('""', self.text))[1] == "forbid"  # type: ignore[index]

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the facts it reads, in the order of the text."""
        return tuple(dict.fromkeys(_READ.findall(self.text)))

    def wants(self, fact: str) -> bool:
        """Whether a forbid asks that what a fact looks for has happened, and not that it has not.

        It is read off the text: ``unless`` turns it round once, a ``!`` in front of the fact once more.
        """
        found = re.search(rf"(!\s*)?\bcontext\.facts\.{fact}\b", self.text)
        if found is None:
            return False
        clauses = list(_CLAUSE.finditer(_QUOTED.sub(lambda text: "_" * len(text[0]), self.text[: found.start()])))
        return (bool(clauses) and clauses[-1][0] == "unless") != (found[1] is not None)

    @property
    def flag(self) -> str | None:
        found = _FLAG.search(self.text)
        return found[1] if found else None


def rules_of(compiled: Mapping[str, Any]) -> dict[str, Rule]:
    """The policies of a compiled bundle by ``@id``."""
    # A limit stands in an entity; here it reads like everything else that a rule looks up.
    text = _COMMENT.sub(lambda found: "" if found[0][0] == "/" else found[0], compiled["cedar"]).replace(
        'Limits::"limits".', "context.limits."
    )
    marks = list(_ID.finditer(text))
    found: dict[str, Rule] = {}
    for index, mark in enumerate(marks):
        # Annotations may stand before @id, so a policy begins after the semicolon of the one before it.
        start = text.rfind(";", 0, mark.start()) + 1
        stop = text.rfind(";", start, marks[index + 1].start()) + 1 if index + 1 < len(marks) else len(text)
        found[mark[1]] = Rule(mark[1], text[start:stop].strip())
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """Two numbers that a rule compared: ``value`` of ``name`` with ``limit``.

    ``against`` names the limit, empty for a plain number. ``unit`` is as for ``shown``; ``facts`` are those in it.
    """

    name: str
    value: int
    against: str
    limit: int
    unit: str
    facts: tuple[str, ...]

    @property
    def relation(self) -> str:
        """How the value stands to the limit; a day is before or after another one."""
        above, below, same = _RELATIONS["day" if self.unit == "day" else ""]
        return above if self.value > self.limit else below if self.value < self.limit else same


def compared(rule: Rule, body: Mapping[str, Any], compiled: Mapping[str, Any]) -> list[Compared]:
    """Every pair of numbers that the rule compared in this decision."""
    found = []
    for match in _COMPARED.finditer(rule.text):
        left, right = match[1], match[2]
        value, most = _value(left, body, compiled), _value(right, body, compiled)
        if type(value) is int and type(most) is int:
            unit = _unit(left, compiled) or _unit(right, compiled)
            facts = tuple(side.split(".")[2] for side in (left, right) if side.startswith("context.facts."))
            found.append(Compared(_name(left), value, "" if right.isdigit() else _name(right), most, unit, facts))
    return found


def numbers(rule: Rule, body: Mapping[str, Any], compiled: Mapping[str, Any]) -> list[str]:
    """What the rule compared in this decision: ``the amount 60,000.00 EUR is above payment_max (25,000.00 EUR)``."""
    said: list[str] = []
    seen: set[str] = set()
    for pair in compared(rule, body, compiled):
        most = shown(pair.limit, pair.unit, body)
        right = f"{pair.against} ({most})" if pair.against else most
        said.append(f"{pair.name} {shown(pair.value, pair.unit, body)} {pair.relation} {right}")
        seen.update(pair.facts)
    said += [meaning for mark, meaning in _PAYEES.items() if mark in rule.text]
    for name in dict.fromkeys(_READ.findall(rule.text)):
        if name not in seen and name in body["facts"]:
            said.append(f"{name}: {fact(name, body, compiled)}")
    return said


def _value(side: str, body: Mapping[str, Any], compiled: Mapping[str, Any]) -> Any:
    if side.isdigit():
        return int(side)
    parts = side.split(".")[1:]
    if parts == ["amount"]:
        return body["terms"]["amount"]
    source = {"limits": compiled["limits"], "facts": body["facts"], "args": body["args"]}.get(parts[0])
    for part in parts[1:]:
        source = source.get(part) if isinstance(source, Mapping) else None
    return source if len(parts) > 1 else None


def _definition(name: str, compiled: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((item for item in compiled["facts"] if item["name"] == name), None)


def _unit(side: str, compiled: Mapping[str, Any]) -> str:
    parts = side.split(".")[1:]
    if parts == ["amount"]:
        return "money"
    if parts[-1:] == ["age_s"]:
        return "seconds"
    if len(parts) == 2 and parts[0] == "facts":
        if parts[1] in ("local_minute", "local_day"):
            return parts[1].removeprefix("local_")
        found = _definition(parts[1], compiled)
        return "money" if found is not None and found["kind"] == "window" and found["of"] == "amount" else ""
    return ""


def _name(side: str) -> str:
    parts = side.split(".")[1:]
    if parts == ["amount"]:
        return "the amount"
    return ".".join(parts[1:]) if len(parts) > 1 else side


def shown(value: int, unit: str, body: Mapping[str, Any]) -> str:
    """A number in its unit: money in the action's currency, a minute as a clock shows it, a day as a date."""
    if unit == "money":
        return words.money(value, body["terms"]["currency"])
    if unit == "day":
        return words.date_of(value)
    if unit == "seconds":
        return words.span(value * 1_000_000)
    return words.minute(value) if unit == "minute" else f"{value:,}"


def fact(name: str, body: Mapping[str, Any], compiled: Mapping[str, Any]) -> str:
    """A fact's recorded value in words."""
    value = body["facts"][name]
    if name == "local_weekday":
        return words.weekday(value)
    if type(value) is int:
        return shown(value, _unit(f"context.facts.{name}", compiled), body)
    if type(value) is bool:
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or ("nobody" if name == "instructed" else "nothing")
    if "equal" in value:
        return "not known" if not value["known"] else "equal" if value["equal"] else "different"
    if value["known"]:
        return f"{words.span(value['age_s'] * 1_000_000)} ago"
    found = _definition(name, compiled)
    never = "not changed" if found is not None and found["kind"] == "details" else "never"
    return f"{never}, as far as the records say"


def about(name: str, compiled: Mapping[str, Any]) -> str:
    """What a fact counts: ``sum over 1 day per agent``."""
    found = _definition(name, compiled)
    if found is None:
        return ""
    what = {
        "window": "sum" if found["of"] == "amount" else "count",
        "slot": "time since the last",
        "details": "age of the account",
        "distinct": f"different {found['of']}",
        "grounded": f"{found['of']} against the cited output",
    }[found["kind"]]
    over = f" over {words.span(found['over_us'])}" if found["over_us"] else ""
    per = f" per {words.listed(list(found['group']))}" if found["group"] else ""
    return what + over + per
