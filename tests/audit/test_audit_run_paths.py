"""Past runs held against a definition that was written later, from the records of a pack."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from countermark.audit import (
    PackedRecords,
    PackError,
    audit_runs,
    driven_runs,
    read_exceptions,
    receipt_lines,
    run_drawn,
    run_receipt,
    runs_lines,
)
from countermark.model.canon import canon
from countermark.model.errors import ArgumentError, ConfigError
from countermark.model.records import Record, read
from countermark.workflow import Definition, read_definition

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"


def packed(name: str) -> PackedRecords:
    return PackedRecords(FILES / f"{name}.zip")


def definition_of(source: PackedRecords, name: str = "pay-invoice") -> Definition:
    found = next(run.own for run in driven_runs(source, name=name))
    if found is None:
        raise LookupError(name)
    return found


def later(definition: Definition) -> Definition:
    """The same with a screening before the payment."""
    screen = {
        "id": "screen", "kind": "pure", "name": "", "if": None, "continue_on_error": False, "timeout_s": None,
        "retry": None, "with": [], "code": "def main():\n    return {}\n", "outputs": {},
    }  # fmt: skip
    jobs = [
        {**job, "steps": [screen, *job["steps"]]} if job["id"] == "pay" else job for job in definition.document["jobs"]
    ]
    return read_definition({**definition.document, "jobs": jobs})


@pytest.fixture(scope="module")
def honest() -> PackedRecords:
    return packed("honest-workflow")


def test_honest_runs_deviate_from_nothing_that_was_declared(honest: PackedRecords) -> None:
    """Each run against its own definition, whether it succeeded or failed and was undone."""
    for run in driven_runs(honest):
        assert run.own is not None
        found = audit_runs(honest, run.own, run=run.run)
        assert (found["checked"], found["deviating"], found["open"]) == (1, 0, 0)


def test_every_run_with_the_same_deviation_is_listed(honest: PackedRecords) -> None:
    """A step that a later definition wants is missing in all of them, and each says how many others lack it."""
    definition = later(definition_of(honest))
    runs = [run.run for run in driven_runs(honest, name="pay-invoice")]
    found = audit_runs(honest, definition)
    (alike,) = found["alike"]
    assert (alike["place"], alike["kind"], alike["count"]) == ("pay.screen", "skipped", len(runs))
    assert sorted(alike["runs"]) == sorted(runs)
    assert {row["deviations"][0]["others"] for row in found["runs"]} == {len(runs) - 1}
    text = "\n".join(runs_lines(found))
    assert f"step skipped pay.screen: {len(runs)} run" in text
    assert "pay.screen > pay.send" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("workflow-step-skipped", ("plan.net", "skipped")),
        ("workflow-action-that-no-step-asks-for", ("pay.again", "not_declared")),
        ("workflow-compensation-left-out", ("pay.send.undo", "skipped")),
        ("workflow-step-done-twice", ("pay.send", "not_allowed")),
        ("workflow-ended-too-early", ("pay.arrival", "skipped")),
    ],
)
def test_what_an_insider_left_out_or_did_beside_the_path_is_found(name: str, expected: tuple[str, str]) -> None:
    """The same forgeries that the verifier refutes."""
    source = packed(name)
    (row,) = audit_runs(source, definition_of(source))["runs"]
    assert expected in [(one["place"], one["kind"]) for one in row["deviations"]]


def test_half_a_run_is_not_judged() -> None:
    """An extract that begins in the middle of a run says nothing about what is missing there."""
    source = packed("extract-second-half-of-a-workflow")
    (run,) = driven_runs(source)
    assert run.own is not None
    found = audit_runs(source, run.own)
    assert (found["checked"], found["incomplete"], found["deviating"]) == (0, 1, 0)
    with pytest.raises(ArgumentError, match="not all records"):
        run_receipt(source, run.run)


def exception(**changed: Any) -> str:
    members = {
        "ticket": '"OPS-7"', "person": '"ada"', "at": "2026-11-01T09:00:00Z", "deviation": '"skipped"',
        "place": '"pay.screen"', "from": "2026-11-01T00:00:00Z", "until": "2026-12-01T00:00:00Z", **changed,
    }  # fmt: skip
    rows = "\n".join(f"{name} = {value}" for name, value in members.items() if value is not None)
    return f"[[exception]]\n{rows}\n"


def test_a_legitimate_exception_clears_what_is_in_its_scope_and_is_shown(honest: PackedRecords) -> None:
    """With its ticket; outside of its time, its place or its run nothing is cleared."""
    definition = later(definition_of(honest))
    runs = [run.run for run in driven_runs(honest, name="pay-invoice")]
    found = audit_runs(honest, definition, exceptions=read_exceptions(exception()))
    assert (found["deviating"], found["cleared_count"]) == (0, len(runs))
    assert {row["exception"]["ticket"] for row in found["cleared"]} == {"OPS-7"}
    assert "ticket OPS-7, ada" in "\n".join(runs_lines(found))
    bound = {"from": None, "until": None}
    for text, count in (
        (exception(until="2026-11-01T10:00:00Z"), 0), (exception(place='"pay.send"'), 0),
        (exception(run=f'"{runs[0]}"', **bound), 1),
    ):  # fmt: skip
        found = audit_runs(honest, definition, exceptions=read_exceptions(text))
        assert (found["cleared_count"], found["deviating"]) == (count, len(runs) - count)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (exception(ticket=None), "no ticket"),
        (exception(at=None), "at which time"),
        (exception(at="2026-11-01"), "without date, time and zone"),
        (exception(until=None), "must name a run"),
        (exception(run='"run_1"'), "must name a run"),
        (exception(tool='"x"'), "other members"),
        ("exception = 1", "tables"),
        ("[[exception", "cannot be read"),
    ],
)
def test_an_exception_without_ticket_person_time_or_bound_is_refused(text: str, says: str) -> None:
    """An exception that clears everything for ever is none."""
    with pytest.raises(ConfigError, match=says):
        read_exceptions(text)


def test_a_receipt_from_a_pack_names_what_each_step_rests_on(honest: PackedRecords) -> None:
    """Digests, the idempotency key, the provider's reference, the weakest tier, what was not run."""
    for run in driven_runs(honest):
        found = run_receipt(honest, run.run)
        text = "\n".join(receipt_lines(found))
        assert found["tier"] in text
        assert all(step["place"] in text for step in found["steps"])
        assert "key cm_" in text
    assert run_drawn(honest, run.run).startswith("<svg")


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    """With an error that names the file."""
    (tmp_path / "x.zip").write_bytes(b"PK")
    for path in (tmp_path / "x.zip", tmp_path / "none.zip"):
        with pytest.raises(PackError, match="no pack"):
            PackedRecords(path)


class Long:
    """A journal of runs that all began and none of which ended, made as it is read."""

    def __init__(self, runs: int) -> None:
        self.runs = runs

    def size(self) -> int:
        return 3 * self.runs

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        for seq in range(self.size()):
            yield seq, self._bytes(seq)

    def record(self, seq: int) -> Record:
        return read(self._bytes(seq))

    def _bytes(self, seq: int) -> bytes:
        run = f"run_f10e{seq % self.runs:028x}"
        body: dict[str, Any] = {"run": run, "agent": "payer", "text": "x" * 10_000}
        if seq < self.runs:
            trigger = {"kind": "manual", "event": "", "record": None}
            body |= {"workflow": {"name": "pay", "definition": "sha256:" + "0" * 64, "trigger": trigger}}
        kind = "run.started" if seq < self.runs else "compute.executed"
        return canon({"at": 1, "body": body, "by": "gate", "kind": kind, "lane": "l0", "nonce": "0" * 32,
                      "prev": "sha256:" + "0" * 64, "seq": seq, "streams": {}, "v": 1})  # fmt: skip


def test_runs_that_are_open_take_no_memory_for_what_they_did() -> None:
    """Of 18 MB of records that belong to open runs one run's are in memory at a time."""
    source = Long(600)
    tracemalloc.start()
    try:
        assert [len(run.records) for run in driven_runs(source)] == [3] * source.runs
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
