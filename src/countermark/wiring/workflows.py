"""The engine of workflows for an owner: made when somebody first asks for a run, or when runs are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from countermark.gate import Gate
from countermark.journal import SqliteStore
from countermark.model.errors import ConfigError
from countermark.model.ports import Clock
from countermark.wiring.config import Config

if TYPE_CHECKING:
    from countermark.workflow import Known

WORKERS = 2
HINT = "uv add 'countermark[workflow]'"


class Workflows:
    """What a gate calls its driver; ``close`` comes after the gate's. ``faults`` tells what starts nothing, and why."""

    def __init__(self, config: Config, gate: Gate, clock: Clock) -> None:
        self._config = config
        self._gate = gate
        self._clock = clock
        self._lock: asyncio.Lock | None = None
        self._service: Any = None
        self._engine: Any = None
        self.faults: Callable[[], dict[str, str]] = dict

    async def start(self) -> None:
        """Go on with the runs that are open, if there are any."""
        if await self._gate.lane.ask(lambda writer: writer.state.runs.driven):
            await self._ready()

    async def call(self, op: str, body: Mapping[str, Any], agent: str) -> Any:
        """One of the operations ``workflow.*``."""
        if op == "workflow.faults":
            return self.faults()
        if self._service is None:
            await self._ready()
        return await self._service.call(op, body, agent)

    async def engine(self) -> Any:
        """The engine itself, made when it is first asked for."""
        if self._service is None:
            await self._ready()
        return self._engine

    async def _ready(self) -> None:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._service is not None:
                return
            if find_spec("starlark") is None:
                raise ConfigError("workflows need an extra of this package", hint=HINT)
            from countermark.compute import ENGINE, Limits, Pool
            from countermark.wiring.seals import VaultSeals
            from countermark.workflow import Engine, Projection, Service

            limits = Limits()
            bounds = {"ticks": limits.ticks, "memory_mb": limits.memory_mb, "seconds": limits.seconds}
            engine = Engine(
                self._gate.desk, self._gate.loop, SqliteStore(self._config.journal, readonly=True),
                Projection(self._config.journal.with_name("runs.db")), Pool(WORKERS), ENGINE, bounds,
                VaultSeals(self._config), self._config.workflows.known(None).sources or (),
            )  # fmt: skip
            try:
                await engine.start()
            except BaseException:  # the next call tries again, with another one
                engine.close()
                raise
            self._engine, self._service = engine, Service(engine, self._known)

    async def _known(self) -> Known:
        return self._config.workflows.known(await self._gate.bundle())

    def close(self) -> None:
        """Let go of workers and rows."""
        if self._engine is not None:
            self._engine.close()
