"""The exceptions that a task declares, as tickets: each ends by itself and lifts one row of the rules for some records.

A ticket is an ``unless`` written into the policies of its row, in force while a supervisor's signed ``exceptions.open``
of that ticket is younger than ``TICKET_HOURS`` in the same contact. ``@key`` of a policy names the columns that a key
speaks of, in the order of the rules' own text: ``TOOL VALUE VALUE``, or one value, or the tool alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import combinations, pairwise
from typing import Any

from replay import CasesError
from tau2_desk import EXCEPTIONS, RULES, fit, text_of, tools_toml

TICKET_HOURS = 8
TICKETS_MAX = 4  # written into the policies of one desk, since a policy's length is bounded; one task may have more
KEYS_MAX, KEY_WORDS_MAX = 64, 24

_ID, _KEY = re.compile(r'@id\("([^"]+)"\)'), re.compile(r'@key\("([^"]+)"\)')
_DECIDED = re.compile(r'@decided\("([a-z_]+) ([a-z_]+)"\)')
_ACTION = re.compile(r'Action::"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Waiver:
    """A declared exception: a ticket that lifts ``row`` (``R6.3``, or a whole rule) for ``keys``; no key: for all."""

    ticket: str
    row: str
    keys: tuple[str, ...]

    def lifts(self, policy: str) -> bool:
        """Whether the policy of this id is one of the row."""
        return policy == self.row or policy.startswith(self.row + ".")


def waivers(task: str, declared: Mapping[str, Any]) -> Iterator[Waiver]:
    """The exceptions of a task, each under a ticket of its own. Raises ``CasesError`` for what is no exception."""
    scopes = declared.get("exceptions_scope") or {}
    for rule in sorted(declared.get("exceptions") or {}):
        scope = scopes.get(rule) or {}
        rows, keys = scope.get("row") or rule, scope.get("keys") or ()
        if isinstance(keys, str) or len(keys) > KEYS_MAX:
            raise CasesError(f"task {task!r}: the keys of an exception are a list of at most {KEYS_MAX}")
        for row in [rows] if isinstance(rows, str) else rows:
            if row != rule and not str(row).startswith(rule + "."):
                raise CasesError(f"task {task!r}: {row!r} is no row of {rule}")
            ticket = re.sub(r"[^A-Za-z0-9.-]", "-", f"{task}-{row}")[:100]
            yield Waiver(ticket, str(row), tuple(fit(text_of(key)) for key in keys if text_of(key).strip()))


def policy_files(tools: Mapping[str, Collection[str]], tickets: Sequence[Waiver]) -> dict[str, str]:
    """The policy directory: the static rules, the drafted tools, and the tickets written into the rules they lift."""
    files = {path.relative_to(RULES).as_posix(): path.read_text("utf-8") for path in sorted(RULES.rglob("*.*"))}
    files["tools.toml"] = tools_toml(tools)
    facts = [files["facts.toml"]]
    for number, waiver in enumerate(tickets):
        facts.append(
            f'[facts.ticket_{number}]\nkind = "slot"\nover = "{TICKET_HOURS}h"\ngroup = ["run"]\n'
            f'where = {{ tool = ["{EXCEPTIONS}"], "args.ticket" = [{_quoted(waiver.ticket)}] }}\nuse = "floor"\n'
        )
    for path, text in files.items():
        if path.endswith(".cedar"):
            parts = [_lifted(part, tickets, tools, facts) for part in re.split(r"(?<=;\n)", text)]
            files[path] = "".join(parts)
    files["facts.toml"] = "\n".join(facts)
    return files


def _lifted(policy: str, tickets: Sequence[Waiver], tools: Collection[str], facts: list[str]) -> str:
    """A policy with an ``unless`` for every ticket of its row: while it is open, and only for its keys."""
    name, key = _ID.search(policy), _KEY.search(policy)
    if name is None or key is None:
        return policy
    clauses = []
    for number, waiver in enumerate(tickets):
        if not waiver.lifts(name[1]):
            continue
        keys = list(_concerns(waiver.keys, key[1].split(), tools, policy))
        keys += _decided(policy, number, waiver, facts)
        if keys or not waiver.keys:
            only = f" && ({' || '.join(keys)})" if keys else ""
            clauses.append(f"// {waiver.ticket}\nunless {{ context.facts.ticket_{number}.known{only} }}")
    return policy if not clauses else policy.rstrip().removesuffix(";") + "\n" + "\n".join(clauses) + ";\n"


def _decided(policy: str, number: int, waiver: Waiver, facts: list[str]) -> list[str]:
    """For a row that shows only at a later lookup: no decision before it was another than those that the keys name."""
    found = _DECIDED.search(policy)
    if found is None or not waiver.keys:
        return []
    fact, column = found.groups()
    base = next(part for part in facts[0].split("\n\n") if f"[facts.{fact}]" in part)
    keys = ", ".join(_quoted(key) for key in waiver.keys)
    own = base[base.index(f"[facts.{fact}]") :].replace(fact, f"ticket_{number}_{fact}", 1)
    facts.append(re.sub(r"(where = \{ .*) \}", lambda m: f'{m[1]}, "args.{column}" = [{keys}] }}', own).rstrip() + "\n")
    return [f"context.facts.{fact} <= context.facts.ticket_{number}_{fact}"]


def _concerns(keys: Sequence[str], columns: Sequence[str], tools: Collection[str], policy: str) -> Iterator[str]:
    """When a call is one that the keys name. Keys that no call under this policy can have give nothing."""
    named = [name for name in columns if name != "tool"]
    scope = _ACTION.findall(policy.partition("when {")[0].partition("unless {")[0])
    whole: list[str] = []
    for key in keys:
        words = key.split()[:KEY_WORDS_MAX]
        tool = words[0] if words[0] in tools else None
        if tool and tool not in scope and any(name in tools for name in scope):
            continue
        rest = words[1:] if tool else words
        record = list(_parts(rest, named))
        if tool:
            record += [_is(name, [" ".join(rest)]) for name in named] if rest else []
            both = [f"({' || '.join(record)})"] if record else []
            if both or not rest:
                yield "(" + " && ".join([f'action == Action::"{tool}"', *both]) + ")"
        else:
            whole.append(key)
            yield from record
    if whole:
        yield from (_is(name, whole) for name in named)


def _parts(words: Sequence[str], named: Sequence[str]) -> Iterator[str]:
    """The words as the values of several columns, in their order; a value may be of more than one word."""
    if len(words) < len(named) or len(named) < 2:
        return
    for cuts in combinations(range(1, len(words)), len(named) - 1):
        parts = [" ".join(words[start:end]) for start, end in pairwise((0, *cuts, len(words)))]
        yield "(" + " && ".join(_is(name, [part]) for name, part in zip(named, parts, strict=True)) + ")"


def _is(column: str, texts: Sequence[str]) -> str:
    """A column equals one of the texts, or the number that a text is."""
    forms = [form for text in texts for form in (text, *_forms(text))]
    return f"[{', '.join(map(_quoted, dict.fromkeys(forms)))}].contains(context.args.{column})"


def _forms(text: str) -> list[str]:
    """How the desk writes the number or the truth value that a text is."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return [text.lower()] if text in ("True", "False") else []
    return [text_of(number)] if number.is_finite() else []


def _quoted(text: str) -> str:
    """A text of one line in quotation marks, as TOML and Cedar both read it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
