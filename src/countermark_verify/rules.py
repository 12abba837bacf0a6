"""Cedar, strictly (docs/spec/decision.md): the one place that knows the optional package `cedarpy`."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from countermark_verify.bundle import KEPT, Bundle
from countermark_verify.entities import required_entities
from countermark_verify.errors import Malformed
from countermark_verify.policy_text import Policy, read_policies
from countermark_verify.schema_text import as_cedar_json, required_schema

try:
    import cedarpy
except ImportError:  # the step V14 then says that it is incomplete
    cedarpy = None  # type: ignore[assignment]

_SUBSETS_MAX = 1_000


def installed() -> bool:
    return cedarpy is not None


@dataclass(frozen=True)
class Answer:
    """`sure` is False when anything at all went wrong: then nothing else in it counts."""

    sure: bool
    allow: bool
    satisfied: tuple[str, ...]


UNSURE = Answer(False, False, ())


class Rules:
    """A bundle's policies as parsed handles, each policy known by its own `@id`.

    Schema and entities are derived from the bundle's tools, facts, limits, agents and payees; that its texts say the
    same is a question of V09, which Cedar is not asked.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises `Malformed` when the bounds or Cedar refuse the policies, or what the schema needs."""
        policies = read_policies(bundle.cedar)
        try:
            self._schema = cedarpy.Schema.from_json_str(json.dumps(as_cedar_json(required_schema(bundle))))
            self._entities = cedarpy.Entities.from_json_str(json.dumps(required_entities(bundle)), self._schema)
            self._policies = _as_cedar_reads_them(policies)
            self._sets = {frozenset[str](): cedarpy.PolicySet.from_str(bundle.cedar)}
            if len(_static(bundle.cedar)) != len(policies):
                raise Malformed("has text between its policies")
        except Malformed:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(f"has policies that Cedar refuses: {str(error)[:200]}") from error

    def annotation(self, policy: str, name: str) -> str | None:
        """The value of an annotation, or None when the policy does not carry it."""
        known = self._policies.get(policy)
        return known.annotations.get(name) if known else None

    def ask(self, request: dict[str, Any], without: Collection[str] = ()) -> Answer:
        """Evaluate against the schema; `without` leaves out these policies."""
        left_out = frozenset(without)
        try:
            policies = self._without(left_out)
            result = cedarpy.is_authorized(request, policies, self._entities, self._schema)
        except (ValueError, TypeError):
            return UNSURE
        return _answer(result)

    def ask_all(self, requests: list[dict[str, Any]]) -> list[Answer]:
        """The same of many, with every policy: Cedar evaluates each by itself, and takes them a quarter faster."""
        try:
            results = cedarpy.is_authorized_batch(requests, self._without(frozenset()), self._entities, self._schema)
        except (ValueError, TypeError):
            return [self.ask(request) for request in requests]
        return list(map(_answer, results))

    def _without(self, left_out: frozenset[str]) -> Any:
        if left_out not in self._sets:
            if len(self._sets) > _SUBSETS_MAX:
                self._sets = {}
            kept = [policy.text for name, policy in self._policies.items() if name not in left_out]
            self._sets[left_out] = cedarpy.PolicySet.from_str("\n".join(kept))
        return self._sets[left_out]


def _answer(result: Any) -> Answer:
    sure = not result.diagnostics.errors and result.decision is not cedarpy.Decision.NoDecision
    names = result.diagnostics.id_annotations_by_reason
    satisfied = tuple(sorted(names[reason] for reason in result.diagnostics.reasons))
    return Answer(sure, result.allowed, satisfied)


@lru_cache(maxsize=KEPT)
def rules_of(bundle: Bundle) -> Rules:
    """The same, read once for each bundle that is kept."""
    return Rules(bundle)


def _static(text: str) -> dict[str, Any]:
    document = json.loads(cedarpy.policies_to_json_str(text))
    if document.get("templates") or document.get("templateLinks"):
        raise Malformed("has policy templates")
    policies: dict[str, Any] = document["staticPolicies"]
    return policies


def _as_cedar_reads_them(policies: tuple[Policy, ...]) -> dict[str, Policy]:
    """The policies by `@id`, once Cedar has read the same effect, annotations and action scope in each."""
    found: dict[str, Policy] = {}
    for policy in policies:
        (parsed,) = _static(policy.text).values()
        annotations = {name: value or "" for name, value in parsed.get("annotations", {}).items()}
        same = annotations == policy.annotations and (parsed["effect"] == "forbid") == policy.forbids
        if not same or _action_scope(parsed["action"]) != policy.actions:
            raise Malformed("has a policy that Cedar reads in another way")
        if not policy.id or policy.id in found:
            raise Malformed("has a policy without an @id of its own")
        found[policy.id] = policy
    return found


def _action_scope(scope: dict[str, Any]) -> frozenset[tuple[str, str, str]] | None:
    if scope["op"] == "All":
        return None
    listed = scope["entities"] if "entities" in scope else [scope["entity"]]
    return frozenset((scope["op"], item["type"], item["id"]) for item in listed)
