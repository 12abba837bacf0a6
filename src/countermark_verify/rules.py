"""Cedar, strictly (docs/spec/decision.md): the one place that knows the optional package `cedarpy`."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from countermark_verify.bundle import Bundle
from countermark_verify.errors import Malformed

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


class Rules:
    """A bundle's policies as parsed handles, each policy under its own `@id`."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `Malformed` when Cedar refuses the policies, the schema or the entities."""
        try:
            document = json.loads(cedarpy.policies_to_json_str(bundle.cedar))
            self._schema = cedarpy.Schema.from_str(bundle.schema)
            self._entities = cedarpy.Entities.from_json_str(bundle.entities, self._schema)
            self._policies = _by_id(document)
            self._sets = {frozenset[str](): _policy_set(self._policies)}
        except Malformed:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Malformed(f"has policies that Cedar refuses: {str(error)[:200]}") from error

    def annotation(self, policy: str, name: str) -> str | None:
        """The value of an annotation, or None when the policy does not carry it."""
        value = self._policies[policy].get("annotations", {}).get(name)
        return "" if value is None and name in self._policies[policy].get("annotations", {}) else value

    def ask(self, request: dict[str, Any], without: Collection[str] = ()) -> Answer:
        """Evaluate against the schema; `without` leaves out these policies."""
        left_out = frozenset(without)
        if left_out not in self._sets:
            if len(self._sets) > _SUBSETS_MAX:
                self._sets = {}
            kept = {name: policy for name, policy in self._policies.items() if name not in left_out}
            self._sets[left_out] = _policy_set(kept)
        result = cedarpy.is_authorized(request, self._sets[left_out], self._entities, self._schema)
        sure = not result.diagnostics.errors and result.decision is not cedarpy.Decision.NoDecision
        return Answer(sure, result.allowed, tuple(sorted(result.diagnostics.reasons)))


def _by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if document.get("templates") or document.get("templateLinks"):
        raise Malformed("has policy templates")
    policies: dict[str, dict[str, Any]] = {}
    for policy in document["staticPolicies"].values():
        name = policy.get("annotations", {}).get("id")
        if not name or name in policies:
            raise Malformed("has a policy without an @id of its own")
        policies[name] = policy
    return policies


def _policy_set(policies: dict[str, dict[str, Any]]) -> Any:
    document = {"templates": {}, "templateLinks": [], "staticPolicies": policies}
    return cedarpy.PolicySet.from_json_str(json.dumps(document))
