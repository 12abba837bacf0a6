"""The strict Cedar decision (``docs/spec/decision.md``).

Cedar alone fails open: a forbid that errors is skipped. Here every error, every misfit and every absent entity denies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import cedarpy
import orjson
from cedarpy import _internal

from countermark.model.canon import Json
from countermark.model.errors import PolicyError
from countermark.model.tool import ToolSpec
from countermark.model.values import Disposition
from countermark.policy.bundle import NO_PAYEE, REGISTERED_PAYEE, UNKNOWN_PAYEE, Bundle
from countermark.policy.cedar import Policy, parse, set_of, split
from countermark.policy.context import Shape
from countermark.policy.flat import flat, flattened
from countermark.policy.schema import entities_of

SHIPPED_IDS = "limits."  # what the policies made from limits.toml are called
PARTS_MAX = 4_096  # requests without their context, kept: one per tool, agent and payee used lately
SLICES_MAX = 2_048  # policy sets kept, by what scopes tell apart, and by the lifted forbids that were needed lately


class Verdict(NamedTuple):
    """What the policies say. ``reasons`` are sorted ids; ``ladders`` maps a ladder to the forbids it may lift."""

    disposition: Disposition
    code: str
    reasons: tuple[str, ...] = ()
    ladders: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Engine:
    """Decides by one bundle. Policies, entities and schema are parsed once; decisions reuse the handles.

    Not thread-safe: it belongs to the lane that decides.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises ``PolicyError`` when the bundle's Cedar texts do not fit together."""
        self.bundle = bundle
        compiled = bundle.compiled
        self.policies = _policies(compiled.cedar)
        try:
            self._schema = cedarpy.Schema.from_str(compiled.schema)
            self._entities = cedarpy.Entities.from_json_str(compiled.entities, self._schema)
            whole = cedarpy.PolicySet.from_str(compiled.cedar)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"the bundle's Cedar texts do not fit together: {error}"[:300]) from None
        if len(whole) != len(self.policies):
            raise PolicyError("the bundle's policies are not the ones its text holds")
        expected = entities_of(compiled.agents.values(), compiled.payees, compiled.limits)
        if orjson.loads(compiled.entities) != orjson.loads(expected):
            raise PolicyError("the bundle's entities are not its agents, payees and limits")
        self._agents = frozenset(policy.agent for policy in self.policies.values())
        self._payees = frozenset(policy.payee for policy in self.policies.values())
        self._slices: OrderedDict[_Scope, _Slice] = OrderedDict()
        facts = {definition.name: definition for definition in compiled.facts}
        self._shapes = {name: Shape(tool, facts) for name, tool in compiled.tools.items()}
        self._parts: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()

    def context(
        self, tool: ToolSpec, terms: Mapping[str, Any], clear_args: Mapping[str, Any], facts: Mapping[str, Json]
    ) -> dict[str, Any]:
        """The Cedar context of an action: the members that the tool's policies read, and no other.

        A listed member that is missing stays missing: unless it is optional, the request does not fit then and is
        denied.
        """
        return self._shapes[tool.name].context(terms, clear_args, facts)

    def decide(
        self,
        tool_name: str,
        agent: str,
        payee: str | None,
        context: Mapping[str, Any],
        lifted: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Decide strictly. ``payee`` is ``terms.payee``, or ``REGISTERED_PAYEE`` for one that only the register knows.

        With ``lifted``, the satisfied forbids must be exactly those ids (else ``deny``, ``approval_void``, reason
        ``reasons``), and the answer is the decision without them.
        """
        answer = self._ask(tool_name, agent, payee, context, frozenset())
        if answer is None:
            return _POLICY_ERROR
        allowed, reasons = answer
        if lifted:
            if allowed or frozenset(reasons) != lifted:
                return Verdict("deny", "approval_void", ("reasons",))
            answer = self._ask(tool_name, agent, payee, context, lifted)
            if answer is None:
                return _POLICY_ERROR
            allowed, reasons = answer
        if allowed:
            flagged = any(self.policies[name].flag is not None for name in reasons)
            return Verdict("flag", "flagged", reasons) if flagged else Verdict("allow", "allowed", reasons)
        if not reasons:
            return Verdict("deny", "not_permitted")
        return self._denied(tool_name, agent, payee, context, reasons)

    def _denied(
        self, tool_name: str, agent: str, payee: str | None, context: Mapping[str, Any], reasons: tuple[str, ...]
    ) -> Verdict:
        """Escalate when people may lift every satisfied forbid, and nothing else stands in the way."""
        ladders: dict[str, tuple[str, ...]] = {}
        for name in reasons:
            ladder = self.policies[name].escalate
            if ladder is None or ladder not in self.bundle.compiled.ladders:
                return Verdict("deny", "denied_by_policy", reasons)
            ladders[ladder] = (*ladders.get(ladder, ()), name)
        without = self._ask(tool_name, agent, payee, context, frozenset(reasons))
        if without is None or not without[0]:
            return Verdict("deny", "denied_by_policy", reasons)
        return Verdict("escalate", "needs_approval", reasons, ladders)

    def caps(self, reasons: tuple[str, ...]) -> bool:
        """Whether a hard limit of ``limits.toml`` is among satisfied forbids: one that no ladder may lift."""
        return any(name.startswith(SHIPPED_IDS) and self.policies[name].escalate is None for name in reasons)

    def evaluate(
        self,
        tool_name: str,
        agent: str,
        payee: str | None,
        context: Mapping[str, Any],
        without: frozenset[str] = frozenset(),
    ) -> cedarpy.AuthzResult:
        """Cedar's own answer, without the policies ``without``.

        Raises:
            PolicyError: the request cannot be written, or cedarpy refuses to read it.
        """
        try:
            request = self._request(tool_name, agent, payee)
            found = self._slice(tool_name, agent, request["resource"]["id"], without, nested=True)
            return cedarpy.is_authorized(found.request(request, context), found.policies, self._entities, self._schema)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"the request cannot be evaluated: {error}"[:300]) from None

    def _request(self, tool_name: str, agent: str, payee: str | None) -> dict[str, Any]:
        """A request without its context."""
        if payee is None:
            resource = NO_PAYEE
        else:
            named = payee in self.bundle.compiled.payees or payee == REGISTERED_PAYEE
            resource = payee if named else UNKNOWN_PAYEE
        parts = self._parts.get((tool_name, agent, resource))
        if parts is None:
            parts = self._parts[tool_name, agent, resource] = {
                "principal": {"type": "Agent", "id": agent},
                "action": {"type": "Action", "id": tool_name},
                "resource": {"type": "Payee", "id": resource},
            }
            if len(self._parts) > PARTS_MAX:
                self._parts.popitem(last=False)
        return parts

    def _ask(
        self, tool_name: str, agent: str, payee: str | None, context: Mapping[str, Any], without: frozenset[str]
    ) -> tuple[bool, tuple[str, ...]] | None:
        """Whether it is allowed and by which policies; None when anything at all was wrong."""
        compiled = self.bundle.compiled
        # Cedar takes an unknown principal as one without attributes; here it is nobody.
        if agent not in compiled.agents or tool_name not in compiled.tools or not self._shapes[tool_name].fits(context):
            return None
        try:
            # The extension behind ``cedarpy.is_authorized``, whose wrapper costs a quarter of a decision on top. It is
            # not given the schema: ``fits`` has judged the request already (ADR 0006). The version is pinned, and tests
            # compare every answer with the public function's, which is given it.
            request = self._request(tool_name, agent, payee)
            found = self._slice(tool_name, agent, request["resource"]["id"], without)
            (text,) = _internal.is_authorized_batch(
                [found.request(request, context)], found.policies, self._entities._inner, None, False
            )
            answer = orjson.loads(text)
            decision, diagnostics = answer["decision"], answer["diagnostics"]
            names, satisfied = diagnostics["id_annotations_by_reason"], diagnostics["reason"]
            errors = diagnostics["errors"]
        except (ValueError, TypeError, KeyError):
            return None
        reasons = tuple(sorted(names.values()))
        if errors or decision not in ("Allow", "Deny") or len(reasons) != len(satisfied):
            return None
        return decision == "Allow", reasons

    def _slice(
        self, tool_name: str, agent: str, payee: str, without: frozenset[str], *, nested: bool = False
    ) -> _Slice:
        """The policies whose scope can match the request, since no other can be satisfied or err (ADR 0008)."""
        who, whom = agent if agent in self._agents else None, payee if payee in self._payees else None
        key = (tool_name, who, whom, without, nested)
        found = self._slices.get(key)
        if found is not None:
            self._slices.move_to_end(key)
            return found
        tool = self.bundle.compiled.tools[tool_name]
        asked = {
            name: policy.open
            for name, policy in self.policies.items()
            if name not in without and policy.covers(tool) and policy.concerns(who, whom)
        }
        rewritten = None if nested else flattened(asked, self._shapes[tool_name].leaves)
        made = _Slice(set_of(asked), False) if rewritten is None else _Slice(set_of(rewritten), True)
        self._slices[key] = made
        if len(self._slices) > SLICES_MAX:
            self._slices.popitem(last=False)
        return made


class _Slice(NamedTuple):
    """Policies of a kind of request; ``flat``: they read a flat context (ADR 0008)."""

    policies: cedarpy.PolicySet
    flat: bool

    def request(self, parts: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """The whole request. Its context is text: cedarpy would render a dictionary by the slower standard library."""
        return {**parts, "context": orjson.dumps(flat(context) if self.flat else context).decode("utf-8")}


_Scope = tuple[str, str | None, str | None, frozenset[str], bool]
_POLICY_ERROR = Verdict("deny", "policy_error")


def _policies(text: str) -> dict[str, Policy]:
    found: dict[str, Policy] = {}
    for statement in split(text):
        policy = parse(statement)
        if not policy.id or policy.id in found:
            raise PolicyError("the bundle holds a policy without an @id of its own")
        found[policy.id] = policy
    return found
