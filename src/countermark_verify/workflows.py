"""V21: definitions, events, and every run of a workflow (docs/spec/workflow.md)."""

from collections.abc import Collection, Mapping
from typing import Any

from countermark_verify import canon, sealed, triggers
from countermark_verify.announced import Announced
from countermark_verify.authority import Authority
from countermark_verify.definition import AGENT, WAIT, Definition
from countermark_verify.disclosures import Disclosures
from countermark_verify.flow import Step
from countermark_verify.follow import Ended, Follow
from countermark_verify.groups import Groups
from countermark_verify.interpreter import Machine
from countermark_verify.kinship import Child, Pairs, Wanted, parent_of
from countermark_verify.recomputed import BUDGET_TICKS, Recomputed
from countermark_verify.refusals import UNFOUNDED, UNKNOWN, judge
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.streams import stream_of
from countermark_verify.veiled import Veiled

STEPS_MAX = 2_000_000  # of all runs that are open at once, in every combination: what each takes is kept in memory
LOOKED_MAX = 500_000_000  # combinations of jobs, each counted for each record of its run: some microseconds each
_BEGIN = ("action.decided", "compute.executed", "step.waiting")
_OF_WORKFLOWS = ("compute.", "step.", "run.cancelled", "run.migrated")
_MEMBERS_OF = {"run.ended": "workflow"}  # the same, with this member


class Workflows:
    """Follows every run of a workflow; the rest of the log as far as these refer to it."""

    def __init__(
        self, ledger: Ledger, state: State, authority: Authority, disclosures: Disclosures, seen: bool | None = None,
        ticks: int = BUDGET_TICKS, pinned: Mapping[int, Mapping[int, bytes]] | None = None,
    ) -> None:  # fmt: skip
        """`seen`: None for a whole pack; in an extract, whether the auditor verified the whole log.

        `ticks`: what executing pure steps again may take in all. `pinned`: blocks of chains that the auditor knows.
        """
        self._ledger, self._state, self._authority, self._disclosures = ledger, state, authority, disclosures
        self._whole, self._seen = seen is None, seen
        self.recomputed = Recomputed(ledger, ticks)
        self._announced = Announced(ledger, self.recomputed, self._whole, pinned or {})
        self._definitions = self._announced.definitions
        self._runs: dict[str, Follow | None] = {}  # None: it cannot be followed
        self._places: dict[str, int] = {}  # in an extract: the next place in the stream of a run
        self._started: set[tuple[str, str, str]] = set()
        self._pairs = Pairs(self._refute, self._definitions)
        self._groups = Groups()
        self._left: set[str] = set()  # runs that a step started, and does not wait for any longer
        self._ended: dict[str, Ended] = {}
        self._parents: set[str] = set()  # runs that somebody may wait for
        self._over: dict[str, bool] = {}  # runs that ended, and whether they could be followed until then
        self._replay: list[tuple[str, int]] | None = None  # what is wrong with a run by its new definition
        self.veiled = Veiled(ledger, disclosures)
        self.withheld = self.refused = self._unfollowed = self._crowded = 0
        self._steps = self._looked = 0  # steps of the runs that are followed now
        self._checks = {
            "workflow.defined": self._announced.defined,
            "event.received": self._announced.event,
            "run.started": self._run_started,
            "run.migrated": self._migrated,
            "data.erased": self.veiled.erased,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        kind = record["kind"]
        body, shut = self.veiled.opened(position, record)
        check = self._checks.get(kind)
        if check is not None:
            check(position, record, body)
            return
        if not (run := body.get("run")):
            return
        self._in_turn(position, run, kind, body)
        if kind == "run.cancelled":
            self._by_whom(position, body["person"])
        if run in self._runs:
            if shut:
                self._close(run)
            self._follow(position, run, record, body)
        elif kind.startswith(_OF_WORKFLOWS) or _MEMBERS_OF.get(kind) in body or body.get("because") == "cancelled":
            if self._whole or run in self._state.runs:
                self._ledger.refute("V21.step", "a record of a workflow in a run of none", position, None, kind)
            else:
                self._unfollowed += 1
        if kind == "run.ended" and run in self._parents:
            said = body.get("workflow")
            outputs = None if shut else body.get("outputs", {}) if said is None else said["outputs"]
            self._ended[run] = Ended(None if said is None else said["status"], outputs, record["at"])
        if kind == "run.ended":
            self._groups.ended(run)
            self._left.discard(run)

    def _in_turn(self, seq: int, run: str, kind: str, body: dict[str, Any]) -> None:
        """What begins in a run begins while it is the first of its group, and somebody still waits for it."""
        if kind not in _BEGIN or (kind == "action.decided" and body["escalation"] is not None):
            return
        if self._whole and (first := self._groups.ahead(run)):
            self._refute("V21.step", "begins before an earlier run of its group has ended", seq, None, first)
        follow = self._runs.get(run)
        if run in self._left and (run not in self._runs or (follow is not None and follow.goes_on())):
            self._refute("V21.boundary", "begins though the step that it is for waits no longer", seq, None, run)

    def _by_whom(self, seq: int, person: str) -> None:
        """Nobody signs a cancellation; yet whoever it names is somebody in the policy in force."""
        bundle = self._state.bundle
        if person and bundle is not None and person not in bundle.people:
            self._ledger.refute("V21.step", "cancelled by somebody whom the policy does not know", seq, None, person)

    def finish(self) -> None:
        self.recomputed.finish()
        self.veiled.finish()
        if self._whole:
            self._pairs.finish(self._live)
        if self._crowded:
            self._ledger.lack("V21.too_many", f"{self._crowded} runs were not followed: too many or too long")
        self._announced.finish()
        if self._unfollowed and not self._seen:
            message = f"{self._unfollowed} records are of runs of workflows whose other records are not here"
            self._ledger.lack("V21.extract", message)

    def counted(self) -> dict[str, Any]:
        """Pure steps, and what of runs stays the operator's word."""
        done = self.recomputed
        return {
            "pure": done.total,
            "again": done.executed,
            "unexecuted": done.unexecuted,
            "ended": done.ended,
            "ended_otherwise": done.ended_otherwise,
            "unparsed": done.unparsed,
            "refused": self.refused,
            "unproved": self._announced.unproved,
        }

    def _live(self, child: Child) -> bool:
        """Whether the run that is said to have started this one could be followed."""
        name = parent_of(child.body)["run"]
        parent = self._runs.get(name)
        return self._over.get(name, False) if parent is None else not parent.lost

    def _close(self, run: str) -> None:
        """A value of a sealed run is not shown: from here on nothing can be said of it."""
        if (follow := self._runs[run]) is not None:
            self._steps -= follow.machine.definition.steps
        self._runs[run] = None

    def _follow(self, seq: int, run: str, record: dict[str, Any], body: dict[str, Any]) -> None:
        follow = self._runs[run]
        if not self._whole and follow is not None and not self._next(run, record):
            follow = self._runs[run] = None
        if follow is None:
            self._unfollowed += not self._whole and not self.veiled.shut(run)
            if record["kind"] == "compute.executed" and sealed.subject_of(record) is not None:
                self.recomputed.total += 1  # and nobody executes it again
            return
        if not self._affords(follow.machine.definition.width):
            self._runs[run] = None
            self._crowded += 1
            return
        self._ledger.ran("V21", 1)
        if record["kind"] == "run.ended":
            self._over[run] = not follow.lost
        follow.seen.append((seq, record["kind"], record["at"], self._text(record, body)))
        follow.apply(seq, record["kind"], record["at"], body)
        if record["kind"] == "run.ended":
            self._steps -= follow.machine.definition.steps
            self._pairs.over(follow.children)
            del self._runs[run]  # all that is left of it is that it ended

    def _text(self, record: dict[str, Any], body: dict[str, Any]) -> bytes:
        """The record with this body, which in a sealed run is not the one in the log."""
        return self._state.raw if body is record["body"] else canon.render({"body": body})

    def _affords(self, cost: int) -> bool:
        self._looked += cost
        return self._looked <= LOOKED_MAX

    def _next(self, run: str, record: dict[str, Any]) -> bool:
        """In an extract: whether this is the next record of its run."""
        place = record["streams"].get(stream_of("r", run), [-1])[0]
        expected, self._places[run] = self._places.get(run, 0), place + 1
        return bool(place == expected)

    def _refute(self, code: str, message: str, seq: int, expected: Any = None, actual: Any = None) -> None:
        if self._replay is not None:
            self._replay.append((message, seq))
            return
        self._ledger.refute(code, message, seq, expected, actual)

    # Beginnings.

    def _run_started(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        said = body.get("workflow")
        if said is None and "boundary" not in body:
            return
        self._ledger.ran("V21", 1)
        run = body["run"]
        if (parent := parent_of(body)) is not None:
            self._parents.add(run)
            self._pairs.began(run, Child(seq, record["at"], body))
            follow = self._runs.get(parent["run"])
            if self._whole and parent["run"] not in self._runs and parent["run"] not in self._over:
                self._refute("V21.boundary", "started by a step of a run that is none", seq, None, parent["run"])
            elif follow is not None and not follow.asks(parent["place"], record["at"]):
                self._refute("V21.step", "started for a step whose turn it is not", seq, None, parent["place"])
        if said is not None and "boundary" in body:
            self._refute("V21.start", "a run of a workflow has no boundary", seq)
        if said is not None and run not in self._runs and run not in self._over:
            self._runs[run] = self._begun(seq, record, body, said)
            if not self._whole and not self._next(run, record):
                self._runs[run] = None

    def _begun(self, seq: int, record: dict[str, Any], body: dict[str, Any], said: dict[str, Any]) -> Follow | None:
        trigger = said["trigger"]
        name = (said["name"], trigger["kind"], trigger["event"])
        if name in self._started and name[1:] not in (("manual", ""), ("call", "")):
            self._refute("V21.trigger", "another run was started by the same", seq, None, list(name))
        self._started.add(name)
        definition = self._definitions.get(said["definition"])
        if definition is None:
            if said["definition"] not in self._definitions:
                self._refute("V21.definition", "no such definition was recorded", seq, None, said["definition"])
            return None
        expected = {"name": definition.name, "bundle": self._state.activated, "code": list(definition.code)}
        for member, value in expected.items():
            if said[member] != value:
                self._refute(
                    "V21.start", f"another {member} than the definition and the policy", seq, value, said[member]
                )
        event = self._announced.event_of(trigger["record"])
        if not self.veiled.begins(seq, body, definition):
            unseen = said | {"inputs": None}
            if self.veiled.shut(body["run"]) and (
                reason := triggers.unfounded(definition, unseen, record["at"], event)
            ):
                self._refute("V21.trigger", reason, seq, None, trigger)
            return None
        if reason := triggers.misfit(definition, said["inputs"]):
            self._refute("V21.start", reason, seq, None, said["inputs"])
        elif reason := triggers.unfounded(definition, said, record["at"], event):
            self._refute("V21.trigger", reason, seq, None, trigger)
        if reason := self._groups.began(body["run"], seq, definition, said["inputs"]):
            self._refute("V21.start", reason, seq)
        if self._steps + definition.steps > STEPS_MAX or not self._affords(definition.steps):
            self._crowded += 1
            return None
        self._steps += definition.steps
        payload = None if event is None else event["payload"]
        machine = Machine(definition, body["run"], said["inputs"], payload, record["at"])
        follow = Follow(body["run"], body["agent"], seq, machine, self, self._refute, self._whole)
        follow.seen.append((seq, "run.started", record["at"], self._text(record, body)))
        follow.parent = said["parent"]
        return follow

    # Another definition.

    def _migrated(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        self._ledger.ran("V21", 1)
        names = {name: body[name] for name in ("run", "from", "to", "reason")}
        document = {"v": 1, "deployment": self._state.deployment, **names}
        signed = canon.signing_bytes("migration", document)
        self._authority.by_person("V21", "V21.migrated", seq, body["person"], body, signed)
        self._authority.enrolled("V21.migrated", seq, body["person"], body["key"])
        follow = self._runs.get(body["run"])
        if not self._whole and follow is not None and not self._next(body["run"], record):
            follow = self._runs[body["run"]] = None
        if follow is None or follow.lost:
            self._unfollowed += not self._whole
            return
        if body["agent"] != follow.agent:
            self._refute("V21.migrated", "a run of another agent", seq, follow.agent, body["agent"])
        old, new = follow.machine.definition, self._definitions.get(body["to"])
        if body["from"] != old.digest or new is None or (new.name, new.subject) != (old.name, old.subject):
            message = "not from its definition to a known one of its name and subject"
            self._refute("V21.migrated", message, seq, old.digest, body["from"])
            return
        self._steps += new.steps - old.steps
        affordable = self._affords(len(follow.seen) * new.width)
        self._crowded += not affordable
        self._runs[body["run"]] = self._replayed(seq, follow, new, body) if affordable else None

    def _replayed(self, seq: int, follow: Follow, new: Definition, body: dict[str, Any]) -> Follow:
        """The run so far, by another definition: it must be a beginning of one of its paths."""
        wrong: list[tuple[str, int]] = []
        _, _, began, raw = follow.seen[0]
        said = canon.value_of(raw)["body"]["workflow"]
        if reason := triggers.misfit(new, said["inputs"]):
            self._refute("V21.migrated", reason, seq)
        event = self._announced.event_of(said["trigger"]["record"])
        machine = Machine(new, follow.run, said["inputs"], None if event is None else event["payload"], began)
        again = Follow(
            follow.run, follow.agent, follow.began, machine, self,
            lambda code, message, place, expected, actual: wrong.append((message, place)), self._whole,
        )  # fmt: skip
        again.seen.append(follow.seen[0])
        again.parent, self._replay = follow.parent, wrong
        for place, kind, at, raw in follow.seen[1:]:
            again.seen.append((place, kind, at, raw))
            again.apply(place, kind, at, canon.value_of(raw)["body"])
        self._replay = None
        self._groups.changed(follow.run, follow.began, new, said["inputs"])
        if wrong:
            message = f"what the run did is no path of its new definition: {wrong[0][0]}"
            self._refute("V21.migrated", message, seq, None, f"seq:{wrong[0][1]}")
        again.say = self._refute
        return again

    # What a run asks of the rest (`Around`).

    def opened(self, seq: int, body: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        bundle = self._state.bundle
        tool = bundle.tools.get(body["tool"]) if bundle is not None else None
        names = {row["alias"]: row["name"] for row in tool["args"]} if tool is not None else {}
        found: dict[str, Any] = {}
        closed = 0
        for alias, value in body["args"].items():
            name = names.get(alias, alias)
            if type(value) is dict:
                if (seq, alias) not in self._disclosures.fields:
                    closed += 1
                    continue
                value = self._disclosures.fields[seq, alias][1]
            found[name if name in wanted or alias not in wanted else alias] = value
        self.withheld += closed if self._replay is None else 0
        return found, closed

    def unfit(self, step: Step) -> bool | None:
        if step.spec["kind"] == WAIT:
            return None if step.spec["for"]["kind"] == "event" else False
        if step.spec["kind"] == AGENT:
            # A run that goes on by another definition is followed anew under a later policy.
            known = self._state.bundle if self._replay is None else None
            return None if known is None else step.spec["agent"] not in known.keys
        definition = self._definitions.get(step.spec["workflow"])
        return None if definition is None else triggers.unfit(definition, step.given)

    def received(
        self, source: str, key: str, after: int, taken: Collection[int]
    ) -> tuple[int, Mapping[str, Any]] | None:
        return self._announced.received(source, key, after, taken)

    def superseded(self, run: str) -> bool:
        follow = self._runs.get(run)
        began = -1 if follow is None else follow.began
        veiled = follow is not None and self.veiled.ends(follow.machine.definition.name, began)
        return not self._whole or veiled or self._groups.superseded(run, began)

    def abandoned(self, run: str, parent: Mapping[str, Any], at: int) -> bool:
        follow = self._runs.get(parent["run"])
        if follow is None:
            return not self._whole or parent["run"] not in self._over
        return follow.leaves(parent["place"], run, at)

    def ended(self, run: str) -> Ended | None:
        return self._ended.get(run)

    def started(self, seq: int, run: str, parent: str, step: Step, body: Mapping[str, Any]) -> None:
        wanted = Wanted(seq, parent, body["agent"], step, body["until"])
        if self._replay is not None:
            self._pairs.again(run, wanted)
        elif self._pairs.wanted_by(run, wanted):
            self._parents.add(run)

    def left(self, run: str, kind: str) -> None:
        if kind == AGENT or run in self._runs:
            self._left.add(run)

    def denied(self, seq: int, step: Step, tool: str, body: Mapping[str, Any]) -> None:
        if self._replay is not None:
            return
        found = judge(body, tool, step.given, self._state.bundle)
        self.refused += found == UNKNOWN
        if found == UNFOUNDED:
            message = f"{step.place} is refused for what is not so"
            self._refute("V21.input", message, seq, dict(step.given), [body["tool"], body["code"], body["field"]])

    def computed(self, seq: int, run: str, step: Step, inputs: bytes, body: dict[str, Any]) -> None:
        if self._replay is None:
            self.recomputed.add(seq, f"{step.place} of {run}", step.spec["code"], inputs.decode(), body)
