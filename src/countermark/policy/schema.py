"""The Cedar schema and entities of a bundle, derived from tools, facts and limits (``docs/spec/policy.md``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from countermark.facts import FactDef
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import BUILT_IN_FACTS, NO_PAYEE, UNKNOWN_PAYEE, Agent

_TYPES = {"string": "String", "integer": "Long", "boolean": "Bool"}
_FACT_TYPES = {
    "window": "Long",
    "distinct": "Long",
    "slot": '{ "known": Bool, "age_s"?: Long }',
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


def schema_of(tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef], limits: Mapping[str, int]) -> str:
    """Cedar schema text: one action per tool, with a context type of its own."""
    parts = [_HEAD, f"type Limits = {_record(dict.fromkeys(limits, 'Long'))};\n"]
    for name, tool in sorted(tools.items()):
        args = {
            arg.alias if arg.required else arg.alias + "?": _TYPES[arg.type] for arg in tool.args if not arg.sensitive
        }
        values = {**BUILT_IN_FACTS, **{fact: _FACT_TYPES[facts[fact].kind] for fact in tool.facts}}
        context = {"args": _record(args, "    "), "facts": _record(values, "    "), "limits": "Limits"}
        if tool.class_ == "money":
            context |= {"amount": "Long", "currency": "String"}
        parts.append(
            f'action "{name}" in ["{tool.class_}"] appliesTo {{\n'
            f"  principal: [Agent],\n  resource: [Payee],\n  context: {_record(context, '  ')}\n}};\n"
        )
    return "\n".join(parts)


def entities_of(agents: Iterable[Agent], payees: Iterable[str]) -> str:
    """Cedar entities (JSON text): the agents with their owners, the payees, and the two stand-ins for a payee."""
    found = [
        {"uid": {"type": "Agent", "id": agent.id}, "attrs": {"owner": agent.owner}, "parents": []}
        for agent in sorted(agents, key=lambda agent: agent.id)
    ]
    found += [
        {"uid": {"type": "Payee", "id": payee}, "attrs": {}, "parents": []}
        for payee in sorted((*payees, UNKNOWN_PAYEE, NO_PAYEE))
    ]
    return json.dumps(found, separators=(",", ":"), sort_keys=True)
