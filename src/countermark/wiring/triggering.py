"""What starts runs by itself in the process that owns a gate: schedules, events, and chains that are followed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from countermark.gate import Caller, Gate, Writer
from countermark.journal import SqliteStore
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Clock
from countermark.wiring.config import FILE, Config, resolve_secret

if TYPE_CHECKING:
    from countermark.wiring.workflow_folder import Found
    from countermark.workflow import ChainSource, ChainWatcher, Engine, Known, Moment, Position, Runs, Scheduler

STANDING = "triggers.json"
POSITIONS = "sources"
JOIN_WAIT_S = 15

log = logging.getLogger("countermark.workflow")


class Triggering:
    """Begins and ends with its owner. ``faults`` are definitions and sources that start nothing, and why."""

    def __init__(
        self, config: Config, gate: Gate, clock: Clock, engine: Callable[[], Awaitable[Engine]],
        count: Callable[[str], None] = lambda what: None,
    ) -> None:  # fmt: skip
        self._config = config
        self._gate = gate
        self._clock = clock
        self._engine = engine
        self._count = count
        self._faults: dict[str, str] = {}
        self._scheduler: Scheduler | None = None
        self._watchers: list[ChainWatcher] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._store: SqliteStore | None = None

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong now, by file or source; values are codes and sentences of our own."""
        chains = {one.name: one.fault for one in self._watchers if one.fault}
        return {**self._faults, **chains}

    async def start(self) -> None:
        """On the gate's loop: put the folder's definitions in force. What cannot begin must not keep the gate shut."""
        try:
            runs = await self._runs()
            if runs:
                await self._schedule(runs)
            for source in self._config.workflows.chains.values():
                self._watch(source)
        except CountermarkError as error:
            self._fault("triggers", error.message)

    async def _runs(self) -> list[Runs]:
        """The definitions of the folder that something starts, each recorded; also those that they call."""
        settings = self._config.workflows
        if not settings.path(self._config.root).is_dir():
            return []
        found, runs = startable(self._config, settings.known(await self._gate.bundle()))
        for name, error in found.faults.items():
            self._fault(name, error.message)
        if runs:
            engine = await self._engine()
            for name, definition in found.definitions.items():
                try:
                    await engine.define(definition)
                except CountermarkError as error:
                    self._fault(name, error.message)
                    runs = [one for one in runs if one.definition is not definition]
        return runs

    def _fault(self, name: str, why: str) -> None:
        self._faults[name] = why
        log.error("workflow %s: %s", name, why)

    async def _schedule(self, runs: list[Runs]) -> None:
        from countermark.workflow import Scheduler, Standing

        engine = await self._engine()
        standing = Standing(self._config.journal.with_name(STANDING), self._config.lane)
        self._store = SqliteStore(self._config.journal, readonly=True)
        self._scheduler = Scheduler(
            engine, self._store, standing, self._clock, self._gate.loop, self._moment, self._count
        )  # fmt: skip
        self._gate.desk.follow(self._scheduler.heard)
        self._scheduler.load(runs)
        self._gate.desk.spawn(self._scheduler.run())

    async def _moment(self) -> Moment:
        moment: Moment = await self._gate.lane.ask(moment_of)
        return moment

    def _watch(self, source: ChainSource) -> None:
        """Follow a chain on a thread of its own."""
        from countermark.workflow import ChainWatcher, PositionFile

        evm = self._config.evm
        if evm is None:
            raise ConfigError(f"the source {source.name} needs [connector.evm]")
        from countermark.wiring.evm_settings import rpc_of

        rpc = rpc_of(source.chain_id, evm.chains[source.chain_id], lambda one: resolve_secret(one, self._config.root))
        path = self._config.journal.parent / POSITIONS / source.name
        file = PositionFile(path, source, self._config.lane)
        watcher = ChainWatcher(source, rpc, file, self._deliver, lambda: self._recorded(source))
        thread = threading.Thread(
            target=watcher.run, args=(self._stop,), name=f"countermark-{source.name}", daemon=True
        )  # fmt: skip
        self._watchers.append(watcher)
        self._threads.append(thread)
        thread.start()

    def _deliver(self, body: Mapping[str, Any]) -> None:
        self._gate.wait(self._gate.call("event.received", body, Caller("", self._gate.tier)))

    def _recorded(self, source: ChainSource) -> Position | None:
        """Before the block of the newest event of a source; None when none was recorded."""
        from countermark.workflow import Position

        store = SqliteStore(self._config.journal, readonly=True)
        try:
            newest = -1
            for seq, raw in store.raw():
                if b'"event.received"' in raw:
                    record = store.record(seq)
                    if record.kind == "event.received" and record.body["source"] == source.name:
                        newest = int(record.body["evidence"]["number"])
            return None if newest < 0 else Position(newest - 1, "")
        finally:
            store.close()

    def close(self) -> None:
        """Before the gate closes: end the threads. What they had under way is done again."""
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_WAIT_S)
        for watcher in self._watchers:
            watcher.close()

    def closed(self) -> None:
        """After the gate has closed: remember how far it is."""
        if self._scheduler is not None:
            self._scheduler.close()
        if self._store is not None:
            self._store.close()


def startable(config: Config, known: Known) -> tuple[Found, list[Runs]]:
    """The folder's definitions, and those that something starts; ``faults`` has why others start nothing."""
    from countermark.wiring.workflow_folder import read_folder
    from countermark.workflow import Runs

    settings = config.workflows
    found = read_folder(settings.path(config.root), known)
    runs: list[Runs] = []
    for name, definition in found.definitions.items():
        agent = settings.agents.get(name, settings.agent)
        if not any(one["kind"] != "manual" for one in definition.triggers):
            continue
        if agent:
            runs.append(Runs(definition, agent))
        else:
            found.faults[name] = ConfigError(f"nobody runs it: name an agent in {FILE}, workflows.agent")
    return found, runs


def moment_of(writer: Writer) -> Moment:
    """The gate's own time, and who may not act."""
    from countermark.workflow import Moment

    scopes = list(writer.state.kills.values())
    stopped = frozenset(str(one["value"]) for one in scopes if one["kind"] == "agent")
    return Moment(writer.now, any(one["kind"] == "deployment" for one in scopes), stopped)
