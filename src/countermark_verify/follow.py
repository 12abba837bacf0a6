"""V21: one run of a workflow, each of its records held against what the interpreter says may come."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from countermark_verify import canon
from countermark_verify.definition import AGENT, CALL, EFFECT, PURE, WAIT, code_digest, patience, typed
from countermark_verify.evaluate import alike, short
from countermark_verify.flow import EARLY_US_MAX, FLIGHT, LATE_US_MAX, READY, SECOND, SUCCESS, WAITING, Step
from countermark_verify.interpreter import Machine, computed

_CALL = re.compile(r"(.+):([1-9][0-9]{0,3})", re.ASCII)
UNFIT = "unfit"
_KINDS_OF = {"time": WAIT, "event": WAIT, "call": CALL, "agent": AGENT}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended that another one waits for."""

    status: str | None  # of a workflow
    outputs: Mapping[str, Any] | None  # None: they are sealed
    at: int


class Around(Protocol):
    """What a run may ask of the rest of the log."""

    def opened(self, seq: int, body: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """A decision's arguments that are clear or disclosed, by the names of those wanted; how many are neither."""

    def unfit(self, step: Step) -> bool | None:
        """Whether what a call, agent or wait step asks for cannot begin; None: nothing here says that."""

    def received(
        self, source: str, key: str, after: int, taken: Collection[int]
    ) -> tuple[int, Mapping[str, Any]] | None:
        """The first event of this source and key after a record, that is not among those taken."""

    def ended(self, run: str) -> Ended | None:
        """How another run ended."""

    def superseded(self, run: str) -> bool:
        """Whether a newer run of its group ends it, as far as that can be told here."""

    def abandoned(self, run: str, parent: Mapping[str, Any], at: int) -> bool:
        """Whether the step that called a run does not wait for it any longer, as far as that can be told here."""

    def started(self, seq: int, run: str, parent: str, step: Step, body: Mapping[str, Any]) -> None:
        """A step waits for a run that it started."""

    def left(self, run: str, kind: str) -> None:
        """A step of this kind waits for a run no longer."""

    def denied(self, seq: int, step: Step, tool: str, body: Mapping[str, Any]) -> None:
        """What a step asks for is said to be no action."""

    def computed(self, seq: int, run: str, step: Step, inputs: bytes, body: dict[str, Any]) -> None:
        """A pure step ran on what it was given, in canonical form."""


Say = Callable[[str, str, int, Any, Any], None]


@dataclass
class Follow:
    """`say` takes code, message, seq, expected and actual of what is wrong."""

    run: str
    agent: str
    began: int  # seq of run.started
    machine: Machine
    around: Around
    say: Say
    whole: bool = True
    lost: bool = False  # what the rest of it should be cannot be told any more
    taken: set[int] = field(default_factory=set)
    before: dict[str, frozenset[int]] = field(default_factory=dict)  # place of a wait -> what was taken when it began
    parent: Mapping[str, Any] | None = None  # the run and the place that called this one
    children: set[str] = field(default_factory=set)
    # What it did so far, should it go on by another definition: records as text, which takes a tenth of the room.
    seen: list[tuple[int, str, int, bytes]] = field(default_factory=list)

    def apply(self, seq: int, kind: str, at: int, body: dict[str, Any]) -> None:
        """Judge a record of the run, and fold it."""
        judge = _JUDGES.get(kind)
        if judge is None or self.lost:
            return
        if kind != "run.ended" and body["agent"] != self.agent:
            self._wrong("V21.step", "a record of a run by another agent", seq, self.agent, body["agent"])
        judge(self, seq, at, body)

    def _wrong(self, code: str, message: str, seq: int, expected: Any = None, actual: Any = None) -> None:
        self.say(code, message, seq, expected, actual)

    def _stray(self, seq: int, what: str, actual: Any) -> None:
        """Something that may not come here: after it nothing can be said of the run."""
        self.lost = True
        self.say("V21.step", f"{what} that the workflow does not have here", seq, self._expected(), actual)

    def _expected(self) -> list[str]:
        """What may come, in words: places, and `end`."""
        if self.machine.end is not None:
            return ["end"]
        return sorted(f"{step.place}:{step.attempt}" for step in self.machine.running())

    def _step(self, place: str, kind: str, phase: str, at: int, attempt: int | None = None) -> Step | None:
        """The running step of this place that is at this point."""
        step = self.machine.at_place(place)
        if step is None or step.phase != phase or step.spec["kind"] != kind:
            return None
        timely = attempt is None or (step.attempt == attempt and at >= step.due - EARLY_US_MAX)
        return step if timely else None

    def asks(self, place: str, at: int) -> bool:
        """Whether a run may be started for the step of this place."""
        return self.lost or any(self._step(place, kind, READY, at) is not None for kind in (CALL, AGENT))

    def goes_on(self) -> bool:
        """Whether nothing has told it to begin no more than what is meant for its end."""
        return not self.lost and self.machine.cancelled is None and not self.machine.settled

    def leaves(self, place: str, run: str, at: int) -> bool:
        """Whether the step of this place is about to wait for a run no longer."""
        step = self.machine.at_place(place)
        if self.lost or step is None or step.phase != WAITING or step.waits["for"].get("run") != run:
            return self.lost
        limit = _limit(step)
        return step.cut or (limit is not None and limit - EARLY_US_MAX <= at)

    # Effects.

    def _decided(self, seq: int, at: int, body: dict[str, Any]) -> None:
        if body["escalation"] is None:
            step = self._wanted(at, body)
            if step is None:
                self._stray(seq, "an action", body["call_id"])
                return
            self._in_time(seq, at)
            self._used(seq, step, body)
            self._arguments(seq, step, body)
            step.action = body["id"]
        else:
            step = self._of_action(body["id"])
        if step is not None and body["disposition"] == "deny":
            self.machine.failed(step, at, body["code"])

    def _in_time(self, seq: int, at: int) -> None:
        """Nothing begins long after the time of the run was over."""
        due = self.machine.due
        if due is not None and at > due + LATE_US_MAX and self.goes_on():
            self._wrong("V21.step", "begins though the time of the run is over", seq, due, at)

    def _wanted(self, at: int, body: dict[str, Any]) -> Step | None:
        """The step whose attempt this action is."""
        named = _CALL.fullmatch(body["call_id"])
        return self._step(named[1], EFFECT, READY, at, int(named[2])) if named is not None else None

    def _used(self, seq: int, step: Step, body: dict[str, Any]) -> None:
        if body["tool"] not in ((tool := _tool(step)), ""):
            self._wrong("V21.input", f"another tool than {step.place} uses", seq, tool, body["tool"])
        self.machine.begun(step, seq)

    def _arguments(self, seq: int, step: Step, body: dict[str, Any]) -> None:
        given, closed = self.around.opened(seq, body, step.given)
        expected = {name: value for name, value in step.given.items() if name in given or not closed}
        if not alike(given, expected) or len(given) + closed != len(step.given):
            self._wrong("V21.input", f"other arguments than {step.place} gives", seq, expected, given)
        if body["claimed"]["because"] != step.because:
            message = f"not the effects that the arguments of {step.place} come from"
            self._wrong("V21.input", message, seq, step.because, body["claimed"]["because"])

    def _of_action(self, action: str) -> Step | None:
        return next((step for step in self.machine.running() if step.action == action and step.phase == FLIGHT), None)

    def _refused(self, seq: int, at: int, body: dict[str, Any]) -> None:
        if not body["call_id"]:  # somebody else asked, and got nothing
            return
        step = self._wanted(at, body)
        if step is None:
            self._stray(seq, "a refused attempt", body["call_id"])
            return
        self._used(seq, step, body)
        self.around.denied(seq, step, _tool(step), body)
        self.machine.failed(step, at, body["code"])

    def _answered(self, seq: int, at: int, body: dict[str, Any]) -> None:
        step = self._of_action(body["id"])
        if step is not None and body["state"] == "refused":
            self.machine.failed(step, at, "refused_by_person")

    def _expired(self, seq: int, at: int, body: dict[str, Any]) -> None:
        step, withdrawn = self._of_action(body["id"]), body.get("because") == "cancelled"
        if withdrawn and (step is None or not step.cut):
            self._wrong("V21.step", "a question is withdrawn that people may still answer", seq, None, body["id"])
        if step is not None:
            self.machine.failed(step, at, "cancelled" if withdrawn else "expired")

    def _settled(self, seq: int, at: int, body: dict[str, Any]) -> None:
        step = self._of_action(body["id"])
        if step is None or body["outcome"] == "unknown":
            return
        if body["outcome"] == "failed":
            self.machine.failed(step, at, body["code"])
        else:
            self.machine.succeeded(step, seq, at, {"ref": body["ref"], **body["output"], "id": body["id"]})

    # Pure steps.

    def _computed(self, seq: int, at: int, body: dict[str, Any]) -> None:
        step = self._step(body["place"], PURE, READY, at, body["attempt"])
        if step is None:
            self._stray(seq, "a pure step", f"{body['place']}:{body['attempt']}")
            return
        self._in_time(seq, at)
        inputs = canon.render(step.given)
        given = None if body["input"] is None else canon.digest("value", inputs)  # in a sealed run it is null
        for name, expected in (("code", code_digest(step.spec)), ("input", given)):
            if body[name] != expected:
                self._wrong("V21.input", f"another {name} than {step.place} has", seq, expected, body[name])
        output = body["output"]
        if (output is None) != (body["status"] != "ok") or (body["result"] is None) != (output is None):
            self._wrong("V21.result", f"an output of {step.place} exactly where it is ok", seq, None, output)
        elif output is not None:
            if body["result"] != (expected := canon.digest("value", canon.render(output))):
                self._wrong(
                    "V21.result", f"not the digest of the output of {step.place}", seq, expected, body["result"]
                )
            if not short(output):
                self._wrong("V21.result", f"an output of {step.place} that is too long", seq)
        self.around.computed(seq, self.run, step, inputs, body)
        self.machine.begun(step, seq)
        code = computed(step, body)
        if code:
            self.machine.failed(step, at, code)
        else:
            self.machine.succeeded(step, seq, at, output or {})

    # What waits.

    def _waiting(self, seq: int, at: int, body: dict[str, Any]) -> None:
        said = body["for"]
        step = self._step(body["place"], _KINDS_OF[said["kind"]], READY, at)
        if step is None:
            self._stray(seq, "a wait", body["place"])
            return
        self._in_time(seq, at)
        if said["kind"] in ("call", "agent"):
            self.children.add(said["run"])
            self.around.started(seq, said["run"], self.run, step, body)
        elif not _aims(step, said):
            self._wrong("V21.input", f"{step.place} waits for something else", seq, step.given, said)
        seconds = patience(step.spec)
        until = None if seconds is None else at + seconds * SECOND
        if not about(until, body["until"]):
            self._wrong("V21.input", f"{step.place} waits until another time", seq, until, body["until"])
        if said["kind"] == "event":
            self.before[step.place] = frozenset(self.taken)
        self.machine.waiting(step, seq, body)

    def _resumed(self, seq: int, at: int, body: dict[str, Any]) -> None:
        if body["code"] == UNFIT:
            self._unfit(seq, at, body)
            return
        step = self.machine.at_place(body["place"])
        if step is None or step.phase != WAITING:
            self._stray(seq, "the end of a wait", body["place"])
            return
        if reason := self._unready(step, at, body):
            self._wrong("V21.step", f"{step.place} goes on, and {reason}", seq, dict(step.waits["for"]), body["code"])
        if "run" in step.waits["for"] and body["code"] in ("timeout", "cancelled"):
            self.around.left(step.waits["for"]["run"], step.spec["kind"])
        if body["status"] == SUCCESS:
            self.machine.succeeded(step, seq, at, body["outputs"])
        else:
            self.machine.failed(step, at, body["code"], again=False)

    def _unfit(self, seq: int, at: int, body: dict[str, Any]) -> None:
        """A call whose run cannot begin, an agent step for nobody, a wait for a source that is not there."""
        steps = (self._step(body["place"], kind, READY, at) for kind in (CALL, AGENT, WAIT))
        step = next((found for found in steps if found is not None), None)
        if step is None:
            self._stray(seq, "the failure of a step that begins nothing", body["place"])
            return
        if body["status"] == SUCCESS or body["event"] is not None or body["outputs"]:
            self._wrong("V21.step", f"{step.place} begins nothing, and has more than that", seq, UNFIT, body["status"])
        elif self.around.unfit(step) is False:
            self._wrong("V21.step", f"{step.place} begins nothing, though it could", seq, None, UNFIT)
        self.machine.begun(step, seq)
        self.machine.failed(step, at, UNFIT, again=False)

    def _unready(self, step: Step, at: int, body: dict[str, Any]) -> str:
        """Why this wait is not over in this way, or ""."""
        said, code = step.waits["for"], body["code"]
        limit = _limit(step)
        own = said["at"] if said["kind"] == "time" else None
        if (code == "event") != (body["event"] is not None):
            return "an event is named exactly where one ended it"
        if code in ("time", "timeout", "cancelled"):
            if code == "time":
                early = own is None or at < own or (limit is not None and limit < own)
            elif code == "timeout":
                early = limit is None or at < limit - EARLY_US_MAX or (own is not None and own <= limit)
            else:
                early = not step.cut
            if body["outputs"] or (body["status"] == SUCCESS) != (code == "time"):
                return "its status or outputs are not those of that"
            if code == "timeout" and limit is not None and self._came(step, said, limit - EARLY_US_MAX):
                return "what it waits for had come in time"
            return f"it is not over by {code}" if early else ""
        if code == "event":
            return self._by_event(step, said, body)
        return self._by_run(step, said, body)

    def _came(self, step: Step, said: Mapping[str, Any], until: int) -> bool:
        """Whether what a step waits for had come before this time."""
        if said["kind"] == "event":
            found = self.around.received(said["source"], said["key"], self.began, self.before[step.place])
            return found is not None and found[1]["at"] < until
        ended = self.around.ended(said["run"]) if said["kind"] in ("call", "agent") else None
        return ended is not None and ended.at < until

    def _too_late(self, step: Step, at: int) -> bool:
        limit = _limit(step)
        return limit is not None and at > limit + EARLY_US_MAX

    def _by_event(self, step: Step, said: Mapping[str, Any], body: dict[str, Any]) -> str:
        if said["kind"] != "event" or body["status"] != SUCCESS:
            return "it does not wait for an event"
        found = self.around.received(said["source"], said["key"], self.began, self.before[step.place])
        if found is None or found[0] != body["event"]:
            return "this is not the first event that it may take"
        self.taken.add(found[0])
        if self._too_late(step, found[1]["at"]):
            return "the event came when it had waited too long"
        outputs = {"payload": found[1]["payload"], "event": found[1]["event"]}
        return "" if alike(outputs, body["outputs"]) else "its outputs are not the event"

    def _by_run(self, step: Step, said: Mapping[str, Any], body: dict[str, Any]) -> str:
        if said["kind"] not in ("call", "agent"):
            return "it does not wait for a run"
        ended = self.around.ended(said["run"])
        if ended is None:
            return "" if not self.whole else "the run it waits for has not ended"
        if self._too_late(step, ended.at):
            return "that run ended when it had waited too long"
        success = ended.status == SUCCESS if said["kind"] == CALL else typed(step.spec["outputs"], ended.outputs)
        if (body["status"] == SUCCESS) != success:
            return "the run it waited for ended otherwise"
        same = ended.outputs is None or alike(body["outputs"], ended.outputs)
        return "" if same or (not success and not body["outputs"]) else "its outputs are not those of that run"

    # The run as a whole.

    def _cancelled(self, seq: int, at: int, body: dict[str, Any]) -> None:
        due, reason = self.machine.due, body["reason"]
        if body["person"] == "":
            timely = reason == "timeout" and due is not None and at >= due - EARLY_US_MAX
            newer = reason == "superseded" and self.around.superseded(self.run)
            below = reason == "parent" and self.parent is not None
            if not (timely or newer or (below and self.around.abandoned(self.run, self.parent or {}, at))):
                message = "cancelled by nobody, and not by time, a newer run or the one that called it"
                self._wrong("V21.step", message, seq, due, reason)
        if self.machine.cancelled is None:
            self.machine.cancel(seq, at)

    def _ended(self, seq: int, at: int, body: dict[str, Any]) -> None:
        said = body.get("workflow")
        end, self.lost = self.machine.end, True
        if said is None or end is None:
            message = "the run is not over" if end is None else "the run of a workflow ends without its result"
            self._wrong("V21.end", message, seq, self._expected(), None if said is None else said["status"])
            return
        expected = {
            "name": self.machine.definition.name,
            "status": end.status,
            "outputs": end.outputs,
            "undone": end.undone,
            "left": end.left,
        }
        for name, value in expected.items():
            if not alike(value, said[name]):
                self._wrong("V21.end", f"the run ends with another {name}", seq, value, said[name])
        if body["reason"] != "" or "outputs" in body:
            self._wrong("V21.end", "the run of a workflow ends with members of another", seq)


def about(expected: int | None, actual: int | None) -> bool:
    """Whether a time is the one expected, or as little earlier as it may be."""
    if expected is None or actual is None:
        return expected is actual
    return expected - EARLY_US_MAX <= actual <= expected


def _tool(step: Step) -> str:
    return str((step.spec if step.undo_of is None else step.spec["undo"])["tool"])


def _limit(step: Step) -> int | None:
    """When a step that waits is over by its own timeout, or its job's."""
    return min((end for end in (step.waits["until"], step.combo.ends) if end is not None), default=None)


def _aims(step: Step, said: Mapping[str, Any]) -> bool:
    """Whether a wait is for what its step says."""
    counted = step.spec["kind"] == WAIT and step.spec["for"]["kind"] == "time"
    if counted and said["kind"] == "time":
        # After a timeout of its job no record says when the turn of the step came.
        return step.combo.timed_out or about(step.given["at"], said["at"])
    return bool(said == step.given)


_JUDGES: Mapping[str, Callable[[Follow, int, int, dict[str, Any]], None]] = {
    "action.decided": Follow._decided,
    "action.refused": Follow._refused,
    "action.settled": Follow._settled,
    "escalation.answered": Follow._answered,
    "escalation.expired": Follow._expired,
    "compute.executed": Follow._computed,
    "step.waiting": Follow._waiting,
    "step.resumed": Follow._resumed,
    "run.cancelled": Follow._cancelled,
    "run.ended": Follow._ended,
}
