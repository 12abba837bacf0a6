"""Lane messages about parked actions: a person's signed answer, what it would bring about, and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from countermark.authority import check_eligible, eligible, verify_approval
from countermark.gate.actions import POLICY, Decided, recorded
from countermark.gate.executor import plain_of
from countermark.gate.writer import Writer
from countermark.model.clock import US
from countermark.model.errors import AuthorityError
from countermark.model.records import Record
from countermark.model.tool import CALLER
from countermark.model.values import EXECUTING
from countermark.policy import (
    Escalation,
    State,
    ask_of,
    asked_of,
    barred,
    decided_body,
    judge,
    preview,
    state_after,
)

PAGE_DEFAULT = 20
PAGE_BYTES_MAX = 1 << 19


@dataclass(frozen=True, slots=True)
class Answered:
    """State of the escalation after an answer, and the decision it led to."""

    state: str
    decided: Decided | None


def answer(writer: Writer, body: Mapping[str, Any], tier: str) -> Answered:
    """Check and record a signed approval or refusal; the last approval needed decides the action again.

    ``tier`` is this gate's, which executes what it allows: not always that of the gate that was asked.

    Raises:
        AuthorityError: not pending any more, for another rung, or the person may not give this answer.
        SignatureError: the signature or the key is wrong.
    """
    bundle = writer.state.bundle
    if bundle is None:
        raise AuthorityError("no policy is active")
    people = writer.state.people
    approval = verify_approval(body, deployment=writer.state.deployment, people=people)
    parked = _waiting(writer, approval.escalation)
    body_asked, compiled = parked.body, bundle.compiled
    if approval.ladder not in body_asked["ladders"]:
        raise AuthorityError("the escalation does not ask that ladder", code="approval_ladder")
    asked, agent = asked_of(parked, compiled, approval.ladder), compiled.agents.get(parked.agent)
    if asked is None or agent is None:
        raise AuthorityError("the policy in force no longer knows this ladder or agent", code="approval_mismatch")
    check_eligible(
        approval, asked, people, barred(writer.state, parked), writer.at, body_asked, parked.answered,
        writer.state.stands_in(writer.at), writer.state.register.setter(body_asked["terms"]["payee"]),
    )  # fmt: skip
    state = state_after(parked, compiled, approval.ladder, approval.person, approval.verdict)
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
    return Answered(state, _decide_again(writer, parked, first, tier))


def _waiting(writer: Writer, name: str) -> Escalation:
    """The escalation, if it waits. Raises ``AuthorityError``: never raised, over, or used up by an answer."""
    parked = writer.state.parked.get(name)
    if parked is not None and parked.state == "pending":
        return parked
    seq = writer.state.keys.get("es:" + name)
    if seq is None:
        raise AuthorityError("no such escalation was ever raised", code="approval_unknown")
    newest = writer.state.keys.get("id:" + writer.record(seq).body["id"])
    if newest is not None and (record := writer.record(newest)).kind == "escalation.expired":
        if record.body.get("because") == POLICY:
            raise AuthorityError("another policy came into force, and it was asked anew", code="approval_void")
        if "because" in record.body:
            raise AuthorityError("the run was cancelled: nobody is asked any more", code="approval_void")
        raise AuthorityError("nobody answered this escalation in time", code="approval_expired")
    raise AuthorityError("this escalation was answered before", code="approval_closed")


def _decide_again(writer: Writer, parked: Escalation, first: Record, tier: str) -> Decided:
    """The current bundle decides with fresh facts; the approval lifts exactly the ids it names."""
    state, body = writer.state, first.body
    bundle = state.bundle
    tool = None if bundle is None else bundle.compiled.tools.get(body["tool"])
    run = state.runs.get(body["run"])
    if bundle is None or tool is None or run is None:
        raise AuthorityError("the action's tool or run is gone", code="approval_void")
    ask = ask_of(body, tool)
    if tool.connector != CALLER:
        ask = ask._replace(tier=tier)
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


def look(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """What would be decided now if a parked action were approved as it is asked; nothing is recorded.

    Raises:
        AuthorityError: ``approval_unknown``, ``_closed``, ``_expired`` or ``_void`` (its run is cancelled): it does not
            wait.
    """
    parked = _waiting(writer, body.get("escalation", ""))
    outlook = preview(writer.state, parked, writer.record(parked.body["decided"]).body, writer.at)
    found = outlook.judgement
    return {
        "disposition": found.disposition, "stage": found.stage, "code": found.code, "reasons": list(found.reasons),
        "against": list(outlook.against), "facts": dict(found.facts or {}),
    }  # fmt: skip


def waiting(writer: Writer, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What waits for people, the newest first: the raising record's body and seq, and the plain values to be seen.

    ``limit`` entries at most, and fewer when they are long. ``after``: the seq of the last entry of the page before;
    a page without entries is the end. ``share``: no agent has more than its part of so many entries, over all pages.
    """
    page: list[dict[str, Any]] = []
    size = 0
    parked, after = writer.state.parked, body.get("after")
    listed = parked.shared(body["share"], after) if "share" in body else parked.newest(after)
    for one in islice(listed, body.get("limit", PAGE_DEFAULT)):
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
        "rungs": rungs_of(parked, writer.state, writer.at), "agent_waits": writer.state.parked.of_agent(parked.agent),
    }  # fmt: skip


def rungs_of(parked: Escalation, state: State, at: int) -> dict[str, Any]:
    """For each ladder: the present rung and of how many, its roles, quorum and end, and who may answer it at ``at``."""
    found: dict[str, Any] = {}
    bundle, stands_in = state.bundle, state.stands_in(at)
    for ladder in parked.plan.ladders:
        number = parked.rung(ladder.id)
        asked = None if bundle is None else asked_of(parked, bundle.compiled, ladder.id)
        agent = None if bundle is None else bundle.compiled.agents.get(parked.agent)
        people: list[str] = []
        if bundle is not None and asked is not None and agent is not None:
            setter = state.register.setter(parked.body["terms"]["payee"])
            out = barred(state, parked) | ({setter} if setter is not None else set())
            people = eligible(asked, state.people, out, parked.answered, stands_in)
        rung = ladder.rungs[number - 1]
        found[ladder.id] = {
            "rung": number, "of": len(ladder.rungs), "roles": list(rung.roles), "quorum": rung.quorum,
            "due": parked.until(ladder.id), "people": people,
        }  # fmt: skip
    return found
