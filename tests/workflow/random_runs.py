"""Random definitions, and a world that answers what a run asks for in random ways; both from a seed alone."""

from __future__ import annotations

from random import Random
from typing import Any

from run_fixtures import (
    US,
    Defined,
    Drive,
    agent,
    call,
    computed,
    decided,
    define,
    effect,
    ended,
    job,
    pause,
    pure,
    resumed,
    var,
    waiting,
)

from countermark.workflow.commands import (
    Act,
    Call,
    Cancel,
    Command,
    Compute,
    Delegate,
    End,
    Resume,
    Sleep,
    Wait,
    Withdraw,
)

CONDITIONS = (
    None, None, None, None, "success()", "failure()", "always()", "cancelled()", "!cancelled()", "inputs.amount == 5",
    "inputs.amount == 6", "inputs.text < 'a'", "success() || failure()", "always() && inputs.amount == 5",
)  # fmt: skip
CODES = (
    "provider_error", "provider_refused", "timeout", "denied_by_policy", "not_permitted", "mandate_limit", "killed",
    "already_waiting", "boundary_tool",
)  # fmt: skip


class Maker:
    """Makes definitions that ``read_definition`` accepts."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.outputs: dict[str, list[str]] = {}  # of jobs made so far

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def definition(self) -> Defined:
        jobs: list[Any] = []
        for number in range(self.random.randint(1, 4)):
            before = [one["id"] for one in jobs]
            needs = tuple(name for name in before if self.chance(45))
            jobs.append(self.job(f"j{number}", needs))
        outputs: dict[str, Any] = {}
        if self.chance(40):
            name = self.random.choice(list(self.outputs))
            outputs["o"] = var(f"needs.{name}.outputs.o") if self.outputs[name] else var(f"needs.{name}.result")
        if self.chance(5):
            outputs["bad"] = var("inputs.text < 'a'")
        return define(*jobs, outputs=outputs, timeout_s=self.random.choice((None, None, None, 120, 600)))

    def job(self, id_: str, needs: tuple[str, ...]) -> Any:
        matrix = {"a": [1, 2, 3][: self.random.randint(1, 3)], "b": ["x", "y"]} if self.chance(20) else None
        if matrix and self.chance(60):
            del matrix["b"]
        steps: list[Any] = []
        for number in range(self.random.randint(1, 4)):
            steps.append(self.step(f"s{number}", steps, needs, matrix))
        outputs = {}
        if self.chance(50):
            outputs["o"] = self.template(steps, needs, matrix)
        if self.chance(5):
            outputs["bad"] = var("inputs.text < 'a'")
        self.outputs[id_] = sorted(outputs) if "o" in outputs else []
        condition = self.random.choice(CONDITIONS)
        if needs and self.chance(10):
            condition = f"always() && needs.{needs[0]}.result == 'failure'"
        return job(
            id_, *steps, needs=needs, matrix=matrix, fail_fast=self.chance(50), parallel=self.random.randint(1, 3),
            continue_on_error=self.chance(15), timeout_s=self.random.choice((None, None, None, 60, 120)),
            outputs=outputs, if_=condition if self.chance(40) else None,
        )  # fmt: skip

    def template(self, steps: list[Any], needs: tuple[str, ...], matrix: Any) -> Any:
        options = [1, "text", var("inputs.amount"), var("inputs.text"), var("run.name"), [var("inputs.amount"), None]]
        for step in steps:
            if step["kind"] != "wait":
                options.append(var(f"steps.{step['id']}.outputs.{'x' if step['kind'] != 'effect' else 'ref'}"))
            options.append(var(f"steps.{step['id']}.conclusion"))
        for name in needs:
            options += [var(f"needs.{name}.outputs.o"), var(f"needs.{name}.outputs.o")] if self.outputs[name] else []
            options.append(var(f"needs.{name}.result"))
            options.append(var(f"toJSON(needs.{name}.each)"))
        if matrix:
            options.append(var("matrix.a"))
        return self.random.choice(options) if not self.chance(3) else var("format('{0}', inputs.text)")

    def step(self, id_: str, steps: list[Any], needs: tuple[str, ...], matrix: Any) -> Any:
        given: dict[str, Any] = {"continue_on_error": self.chance(12)}
        if self.chance(30):
            given["if_"] = self.random.choice(CONDITIONS)
        if steps and self.chance(8):
            given["if_"] = f"always() && steps.{steps[0]['id']}.outcome == 'success'"
        with_ = {name: self.template(steps, needs, matrix) for name in ("k", "m") if self.chance(60)}
        kind = self.random.choice(("effect",) * 4 + ("pure",) * 3 + ("wait", "wait", "call", "agent"))
        if kind in ("effect", "pure") and self.chance(40):
            attempts, delay = self.random.randint(2, 4), self.random.choice((1, 7, 60))
            given["retry"] = {"attempts": attempts, "delay_s": delay, "factor": self.random.randint(1, 3)}
        if kind == "effect":
            own = {**with_, "own": var(f"steps.{id_}.outputs.ref")} if self.chance(50) else with_
            own = {"bad": var("inputs.text < 'a'")} if self.chance(5) else own
            return effect(id_, with_, undo=("noop.undo", own) if self.chance(50) else None, **given)
        if kind == "pure":
            return pure(id_, with_, {"x": self.random.choice(("int", "string"))}, **given)
        if kind == "wait":
            at = self.random.choice((1_790_000_030 * US, "2026-09-21T14:14:20Z"))
            for_ = self.random.choice(
                (
                    {"kind": "time", "seconds": self.random.choice((0, 30, 90, var("inputs.amount")))},
                    {"kind": "until", "at": at},
                    {"kind": "event", "source": "bank", "key": self.random.choice(("k", var("inputs.text")))},
                )
            )
            return pause(id_, for_, timeout_s=self.random.choice((None, 60, 120)), **given)
        if kind == "call":
            return call(id_, with_, timeout_s=self.random.choice((None, 60)), **given)
        return agent(id_, {"x": "int"}, timeout_s=60, **given)


class World:
    """The outside of one run: people, providers, code and time, all of them from one seed."""

    def __init__(self, seed: int, drive: Drive, *, cancel_after: int | None = None) -> None:
        self.random = Random(seed)
        self.drive = drive
        self.cancel_after = cancel_after  # this many turns, whatever else happens
        self.flying: dict[str, tuple[str, str]] = {}  # action -> call_id, where it is
        self.away: dict[str, str] = {}  # place that waits for the outside -> for what
        self.cancels = self.random.randrange(100) < 25

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def turn(self) -> bool:
        """One thing happens; whether anything could."""
        if self.cancel_after is not None:
            self.cancel_after -= 1
            if self.cancel_after < 0 and not self.drive.machine.ended:
                self.cancel_after = None
                self.drive.cancel()
                return True
        commands = self.drive.commands()
        sleeps = [one for one in commands if isinstance(one, Sleep)]
        moves: list[Any] = [one for one in commands if not isinstance(one, Sleep)]
        moves += [*self.flying, *((place, what) for place, what in self.away.items())]
        if self.cancels and self.chance(6) and not self.drive.machine.ended:
            self.cancels = False
            self.drive.cancel()
            return True
        if not moves and not sleeps:
            return False
        if not moves or (sleeps and self.chance(30)):
            self.drive.at = max(self.drive.at, sleeps[0].until)
            self.drive.machine.time(self.drive.at)
            return True
        if self.chance(50):
            self.drive.wait(self.random.choice((0, 1, 5, 40)))
        move = self.random.choice(moves)
        if isinstance(move, str):
            self.action(move)
        elif isinstance(move, tuple):
            self.woken(*move)
        elif move in self.drive.commands():  # time that passed may have changed what is due
            self.answer(move)
        return True

    def answer(self, command: Command) -> None:
        tell = self.drive.tell
        if isinstance(command, Compute):
            kind = next(iter(command.outputs.values()), "int")
            good = {"x": self.random.randint(0, 9) if kind == "int" else "w"}
            output = good if self.chance(85) else self.random.choice(({"x": True}, {}, {"y": 1}))
            tell("compute.executed", computed(command, output, self.random.choice(("ok",) * 6 + ("error", "limit"))))
        elif isinstance(command, Act):
            self.decide(command)
        elif (
            isinstance(command, Call | Delegate) or (isinstance(command, Wait) and command.for_["kind"] == "event")
        ) and self.chance(15):
            unfit = {"status": "failure", "code": "unfit", "event": None, "outputs": {}}
            tell("step.resumed", {"place": command.place, **unfit})
        elif isinstance(command, Wait | Call | Delegate):
            other = f"run_{self.random.getrandbits(128):032x}"
            body = waiting(command, other, self.drive.at)
            tell("step.waiting", body)
            if body["for"]["kind"] != "time":
                self.away[command.place] = body["for"]["kind"]
        elif isinstance(command, Resume):
            self.away.pop(command.place, None)
            tell("step.resumed", resumed(command))
        elif isinstance(command, Withdraw):
            del self.flying[command.action]
            tell("escalation.expired", {"id": command.action, "because": "cancelled"})
        elif isinstance(command, Cancel):
            tell("run.cancelled", {"reason": command.reason, "person": ""})
        elif isinstance(command, End):
            tell("run.ended", ended(command))

    def decide(self, command: Act) -> None:
        if self.chance(5):
            refused = {"call_id": command.call_id, "tool": command.tool, "code": "bad_argument", "field": "k"}
            self.drive.tell("action.refused", refused)
            return
        what = self.random.choice(("allow",) * 6 + ("flag", "escalate", "deny"))
        body = decided(command, what, self.random.choice(CODES) if what == "deny" else "c")
        self.drive.tell("action.decided", body)
        if what == "escalate":
            self.drive.tell("escalation.raised", {"id": body["id"]})
            self.flying[body["id"]] = (command.call_id, "people")
        elif what != "deny":
            self.flying[body["id"]] = (command.call_id, "provider")

    def action(self, action: str) -> None:
        call_id, where = self.flying[action]
        if where == "people":
            how = self.random.choice(("refused", "expired", "approved", "approved", "pending", "void"))
            if how == "expired":
                self.drive.tell("escalation.expired", {"id": action})
            elif how in ("refused", "pending"):
                self.drive.tell("escalation.answered", {"id": action, "state": how})
            else:
                self.drive.tell("escalation.answered", {"id": action, "state": "approved"})
                body = {"id": action, "call_id": call_id, "disposition": "deny" if how == "void" else "allow"}
                body["code"] = "approval_void" if how == "void" else "allowed"
                self.drive.tell("action.decided", body)
            if how == "approved":
                self.flying[action] = (call_id, "provider")
            elif how != "pending":
                del self.flying[action]
            return
        outcome = self.random.choice(("confirmed",) * 6 + ("failed", "failed", "unknown"))
        if outcome == "unknown" and where == "unknown":
            outcome = "confirmed"
        code = self.random.choice(CODES[:3]) if outcome == "failed" else "ok"
        output = self.random.choice(({}, {"due": 3}, {"ref": "own"}))
        self.drive.settled(action, outcome, code, ref=f"r{self.random.randint(0, 99)}", output=output)
        if outcome == "unknown":
            self.flying[action] = (call_id, "unknown")
        else:
            del self.flying[action]

    def woken(self, place: str, what: str) -> None:
        del self.away[place]
        if what == "event":
            body = {"status": "success", "code": "event", "event": 7, "outputs": {"payload": {"x": 1}, "event": "e"}}
        else:
            good = self.chance(70)
            body = {
                "status": "success" if good else "failure",
                "code": "ended",
                "event": None,
                "outputs": {"x": 4} if good else {},
            }
        self.drive.tell("step.resumed", {"place": place, **body})
