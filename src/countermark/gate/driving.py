"""Runs of definitions: what their driver wants recorded stands in one message of the lane, and so in one commit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from countermark.authority import verify_migration
from countermark.gate.actions import Decided, StaleBundle, decide, refuse, start_run
from countermark.gate.judging import people_of
from countermark.gate.prepare import Prepared
from countermark.gate.writer import Writer
from countermark.model.canon import canon
from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.driving import Asked, Note, Part, Reply, Start
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError
from countermark.model.records import Record
from countermark.model.sealing import SEALED_KINDS, SUBJECT, seal_body
from countermark.policy import event_key, trigger_key

DRIVEN = frozenset(("workflow.define", "workflow.start", "workflow.drive", "workflow.cancel", "workflow.show",
                    "workflow.list", "workflow.migrate", "workflow.faults", "event.received"))  # fmt: skip

EVENT_TEXT_CHARS_MAX = 200
EVENT_BYTES_MAX = 40_000
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

log = logging.getLogger("countermark.driving")


class Driver(Protocol):
    """Drives runs of definitions in the gate's own process."""

    async def call(self, op: str, body: Mapping[str, Any], agent: str) -> Any:
        """One of the operations ``workflow.*``."""
        ...


def advance(writer: Writer, run: str, parts: Sequence[Part], edge: int | None = None) -> list[Reply]:
    """Record parts in order; the first that cannot be recorded ends it, and what stands before it stays.

    An optional one that cannot be recorded is left out alone.

    Whatever fails inside a part before anything of it was added is that part's answer; a failure after that is the
    lane's, which halts. From the time ``edge`` on nothing is recorded: the plan was one for before.
    """
    if edge is not None and writer.at >= edge and parts:
        return [Reply(stale=True)]
    replies: list[Reply] = []
    for part in parts:
        before = len(writer.batch.records)
        try:
            reply = _one(writer, run, part)
        except CountermarkError as error:
            if len(writer.batch.records) != before:
                raise
            reply = Reply(error=error)
        replies.append(reply)
        left_out = reply.error is not None and not (isinstance(part, Note) and part.optional)
        if left_out or reply.stale or not reply.fresh:
            break
    return replies


def _one(writer: Writer, run: str, part: Part) -> Reply:
    if isinstance(part, Start):
        return _start(writer, part)
    if isinstance(part, Note):
        return _note(writer, part)
    return _decide(writer, run, part)


def _start(writer: Writer, part: Start) -> Reply:
    workflow = part.workflow
    if workflow is None:
        boundary = dict(part.boundary or {})
        if not open_run(writer, boundary["parent"]):
            raise over()
        bundle = writer.state.bundle
        if part.nobody is not None and (bundle is None or part.agent not in bundle.compiled.agents):
            return Reply(writer.add(part.nobody.kind, part.nobody.body, by=part.nobody.by), fresh=False)
        start_run(writer, part.agent, part.mandate, part.purpose, run=part.run, more={"boundary": boundary})
        return Reply(writer.batch.records[-1], run=part.run)
    event = workflow["trigger"]
    if event["event"]:
        earlier = writer.state.keys.get(trigger_key(workflow["name"], event["kind"], event["event"]))
        if earlier is not None:
            return Reply(writer.record(earlier), run=writer.record(earlier).body["run"], fresh=False)
    bundle = writer.state.bundle
    member = {**workflow, "bundle": "" if bundle is None else bundle.digest}
    document = part.document
    known = writer.defined(workflow["definition"])
    if not known and (document is None or digest_of(WORKFLOW, document) != workflow["definition"]):
        raise ArgumentError("no such definition was recorded", field="definition", code="unknown_definition")

    more, hidden = _sealed_start(writer, part, {"workflow": member})

    def define() -> None:
        if not known:
            writer.add("workflow.defined", {"digest": workflow["definition"], "document": dict(document or {})})

    start_run(writer, part.agent, part.mandate, part.purpose, run=part.run, more=more, before=define)
    record = writer.batch.records[-1]
    if hidden is not None:
        _keep(writer, record, part.subject, hidden)
    return Reply(record, run=part.run)


def _sealed_start(
    writer: Writer, part: Start, more: dict[str, Any]
) -> tuple[dict[str, Any], list[Any] | None]:  # fmt: skip
    """The members of a run's record, and what they do not show."""
    if not part.subject:
        return more, None
    if SUBJECT.fullmatch(part.subject) is None:
        raise ArgumentError("a sealed run needs a subject that names it", field="sensitive")
    return seal_body(more, part.subject, writer.pseudonym.salt())


def _keep(writer: Writer, record: Record, subject: str, hidden: list[Any]) -> None:
    writer.seal_values(record, subject, canon({"fields": [hidden], "salt": None, "reason": None}))


def _note(writer: Writer, part: Note) -> Reply:
    if part.kind == "event.received":
        key = writer.state.keys.get(event_key(part.body["source"], part.body["event"]))
        if key is not None:
            return Reply(writer.record(key), fresh=False)
    elif part.kind == "workflow.defined":
        key = writer.state.keys.get("wf:" + part.body["digest"])
        if key is not None:
            return Reply(writer.record(key), fresh=False)
    elif part.kind == "run.migrated":
        _check_migration(writer, part)
    elif part.kind == "escalation.expired":
        parked = writer.state.parked.get(part.body["escalation"])
        if parked is None or parked.state != "pending" or part.body["run"] != parked.body["run"]:
            raise AuthorityError("this escalation was answered before", code="approval_closed")
    elif part.kind == "run.cancelled" and part.body["person"] not in ("", *people_of(writer)):
        raise AuthorityError(f"the policy knows no person {part.body['person'][:60]!r}",
                             hint="See `countermark people list`.")  # fmt: skip
    elif not (open_run(writer, part.body["run"]) or _inside(writer, part.body["run"])):
        raise over()
    subject = _subject(writer, part)
    if not subject:
        return Reply(writer.add(part.kind, part.body, by=part.by))
    body, hidden = seal_body(part.body, subject, writer.pseudonym.salt())
    record = writer.add(part.kind, body, by=part.by)
    _keep(writer, record, subject, hidden)
    return Reply(record)


def _subject(writer: Writer, part: Note) -> str:
    """Whose the values of a record are that a sealed run does not show."""
    found = writer.state.runs.get(part.body["run"]) if part.kind in SEALED_KINDS else None
    return "" if found is None else found.subject


def _check_migration(writer: Writer, part: Note) -> None:
    """Only a person lets a run go on by another definition. Raises ``AuthorityError`` or ``SignatureError``."""
    if not open_run(writer, part.body["run"]):
        raise over()
    order = verify_migration(part.body, deployment=writer.state.deployment, people=people_of(writer))
    if writer.state.keys.get("wf:" + order.to) is None:
        raise ArgumentError("no such definition was recorded", field="to", code="unknown_definition")
    if part.by != f"person:{part.body['person']}" or part.body["agent"] != writer.state.runs[order.run].agent:
        raise AuthorityError("the migration names another person or agent", code="bad_migration")


def _decide(writer: Writer, run: str, part: Asked) -> Reply:
    if not open_run(writer, run):
        raise over()
    agent = writer.state.runs[run].agent
    if part.error is not None:
        if writer.state.bundle is None or writer.state.bundle.digest != part.bundle:
            return Reply(stale=True)  # what was no action may be one now
        error = part.error if isinstance(part.error, ArgumentError) else ArgumentError(part.error.message)
        refuse(writer, agent, {"run": run, "call_id": part.call_id, "tool": part.tool}, error, driver=True)
        return Reply(writer.batch.records[-1])
    before = len(writer.batch.records)
    decided = decide(writer, part.prepared)
    if isinstance(decided, StaleBundle):
        return Reply(stale=True)
    if isinstance(decided, ArgumentError):
        return Reply(writer.batch.records[-1] if len(writer.batch.records) > before else None)
    return Reply(decided.settled or decided.record, intent=_to_perform(decided, part.prepared))


def _to_perform(decided: Decided, prepared: Prepared) -> tuple[Decided, Prepared] | None:
    return (decided, prepared) if decided.intent is not None else None


def open_run(writer: Writer, run: str) -> bool:
    """Whether this run of a definition is open."""
    found = writer.state.runs.get(run)
    return found is not None and bool(found.definition)


def _inside(writer: Writer, run: str) -> bool:
    """Whether this is an open run of an agent, for a step of an open run of a definition."""
    found = writer.state.runs.get(run)
    return found is not None and found.boundary is not None and open_run(writer, found.boundary.rule["parent"])


def over() -> AuthorityError:
    """The answer to a driver that has not heard of the end yet."""
    return AuthorityError("the run is over", code="run_over")


def receive(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record that something happened outside; once for each source and event.

    Raises:
        ArgumentError: no such document; or the same event came before with other bytes.
    """
    _check_event(body)
    earlier = writer.state.keys.get(event_key(body["source"], body["event"]))
    if earlier is not None:
        if writer.record(earlier).body["digest"] != body["digest"]:
            raise ArgumentError(
                "this event came before, and was another one", field="event", code="identity_conflict"
            )  # fmt: skip
        return {"record": earlier, "fresh": False}
    return {"record": writer.add("event.received", dict(body)).seq, "fresh": True}


def _check_event(body: Mapping[str, Any]) -> None:
    if body.keys() != _EVENT:
        raise ArgumentError("not an event", field="event")
    for name in ("source", "event", "key", "scheme"):
        if type(body[name]) is not str or len(body[name]) > EVENT_TEXT_CHARS_MAX or not body[name].isprintable():
            raise ArgumentError(f"{name} is no short printable text", field=name)
    if not body["source"] or not body["event"] or DIGEST.fullmatch(str(body["digest"])) is None:
        raise ArgumentError("an event has a source, an ID and a digest", field="event")
    if len(canon([body["payload"], body["evidence"]])) > EVENT_BYTES_MAX:
        raise ArgumentError(f"payload and evidence take more than {EVENT_BYTES_MAX} bytes", field="payload")


_EVENT = frozenset(("source", "event", "key", "payload", "digest", "scheme", "evidence"))
