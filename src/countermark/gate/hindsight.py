"""Lane messages about what is known afterwards: an unknown settled by people, a flagged action looked at, a refusal
taken back, obligations paid before the gate, and who read the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.authority import verify_import, verify_reopening, verify_resolution, verify_review
from countermark.gate.actions import deciding, settle
from countermark.gate.answers import result_of
from countermark.gate.dispatch import Dispatch, Intent
from countermark.gate.judging import InForce, eyes_of, in_force
from countermark.gate.lane import CLOCK_DRIFT_US_MAX
from countermark.gate.writer import Writer
from countermark.model.errors import ArgumentError, AuthorityError, PolicyError
from countermark.model.values import ACT_ID, Outcome, is_reader
from countermark.policy import Known, imported_obligation

IMPORTED_MAX = 500  # in one order, which is one frame on the socket and one commit
READS = ("export", "explain", "audit")


def resolve(writer: Writer, body: Mapping[str, Any], dispatch: Dispatch) -> dict[str, Any]:
    """Settle an intent without a final outcome by the word of two people. Answers with the action's result.

    Raises:
        AuthorityError, SignatureError: the document or its signatures.
        ArgumentError: ``unknown_action``; ``not_unknown`` when it is settled, or may still start or be under way.
    """
    order = body.get("resolution")
    name = order.get("action") if isinstance(order, Mapping) else None
    seq = writer.state.keys.get("id:" + name) if type(name) is str and ACT_ID.fullmatch(name) is not None else None
    if seq is None:
        raise ArgumentError("there is no such action", field="action", code="unknown_action")
    decided = deciding(writer, writer.record(seq))
    agreed = verify_resolution(
        body, deployment=writer.state.deployment, eyes=eyes_of(in_force(writer), decided.body["agent"])
    )
    terms = decided.body["terms"]
    _check_open(writer, Intent(decided), agreed.intent_digest, dispatch)
    if (agreed.amount is None) != (agreed.outcome == "failed" or terms["amount"] is None):
        raise ArgumentError("say what was moved exactly when money was moved", field="amount", code="bad_resolution")
    writer.add(
        "action.resolved",
        {
            "id": agreed.action, "agent": decided.body["agent"], "run": decided.body["run"], "terms": terms,
            "intent": decided.seq, "resolution": body["resolution"], "signed": body["signed"],
        },
    )  # fmt: skip
    moved = agreed.amount is not None
    differs = moved and agreed.amount != terms["amount"]
    outcome = Outcome(
        agreed.outcome, "booked_differently" if differs else "resolved", ref=agreed.ref, amount=agreed.amount,
        currency=terms["currency"] if moved else "", attempts=0,
    )  # fmt: skip
    return result_of(settle(writer, Intent(decided), outcome, "people")).document()


def _check_open(writer: Writer, intent: Intent, digest: str, dispatch: Dispatch) -> None:
    """Nothing of it may be on its way any more: neither under way nor, the clock's drift included, able to start."""
    if intent.seq not in writer.state.open:
        raise ArgumentError(
            "the action has no intent, or is settled already", field="action", code="not_unknown",
            hint="See `countermark explain`.",
        )  # fmt: skip
    if digest != intent.record.digest:
        raise ArgumentError("the resolution names another intent", field="intent_digest", code="bad_resolution")
    if writer.now < intent.not_after + CLOCK_DRIFT_US_MAX or dispatch.running(intent.seq):
        raise ArgumentError(
            "the action may still be under way", field="action", code="not_unknown",
            hint="Ask again when its time to start has passed and nothing of it runs; see `countermark recover`.",
        )  # fmt: skip


def clear_review(writer: Writer, body: Mapping[str, Any]) -> str:
    """Record that a person looked at a flagged action. Answers with the action's ID."""
    state = writer.state
    bundle = state.bundle
    order = verify_review(body, deployment=state.deployment, people=state.people)
    seq = state.keys.get("id:" + order.action)
    decided = None if seq is None else deciding(writer, writer.record(seq))
    if decided is None or decided.body["disposition"] != "flag":
        raise ArgumentError("no flagged action has this ID", field="action", code="unknown_action")
    if state.keys.get("rv:" + order.action) is not None:
        raise ArgumentError("this action was looked at before", field="action", code="not_waiting")
    if order.decided_digest != decided.digest:
        raise ArgumentError("the review names another decision", field="decided_digest", code="bad_review")
    agent = None if bundle is None else bundle.compiled.agents.get(decided.body["agent"])
    if agent is not None and order.person == agent.owner:
        raise AuthorityError("the agent's owner does not clear its flagged actions", code="four_eyes")
    writer.add(
        "review.cleared", {"id": order.action, "decided": decided.seq, **body}, by=f"person:{order.person}"
    )  # fmt: skip
    return order.action


def reopen(writer: Writer, body: Mapping[str, Any]) -> str:
    """Let what a person refused be asked about again, by the word of two people. Answers with the refused action's ID.

    Raises:
        AuthorityError, SignatureError: the document or its signatures.
        ArgumentError: ``unknown_action``; ``not_refused`` when no refusal of it holds a business key now.
    """
    state, order = writer.state, body.get("reopening")
    name = order.get("action") if isinstance(order, Mapping) else None
    seq = state.keys.get("id:" + name) if type(name) is str and ACT_ID.fullmatch(name) is not None else None
    if seq is None:
        raise ArgumentError("there is no such action", field="action", code="unknown_action")
    refusal = writer.record(seq)
    decided = deciding(writer, refusal)
    agreed = verify_reopening(
        body, deployment=state.deployment, eyes=eyes_of(in_force(writer), decided.body["agent"])
    )  # fmt: skip
    if decided.body["obligation"] is None or state.refused.get(decided.body["obligation"]) != seq:
        raise ArgumentError(
            "no refusal of this action holds a business key", field="action", code="not_refused",
            hint="A denial names the refusal that holds it: see `countermark explain`.",
        )  # fmt: skip
    if agreed.refusal_digest != refusal.digest:
        raise ArgumentError("the reopening names another refusal", field="refusal_digest", code="bad_reopening")
    plain = {member: refusal.body[member] for member in ("id", "agent", "run", "terms")}
    writer.add("obligation.reopened", {**plain, "refused": seq, **body})
    return agreed.action


@dataclass(frozen=True, slots=True)
class Paid:
    """Imports that only need to be compared and added: verified by ``judged``."""

    rows: Sequence[Mapping[str, Any]]
    judged: InForce


def read_imports(body: Mapping[str, Any], judge: InForce | None, known: Known, deployment: str) -> Paid:
    """Verify every import of an order, and what it takes: pure, and too slow for the lane or the loop."""
    eyes = eyes_of(judge)
    if judge is None:
        raise AuthorityError("no policy is active")
    paid = body.get("paid")
    if type(paid) is not list or not 1 <= len(paid) <= IMPORTED_MAX:
        raise ArgumentError(f"an import takes 1 to {IMPORTED_MAX} obligations", field="paid", code="bad_import")
    rows: list[dict[str, Any]] = []
    taken: dict[str, int] = {}
    for number, signed in enumerate(paid, 1):
        order = verify_import(signed, deployment=deployment, eyes=eyes)
        obligation = imported_obligation(judge.bundle, order.tool, order.pairs, known.payees)
        if taken.setdefault(obligation, number) != number:
            raise ArgumentError(
                f"obligation {number} is the same as {taken[obligation]}", field="paid", code="duplicate_import"
            )
        rows.append({"obligation": obligation, "import": signed["import"], "signed": signed["signed"]})
    return Paid(rows, judge)


def import_paid(writer: Writer, paid: Paid) -> dict[str, Any]:
    """Record all of them or none. Answers with how many, and the seq of the first."""
    state = writer.state
    if not paid.judged.still(writer):
        raise PolicyError("another policy was activated meanwhile; nothing was recorded", hint="Import again.")
    for number, row in enumerate(paid.rows, 1):
        seq = state.keys.get("ob:" + row["obligation"])
        seq = state.refused.get(row["obligation"]) if seq is None else seq
        if seq is not None:
            raise ArgumentError(
                f"obligation {number} is taken already, by record #{seq}; nothing was recorded", field="paid",
                code="duplicate_import",
            )  # fmt: skip
    first = state.size
    for row in paid.rows:
        writer.add("obligation.imported", dict(row))
    return {"imported": len(paid.rows), "first": first}


def note_reading(writer: Writer, body: Mapping[str, Any]) -> int:
    """Record that somebody reads the log. Answers with the record's seq."""
    start, stop = body.get("from"), body.get("to")
    if body.get("what") not in READS or type(start) is not int or type(stop) is not int:
        raise ArgumentError(f"a reading says who, what ({', '.join(READS)}), from and to", field="what")
    if not is_reader(body.get("reader"), writer.state.people):
        raise ArgumentError("a reader is uid:N, or person:NAME of the policy in force", field="reader")
    if not 0 <= start < stop <= writer.state.size:
        raise ArgumentError("nobody can read these records", field="to")
    return writer.add("log.read", {name: body[name] for name in ("reader", "what", "from", "to")}).seq
