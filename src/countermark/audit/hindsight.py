"""What people said afterwards: resolutions, reviews, reopenings, imports, checked against the state before each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from countermark.audit.follow import Differs
from countermark.authority import (
    Eyes,
    Person,
    verify_import,
    verify_reopening,
    verify_resolution,
    verify_review,
)
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.policy import Bundle, State, imported_obligation

Reader = Callable[[Record], None]


def eyes_of(bundle: Bundle | None, people: Mapping[str, Person], agent: str | None = None) -> Eyes:
    """Who may sign for two, about an action of ``agent`` if one is concerned; nobody without a bundle."""
    if bundle is None:
        return Eyes({}, (), "")
    compiled = bundle.compiled
    owner = None if agent is None or agent not in compiled.agents else compiled.agents[agent].owner
    roles = {role for ladder in compiled.ladders.values() for role in ladder.roles}
    return Eyes(people, roles, compiled.author, owner)


class Hindsight:
    """``checks`` maps a kind to its check. ``intents``: those without a final outcome, by seq, kept by the caller."""

    def __init__(self, state: State, differs: Differs, intents: Mapping[int, Record]) -> None:
        self._state = state
        self._differs = differs
        self._intents = intents
        self._flagged: dict[str, Record] = {}
        self._refusals: dict[int, Record] = {}
        self.checks: Mapping[str, Reader] = {
            "action.resolved": self._resolved,
            "review.cleared": self._reviewed,
            "obligation.imported": self._imported,
            "obligation.reopened": self._reopened,
        }

    def decided(self, record: Record) -> None:
        """Remember a flagged decision until somebody has looked at it."""
        if record.body["disposition"] == "flag":
            self._flagged[record.body["id"]] = record

    def answered(self, record: Record) -> None:
        """Remember what was refused, until people may be asked about it again."""
        if record.body["state"] == "refused":
            self._refusals[record.seq] = record

    def _signed(self, what: str, verify: Callable[[], object]) -> None:
        try:
            verify()
        except CountermarkError as error:
            self._differs(what, "a document that verifies", str(error)[:300])

    def _eyes(self, agent: str | None = None) -> Eyes:
        return eyes_of(self._state.bundle, self._state.people, agent)

    def _resolved(self, record: Record) -> None:
        body = record.body
        signed = {name: body[name] for name in ("resolution", "signed")}
        eyes, deployment = self._eyes(body["agent"]), self._state.deployment
        self._signed("resolution", lambda: verify_resolution(signed, deployment=deployment, eyes=eyes))
        intent = self._intents.get(body["intent"])
        if intent is None:
            self._differs("intent", "an intent without a final outcome", body["intent"])
            return
        for member in ("id", "agent", "run", "terms"):
            self._differs(member, intent.body[member], body[member])
        said = body["resolution"]
        self._differs("resolution.action", intent.body["id"], said["action"])
        self._differs("resolution.intent_digest", intent.digest, said["intent_digest"])
        moves = said["outcome"] == "confirmed" and intent.body["terms"]["amount"] is not None
        self._differs("resolution.amount", moves, said["amount"] is not None)
        if record.at < intent.body["not_after"]:
            self._differs("at", f"not before {intent.body['not_after']}", record.at)

    def _reviewed(self, record: Record) -> None:
        body = record.body
        signed = {name: body[name] for name in ("review", "key", "sig")}
        people, deployment = self._state.people, self._state.deployment
        self._signed("review", lambda: verify_review(signed, deployment=deployment, people=people))
        decided = self._flagged.pop(body["id"], None)
        if decided is None:
            self._differs("id", "a flagged action that nobody has looked at", body["id"])
            return
        self._differs("decided", decided.seq, body["decided"])
        self._differs("review.action", body["id"], body["review"]["action"])
        self._differs("review.decided_digest", decided.digest, body["review"]["decided_digest"])
        if body["review"]["person"] == self._eyes(decided.body["agent"]).owner:
            self._differs("review.person", "somebody who does not own the agent", body["review"]["person"])

    def _reopened(self, record: Record) -> None:
        body = record.body
        signed = {name: body[name] for name in ("reopening", "signed")}
        eyes, deployment = self._eyes(body["agent"]), self._state.deployment
        self._signed("reopening", lambda: verify_reopening(signed, deployment=deployment, eyes=eyes))
        refusal = self._refusals.get(body["refused"])
        if refusal is None or body["refused"] not in self._state.refused.values():
            self._differs("refused", "a refusal that holds a business key", body["refused"])
            return
        for member in ("id", "agent", "run", "terms"):
            self._differs(member, refusal.body[member], body[member])
        self._differs("reopening.action", refusal.body["id"], body["reopening"]["action"])
        self._differs("reopening.refusal_digest", refusal.digest, body["reopening"]["refusal_digest"])
        del self._refusals[body["refused"]]

    def _payees(self) -> Collection[str]:
        return self._state.register.known.payees

    def _imported(self, record: Record) -> None:
        body, bundle = record.body, self._state.bundle
        signed = {name: body[name] for name in ("import", "signed")}
        eyes, deployment = self._eyes(), self._state.deployment
        self._signed("import", lambda: verify_import(signed, deployment=deployment, eyes=eyes))
        order: Mapping[str, Any] = body["import"]
        try:
            obligation = (
                None if bundle is None else imported_obligation(bundle, order["tool"], order["pairs"], self._payees())
            )
        except CountermarkError as error:
            obligation = error.message
        self._differs("obligation", obligation, body["obligation"])
        taken = self._state.keys.get("ob:" + body["obligation"])
        self._differs("obligation", None, self._state.refused.get(body["obligation"]) if taken is None else taken)
