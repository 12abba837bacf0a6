"""The Cedar entities of a bundle: what its agents, payees and limits require (docs/spec/policy.md)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from countermark_verify.bundle import Bundle
from countermark_verify.canon import parse_loose, render
from countermark_verify.errors import Malformed

ENTITIES_BYTES_MAX = 16 * 1024**2
ENTITIES_VALUES_MAX = 1_000_000
_LISTED_MAX = 20


def required_entities(bundle: Bundle) -> list[dict[str, Any]]:
    """Every agent with its owner, every payee, the three stand-ins for one, and the limits when there are any."""
    found = [_entity("Agent", name, {"owner": owner}) for name, owner in bundle.owners.items()]
    found += [_entity("Payee", name, {}) for name in (*bundle.payees, "$unknown", "$none", "_registered")]
    if bundle.limits:
        found.append(_entity("Limits", "limits", dict(bundle.limits)))
    return found


def entity_problems(bundle: Bundle) -> list[str]:
    """Why the entities' text is not exactly what is required."""
    try:
        listed: Any = parse_loose(bundle.entities.encode(), ENTITIES_BYTES_MAX, ENTITIES_VALUES_MAX)
    except (Malformed, UnicodeEncodeError) as error:
        return [f"the text of the entities {error}"]
    if type(listed) is not list:
        return ["the entities are not a list"]
    # Rendered, since Python holds True == 1, and JSON does not.
    have, want = Counter(map(render, listed)), Counter(map(render, required_entities(bundle)))
    missing, extra = sorted((want - have).elements()), sorted((have - want).elements())
    found = [f"the entities lack {_shown(raw)}" for raw in missing[:_LISTED_MAX]]
    return found + [f"the entities have {_shown(raw)}" for raw in extra[:_LISTED_MAX]]


def _shown(raw: bytes) -> str:
    return raw[:200].decode(errors="replace")


def _entity(kind: str, name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": []}
