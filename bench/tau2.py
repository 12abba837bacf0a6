"""Replay tau2's banking paths through a real deployment of the contact desk's path rules.

    python bench/tau2.py CASES.json [--json OUT] [--dir DIR] [--in-process]

Every reference path and every mutant is a contact of its own: a run under a mandate that names the customer. Each call
becomes a governed action, asked for over HTTP; the connector answers what the file has recorded. The six rules are
facts and Cedar in ``tau2_rules/``; the exceptions that a task declares are tickets that a supervisor opens, signed, for
that contact (``tau2_tickets.py``).
A path is *found* when the gate denies, escalates or flags one of its calls. The labels judge and decide nothing.

Exit: 0 as declared, 1 a violation missed or a false alarm, 3 a malformed file, 64 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from replay import CasesError, Door, guarded, open_door, read_cases, reasons_of
from tau2_desk import EXCEPTIONS, Books, Call, arguments, draft, read_call
from tau2_tickets import TICKETS_MAX, Waiver, policy_files, waivers

from countermark.authority import build_approval, grant, load_private, sign_approval
from countermark.connectors import RecordedConnector
from countermark.gate import Pseudonyms
from countermark.model.clock import US, FakeClock
from countermark.model.errors import CountermarkError, PolicyError
from countermark.policy import normal, template_files
from countermark.wiring.deployment import read_key
from countermark.wiring.init import Made, init_deployment, mandate_document

AGENT, LEAD, SUPERVISOR = "desk", "desk-lead", "supervisor"
MANDATE_S = 8 * 3_600
CALL_S = 5  # a call takes a moment: which of two came last is told by their age in seconds
PAUSE_S = 2 * 3_600  # between two contacts: what waits for a person from the one before is over
PATHS_MAX, CALLS_MAX = 9_000, 500


@dataclass(frozen=True, slots=True)
class Path_:
    """One contact to replay. ``name`` is a task's id, or a mutant's id or position in the file."""

    name: str | int
    task: str
    calls: tuple[Call, ...]
    accepted: tuple[bool, ...]
    results: tuple[Any, ...]


@dataclass
class Suite:
    """A cases file without its labels. ``opened`` are the tickets of each task."""

    gold: list[Path_]
    mutants: list[Path_]
    books: Mapping[str, Books]
    opened: Mapping[str, list[Waiver]]
    tools: Mapping[str, set[str]] = field(default_factory=dict)

    def desks(self) -> Iterator[set[str]]:
        """The tasks, parted so that no desk has more than ``TICKETS_MAX`` tickets, or one task's."""
        names: set[str] = set()
        for name, tickets in self.opened.items():
            if names and tickets and sum(len(self.opened[other]) for other in names) + len(tickets) > TICKETS_MAX:
                yield names
                names = set()
            names.add(name)
        yield names


@dataclass(frozen=True, slots=True)
class Alarm:
    """The first call of a path that did not simply pass."""

    at: int
    disposition: str
    code: str
    policies: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule that was broken; the gate's own code when it was none of the six."""
        return next((name.partition(".")[0] for name in self.policies if name.startswith("R")), self.code)


def load(path: Path) -> Suite:
    """Read a cases file. Raises ``CasesError`` when it is none."""
    doc = read_cases(path, parse_float=Decimal)
    try:
        tasks, mutants = doc["tasks"], doc["mutants"]
        gold = [_path(name, name, task) for name, task in tasks.items()]
        made = [_path(m.get("id", number), m["task"], m) for number, m in enumerate(mutants)]
        books = {name: Books(task["facts"]) for name, task in tasks.items()}
        opened = {name: list(waivers(name, task)) for name, task in tasks.items()}
    except CasesError:
        raise
    except (KeyError, TypeError, AttributeError) as error:
        raise CasesError(f"the file is not of tau2's shape: {type(error).__name__} {error}"[:200]) from None
    if not all(type(path.name) in (str, int) for path in made):
        raise CasesError("a mutant's id is a text or a number")
    lost = [path.task for path in made if path.task not in books]
    if lost:
        raise CasesError(f"a mutant is of task {lost[0]!r}, which is not in the file")
    if len({str(path.name) for path in made}) < len(made) or len(made) + len(gold) > PATHS_MAX:
        raise CasesError(f"mutants have ids of their own, and there are at most {PATHS_MAX} paths")
    tools = draft(call for path in (*gold, *made) for call in path.calls)
    return Suite(gold, made, books, opened, tools)


def _path(name: str | int, task: str, doc: Mapping[str, Any]) -> Path_:
    calls = tuple(read_call(action) for action in doc["actions"])
    accepted = tuple(ok is True for ok in doc["ok"])
    results = tuple(doc.get("results") or [None] * len(calls))
    if len(calls) > CALLS_MAX or not len(calls) == len(accepted) == len(results):
        raise CasesError(f"path {name!r}: actions, ok and results differ in length, or are more than {CALLS_MAX}")
    return Path_(name, task, calls, accepted, results)


class Desk:
    """A deployment of the rules; ``answer`` is what the bank's tools say to the next call."""

    def __init__(self, where: Path, suite: Suite, tasks: Collection[str], http: bool = False) -> None:
        self.suite = suite
        tickets = [ticket for task in sorted(tasks) for ticket in suite.opened[task]]
        self.clock = FakeClock()
        self.answer: tuple[bool, Any] = (True, None)
        self.connector = RecordedConnector(self._say)
        # The template only lends its frame: every file of it is replaced, or emptied.
        edit = {**dict.fromkeys(template_files("banking"), ""), **policy_files(suite.tools, tickets)}
        try:
            self.made: Made = init_deployment(
                where, "banking", "desk", edit=edit, clock=self.clock, connectors={"recorded": self.connector}
            )
        except PolicyError as error:
            raise CasesError(f"its tools and exceptions make no policy: {error.message}"[:300]) from None
        self.door: Door = open_door(self.made.root, AGENT, {"recorded": self.connector}, clock=self.clock, http=http)
        self._keys = {person: load_private(path) for person, path in self.made.people.items()}
        self._pseudonyms = Pseudonyms(read_key(self.made.root / "keys" / "pseudonym.key"))

    def _say(self, tool: str, args: Mapping[str, Any]) -> Any:
        accepted, result = self.answer
        if not accepted:
            raise CountermarkError("the tool answered with an error")
        return result

    def close(self) -> None:
        self.door.close()

    def contact(self, task: str) -> str:
        """A run for one contact, with the tickets that are open for it."""
        self.clock.advance(PAUSE_S)
        books, now = self.suite.books[task], self.clock.now_us()
        document = mandate_document(
            self.made.deployment, LEAD, AGENT, not_before=now - US, not_after=now + MANDATE_S * US,
            named=sorted({self._pseudonyms("named", normal(value)) for value in books.named}), purpose="one contact",
        )  # fmt: skip
        mandate = self.door.operator("mandate.grant", grant(document, self._keys[LEAD]))
        run = self.door.start_run(mandate)
        for number, waiver in enumerate(self.suite.opened[task]):
            self._open(run, books, waiver, number)
        return run

    def _open(self, run: str, books: Books, waiver: Waiver, number: int) -> None:
        """The agent asks for an exception; the supervisor signs it."""
        call = Call(EXCEPTIONS, "assistant", "", {"ticket": waiver.ticket})
        self.answer = (True, None)
        self.door.act(run, f"ticket-{number}", EXCEPTIONS, arguments(call, books, 0, ()))
        parked = next(e for e in self.door.operator("escalations", {"after": None}) if e["run"] == run)
        document = build_approval(
            parked, deployment=self.made.deployment, ladder="supervisor", verdict="approve", person=SUPERVISOR
        )
        self.door.operator("answer", sign_approval(document, self._keys[SUPERVISOR]))

    def replay(self, path: Path_) -> tuple[str, Alarm | None]:
        """One contact up to the first call that does not simply pass."""
        run = self.contact(path.task)
        books = self.suite.books[path.task]
        for number, call in enumerate(path.calls):
            self.clock.advance(CALL_S)
            self.answer = (path.accepted[number], path.results[number])
            args = arguments(call, books, number, self.suite.tools[call.tool])
            disposition, code = self.door.act(run, f"c{number}", call.tool, args)
            if disposition != "allow":
                return run, Alarm(number, disposition, code, ())
        return run, None

    def all_of(self, paths: Sequence[Path_]) -> dict[str | int, Alarm | None]:
        """Every path's first alarm, with the policies that the committed record names; the agent is not told them."""
        found = {path.name: self.replay(path) for path in paths}
        reasons = reasons_of(self.made.root)
        return {
            name: alarm and replace(alarm, policies=reasons.get((run, f"c{alarm.at}"), ()))
            for name, (run, alarm) in found.items()
        }


def run(cases: Path, where: Path, http: bool = False) -> dict[str, Any]:
    """Replay a file; ``where`` is an empty directory. The figures hold nothing that a label decided."""
    suite = load(cases)
    gold: dict[str | int, Alarm | None] = {}
    mutants: dict[str | int, Alarm | None] = {}
    for number, tasks in enumerate(suite.desks()):
        desk = Desk(where / f"desk-{number}", suite, tasks, http)
        try:
            for paths, told in ((suite.gold, gold), (suite.mutants, mutants)):
                told |= desk.all_of([path for path in paths if path.task in tasks])
        finally:
            desk.close()
    alarms = {path.name: alarm for path in suite.mutants if (alarm := mutants[path.name]) is not None}
    false = {path.name: alarm for path in suite.gold if (alarm := gold[path.name]) is not None}
    return {
        "cases": cases.name,
        "gold": {"total": len(gold), "false_alarms": list(false), "rules": {n: a.rule for n, a in false.items()}},
        "mutants": {
            "total": len(mutants), "found": list(alarms), "rules": {str(n): a.rule for n, a in alarms.items()},
            "at": {str(n): a.at for n, a in alarms.items()},
            "policies": {str(n): list(a.policies) for n, a in alarms.items()},
            "dispositions": dict(Counter(a.disposition for a in alarms.values())),
        },
    }  # fmt: skip


def judged(found: Mapping[str, Any], cases: Path) -> dict[str, Any]:
    """The figures beside the labels, where the file has some: what was missed, and what was found without need."""
    mutants = read_cases(cases)["mutants"]
    labels = {str(m.get("id", n)): m["violates"] for n, m in enumerate(mutants) if "violates" in m}
    rules = found["mutants"]["rules"]
    return {
        "labelled": len(labels), "violations": sum(1 for label in labels.values() if label),
        "missed": sorted(name for name, label in labels.items() if label and name not in rules),
        "needless": sorted(name for name, label in labels.items() if not label and name in rules),
        "other_rule": sorted(n for n, label in labels.items() if label and n in rules and rules[n] not in label),
    }  # fmt: skip


def table(found: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    """The figures for a terminal."""
    gold, mutants = found["gold"], found["mutants"]
    lines = [
        f"gold     total {gold['total']}  false alarms {len(gold['false_alarms'])}",
        f"mutants  total {mutants['total']}  found {len(mutants['found'])}  "
        + "  ".join(f"{rule} {n}" for rule, n in sorted(Counter(mutants["rules"].values()).items())),
        f"labels   violations {score['violations']}  missed {len(score['missed'])}  "
        f"found without a violation {len(score['needless'])}  under another rule {len(score['other_rule'])}",
    ]
    lines += [f"  false alarm: {name}, {gold['rules'][name]}" for name in gold["false_alarms"]]
    lines += list(_named("missed", score["missed"])) + list(_named("needless", score["needless"]))
    return "\n".join(lines)


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    return (f"  {what}: mutant {name}" for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--dir", type=Path, help="make the deployment below this directory")
    parser.add_argument("--in-process", action="store_true", help="call the gate directly, without HTTP")
    options = parser.parse_args(argv)
    return guarded("tau2.py", options.cases, lambda: _report(options))


def _report(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        found = run(options.cases, Path(folder), not options.in_process)
    score = judged(found, options.cases)
    if options.json is not None:
        options.json.write_text(json.dumps({**found, "score": score}, indent=1) + "\n", "utf-8")
    print(table(found, score))
    return 1 if found["gold"]["false_alarms"] or score["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
