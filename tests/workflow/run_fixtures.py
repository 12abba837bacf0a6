"""Small definitions, and a driver in memory that answers a machine's commands with records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from countermark.model.canon import canon
from countermark.model.digest import CODE, VALUE, WORKFLOW, digest, digest_of
from countermark.model.values import action_id
from countermark.workflow.commands import Act, Call, Cancel, Command, Compute, Delegate, End, Resume, Sleep, Wait
from countermark.workflow.machine import Machine

RUN, AGENT = "run_" + "7" * 32, "runner"
US = 1_000_000
START = 1_790_000_000 * US


def var(text: str) -> dict[str, str]:
    """A template of one expression."""
    return {"$": text}


def _pairs(values: dict[str, Any]) -> list[list[Any]]:
    return [[name, values[name]] for name in sorted(values)]


def _step(id_: str, kind: str, given: dict[str, Any], **own: Any) -> dict[str, Any]:
    common = {"name": "", "if": None, "continue_on_error": False, "timeout_s": None, "retry": None}
    return {"id": id_, "kind": kind, **common, **own, **{("if" if k == "if_" else k): v for k, v in given.items()}}


def pure(id_: str, with_: dict[str, Any] | None = None, outputs: dict[str, str] | None = None, **given: Any) -> Any:
    return _step(id_, "pure", given, code=f"# {id_}", outputs=outputs or {}, **{"with": _pairs(with_ or {})})


def effect(
    id_: str, with_: dict[str, Any] | None = None, *, tool: str = "noop.do", undo: Any = None, **given: Any
) -> Any:
    back = None if undo is None else {"tool": undo[0], "with": _pairs(undo[1])}
    return _step(id_, "effect", given, tool=tool, undo=back, **{"with": _pairs(with_ or {})})


def pause(id_: str, for_: dict[str, Any], **given: Any) -> Any:
    return _step(id_, "wait", given, **{"for": for_})


def call(id_: str, with_: dict[str, Any] | None = None, **given: Any) -> Any:
    return _step(id_, "call", given, workflow="sha256:" + "c" * 64, **{"with": _pairs(with_ or {})})


def agent(id_: str, outputs: dict[str, str] | None = None, **given: Any) -> Any:
    own = {
        "agent": "chaser", "goal": "chase", "tools": ["noop.do"], "calls": 3, "budget": [["EUR", 500]], "sees": [],
        "where": [["noop.do", "payee", [var("inputs.text")]]], "outputs": outputs or {}, "timeout_s": 600,
    }  # fmt: skip
    return _step(id_, "agent", {**own, **given})


def job(
    id_: str, *steps: Any, needs: tuple[str, ...] = (), matrix: dict[str, list[Any]] | None = None, **given: Any
) -> Any:
    found = {
        "id": id_, "needs": sorted(needs), "if": given.pop("if_", None),
        "matrix": None if matrix is None else _pairs(matrix), "fail_fast": True, "parallel": 1,
        "continue_on_error": False, "timeout_s": None, "outputs": _pairs(given.pop("outputs", {})),
        "steps": list(steps),
    }  # fmt: skip
    return {**found, **given}


INPUTS = {
    "amount": {"type": "int", "required": True, "default": None, "choices": []},
    "text": {"type": "string", "required": False, "default": None, "choices": []},
}


@dataclass(frozen=True)
class Defined:
    """A definition as the interpreter sees one."""

    document: Any
    digest: str


def define(*jobs: Any, outputs: dict[str, Any] | None = None, timeout_s: int | None = None) -> Defined:
    document = {
        "v": 1, "name": "sample", "triggers": [], "inputs": INPUTS, "outputs": _pairs(outputs or {}),
        "concurrency": None, "timeout_s": timeout_s, "jobs": list(jobs),
    }  # fmt: skip
    return Defined(document, digest(WORKFLOW, canon(document)))


def started(definition: Defined, inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of ``run.started``."""
    return {
        "run": RUN, "agent": AGENT, "mandate": "sha256:" + "1" * 64, "purpose": "",
        "workflow": {
            "definition": definition.digest, "name": "sample", "bundle": "sha256:" + "2" * 64, "code": [],
            "inputs": {"amount": 5, "text": None, **(inputs or {})},
            "trigger": {"kind": "manual", "event": "", "record": None}, "parent": None,
        },
    }  # fmt: skip


Told = tuple[str, dict[str, Any], int]


@dataclass
class Drive:
    """A run in memory: every record that is told it goes to the machine and stays in ``records``."""

    definition: Defined
    inputs: dict[str, Any] | None = None
    event: Any = None
    at: int = START
    records: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = started(self.definition, self.inputs)
        self.machine = Machine(self.definition, RUN, AGENT, self.started, self.at, event=self.event)

    def commands(self) -> list[Command]:
        return self.machine.commands()

    def asked(self) -> list[str]:
        """The commands in short: ``Act a.b:1``, ``Sleep 30`` (seconds from now), ``End success``."""
        return [self._short(command) for command in self.commands()]

    def _short(self, command: Command) -> str:
        word = type(command).__name__
        if isinstance(command, Act | Compute):
            return f"{word} {command.place}:{command.attempt}"
        if isinstance(command, Resume):
            return f"{word} {command.place} {command.code}"
        if isinstance(command, Sleep):
            return f"{word} {(command.until - self.at) // US}"
        if isinstance(command, End):
            return f"{word} {command.status}"
        return f"{word} {command.reason if isinstance(command, Cancel) else command.place}"

    def wait(self, seconds: int) -> None:
        self.at += seconds * US
        self.machine.time(self.at)

    def tell(self, kind: str, body: dict[str, Any]) -> None:
        full = {"run": RUN, "agent": AGENT, **body}
        self.records.append((kind, full, self.at))
        self.machine.apply(kind, full, self.at, len(self.records))

    def command(self, place: str) -> Command:
        found = [one for one in self.commands() if getattr(one, "place", None) == place]
        assert len(found) == 1, f"{place} is not asked for: {self.asked()}"
        return found[0]

    def computed(self, place: str, output: dict[str, Any] | None = None, *, status: str = "ok") -> None:
        command = self.command(place)
        assert isinstance(command, Compute)
        self.tell("compute.executed", computed(command, output if output is not None else {}, status))

    def decided(self, place: str, disposition: str = "allow", code: str = "allowed") -> str:
        command = self.command(place)
        assert isinstance(command, Act)
        body = decided(command, disposition, code)
        self.tell("action.decided", body)
        if disposition == "escalate":
            self.tell("escalation.raised", {"id": body["id"]})
        return str(body["id"])

    def settled(self, action: str, outcome: str = "confirmed", code: str = "ok", **more: Any) -> None:
        self.tell("action.settled", {"id": action, "outcome": outcome, "code": code, "ref": "", "output": {}, **more})

    def done(self, place: str, outcome: str = "confirmed", code: str = "ok", **more: Any) -> str:
        action = self.decided(place)
        self.settled(action, outcome, code, **more)
        return action

    def waiting(self, place: str, other: str = "run_" + "9" * 32) -> None:
        self.tell("step.waiting", waiting(self.command(place), other, self.at))

    def resumed(self, place: str, status: str = "success", code: str = "event", outputs: Any = None) -> None:
        body = {"place": place, "status": status, "code": code, "event": None, "outputs": outputs or {}}
        self.tell("step.resumed", body)

    def resume(self, place: str) -> None:
        command = self.command(place)
        assert isinstance(command, Resume)
        self.tell("step.resumed", resumed(command))

    def cancel(self, reason: str = "enough", person: str = "ada") -> None:
        self.tell("run.cancelled", {"reason": reason, "person": person})

    def end(self) -> End:
        found = self.commands()
        assert len(found) == 1, self.asked()
        assert isinstance(found[0], End), self.asked()
        self.tell("run.ended", ended(found[0]))
        return found[0]

    def row(self, place: str) -> Any:
        return next(row for row in self.machine.progress() if row.place == place)

    def conclusions(self) -> dict[str, str]:
        return {row.place: row.conclusion for row in self.machine.progress()}


def computed(command: Compute, output: dict[str, Any], status: str = "ok") -> dict[str, Any]:
    ok = status == "ok"
    return {
        "place": command.place, "attempt": command.attempt, "engine": "starlark-pyo3/2026.1.3",
        "code": digest(CODE, command.code.encode()), "input": digest_of(VALUE, command.inputs), "status": status,
        "output": output if ok else None, "result": digest_of(VALUE, output) if ok else None, "message": "",
        "ticks": 1, "limits": {"ticks": 10, "memory_mb": 1, "seconds": 1},
    }  # fmt: skip


def decided(command: Act, disposition: str = "allow", code: str = "allowed") -> dict[str, Any]:
    return {
        "id": action_id(AGENT, RUN, command.call_id), "call_id": command.call_id, "tool": command.tool,
        "args": dict(command.args), "claimed": {"because": list(command.because)}, "disposition": disposition,
        "code": code, "key": "cm_0", "bundle": "sha256:" + "2" * 64,
    }  # fmt: skip


def waiting(command: Command, other: str, at: int) -> dict[str, Any]:
    assert isinstance(command, Wait | Call | Delegate)
    until = None if command.timeout_s is None else at + command.timeout_s * US
    if isinstance(command, Wait):
        return {"place": command.place, "for": dict(command.for_), "until": until}
    kind = "call" if isinstance(command, Call) else "agent"
    return {"place": command.place, "for": {"kind": kind, "run": other}, "until": until}


def resumed(command: Resume) -> dict[str, Any]:
    return {
        "place": command.place, "status": command.status, "code": command.code, "event": command.event,
        "outputs": dict(command.outputs),
    }  # fmt: skip


def ended(command: End) -> dict[str, Any]:
    return {
        "reason": "",
        "workflow": {
            "status": command.status, "outputs": dict(command.outputs), "undone": list(command.undone),
            "left": list(command.left),
        },
    }  # fmt: skip
