"""DBOS: schedules, queues and resumes runs of definitions over several processes (extra ``dbos``).

    with Host(deployment, name="treasury", database="postgresql://...", executor="a") as host:
        host.schedule("sweep", "0 6 * * 1-5", digest, zone="Europe/Berlin")
        run = host.result(host.enqueue(digest, {"invoice": "INV-1"}, workflow_id="INV-1"))

DBOS records a step after it ran, so a step whose process dies runs again. Here that is harmless: a step only asks the
gate to go on with a run, and the gate's records, not DBOS's rows, say how far it is. A DBOS workflow is one run,
whatever happens: its id is the event that started it. Several processes may drive the same run at the same time.

DBOS's rows are JSON. It would also read rows in pickle, which run code of whoever wrote them; here it does not.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, Protocol

from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError, CountermarkError, EncodingError
from countermark.model.ports import Clock

QUEUE = "countermark"
VERSION = "countermark-1"  # of what stands in DBOS's rows: any process with the same resumes what another began
CONCURRENCY = 16
DATABASE_WAIT_S = 30
POLL_S, POLL_S_MAX = 1.0, 30.0  # between two questions about a run that waits: the first, and after many
OVER = ("success", "failure", "cancelled")

_SQLITE = "sqlite:///"

log = logging.getLogger("countermark.hosts")


class Driver(Protocol):
    """A ``Deployment``: the gate's owner, or its client over the socket."""

    def call(self, op: str, body: Mapping[str, Any], agent: str | None = ...) -> Any: ...


class _Stopped(BaseException):
    """This process ends. DBOS records no outcome for it, so the workflow is resumed."""


class Host:
    """This process's part of a DBOS application; there is one in a process. ``with`` starts and ends it.

    ``executor``: the name of this process's place. What was under way in it when it died is resumed by whoever starts
    under the same name, or adopts it. ``concurrency``: runs that this process drives at once; ``everywhere``: runs
    that all of them do.
    """

    def __init__(
        self, gate: Driver, *, name: str, database: str, executor: str, concurrency: int = CONCURRENCY,
        everywhere: int | None = None, poll_s: float = POLL_S, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        if concurrency < 1 or (everywhere is not None and everywhere < 1):
            raise ConfigError("concurrency is at least 1")
        try:
            from dbos import DBOS, DBOSPortableJSONSerializer
        except ImportError:
            raise ConfigError("DBOS is not installed", hint="uv add 'countermark[dbos]'") from None
        _refuse_pickle()
        _write_ahead(database)
        self._gate, self._clock, self._poll = gate, clock or SystemClock(), poll_s
        self._concurrency, self._everywhere = concurrency, everywhere
        self._stop = threading.Event()
        self._dbos = DBOS
        DBOS(config={
            "name": name, "system_database_url": database, "serializer": DBOSPortableJSONSerializer(),
            "executor_id": executor, "application_version": VERSION, "log_level": "WARNING",
            "sys_db_pool_size": concurrency + 4,
        })  # fmt: skip

        # A process may die as often as it will: each attempt goes on where the gate's records end.
        @DBOS.workflow(name="countermark.run", max_recovery_attempts=None)
        def run(definition: Any, inputs: dict[str, Any]) -> dict[str, Any]:
            return self._drive(definition, inputs)

        @DBOS.workflow(name="countermark.due", max_recovery_attempts=None)
        def due(at: datetime, context: Any) -> dict[str, Any]:
            return self._drive(context["definition"], context["inputs"])

        self._run, self._due = run, due

    def start(self) -> None:
        """Begin to drive what is queued, and resume what this executor left."""
        self._dbos.launch()
        self._dbos.register_queue(
            QUEUE, worker_concurrency=self._concurrency, global_concurrency=self._everywhere,
            polling_interval_sec=min(self._poll, 1.0), on_conflict="always_update",
        )  # fmt: skip

    def close(self) -> None:
        """Drive nothing more from here. What is under way goes on in the next process of this name."""
        self._stop.set()
        self._dbos.destroy(destroy_registry=True)

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enqueue(
        self, definition: str | Mapping[str, Any], inputs: Mapping[str, Any] | None = None, *, workflow_id: str
    ) -> str:
        """Queue a run of a definition (its digest or its document). The same ``workflow_id`` again is the same run.

        The inputs stand in DBOS's database, in clear. Returns the DBOS workflow's id.
        """
        from dbos import SetWorkflowID

        asked = definition if isinstance(definition, str) else dict(definition)
        with SetWorkflowID(workflow_id):
            handle = self._dbos.enqueue_workflow(QUEUE, self._run, asked, dict(inputs or {}))
        return handle.workflow_id

    def result(self, workflow_id: str) -> dict[str, Any]:
        """Wait for a run's end: ``{"run", "status"}``. What it did is the gate's to say."""
        found: dict[str, Any] = self._dbos.retrieve_workflow(workflow_id).get_result(
            polling_interval_sec=min(self._poll, 1.0)
        )
        return found

    def schedule(
        self, name: str, cron: str, definition: str | Mapping[str, Any], inputs: Mapping[str, Any] | None = None, *,
        zone: str = "UTC", catch_up: bool = False,
    ) -> None:  # fmt: skip
        """Start a run whenever ``cron`` says, exactly one for each time, however many processes are there.

        ``catch_up`` also starts those that were missed while no process ran. The same name again replaces it.
        """
        asked = definition if isinstance(definition, str) else dict(definition)
        due: Any = self._due
        self._dbos.apply_schedules([{
            "schedule_name": name, "workflow_fn": due, "schedule": cron, "cron_timezone": zone,
            "context": {"definition": asked, "inputs": dict(inputs or {})}, "automatic_backfill": catch_up,
            "queue_name": QUEUE,
        }])  # fmt: skip

    def adopt(self, executor: str) -> int:
        """Resume here what was under way in a process that is gone for good. Returns how many runs.

        That it is gone need not be certain: a run that two processes drive is still one run.
        """
        return len(self._dbos._recover_pending_workflows([executor]))

    def _drive(self, definition: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """The DBOS workflow: a step that starts the run, and one that drives it to its end, begun anew if it broke off.

        A run that waits is asked about within that step, so that DBOS's rows do not grow with the time it takes.
        """
        trigger = {"kind": "manual", "event": f"dbos:{self._dbos.workflow_id}", "record": None}
        body: dict[str, Any] = {"definition" if isinstance(definition, str) else "document": definition}
        body |= {"inputs": inputs, "trigger": trigger}
        run = self._dbos.run_step({"name": "countermark.start"}, self._start, body)
        state: dict[str, Any] = self._dbos.run_step({"name": "countermark.drive"}, self._to_its_end, run)
        return state

    def _start(self, body: dict[str, Any]) -> str:
        run: str = self._patiently(lambda: self._gate.call("workflow.start", body))["run"]
        return run

    def _to_its_end(self, run: str) -> dict[str, Any]:
        pause_s = self._poll
        while True:
            state = self._patiently(lambda: self._gate.call("workflow.drive", {"run": run}))
            if state["status"] in OVER:
                return {"run": run, "status": state["status"]}
            if state["status"] != "waiting":
                pause_s = self._poll
                continue
            due_s = 0.0 if state["until"] is None else (state["until"] - self._clock.now_us()) / US
            self._pause(min(pause_s, due_s) if due_s > 0 else pause_s)  # what is due and waits its turn is not hurried
            pause_s = min(POLL_S_MAX, 2 * pause_s)

    def _patiently(self, ask: Callable[[], Any]) -> dict[str, Any]:
        """Ask until the gate answers. An error that asking again does not mend ends the DBOS workflow, not the run."""
        while True:
            if self._stop.is_set():
                raise _Stopped
            try:
                answer: dict[str, Any] = ask()
                return answer
            except CountermarkError as error:
                if not error.retryable:
                    raise
                log.warning("the gate does not answer: %s", error)
            except OSError as error:
                log.warning("the gate does not answer: %s", error)
            self._pause(self._poll)

    def _pause(self, wait_s: float) -> None:
        if self._stop.wait(wait_s):
            raise _Stopped


def _write_ahead(database: str) -> None:
    """DBOS opens SQLite with a rollback journal; the file itself remembers otherwise."""
    if not database.startswith(_SQLITE):
        return
    clock, pause = SystemClock(), threading.Event()
    end = clock.steady_us() + DATABASE_WAIT_S * US
    with closing(sqlite3.connect(database.removeprefix(_SQLITE), timeout=DATABASE_WAIT_S)) as file:
        while True:
            try:
                file.execute("pragma journal_mode=wal")
                return
            except sqlite3.OperationalError:  # SQLite itself does not wait here for another process that opens it
                if clock.steady_us() >= end:
                    raise
            pause.wait(0.05)


def _refuse_pickle() -> None:
    """Whatever serializer DBOS is given, it unpickles a row that says so. In this process it refuses."""
    from dbos import Serializer, _serialization

    class Refusing(Serializer):
        def name(self) -> str:
            return "py_pickle"

        def serialize(self, data: Any) -> str:
            raise EncodingError("a row for DBOS would be written in pickle")

        def deserialize(self, serialized_data: str) -> Any:
            raise EncodingError("a row of DBOS is in pickle, which runs code of whoever wrote it")

    _serialization.DBOSDefaultSerializer = Refusing()
