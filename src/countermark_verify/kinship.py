"""V21: runs that steps of others started, as both sides say it (docs/spec/workflow.md)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from countermark_verify import triggers
from countermark_verify.definition import AGENT, Definition, patience
from countermark_verify.errors import Malformed
from countermark_verify.evaluate import alike
from countermark_verify.flow import SECOND, Step
from countermark_verify.follow import about


class Say(Protocol):
    """Told what is wrong."""

    def __call__(self, code: str, message: str, seq: int, expected: Any = None, actual: Any = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Child:
    """A run that a step of another one started, as its `run.started` says."""

    seq: int
    at: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The same, as the step that waits for it has it."""

    seq: int
    parent: str
    agent: str  # of the parent
    step: Step
    until: int | None


def parent_of(body: Mapping[str, Any]) -> Any:
    """The run and the place that started this one, or None."""
    if (boundary := body.get("boundary")) is not None:
        return {"run": boundary["parent"], "place": boundary["place"]}
    return body.get("workflow", {}).get("parent")


class Pairs:
    """Holds both against each other, once both are there."""

    def __init__(self, say: Say, definitions: Mapping[str, Definition | None]) -> None:
        self._say, self._definitions = say, definitions
        self._children: dict[str, Child] = {}
        self._wanted: dict[str, Wanted] = {}
        # Of which both were there, and were compared; kept as long as the parent may go on by another definition.
        self._paired: dict[str, Child | None] = {}

    def finish(self, live: Callable[[Child], bool]) -> None:
        """The log is over; `live`: whether the run that is said to have started this one could be followed."""
        for run, child in self._children.items():
            if live(child):
                self._say("V21.boundary", f"no step waits for {run}", child.seq)
        for run, wanted in self._wanted.items():
            self._say("V21.step", f"waits for {run}, which was never started", wanted.seq)

    def began(self, run: str, child: Child) -> None:
        """A run that a step is said to have started."""
        if run not in self._children and run not in self._paired:
            self._children[run] = child
            self._compare(run)

    def wanted_by(self, run: str, wanted: Wanted) -> bool:
        """A step waits for this run; whether it is the first to do so."""
        if run in self._wanted or run in self._paired:
            self._say("V21.step", f"another step waits for {run}", wanted.seq)
            return False
        self._wanted[run] = wanted
        self._compare(run)
        return True

    def again(self, run: str, wanted: Wanted) -> None:
        """The same step by another definition of its run."""
        if (child := self._paired.get(run) or self._children.get(run)) is not None:
            self._compared(run, child, wanted)

    def over(self, runs: Collection[str]) -> None:
        """Their parent has ended: it does not go on by another definition."""
        self._paired |= dict.fromkeys(runs & self._paired.keys())

    def _compare(self, run: str) -> None:
        """A run that a step started is what that step says, once both have said it."""
        child, wanted = self._children.get(run), self._wanted.get(run)
        if child is None or wanted is None:
            return
        del self._children[run], self._wanted[run]
        self._paired[run] = child
        self._compared(run, child, wanted)

    def _compared(self, run: str, child: Child, wanted: Wanted) -> None:
        body, step = child.body, wanted.step
        code = "V21.boundary" if step.spec["kind"] == AGENT else "V21.start"
        if parent_of(body) != {"run": wanted.parent, "place": step.place}:
            self._say(code, f"{run} was started by another step", child.seq, step.place, parent_of(body))
        if step.spec["kind"] != AGENT:
            self._called(run, child, wanted)
            return
        said, spec = body.get("boundary"), step.spec
        expected = {name: spec[name] for name in ("tools", "calls", "budget", "outputs")} | step.given
        expected |= {"parent": wanted.parent, "place": step.place}
        if said is None or body["agent"] != spec["agent"]:
            self._say(code, f"{run} is not a run of {spec['agent']} in a boundary", child.seq)
            return
        for name, value in expected.items():
            if not alike(said[name], value):
                self._say(code, f"the boundary has another {name} than its step", child.seq, value, said[name])
        if said["until"] != wanted.until or not about(child.at + (patience(spec) or 0) * SECOND, wanted.until):
            self._say(code, "the boundary ends at another time than its step", child.seq, wanted.until, said["until"])

    def _called(self, run: str, child: Child, wanted: Wanted) -> None:
        said = child.body.get("workflow")
        if said is None or said["definition"] != wanted.step.spec["workflow"]:
            self._say("V21.start", f"{run} is of another definition than its step calls", child.seq)
            return
        if child.body["agent"] != wanted.agent:
            message = f"{run} is another agent's than the run that calls it"
            self._say("V21.start", message, child.seq, wanted.agent, child.body["agent"])
        definition = self._definitions.get(said["definition"])
        try:
            expected = said["inputs"] if definition is None else triggers.inputs_of(definition, wanted.step.given)
        except Malformed as error:
            self._say("V21.start", f"{wanted.step.place} {error}", child.seq)
            return
        if "$sd" not in said["inputs"] and not alike(expected, said["inputs"]):
            self._say("V21.start", "other inputs than its step gives", child.seq, expected, said["inputs"])
