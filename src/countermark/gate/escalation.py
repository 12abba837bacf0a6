"""Lane messages about parked actions: a person's signed answer, the deadline, and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import orjson

from countermark.authority import Approval, check_eligible, verify_approval
from countermark.gate.actions import EXECUTING, Decided, recorded
from countermark.gate.executor import plain_of
from countermark.gate.writer import Writer
from countermark.model.clock import US
from countermark.model.errors import AuthorityError
from countermark.model.records import Record
from countermark.policy import Escalation, ask_of, decided_body, judge

EXPIRED_PER_TURN_MAX = 256
PAGE_DEFAULT = 20
PAGE_BYTES_MAX = 1 << 19


@dataclass(frozen=True, slots=True)
class Answered:
    """State of the escalation after an answer, and the decision it led to."""

    state: str
    decided: Decided | None


def answer(writer: Writer, body: Mapping[str, Any]) -> Answered:
    """Check and record a signed approval or refusal; the last approval needed decides the action again.

    Raises:
        AuthorityError: not pending any more, or the person may not give this answer.
        SignatureError: the signature or the key is wrong.
    """
    bundle = writer.state.bundle
    if bundle is None:
        raise AuthorityError("no policy is active")
    people = bundle.compiled.people
    approval = verify_approval(body, deployment=writer.state.deployment, people=people)
    parked = writer.state.parked.get(approval.escalation)
    if parked is None or parked.state != "pending":
        raise AuthorityError("this escalation is not waiting for an answer", code="approval_expired")
    ladder = bundle.compiled.ladders.get(approval.ladder)
    agent = bundle.compiled.agents.get(parked.body["agent"])
    if ladder is None or agent is None:
        raise AuthorityError("the policy in force no longer knows this ladder or agent", code="approval_mismatch")
    answered = [person for names in parked.answers.values() for person in names]
    check_eligible(
        approval, {"id": ladder.id, "roles": list(ladder.roles)}, people, agent.owner, bundle.compiled.author,
        writer.at, parked.body, answered, writer.state.register.setter(parked.body["terms"]["payee"]),
    )  # fmt: skip
    state = _state_after(parked, approval, writer)
    first = writer.record(parked.body["decided"])
    if state == "approved" and (
        parked.body["run"] not in writer.state.runs or first.body["tool"] not in bundle.compiled.tools
    ):
        raise AuthorityError("the action's tool or run is gone", code="approval_void")
    writer.add(
        "escalation.answered",
        {
            "escalation": approval.escalation, "id": parked.body["id"], "agent": parked.body["agent"],
            "run": parked.body["run"], "terms": parked.body["terms"], "approval": body["approval"],
            "key": body["key"], "sig": body["sig"], "state": state,
        },
        by=f"person:{approval.person}",
    )  # fmt: skip
    if state == "refused":
        return Answered(state, recorded(writer, first))
    if state == "pending":
        return Answered(state, None)
    return Answered(state, _decide_again(writer, parked, first))


def _state_after(parked: Escalation, approval: Approval, writer: Writer) -> str:
    if approval.verdict == "refuse":
        return "refused"
    bundle = writer.state.bundle
    for name in parked.body["ladders"]:
        people = set(parked.answers.get(name, ()))
        if name == approval.ladder:
            people.add(approval.person)
        quorum = bundle.compiled.ladders[name].quorum if bundle is not None and name in bundle.compiled.ladders else 0
        if quorum < 1 or len(people) < quorum:
            return "pending"
    return "approved"


def _decide_again(writer: Writer, parked: Escalation, first: Record) -> Decided:
    """The current bundle decides with fresh facts; the approval lifts exactly the ids it names."""
    state, body = writer.state, first.body
    bundle = state.bundle
    tool = None if bundle is None else bundle.compiled.tools.get(body["tool"])
    run = state.runs.get(body["run"])
    if bundle is None or tool is None or run is None:
        raise AuthorityError("the action's tool or run is gone", code="approval_void")
    ask = ask_of(body, tool)
    at = writer.at
    judgement = judge(state, ask, at, parked)
    lifted = sorted({pid for ids in parked.body["ladders"].values() for pid in ids})
    record = writer.add(
        "action.decided",
        decided_body(
            ask, judgement, bundle=bundle.digest, not_after=at + tool.dispatch_within_s * US,
            escalation=parked.body["escalation"], lifted=lifted if judgement.disposition in EXECUTING else [],
        ),
    )  # fmt: skip
    values = writer.unseal(first.seq)
    if values is not None:
        subject = body["terms"]["payee"] or f"agent:{body['agent']}"
        writer.seal_values(record, subject, orjson.dumps(values))
    return Decided(record, escalation=parked.body["escalation"], size=state.size)


def expire(writer: Writer, now_us: int) -> int:
    """No answer in time means no. Returns how many ran out."""
    late = [e for e in writer.state.parked.values() if now_us >= e.body["not_after"]][:EXPIRED_PER_TURN_MAX]
    for parked in late:
        body = parked.body
        writer.add(
            "escalation.expired",
            {name: body[name] for name in ("escalation", "id", "agent", "run", "terms")},
        )
    return len(late)


def waiting(writer: Writer, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What waits for people, the newest first: the raising record's body and seq, and the plain values to be seen.

    ``limit`` entries at most, and fewer when they are long. ``after``: the seq of the last entry of the page before;
    a page without entries is the end.
    """
    after = body.get("after")
    parked = (one for one in writer.state.parked.values() if after is None or one.seq < after)
    page: list[dict[str, Any]] = []
    size = 0
    for one in nlargest(body.get("limit", PAGE_DEFAULT), parked, key=lambda one: one.seq):
        page.append(_listed(writer, one))
        size += len(orjson.dumps(page[-1]))
        if size > PAGE_BYTES_MAX:
            break
    return page


def _listed(writer: Writer, parked: Escalation) -> dict[str, Any]:
    body = parked.body
    decided = writer.record(body["decided"])
    tool = writer.bundle(body["bundle"]).compiled.tools.get(decided.body["tool"])
    plain = None if tool is None else plain_of(writer, tool, decided.seq, decided.body)[0]
    values = writer.unseal(decided.seq)
    return {
        **body, "seq": parked.seq, "at": decided.at, "tool": decided.body["tool"], "values": plain,
        "reason": values["reason"][1] if values is not None and values["reason"] else "",
        "reasons": decided.body["reasons"], "facts": decided.body["facts"], "deployment": writer.state.deployment,
        "answers": {ladder: list(people) for ladder, people in parked.answers.items()},
    }  # fmt: skip
