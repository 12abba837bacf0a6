"""How mandates stand: what is used, held and free of every limit, as one document for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.policy.state import State


def standing(state: State, now: int) -> list[dict[str, Any]]:
    """Every mandate in the order in which they were granted, as of ``now`` (microseconds).

    ``in_force`` is asked of the whole chain, ``why_not`` says what ended it: ``revoked``, ``early``, ``late``, or
    ``ancestor`` when something above it did. Of each limit: ``used`` is settled, ``held`` is reserved by intents
    without a final outcome, ``free`` is what is left of this limit; an ancestor may leave less. Amounts are in minor
    units, with the currency ``*`` they are payments; of a limit on each payment nothing is ever used.
    """
    budgets = state.budgets.standing(now)
    return [_mandate(state, digest, doc, budgets[digest], now) for digest, doc in state.mandates.items()]


def _mandate(
    state: State, digest: str, doc: Mapping[str, Any], budgets: list[tuple[int, int]], now: int
) -> dict[str, Any]:
    why = _ended(state, digest, now)
    if not why and any(_ended(state, above, now) for above in state.chain(digest)[1:]):
        why = "ancestor"
    return {
        "mandate": digest, "agent": doc["agent"], "principal": doc["principal"], "parent": doc["parent"],
        "purpose": doc["purpose"], "tools": doc["tools"], "payees": doc["payees"],
        "revoked": digest in state.revoked, "not_before": doc["not_before"], "not_after": doc["not_after"],
        "in_force": not why, "why_not": why,
        "limits": [
            {**limit, "used": used, "held": held, "free": max(0, limit["amount"] - used - held)}
            for limit, (used, held) in zip(doc["limits"], budgets, strict=True)
        ],
    }  # fmt: skip


def _ended(state: State, digest: str, now: int) -> str:
    doc = state.mandates.get(digest)
    if doc is None or digest in state.revoked:
        return "revoked"
    return "early" if now < doc["not_before"] else "late" if now >= doc["not_after"] else ""
