"""The interpreter once more, plainly: everything is worked out again from the whole list of records, by scanning.

It shares with the product what evaluates one expression, and the shapes of commands; not one rule.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from itertools import product
from typing import Any

from run_fixtures import RUN, US, Told

from countermark.model.canon import canon
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
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import Status, evaluate, expressions_of, fill, has_status, names_of

NEVER = (
    "denied_by_policy",
    "not_permitted",
    "killed",
    "refused_by_person",
    "duplicate_obligation",
    "expression_failed",
    "unknown_tool",
    "caller_runs_it",
    "unknown_argument",
    "missing_argument",
    "bad_argument",
)
TYPES = {"string": str, "int": int, "bool": bool, "list": list, "object": dict}
Key = tuple[int, int, int]  # numbers of job, combination and step


def plain(command: Command) -> tuple[str, bytes]:
    """A command, to compare."""
    return type(command).__name__, canon(asdict(command))


class Naive:
    """What is known after ``records``."""

    def __init__(self, document: Any, started: Any, start: int, event: Any, records: list[Told]) -> None:
        self.doc, self.jobs = document, document["jobs"]
        self.inputs, self.event, self.start = started["workflow"]["inputs"], event, start
        self.number = {job["id"]: index for index, job in enumerate(self.jobs)}
        self.told: dict[str, list[Told]] = {}
        self.owner: dict[str, str] = {}
        self.turn: dict[Key, int] = {}
        self.asked: dict[str, Any] = {}
        self.final: dict[Key, dict[str, Any]] = {}
        self.combos: dict[tuple[int, int], dict[str, Any]] = {}
        self.result: dict[int, str] = {}
        self.judged: dict[tuple[str, int], bool] = {}  # whether a failed attempt is followed by another
        self.cancelled, self.wound_up, self.status = False, False, "running"
        self.ended = False
        self.confirmed: list[Key] = []
        self.follow(start)
        for record in records:
            self.note(record)
            self.follow(record[2])

    # --- facts

    def note(self, record: Told) -> None:
        kind, body, _ = record
        if kind == "run.cancelled":
            self.cancel(record[2])
            return
        if kind == "run.ended":
            self.ended = True
            return
        place = body.get("place")
        if place is None:
            place = body["call_id"].rpartition(":")[0] if "call_id" in body else self.owner[body["id"]]
        if "id" in body:
            self.owner[body["id"]] = place
        self.told.setdefault(place, []).append(record)

    def attempts(self, place: str, step: Any) -> list[dict[str, Any]]:
        """The attempts made at a place, from its records alone."""
        found: list[dict[str, Any]] = []
        for kind, body, at in self.told.get(place, []):
            if kind == "compute.executed":
                types = step["outputs"]
                fits = body["status"] == "ok" and sorted(body["output"]) == sorted(types)
                fits = fits and all(type(body["output"][name]) is TYPES[types[name]] for name in types)
                code = "" if fits else "compute_limit" if body["status"] == "limit" else "compute_error"
                found.append(
                    {"is": "ok" if fits else "failed", "code": code, "at": at, "out": body["output"] if fits else {}}
                )
            elif kind == "action.refused":
                found.append({"is": "failed", "code": body["code"], "at": at, "out": {}})
            elif kind == "action.decided":
                if not found or found[-1].get("id") != body["id"]:
                    found.append({"id": body["id"]})
                deny = body["disposition"] == "deny"
                found[-1] |= {
                    "is": "failed" if deny else "out",
                    "people": body["disposition"] == "escalate",
                    "code": body["code"] if deny else "",
                    "at": at,
                    "out": {},
                }
            elif kind == "action.settled" and body["outcome"] != "unknown":
                ok = body["outcome"] == "confirmed"
                out = {**({} if "ref" in body["output"] else {"ref": body["ref"]}), **body["output"], "id": body["id"]}
                found[-1] |= {
                    "is": "ok" if ok else "failed",
                    "code": "" if ok else body["code"],
                    "at": at,
                    "out": out if ok else {},
                }
            elif kind == "escalation.expired" or (kind == "escalation.answered" and body["state"] == "refused"):
                code = body.get("because", "expired") if kind == "escalation.expired" else "refused_by_person"
                found[-1] |= {"is": "failed", "code": code, "at": at}
            elif kind == "step.waiting":
                found.append({"is": "out", "for": body["for"], "until": body["until"], "at": at, "code": "", "out": {}})
            elif kind == "step.resumed":
                ok = body["status"] == "success"
                if body["code"] == "unfit":
                    found.append({})
                found[-1] |= {
                    "is": "ok" if ok else "failed",
                    "code": body["code"],
                    "at": at,
                    "out": body["outputs"] if ok else {},
                }
        return found

    # --- names and scopes

    def combinations(self, j: int) -> list[dict[str, Any]]:
        axes = dict(self.jobs[j]["matrix"] or [])
        return [dict(zip(sorted(axes), row)) for row in product(*(axes[name] for name in sorted(axes)))]  # noqa: B905

    def place(self, key: Key) -> str:
        job = self.jobs[key[0]]
        middle = f".{key[1]}." if job["matrix"] is not None else "."
        return f"{job['id']}{middle}{job['steps'][key[2]]['id']}"

    def outputs_of(self, j: int) -> dict[str, Any]:
        return self.combos[j, len(self.combinations(j)) - 1].get("outputs", {})

    def shown_of(self, j: int) -> dict[str, Any]:
        each = [{"matrix": row, "outputs": self.combos[j, n].get("outputs", {}), "result": self.combos[j, n]["result"]}
                for n, row in enumerate(self.combinations(j))]  # fmt: skip
        return {"outputs": self.outputs_of(j), "result": self.result[j], "each": each}

    def scope(self, j: int | None = None, n: int = 0) -> dict[str, Any]:
        found = {"inputs": self.inputs, "run": {"id": RUN, "name": self.doc["name"]}, "event": self.event, "matrix": {}}
        needed = range(len(self.jobs)) if j is None else [self.number[name] for name in self.jobs[j]["needs"]]
        found["needs"] = {self.jobs[i]["id"]: self.shown_of(i) for i in needed}
        found["steps"] = {}
        if j is not None:
            found["matrix"] = self.combinations(j)[n]
            for i, step in enumerate(self.jobs[j]["steps"]):
                if (j, n, i) in self.final:
                    final = self.final[j, n, i]
                    found["steps"][step["id"]] = {name: final[name] for name in ("outputs", "outcome", "conclusion")}
        return found

    def values(self, pairs: Any, scope: Any) -> dict[str, Any]:
        found = {name: fill(template, scope) for name, template in pairs}
        if len(canon(found)) > 16_000:
            raise ExpressionError("too long")
        return found

    def holds(self, text: str | None, scope: Any, status: Status) -> bool:
        if text is None:
            return status.success
        if not has_status(text) and not status.success:
            return False
        return evaluate(text, {**scope, "$status": status}) not in (None, False, 0, "")

    def step_holds(self, key: Key) -> bool:
        j, n, i = key
        earlier = [self.final[j, n, k]["conclusion"] for k in range(i)]
        bad = "failure" in earlier or self.combos[j, n].get("late", False)
        status = Status(not bad and not self.cancelled, bad and not self.cancelled, self.cancelled)
        return self.holds(self.jobs[j]["steps"][i]["if"], self.scope(j, n), status)

    def job_holds(self, j: int, n: int) -> bool:
        results = [self.result[self.number[name]] for name in self.jobs[j]["needs"]]
        on = not self.cancelled
        status = Status(on and set(results) <= {"success"}, on and "failure" in results, self.cancelled)
        return self.holds(self.jobs[j]["if"], self.scope(j, n), status)

    def deadline(self, j: int, n: int) -> int | None:
        timeout = self.jobs[j]["timeout_s"]
        return None if timeout is None else self.combos[j, n]["began"] + timeout * US

    # --- what follows

    def follow(self, at: int) -> None:
        while any(self.go(key, at) for key in self.keys()) or any(self.tend(j, at) for j in range(len(self.jobs))):
            pass
        if len(self.result) == len(self.jobs) and not self.wound_up:
            self.wound_up = True
            self.status = (
                "cancelled" if self.cancelled else "failure" if "failure" in self.result.values() else "success"
            )
            if self.status == "success":
                try:
                    self.outputs = self.values(self.doc["outputs"], self.scope())
                except ExpressionError:
                    self.status = "failure"
            self.undo_turns = [at]

    def keys(self) -> list[Key]:
        return [(j, n, i) for (j, n) in sorted(self.combos) for i in range(len(self.jobs[j]["steps"]))]

    def go(self, key: Key, at: int) -> bool:
        """Take one step further, if it is its turn; whether anything changed."""
        j, n, i = key
        if self.combos[j, n]["state"] != "live" or key in self.final:
            return False
        if any((j, n, k) not in self.final for k in range(i)):
            return False
        step, place = self.jobs[j]["steps"][i], self.place(key)
        if key not in self.turn:
            self.turn[key] = at
            deadline = self.deadline(j, n)
            if deadline is not None and at >= deadline:
                self.combos[j, n]["late"] = True
            try:
                if not self.step_holds(key):
                    self.conclude(key, "skipped", "", {}, at)
                else:
                    self.asked[place] = self.evaluated(step, place, self.scope(j, n), at, key)
            except ExpressionError:
                self.conclude(key, "failure", "expression_failed", {}, at)
            return True
        made = self.attempts(place, step)
        if not made or made[-1]["is"] == "out":
            return False
        if made[-1]["is"] == "ok":
            self.conclude(key, "success", made[-1]["code"], made[-1]["out"], at, made[-1].get("id"))
            return True
        if self.another(key, step, place, made):
            return False
        self.conclude(key, "failure", made[-1]["code"], {}, at)
        return True

    def another(self, key: Key, step: Any, place: str, made: list[dict[str, Any]]) -> bool:
        """Whether the last of the attempts, which failed, is followed by another. Judged once, when it failed."""
        known = (place, len(made))
        if known not in self.judged:
            due = self.due(step["retry"], made)
            deadline = self.deadline(key[0], key[1])
            goes = due is not None and (deadline is None or due < deadline)
            self.judged[known] = goes and (not self.cancelled or self.still(key))
        return self.judged[known]

    def still(self, key: Key) -> bool:
        try:
            return self.step_holds(key)
        except ExpressionError:
            return False

    def due(self, retry: Any, made: list[dict[str, Any]]) -> int | None:
        if not made:
            return 0
        code = made[-1]["code"]
        if retry is None or len(made) >= retry["attempts"] or code in NEVER:
            return None
        if code.startswith(("mandate_", "boundary_")):
            return None
        return int(made[-1]["at"] + retry["delay_s"] * retry["factor"] ** (len(made) - 1) * US)

    def conclude(self, key: Key, outcome: str, code: str, outputs: Any, at: int, action: Any = None) -> None:
        step = self.jobs[key[0]]["steps"][key[2]]
        conclusion = "success" if outcome == "failure" and step["continue_on_error"] else outcome
        self.final[key] = {"outcome": outcome, "conclusion": conclusion, "code": code, "outputs": outputs, "id": action}
        if outcome == "success" and step["kind"] == "effect":
            self.confirmed.append(key)

    def evaluated(self, step: Any, place: str, scope: Any, turn: int, key: Key) -> Any:
        if step["kind"] == "wait":
            return self.waited(step["for"], scope, turn)
        if step["kind"] == "agent":
            where = [[tool, alias, [fill(one, scope) for one in allowed]] for tool, alias, allowed in step["where"]]
            return {"goal": fill(step["goal"], scope), "sees": self.values(step["sees"], scope), "where": where}
        found = self.values(step["with"], scope)
        if step["kind"] != "effect":
            return found
        return {name: value for name, value in found.items() if value is not None}, self.because(step["with"], key)

    def because(self, pairs: Any, key: Key) -> tuple[str, ...]:
        found = set()
        for text in expressions_of([template for _, template in pairs]):
            for name in names_of(text):
                found |= self.behind(name, key[0], key[1])
        return tuple(sorted(found))

    def behind(self, name: tuple[str, ...], j: int, n: int) -> set[str]:
        """The actions whose outputs a name reads. The tests name one output at a time."""
        if name[0] == "steps" and name[2:3] == ("outputs",):
            i = [step["id"] for step in self.jobs[j]["steps"]].index(name[1])
            action = self.final.get((j, n, i), {}).get("id")
            return {action} if action else set()
        if name[0] == "needs" and name[2:3] == ("outputs",):
            other = self.number[name[1]]
            templates = [template for output, template in self.jobs[other]["outputs"] if output == name[3]]
            last = len(self.combinations(other)) - 1
            names = [inner for text in expressions_of(templates) for inner in names_of(text)]
            return set().union(*(self.behind(inner, other, last) for inner in names))
        return set()

    def waited(self, for_: Any, scope: Any, turn: int) -> Any:
        if for_["kind"] == "event":
            key = fill(for_["key"], scope)
            if type(key) is not str or not 0 < len(key) <= 500:
                raise ExpressionError("no key")
            return {"kind": "event", "source": for_["source"], "key": key}
        if for_["kind"] == "until":
            at = fill(for_["at"], scope)
            return {"kind": "time", "at": at if type(at) is int else round(datetime.fromisoformat(at).timestamp()) * US}
        seconds = fill(for_["seconds"], scope)
        if type(seconds) is not int or not 0 <= seconds <= 366 * 86_400:
            raise ExpressionError("no seconds")
        return {"kind": "time", "at": turn + seconds * US}

    # --- jobs

    def tend(self, j: int, at: int) -> bool:
        job, numbers = self.jobs[j], range(len(self.combinations(j)))
        if j in self.result or any(self.number[name] not in self.result for name in job["needs"]):
            return False
        if (j, 0) not in self.combos:
            for n in numbers:
                self.combos[j, n] = {"state": "ready", "born_cancelled": self.cancelled}
                try:
                    if not self.job_holds(j, n):
                        self.combos[j, n] |= {"state": "over", "result": "skipped"}
                except ExpressionError:
                    self.combos[j, n] |= {
                        "state": "over",
                        "result": "success" if job["continue_on_error"] else "failure",
                    }
            return True
        changed = False
        mine = [self.combos[j, n] for n in numbers]
        for n in numbers:
            if self.combos[j, n]["state"] == "live" and all((j, n, i) in self.final for i in range(len(job["steps"]))):
                self.combo_over(j, n)
                changed = True
        if changed:
            return True
        for combo in mine:
            if combo["state"] == "ready" and job["fail_fast"] and "failure" in [one.get("result") for one in mine]:
                combo |= {"state": "over", "result": "skipped"}
                changed = True
            elif combo["state"] == "ready" and [one["state"] for one in mine].count("live") < job["parallel"]:
                combo |= {"state": "live", "began": at}
                changed = True
        if not changed and all(combo["state"] == "over" for combo in mine):
            results = [combo["result"] for combo in mine]
            self.result[j] = [*(one for one in ("failure", "cancelled", "success") if one in results), "skipped"][0]
            return True
        return changed

    def combo_over(self, j: int, n: int) -> None:
        job, combo = self.jobs[j], self.combos[j, n]
        conclusions = [self.final[j, n, i]["conclusion"] for i in range(len(job["steps"]))]
        cut = combo["born_cancelled"] or combo.get("cut", False)
        result = "failure" if "failure" in conclusions or combo.get("late") else "cancelled" if cut else "success"
        outputs: dict[str, Any] = {}
        for name, template in job["outputs"]:
            try:
                outputs[name] = fill(template, self.scope(j, n))
            except ExpressionError:
                result = "failure" if result == "success" else result
        if result == "failure" and job["continue_on_error"]:
            result = "success"
        combo |= {"state": "over", "result": result, "outputs": outputs}

    def cancel(self, at: int) -> None:
        if self.cancelled or len(self.result) == len(self.jobs):
            return
        self.cancelled = True
        for (j, n), combo in sorted(self.combos.items()):
            if combo["state"] == "ready":
                combo["born_cancelled"] = True
                try:
                    goes = self.job_holds(j, n)
                except ExpressionError:
                    goes = False
                if not goes:
                    combo |= {"state": "over", "result": "cancelled"}
            elif combo["state"] == "live":
                key = next((j, n, i) for i in range(len(self.jobs[j]["steps"])) if (j, n, i) not in self.final)
                self.cut(key, combo, at)

    def cut(self, key: Key, combo: Any, at: int) -> None:
        step, place = self.jobs[key[0]]["steps"][key[2]], self.place(key)
        made = self.attempts(place, step)
        combo["cut"] = not made or key[2] + 1 < len(self.jobs[key[0]]["steps"])
        if self.still(key) or (made and made[-1]["is"] == "out" and not ("for" in made[-1] or made[-1]["people"])):
            return
        if not made:
            self.conclude(key, "skipped", "", {}, at)
        elif made[-1]["is"] == "out":
            combo["stop"] = place
        else:
            self.judged[place, len(made)] = False

    # --- what is asked for

    def commands(self, now: int) -> list[Command]:
        if self.ended:
            return []
        found: list[Command] = []
        dues: list[int] = []
        end = None
        if self.doc["timeout_s"] is not None and not self.cancelled and not self.wound_up:
            end = self.start + self.doc["timeout_s"] * US
        for key in sorted(self.turn):
            if key not in self.final:
                self.ask(key, now, found, dues, begins=end is None or end > now)
        if self.wound_up:
            self.undo(now, found, dues)
        elif end is not None and end <= now:
            found.append(Cancel("timeout"))
        elif end is not None:
            dues.append(end)
        return found + ([Sleep(min(dues))] if dues else [])

    def ask(self, key: Key, now: int, found: list[Command], dues: list[int], *, begins: bool) -> None:
        step, place = self.jobs[key[0]]["steps"][key[2]], self.place(key)
        made = self.attempts(place, step)
        if made and made[-1]["is"] == "out":
            if "for" in made[-1]:
                self.awaited(key, made[-1], now, found, dues)
            elif made[-1]["people"] and self.combos[key[0], key[1]].get("stop") == place:
                found.append(Withdraw(place, made[-1]["id"]))
            return
        if not begins:
            return
        due = self.due(step["retry"], made)
        assert due is not None
        if due > now:
            dues.append(due)
        else:
            found.append(self.command(step, place, len(made) + 1))

    def awaited(self, key: Key, wait: Any, now: int, found: list[Command], dues: list[int]) -> None:
        place = self.place(key)
        if self.combos[key[0], key[1]].get("stop") == place:
            found.append(Resume(place, "failure", "cancelled", None, {}))
            return
        options = []
        if wait["for"]["kind"] == "time":
            options.append((wait["for"]["at"], 0, Resume(place, "success", "time", None, {})))
        for late in (wait["until"], self.deadline(key[0], key[1])):
            if late is not None:
                options.append((late, 1, Resume(place, "failure", "timeout", None, {})))
        if options:
            due, _, resume = min(options, key=lambda option: option[:2])
            if due <= now:
                found.append(resume)
            else:
                dues.append(due)

    def command(self, step: Any, place: str, attempt: int) -> Command:
        asked = self.asked[place]
        match step["kind"]:
            case "effect":
                return Act(place, attempt, step["tool"], asked[0], asked[1])
            case "pure":
                return Compute(place, attempt, step["code"], asked, step["outputs"])
            case "wait":
                return Wait(place, asked, step["timeout_s"])
            case "call":
                return Call(place, step["workflow"], asked, step["timeout_s"])
        own = {name: step[name] for name in ("tools", "calls", "budget", "outputs")}
        return Delegate(place, step["agent"], {"parent": RUN, "place": place, **own, **asked}, step["timeout_s"])

    def undo(self, now: int, found: list[Command], dues: list[int]) -> None:
        """What is undone and left, from the start each time."""
        if self.status == "success":
            found.append(End("success", self.outputs, (), ()))
            return
        undone, left = [], []
        for key in reversed(self.confirmed):
            step, place = self.jobs[key[0]]["steps"][key[2]], self.place(key)
            if step["undo"] is None:
                continue
            back = {**step, **step["undo"], "retry": {"attempts": 5, "delay_s": 10, "factor": 2}}
            made = self.attempts(f"{place}.undo", back)
            if made and made[-1]["is"] == "ok":
                undone.append(place)
                continue
            try:
                self.asked[f"{place}.undo"] = self.evaluated(back, place, self.scope(key[0], key[1]), 0, key)
            except ExpressionError:
                left.append(place)
                continue
            due = self.due(back["retry"], made)
            if due is None and made[-1]["is"] == "failed":
                left.append(place)
                continue
            if made and made[-1]["is"] == "out":
                return
            assert due is not None
            if due > now:
                dues.append(due)
            else:
                found.append(self.command(back, f"{place}.undo", len(made) + 1))
            return
        found.append(End(self.status, {}, tuple(undone), tuple(left)))
