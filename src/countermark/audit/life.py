"""What happens to an action after its decision, and what people may do: outcomes, escalations, mandates, orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.audit.ap2 import check_accepted
from countermark.audit.climbs import Climbs
from countermark.audit.enrolments import Enrolments
from countermark.audit.erasing import Erasing
from countermark.audit.follow import Differs
from countermark.audit.hindsight import Hindsight, eyes_of
from countermark.audit.witnessed import Witnessed
from countermark.authority import (
    check_eligible,
    parse_mandate,
    people_of,
    verify_activation,
    verify_approval,
    verify_clearance,
    verify_grant,
    verify_revocation,
    verify_second,
)
from countermark.model.errors import AuthorityError, CountermarkError
from countermark.model.records import Record
from countermark.model.tool import CALLER, MONITOR_DAYS_MAX
from countermark.model.values import EXECUTING
from countermark.policy import (
    Bundle,
    Escalation,
    Judgement,
    State,
    asked_of,
    barred,
    check_disjoint,
    first_dues,
    state_after,
)

_SHARED = ("id", "agent", "run", "terms")
_TYPES = {"string": str, "integer": int, "boolean": bool}
_OUTCOMES = ("confirmed", "failed", "unknown")
_UNSENT = (("attempts", 0), ("http_status", 0), ("request_id", ""), ("response", ""))
_REPORTED = {"reported": "report", "not_reported": "recovery"}  # codes of what its caller ran, and how they came


class Life:
    """Checks every kind but ``action.decided`` against the state before it."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self._intents: dict[int, Record] = {}
        self._witnessed = Witnessed(state, differs, self._intents)
        self._unknown: set[int] = set()
        self._asking: dict[int, tuple[Record, Judgement]] = {}
        self._hindsight = Hindsight(state, differs, self._intents)
        self.erasing = Erasing(state, differs, self._intents)
        self._checks: Mapping[str, Callable[[Record], None]] = {
            "gate.started": self._started,
            "policy.activated": self._activated,
            "mandate.granted": self._granted,
            "mandate.accepted": lambda record: check_accepted(self._state, record, self._differs),
            "mandate.revoked": self._revoked,
            "run.started": self._run_started,
            "run.ended": self._run_ended,
            "action.settled": self._settled,
            "escalation.raised": self._raised,
            "escalation.answered": self._answered,
            "kill.cleared": self._cleared,
            **Enrolments(state, differs).checks,
            **self._hindsight.checks,
            **self.erasing.checks,
            **Climbs(state, differs).checks,
        }

    def check(self, record: Record) -> None:
        """Compare one record with what the state allows."""
        self._witnessed.check(record)
        found = self._checks.get(record.kind)
        if found is not None:
            found(record)
        self.erasing.see(record)

    def passed(self, record: Record) -> None:
        """A record that is checked elsewhere: it is a leaf of the tree like any other."""
        self._witnessed.check(record)

    def decided(self, record: Record, judgement: Judgement) -> None:
        """Remember a decision for what must follow it."""
        self._hindsight.decided(record)
        self.erasing.see(record)
        if record.body["disposition"] in EXECUTING:
            self._intents[record.seq] = record
        elif record.body["disposition"] == "escalate":
            self._asking[record.seq] = (record, judgement)

    def end(self) -> None:
        """A parked decision whose question was never raised is reported at its own seq."""
        for seq in self._asking:
            self._differs("escalation", "a question to people", None, seq)

    def _signed(self, what: str, verify: Callable[[], object]) -> None:
        """A document that does not verify is a difference like any other."""
        try:
            verify()
        except CountermarkError as error:
            self._differs(what, "a document that verifies", str(error)[:300])

    def _bundle(self) -> Bundle | None:
        return self._state.bundle

    def _people(self) -> Mapping[str, Any]:
        return self._state.people

    def _started(self, record: Record) -> None:
        self._differs("recovered", record.seq, record.body["recovered"])
        if record.seq:
            self._differs("deployment", self._state.deployment, record.body["deployment"])
            self._differs("log_key", self._state.log_key, record.body["log_key"])

    def _activated(self, record: Record) -> None:
        order, current = record.body["activation"], self._bundle()
        self._differs("activation.previous", self._state.activation, order["previous"])
        bundle = self._state.bundle_of(order["bundle"])
        self._differs("activation.author", bundle.compiled.author, order["author"])
        self._differs("activation.bundle", bundle.digest, order["bundle"])
        keys = [key for person in bundle.document["compiled"]["people"] for key in person["keys"]]
        if len(set(keys)) < len(keys):
            self._differs("bundle.people", "keys that are one person's alone", sorted(keys))
        monitored = [tool for tool in bundle.compiled.tools.values() if tool.monitor is not None]
        self._signed("keys", lambda: check_disjoint(self._state, bundle))
        self._signed("names", bundle.compiled.check_names)
        self._signed("activation", lambda: self._orders(record, current or bundle, two=bool(monitored)))
        if not monitored and "second" in record.body:
            self._differs("second", "one person's signature", record.body["second"])
        for tool in monitored:
            if not tool.monitor_fits(record.at):
                self._differs("monitor", f"{tool.name} for {MONITOR_DAYS_MAX} days at the most", tool.monitor)

    def _orders(self, record: Record, judge: Bundle, *, two: bool) -> None:
        """The activator's signature, and the second person's where a tool is only monitored."""
        first = self._bundle() is None
        people = people_of(judge.document["compiled"]["people"]) if first else self._people()
        order = verify_activation(record.body, deployment=self._state.deployment, people=people)
        if two:
            verify_second(record.body, order, eyes_of(judge, people))

    def _granted(self, record: Record) -> None:
        parent_doc = self._state.mandates.get(record.body["mandate"]["parent"] or "")
        parent = None if parent_doc is None else parse_mandate(parent_doc)
        deployment, people = self._state.deployment, self._people()
        self._known_agent(record.body["mandate"]["agent"])
        if record.body["digest"] in self._state.mandates:
            self._differs("digest", "a mandate that was not granted before", record.body["digest"])
        self._signed("mandate", lambda: verify_grant(record.body, deployment=deployment, people=people, parent=parent))

    def _revoked(self, record: Record) -> None:
        deployment, people = self._state.deployment, self._people()
        self._signed("revocation", lambda: verify_revocation(record.body, deployment=deployment, people=people))

    def _cleared(self, record: Record) -> None:
        deployment, people = self._state.deployment, self._people()
        self._signed("clearance", lambda: verify_clearance(record.body, deployment=deployment, people=people))
        kill = record.body["clearance"]["kill"]
        if kill not in self._state.kills:
            self._differs("kill", "one that is set", kill)

    def _run_started(self, record: Record) -> None:
        body, state = record.body, self._state
        doc = state.mandates.get(body["mandate"])
        self._differs("agent", None if doc is None else doc["agent"], body["agent"])
        self._known_agent(body["agent"])
        if body["run"] in state.runs:
            self._differs("run", "a new run", body["run"])
        for digest in state.chain(body["mandate"]):
            doc = state.mandates.get(digest)
            if doc is None or digest in state.revoked or not doc["not_before"] <= record.at < doc["not_after"]:
                self._differs("mandate", "a mandate in force", digest)

    def _known_agent(self, agent: str) -> None:
        bundle = self._bundle()
        if bundle is None or agent not in bundle.compiled.agents:
            self._differs("agent", "one of the policy in force", agent)

    def _run_ended(self, record: Record) -> None:
        run = self._state.runs.get(record.body["run"])
        self._differs("agent", None if run is None else run.agent, record.body["agent"])

    def _settled(self, record: Record) -> None:
        body = record.body
        intent = self._intents.get(body["intent"])
        if intent is None:
            self._differs("intent", "an intent without a final outcome", body["intent"])
            return
        self._differs("intent_digest", intent.digest, body["intent_digest"])
        for member in (*_SHARED, "tool", "tier"):
            self._differs(member, intent.body[member], body[member])
        self._moved(intent, body)
        if body["code"] == "not_reported" and record.at < intent.body["not_after"]:
            self._differs("at", f"not before {intent.body['not_after']}", record.at)
        if body["outcome"] not in _OUTCOMES:
            self._differs("outcome", "confirmed, failed or unknown", body["outcome"])
        elif body["outcome"] != "unknown":
            del self._intents[body["intent"]]
            self._unknown.discard(body["intent"])
        elif body["intent"] in self._unknown:
            self._differs("outcome", "confirmed or failed, after one unknown", body["outcome"])
        else:
            self._unknown.add(body["intent"])

    def _moved(self, intent: Record, body: Mapping[str, Any]) -> None:
        """Money in the terms' currency, after an attempt; outputs that the tool declares, of their types."""
        terms, settled = intent.body["terms"], body["settled"]
        if settled is not None:
            self._differs("settled.currency", terms["currency"], settled["currency"])
            if body["outcome"] != "confirmed":
                self._differs("settled", None, settled)
            elif settled["amount"] != terms["amount"]:
                self._differs("code", "booked_differently", body["code"])
        if body["outcome"] == "confirmed" and body["via"] == "execute" and body["attempts"] < 1:
            self._differs("attempts", "at least one", body["attempts"])
        tool = self._state.bundle_of(intent.body["bundle"]).compiled.tools[body["tool"]]
        if body["via"] == "people":
            self._resolved(body)
        elif (tool.connector == CALLER) != (body["code"] in _REPORTED or body["via"] == "report"):
            self._differs("code", "one that fits who ran the tool", body["code"])
        elif tool.connector == CALLER:
            self._reported(body)
        declared = {name: _TYPES.get(kind) for name, kind in tool.outputs} if body["output"] else {}
        for name, value in body["output"].items():
            if declared.get(name) is not type(value):
                self._differs(f"output.{name}", f"a declared output of {tool.name}", value)

    def _reported(self, body: Mapping[str, Any]) -> None:
        """What its caller said, or that nobody said anything: no try, no answer, no money that a provider named."""
        self._differs("via", _REPORTED.get(body["code"]), body["via"])
        if body["code"] == "not_reported":
            self._differs("outcome", "unknown", body["outcome"])
        for member, nothing in (*_UNSENT, ("settled", None)):
            self._differs(member, nothing, body[member])

    def _resolved(self, body: Mapping[str, Any]) -> None:
        """What two people said (``Follow`` compares it with theirs): no try, no answer, no output."""
        for member, nothing in (*_UNSENT, ("output", {})):
            self._differs(member, nothing, body[member])
        if body["code"] != "booked_differently":
            self._differs("code", "resolved", body["code"])

    def _raised(self, record: Record) -> None:
        body = record.body
        self._differs("decided", record.seq - 1, body["decided"])
        asked = self._asking.pop(body["decided"], None)
        if asked is None:
            self._differs("decided", "a parked decision", body["decided"])
            return
        decided, judgement = asked
        self._differs("decided_digest", decided.digest, body["decided_digest"])
        self._differs("escalation", "esc_" + decided.digest[7:39], body["escalation"])
        for member in (*_SHARED, "action", "request", "bundle"):
            self._differs(member, decided.body[member], body[member])
        self._differs("mandate", next(iter(decided.body["mandates"]), None), body["mandate"])
        self._differs("reference", decided.body.get("reference"), body.get("reference"))
        ladders = {name: list(ids) for name, ids in (judgement.ladders or {}).items()}
        self._differs("ladders", ladders, body["ladders"])
        bundle = self._bundle()
        if bundle is not None and ladders.keys() <= bundle.compiled.ladders.keys():
            compiled = bundle.compiled
            due, not_after = first_dues(compiled.ladders, ladders, decided.at, compiled.zone)
            self._differs("due", due, body["due"])
            self._differs("not_after", not_after, body["not_after"])

    def _answered(self, record: Record) -> None:
        self._hindsight.answered(record)
        body, bundle = record.body, self._bundle()
        parked = self._state.parked.get(body["escalation"])
        if parked is None or parked.state != "pending" or bundle is None:
            self._differs("escalation", "one that waits for an answer", body["escalation"])
            return
        for member in _SHARED:
            self._differs(member, parked.body[member], body[member])
        if parked.agent not in bundle.compiled.agents:
            self._differs("agent", "one of the policy in force", parked.agent)
        self._signed("approval", lambda: self._eligible(record, parked, bundle))
        answer = body["approval"]
        if answer["ladder"] in parked.body["ladders"]:
            state = state_after(parked, bundle.compiled, answer["ladder"], answer["person"], answer["verdict"])
            self._differs("state", state, body["state"])

    def _eligible(self, record: Record, parked: Escalation, bundle: Bundle) -> None:
        signed = {name: record.body[name] for name in ("approval", "key", "sig")}
        people = self._people()
        approval = verify_approval(signed, deployment=self._state.deployment, people=people)
        asked = asked_of(parked, bundle.compiled, approval.ladder)
        if asked is None:
            raise AuthorityError("the policy in force does not know this rung", code="approval_ladder")
        check_eligible(
            approval, asked, people, barred(self._state, parked), record.at, parked.body, parked.answered,
            self._state.stands_in(record.at), self._state.register.setter(parked.body["terms"]["payee"]),
        )  # fmt: skip
