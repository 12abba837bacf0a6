"""Lane messages about actions: start a run, decide, settle. Each is a plan (may refuse) and then an apply (cannot)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from countermark.authority import Behalf
from countermark.gate import callers
from countermark.gate.dispatch import Intent
from countermark.gate.prepare import Prepared, action_digest, named_of, seal_args
from countermark.gate.writer import Writer
from countermark.model.canon import canon
from countermark.model.clock import US
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError
from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import CALL_ID, EXECUTING, Outcome
from countermark.model.words import quoted
from countermark.policy import Escalation, Judgement, decided_body, first_dues, judge

RUNS_OPEN_MAX = 10_000  # of one agent
PARKED_MAX = 1_000  # of one agent
PROVIDER_ID_CHARS_MAX = 500
OUTPUT_BYTES_MAX = 32_000  # a longer output is not recorded, so no policy can read it
POLICY = "policy"  # why a question was withdrawn: another policy came into force
EVIDENCE_BYTES_MAX = 24_000  # a longer proof is not recorded: the outcome is then what the gate observed
PARKED_BYTES_MAX = 56_000  # of a decision that waits: after the answers it is recorded once more, with a little more


class Decided(NamedTuple):
    """The lane's answer to an action: its deciding record, the escalation raised, or what was recorded before.

    ``void``: its question was withdrawn because another policy came into force.
    """

    record: Record
    settled: Record | None = None
    fresh: bool = True
    escalation: str | None = None
    parked: bool = False
    size: int = 0
    void: bool = False

    @property
    def intent(self) -> Intent | None:
        """The intent to execute, when this decision allowed one just now."""
        if not self.fresh or self.record.body["disposition"] not in EXECUTING:
            return None
        return Intent(self.record)


@dataclass(frozen=True, slots=True)
class StaleBundle:
    """The policy, or a payee, changed between preparing and deciding: prepare again."""

    bundle: str


def start_run(
    writer: Writer, agent: str, mandate: str | None, purpose: str, behalf: Behalf | None = None, *, run: str = "",
    more: Mapping[str, Any] | None = None, before: Callable[[], None] = lambda: None,
) -> str:  # fmt: skip
    """Mint a run for ``agent`` under ``mandate`` (default: the agent's only mandate in force, for ``behalf``).

    A driver gives the run's name itself, ``more`` members of its record, and what it wants recorded just ``before``.

    Raises:
        AuthorityError: no such agent, no mandate or several, or as many open runs as one agent may have.
    """
    state = writer.state
    bundle = state.bundle
    if bundle is None or agent not in bundle.compiled.agents:
        raise callers.no_agent(agent)
    fitting = [
        digest
        for digest, doc in state.mandates.items()
        if doc["agent"] == agent and (mandate is None or mandate == digest) and _in_force(writer, digest)
        and callers.acts_for(state, digest, behalf)
    ]  # fmt: skip
    if not fitting:
        raise AuthorityError("the agent has no mandate in force", code="mandate_missing",
                             hint="A principal grants one: `countermark mandate grant`.")  # fmt: skip
    if len(fitting) > 1:
        raise AuthorityError("the agent has several mandates", code="mandate_ambiguous",
                             hint="Name one: `--mandate DIGEST`, or `mandate` when a run is started.")  # fmt: skip
    more = more or {}
    if "workflow" not in more and state.runs.of_agent.get(agent, 0) >= RUNS_OPEN_MAX:
        raise AuthorityError(
            f"the agent has {RUNS_OPEN_MAX} open runs", code="too_many_runs", hint="End those that are over."
        )
    run = run or "run_" + secrets.token_hex(16)
    before()
    body = {"run": run, "agent": agent, "mandate": fitting[0], "purpose": purpose, **more}
    writer.add("run.started", body, by=f"agent:{agent}")
    return run


def _in_force(writer: Writer, mandate: str) -> bool:
    state = writer.state
    return all(
        m in state.mandates
        and m not in state.revoked
        and state.mandates[m]["not_before"] <= writer.at < state.mandates[m]["not_after"]
        for m in state.chain(mandate)
    )


def end_run(writer: Writer, agent: str, run: str, reason: str, outputs: Mapping[str, Any] | None = None) -> None:
    """Close a run: nothing more is decided in it. ``outputs`` are for a run that was opened for an agent's step.

    Raises:
        ArgumentError: no open run of the agent's, or one that a definition drives; outputs that nobody waits for.
    """
    found = writer.state.runs.get(run)
    if found is None or found.agent != agent or found.definition:
        raise ArgumentError(f"there is no open run {quoted(run)} of this agent", field="run", code="unknown_run")
    more: dict[str, Any] = {}
    if found.boundary is not None:
        more = {"outputs": dict(outputs or {})}
        if len(canon(more)) > OUTPUT_BYTES_MAX // 2:
            raise ArgumentError("the outputs are too large", field="outputs")
    elif outputs:
        raise ArgumentError("no open run of an agent's step: nobody waits for outputs", field="run", code="unknown_run")
    writer.add("run.ended", {"run": run, "agent": agent, "reason": reason, **more}, by=f"agent:{agent}")


def refuse(writer: Writer, agent: str, names: Mapping[str, str], error: ArgumentError, *, driver: bool = False) -> None:
    """Record a request that was no valid action of a known agent: who, what name, which field; never its values.

    In a run that a definition drives, only what its ``driver`` asks for has a call_id: it is an attempt of a step.
    """
    bundle = writer.state.bundle
    run = names["run"] if names["run"] in writer.state.runs and writer.state.runs[names["run"]].agent == agent else ""
    own = driver or not run or not writer.state.runs[run].definition
    call_id = names["call_id"] if own and CALL_ID.fullmatch(names["call_id"]) is not None else ""
    tool = names["tool"] if bundle is not None and names["tool"] in bundle.compiled.tools else ""
    field = "" if error.code == "unknown_argument" else error.field  # its name is the caller's, and may be a value
    writer.add(
        "action.refused",
        {"agent": agent, "run": run, "call_id": call_id, "tool": tool, "code": error.code, "field": field},
        by=f"agent:{agent}",
    )  # fmt: skip


def decide(writer: Writer, prepared: Prepared) -> Decided | StaleBundle | ArgumentError:
    """Identity, then the judgement, then its records."""
    ask, state = prepared.ask, writer.state
    if state.keys.get("id:" + ask.id) is not None:
        earlier = state.newest(ask.id)
        return _again(writer, prepared, writer.record(earlier or 0))
    run = state.runs.get(ask.run)
    if run is None or run.agent != ask.agent:
        error = ArgumentError(
            f"there is no open run {quoted(ask.run)} of this agent", field="run", code="unknown_run", hint="Start one."
        )
        refuse(writer, ask.agent, {"run": ask.run, "call_id": ask.call_id, "tool": ask.tool.name}, error)
        return error
    if run.definition and not _drives(prepared):
        error = ArgumentError("a definition drives this run", field="run", code="driven_run")
        refuse(writer, ask.agent, {"run": ask.run, "call_id": ask.call_id, "tool": ask.tool.name}, error)
        return error
    if (wrong := callers.wrong(writer, prepared, run.mandate)) is not None:
        names = {"run": ask.run, "call_id": ask.call_id, "tool": ask.tool.name}
        refuse(writer, ask.agent, names, wrong, driver=_drives(prepared))
        return wrong
    if state.bundle is None or state.bundle.digest != ask.bundle or state.register.known.version != prepared.known:
        return StaleBundle("" if state.bundle is None else state.bundle.digest)
    if state.mandates[run.mandate]["named"]:
        ask = ask._replace(named=named_of(prepared.plain, writer.pseudonym))
    at = writer.at
    judgement, outlived = judge(state, ask, at), None
    if judgement.code == "already_waiting":
        outlived = _outlived(writer, _asked_by(writer, ask.obligation))
        if outlived is not None:
            judgement = judge(state, ask, at, withdrawn=outlived)
    body = decided_body(
        ask, judgement, bundle=ask.bundle, not_after=at + ask.tool.dispatch_within_s * US, escalation=None, lifted=[]
    )
    dues = None
    if judgement.disposition == "escalate":
        _check_room(writer, body, outlived)
        compiled = state.bundle.compiled
        dues = first_dues(compiled.ladders, judgement.ladders or {}, at, compiled.zone)
    if outlived is not None:
        _withdraw(writer, outlived)
    callers.keep(writer, prepared)
    record = writer.add("action.decided", body, by=f"agent:{ask.agent}")
    if prepared.sealed is not None:
        writer.seal_values(record, prepared.subject, prepared.sealed)
    raised = None if dues is None else raise_escalation(writer, record, judgement, *dues)
    return Decided(record, escalation=raised, parked=raised is not None, size=state.size)


def _check_room(writer: Writer, body: Mapping[str, Any], outlived: Escalation | None) -> None:
    """Refuse to park an action, before anything is recorded: too many wait, or no later record of it might fit.

    ``outlived`` waits no more by then.
    """
    waiting = writer.state.parked.of_agent(body["agent"])
    if outlived is not None and outlived.agent == body["agent"]:
        waiting -= 1
    if waiting >= PARKED_MAX:
        raise AuthorityError(
            f"{waiting} actions of this agent wait for people; nothing was recorded", code="too_many_waiting",
            hint="Ask again with the same run and call_id when some were answered.", retryable=True,
        )  # fmt: skip
    if len(canon(body)) + len(canon(body["reasons"])) > PARKED_BYTES_MAX:
        raise ArgumentError("the action is too large to be put to people", field="args")


def raise_escalation(
    writer: Writer, record: Record, judgement: Judgement, due: Mapping[str, int], not_after: int
) -> str:
    """Park an action until people answer; nothing is held meanwhile."""
    body = record.body
    ladders = {name: list(ids) for name, ids in (judgement.ladders or {}).items()}
    escalation = "esc_" + record.digest[7:39]
    writer.add(
        "escalation.raised",
        {
            "escalation": escalation, "id": body["id"], "agent": body["agent"], "run": body["run"],
            "decided": record.seq, "decided_digest": record.digest, "ladders": ladders, "action": body["action"],
            "request": body["request"], "terms": body["terms"], "bundle": body["bundle"],
            "mandate": body["mandates"][0], "due": dict(due), "not_after": not_after,
            **({"reference": body["reference"]} if body.get("reference") is not None else {}),
        },
    )  # fmt: skip
    return escalation


def _asked_by(writer: Writer, obligation: str | None) -> str:
    """The escalation that waits for people about an obligation."""
    return str(writer.record(writer.state.waiting[obligation or ""]).body["escalation"])


def _outlived(writer: Writer, escalation: str) -> Escalation | None:
    """The question, if no answer can bring it to a payment any more: another policy than asked it is in force."""
    parked, bundle = writer.state.parked.get(escalation), writer.state.bundle
    if parked is None or parked.state != "pending" or bundle is None or bundle.digest == parked.plan.bundle:
        return None
    return parked


def _withdraw(writer: Writer, outlived: Escalation) -> None:
    body = outlived.body
    shared = {name: body[name] for name in ("escalation", "id", "agent", "run", "terms")}
    writer.add("escalation.expired", {**shared, "because": POLICY})


def _drives(prepared: Prepared) -> bool:
    """Whether the run's own definition asks."""
    return prepared.caller is not None and prepared.caller.driver


def _again(writer: Writer, prepared: Prepared, latest: Record) -> Decided | ArgumentError:
    """The same call again: the recorded answer; a different action under the same call_id: a conflict."""
    first = deciding(writer, latest)
    if _digest_like(writer, prepared, first) != first.body["action"]:
        error = ArgumentError("this call_id was used for a different action", field="call_id", code="identity_conflict")
        ask = prepared.ask
        names = {"run": ask.run, "call_id": ask.call_id, "tool": ask.tool.name}
        refuse(writer, ask.agent, names, error, driver=_drives(prepared))
        return error
    found = recorded(writer, latest)
    outlived = _outlived(writer, found.escalation or "") if found.parked else None
    if outlived is not None:
        _withdraw(writer, outlived)
        return recorded(writer, writer.record(writer.state.newest(first.body["id"]) or 0))
    return found


def recorded(writer: Writer, latest: Record) -> Decided:
    """The present answer of an action, from the newest record about it."""
    first = deciding(writer, latest)
    settled = latest if latest.kind == "action.settled" else None
    escalation = "esc_" + first.digest[7:39] if first.body["disposition"] == "escalate" else first.body["escalation"]
    parked = first.body["disposition"] == "escalate" and escalation in writer.state.parked
    void = latest.body.get("because") == POLICY
    return Decided(first, settled, fresh=False, escalation=escalation, parked=parked, size=writer.state.size, void=void)


def deciding(writer: Writer, latest: Record) -> Record:
    """The newest ``action.decided`` record behind the newest record about an action."""
    if latest.kind == "action.settled":
        return writer.record(latest.body["intent"])
    if latest.kind in ("escalation.answered", "escalation.expired"):
        seq = writer.state.keys.get("es:" + latest.body["escalation"])
        if seq is None:
            raise CountermarkError("an escalation has no raising record", code="store_failed")
        return writer.record(writer.record(seq).body["decided"])
    return latest


def _digest_like(writer: Writer, prepared: Prepared, first: Record) -> str:
    ask = prepared.ask
    salts: dict[str, str] = {}
    if ask.tool.has_sensitive:
        values = writer.unseal(first.seq)
        salts = {row[0]: row[1] for row in values["fields"]} if values is not None else {}
    recorded_form, _, _ = seal_args(ask.tool, prepared.args, lambda alias: salts.get(alias, ""))
    return action_digest(ask.run, ask.call_id, ask.tool.name, recorded_form)


def by_name(tool: ToolSpec, plain: Mapping[str, Value]) -> dict[str, Value]:
    """Arguments by the provider's names, from aliases."""
    return {tool.by_alias[alias].name: value for alias, value in plain.items()}


def _bounded(outcome: Outcome) -> Outcome:
    """An outcome whose record fits, however long the provider's own words are: what happened must be recorded."""
    if max(len(outcome.ref), len(outcome.request_id)) > PROVIDER_ID_CHARS_MAX:
        ref, request_id = outcome.ref[:PROVIDER_ID_CHARS_MAX], outcome.request_id[:PROVIDER_ID_CHARS_MAX]
        outcome = replace(outcome, ref=ref, request_id=request_id)
    if outcome.output and len(canon(dict(outcome.output))) > OUTPUT_BYTES_MAX:
        outcome = replace(outcome, output={})
    if outcome.evidence is not None and len(canon(dict(outcome.evidence))) > EVIDENCE_BYTES_MAX:
        outcome = replace(outcome, evidence=None)
    return outcome


def settled_body(intent: Intent, outcome: Outcome, via: str) -> dict[str, Any]:
    """The body of the ``action.settled`` that records this outcome."""
    body, outcome = intent.body, _bounded(outcome)
    money = None
    if outcome.status == "confirmed" and outcome.amount is not None:
        money = {"amount": outcome.amount, "currency": outcome.currency}
    return {
        "id": body["id"], "agent": body["agent"], "run": body["run"], "tool": body["tool"], "intent": intent.seq,
        "intent_digest": intent.record.digest, "terms": body["terms"], "outcome": outcome.status,
        "code": outcome.code, "ref": outcome.ref, "settled": money, "http_status": outcome.http_status,
        "request_id": outcome.request_id, "response": outcome.response, "attempts": outcome.attempts,
        "output": dict(outcome.output), "via": via, "tier": body["tier"],
        **({} if outcome.reference is None else {"reference": outcome.reference.document()}),
        **({} if outcome.evidence is None else {"evidence": dict(outcome.evidence)}),
    }  # fmt: skip


def settle(writer: Writer, intent: Intent, outcome: Outcome, via: str) -> Decided:
    """Record what happened and settle the hold. A second final outcome for an intent is refused."""
    body = intent.body
    if intent.seq not in writer.state.open:
        latest = writer.state.newest(body["id"])
        return recorded(writer, writer.record(intent.seq if latest is None else latest))
    decided = intent.record
    if outcome.status == "unknown" and writer.state.open[intent.seq].status == "unknown":
        seq = writer.state.newest(body["id"])
        return recorded(writer, writer.record(intent.seq if seq is None else seq))
    record = writer.add("action.settled", settled_body(intent, outcome, via))
    if outcome.code == "booked_differently":
        _stop_tool(writer, body["tool"])
    return Decided(decided, record, fresh=False, size=writer.state.size)


def _stop_tool(writer: Writer, tool: str) -> None:
    """A provider that books something else than was asked is not asked again until people have looked."""
    scope = {"kind": "tool", "value": tool}
    if scope not in writer.state.kills.values():
        kill = "kill_" + secrets.token_hex(8)
        writer.add("kill.set", {"scope": scope, "reason": "booked_differently", "kill": kill})
