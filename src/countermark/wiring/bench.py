"""``countermark bench``: what this machine does with the shipped template, beside the raw fsync rate.

Rounds are short and interleaved with fsync measurements, and medians are reported, since a disk's speed changes by
the minute. One governed action is: decode, prepare, decide, intent committed, no-op effect, outcome committed, answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import cedarpy
import orjson

from countermark.connectors import NoopConnector
from countermark.gate import Caller, Gate, Writer
from countermark.journal import SqliteStore
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Connector
from countermark.policy import Ask, Bundle, Engine, ask_of, judge, template_files
from countermark.wiring.config import FILE
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import Deployment, open_deployment
from countermark.wiring.init import init_deployment
from countermark.wiring.process import own_the_process

TEMPLATE = "vendor-payments"
AGENT = "treasury"
TOOL = "stripe.transfers.create"
ACCOUNTS = ("acct_1AcmePaper", "acct_1BorealisHosting")
ALLOWED, FLAGGED = 48_000, 240_000  # minor units; every tenth payment is one that the template flags
WINDOW_MAX = 10**15  # so that no window of the template denies; what is evaluated stays the same
BLOCK_BYTES = 4_096
LEVELS = (1, 16, 64, 256)
HISTORY = (1_000, 100_000)
HISTORY_IN_FLIGHT = 64
LAY_IN_FLIGHT = 256
ASKS = 20  # two of them flagged
FSYNC_S = 0.2  # before every round

_CLOCK = SystemClock()

log = logging.getLogger("countermark.bench")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: seconds per part, rounds, and actions per round of the history comparison."""

    fsync_s: float
    cpu_s: float
    level_s: float
    rounds: int
    history: tuple[int, ...]
    history_actions: int
    history_rounds: int


FULL = Plan(1.0, 1.0, 1.0, 5, HISTORY, 1_000, 5)
QUICK = Plan(0.05, 0.05, 0.1, 1, HISTORY[:1], 100, 1)


@dataclass(frozen=True, slots=True)
class Level:
    """One round: actions, seconds, percentiles of an action in milliseconds, and the raw fsync rate just before."""

    actions: int
    seconds: float
    p50_ms: float
    p99_ms: float
    fsync_per_s: float = 0.0

    @property
    def per_s(self) -> float:
        return self.actions / self.seconds


def fsync_rate(folder: Path, seconds: float) -> float:
    """Blocks of 4 KiB appended and fdatasynced per second in ``folder``."""
    path = folder / "fsync.probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    block = b"\0" * BLOCK_BYTES

    def write() -> None:
        os.write(handle, block)
        os.fdatasync(handle)

    try:
        return _rate(write, seconds)
    finally:
        os.close(handle)
        path.unlink()


def _rate(step: Callable[[], object], seconds: float) -> float:
    begin = _CLOCK.steady_us()
    end, done, now = begin + int(seconds * US), 0, begin
    while now < end:
        step()
        done += 1
        now = _CLOCK.steady_us()
    return done * US / (now - begin)


def _wide_limits(text: str) -> str:
    """The template's limits with windows so large that a benchmark does not reach them."""
    head, *windows = text.split("[[window]]")
    wide = [re.sub(r"(?m)^max = \d+", f"max = {WINDOW_MAX}", part, count=1) for part in windows]
    return "[[window]]".join([head, *wide])


class Rig:
    """A deployment of the template in ``folder`` with a no-op provider, driven on its own event loop.

    ``more`` is added to its configuration; ``witnesses`` is a witness policy, whose word may be a minute old.
    """

    def __init__(self, folder: Path, more: str = "", *, witnesses: str = "") -> None:
        self.folder = folder
        edit = {"limits.toml": _wide_limits(template_files(TEMPLATE)["limits.toml"])}
        if witnesses:
            edit["limits.toml"] += '\n[witness]\nstale_after = "60s"\n'
            edit["policies/witnesses.policy"] = witnesses
        self._connectors: Mapping[str, Connector] = {"stripe": NoopConnector(drafts()["stripe"])}
        made = init_deployment(folder, TEMPLATE, "bench", edit=edit, connectors=self._connectors)
        self.log_key = made.log_key
        with (folder / FILE).open("a") as file:
            file.write(more)
        self.journal_bytes = self._journal_bytes()
        self.actions = 0
        self._invoice = count(1)
        self._handle: Deployment = open_deployment(folder, agent=AGENT, connectors=self._connectors)
        self._run = self._handle.start_run(purpose="bench")

    @property
    def gate(self) -> Gate:
        return self._handle.gate

    @property
    def handle(self) -> Deployment:
        """The deployment, for whoever serves it."""
        return self._handle

    @property
    def run(self) -> str:
        """The run of every action here."""
        return self._run

    def _journal_bytes(self) -> int:
        """Size of the closed journal: its log has been folded into the database."""
        return sum(path.stat().st_size for path in (self.folder / "data").glob("journal.db*"))

    def size(self) -> int:
        """Records in the journal."""
        return int(self.gate.wait(self.gate.lane.ask(lambda writer: writer.state.size)))

    def body(self) -> dict[str, Any]:
        """A payment that was never asked for before."""
        number = next(self._invoice)
        args = {
            "amount": ALLOWED if number % 10 else FLAGGED, "currency": "eur",
            "destination": ACCOUNTS[number % len(ACCOUNTS)], "metadata[invoice]": f"INV-{number}",
        }  # fmt: skip
        return {"run": self._run, "call_id": f"c{number}", "tool": TOOL, "args": args}

    def level(self, in_flight: int, seconds: float, actions: int | None = None) -> Level:
        """Keep ``in_flight`` actions under way for some seconds, or until ``actions`` are done."""
        took: list[int] = []
        begin = _CLOCK.steady_us()
        self.gate.wait(self._keep(in_flight, begin + int(seconds * US), actions, took))
        ended = _CLOCK.steady_us()
        self.actions += len(took)
        took.sort()
        p50, p99 = (took[min(len(took) - 1, len(took) * p // 100)] / 1000 for p in (50, 99))
        return Level(len(took), (ended - begin) / US, p50, p99)

    def beside_fsync(self, in_flight: int, seconds: float, actions: int | None = None) -> Level:
        """A round with the raw fsync rate measured just before it."""
        raw = fsync_rate(self.folder, FSYNC_S)
        return replace(self.level(in_flight, seconds, actions), fsync_per_s=raw)

    async def _keep(self, in_flight: int, end: int, actions: int | None, took: list[int]) -> None:
        caller, left = Caller(AGENT, "embedded"), iter(count() if actions is None else range(actions))

        async def worker() -> None:
            now = _CLOCK.steady_us()
            while (now < end or actions is not None) and next(left, None) is not None:
                result = await self.gate.act(caller, self.body())
                if result.status != "confirmed":
                    raise CountermarkError(f"a benchmark's action was {result.status}: {result.code}")
                begin, now = now, _CLOCK.steady_us()
                took.append(now - begin)

        await asyncio.gather(*(worker() for _ in range(in_flight)))

    def lay(self, records: int) -> None:
        """Run governed actions until the journal holds at least ``records`` records."""
        missing = records - self.size()
        if missing > 0:
            self.level(LAY_IN_FLIGHT, 0, (missing + 1) // 2)

    def asks(self) -> tuple[Bundle, list[tuple[Ask, dict[str, Any]]]]:
        """The bundle in force, and decided actions with their facts, as recorded."""

        def find(writer: Writer) -> list[dict[str, Any]]:
            last = range(max(0, writer.state.size - 4 * LAY_IN_FLIGHT), writer.state.size)
            return [dict(r.body) for r in map(writer.record, last) if r.kind == "action.decided"][-ASKS:]

        bundle: Bundle = self.gate.wait(self.gate.bundle())
        bodies = self.gate.wait(self.gate.lane.ask(find))
        return bundle, [(ask_of(body, bundle.compiled.tools[body["tool"]]), body["facts"]) for body in bodies]

    def judge_rate(self, asks: Sequence[tuple[Ask, dict[str, Any]]], seconds: float) -> float:
        """The whole judgement (kill, mandate, business key, facts, policy) per second, on the lane's own thread."""
        fresh, number = [ask for ask, _ in asks], count()

        def measure(writer: Writer) -> float:
            def step() -> None:
                turn = next(number)
                ask = fresh[turn % len(fresh)]._replace(obligation=f"sha256:{turn:064x}")
                judge(writer.state, ask, writer.at)

            return _rate(step, seconds)

        return float(self.gate.wait(self.gate.lane.ask(measure)))

    def close(self) -> None:
        self._handle.close()

    def bytes_per_action(self) -> tuple[float, float]:
        """Growth of the closed journal, and bytes of the records alone, per action."""
        grown = self._journal_bytes() - self.journal_bytes
        store = SqliteStore(self.folder / "data" / "journal.db", readonly=True)
        try:
            records = sum(len(raw) for _, raw in store.raw())
        finally:
            store.close()
        return grown / self.actions, records / self.actions


@contextmanager
def rig(folder: Path, more: str = "", *, witnesses: str = "") -> Iterator[Rig]:
    """A rig that is closed at the end."""
    made = Rig(folder, more, witnesses=witnesses)
    try:
        yield made
    finally:
        made.close()


def cedar_rate(bundle: Bundle, asks: Sequence[tuple[Ask, dict[str, Any]]], seconds: float) -> float:
    """Bare cedarpy: the bundle's whole policy text, entities and schema parsed once, the recorded requests."""
    compiled, engine = bundle.compiled, Engine(bundle)
    policies = cedarpy.PolicySet.from_str(compiled.cedar)
    schema = cedarpy.Schema.from_str(compiled.schema)
    entities = cedarpy.Entities.from_json_str(compiled.entities, schema)
    requests = [
        {
            "principal": {"type": "Agent", "id": ask.agent}, "action": {"type": "Action", "id": ask.tool.name},
            "resource": {"type": "Payee", "id": ask.terms["payee"]},
            "context": orjson.dumps(engine.context(ask.tool, ask.terms, ask.clear, facts)).decode("utf-8"),
        }
        for ask, facts in asks
    ]  # fmt: skip
    turn = count()
    return _rate(
        lambda: cedarpy.is_authorized(requests[next(turn) % len(requests)], policies, entities, schema), seconds
    )


def decide_rate(bundle: Bundle, asks: Sequence[tuple[Ask, dict[str, Any]]], seconds: float) -> float:
    """Our strict decision from recorded facts: context made, Cedar asked, answer checked."""
    engine, turn = Engine(bundle), count()

    def step() -> None:
        ask, facts = asks[next(turn) % len(asks)]
        context = engine.context(ask.tool, ask.terms, ask.clear, facts)
        engine.decide(ask.tool.name, ask.agent, ask.terms["payee"], context)

    return _rate(step, seconds)


def run_bench(as_json: bool, quick: bool = False, *, where: Path | None = None, say: Say = log.info) -> dict[str, Any]:
    """Measure on the disk of ``where`` (default: the current directory) and return the figures.

    ``say`` is told of the progress, and without ``as_json`` of the finished table. In ``quick`` mode the rounds are
    too short to be quoted, and a history that is not laid has ``per_s`` null.
    """
    plan = QUICK if quick else FULL
    own_the_process()  # as `countermark serve` does
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".countermark-bench-", dir=where or Path.cwd())
    except OSError as error:
        raise ConfigError(f"nothing can be written here: {error.strerror}", code="read_only",
                          hint="Measure in a directory on the disk that matters.") from None  # fmt: skip
    with scratch as folder:
        found = _measure(Path(folder), plan, say)
    if not as_json:
        say(table(found))
    return found


def _measure(folder: Path, plan: Plan, say: Say) -> dict[str, Any]:
    say("raw fsync")
    found: dict[str, Any] = {"fsync_per_s": _round(fsync_rate(folder, plan.fsync_s))}
    with rig(folder / "levels") as made:
        made.level(1, 0, 20)  # warm caches, and records to decide again
        bundle, asks = made.asks()
        say("decisions")
        found["cedar_per_s"] = _round(cedar_rate(bundle, asks, plan.cpu_s))
        found["decide_per_s"] = _round(decide_rate(bundle, asks, plan.cpu_s))
        found["judge_per_s"] = _round(made.judge_rate(asks, plan.cpu_s))
        governed, records_per_s = _levels(made, plan, say)
    grown, records = made.bytes_per_action()
    found |= {"governed": governed, "records_per_s": _round(records_per_s)}
    found["history"] = _history(folder, plan, say)
    return found | {"bytes_per_action": _round(grown), "record_bytes_per_action": _round(records)}


def _levels(made: Rig, plan: Plan, say: Say) -> tuple[dict[str, Any], float]:
    rounds: dict[int, list[Level]] = {n: [] for n in LEVELS}
    begin_size, seconds = made.size(), 0.0
    for turn in range(plan.rounds):
        for n in LEVELS:
            say(f"governed actions, {n} in flight, round {turn + 1} of {plan.rounds}")
            rounds[n].append(made.beside_fsync(n, plan.level_s))
            seconds += rounds[n][-1].seconds
    return {str(n): _summary(levels) for n, levels in rounds.items()}, (made.size() - begin_size) / seconds


def _history(folder: Path, plan: Plan, say: Say) -> dict[str, Any]:
    """The same work behind short and long histories, turn by turn, so that both meet the same disk.

    ``against_short`` is the median, over the turns, of the long one's rate to the short one's.
    """
    found: dict[str, Any] = {str(size): {"per_s": None} for size in HISTORY}
    with rig(folder / "short") as short, rig(folder / "long") as long:
        made = dict(zip(plan.history, (short, long), strict=False))
        for size, one in made.items():
            say(f"laying a history of {size} records")
            one.lay(size)
        rounds: dict[int, list[Level]] = {size: [] for size in made}
        for turn in range(plan.history_rounds):
            say(f"behind a history, round {turn + 1} of {plan.history_rounds}")
            for size, one in made.items():
                rounds[size].append(one.beside_fsync(HISTORY_IN_FLIGHT, 0, plan.history_actions))
    found |= {str(size): _summary(levels) for size, levels in rounds.items()}
    if len(rounds) == len(HISTORY):
        short_rounds, long_rounds = rounds.values()
        pairs = zip(short_rounds, long_rounds, strict=True)
        found[str(HISTORY[-1])]["against_short"] = round(median(b.per_s / a.per_s for a, b in pairs), 2)
    return found


def _summary(levels: list[Level]) -> dict[str, Any]:
    return {
        "per_s": _round(median(level.per_s for level in levels)),
        "p50_ms": round(median(level.p50_ms for level in levels), 3),
        "p99_ms": round(median(level.p99_ms for level in levels), 3),
        "fsync_per_s": _round(median(level.fsync_per_s for level in levels)),
    }


def _round(value: float) -> float:
    return round(value, 1)


def table(found: Mapping[str, Any]) -> str:
    """The figures as aligned text."""
    names = {
        "fsync_per_s": "raw: 4 KiB written and fdatasynced", "cedar_per_s": "bare Cedar, parsed handles",
        "decide_per_s": "strict decision from given facts", "judge_per_s": "whole judgement, facts computed",
    }  # fmt: skip
    lines = [f"{text:38}{found[name]:>12,.0f} /s" for name, text in names.items()]
    lines.append(f"\n{'governed, durable':38}{'actions/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'raw fsync/s':>13}")
    rows = [(f"{n} in flight", row) for n, row in found["governed"].items()]
    rows += [(f"{HISTORY_IN_FLIGHT} in flight, {int(n):,} records", row) for n, row in found["history"].items()]
    for name, row in rows:
        if row["per_s"] is None:
            lines.append(f"{name:38}{'not measured':>12}")
            continue
        figures = f"{row['per_s']:>12,.0f}{row['p50_ms']:>10.2f}{row['p99_ms']:>10.2f}{row['fsync_per_s']:>13,.0f}"
        lines.append(f"{name:38}{figures}")
        if "against_short" in row:
            lines.append(f"{'  against the shorter history':38}{row['against_short']:>12.2f}")
    lines.append(f"\n{'records':38}{found['records_per_s']:>12,.0f} /s over all levels")
    lines.append(f"{'journal bytes per action':38}{found['bytes_per_action']:>12,.0f}")
    lines.append(f"{'of which records':38}{found['record_bytes_per_action']:>12,.0f}")
    return "\n".join(lines)
