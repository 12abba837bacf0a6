"""What earlier records add up to: the state that a decision at seq n may depend on.

The fold believes the records as they stand (each step judges them for itself before the fold), so that one refuted
record does not make every later one look wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from countermark_verify.boundary import Bounds
from countermark_verify.bundle import Bundle
from countermark_verify.escalation import Escalation, rung_of
from countermark_verify.facts import Facts, Intent
from countermark_verify.register import Register
from countermark_verify.roll import Roll

# What may have been found out about a record by itself (`aside.py`): its identifiers are those of the action; the
# policy decides as it says; its signature verifies.
IDENTIFIED, JUDGED, SIGNED = 1, 2, 4
CHAIN_MAX = 64
# A record is at most 65,535 bytes, and each limit of the chain has a row of 78 bytes or more in `budgets`.
CHAIN_LIMITS_MAX = 820


_DEPLOYMENT = ("deployment", "")


@dataclass(slots=True)
class Mandate:
    document: dict[str, Any]
    # Its lists as sets, since every decision under it looks things up.
    tools: frozenset[str]
    payees: frozenset[str]
    named: frozenset[str]
    revoked: bool = False


@dataclass(slots=True)
class Run:
    agent: str
    mandate: str
    ended: bool = False
    bounds: Bounds | None = None


@dataclass(slots=True)
class Action:
    """The life of one action so far. `state`: escalated, denied, intent, unknown, confirmed, failed."""

    digest: str
    seq: int
    state: str
    decisions: int = 1


@dataclass(frozen=True, slots=True)
class Flagged:
    """A decision `flag` that nobody has cleared."""

    seq: int
    digest: str
    agent: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A decision `escalate` whose escalation has not been raised yet."""

    seq: int
    at: int
    digest: str
    body: dict[str, Any]


@dataclass(slots=True)
class Waiting:
    """A restored lane that two people have not accepted yet. `digest` is that of its `lane.succeeded`."""

    digest: str
    lane: str
    imported: int = 0
    people: set[str] = field(default_factory=set)

    @property
    def kill(self) -> str:
        """The id of the kill that stands meanwhile."""
        return "kill_" + self.digest.removeprefix("sha256:")[:16]


class State:
    """Folded from every readable record, in order."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.bundles = bundles
        definitions: Iterable[dict[str, Any]] = (
            document for bundle in bundles.values() for document in bundle.facts.values()
        )
        self.register = Register()
        self.facts = Facts(definitions, self.register.since)
        self.deployment: str | None = None
        self.activated: str | None = None
        # The digest of the record that activated it.
        self.activation: str | None = None
        self.roll = Roll()
        self.mandates: dict[str, Mandate] = {}
        # What was redeemed, and the mandate that it became.
        self.redeemed: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        # Active kills and what each covers; and the other way round.
        self.kills: dict[str, tuple[str, str]] = {}
        self._killed: dict[tuple[str, str], set[str]] = {}
        self.kill_ids: set[str] = set()
        self.succession: Waiting | None = None
        self.actions: dict[str, Action] = {}
        self.intents: dict[str, Intent] = {}
        self.flagged: dict[str, Flagged] = {}
        # Business keys: held by the intent or the import at this seq; refused by the newest such answer, at this seq.
        self.held: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        # Those answers, by their seq: the business key, the record's digest and its body.
        self.refusals: dict[int, tuple[str, str, dict[str, Any]]] = {}
        # Asked about by the escalations raised at these seqs, oldest first, while they wait for people.
        self.waiting: dict[str, list[int]] = {}
        # Obligation -> the agents that asked people about it.
        self.asked: dict[str, set[str]] = {}
        self.parked: dict[str, Parked] = {}
        self.escalations: dict[str, Escalation] = {}
        # The newest `head.witnessed`: its size, and when the answer came.
        self.witnessed: tuple[int, int] | None = None
        self.succeeded_at: int | None = None
        # What was found out before about the record at hand, which is judged under the bundle that it names.
        self.aside = 0
        # The record at hand, as it stands in the log.
        self.raw = b""

    @property
    def bundle(self) -> Bundle | None:
        """The bundle in force, if the pack has it."""
        return self.bundles.get(self.activated) if self.activated else None

    def reads_as_nobody(self, reader: str) -> bool:
        """Whether a reader is said to be a person whom the bundle in force does not have."""
        kind, _, name = reader.partition(":")
        return kind == "person" and self.bundle is not None and name not in self.bundle.people

    def place(self, escalation: Escalation, ladder: str, person: str, at: int) -> str | None:
        """In whose place somebody answers the present rung of a ladder, by the bundle in force; None: in nobody's."""
        rung = rung_of(self.bundle, ladder, escalation) if self.bundle is not None else None
        if self.bundle is None or rung is None:
            return None
        return self.roll.place(self.bundle, person, rung["roles"], at)

    def chain(self, mandate: str) -> list[str]:
        """Digests from a mandate up to its root, as far as they were granted, and no more than a chain may have."""
        digests: dict[str, None] = {}
        at: str | None = mandate
        while at is not None and at not in digests and len(digests) < CHAIN_MAX:
            digests[at] = None
            known = self.mandates.get(at)
            at = known.document["parent"] if known else None
        return list(digests)

    def mandates_of(self, body: Mapping[str, Any]) -> list[str]:
        """The chain that a decision stands under. What it lists is this, or else V11 refutes it."""
        return self.chain(body["mandates"][0]) if body["mandates"] else []

    def too_long(self, mandate: dict[str, Any]) -> str:
        """Why nothing can be done under a mandate's chain, or "": its length, or all its limits."""
        parents = self.chain(mandate["parent"]) if mandate["parent"] is not None else []
        known = [self.mandates[digest].document for digest in parents if digest in self.mandates]
        if len(parents) >= CHAIN_MAX:
            return f"the chain is longer than {CHAIN_MAX}"
        if sum(len(document["limits"]) for document in (mandate, *known)) > CHAIN_LIMITS_MAX:
            return f"the chain has more than {CHAIN_LIMITS_MAX} limits, whose budgets no record can hold"
        return ""

    def killing(self, body: Mapping[str, Any]) -> list[str]:
        """The active kills that cover a decision, sorted."""
        places = [("agent", body["agent"]), ("tool", body["tool"])]
        places += [("mandate", digest) for digest in body["mandates"]]
        if (payee := body["terms"]["payee"]) is not None:
            places.append(("payee", payee))
        found: set[str] = set(self._killed.get(_DEPLOYMENT, ()))
        return sorted(found.union(*(self._killed.get(place, ()) for place in places)))

    def kill(self, kill: str, scope: Mapping[str, str]) -> None:
        self.clear(kill)
        place = _DEPLOYMENT if scope["kind"] == "deployment" else (scope["kind"], scope["value"])
        self.kills[kill] = place
        self.kill_ids.add(kill)
        self._killed.setdefault(place, set()).add(kill)

    def clear(self, kill: str) -> None:
        if (place := self.kills.pop(kill, None)) is not None:
            self._killed[place].discard(kill)

    def in_force(self, mandate: str, at: int) -> bool:
        """Granted, not revoked, and within its validity."""
        known = self.mandates.get(mandate)
        if known is None or known.revoked:
            return False
        return bool(known.document["not_before"] <= at < known.document["not_after"])

    def apply(self, record: dict[str, Any], digest: str) -> None:
        """Fold one record; `digest` is its own."""
        fold = _FOLDS.get(record["kind"])
        if fold is not None:
            fold(self, record, record["body"], digest)


def action_fields(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that facts may name, of an `action.decided` body."""
    terms = body["terms"]
    fields = {
        "agent": body["agent"],
        "run": body["run"],
        "mandate": body["mandates"][0] if body["mandates"] else None,
        "tool": body["tool"],
        "payee": terms["payee"],
        "currency": terms["currency"],
        "amount": terms["amount"],
    }
    for alias, value in body["args"].items():
        if type(value) is not dict:
            fields["args." + alias] = value
    return fields


def _started(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    if state.deployment is None:
        state.deployment = body["deployment"]


def _activated(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    first, state.activated = state.activation is None, body["activation"]["bundle"]
    if state.bundle is not None:
        state.register.activated(state.bundle, record["at"], first=first)
    state.activation = digest
    if state.bundle is not None:
        state.roll.activate(state.bundle.people, record["seq"])


def _granted(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    # A mandate under which nothing can be done is refuted, and then as good as never granted.
    if body["digest"] not in state.mandates and not state.too_long(body["mandate"]):
        document = body["mandate"]
        tools, payees, named = (frozenset[str](document[name]) for name in ("tools", "payees", "named"))
        state.mandates[body["digest"]] = Mandate(document, tools, payees, named)
        state.facts.open_budgets(body["digest"], body["mandate"]["limits"])


def _redeemed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    _granted(state, record, body, digest)
    for name in body["redeems"]:
        state.redeemed.setdefault(name, body["digest"])


def _revoked(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    mandate = state.mandates.get(body["revocation"]["mandate"])
    if mandate is not None:
        mandate.revoked = True


def _run_started(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    bounds = Bounds(body["boundary"]) if "boundary" in body else None
    state.runs.setdefault(body["run"], Run(body["agent"], body["mandate"], bounds=bounds))


def _run_ended(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    if body["run"] in state.runs:
        state.runs[body["run"]].ended = True


def _bounds(state: State, body: dict[str, Any]) -> Bounds | None:
    """The boundary that an action stands in."""
    run = state.runs.get(body["run"])
    return None if run is None else run.bounds


def _decided(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    outcome = {"allow": "intent", "flag": "intent", "escalate": "escalated", "deny": "denied"}[body["disposition"]]
    action = state.actions.get(body["id"])
    held = outcome == "intent" and body["id"] not in state.intents
    if (bounds := _bounds(state, body)) is not None:
        bounds.decided(body, first=action is None, intent=held)
    if action is None:
        state.actions[body["id"]] = Action(body["action"], record["seq"], outcome)
    else:
        action.decisions += 1
        if action.state in ("escalated", "denied"):
            action.state = outcome
    if body["escalation"] in state.escalations:
        state.escalations[body["escalation"]].state = "used"
    if outcome == "escalated":
        state.parked[body["id"]] = Parked(record["seq"], record["at"], digest, body)
    if not held:
        return
    if body["disposition"] == "flag":
        state.flagged[body["id"]] = Flagged(record["seq"], digest, body["agent"])
    intent = Intent(
        seq=record["seq"],
        digest=digest,
        action=body["id"],
        at=record["at"],
        fields=action_fields(body),
        mandates=state.mandates_of(body),
        terms=body["terms"],
        obligation=body["obligation"],
        tier=body["tier"],
        bundle=body["bundle"],
    )
    state.intents[body["id"]] = intent
    if intent.obligation is not None:
        state.held.setdefault(intent.obligation, record["seq"])
    state.facts.intent(intent)


def _settled(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    intent = state.intents.get(body["id"])
    action = state.actions.get(body["id"])
    if intent is None or action is None:
        return
    action.state = intent.state = body["outcome"]
    if body["outcome"] == "unknown":
        return
    # Nothing may follow a final outcome, so that the intent itself need not be kept.
    del state.intents[body["id"]]
    if (bounds := _bounds(state, body)) is not None:
        bounds.settled(body)
    if body["tier"] == "observing":
        return  # what the agent's own process reports releases nothing and confirms nothing
    if body["outcome"] == "failed":
        state.facts.failed(intent)
        if intent.obligation is not None and state.held.get(intent.obligation) == intent.seq:
            del state.held[intent.obligation]
    else:
        settled = body["settled"]["amount"] if body["settled"] else None
        state.facts.confirmed(intent, record["at"], settled, body["output"])


def _raised(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    parked = state.parked.pop(body["id"], None)
    if body["escalation"] in state.escalations:
        return
    escalation = Escalation(body, parked.body if parked else None, record["seq"], state.bundles.get(body["bundle"]))
    escalation.rung = dict.fromkeys(body["ladders"], 1)
    escalation.due = {ladder: body["due"].get(ladder, body["not_after"]) for ladder in body["ladders"]}
    state.escalations[body["escalation"]] = escalation
    if escalation.decided and (obligation := escalation.decided["obligation"]) is not None:
        state.waiting.setdefault(obligation, []).append(escalation.seq)
        state.asked.setdefault(obligation, set()).add(body["agent"])


def _waits_no_more(state: State, escalation: Escalation) -> None:
    seqs = state.waiting.get(escalation.decided["obligation"] or "", []) if escalation.decided else []
    if escalation.state != "pending" and escalation.seq in seqs:
        seqs.remove(escalation.seq)


def _answered(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    escalation = state.escalations.get(body["escalation"])
    if escalation is None:
        return
    approval = body["approval"]
    if approval["person"] not in escalation.people and approval["verdict"] == "approve":
        place = state.place(escalation, approval["ladder"], approval["person"], record["at"])
        escalation.answers.setdefault(approval["ladder"], {})[approval["person"]] = place or approval["person"]
    if escalation.state == "pending":
        escalation.state = body["state"]
        _waits_no_more(state, escalation)
    obligation = escalation.decided["obligation"] if escalation.decided else None
    if body["state"] == "refused" and obligation is not None:
        state.refused[obligation] = record["seq"]
        state.refusals[record["seq"]] = obligation, digest, body


def _climbed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    """The next rung begins without answers: those of the one before count no more."""
    escalation = state.escalations.get(body["escalation"])
    if escalation is not None and escalation.state == "pending" and body["ladder"] in escalation.rung:
        escalation.rung[body["ladder"]] = body["rung"]
        escalation.due[body["ladder"]] = body["due"]
        escalation.answers.pop(body["ladder"], None)


def _expired(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    escalation = state.escalations.get(body["escalation"])
    if escalation is not None and escalation.state == "pending":
        escalation.state = "expired"
        _waits_no_more(state, escalation)


def _kill_set(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.kill(body["kill"], body["scope"])


def _kill_cleared(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.clear(body["clearance"]["kill"])


def _key_enrolled(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    said = body["enrolment"]
    state.roll.enrol(said["key"], said["person"], record["seq"], tuple(row["person"] for row in body["signed"]))


def _key_removed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.roll.remove(body["removal"]["key"], record["seq"])


def _away(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    said = body["absence"]
    state.roll.away(said["person"], said["stands_in"], said["from"], said["until"])


def _reviewed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.flagged.pop(body["id"], None)


def _imported(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.held.setdefault(body["obligation"], record["seq"])


def _reopened(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    refusal = state.refusals.pop(body["refused"], None)
    if refusal is not None and state.refused.get(refusal[0]) == body["refused"]:
        del state.refused[refusal[0]]


def _payee_changed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.register.changed(body, record["seq"], record["at"], digest)


def _succeeded(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.succeeded_at = record["seq"]
    if state.succession is not None:
        state.clear(state.succession.kill)
    state.succession = Waiting(digest, body["lane"])
    for mandate in state.mandates.values():
        mandate.revoked = True
    state.kill(state.succession.kill, {"kind": "deployment", "value": ""})


def _witnessed(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    state.witnessed = (body["size"], body["answered"])


def _moved(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    if body["obligation"] is not None:
        state.held[body["obligation"]] = record["seq"]
    if state.succession is not None:
        state.succession.imported += 1


def _accepted(state: State, record: dict[str, Any], body: dict[str, Any], digest: str) -> None:
    if state.succession is None:
        return
    state.succession.people.add(body["acceptance"]["person"])
    if len(state.succession.people) >= 2:
        state.clear(state.succession.kill)
        state.succession = None


_FOLDS = {
    "gate.started": _started,
    "policy.activated": _activated,
    "key.enrolled": _key_enrolled,
    "key.removed": _key_removed,
    "absence.set": _away,
    "mandate.granted": _granted,
    "mandate.accepted": _redeemed,
    "mandate.revoked": _revoked,
    "run.started": _run_started,
    "run.ended": _run_ended,
    "action.decided": _decided,
    "action.settled": _settled,
    "escalation.raised": _raised,
    "escalation.answered": _answered,
    "escalation.climbed": _climbed,
    "escalation.expired": _expired,
    "kill.set": _kill_set,
    "kill.cleared": _kill_cleared,
    "lane.succeeded": _succeeded,
    "lane.imported": _moved,
    "lane.accepted": _accepted,
    "review.cleared": _reviewed,
    "obligation.imported": _imported,
    "obligation.reopened": _reopened,
    "payee.changed": _payee_changed,
    "head.witnessed": _witnessed,
}
