"""Open runs: who acts in each, under which mandate, and inside which boundary.

Runs of definitions may be very many and wait for months, so with a journal at hand they are not kept in memory: a key
says where each began, and the record there says the rest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from countermark.model.digest import STREAM, digest_of
from countermark.model.driving import RUN_MARK
from countermark.model.values import RUN
from countermark.policy.parked import BodyOf
from countermark.policy.rows import Keys

LATELY_MAX = 4_096  # driven runs whose beginning need not be read again


@dataclass(slots=True)
class Boundary:
    """What an agent may do in one run, and what it did there. ``rule`` is the member of ``run.started``.

    ``held``: minor units by currency, of intents that did not fail.
    """

    rule: Mapping[str, Any]
    calls: int = 0
    held: dict[str, int] = field(default_factory=dict)

    def decided(self, body: Mapping[str, Any], holds: bool) -> None:
        """An action was decided in the run; one that people approved was counted when they were asked."""
        if body["escalation"] is None:
            self.calls += 1
        if holds:
            self._add(body["terms"], body["terms"]["amount"])

    def settled(self, body: Mapping[str, Any]) -> None:
        """What was held becomes what was moved; what failed is given back, unless only its caller says so."""
        asked, moved = body["terms"]["amount"], body["settled"]
        if asked is None:
            return
        if body["outcome"] == "failed" and body["tier"] != "observing":
            self._add(body["terms"], -asked)
        elif body["outcome"] == "confirmed" and moved is not None:
            self._add(body["terms"], moved["amount"] - asked)

    def _add(self, terms: Mapping[str, Any], amount: int | None) -> None:
        if amount is not None:
            currency = terms["currency"]
            self.held[currency] = self.held.get(currency, 0) + amount

    def refuses(
        self, tool: str, money: bool, terms: Mapping[str, Any], args: Mapping[str, Any], at: int, *, first: bool = True
    ) -> tuple[str, tuple[str, ...]] | None:
        """Why an action does not stay inside (``docs/spec/decision.md``, stage ``boundary``): code and details.

        ``first``: it does not follow an approval; one that does was counted when people were asked.
        """
        rule = self.rule
        if at >= rule["until"]:
            return "boundary_over", ()
        if first and self.calls >= rule["calls"]:
            return "boundary_calls", ()
        if tool not in rule["tools"]:
            return "boundary_tool", ()
        wrong = {alias for name, alias, values in rule["where"] if name == tool and not _among(args.get(alias), values)}
        if wrong:
            return "boundary_argument", tuple(sorted(wrong))
        currency, amount = terms["currency"], terms["amount"]
        budget = next((limit for name, limit in rule["budget"] if name == currency), None)
        if budget is None:
            beyond = money
        else:
            beyond = amount is not None and self.held.get(currency, 0) + amount > budget
        return ("boundary_budget", () if currency is None else (currency,)) if beyond else None


def _among(value: object, values: Sequence[object]) -> bool:
    """Whether it stands there, with one of these values: one that is left out, or sealed, is not even null."""
    return value is not None and any(type(value) is type(one) and value == one for one in values)


@dataclass(frozen=True, slots=True)
class Run:
    """An open run. ``definition``: digest of what drives it, empty when its agent does; ``name`` is that one's.

    ``subject``: whose the sealed values of its records are, empty when they stand in clear.
    """

    agent: str
    mandate: str
    definition: str = ""
    name: str = ""
    boundary: Boundary | None = None
    subject: str = ""


def run_of(body: Mapping[str, Any]) -> Run:
    """The run that a ``run.started`` begins."""
    driven, inside = body.get("workflow"), body.get("boundary")
    return Run(
        intern(body["agent"]), intern(body["mandate"]),
        "" if driven is None else intern(driven["definition"]), "" if driven is None else intern(driven["name"]),
        None if inside is None else Boundary(inside), intern(body.get("subject", "")),
    )  # fmt: skip


class Runs:
    """Open runs by ID. ``body_of`` reads a record's body by its seq; without it all are kept in memory."""

    def __init__(self, keys: Keys, body_of: BodyOf | None) -> None:
        self._keys = keys
        self._body_of = body_of
        self._near: dict[str, Run] = {}
        self._lately: OrderedDict[str, Run] = OrderedDict()
        self.driven = 0
        self.of_agent: dict[str, int] = {}  # those that the agents drive themselves

    def get(self, name: str) -> Run | None:
        """The run, if it is open."""
        found = self._near.get(name)
        if found is not None or self._body_of is None or not name.startswith(RUN_MARK) or not RUN.fullmatch(name):
            return found
        found = self._lately.get(name)
        if found is not None:
            self._lately.move_to_end(name)
            return found
        seq = self._keys.get("ru:" + name)
        if seq is None:
            return None
        found = run_of(self._body_of(seq))
        self._remember(name, found)
        return found

    def _remember(self, name: str, run: Run) -> None:
        self._lately[name] = run
        if len(self._lately) > LATELY_MAX:
            self._lately.popitem(last=False)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> Run:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __setitem__(self, name: str, run: Run) -> None:
        self._put(name, run, None)

    def __len__(self) -> int:
        return self.driven + sum(self.of_agent.values())

    def started(self, body: Mapping[str, Any], seq: int) -> None:
        """Fold a ``run.started``."""
        self._put(body["run"], run_of(body), seq)
        event = body["workflow"]["trigger"] if "workflow" in body else None
        if event is not None and event["event"]:
            self._keys.put(trigger_key(body["workflow"]["name"], event["kind"], event["event"]), seq)

    def _put(self, name: str, run: Run, seq: int | None) -> None:
        if not run.definition:
            if name not in self._near:
                self.of_agent[run.agent] = self.of_agent.get(run.agent, 0) + 1
            self._near[name] = run
            return
        self.driven += 1
        if seq is not None:
            self._keys.put("ru:" + name, seq)
        if self._body_of is None or seq is None:
            self._near[name] = run
        else:
            self._remember(name, run)

    def ended(self, body: Mapping[str, Any]) -> None:
        """Fold a ``run.ended``. It says itself what it ends: the keys of a snapshot may be those of later records."""
        name = body["run"]
        if "workflow" in body:
            self.driven -= 1
            self._keys.put("ru:" + name, None)
            self._lately.pop(name, None)
            self._near.pop(name, None)
            return
        run = self._near.pop(name, None)
        if run is not None:
            self.of_agent[run.agent] -= 1

    def dump(self) -> dict[str, Any]:
        """For a snapshot: plain runs grouped, those with a boundary with what was done; driven ones stand in keys."""
        plain: dict[tuple[str, str], list[str]] = {}
        bounded: list[list[Any]] = []
        for name, run in self._near.items():
            if run.definition:
                continue
            if run.boundary is not None:
                inside = run.boundary
                bounded.append([name, run.agent, run.mandate, dict(inside.rule), inside.calls, dict(inside.held)])
            else:
                plain.setdefault((run.agent, run.mandate), []).append(name)
        return {
            "plain": [[*of, sorted(names)] for of, names in sorted(plain.items())],
            "bounded": sorted(bounded, key=lambda row: str(row[0])), "driven": self.driven,
        }  # fmt: skip

    def load(self, doc: Mapping[str, Any]) -> None:
        """Restore what ``dump`` wrote."""
        self._near, self.of_agent, self.driven = {}, {}, doc["driven"]
        self._lately.clear()
        for agent, mandate, names in doc["plain"]:
            run = Run(intern(agent), intern(mandate))
            self._near.update(dict.fromkeys(names, run))
            self.of_agent[run.agent] = self.of_agent.get(run.agent, 0) + len(names)
        for name, agent, mandate, rule, calls, held in doc["bounded"]:
            self._near[name] = Run(intern(agent), intern(mandate), boundary=Boundary(rule, calls, dict(held)))
            self.of_agent[agent] = self.of_agent.get(agent, 0) + 1

    def __iter__(self) -> Iterator[str]:
        """Those kept in memory: every run that an agent drives itself."""
        return iter(self._near)


def trigger_key(name: str, kind: str, event: str) -> str:
    """Where the run that an event started is looked up: one event starts one run of a definition."""
    return "tr:" + digest_of(STREAM, ["trigger", kind, name, event])


def event_key(source: str, event: str) -> str:
    """Where the record of something that happened outside is looked up: it is recorded once."""
    return "ev:" + digest_of(STREAM, ["event", source, event])
