"""The Cedar schema and entities of a bundle, derived from tools, facts and limits (``docs/spec/policy.md``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from countermark.facts import FactDef
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import BUILT_IN_FACTS, NO_PAYEE, REGISTERED_PAYEE, UNKNOWN_PAYEE, Agent
from countermark.policy.cedar import Policy

_TYPES = {"string": "String", "integer": "Long", "boolean": "Bool"}
_FACT_TYPES = {
    "window": "Long",
    "distinct": "Long",
    "slot": '{ "known": Bool, "age_s"?: Long }',
    "details": '{ "known": Bool, "age_s"?: Long }',
    "grounded": '{ "known": Bool, "equal": Bool }',
}
_HEAD = """entity Agent { "owner": String };
entity Payee;
action "money", "change", "read";
"""


def _record(members: Mapping[str, str], indent: str = "") -> str:
    if not members:
        return "{}"
    inner = ",\n".join(f'{indent}  "{name}"{"" if mark else "?"}: {type_}' for name, mark, type_ in _rows(members))
    return "{\n" + inner + "\n" + indent + "}"


def _rows(members: Mapping[str, str]) -> Iterable[tuple[str, bool, str]]:
    for name, type_ in sorted(members.items()):
        optional = name.endswith("?")
        yield name.rstrip("?"), not optional, type_


def reads_of(tool: ToolSpec, policies: Iterable[Policy]) -> tuple[str, ...]:
    """The context members that the policies covering a tool may read, sorted: ``amount``, ``currency``,
    ``args.ALIAS``, ``facts.NAME``. A member is listed when its names occur as words of one policy; that can only list
    too many.
    """
    members = [f"args.{arg.alias}" for arg in tool.args if not arg.sensitive]
    members += [f"facts.{name}" for name in (*tool.facts, *BUILT_IN_FACTS)]
    if tool.class_ == "money":
        members += ["amount", "currency"]
    texts = [policy.words for policy in policies if policy.covers(tool)]
    return tuple(sorted(member for member in members if any(words.issuperset(member.split(".")) for words in texts)))


def schema_of(tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef], limits: Iterable[str]) -> str:
    """Cedar schema text: one action per tool, whose context holds exactly what the tool's policies read."""
    parts = [_HEAD]
    numbers = dict.fromkeys(limits, "Long")
    if numbers:
        parts.append(f"entity Limits {_record(numbers)};\n")
    for name, tool in sorted(tools.items()):
        parts.append(
            f'action "{name}" in ["{tool.class_}"] appliesTo {{\n'
            f"  principal: [Agent],\n  resource: [Payee],\n  context: {_record(_context(tool, facts), '  ')}\n}};\n"
        )
    return "\n".join(parts)


def _context(tool: ToolSpec, facts: Mapping[str, FactDef]) -> dict[str, str]:
    """The types of the members that the tool's ``reads`` lists."""
    types = {**BUILT_IN_FACTS, **{name: _FACT_TYPES[facts[name].kind] for name in tool.facts}}
    top: dict[str, str] = {}
    args: dict[str, str] = {}
    values: dict[str, str] = {}
    for member in tool.reads:
        place, _, name = member.partition(".")
        if place == "args":
            arg = tool.by_alias[name]
            args[name if arg.required else name + "?"] = _TYPES[arg.type]
        elif place == "facts":
            values[name] = types[name]
        else:
            top[member] = "Long" if member == "amount" else "String"
    if args:
        # An action that gives none of them has no `args` at all (docs/spec/policy.md).
        top["args?" if all(name.endswith("?") for name in args) else "args"] = _record(args, "    ")
    if values:
        top["facts"] = _record(values, "    ")
    return top


def entities_of(agents: Iterable[Agent], payees: Iterable[str], limits: Mapping[str, int]) -> str:
    """Cedar entities (JSON text): agents with their owners, payees and the three stand-ins for one, the limits."""
    found: list[dict[str, object]] = [
        _entity("Agent", agent.id, {"owner": agent.owner}) for agent in sorted(agents, key=lambda agent: agent.id)
    ]
    found += [_entity("Payee", payee, {}) for payee in sorted((*payees, UNKNOWN_PAYEE, NO_PAYEE, REGISTERED_PAYEE))]
    if limits:
        found.append(_entity("Limits", "limits", dict(limits)))
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def _entity(type_: str, name: str, attributes: Mapping[str, object]) -> dict[str, object]:
    return {"uid": {"type": type_, "id": name}, "attrs": attributes, "parents": []}
