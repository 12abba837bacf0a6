"""Heads are published beside the lane; what comes back is recorded; nobody waits for a destination that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published import Newspaper, published, wanting
from rig import Provider, hold, make, pay
from support import records

from countermark.gate import publishing
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.model.ports import Head


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is long for a test."""
    for name, value in (("PUBLISH_S", 0.01), ("CLOSE_WAIT_S", 0.2)):
        monkeypatch.setattr(publishing, name, value)
    monkeypatch.setattr("countermark.wiring.publishing.MAKERS", ())  # nobody is asked who is not named here
    monkeypatch.setattr("countermark.gate.highwater.PUBLISH_S", 0.02)
    monkeypatch.setattr("countermark.gate.highwater.NUDGED_S", 0.01)


def test_what_a_destination_answers_is_recorded_and_then_heads_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each published head that held something new gives one record; that record alone publishes nothing more."""
    provider, paper = Provider(), Newspaper()
    make(tmp_path, provider, edit=wanting("alpha", "beta"))
    with published(monkeypatch, paper), hold(tmp_path, provider) as handle:
        paper.wait()
        pay(handle, 1)
        paper.wait()
    found = records(tmp_path)
    witnessed = [record for record in found if record.kind == "head.witnessed"]
    assert [record.body["size"] for record in witnessed] == [head.size for head in paper.heads]
    assert all(record.by == "gate" and list(record.streams) == ["g"] for record in witnessed)
    kinds = [record.kind for record in found]
    assert len(witnessed) <= sum(kind != "head.witnessed" for kind in kinds[witnessed[0].seq - 1 :])
    assert paper.closed == 1


def test_the_last_head_is_published_before_the_gate_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded a moment before the end is published too, and its record precedes ``gate.stopped``."""
    provider, paper = Provider(), Newspaper()
    make(tmp_path, provider, edit=wanting("alpha", "beta"))
    with published(monkeypatch, paper), hold(tmp_path, provider) as handle:
        pay(handle, 1)
    kinds = [record.kind for record in records(tmp_path)]
    assert kinds[-2:] == ["head.witnessed", "gate.stopped"]
    assert set(kinds[paper.heads[-1].size : -1]) == {"head.witnessed"}


def test_what_was_published_is_the_head_of_the_answer_not_the_newest() -> None:
    """A destination that finishes an older head first, as an anchor does, is offered what came since once more."""
    asked: list[bool] = []

    class Anchor(Newspaper):
        effects_wait = False

        def due(self, head: Head, busy: bool, now_us: int) -> bool:
            asked.append(busy)
            return busy

        def publish(self, head: Head) -> tuple[str, Mapping[str, Any]]:
            return "anchor.published", {"size": 5 if len(asked) == 1 else head.size}

    every: Any = SimpleNamespace(head=Head(9, b"", b""), busy_size=9, awaited=-1, clock=FakeClock(),
                                 write=lambda *_: None)  # fmt: skip
    errand = publishing._Errand(Anchor(), every)
    for _ in range(3):
        errand._turn()
    assert asked == [True, True], "once for the head under way, once for the newest, and then it rests"


WRONG: dict[str, dict[str, object]] = {
    "another root": {"root": "00" * 32},
    "another size": {"size": 1},
    "no head of this log": {"size": 5_000},
    "a time to come": {"answered": 2**52},
    "answered before it was asked": {"answered": 0},
    "a note without cosignatures": {"note": ""},
    "one member more": {"more": 1},
}


def test_what_no_quorum_of_witnesses_said_of_this_log_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane judges what a destination returns: a wrong answer of any kind is no record, and money stands still."""
    provider, paper = Provider(), Newspaper()
    made = make(tmp_path, provider, edit=wanting("alpha", "beta"))
    monkeypatch.setattr("countermark.gate.gate.FIRST_HEAD_S", 0.01)
    monkeypatch.setattr(publishing, "PAUSE_S_MAX", 0.01)
    paper.script = [
        *({"changes": changes} for changes in WRONG.values()),
        {"names": ("alpha",)}, {"late_s": 86_400}, {"kind": "kill.cleared"},
    ]  # fmt: skip
    count = len(paper.script)
    with published(monkeypatch, paper), hold(made.root, provider) as handle:
        for _ in range(count):
            paper.wait()
        result = pay(handle, 1)
    assert (result.status, result.code) == ("denied", "witness_stale")
    assert not {"head.witnessed", "kill.cleared"} & {record.kind for record in records(tmp_path)}
    assert provider.sent == []


def test_a_destination_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures, then the head goes out."""
    provider, paper = Provider(), Newspaper()
    paper.failures = 2
    make(tmp_path, provider, edit=wanting("alpha", "beta"))
    with published(monkeypatch, paper), hold(tmp_path, provider):
        paper.wait()
    assert (paper.failures, bool(paper.heads)) == (0, True)


def test_one_that_hangs_holds_up_neither_the_others_nor_the_lane_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one destination hangs, payments go through, the other one is served, and closing is bounded."""
    provider, slow, quick_one = Provider(), Newspaper(), Newspaper()
    slow.name, slow.hold = "slow", threading.Event()
    make(tmp_path, provider, edit=wanting("alpha", "beta"))
    with published(monkeypatch, slow, quick_one):
        handle = hold(tmp_path, provider)
        assert slow.held.acquire(timeout=5)
        assert pay(handle, 1).status == "confirmed"
        quick_one.wait()
        begin = time.monotonic()
        handle.close()
        assert time.monotonic() - begin < 5
    slow.hold.set()
    assert records(tmp_path)[-1].kind == "gate.stopped"


def test_a_gate_that_a_destination_refuses_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody has seen more than the journal holds, nothing is recorded and the reason is told."""
    provider, paper = Provider(), Newspaper()
    make(tmp_path, provider, edit=wanting("alpha", "beta"))
    before = len(records(tmp_path))
    paper.refuses = "behind_witness"
    with published(monkeypatch, paper), pytest.raises(CountermarkError) as refused:
        hold(tmp_path, provider)
    assert refused.value.code == "behind_witness"
    assert (len(records(tmp_path)), paper.closed) == (before, 1)
    paper.refuses = ""
    with published(monkeypatch, paper), hold(tmp_path, provider) as handle:
        assert pay(handle, 1).status == "confirmed"
