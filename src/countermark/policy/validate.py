"""Cedar's own validation, with its complaints put at the line they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import cedarpy

from countermark.facts import FactDef
from countermark.model.tool import ToolSpec
from countermark.model.words import nearest
from countermark.policy.bundle import BUILT_IN_FACTS
from countermark.policy.cedar import Policy
from countermark.policy.findings import Findings

_QUOTED = re.compile(r"`([^`]+)`")
_PART = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_]*)|\["([^"]+)"\]')
_UNPLACED = "unable to find an applicable action"


def validate(
    policies: Sequence[Policy],
    schema: str,
    tools: Mapping[str, ToolSpec],
    facts: Mapping[str, FactDef],
    limits: Iterable[str],
    findings: Findings,
) -> None:
    """Validate each policy strictly against the schema; every complaint becomes one finding at its line."""
    try:
        handle = cedarpy.Schema.from_str(schema)
    except ValueError as error:
        findings.error("", 0, "bad_schema", f"the tools and facts do not make a Cedar schema: {error}"[:300])
        return
    names = _Names(tools, facts, limits)
    for policy in policies:
        result = cedarpy.validate_policies(policy.statement.text, handle)
        texts = [error.error.removeprefix("for policy `policy0`, ") for error in result.errors]
        better = [text for text in texts if not text.startswith(_UNPLACED)]
        for message in dict.fromkeys(names.merged(better or texts)):
            _report(policy, message, names, findings)
        if not result.validation_passed and not texts:
            findings.error(policy.statement.file, policy.statement.line, "policy_invalid", f"{policy.id} is not valid")


def _report(policy: Policy, message: str, names: _Names, findings: Findings) -> None:
    token, hint = names.explain(message, policy.statement.text)
    line = policy.statement.line
    at = policy.statement.text.find(token) if token else -1
    if at >= 0:
        line += policy.statement.text.count("\n", 0, at)
    findings.error(policy.statement.file, line, "policy_invalid", f"{policy.id}: {message}"[:400], hint)


class _Names:
    """What policies may name, to say what was probably meant."""

    def __init__(self, tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef], limits: Iterable[str]) -> None:
        self.tools = tools
        self.facts = {*facts, *BUILT_IN_FACTS}
        self.defined = frozenset(facts)
        self.limits = sorted(limits)
        self.records: dict[str, list[str]] = {
            "": ["amount", "currency", "args", "facts"],
            "args": [arg.alias for tool in tools.values() for arg in tool.args if not arg.sensitive],
            "facts": sorted(self.facts),
        }

    def merged(self, messages: Iterable[str]) -> list[str]:
        """One complaint about a missing attribute instead of one for each action."""
        found: dict[str, list[str]] = {}
        for message in messages:
            head, mark, tail = message.partition(" in context for ")
            if mark and tail.endswith(" not found"):
                found.setdefault(head, []).append(tail.removesuffix(" not found"))
            else:
                found.setdefault(message, [])
        return [
            f"{head} not found for {', '.join(sorted(actions)[:4])}" if actions else head
            for head, actions in found.items()
        ]

    def explain(self, message: str, text: str) -> tuple[str, str]:
        """The text to look for in the policy, and the hint. ``text`` is the policy's."""
        if message.startswith(_UNPLACED):
            return "", "No tool of this deployment is in its scope."
        quoted = _QUOTED.search(message)
        if quoted is None:
            return "", ""
        name = quoted.group(1)
        if message.startswith("attribute "):
            if message.endswith("on entity type `Limits` not found"):
                return name, nearest(name, self.limits)
            return self._attribute(name, text)
        if message.startswith("unrecognized action"):
            wanted = name.partition('"')[2].rstrip('"')
            return wanted, nearest(wanted, [*self.tools, "money", "change", "read"])
        if message.startswith("unrecognized entity type"):
            return name, nearest(name, ["Agent", "Payee", "Limits"])
        if "optional attribute" in message:
            return _path(name)[-1], f"It may be absent: write `context has {name} && ...` in front of it."
        return "", ""

    def _attribute(self, name: str, text: str) -> tuple[str, str]:
        *base, last = _path(name)
        if base == ["facts"] and last in self.defined:
            return last, "Those tools have not every field of this fact: narrow the policy's action scope."
        if not base and last in ("amount", "currency"):
            return last, 'Only money tools have it: write action in Action::"money".'
        if not base and last in ("args", "facts"):
            for wanted in re.findall(rf"\b{last}\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)", text):
                if wanted not in self.records[last]:  # the group is absent because nothing in it has a right name
                    return wanted, nearest(wanted, self.records[last])
            return last, f"Those tools have none of the {last} it names: narrow the policy's action scope."
        if not base and last == "limits":
            return last, 'Limits are read as Limits::"limits".NAME.'
        known = self.records.get(".".join(base), [])
        return last, nearest(last, [other for other in known if other != last])


def _path(name: str) -> list[str]:
    """``facts.aa`` or ``limits["payment.mx"]`` as its parts."""
    return [plain or quoted for plain, quoted in _PART.findall(name)]
