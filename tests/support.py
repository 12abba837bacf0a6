"""What several test rooms share: a deployment against a simulator, and the judgement by the simulator's books."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from countermark.journal import SqliteStore
from countermark.policy import template_files
from countermark.twins.stripe import StripeTwin
from countermark.wiring.init import Made, init_deployment

AGENT = "treasury"


def policy_for(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The vendor-payments template with text replacements in ``limits.toml``."""
    files = dict(template_files("vendor-payments"))
    for old, new in (changes or {}).items():
        if old not in files["limits.toml"]:
            raise KeyError(old)
        files["limits.toml"] = files["limits.toml"].replace(old, new)
    return files


def deploy(root: Path, twin: StripeTwin, changes: Mapping[str, str] | None = None) -> Made:
    """A deployment whose Stripe is the simulator; the key is in the environment."""
    os.environ["STRIPE_API_KEY"] = twin.key
    return init_deployment(root, "vendor-payments", "test", stripe_origin=twin.url, edit=policy_for(changes))


def records(root: Path) -> list[Any]:
    """Every record of a deployment that nobody holds."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return list(store.records())
    finally:
        store.close()


def intents(found: list[Any]) -> dict[str, Any]:
    """Intents by provider key."""
    return {
        r.body["key"]: r for r in found if r.kind == "action.decided" and r.body["disposition"] in ("allow", "flag")
    }


def outcomes(found: list[Any]) -> dict[int, str]:
    """Last outcome by intent seq."""
    return {r.body["intent"]: r.body["outcome"] for r in found if r.kind == "action.settled"}


def judge_books(root: Path, twin: StripeTwin) -> list[str]:
    """Everything that breaks G1 or G3 by the simulator's books; an empty list is what a test wants."""
    found = records(root)
    by_key = intents(found)
    settled = outcomes(found)
    wrong: list[str] = []
    moved = [m for m in twin.books().movements() if "countermark_key" in m.metadata]
    for movement in moved:
        if movement.metadata["countermark_key"] not in by_key:
            wrong.append(f"effect without intent: {movement.id}")
    for key, count in Counter(m.metadata["countermark_key"] for m in moved).items():
        if count > 1:
            wrong.append(f"one action took effect {count} times: {key}")
    for invoice, count in Counter(m.metadata.get("invoice") for m in moved).items():
        if invoice is not None and count > 1:
            wrong.append(f"invoice {invoice} was paid {count} times")
    present = {m.metadata["countermark_key"] for m in moved}
    for key, record in by_key.items():
        outcome = settled.get(record.seq, "open")
        if outcome == "confirmed" and key not in present:
            wrong.append(f"confirmed without effect: seq {record.seq}")
        if outcome == "failed" and key in present:
            wrong.append(f"failed with effect: seq {record.seq}")
    return wrong
