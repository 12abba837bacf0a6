"""Records in which every text that somebody may choose is an attack on whoever opens the page."""

from __future__ import annotations

import json
from typing import Any

from page_packs import the_pack

from countermark.audit.page import Shown, for_people

PAYLOAD = "</script></style></title><img src=x onerror=alert(1)>\"'><svg/onload=alert(2)>\u202e<!--{{7*7}}"
# Members whose values are from a closed list, or which lead from one record to another.
_KEPT = frozenset((
    "disposition", "outcome", "verdict", "state", "stage", "tier", "via", "id", "escalation", "kind", "bundle",
    "because", "mandate", "digest", "$sd", "currency", "zone", "use", "name_of_fact", "v",
))  # fmt: skip


def spoiled(value: Any, name: str = "") -> Any:
    """The value with every free text replaced."""
    if isinstance(value, dict):
        return {key: spoiled(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [spoiled(one, name) for one in value]
    return PAYLOAD if isinstance(value, str) and name not in _KEPT else value


def hostile_members() -> dict[str, bytes]:
    """The members for people, made of such records and such a policy."""
    day = the_pack()
    records = []
    for raw in day.records():
        record = json.loads(raw)
        record["body"] = spoiled(record["body"])
        records.append(json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    bundles = {}
    for name, raw in day.members.items():
        if name.startswith("policy/"):
            bundle = json.loads(raw)
            bundle["compiled"]["people"] = spoiled(bundle["compiled"]["people"])
            bundles[f"sha256:{name[7:-5]}"] = bundle
    values = [{"seq": 6, "alias": "description", "value": PAYLOAD}]
    return for_people(
        records, bundles, Shown(values, withheld=2, erased=1, gone=[(6, "$reason")]),
        origin="countermark/acme/l0", root="x" * 43 + "=", signers=["countermark/acme/l0", PAYLOAD],
    )  # fmt: skip
