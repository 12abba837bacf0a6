"""A run held against a definition, also one that was written later: where its path is not a declared one.

The definition's interpreter is led along what the run did, step by step. What it asks for and the run did elsewhere, or
never, is named, and then taken as done, so that one deviation does not hide the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from countermark.model.clock import US
from countermark.model.digest import CODE, digest
from countermark.model.records import Record
from countermark.workflow.asking import command_of
from countermark.workflow.commands import UNFIT, Act, Call, Command, Compute, Delegate, Wait
from countermark.workflow.machine import Machine
from countermark.workflow.plan import UNDO, DefinitionLike, Plan, plan_of, same
from countermark.workflow.progress import SKIPPED, Row
from countermark.workflow.state import ASK, Step

KINDS = ("not_declared", "kind", "tool", "argument", "code", "skipped", "order", "not_allowed", "input")
CLOCK_US_MAX = 10 * US  # by which a time that counts from a record may be earlier

_BEGIN = ("action.decided", "action.refused", "compute.executed", "step.waiting")
_FOLLOW = ("action.decided", "action.settled", "escalation.raised", "escalation.answered", "escalation.climbed",
           "escalation.expired", "step.resumed")  # fmt: skip
_DONE_AS = {
    "compute.executed": ("pure",),
    "step.waiting": ("wait", "call", "agent"),
    "step.resumed": ("wait", "call", "agent"),
}
_NOTHING: Mapping[str, Any] = {"string": "", "int": 0, "bool": False, "list": [], "object": {}}


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a run is not on the path. ``what``: the argument, tool or place that it is about; runs with the same
    ``place``, ``kind`` and ``what`` deviate alike. ``seq``: the record, None when nothing was done."""

    place: str
    kind: str
    what: str
    seq: int | None
    words: str


@dataclass(frozen=True, slots=True)
class Path:
    """``actual``: place and seq of what the run did, in its order; ``progress``: the definition's steps, as far as the
    run is; ``planned``: the places of those that it was to do on this path, by their conditions."""

    deviations: tuple[Deviation, ...]
    progress: tuple[Row, ...]
    planned: tuple[str, ...]
    actual: tuple[tuple[str, int], ...]
    ended: bool

    def marks(self) -> dict[str, str]:
        """Place -> the first deviation there, in a few words, for ``graph.svg``."""
        found: dict[str, str] = {}
        for one in self.deviations:
            found.setdefault(one.place or "inputs", one.words)
        return found


@dataclass(frozen=True, slots=True)
class _Item:
    record: Record
    place: str
    begins: bool
    attempt: int
    asked: Command | None  # what the run's own definition asked for, None when that is not known


def path_of(
    planned: DefinitionLike, own: DefinitionLike | None, records: Sequence[Record], *, event: Any = None
) -> Path:  # fmt: skip
    """Hold a run against ``planned``.

    Args:
        own: the definition that the run goes by (after a migration, the last one), or None when nobody has it: then
            arguments are not compared.
        records: those of the run's stream, ``run.started`` first.
        event: the payload of the event that started it, or None.
    """
    items = list(_items(own, records, event))
    walk = _Walk(planned, records[0], event, items)
    for item in items:
        walk.take(item)
    ended = any(record.kind == "run.ended" for record in records)
    walk.finish(ended)
    rows = walk.machine.progress()
    places = tuple(row.place for row in rows if row.conclusion != SKIPPED and not row.place.endswith(UNDO))
    actual = tuple((item.place, item.record.seq) for item in items if item.begins)
    found = sorted(walk.found, key=lambda one: (one.seq is None, one.seq or 0))
    return Path(tuple(found), rows, places, actual, ended)


def _items(own: DefinitionLike | None, records: Sequence[Record], event: Any) -> Iterator[_Item]:
    """What the run did, with what it was asked for at that moment."""
    first = records[0]
    run, agent = first.body["run"], first.body["agent"]
    machine = None if own is None else Machine(own, run, agent, first.body, first.at, event=event)
    actions: dict[str, str] = {}
    for record in records[1:]:
        kind, body = record.kind, record.body
        step = place = None
        begins = (kind in _BEGIN and body.get("id", "") not in actions) or (
            kind == "step.resumed" and body["code"] == UNFIT
        )
        if begins and kind.startswith("action."):
            place = body["call_id"].rpartition(":")[0]
            if kind == "action.decided":
                actions[body["id"]] = place
        elif kind in _BEGIN or kind == "step.resumed":
            place = body["place"] if "place" in body else actions.get(body["id"])
        elif kind in _FOLLOW:
            place = actions.get(body["id"])
        elif kind == "run.cancelled":
            place = ""
        if machine is not None:
            machine.time(record.at)
            step = machine.step_at(place) if begins and place else None
        asked = None if step is None or step.phase != ASK else command_of(step, run)
        if place is not None:
            yield _Item(record, place, begins, _attempt(kind, body), asked)
        if machine is not None:
            machine.apply(kind, body, record.at, record.seq)


def _attempt(kind: str, body: Mapping[str, Any]) -> int:
    if kind in ("action.decided", "action.refused"):
        number = body["call_id"].rpartition(":")[2]
        return int(number) if number.isdecimal() else 0
    return int(body.get("attempt", 1))


class _Walk:
    """The interpreter of the definition, on its way along the run."""

    def __init__(self, planned: DefinitionLike, started: Record, event: Any, items: Sequence[_Item]) -> None:
        body, declared = started.body, planned.document["inputs"]
        given = body["workflow"]["inputs"]
        self.found: list[Deviation] = []
        filled = {**{name: spec["default"] for name, spec in declared.items()}, **given}
        for name in sorted(given.keys() ^ declared.keys()):
            says = "is not declared" if name in given else "was not given"
            if name in given or declared[name]["required"]:
                self.found.append(Deviation("", "input", name, started.seq, f"the input {name} {says}"))
        self.plan: Plan = plan_of(planned)
        self.run = body["run"]
        start = {**body, "workflow": {**body["workflow"], "inputs": filled}}
        self.machine = Machine(planned, self.run, body["agent"], start, started.at, event=event)
        self.at = started.at
        self.early: list[tuple[_Item, str]] = []  # before their turn, and what was to come first
        self.coming = Counter((item.place, item.attempt) for item in items if item.begins)
        self.left: set[str] = set()  # places that are not followed any more
        self.made_up = 0

    # --- along the records

    def take(self, item: _Item) -> None:
        """The next thing that the run did."""
        self.at = max(self.at, item.record.at)
        if item.begins:
            self.coming[item.place, item.attempt] -= 1
        if item.place in self.left:
            return
        if not item.begins:
            if any(other.place == item.place for other, _ in self.early):
                self.early.append((item, ""))
            else:
                self._apply(item)
                self._again()
        elif item.place.removesuffix(UNDO) not in self.plan.where:
            self._say(item, "not_declared", "", "not in the definition")
            self.left.add(item.place)
        else:
            self._make_up_before(item.place)
            if self._begin(item):
                self._again()
            else:
                self.early.append((item, self._ahead(item.place)))

    def finish(self, ended: bool) -> None:
        """Nothing more is recorded: what was to be done and never was is named, if the run is over."""
        if ended:
            while (step := next((one for one in self._asking() if not self._waits(one)), None)) is not None:
                self._make_up(step)
                self._again()
        rows = {row.place: row for row in self.machine.progress()}
        for item, _ in self.early:
            if item.begins:
                row = rows.get(item.place)
                more = row is not None and row.attempts > 0
                says = "one attempt too many" if more else "was not to be done"
                self._say(item, "not_allowed", "attempt" if more else "", says)

    def _again(self) -> None:
        """Whether the turn of what came too early has come by now."""
        moved = True
        while moved:
            moved = False
            waiting, self.early = self.early, []
            for item, first in waiting:
                if item.place in self.left:
                    continue
                held = any(other.place == item.place for other, _ in self.early)
                if held or (item.begins and not self._begin(item, first)):
                    self.early.append((item, first))
                    continue
                if not item.begins:
                    self._apply(item)
                moved = True

    # --- one step

    def _begin(self, item: _Item, first: str = "") -> bool:
        """Whether it is its turn; then it is compared and done."""
        step = self.machine.step_at(item.place)
        if step is None or step.phase != ASK or item.attempt != step.attempt:
            return False
        if first:
            self._say(item, "order", first, f"before {first}")
        if step.plan.kind not in _DONE_AS.get(item.record.kind, ("effect",)):
            done = " or ".join(_DONE_AS.get(item.record.kind, ("effect",)))
            self._say(item, "kind", step.plan.kind, f"{done}, not {step.plan.kind}")
            self.left.add(item.place)
            self._apply_made(step)
            return True
        self._compare(item, step)
        self._apply(item)
        return True

    def _apply(self, item: _Item) -> None:
        strays = len(self.machine.strays)
        self.machine.apply(item.record.kind, item.record.body, self.at, item.record.seq)
        del self.machine.strays[strays:]

    def _compare(self, item: _Item, step: Step) -> None:
        wanted = command_of(step, self.run)
        if item.record.kind == "action.decided" and isinstance(wanted, Act) and item.record.body["tool"] != wanted.tool:
            self._say(item, "tool", item.record.body["tool"], f"{item.record.body['tool']}, not {wanted.tool}")
            return
        if isinstance(wanted, Compute) and item.record.body.get("code") != digest(CODE, wanted.code.encode("utf-8")):
            self._say(item, "code", "", "other code")
        if item.asked is None or item.attempt > 1:
            return
        if type(item.asked) is not type(wanted):
            self._say(item, "kind", step.plan.kind, f"not {step.plan.kind}")
            return
        for kind, name in _differences(item.asked, wanted):
            if kind == "argument" and self.made_up and _hangs(step, name):
                continue  # it hangs on what was never done: nobody knows what it would have been
            self._say(item, kind, name, f"other {name}")

    def _say(self, item: _Item, kind: str, what: str, words: str) -> None:
        self.found.append(Deviation(item.place, kind, what, item.record.seq, words))

    # --- what was never done

    def _asking(self) -> list[Step]:
        return [step for step in self.machine.active() if step.phase == ASK]

    def _waits(self, step: Step) -> bool:
        """Whether the run did it, later or too early."""
        key = (step.place, step.attempt)
        return self.coming[key] > 0 or any(
            item.begins and (item.place, item.attempt) == key for item, _ in self.early
        )  # fmt: skip

    def _make_up_before(self, place: str) -> None:
        while (step := self.machine.step_at(place)) is None or step.phase != ASK:
            ahead = [one for one in self._asking() if self._precedes(one.place, place) and not self._waits(one)]
            if not ahead:
                return
            self._make_up(ahead[0])
            self._again()

    def _ahead(self, place: str) -> str:
        """What was to be done first."""
        return next((one.place for one in self.machine.active() if self._precedes(one.place, place)), "")

    def _precedes(self, one: str, other: str) -> bool:
        if one == other or one.endswith(UNDO):
            return False
        if other.endswith(UNDO):
            return True
        job, number, index = self.plan.where[one]
        of, at, place = self.plan.where[other]
        if job == of:
            return number == at and index < place
        rest, seen = list(self.plan.jobs[of].needs), set[int]()
        while rest:
            need = rest.pop()
            if need not in seen:
                seen.add(need)
                rest.extend(self.plan.jobs[need].needs)
        return job in seen

    def _make_up(self, step: Step) -> None:
        attempt = f" (attempt {step.attempt})" if step.attempt > 1 else ""
        what = "attempt" if attempt else ""
        self.found.append(Deviation(step.place, "skipped", what, None, f"was not done{attempt}"))
        self._apply_made(step)

    def _apply_made(self, step: Step) -> None:
        """Go on as if it had been done, with outputs that say nothing."""
        self.made_up += 1
        place, kind, name = step.place, step.plan.kind, f"act_{self.made_up}"
        outputs = {output: _NOTHING[of] for output, of in step.plan.outputs.items()}
        told: list[tuple[str, dict[str, Any]]]
        if kind == "effect":
            told = [("action.decided", {"call_id": f"{place}:{step.attempt}", "id": name, "disposition": "allow"}),
                    ("action.settled", {"id": name, "outcome": "confirmed", "ref": "", "output": {}})]  # fmt: skip
        elif kind == "pure":
            told = [("compute.executed", {"place": place, "attempt": step.attempt, "status": "ok", "output": outputs})]
        else:
            waits = {"place": place, "for": {"kind": "event"}, "until": None}
            resumed = {"place": place, "status": "success", "code": "", "outputs": outputs}
            told = [("step.waiting", waits), ("step.resumed", resumed)]
        for record, body in told:
            self.machine.apply(record, body, self.at, None)


def _hangs(step: Step, name: str) -> bool:
    """Whether an argument reads what earlier steps put out."""
    return any(path[0] in ("steps", "needs") for path in step.plan.filling.reads.get(name, ()))


def _differences(done: Command, wanted: Command) -> Iterator[tuple[str, str]]:
    """In what two commands of one kind differ: kind of deviation, and name."""
    if isinstance(done, Act) and isinstance(wanted, Act):
        if done.tool != wanted.tool:
            yield "tool", done.tool
        yield from (("argument", name) for name in _unlike(done.args, wanted.args))
    elif isinstance(done, Compute) and isinstance(wanted, Compute):
        yield from (("argument", name) for name in _unlike(done.inputs, wanted.inputs))
    elif isinstance(done, Wait) and isinstance(wanted, Wait):
        at = [one.for_.get("at") for one in (done, wanted)]
        if done.for_["kind"] != wanted.for_["kind"]:
            yield "argument", "wait"
        elif None in at:
            yield from (("argument", name) for name in _unlike(done.for_, wanted.for_))
        elif abs(int(at[0] or 0) - int(at[1] or 0)) > CLOCK_US_MAX:
            yield "argument", "time"
    elif isinstance(done, Call) and isinstance(wanted, Call):
        if done.definition != wanted.definition:
            yield "tool", "workflow"
        yield from (("argument", name) for name in _unlike(done.inputs, wanted.inputs))
    elif isinstance(done, Delegate) and isinstance(wanted, Delegate):
        if done.agent != wanted.agent:
            yield "tool", done.agent
        yield from (("argument", name) for name in _unlike(asdict(done)["boundary"], asdict(wanted)["boundary"]))


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    names = sorted(one.keys() | other.keys())
    return [name for name in names if name not in one or name not in other or not same(one[name], other[name])]
