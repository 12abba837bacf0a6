"""All witnesses of a policy as a destination: quorums, sizes that differ, witnesses that are ahead, slow or lying."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore

import pytest
from publish_support import LoggedStore, MemoryLog, MemoryWitness

from countermark.journal import LogView
from countermark.log import (
    TILE_WIDTH,
    Frontier,
    PolicyWitness,
    cosigned_by,
    leaf_hash,
    open_checkpoint,
    parse_policy,
    quorum,
)
from countermark.model.clock import US, FakeClock
from countermark.model.errors import CountermarkError
from countermark.model.ports import Head
from countermark.publish import WitnessError, Witnesses, WitnessRule
from countermark.publish.witnesses import connect

UNREACHABLE = WitnessError("no answer", code="witness_unreachable", retryable=True)
STALE_US = 60 * US


class Stand:
    """A log, some witnesses, and the destination between them."""

    def __init__(self, rule: str, *names: str, log: MemoryLog | None = None) -> None:
        self.log = MemoryLog(10) if log is None else log
        self.all = {name: MemoryWitness(name, number) for number, name in enumerate(names)}
        self.policy = parse_policy("".join(one.line() for one in self.all.values()) + rule)
        self.rule: WitnessRule | None = WitnessRule(self.policy, STALE_US)
        self.clock = FakeClock()
        self.to = self.destination()

    def destination(self, log: MemoryLog | None = None) -> Witnesses:
        there = self.log if log is None else log
        connect: Callable[..., MemoryWitness] = lambda one: self.all[one.name]  # noqa: E731
        return Witnesses(lambda: self.rule, "acme", there.view, self.clock, signer=there.signer,
                         connect=connect)  # type: ignore[arg-type] # fmt: skip

    def publish(self, log: MemoryLog | None = None) -> dict[str, object]:
        found = self.to.publish((self.log if log is None else log).head())
        assert found is not None
        assert found[0] == "head.witnessed"
        return dict(found[1])


TWO_OF_THREE = "group g 2 a b/1 c\nquorum g\n"


def test_a_quorum_makes_a_record_that_anybody_can_check() -> None:
    """Size, root, times of asking and answering, and a note that carries the log's line and the witnesses' own."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    for _ in range(3):
        body = stand.publish()
        head = stand.log.head()
        note = str(body["note"]).encode()
        assert (body["size"], body["root"]) == (head.size, head.root.hex())
        assert body["asked"] == body["answered"] == stand.clock.wall_us
        assert open_checkpoint(note, [stand.log.signer.vkey]).root == head.root
        assert quorum(stand.policy, cosigned_by(stand.policy, note), "acme")
        stand.log.grow(7)
    assert [s.old for s in stand.all["a"].asked] == [0, 10, 17], "each was asked from what it said last"
    stand.to.close()


def test_witnesses_that_fail_stop_nothing_while_the_others_are_enough() -> None:
    """One of three does not answer: the quorum stands. Two: no record, a retryable error that says who."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    stand.all["b/1"].fault = UNREACHABLE
    assert "key.c" in str(stand.publish()["note"])
    stand.all["c"].fault = UNREACHABLE
    with pytest.raises(WitnessError) as refused:
        stand.publish()
    assert (refused.value.code, refused.value.retryable) == ("no_quorum", True)
    assert set(stand.to.troubles) == {"b/1", "c"}
    stand.to.close()


def test_a_policy_that_asks_for_nobody_makes_no_record() -> None:
    """`quorum none` is always satisfied; where nobody cosigned there is nothing to record all the same."""
    stand = Stand("quorum none\n", "a")
    assert "key.a" in str(stand.publish()["note"])
    stand.all["a"].fault = UNREACHABLE
    with pytest.raises(WitnessError, match="no quorum"):
        stand.publish()
    stand.to.close()


def test_our_own_witness_does_not_count() -> None:
    """Its cosignature is in the note for everybody to see, and makes no quorum."""
    stand = Stand("group g any ACME/w a\nquorum g\n", "ACME/w", "a")
    assert "key.ACME/w" in str(stand.publish()["note"])
    stand.all["a"].fault = UNREACHABLE
    with pytest.raises(WitnessError, match="no quorum"):
        stand.publish()
    stand.to.close()


def test_a_witness_with_another_size_is_asked_once_more_with_a_proof_from_there() -> None:
    """After a restart nothing is remembered: the witness says its size, and gets the proof from it."""
    stand = Stand("quorum a\n", "a")
    stand.publish()
    stand.log.grow(5)
    stand.to.close()
    stand.to = stand.destination()
    stand.publish()
    assert [s.old for s in stand.all["a"].asked] == [0, 0, 10]
    stand.all["a"].lies = 3
    stand.log.grow(5)
    with pytest.raises(WitnessError):
        stand.publish()
    assert [s.old for s in stand.all["a"].asked][3:] == [15, 3], (
        "a witness that changes its mind is asked twice, not on"
    )
    stand.to.close()


@pytest.mark.parametrize(
    ("there", "code"),
    [
        (MemoryLog(10, changed=3), "witness_other_log"),
        (MemoryLog(30, changed=3), "witness_other_log"),
        (MemoryLog(9), "behind_witness"),
        (MemoryLog(0), "behind_witness"),
    ],
)
def test_a_log_that_is_not_what_a_witness_saw_does_not_start(there: MemoryLog, code: str) -> None:
    """Rewritten, cut or emptied while the gate was down: the start refuses, and so does publishing."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    stand.publish()
    stand.to.close()
    stand.to = stand.destination(there)
    with pytest.raises(WitnessError) as refused:
        stand.to.check()
    assert refused.value.code == code
    if there.raws:
        with pytest.raises(WitnessError) as refused:
            stand.to.publish(there.head())
        assert refused.value.code == code
    stand.to.close()


def test_a_start_goes_on_when_witnesses_agree_or_cannot_be_asked() -> None:
    """The same log, a grown one, an empty one that nobody saw; a witness that is down or does not know the log."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c", log=MemoryLog(0))
    stand.to.check()
    stand.log.grow(10)
    stand.publish()
    stand.log.grow(10)
    stand.all["a"].fault = UNREACHABLE
    stand.all["c"].fault = WitnessError("does not know this log")
    stand.to.close()
    stand.to = stand.destination()
    stand.to.check()
    assert stand.all["b/1"].held.size == 20, "who was asked at the start vouches for what is there"
    stand.rule = None
    stand.to.check()
    assert stand.to.publish(stand.log.head()) is None
    assert not stand.to.due(stand.log.head(), True, stand.clock.wall_us)
    stand.to.close()


def test_one_that_hangs_is_not_waited_for_and_not_asked_twice_at_a_time() -> None:
    """The quorum is there without it; while its answer is outstanding it is left alone, then asked from there."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    slow = stand.all["c"]
    slow.hold.clear()
    stand.publish()
    stand.log.grow(4)
    stand.publish()
    assert slow.asked == []
    slow.hold.set()
    stand.to._late["c"][0].result(10)
    stand.log.grow(4)
    stand.publish()
    stand.to.close()
    assert [s.old for s in slow.asked][:2] == [0, 10], "first seen with the first head, then asked from there"
    stand.to.close()


def test_when_heads_are_due() -> None:
    """Busy: once a second. Idle: often enough for freshness. After a failure: again soon, but not at once."""
    stand = Stand("quorum a\n", "a")
    head, to, clock = stand.log.head(), stand.to, stand.clock
    assert to.due(head, False, clock.now_us())
    stand.publish()
    asked = clock.now_us()
    assert [to.due(head, True, asked + us) for us in (0, US - 1, US)] == [False, False, True]
    assert [to.due(head, False, asked + us) for us in (US, STALE_US // 3 - 1, STALE_US // 3)] == [False, False, True]
    stand.all["a"].fault = UNREACHABLE
    clock.advance(30)
    with pytest.raises(WitnessError):
        stand.publish()
    assert [to.due(head, False, clock.now_us() + us) for us in (US, 5 * US)] == [False, True]
    stand.rule = WitnessRule(stand.policy, 2 * US)
    assert to.due(head, False, clock.now_us()), "another policy is asked at once"
    to.close()


def test_a_witness_at_an_address_that_nothing_goes_to_keeps_no_gate_shut() -> None:
    """A policy in force that names such an address must not keep the gate from opening: then nobody could mend it."""
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    lines = [one.line("http://w.example/") if one.name == "c" else one.line() for one in stand.all.values()]
    stand.rule = WitnessRule(parse_policy("".join(lines) + TWO_OF_THREE), STALE_US)

    def reach(one: PolicyWitness) -> object:
        return connect(one) if one.name == "c" else stand.all[one.name]

    to = Witnesses(lambda: stand.rule, "acme", stand.log.view, stand.clock, connect=reach)  # type: ignore[arg-type]
    to.check()
    found = to.publish(stand.log.head())
    assert found is not None
    assert set(cosigned_by(stand.policy, str(found[1]["note"]).encode())) == {"a", "b/1"}
    to.close()


def test_a_clock_that_was_ahead_for_a_while_does_not_keep_heads_back() -> None:
    """What was asked at a time to come says nothing: after the clock is put right heads are due as before."""
    stand = Stand("quorum a\n", "a")
    stand.publish()
    assert stand.to.due(stand.log.head(), True, stand.clock.now_us() - 86_400 * US)
    stand.to.close()


@pytest.mark.parametrize("seed", range(6))
def test_in_any_weather_what_is_recorded_has_its_quorum(seed: int) -> None:
    """A seeded run of growth, outages, lies and restarts: every record checks; every witness holds one growing log."""
    chance = random.Random(seed)
    stand = Stand(TWO_OF_THREE, "a", "b/1", "c")
    recorded, codes = 0, set()
    for _ in range(25):
        stand.log.grow(chance.randrange(4))
        for one in stand.all.values():
            one.fault = UNREACHABLE if chance.random() < 0.3 else None
            one.lies = chance.choice([0, 1, 10**9]) if chance.random() < 0.1 else None
        if chance.random() < 0.2:
            stand.to.close()
            stand.to = stand.destination()
        try:
            body = stand.publish()
        except CountermarkError as error:
            codes.add(error.code)
            continue
        note = str(body["note"]).encode()
        assert quorum(stand.policy, cosigned_by(stand.policy, note), "acme"), f"seed {seed}"
        recorded += 1
    assert recorded > 3, f"seed {seed}"
    assert codes <= {"no_quorum", "behind_witness", "witness_other_log"}, f"seed {seed}"
    stand.to.close()


def test_every_proof_is_right_while_the_log_grows() -> None:
    """A lane that appends and leaves its tiles, now and then after a gap, beside a destination that asks and asks:
    each head is proved to follow the one before it, and of the journal hardly anything is read for it.
    """
    stand = Stand("quorum a\n", "a", log=MemoryLog(0))
    log, chance, frontier, newest, ended = stand.log, random.Random(5), Frontier(), [stand.log.head()], Event()
    shown, stores = Semaphore(0), list[LoggedStore]()

    def view() -> LogView:
        stores.append(log.store())
        return LogView(stores[-1], log.tiles)

    def lane() -> None:
        for turn in range(400):
            start = len(log.raws)
            fresh = [b"record %d" % (start + n) for n in range(chance.randrange(1, 200))]
            roots = [root for root in map(frontier.append, map(leaf_hash, fresh)) if root is not None]
            log.raws += fresh
            if roots and chance.randrange(20):
                log.tiles.put(len(log.raws) // TILE_WIDTH, roots)
            root = frontier.root()
            newest[0] = Head(len(log.raws), root, log.signer.sign_checkpoint(len(log.raws), root))
            assert turn % 20 or shown.acquire(timeout=60), "nobody asks"
        ended.set()

    stand.to = Witnesses(lambda: stand.rule, "acme", view, stand.clock, signer=log.signer,
                         connect=lambda one: stand.all[one.name])  # type: ignore[arg-type,return-value] # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(lane)
        while not ended.is_set():
            if newest[0].size > stand.all["a"].held.size:
                stand.to.publish(newest[0])
                assert stand.to.troubles == {}
                shown.release()
        going.result()
    assert stand.to.publish(newest[0]) is not None
    assert stand.all["a"].held.root == log.head().root
    proofs = len(stand.all["a"].asked)
    assert proofs >= 20
    grown = len(stores[0].read) - 2 * TILE_WIDTH * proofs
    assert grown < len(log.raws) // 2, "tiles that nobody left are read, and no others"
    stand.to.close()
