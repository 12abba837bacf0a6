"""Cedar, strictly (docs/spec/decision.md): the one place that knows the optional package `cedarpy`."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from countermark_verify.bundle import Bundle
from countermark_verify.cedar_text import check_schema, split_policies
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
    """A bundle's policies as parsed handles, each policy known by its own `@id`."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `Malformed` when the bounds or Cedar refuse the policies, the schema or the entities."""
        chunks = split_policies(bundle.cedar)
        check_schema(bundle.schema)
        try:
            self._schema = cedarpy.Schema.from_str(bundle.schema)
            self._entities = cedarpy.Entities.from_json_str(bundle.entities, self._schema)
            self._texts, self._annotations = _by_id(chunks)
            self._sets = {frozenset[str](): cedarpy.PolicySet.from_str(bundle.cedar)}
            if len(_static(bundle.cedar)) != len(chunks):
                raise Malformed("has text between its policies")
        except Malformed:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(f"has policies that Cedar refuses: {str(error)[:200]}") from error

    def annotation(self, policy: str, name: str) -> str | None:
        """The value of an annotation, or None when the policy does not carry it."""
        annotations = self._annotations.get(policy, {})
        return (annotations[name] or "") if name in annotations else None

    def ask(self, request: dict[str, Any], without: Collection[str] = ()) -> Answer:
        """Evaluate against the schema; `without` leaves out these policies."""
        left_out = frozenset(without)
        try:
            policies = self._without(left_out)
            result = cedarpy.is_authorized(request, policies, self._entities, self._schema)
        except (ValueError, TypeError):
            return Answer(False, False, ())
        sure = not result.diagnostics.errors and result.decision is not cedarpy.Decision.NoDecision
        names = result.diagnostics.id_annotations_by_reason
        satisfied = tuple(sorted(names[reason] for reason in result.diagnostics.reasons))
        return Answer(sure, result.allowed, satisfied)

    def _without(self, left_out: frozenset[str]) -> Any:
        if left_out not in self._sets:
            if len(self._sets) > _SUBSETS_MAX:
                self._sets = {}
            kept = [text for name, text in self._texts.items() if name not in left_out]
            self._sets[left_out] = cedarpy.PolicySet.from_str("".join(kept))
        return self._sets[left_out]


def _static(text: str) -> dict[str, Any]:
    document = json.loads(cedarpy.policies_to_json_str(text))
    if document.get("templates") or document.get("templateLinks"):
        raise Malformed("has policy templates")
    policies: dict[str, Any] = document["staticPolicies"]
    return policies


def _by_id(chunks: list[str]) -> tuple[dict[str, str], dict[str, dict[str, str | None]]]:
    """Text and annotations of each policy by its `@id`."""
    texts: dict[str, str] = {}
    annotations: dict[str, dict[str, str | None]] = {}
    for chunk in chunks:
        parsed = list(_static(chunk).values())
        own = parsed[0].get("annotations", {}) if len(parsed) == 1 else {}
        name = own.get("id")
        if not name or name in texts:
            raise Malformed("has a policy without an @id of its own")
        texts[name], annotations[name] = chunk, own
    return texts, annotations
