"""Two interpreters of one specification: runs that the product's machine plays at random are followed to their end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from random import Random
from typing import Any

import pytest

from countermark.workflow.commands import Act, Call, Cancel, Command, Compute, Delegate, End, Resume, Sleep, Wait
from countermark.workflow.definition import read_definition as product_definition
from countermark.workflow.machine import Machine as Played
from countermark_verify import canon
from countermark_verify.definition import code_digest, read_definition
from countermark_verify.flow import Step
from countermark_verify.follow import Ended, Follow
from countermark_verify.interpreter import Machine

RUNS = 150
START = 1_793_606_400_000_000
TYPES = ("int", "string", "bool", "list", "object")
CODES = ("declined", "denied_by_policy", "timeout", "boundary_calls", "not_sent")
CONDITIONS = (
    None, None, None, None, "always()", "failure()", "cancelled()", "success()", "inputs.n > 2",
    "always() && inputs.flag", "failure() || inputs.n < 2", "event.x < 1",
)  # fmt: skip


class World:
    """What surrounds a run: other runs, and the events that came."""

    def __init__(self) -> None:
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.runs: dict[str, Ended] = {}
        self.outputs: list[tuple[Mapping[str, Any], dict[str, Any]]] = []

    def opened(self, seq: int, body: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        return dict(body["args"]), 0

    def received(
        self, source: str, key: str, after: int, taken: Collection[int]
    ) -> tuple[int, Mapping[str, Any]] | None:
        return next((one for one in self.events if one[0] not in taken and one[1]["key"] == key), None)

    def superseded(self, run: str) -> bool:
        return False

    def abandoned(self, run: str, parent: Mapping[str, Any], at: int) -> bool:
        return False

    def ended(self, run: str) -> Ended | None:
        return self.runs.get(run)

    def started(self, seq: int, run: str, parent: str, step: Step, body: Mapping[str, Any]) -> None:
        pass

    def left(self, run: str, kind: str) -> None:
        pass

    def denied(self, seq: int, step: Step, tool: str, body: Mapping[str, Any]) -> None:
        pass

    def computed(self, seq: int, run: str, step: Step, inputs: bytes, body: dict[str, Any]) -> None:
        self.outputs.append((step.given, body))


def _value(rng: Random, names: list[str]) -> Any:
    """A template that may read what stands before it."""
    texts = ["inputs.n", "inputs.flag", "inputs.word", "run.name", "format('{0}-{1}', inputs.word, inputs.n)",
             "toJSON(inputs)", "inputs.n == 1 && 'one'", "matrix.size", *names]  # fmt: skip
    if rng.random() < 0.4:
        return rng.choice([1, "text", True, None, [1, {"$": "inputs.n"}], {"a": {"$": "inputs.word"}}])
    return {"$": rng.choice([text for text in texts if text != "matrix.size" or "matrix" in names])}


def _pairs(rng: Random, names: list[str], keys: str) -> list[list[Any]]:
    return [[key, _value(rng, names)] for key in sorted(rng.sample(keys, rng.randrange(len(keys) + 1)))]


def _step(rng: Random, number: int, names: list[str]) -> dict[str, Any]:
    kind = rng.choice(("effect", "effect", "effect", "pure", "pure", "wait", "call", "agent"))
    retry = {"attempts": rng.randrange(2, 4), "delay_s": rng.choice((1, 50, 100)), "factor": rng.randrange(1, 3)}
    step: dict[str, Any] = {
        "id": f"s{number}", "kind": kind, "name": "", "if": rng.choice(CONDITIONS),
        "continue_on_error": rng.random() < 0.2, "timeout_s": None,
        "retry": retry if kind in ("effect", "pure") and rng.random() < 0.5 else None,
    }  # fmt: skip
    if kind == "effect":
        undo = {"tool": "undo", "with": _pairs(rng, [*names, f"steps.s{number}.outputs.ref"], "ab")}
        step |= {"tool": "tool", "with": _pairs(rng, names, "abc"), "undo": undo if rng.random() < 0.6 else None}
    elif kind == "pure":
        given = _pairs(rng, names, "ab")
        code = f"def main({', '.join(name for name, _ in given)}):\n    return {{}}\n"
        step |= {"code": code, "with": given, "outputs": {"x": "int"}}
    else:
        step["timeout_s"] = rng.choice((None, 60, 120))
    if kind == "wait":
        step["for"] = rng.choice([
            {"kind": "time", "seconds": rng.choice((0, 30, 90))}, {"kind": "time", "seconds": {"$": "inputs.n"}},
            {"kind": "event", "source": "bank", "key": {"$": "inputs.word"}},
            {"kind": "until", "at": START + 40_000_000},
        ])  # fmt: skip
    elif kind == "call":
        step |= {"workflow": "sha256:" + "0" * 64, "with": _pairs(rng, names, "ab")}
    elif kind == "agent":
        step |= {"agent": "clerk", "goal": "go on", "tools": ["tool"], "calls": 2, "budget": [["EUR", 5]],
                 "sees": _pairs(rng, names, "ab"), "where": [], "outputs": {"x": "int"}}  # fmt: skip
        step["timeout_s"] = step["timeout_s"] or 60
    return step


def _definition(rng: Random) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = []
    for number in range(rng.randrange(1, 4)):
        needs = sorted(job["id"] for job in jobs if rng.random() < 0.6)
        names = [f"needs.{need}.{what}" for need in needs for what in ("result", "outputs.o", "outputs")]
        matrix = [["size", [1, 2, 3][: rng.randrange(1, 4)]]] if rng.random() < 0.4 else None
        names += ["matrix"] if matrix else []
        steps: list[dict[str, Any]] = []
        for place in range(rng.randrange(1, 4)):
            steps.append(_step(rng, place, names))
            outputs = {"effect": ["ref", "x"], "wait": []}.get(steps[-1]["kind"], ["x"])
            names += [f"steps.s{place}.{what}" for what in ("conclusion", "outcome")]
            names += [f"steps.s{place}.outputs.{what}" for what in outputs]
        jobs.append({
            "id": f"j{number}", "needs": needs, "if": rng.choice(CONDITIONS), "matrix": matrix,
            "fail_fast": rng.random() < 0.5, "parallel": rng.randrange(1, 3), "continue_on_error": rng.random() < 0.2,
            "timeout_s": rng.choice((None, None, 60, 120)), "outputs": [["o", _value(rng, names)]], "steps": steps,
        })  # fmt: skip
    every = [f"needs.{job['id']}.outputs.o" for job in jobs]
    inputs = {name: {"type": kind, "required": True, "default": None, "choices": []}
              for name, kind in (("flag", "bool"), ("n", "int"), ("word", "string"))}  # fmt: skip
    return {
        "v": 1, "name": "random", "triggers": [{"kind": "manual"}], "inputs": inputs, "jobs": jobs, "concurrency": None,
        "outputs": [["o", {"$": rng.choice(every)}]], "timeout_s": rng.choice((None, None, None, 60)),
    }  # fmt: skip


class Game:
    """One run: the product's machine says what may come, chance says what comes, the verifier follows."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.document = _definition(self.rng)
        self.world = World()
        self.wrong: list[Any] = []
        inputs = {"flag": self.rng.random() < 0.5, "n": self.rng.randrange(5), "word": "key"}
        body = {"run": "r", "agent": "a", "workflow": {"inputs": inputs}}
        self.now, self.seq = START, 0
        self.played = Played(product_definition(self.document), "r", "a", body, START)
        machine = Machine(read_definition(self.document), "r", inputs, None, START)
        self.follow = Follow("r", "a", 0, machine, self.world, lambda *found: self.wrong.append(found))
        self.open: list[dict[str, Any]] = []  # intents without an outcome, and questions

    def record(self, kind: str, **body: Any) -> None:
        self.seq += 1
        body = {"run": "r", "agent": "a", **body}
        self.played.apply(kind, body, self.now, self.seq)
        self.follow.apply(self.seq, kind, self.now, body)
        assert self.played.strays == []

    def play(self) -> None:
        for _ in range(300):
            self.now += self.rng.choice((0, 0, 1, 20)) * 1_000_000
            self.played.time(self.now)
            commands = [one for one in self.played.commands() if not isinstance(one, Sleep)]
            waits = [one for one in self.played.commands() if isinstance(one, Sleep)]
            if self.rng.random() < 0.02 and not self.played.over and not self.played.cancelled:
                self.record("run.cancelled", reason="", person="somebody")
            elif self.rng.random() < 0.1:
                self._event()
            elif self.open and (not commands or self.rng.random() < 0.4):
                self._settle(self.open.pop(self.rng.randrange(len(self.open))))
            elif commands:
                if self._do(self.rng.choice(commands)):
                    return
            elif waits:
                self.now = max(self.now, waits[0].until)
            else:
                self._event()
        raise AssertionError("the run does not end")

    def _event(self) -> None:
        self.seq += 1
        self.world.events.append(
            (self.seq, {"key": "key", "event": f"e{self.seq}", "payload": [self.seq], "at": self.now})
        )

    def _do(self, command: Command) -> bool:
        if isinstance(command, End):
            self.record("run.ended", reason="", workflow={
                "name": "random", "status": command.status, "outputs": dict(command.outputs),
                "undone": list(command.undone), "left": list(command.left),
            })  # fmt: skip
            return True
        if isinstance(command, Act):
            self._act(command)
        elif isinstance(command, Compute):
            self._compute(command)
        elif isinstance(command, Resume):
            if command.code == "timeout" and self._by_event(command.place):
                return False
            self.record("step.resumed", place=command.place, status=command.status, code=command.code,
                        event=command.event, outputs=dict(command.outputs))  # fmt: skip
        elif isinstance(command, Cancel):
            self.record("run.cancelled", reason=command.reason, person="")
        elif isinstance(command, Wait):
            until = None if command.timeout_s is None else self.now + command.timeout_s * 1_000_000
            self.record("step.waiting", place=command.place, **{"for": dict(command.for_)}, until=until)
            if command.for_["kind"] == "event":
                self.open.append({"wait": command.place})
        elif isinstance(command, Call | Delegate):
            run = f"child{self.seq}"
            kind = "call" if isinstance(command, Call) else "agent"
            until = None if command.timeout_s is None else self.now + command.timeout_s * 1_000_000
            self.record("step.waiting", place=command.place, **{"for": {"kind": kind, "run": run}}, until=until)
            self.open.append({"run": run, "place": command.place, "kind": kind})
        return False

    def _act(self, command: Act) -> None:
        action = f"act_{self.seq:032x}"
        body = {"id": action, "call_id": command.call_id, "tool": command.tool, "args": dict(command.args),
                "escalation": None, "claimed": {"because": list(command.because)}}  # fmt: skip
        chance = self.rng.random()
        if chance < 0.1:
            del body["id"]
            self.record("action.refused", **body, code="type", field="x")
        elif chance < 0.25:
            self.record("action.decided", **body, disposition="deny", code=self.rng.choice(CODES))
        elif chance < 0.4:
            self.record("action.decided", **body, disposition="escalate", code="needs_approval")
            self.open.append({"question": body})
        else:
            self.record("action.decided", **body, disposition="allow", code="allowed")
            self.open.append({"intent": action})

    def _settle(self, one: dict[str, Any]) -> None:
        chance = self.rng.random()
        if "intent" in one:
            outcome = "unknown" if chance < 0.1 else "failed" if chance < 0.35 else "confirmed"
            self.record("action.settled", id=one["intent"], outcome=outcome, code=self.rng.choice(CODES),
                        ref=f"ref{self.seq}", output={"x": self.seq})  # fmt: skip
            if outcome == "unknown":
                self.open.append(one)
        elif "question" in one:
            action = one["question"]["id"]
            if chance < 0.3:
                self.record("escalation.answered", id=action, state="refused")
            elif chance < 0.5:
                self.record("escalation.expired", id=action)
            else:
                allow = chance < 0.8
                self.record("escalation.answered", id=action, state="approved")
                self.record("action.decided", **one["question"] | {"escalation": "esc"},
                            disposition="allow" if allow else "deny", code="denied_by_policy")  # fmt: skip
                self.open += [{"intent": action}] if allow else []
        else:
            self._end_wait(one, chance)

    def _by_event(self, place: str) -> bool:
        """An event that came ends a wait for one."""
        if place not in self.follow.before:
            return False
        found = self.world.received("bank", "key", 0, self.follow.before[place])
        if found is None:
            return False
        outputs = {"payload": found[1]["payload"], "event": found[1]["event"]}
        self.record("step.resumed", place=place, status="success", code="event", event=found[0], outputs=outputs)
        return True

    def _end_wait(self, one: dict[str, Any], chance: float) -> None:
        place = one.get("place", one.get("wait"))
        step = self.follow.machine.at_place(str(place))
        if step is None or step.phase != "waiting" or step.cut:
            return  # something else ended it, or is about to
        if any(isinstance(command, Resume) and command.place == place for command in self.played.commands()):
            return
        if "wait" in one:
            if not self._by_event(str(place)):
                self.open.append(one)
            return
        good = chance < 0.6
        outputs = {"x": self.seq} if good else {}
        self.world.runs[one["run"]] = Ended("success" if good else "failure", outputs, self.now)
        self.record("step.resumed", place=place, status="success" if good else "failure", code="ended", event=None,
                    outputs=outputs)  # fmt: skip

    def _compute(self, command: Compute) -> None:
        chance = self.rng.random()
        status = "ok" if chance < 0.75 else "error" if chance < 0.9 else "limit"
        output = None if status != "ok" else {"x": self.seq} if self.rng.random() < 0.9 else {"x": "no"}
        step = self.follow.machine.at_place(command.place)
        spec = step.spec if step is not None else {"code": ""}
        self.record(
            "compute.executed", place=command.place, attempt=command.attempt, code=code_digest(spec), status=status,
            input=canon.digest("value", canon.render(dict(command.inputs))), output=output, message="", ticks=0,
            result=None if output is None else canon.digest("value", canon.render(output)),
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(RUNS))
def test_both_interpreters_play_the_same_run(seed: int) -> None:
    """Every record that the product asks for is one that the verifier expects, and the run ends as it says."""
    game = Game(seed)
    game.play()
    assert game.wrong == []


def test_time_alone_ends_no_step_whose_turn_came_before() -> None:
    """Code whose turn came in the time of its job is run, however late: it is not passed over, and nothing undone."""
    step = {"id": "s", "kind": "pure", "name": "", "if": None, "continue_on_error": False, "timeout_s": None,
            "retry": None, "code": "def main():\n    return {}\n", "with": [], "outputs": {}}  # fmt: skip
    job = {"id": "j", "needs": [], "if": None, "matrix": None, "fail_fast": True, "parallel": 1,
           "continue_on_error": False, "timeout_s": 60, "outputs": [], "steps": [step]}  # fmt: skip
    document = {"v": 1, "name": "random", "triggers": [], "inputs": {}, "outputs": [], "concurrency": None,
                "timeout_s": None, "jobs": [job]}  # fmt: skip
    wrong: list[Any] = []
    machine = Machine(read_definition(document), "r", {}, None, START)
    follow = Follow("r", "a", 0, machine, World(), lambda *found: wrong.append(found))
    end = {"name": "random", "status": "failure", "outputs": {}, "undone": [], "left": []}
    follow.apply(1, "run.ended", START + 61_000_000, {"run": "r", "agent": "a", "reason": "", "workflow": end})
    assert [(code, expected) for code, _, _, expected, _ in wrong] == [("V21.end", ["j.s:1"])]
