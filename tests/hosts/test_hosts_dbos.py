"""DBOS schedules and resumes; the gate, here a fake, says what a run is and when it is over."""

from __future__ import annotations

import json
import sqlite3
import threading
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from dbos import DBOS
from fake_driver import FakeGate

from countermark.hosts.dbos import Host
from countermark.model.clock import US, FakeClock
from countermark.model.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def hosting(gate: Any, database: str, executor: str = "a", **more: Any) -> Host:
    return Host(gate, name="tests", database=database, executor=executor, poll_s=0.01, **more)


def rows(database: str, statement: str) -> list[Any]:
    engine = sqlalchemy.create_engine(database)
    schema = "" if database.startswith("sqlite") else "dbos."
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text(statement.replace("dbos.", schema))).fetchall()
    engine.dispose()
    return list(found)


def test_a_run_is_started_once_and_driven_to_its_end(database: str) -> None:
    """The DBOS workflow's id is the run's event; queued twice it is one run; what DBOS keeps is JSON."""
    gate = FakeGate(("running", None), ("waiting", None), ("waiting", 1), ("success", None))
    with hosting(gate, database) as host:
        ids = [host.enqueue("sha256:d", {"invoice": "INV-1"}, workflow_id="pay-1") for _ in range(2)]
        assert ids == ["pay-1"] * 2
        assert [host.result("pay-1") for _ in range(2)] == [{"run": "run_" + "0" * 32, "status": "success"}] * 2
    (run,) = gate.runs.values()
    assert run["trigger"] == {"kind": "manual", "event": "dbos:pay-1", "record": None}
    assert (run["definition"], run["inputs"]) == ("sha256:d", {"invoice": "INV-1"})
    assert gate.asked == ["workflow.start", *["workflow.drive"] * 4]
    kept = rows(database, "select status, serialization from dbos.workflow_status")
    assert [tuple(row) for row in kept] == [("SUCCESS", "portable_json")]
    steps = rows(
        database, "select function_name, output, serialization from dbos.operation_outputs order by function_id"
    )
    assert [(row[0], row[2]) for row in steps] == [
        ("countermark.start", "portable_json"),
        ("countermark.drive", "portable_json"),
    ]
    assert json.loads(steps[1][1])["status"] == "success"


def test_a_run_that_waits_its_turn_is_asked_about_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time has come, but the gate has no room for it yet: to ask at once and again would only take more of it."""
    clock, pauses, host = FakeClock(), list[float](), Host.__new__(Host)
    past, soon = clock.now_us() - 5 * US, clock.now_us() + US // 4
    gate = FakeGate(*[("waiting", past)] * 3, ("waiting", soon), ("success", None))
    monkeypatch.setattr(host, "_pause", pauses.append)
    host._gate, host._clock, host._poll, host._stop = gate, clock, 1.0, threading.Event()
    host._to_its_end("run_1")
    assert pauses == [1.0, 2.0, 4.0, 0.25]


def test_what_a_process_left_is_resumed_under_its_name(database: str) -> None:
    """A host that ends in the midst of a run leaves it; the next one of that name goes on, with the same run."""
    gate = FakeGate(("waiting", None))
    with hosting(gate, database) as host:
        host.enqueue("sha256:d", workflow_id="pay-1")
        while gate.drives == {}:
            threading.Event().wait(0.01)
    gate.plan = (("success", None),)
    with hosting(gate, database) as host:
        assert host.result("pay-1")["status"] == "success"
    assert len(gate.runs) == 1
    assert gate.asked.count("workflow.start") == 1  # that step was over, and DBOS knows it


def test_another_process_adopts_what_a_dead_one_left(database: str) -> None:
    """Under another name nothing is resumed by itself, until somebody says that the first one is gone."""
    gate = FakeGate(("waiting", None))
    with hosting(gate, database) as host:
        host.enqueue("sha256:d", workflow_id="pay-1")
        while gate.drives == {}:
            threading.Event().wait(0.01)
    gate.plan = (("failure", None),)
    with hosting(gate, database, "b") as host:
        assert host.adopt("a") == 1
        assert host.result("pay-1")["status"] == "failure"
    assert len(gate.runs) == 1


@pytest.mark.slow
def test_a_gate_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Lost answers are asked for again; the run is started once all the same."""
    gate = FakeGate(("running", None), ("success", None))
    gate.away = 3
    with hosting(gate, f"sqlite:///{tmp_path / 'd'}") as host:
        host.enqueue("sha256:d", workflow_id="pay-1")
        assert host.result("pay-1")["status"] == "success"
    assert gate.asked == [*["workflow.start"] * 4, *["workflow.drive"] * 2]


def test_what_the_gate_refuses_is_an_error_of_the_workflow(tmp_path: Path) -> None:
    """An error that asking again does not mend ends the DBOS workflow, with the gate's code."""
    with hosting(FakeGate(), f"sqlite:///{tmp_path / 'd'}") as host:
        host.enqueue("bad", workflow_id="pay-1")
        with pytest.raises(Exception, match="unknown_definition"):
            host.result("pay-1")


@pytest.mark.slow
def test_so_many_runs_are_driven_at_once(tmp_path: Path) -> None:
    """The queue hands out no more than ``concurrency`` runs, and all of them end."""
    gate = FakeGate()
    gate.held = threading.Event()
    with hosting(gate, f"sqlite:///{tmp_path / 'd'}", concurrency=2) as host:
        for number in range(6):
            host.enqueue("sha256:d", workflow_id=f"pay-{number}")
        while gate.driving < 2:
            threading.Event().wait(0.01)
        gate.held.set()
        assert [host.result(f"pay-{number}")["status"] for number in range(6)] == ["success"] * 6
    assert gate.most == 2
    assert len(gate.runs) == 6


def test_a_schedule_starts_one_run_for_each_time(tmp_path: Path) -> None:
    """A due time is the DBOS workflow's id, thus the run's event: two hosts' schedulers would start the same one."""
    gate = FakeGate()
    with hosting(gate, f"sqlite:///{tmp_path / 'd'}") as host:
        for _ in range(2):
            host.schedule("sweep", "0 6 1 1 *", "sha256:d", {"limit": 5}, zone="Europe/Berlin")
        handle = DBOS.trigger_schedule("sweep")
        assert handle.get_result()["status"] == "success"
    (run,) = gate.runs.values()
    assert run["trigger"] == {"kind": "manual", "event": f"dbos:{handle.workflow_id}", "record": None}
    assert (run["definition"], run["inputs"]) == ("sha256:d", {"limit": 5})


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    """The file is in WAL mode before DBOS opens it."""
    with hosting(FakeGate(), f"sqlite:///{tmp_path / 'd'}"), closing(sqlite3.connect(tmp_path / "d")) as file:
        assert file.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_row_in_pickle_is_not_read(tmp_path: Path) -> None:
    """Whoever can write DBOS's rows cannot run code in a host by them: a pickled row is refused, and nothing runs."""
    path = tmp_path / "d"
    touched = tmp_path / "touched"
    code = b64encode(f"cbuiltins\nopen\n(S'{touched}'\nS'w'\ntR.".encode()).decode()
    with hosting(FakeGate(("waiting", None)), f"sqlite:///{path}") as host:
        host.enqueue("sha256:d", workflow_id="pay-1")
        while rows(f"sqlite:///{path}", "select status from dbos.workflow_status")[0][0] != "PENDING":
            threading.Event().wait(0.01)
    with closing(sqlite3.connect(path)) as file:
        file.execute("update workflow_status set inputs = ?, serialization = 'py_pickle'", (code,))
        file.commit()
    gate = FakeGate()
    with hosting(gate, f"sqlite:///{path}") as host:
        host.enqueue("sha256:d", workflow_id="pay-2")
        assert host.result("pay-2")["status"] == "success"
        status = DBOS.get_workflow_status("pay-1")  # which reads the row
        assert status is not None
        assert status.status == "PENDING"
    assert not touched.exists()
    assert list(gate.runs) == ["dbos:pay-2"]


def test_there_is_room_for_at_least_one_run(tmp_path: Path) -> None:
    """No concurrency is an error of the configuration."""
    with pytest.raises(ConfigError, match="at least 1"):
        hosting(FakeGate(), f"sqlite:///{tmp_path / 'd'}", concurrency=0)
