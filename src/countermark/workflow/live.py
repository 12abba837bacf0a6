"""A run that is being driven now: its machine, and what it asked for that no record has answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from countermark.model.clock import US
from countermark.model.driving import Note, Part
from countermark.model.records import Record
from countermark.model.sealing import is_sealed
from countermark.workflow.commands import Act, Resume
from countermark.workflow.definition import Definition
from countermark.workflow.machine import Machine
from countermark.workflow.plan import plan_of, typed

FOLDED = frozenset(
    (
        "run.started", "run.cancelled", "run.migrated", "run.ended", "compute.executed", "step.waiting",
        "step.resumed", "action.refused", "action.decided", "action.settled", "escalation.raised",
        "escalation.answered", "escalation.climbed", "escalation.expired",
    )
)  # fmt: skip

Planned = tuple[Any, Part]
RETRY_US, RETRY_US_MAX = 1 * US, 60 * US  # what cannot go on is tried again, less and less often


class Live:
    """One driven run. ``lock`` is held by whoever plans for it until the lane has answered."""

    def __init__(self, run: str, agent: str, definition: Definition, group: str | None) -> None:
        self.run = run
        self.agent = agent
        self.definition = definition
        self.group = group
        self.machine: Machine
        self.seqs: list[int] = []  # of the records that it was folded from
        self.started = -1
        self.issued: set[str] = set()  # call_ids that the lane was asked for
        self.lock = asyncio.Lock()
        self.tasks = 0  # effects under way
        self.waits: dict[str, tuple[str, str]] = {}  # place -> source and key
        self.children: dict[str, str] = {}  # run of a step -> its place
        self.arrived: list[Resume] = []  # waits that something ended
        self.used: set[int] = set()  # events that ended a wait of it
        self.before: dict[str, frozenset[int]] = {}  # place -> those of them that ended one before this one began
        self.waiters: list[asyncio.Future[dict[str, Any]]] = []
        self.broken = False  # what was expected is not what was recorded: fold the records anew
        self.retry_at = 0
        self.due = 0  # when it wants to be looked at, should nothing happen before; 0: never
        self.fault = ""  # why it cannot go on now
        self.patience_us = RETRY_US  # before it is tried again; longer each time that this was of no use
        self.parts: list[Planned] = []
        self.holds: list[Callable[[], None]] = []  # to be called when the plan that cancels other runs is recorded
        self.row = False  # whether a row of it stands in the projection
        self._expected: set[tuple[str, Any, Any]] = set()

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def stuck(self) -> bool:
        """Whether it cannot go on before it is tried again, and nothing of it is under way."""
        return bool(self.retry_at) and self.started >= 0 and not self.tasks and not self.lock.locked()

    def begin(self, definition: Definition, body: Mapping[str, Any], at: int, event: Any) -> None:
        """Forget everything but that the run was started, with the payload of the event that did it."""
        self.definition = definition
        self.machine = Machine(definition, self.run, self.agent, body, at, event=event)
        self.seqs, self.started = [], -1
        self.waits, self.children, self.issued, self.arrived, self.used = {}, {}, set(), [], set()
        self.before = {}
        self._expected, self.broken, self.retry_at = set(), False, 0

    def fold(self, record: Record) -> bool:
        """Take a durable record: of the run, or one that it waits for; whether it says anything new."""
        body, seq = record.body, record.seq
        if seq in self.seqs:
            return False
        self.seqs.append(seq)
        sealed = is_sealed(record)
        if body.get("run") != self.run:
            if sealed and record.kind == "run.ended" and body["run"] in self.children:
                self.broken = True  # its outputs are opened when the records are folded anew
            else:
                self.woken(record)
        elif record.kind == "run.started":
            self.started = seq
            return False
        elif (expected := _identity(record.kind, body)) in self._expected:
            self._expected.discard(expected)
            return False
        elif sealed:
            self.broken = True
        else:
            self.machine.apply(record.kind, body, record.at, seq)
            self._watch(record.kind, body)
        return True

    def expect(self, kind: str, body: Mapping[str, Any], at: int) -> None:
        """Take what is about to be recorded."""
        self._expected.add(_identity(kind, body))
        self.machine.apply(kind, body, at, None)
        self._watch(kind, body)

    def _watch(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "step.waiting":
            what = body["for"]
            if what["kind"] == "event":
                self.waits[body["place"]] = (what["source"], what["key"])
                self.before[body["place"]] = frozenset(self.used)
            elif what["kind"] in ("call", "agent"):
                self.children[what["run"]] = body["place"]
        elif kind == "step.resumed":
            place = body["place"]
            self.waits.pop(place, None)
            if body["event"] is not None:
                self.used.add(body["event"])
            self.arrived = [one for one in self.arrived if one.place != place]
            for child in [run for run, at in self.children.items() if at == place]:
                del self.children[child]

    def woken(self, record: Record, only: str = "") -> None:
        """Something that the run, or what waits at this place ``only``, waits for happened after the run began."""
        body = record.body
        if not 0 <= self.started < record.seq:
            return
        if record.kind == "event.received":
            what = (body["source"], body["key"])
            ended = {one.place for one in self.arrived}
            places = [
                place for place, waits in self.waits.items()
                if waits == what and place not in ended and only in ("", place)
                and record.seq not in self.before[place] and self._in_time(place, record)
            ]  # fmt: skip
            outputs = {"payload": body["payload"], "event": body["event"]}
            self.arrived += [Resume(place, "success", "event", record.seq, outputs) for place in places]
        elif record.kind == "run.ended" and body["run"] in self.children:
            place = self.children[body["run"]]
            if not self._in_time(place, record):
                del self.children[body["run"]]  # it is over, and need not be ended
                return
            good, outputs = self._child(place, body)
            self.arrived.append(Resume(place, "success" if good else "failure", "ended", None, outputs))

    def _in_time(self, place: str, record: Record) -> bool:
        """Whether what waits had not waited too long by then, whenever that is noticed."""
        until = self.machine.until(place)
        return until is None or record.at <= until

    def _child(self, place: str, body: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Whether a run that was waited for ended well, and its outputs."""
        if "workflow" in body:
            return body["workflow"]["status"] == "success", dict(body["workflow"]["outputs"])
        outputs = dict(body.get("outputs", {}))
        good = typed(outputs, plan_of(self.definition).step(place).outputs)
        return good, outputs if good else {}

    def resumed(self, resume: Resume) -> dict[str, Any]:
        """The record by which a wait is over."""
        return {
            "run": self.run, "agent": self.agent, "place": resume.place, "status": resume.status, "code": resume.code,
            "event": resume.event, "outputs": dict(resume.outputs),
        }  # fmt: skip

    def note(
        self, command: Any, kind: str, body: dict[str, Any], at: int, by: str = "gate", *, optional: bool = False
    ) -> None:  # fmt: skip
        """Plan a record, and go on as if it stood there."""
        self.parts.append((command, Note(kind, body, by, optional)))
        self.expect(kind, body, at)

    def wanted(self) -> list[Any]:
        """What its machine wants now and the lane was not yet asked for; waits that something ended come first."""
        ended = {one.place for one in self.arrived}
        commands = [
            one for one in self.machine.commands()
            if not (isinstance(one, Act) and one.call_id in self.issued)
            and not (isinstance(one, Resume) and one.place in ended)
        ]  # fmt: skip
        return [*self.arrived, *commands] if self.arrived else commands

    def let_go(self) -> bool:
        """Others may plan again for the runs that this one cancels; whether there were any."""
        holds, self.holds = self.holds, []
        for release in holds:
            release()
        return bool(holds)

    def answer(self, answer: dict[str, Any]) -> None:
        """Tell whoever waits for the run how it is."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(answer)
        self.waiters.clear()


def _identity(kind: str, body: Mapping[str, Any]) -> tuple[str, Any, Any]:
    return kind, body.get("place") or body.get("id") or "", body.get("attempt") or body.get("outcome")
