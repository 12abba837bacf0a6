"""V11: the life of runs, actions, escalations and business keys (docs/spec/record.md)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from countermark_verify.bundle import CALLER, Bundle
from countermark_verify.report import Ledger
from countermark_verify.state import State

_LISTED_MAX = 50
_TYPES = {str: "string", int: "integer", bool: "boolean"}
_FINAL = ("confirmed", "failed")
_REPORTED = {"reported": "report", "not_reported": "recovery"}
_NO_ANSWER = {"settled": None, "http_status": 0, "attempts": 0, "request_id": "", "response": ""}


@dataclass(frozen=True, slots=True)
class _Due:
    """The next record's kind and members of its body, the code that says it is another, and the place before it."""

    code: str
    kind: str
    members: dict[str, Any]
    after: int

    def met_by(self, position: int, record: dict[str, Any]) -> bool:
        body, follows = record["body"], position == self.after + 1
        return (
            follows
            and record["kind"] == self.kind
            and all(body.get(name) == value for name, value in self.members.items())
        )


class Life:
    """Checks each record against the state that earlier ones left; the state itself is folded elsewhere."""

    def __init__(self, ledger: Ledger, state: State, heads: Collection[int] = ()) -> None:
        """`heads` are the sizes of the signed heads that the auditor retained."""
        self._ledger = ledger
        self._state = state
        self._heads = heads
        self._stopped = False
        self._tier: str | None = None
        # What the next record must be, since it shares a commit with this one.
        self._due: _Due | None = None
        self._checks = {
            "run.started": self._run_started,
            "run.ended": self._run_ended,
            "action.decided": self._decided,
            "action.settled": self._settled,
            "escalation.raised": self._raised,
            "escalation.answered": self._answered,
            "escalation.climbed": self._without_answer,
            "escalation.expired": self._without_answer,
            "kill.set": self._kill,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        body = record["body"]
        if record["kind"].startswith("gate."):
            self._stopped = record["kind"] == "gate.stopped"
            self._tier = body.get("tier", self._tier)
        if (due := self._due) is not None and not due.met_by(position, record):
            message = f"{due.kind} does not directly follow seq {due.after}, with which it shares a commit"
            self._ledger.refute(due.code, message, position)
        self._due = due = self._demand(position, record["kind"], body)
        if due is not None and position + 1 in self._heads:
            self._ledger.refute(due.code, f"a head lies between this and {due.kind}", position)
        check = self._checks.get(record["kind"])
        if check is not None:
            self._ledger.ran("V11", 1)
            check(position, record, record["body"])

    def _demand(self, position: int, kind: str, body: dict[str, Any]) -> "_Due | None":
        """What this record asks of the next one."""
        if kind == "action.settled":
            scope = {"kind": "tool", "value": body["tool"]}
            if body["code"] != "booked_differently" or ("tool", body["tool"]) in self._state.kills.values():
                return None
            return _Due("V11.outcome", "kill.set", {"scope": scope, "reason": body["code"]}, position)
        if kind == "action.decided" and body["disposition"] == "escalate":
            return _Due("V11.escalation", "escalation.raised", {"id": body["id"]}, position)
        if kind == "action.resolved":
            return _Due("V11.escalation", "action.settled", {"id": body["id"]}, position)
        if kind == "request.signed" or (kind == "escalation.answered" and body["state"] == "approved"):
            return _Due("V11.escalation", "action.decided", {"id": body["id"]}, position)
        return None

    def unreadable(self) -> None:
        """A record that cannot be read may be the one that was due."""
        self._due = None

    def finish(self) -> None:
        """Open intents are listed: what became of the money is not in this pack."""
        if self._due is not None:
            message = f"the pack ends before {self._due.kind}, which shares this record's commit"
            self._ledger.refute(self._due.code, message, self._due.after)
        still_open = [intent.seq for intent in self._state.intents.values() if intent.state == "open"]
        if still_open:
            self._ledger.lack(
                "V11.open", f"{len(still_open)} intents have no outcome", None, [], still_open[:_LISTED_MAX]
            )

    def _run_started(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        if body["run"] in self._state.runs:
            refute("V11.run", "the run was started before", seq)
        if self._state.bundle is not None and body["agent"] not in self._state.bundle.owners:
            refute("V11.run", "an agent that the policy does not know", seq, None, body["agent"])
        mandate = self._state.mandates.get(body["mandate"])
        if mandate is None:
            refute("V11.run", "the run's mandate was never granted", seq, None, body["mandate"])
        elif mandate.document["agent"] != body["agent"]:
            refute("V11.run", "the mandate is another agent's", seq, mandate.document["agent"], body["agent"])
        elif not all(self._state.in_force(digest, record["at"]) for digest in self._state.chain(body["mandate"])):
            refute("V11.run", "the mandate or an ancestor is not in force", seq)

    def _run_ended(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        run = self._state.runs.get(body["run"])
        if run is None or run.ended:
            self._ledger.refute("V11.run", "ends a run that is not open", seq)
        elif run.agent != body["agent"]:
            self._ledger.refute("V11.run", "ends another agent's run", seq, run.agent, body["agent"])

    def _decided(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        state = self._state
        run = state.runs.get(body["run"])
        if run is None:
            refute("V11.run", "the run was never started", seq, None, body["run"])
        else:
            if run.ended and body["escalation"] is None:
                refute("V11.run", "the run has ended", seq)
            if run.agent != body["agent"]:
                refute("V11.run", "the run is another agent's", seq, run.agent, body["agent"])
            if (chain := state.chain(run.mandate)) != body["mandates"]:
                refute("V11.run", "not the mandates of the run", seq, chain, body["mandates"])
        tier = "observing" if self._by_caller(state.bundle, body["tool"]) else self._tier
        if tier is not None and body["tier"] != tier:
            refute("V11.run", "another tier than that of whoever runs the tool", seq, tier, body["tier"])
        self._once(seq, body)
        intends = body["disposition"] in ("allow", "flag")
        if intends and self._stopped:
            refute("V11.run", "allowed by a gate that has stopped", seq)
        obligation = body["obligation"]
        if intends and obligation is not None:
            if obligation in state.held:
                refute("V11.obligation", "the business key was taken", seq, None, f"seq:{state.held[obligation]}")
            if obligation in state.refused:
                refute(
                    "V11.obligation",
                    "a person refused this business key",
                    seq,
                    None,
                    f"seq:{state.refused[obligation]}",
                )

    def _once(self, seq: int, body: dict[str, Any]) -> None:
        """One decision for each action; a second only once, after an approval."""
        refute = self._ledger.refute
        action = self._state.actions.get(body["id"])
        if body["escalation"] is None:
            if action is None:
                return
            if action.digest != body["action"]:
                refute("V11.double", "the same call with another action", seq, action.digest, body["action"])
            elif action.state == "escalated" and body["disposition"] != "deny":
                refute("V11.escalation", "decided again without the approval that was asked for", seq)
            else:
                refute("V11.double", f"decided before, at seq {action.seq}", seq)
            return
        escalation = self._state.escalations.get(body["escalation"])
        if escalation is None or escalation.body["id"] != body["id"]:
            refute("V11.escalation", "names an escalation that is not this action's", seq, None, body["escalation"])
        elif escalation.state == "used":
            refute("V11.double", "decided after this approval before", seq)
        elif escalation.state != "approved":
            refute("V11.escalation", "the escalation was not approved", seq, "approved", escalation.state)
        if action is not None and action.digest != body["action"]:
            refute("V11.double", "the same call with another action", seq, action.digest, body["action"])
        elif action is not None and action.state not in ("escalated", "denied"):
            refute("V11.double", f"the action already is {action.state}", seq)
        if body["disposition"] == "escalate":
            refute("V11.escalation", "escalates again after an approval", seq)

    def _settled(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        intent = self._state.intents.get(body["id"])
        if intent is None:
            action = self._state.actions.get(body["id"])
            if action is not None and action.state in _FINAL:
                refute("V11.outcome", f"an outcome after {action.state}", seq, None, body["outcome"])
            else:
                refute("V11.effect_without_intent", "an outcome of something that was never allowed", seq)
            return
        if (body["intent"], body["intent_digest"]) != (intent.seq, intent.digest):
            refute(
                "V11.effect_without_intent",
                "names another record as its intent",
                seq,
                [intent.seq, intent.digest],
                [body["intent"], body["intent_digest"]],
            )
        if intent.state == "unknown" and body["outcome"] == "unknown":
            refute("V11.outcome", "unknown twice", seq)
        if body["terms"] != intent.terms:
            refute("V11.outcome", "other terms than the intent's", seq, intent.terms, body["terms"])
        if body["tier"] != intent.tier:
            refute("V11.outcome", "another tier than the intent's", seq, intent.tier, body["tier"])
        settled = body["settled"]
        if settled is not None and settled["currency"] != intent.terms["currency"]:
            refute("V11.outcome", "another currency", seq, intent.terms["currency"], settled["currency"])
        amount = settled["amount"] if settled is not None else intent.terms["amount"]
        if amount != intent.terms["amount"] and body["code"] != "booked_differently":
            refute("V11.outcome", "another amount was booked under an ordinary code", seq, "booked_differently", amount)
        if (body["outcome"], body["via"], body["attempts"]) == ("confirmed", "execute", 0):
            refute("V11.outcome", "executed without an attempt", seq, None, 0)
        if settled is not None and body["outcome"] != "confirmed":
            refute("V11.outcome", f"money moved by an outcome {body['outcome']}", seq, None, settled)
        bundle = self._state.bundles.get(intent.bundle)
        tool = bundle.tools.get(body["tool"]) if bundle else None
        if tool is not None:
            self._outputs(seq, body["output"], dict(tool["outputs"]))
            self._reported(seq, body, self._by_caller(bundle, body["tool"]))
            until = intent.at + tool["dispatch_within_s"] * 1_000_000
            if body["code"] == "not_reported" and record["at"] < until:
                refute("V11.outcome", "said to be silent while it could still report", seq, until, record["at"])
        for name in ("agent", "run", "tool"):
            if body[name] != intent.fields[name]:
                refute("V11.outcome", f"another {name} than the intent's", seq, intent.fields[name], body[name])

    @staticmethod
    def _by_caller(bundle: Bundle | None, tool: str) -> bool:
        """Does the program that asks run this tool itself?"""
        return bundle is not None and bundle.tools.get(tool, {}).get("connector") == CALLER

    def _reported(self, seq: int, body: dict[str, Any], by_caller: bool) -> None:
        """What its caller ran is only reported, and nothing else is."""
        refute = self._ledger.refute
        if body["via"] == "people":
            return
        via = _REPORTED.get(body["code"])
        if not by_caller:
            if via is not None or body["via"] == "report":
                refute("V11.outcome", "a report of what the gate itself executes", seq, None, body["via"])
            return
        if via != body["via"] or (via == "recovery" and body["outcome"] != "unknown"):
            refute("V11.outcome", "not what a caller may report", seq, via, body["via"])
        for name, value in _NO_ANSWER.items():
            if body[name] != value:
                refute("V11.outcome", f"{name} of an answer that the gate never had", seq, value, body[name])

    def _outputs(self, seq: int, output: dict[str, Any], declared: dict[str, str]) -> None:
        for name, value in output.items():
            kind = _TYPES.get(type(value))
            if kind is None or declared.get(name) != kind:
                self._ledger.refute(
                    "V11.outcome", f"{name} is no output that the tool declares", seq, declared.get(name), kind
                )

    def _raised(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        parked = self._state.parked.get(body["id"])
        if parked is None:
            refute("V11.escalation", "raised for an action that was not escalated", seq)
            return
        if body["escalation"] in self._state.escalations:
            refute("V11.escalation", "raised before", seq)
        decided = parked.body
        if seq != parked.seq + 1:
            refute("V11.escalation", "does not follow its decision", seq, parked.seq + 1, seq)
        expected = {
            "decided": parked.seq,
            "decided_digest": parked.digest,
            "escalation": "esc_" + parked.digest.removeprefix("sha256:")[:32],
            "mandate": decided["mandates"][0] if decided["mandates"] else None,
        } | {name: decided[name] for name in ("agent", "run", "action", "request", "terms", "bundle")}
        for name, value in expected.items():
            if body[name] != value:
                refute("V11.escalation", f"another {name} than was decided", seq, value, body[name])
        ids = sorted(item for ladder in body["ladders"].values() for item in ladder)
        if ids != decided["reasons"]:
            refute("V11.escalation", "not the policies that were decided", seq, decided["reasons"], ids)

    def _kill(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        if body["kill"] in self._state.kill_ids:
            self._ledger.refute("V10.clearance", "the id of this kill was used before", seq, None, body["kill"])

    def _answered(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._same_escalation(seq, body)

    def _without_answer(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._same_escalation(seq, body)

    def _same_escalation(self, seq: int, body: dict[str, Any]) -> None:
        escalation = self._state.escalations.get(body["escalation"])
        if escalation is None:
            self._ledger.refute("V11.escalation", "was never raised", seq, None, body["escalation"])
            return
        for name in ("id", "agent", "run", "terms"):
            if body[name] != escalation.body[name]:
                self._ledger.refute(
                    "V11.escalation", f"another {name} than was escalated", seq, escalation.body[name], body[name]
                )
