"""The operations ``workflow.*``: what an operator, a host or a trigger may ask of the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from countermark.model.canon import check
from countermark.model.errors import ArgumentError, ConfigError, no_member
from countermark.workflow.commands import UNFIT
from countermark.workflow.definition import Definition, read_definition
from countermark.workflow.definition_check import Known
from countermark.workflow.engine import Engine
from countermark.workflow.graph import svg
from countermark.workflow.live import Live
from countermark.workflow.plan import UNDO, misfit, plan_of
from countermark.workflow.progress import Row
from countermark.workflow.projection import PAGE_MAX

TEXT_CHARS_MAX = 500
NOT_SENT = "not_sent"  # of an outcome whose ``request_id`` says what was missing
MEMBER_CHARS_MAX = 8_000  # a key or a signature may be a passkey's
MANUAL: Mapping[str, Any] = {"kind": "manual", "event": "", "record": None}

_ORDER = ("from", "reason", "person", "key", "sig")
_MEMBERS: Mapping[str, frozenset[str]] = {
    "workflow.start": frozenset(("definition", "document", "inputs", "trigger", "agent", "mandate", "wait")),
    "workflow.drive": frozenset(("run",)),
    "workflow.show": frozenset(("run", "graph")),
    "workflow.cancel": frozenset(("run", "reason", "person")),
    "workflow.define": frozenset(("document",)),
    "workflow.migrate": frozenset(("run", *_ORDER, "to")),
    "workflow.list": frozenset(("name", "limit", "after")),
}


class Service:
    """``call`` is the one entrance; what it answers is JSON."""

    def __init__(self, engine: Engine, known: Callable[[], Awaitable[Known]]) -> None:
        self._engine = engine
        self._known = known
        self._ops: Mapping[str, Callable[[Mapping[str, Any], str], Awaitable[Any]]] = {
            "workflow.start": self._start, "workflow.drive": self._drive, "workflow.show": self._show,
            "workflow.cancel": self._cancel, "workflow.define": self._define, "workflow.list": self._list,
            "workflow.migrate": self._migrate,
        }  # fmt: skip

    async def call(self, op: str, body: Mapping[str, Any], agent: str) -> Any:
        """One operation. Raises ``CountermarkError`` for a body that is not its own, and whatever refuses it."""
        members = _MEMBERS.get(op)
        if members is None:
            raise ConfigError(f"unknown operation {op[:40]!r}")
        if not body.keys() <= members:
            raise no_member(op, body, members)
        check({name: value for name, value in body.items() if name != "document"})
        return await self._ops[op](body, agent)

    async def _start(self, body: Mapping[str, Any], agent: str) -> Any:
        """``definition`` (digest) or ``document``, ``inputs``, ``trigger`` -> the run and whether it is new.

        With ``wait`` the answer comes when the run waits or is over, and says which.
        """
        definition = await self._definition(body)
        trigger = body.get("trigger", MANUAL)
        if type(trigger) is not dict or trigger.keys() != MANUAL.keys():
            raise ArgumentError("trigger must have kind, event and record", field="trigger")
        if trigger["kind"] != MANUAL["kind"] or trigger["record"] is not None:
            raise ArgumentError(
                "whoever starts a run starts it by hand", field="trigger",
                hint="kind is manual, record null: what times and events start, the gate starts itself.",
            )  # fmt: skip
        if type(trigger["event"]) is not str or len(trigger["event"]) > TEXT_CHARS_MAX:
            raise ArgumentError("an event is a short text", field="trigger")
        inputs = body.get("inputs", {})
        if type(inputs) is not dict:
            raise ArgumentError("inputs must be an object", field="inputs")
        who, mandate = body.get("agent", agent), body.get("mandate")
        if type(who) is not str or not (mandate is None or type(mandate) is str):
            raise ArgumentError("agent and mandate must be strings", field="agent")
        run, fresh = await self._engine.begin(definition, who, inputs, trigger, mandate)
        if not body.get("wait"):
            return {"run": run, "fresh": fresh}
        return {**await self._engine.settled(run), "fresh": fresh}

    async def _definition(self, body: Mapping[str, Any]) -> Definition:
        """A definition that was recorded, or one that may be: by the policy in force it names nothing that is not."""
        document, digest = body.get("document"), body.get("definition")
        if type(document) is dict:
            registry = self._engine.roster.registry
            found = registry.known(document) or read_definition(document)
            return found if registry.recorded(found.digest) else read_definition(document, known=await self._known())
        if type(digest) is not str:
            raise ArgumentError("name a definition by its digest, or give its document", field="definition")
        return self._engine.roster.registry.definition(digest)

    async def _drive(self, body: Mapping[str, Any], _: str) -> Any:
        return await self._engine.settled(_run(body))

    async def _show(self, body: Mapping[str, Any], _: str) -> Any:
        """How a run is, and each of its steps: a ``progress.Row``, and in ``message`` why it failed.

        ``behind`` is the run that one of a concurrency group waits for before it may begin, or "". ``fault`` is why it
        cannot go on now. ``stand`` are the payments that were made and not undone, and of a run that is over ``undone``
        and ``left`` the places of what was undone, and of what should have been. ``cancelled`` says by whom, why and
        when, or is None. With ``graph`` the run is also drawn, for a page of ours. Of one whose values were erased
        there are no steps.
        """
        run = _run(body)
        shown = {**self._engine.roster.shown(run), "behind": self._engine.roster.behind(run),
                 "cancelled": self._cancelled_of(run)}  # fmt: skip
        if shown.get("erased"):
            return {"graph": "", **shown, **self._known_of(run), "steps": []}
        live = self._engine.roster.looked_at(run)
        progress = live.machine.progress()
        steps = [{**asdict(row), "message": self._message(row, live)} for row in progress]
        drawn = {"graph": svg(live.definition, progress, style=False)} if body.get("graph") is True else {}
        stand = [found for row in progress if row.kind == "effect" and row.place not in shown.get("undone", ())
                 and (found := self._payment(row)) is not None]  # fmt: skip
        return {**drawn, **shown, "stand": stand, "fault": self._engine.roster.fault(run),
                "name": live.name, "definition": live.definition.digest,
                "agent": live.agent, "steps": steps}  # fmt: skip

    def _cancelled_of(self, run: str) -> dict[str, Any] | None:
        """Who cancelled a run, why and when; ``person`` is "" where the gate did, for the ``reason`` that it gives."""
        for one in self._engine.roster.records_of(run):
            if one.kind == "run.cancelled" and one.body["run"] == run:
                return {"person": one.body["person"], "reason": one.body["reason"], "at": one.at, "seq": one.seq}
        return None

    def _known_of(self, run: str) -> dict[str, Any]:
        """``name``, ``definition`` and ``agent`` of a run, which stand in clear. Raises ``ArgumentError``."""
        records = self._engine.roster.records_of(run)
        started = next(one.body for one in records if one.kind == "run.started" and one.body["run"] == run)
        moved = [one.body["to"] for one in records if one.kind == "run.migrated" and one.body["run"] == run]
        workflow = started["workflow"]
        definition = moved[-1] if moved else workflow["definition"]
        return {"name": workflow["name"], "definition": definition, "agent": started["agent"]}

    def _message(self, row: Row, live: Live) -> str:
        if row.code == UNFIT:
            spec = plan_of(live.definition).step(row.place).spec
            return {
                "call": "the inputs do not fit what it calls, or its group cannot be told",
                "agent": f"the policy has no agent {spec.get('agent')}",
                "wait": f"there is no source of events {spec.get('for', {}).get('source')}",
            }[row.kind]
        record = self._engine.roster.store.record(row.seqs[-1]) if row.seqs else None
        if record is not None and record.kind == "compute.executed" and row.outcome == "failure":
            (plain,) = self._engine.roster.seals.opened([record])
            if (
                plain.body["status"] == "ok"
            ):  # the record holds what it returned, and the definition what it should have
                outputs = plan_of(live.definition).step(row.place).outputs
                return f"the outputs are not the declared ones: {misfit(plain.body['output'], outputs)}"
            without = ", ".join(f"`{name}`" for name in live.machine.not_given)
            return str(plain.body["message"]) + (f"; inputs that were not given: {without}" if without else "")
        if record is not None and record.kind == "action.settled" and record.body["code"] == NOT_SENT:
            return str(record.body["request_id"])
        return ""

    def _payment(self, row: Row) -> dict[str, Any] | None:
        """What an effect moved."""
        record = self._engine.roster.store.record(row.seqs[-1]) if row.seqs and row.outcome == "success" else None
        if record is None or record.kind != "action.settled" or row.place.endswith(UNDO):
            return None
        moved = record.body["settled"] or record.body["terms"]
        if not moved or "amount" not in moved:
            return None
        return {"place": row.place, "ref": record.body["ref"], "amount": moved["amount"], "currency": moved["currency"]}

    async def _define(self, body: Mapping[str, Any], _: str) -> Any:
        definition = await self._definition(body)
        return {"definition": definition.digest, "fresh": await self._engine.define(definition)}

    async def _list(self, body: Mapping[str, Any], _: str) -> Any:
        """Open runs by ID, a page after ``after``, and the runs that ended last."""
        name, limit, after = body.get("name", ""), body.get("limit", PAGE_MAX), body.get("after", "")
        if type(name) is not str or type(after) is not str or type(limit) is not int or not 1 <= limit <= PAGE_MAX:
            raise ArgumentError(f"name and after are texts, limit is 1 to {PAGE_MAX}", field="limit")
        rows = self._engine.roster.rows
        live = [self._engine.roster.row_of(one, None, "running") for one in self._engine.roster.live.values()]
        found = [*live, *(row for row in rows.open_runs(after, limit) if row.run not in self._engine.roster.live)]
        return {"open": [asdict(row) for row in found if name in ("", row.name)], "ended": rows.ended(name, limit)}

    async def _cancel(self, body: Mapping[str, Any], _: str) -> Any:
        reason, person = body.get("reason", ""), body.get("person", "")
        if type(reason) is not str or type(person) is not str or max(len(reason), len(person)) > TEXT_CHARS_MAX:
            raise ArgumentError("reason and person are short texts", field="reason")
        if not person:
            raise ArgumentError("a cancellation names the person whose it is", field="person")
        await self._engine.cancel(_run(body), reason, person)
        return {"run": body["run"]}

    async def _migrate(self, body: Mapping[str, Any], _: str) -> Any:
        """A person's signed order (``authority.sign_migration``) that a run goes on by a recorded definition."""
        for name in (*_ORDER, "to"):
            if type(body.get(name)) is not str or len(body[name]) > MEMBER_CHARS_MAX:
                raise ArgumentError(f"a migration has {name}, a text", field=name)
        order = {name: body[name] for name in _ORDER}
        await self._engine.migrate(_run(body), body["to"], order)
        return {"run": body["run"], "definition": body["to"]}


def _run(body: Mapping[str, Any]) -> str:
    run = body.get("run")
    if type(run) is not str:
        raise ArgumentError("run must be the ID of a run", field="run")
    return run
