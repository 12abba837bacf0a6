"""Segregation of duties: who stands behind an action that asks people, however many agents they have.

Owners count by person: of the agent that asked, of every agent whose mandate that agent's stands under, and of every
agent that asked people about the same obligation before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from countermark.model.errors import AuthorityError

if TYPE_CHECKING:
    from countermark.policy.state import Escalation, State


def asked_key(obligation: str, agent: str) -> str:
    """The key of the newest escalation of an agent about an obligation: hex digits, as the store keeps keys."""
    return "as:" + hashlib.sha256(f"{obligation} {agent}".encode()).hexdigest()


def owners_behind(state: State, parked: Escalation, only: str | None = None) -> frozenset[str]:
    """Everybody who owns an agent behind a parked action, by the bundle in force; ``only`` looks for one of them."""
    bundle = state.bundle
    if bundle is None:
        return frozenset()
    agents = {parked.body["agent"]}
    agents |= {state.mandates[one]["agent"] for one in state.chain(parked.body["mandate"]) if one in state.mandates}
    known, obligation = bundle.compiled.agents, parked.obligation
    if obligation is not None:
        asking = (name for name, agent in known.items() if only in (None, agent.owner))
        agents |= {name for name in asking if state.keys.get(asked_key(obligation, name)) is not None}
    return frozenset(known[name].owner for name in agents if name in known)


def check_apart(state: State, parked: Escalation, person: str) -> None:
    """Nobody answers who stands behind the action. Raises ``AuthorityError`` (``approval_same_person``)."""
    if person in owners_behind(state, parked, person):
        raise AuthorityError(
            "the person owns an agent behind this action: it asked, delegated, or asked about the same before",
            code="approval_same_person",
        )
