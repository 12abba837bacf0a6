"""Segregation of duties: who stands behind an action that asks people, however many agents they have.

Owners count by person: of the agent that asked, of every agent whose mandate that agent's stands under, and of every
agent that asked people about the same obligation before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from countermark.policy.parked import Escalation
    from countermark.policy.state import Keys, State


_FIRST, _SEVERAL = "", "*"  # no agent has such a name


def asked_key(obligation: str, agent: str) -> str:
    """The key of the newest escalation of an agent about an obligation: hex digits, as the store keeps keys."""
    return "as:" + hashlib.sha256(f"{obligation} {agent}".encode()).hexdigest()


def note_asked(keys: Keys, obligation: str, agent: str, seq: int) -> None:
    """Remember that an agent asked people about an obligation, and whether it is the only one that ever did."""
    own, first = asked_key(obligation, agent), asked_key(obligation, _FIRST)
    if keys.get(first) is None:
        keys.put(first, seq)
    elif keys.get(own) is None:
        keys.put(asked_key(obligation, _SEVERAL), seq)
    keys.put(own, seq)


def owners_behind(state: State, parked: Escalation) -> frozenset[str]:
    """Everybody who owns an agent behind a parked action, by the bundle in force."""
    bundle = state.bundle
    if bundle is None:
        return frozenset()
    agents = {parked.body["agent"]}
    agents |= {state.mandates[one]["agent"] for one in state.chain(parked.body["mandate"]) if one in state.mandates}
    known, obligation = bundle.compiled.agents, parked.obligation
    if obligation is not None and state.keys.get(asked_key(obligation, _SEVERAL)) is not None:
        agents |= {name for name in known if state.keys.get(asked_key(obligation, name)) is not None}
    return frozenset(known[name].owner for name in agents if name in known)


def barred(state: State, parked: Escalation) -> frozenset[str]:
    """Everybody who may not answer: who stands behind the action, and who wrote the policy in force."""
    author = () if state.bundle is None else (state.bundle.compiled.author,)
    return owners_behind(state, parked) | frozenset(author)
