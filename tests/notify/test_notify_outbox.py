"""At least once, in order, bounded, never in the gate's way: retries, dead letters, kills of a real process."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from notify_support import HMAC_SECRET, OK, SEED_SECRET, Answer, Desk, Receiver, slack, webhook
from rig import hold

from countermark.model.clock import US
from countermark.model.errors import ConfigError, StoreError
from countermark.notify import Outbox
from countermark.notify import notifier as notifier_module
from countermark.notify import outbox as outbox_module
from countermark.notify.events import Event
from countermark.notify.notifier import FIRST_PAUSE_S, PAUSE_S_MAX, TRIES_MAX, UNREACHABLE_TRIES, pause_us

DOWN: Answer = (503, {}, b"")
NEVER: Answer = (404, {}, b"")
CHILD_S_MAX = 60


def wait_for(what: Callable[[], bool], seconds: int = 20) -> None:
    """Until it holds; a test fails when it never does."""
    over = threading.Event()
    for _ in range(seconds * 50):
        if what():
            return
        over.wait(0.02)
    raise AssertionError("it never happened")


def test_a_failed_message_is_tried_again_with_the_same_identity(tmp_path: Path) -> None:
    """Each try has the id and the body of the first; the pauses double, and nothing is sent before they are over."""
    with Receiver([DOWN, DOWN, OK]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        assert desk.tell() == 1
        assert desk.tell() == 0
        for _ in range(2):
            desk.clock.advance(2 * FIRST_PAUSE_S * 2)
            assert desk.tell() == 1
        assert len({got.id for got in receiver.got}) == 1
        assert len({got.body for got in receiver.got}) == 1
        assert desk.events("sent") == [("ops", "asked")]
        assert desk.counted == [("failed", "ops"), ("failed", "ops"), ("sent", "ops")]


def test_pauses_double_up_to_a_bound_with_a_jitter_that_repeats() -> None:
    """Between the doubled pause and one and a half of it, never above the bound, the same for the same message."""
    for tries in range(1, TRIES_MAX + 1):
        base = min(FIRST_PAUSE_S * 2 ** (tries - 1), PAUSE_S_MAX) * US
        assert base <= pause_us("msg_a", tries) < base * 3 // 2
        assert pause_us("msg_a", tries) == pause_us("msg_a", tries)
    assert pause_us("msg_a", 3) != pause_us("msg_b", 3)


def test_retries_end_and_a_dead_message_can_be_sent_again(tmp_path: Path) -> None:
    """After the last try a message is dead and nothing sends it, until somebody queues it again."""
    with Receiver([DOWN] * TRIES_MAX) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        for _ in range(2 * TRIES_MAX):
            desk.tell()
            desk.clock.advance(2 * PAUSE_S_MAX)
        assert len(receiver.got) == TRIES_MAX
        assert desk.events("dead") == [("ops", "asked")]
        assert desk.counted[-1] == ("dead", "ops")
        assert desk.notices.outbox.retry(None, ["other"], desk.clock.now_us()) == 0
        assert desk.notices.outbox.retry(None, ["ops"], desk.clock.now_us()) == 1
        desk.tell()
        assert desk.events("sent") == [("ops", "asked")]


def test_a_final_answer_is_not_tried_again(tmp_path: Path) -> None:
    """A 404 is dead at once."""
    with Receiver([NEVER]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        desk.tell()
        desk.clock.advance(2 * PAUSE_S_MAX)
        assert desk.tell() == 0
        assert desk.events("dead") == [("ops", "asked")]


def test_a_wait_that_the_receiver_asks_for_is_kept(tmp_path: Path) -> None:
    """Retry-After counts when it is longer than our own pause."""
    with (
        Receiver([(429, {"Retry-After": "600"}, b"")]) as receiver,
        Desk(tmp_path / "d", webhook(receiver.origin)) as desk,
    ):
        desk.ask()
        desk.tell()
        desk.clock.advance(599)
        assert desk.tell() == 0
        desk.clock.advance(2)
        assert desk.tell() == 1


def test_a_thread_is_told_in_its_order_and_others_go_ahead(tmp_path: Path) -> None:
    """While a question cannot be delivered, its outcome waits behind it; another escalation does not."""
    with Receiver([DOWN]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        first = desk.ask(1)
        desk.tell()
        desk.answer(first)
        second = desk.ask(2)
        desk.tell()
        assert [got.json["data"]["escalation"] for got in receiver.got] == [first, second]
        desk.clock.advance(60)
        desk.tell()
        of_first = [got.json["data"]["event"] for got in receiver.got if got.json["data"]["escalation"] == first]
        assert of_first == ["asked", "asked", "approved", "sent", "confirmed"]


def test_a_clock_that_was_ahead_keeps_no_message_back(tmp_path: Path) -> None:
    """A pause that was set by a clock years ahead is over when the clock is right again."""
    with Receiver([DOWN]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        desk.clock.step(10**8)
        desk.tell()
        desk.clock.step(-(10**8))
        assert desk.tell() == 1
        assert len(receiver.got) == 2


def test_the_gate_hears_of_a_rung_that_nobody_was_reached_on(tmp_path: Path) -> None:
    """A final failure at once, others after the documented number of tries; once, and not when one channel delivers."""
    with Receiver([NEVER]) as receiver, Desk(tmp_path / "final", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        desk.tell()
        assert desk.unreachable == [(escalation, "finance", 1)]
        desk.tell()
        desk.notices.notifier.report()
        assert len(desk.unreachable) == 1
    with Receiver([DOWN] * 9) as receiver, Desk(tmp_path / "tries", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        for tries in range(1, UNREACHABLE_TRIES + 1):
            assert desk.unreachable == []
            assert desk.tell() == 1, tries
            desk.clock.advance(2 * PAUSE_S_MAX)
        assert desk.unreachable == [(escalation, "finance", 1)]


@pytest.mark.parametrize("order", [("ops", "chat"), ("chat", "ops")])
def test_one_channel_that_delivers_is_enough(tmp_path: Path, order: tuple[str, str]) -> None:
    """Whichever comes first, a rung that one of two channels reached is reached."""
    with (
        Receiver([NEVER] * 3) as broken,
        Receiver() as whole,
        Desk(tmp_path / "d", webhook(broken.origin) + slack(whole.origin)) as desk,
    ):
        desk.ask()
        desk.tell(*order)
        desk.notices.notifier.report()
        assert desk.unreachable == []
        assert sorted(desk.events("sent") + desk.events("dead")) == [("chat", "asked"), ("ops", "asked")]


def test_a_channel_of_another_ladder_reaches_nobody_of_this_one(tmp_path: Path) -> None:
    """Only channels that serve the ladder count: one for its end, or for another ladder, does not."""
    with Receiver([NEVER]) as broken, Receiver() as whole:
        channels = (
            webhook(broken.origin)
            + webhook(whole.origin, "board", ladders='["board"]')
            + webhook(whole.origin, "ends", events='["confirmed"]')
        )
        with Desk(tmp_path / "d", channels) as desk:
            escalation = desk.ask()
            desk.tell("ops", "board", "ends")
            assert desk.unreachable == [(escalation, "finance", 1)]


def test_the_gate_is_told_later_when_it_is_not_there(tmp_path: Path) -> None:
    """While nobody owns the deployment the report waits, over a restart of the notifier too."""
    with Receiver([NEVER]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin), reached=False) as desk:
        escalation = desk.ask()
        desk.tell()
        desk.reopen()
        assert desk.unreachable == []
        desk.reached = True
        desk.notices.notifier.report()
        assert desk.unreachable == [(escalation, "finance", 1)]


def test_an_answered_escalation_is_not_reported(tmp_path: Path) -> None:
    """Whoever answered was reached somehow."""
    with Receiver([DOWN, DOWN, NEVER]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        escalation = desk.ask()
        desk.tell()
        desk.answer(escalation, "refuse")
        for _ in range(4):
            desk.clock.advance(60)
            desk.tell()
        assert desk.events("dead") == [("ops", "asked")]
        assert desk.unreachable == []


def test_a_full_queue_waits_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound a channel's queue takes nothing more; the log keeps the rest, another channel goes on."""
    monkeypatch.setattr(outbox_module, "QUEUED_MAX", 3)
    monkeypatch.setattr(notifier_module, "RECORDS_MAX", 1)
    with Receiver() as receiver:
        channels = webhook(receiver.origin) + webhook(receiver.origin, "other")
        with Desk(tmp_path / "d", channels) as desk:
            for number in range(6):
                desk.ask(number)
            desk.read()
            assert len(desk.events("queued")) == 6
            desk.tell("other")
            desk.tell("other")
            assert desk.events("sent") == [("other", "asked")] * 6
            assert desk.events("queued") == [("ops", "asked")] * 3
            desk.tell("ops")
            desk.tell("ops")
            assert [told for told in desk.events("sent") if told[0] == "ops"] == [("ops", "asked")] * 6


def test_reading_the_same_records_again_tells_nothing_twice(tmp_path: Path) -> None:
    """A process that dies between queueing and moving its cursor queues the same again, which changes nothing."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        before = desk.notices.outbox.cursors()["ops"]
        desk.answer(desk.ask())
        desk.tell()
        db = sqlite3.connect(desk.root / "data" / "notify.db")
        db.execute("update cursor set seq=?", (before,))
        db.commit()
        db.close()
        assert desk.tell() == 0
        assert len(receiver.got) == 4
        assert desk.unreachable == []


@pytest.mark.parametrize(("answer", "event"), [(OK, "sent"), (NEVER, "dead")])
def test_a_full_disk_does_not_repeat_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, event: str
) -> None:
    """While it cannot be written what became of a message nothing more is sent; with room again it is written once."""
    with Receiver([answer]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        desk.read()

        def full(*_: object) -> None:
            raise StoreError("the outbox cannot be written: database or disk is full")

        monkeypatch.setattr(Outbox, "sent", full)
        monkeypatch.setattr(Outbox, "failed", full)
        for _ in range(5):
            with pytest.raises(StoreError):
                desk.notices.notifier.deliver("ops")
        monkeypatch.undo()
        assert len(receiver.got) == 1
        assert desk.notices.notifier.deliver("ops")
        assert not desk.notices.notifier.deliver("ops")
        assert (len(receiver.got), desk.events(event)) == (1, [("ops", "asked")])
        assert desk.notices.outbox.listed()[0].tries == 1


def test_an_outbox_of_a_longer_log_hides_nothing(tmp_path: Path) -> None:
    """After a restore the log grows over places that the outbox has told of: what stands there now is told all the
    same, and what never was is told no more.
    """
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        shutil.copytree(desk.root / "highwater", tmp_path / "highwater")
        shutil.copytree(desk.root / "data", tmp_path / "before", ignore=shutil.ignore_patterns("notify*"))
        first = desk.ask(1)
        desk.tell()
        desk.ask(2)
        desk.read()
        assert desk.events("queued") == [("ops", "asked")]
        desk.notices.stop()
        desk.handle.close()
        for path in (desk.root / "data").iterdir():
            if not path.name.startswith("notify"):
                path.unlink()
        shutil.copytree(tmp_path / "before", desk.root / "data", dirs_exist_ok=True)
        shutil.copytree(tmp_path / "highwater", desk.root / "highwater", dirs_exist_ok=True)
        desk.notices = desk.open()
        desk.handle = hold(desk.root, desk.provider, desk.clock)
        second = desk.ask(3)
        desk.tell()
        told = [got.json["data"]["escalation"] for got in receiver.got]
        assert told == [first, second]


def test_a_channel_that_is_gone_leaves_its_messages_dead(tmp_path: Path) -> None:
    """Messages to a channel that countermark.toml no longer has are not kept waiting."""
    with Receiver([DOWN]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.ask()
        desk.tell()
        desk.configure(webhook(receiver.origin, "other"))
        desk.reopen()
        assert desk.events("dead") == [("ops", "asked")]
        assert set(desk.notices.outbox.cursors()) == {"other"}


def test_only_one_process_tells(tmp_path: Path) -> None:
    """A second notifier of the same deployment is refused while the first lives."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        with pytest.raises(ConfigError) as error:
            desk.open()
        assert error.value.code == "notifier_lives"


def test_a_foreign_or_damaged_outbox_is_refused(tmp_path: Path) -> None:
    """A file that is no outbox, or one of another version, is not written to."""
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database at all" * 300)
    with pytest.raises(StoreError):
        Outbox(garbage)
    foreign = tmp_path / "foreign.db"
    db = sqlite3.connect(foreign)
    db.execute("create table t (x)")
    db.close()
    with pytest.raises(StoreError):
        Outbox(foreign)
    Outbox(tmp_path / "own.db").close()
    assert (tmp_path / "own.db").stat().st_mode & 0o077 == 0


def test_what_cannot_be_told_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that no event can be made of, and a message that no transport can make, leave the others alone."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        first, second = desk.ask(1), desk.ask(2)
        events = desk.notices.notifier._events
        before = events.of

        def of(record: Any) -> Any:
            return before(record._replace(body={})) if record.body.get("escalation") == first else before(record)

        monkeypatch.setattr(events, "of", of)
        desk.read()
        monkeypatch.undo()
        assert desk.events() == [("ops", "asked")]
        desk.ask(3)
        desk.read()
        db = sqlite3.connect(desk.root / "data" / "notify.db")
        db.execute("update message set doc=x'7B7D' where escalation=?", (second,))
        db.commit()
        db.close()
        assert desk.tell() == 2
        assert desk.events("dead") == [("ops", "asked")]
        assert desk.events("sent") == [("ops", "asked")]


def _child(root: Path, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    env = {**os.environ, "NOTIFY_HMAC": HMAC_SECRET, "NOTIFY_KEY": SEED_SECRET, **(more or {})}
    words = [sys.executable, "-m", "countermark.cli", "-C", str(root), "notify", "run"]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("fatal", "answered"), [(1, False), (1, True), (3, False), (4, True)])
def test_killed_while_it_sends_it_sends_again(tmp_path: Path, fatal: int, answered: bool) -> None:
    """`notify run`, killed by SIGKILL when the n-th request arrives: the next process tells all, in order, same ids."""
    child: list[subprocess.Popen[bytes]] = []

    def kill(handler: Any) -> None:
        if answered:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            handler.wfile.flush()
        child[-1].send_signal(signal.SIGKILL)
        child[-1].wait(CHILD_S_MAX)

    with Receiver([OK] * (fatal - 1) + [kill]) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.answer(desk.ask())
        desk.notices.stop()  # the channel has begun; nobody has told of anything
        child.append(_child(desk.root))
        assert child[0].wait(CHILD_S_MAX) == -signal.SIGKILL
        child.append(_child(desk.root))
        assert child[1].stdout is not None
        assert child[1].stdout.readline() == b"Telling ops.\n"
        wait_for(lambda: len({got.id for got in receiver.got}) == 4 and len(receiver.got) >= 4 + (not answered))
        child[1].send_signal(signal.SIGTERM)
        assert child[1].wait(CHILD_S_MAX) == 0
        desk.notices = desk.open()
        assert desk.events("sent") == [("ops", name) for name in ("asked", "approved", "sent", "confirmed")]
        ids = [got.id for got in receiver.got]
    for one in child:
        one.communicate()
    assert answered or ids[fatal - 1] == ids[fatal]  # what was under way is sent again, or was known to be taken
    assert len(ids) <= 5
    assert list(dict.fromkeys(ids)) == sorted(set(ids), key=lambda one: int(one.rpartition("-")[2]))


POINTS = {"notify.queued", "notify.delivered"}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("point", sorted(POINTS))
def test_killed_at_a_named_point_everything_is_told(tmp_path: Path, point: str, count: int) -> None:
    """Between queueing and moving on, between sending and noting it: the next process tells all, under the same ids."""
    with Receiver() as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.notices.stop()
        for number in range(3):
            desk.answer(desk.ask(number))
        child = _child(desk.root, {"COUNTERMARK_CRASH": f"{point}:{1 if point == 'notify.queued' else count}"})
        assert child.wait(CHILD_S_MAX) == -signal.SIGKILL
        child.communicate()
        desk.notices = desk.open()
        desk.clock.advance(3_600)
        desk.tell()
        told = sorted(got.json["data"]["escalation"] + " " + got.json["type"] for got in receiver.got)
        assert len(set(told)) == 12
        # What was sent and not noted is sent again; while one is queued, another that was queued before may be sent.
        assert len(told) == 13 if point == "notify.delivered" else len(told) in (12, 13)
        assert len({got.id for got in receiver.got}) == 12


def test_killed_before_it_is_noted_that_the_gate_was_told(tmp_path: Path) -> None:
    """At `notify.reported` the gate has heard; the next process tells it again, which records nothing more."""
    with Receiver([NEVER] * 2) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        desk.notices.stop()
        escalation = desk.ask()
        child = _child(desk.root, {"COUNTERMARK_CRASH": "notify.reported:1"})
        assert child.wait(CHILD_S_MAX) == -signal.SIGKILL
        child.communicate()
        size = desk.handle.call("status", {})["records"]
        desk.notices = desk.open()
        desk.notices.notifier.report()
        assert desk.unreachable == [(escalation, "finance", 1)]
        told = {"escalation": escalation, "ladder": "finance", "rung": 1}
        assert desk.handle.call("escalation.unreachable", told)["climbed"] is False
        assert desk.handle.call("status", {})["records"] == size


def test_questions_without_end_keep_no_other_message_back(tmp_path: Path) -> None:
    """A stop is told first, then what another agent has people asked; the flood follows, the oldest first."""
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.begin(["ops"], 0)
    for seq in range(200):
        agent, name = ("clerk", "asked") if seq == 150 else ("treasury", "asked")
        escalation = None if seq == 199 else f"esc_{seq}"
        doc = {"agent": agent} if escalation else {}
        event = Event(seq, name if escalation else "stopped", escalation, doc, {"finance": 1}, {})
        outbox.put(event, {"ops": ["finance"]}, 1)
    order = []
    for _ in range(5):
        message = outbox.due("ops", 2, US)
        assert message is not None
        order.append(message.seq)
        outbox.sent(message)
    outbox.close()
    assert order == [199, 150, 0, 1, 2]


def test_a_receiver_of_too_many_messages_makes_no_rung_unreachable(tmp_path: Path) -> None:
    """While it answers 429 the channel waits, whatever is queued, and no question climbs because of a flood."""
    busy: Answer = (429, {"Retry-After": "60"}, b"")
    with Receiver([busy] * (2 * TRIES_MAX)) as receiver, Desk(tmp_path / "d", webhook(receiver.origin)) as desk:
        for number in range(5):
            desk.ask(number)
        for tries in range(2 * TRIES_MAX):
            assert desk.tell() == 1, tries
            assert desk.tell() == 0
            desk.clock.advance(61)
        assert desk.unreachable == []
        assert desk.events("dead") == []
        assert desk.tell() == 5
