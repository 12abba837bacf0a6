"""What a role may see and do on the pages: one table. What moves money is never in it: the gate judges signatures."""

from __future__ import annotations

from collections.abc import Collection, Mapping

LOOK, STOP = "look", "stop"
WORDS, ANSWER, OPERATE, GRANT, PROVE = "words", "answer", "operate", "grant", "prove"

APPROVER, OPERATOR, PRINCIPAL, AUDITOR = "approver", "operator", "principal", "auditor"
VIEWER = "viewer"  # whoever has a session, with a role or without

PERMITS: Mapping[str, frozenset[str]] = {
    LOOK: frozenset((VIEWER,)),
    STOP: frozenset((VIEWER,)),  # to stop is never wrong for long
    WORDS: frozenset((APPROVER, OPERATOR, PRINCIPAL, AUDITOR)),  # sealed values and what agents say
    ANSWER: frozenset((APPROVER,)),  # on which ladder, the ladder's roles say
    OPERATE: frozenset((OPERATOR,)),
    GRANT: frozenset((PRINCIPAL,)),
    PROVE: frozenset((AUDITOR, OPERATOR)),  # take evidence away
}
SAID: Mapping[str, str] = {
    LOOK: "see the pages: amounts, payees, rules, states",
    STOP: "freeze an agent, or stop everything",
    WORDS: "see what agents say, and values that are kept encrypted",
    ANSWER: "answer what the gate asks, where a ladder names one of their roles",
    OPERATE: "see how the gate itself is doing, in full",
    GRANT: "grant mandates",
    PROVE: "take an evidence pack away",
}


def permitted(roles: Collection[str], ladders: Collection[str]) -> frozenset[str]:
    """What somebody with these roles may do. ``ladders``: every role that a ladder of the policy names."""
    own = {VIEWER, *roles}
    if own & set(ladders):
        own.add(APPROVER)
    return frozenset(name for name, who in PERMITS.items() if who & own)
