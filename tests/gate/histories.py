"""Random legal histories of a lane, written by the gate's own writer, which dies around its cache and starts again.

What it knows after each start is compared with a naive fold of all records, and with the specification's own words.
"""

from __future__ import annotations

import copy
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from rig import rebuilt_equally

from countermark.audit import bundles_of, newest, present_state
from countermark.authority import load_private
from countermark.gate import Activity, Movement, Pseudonyms, Writer, caches, succeed, successor, writer
from countermark.journal import SqliteStore, Vault, sqlite
from countermark.log import LogSigner
from countermark.model.records import Record
from countermark.policy import DictKeys, State
from countermark.wiring.config import load_config
from countermark.wiring.deployment import read_key

OBLIGATIONS = [f"sha256:{n:064x}" for n in range(1, 60)]
POINTS = ("lane.in_snapshot", "lane.cached", "lane.forgotten", "lane.in_transaction")
POINTING = ("id:", "es:", "rv:")


class _Died(BaseException):
    """Stands for SIGKILL: nothing after it runs, and what was not committed is gone."""


class Places(dict[str, tuple[int, str]]):
    """Streams of the naive fold."""

    def put(self, name: str, place: tuple[int, str]) -> None:
        self[name] = place


def keys_of(records: list[Record]) -> dict[str, int]:
    """The keys by the specification alone, apart from the product's fold."""
    keys: dict[str, int] = {}
    holds: dict[int, str] = {}
    for record in records:
        kind, body, seq = record.kind, record.body, record.seq
        if kind == "action.decided":
            keys["id:" + body["id"]] = seq
            if body["disposition"] in ("allow", "flag") and body["obligation"] is not None:
                keys["ob:" + body["obligation"]], holds[seq] = seq, "ob:" + body["obligation"]
        elif kind == "action.settled":
            keys[f"st:{body['intent']}"] = seq
            key = holds.get(body["intent"], "")
            if body["outcome"] == "failed" and body["tier"] != "observing" and keys.get(key) == body["intent"]:
                del keys[key]
        elif kind == "escalation.raised":
            keys["es:" + body["escalation"]] = seq
            if (obligation := records[body["decided"]].body["obligation"]) is not None:
                own, first, several = (
                    "as:" + sha256(f"{obligation} {name}".encode()).hexdigest() for name in (body["agent"], "", "*")
                )
                if first in keys and own not in keys:
                    keys[several] = seq
                keys.setdefault(first, seq)
                keys[own] = seq
        elif kind == "escalation.expired" or (kind == "escalation.answered" and body["state"] == "refused"):
            keys["id:" + body["id"]] = seq
        elif kind == "review.cleared":
            keys["rv:" + body["id"]] = seq
        elif kind in ("lane.imported", "obligation.imported") and body["obligation"] is not None:
            keys["ob:" + body["obligation"]] = seq
    return keys


class Naive:
    """Every record folded from the first one on, with nothing but dictionaries."""

    def __init__(self, store: SqliteStore) -> None:
        self.keys, self.streams = DictKeys(), Places()
        self.state = State(self.keys, bundles_of(store), self.streams)

    def take(self, records: list[Record] | Iterator[Record], store: SqliteStore) -> None:
        for record in records:
            self.state.apply(record, lambda stop=record.seq: store.records(0, stop))  # type: ignore[misc]


class History:
    """A journal that grows by legal random records and is opened again after each death."""

    def __init__(self, root: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance, self.root, self.config = random.Random(seed), root, load_config(root)
        self.lane, self.private = self.config.lane, load_private(self.config.keys / "log.pem")
        self.armed: dict[str, int] = {}
        self.ever: set[str] = set()
        self.serial = 0
        for module in (sqlite, writer):
            monkeypatch.setattr(module, "crash_point", self._point)
        self.monkeypatch = monkeypatch
        with closing(self.store()) as store:
            found = list(store.records())
        decided = [r.body for r in found if r.kind == "action.decided"]
        self.allowed = next(body for body in decided if body["disposition"] == "allow")
        self.asked = next(body for body in decided if body["disposition"] == "escalate")
        self.raised = next(r.body for r in found if r.kind == "escalation.raised")
        self.settled = next(r.body for r in found if r.kind == "action.settled")
        self.parked: list[tuple[str, str, int]] = []

    def store(self) -> SqliteStore:
        return SqliteStore(self.config.journal, readonly=True)

    def _point(self, name: str) -> None:
        if name in self.armed:
            self.armed[name] -= 1
            if self.armed[name] < 0:
                raise _Died(name)

    def _signer(self) -> LogSigner:
        return LogSigner(f"countermark/{self.config.deployment}/{self.lane}", self.private)

    def _habits(self) -> None:
        """How often keys are written, and snapshots: from with every record to never."""
        choose = self.chance.choice
        self.monkeypatch.setattr(caches, "DIRTY_MAX", choose((1, 2, 5, 20, 1 << 40)))
        self.monkeypatch.setattr(caches, "SNAPSHOT_RECORDS", choose((1, 6, 40, 1 << 40)))
        self.monkeypatch.setattr(caches, "SNAPSHOT_PART", 0)
        self.monkeypatch.setattr(caches, "SNAPSHOT_BYTES_MAX", choose((1 << 30, 1 << 30, 1)))

    def live(self) -> None:
        """Open, grow, and die somewhere; what was committed is compared at each step of the way."""
        self._habits()
        self.armed = {self.chance.choice(POINTS): self.chance.randrange(6)} if self.chance.random() < 0.7 else {}
        store = SqliteStore(self.config.journal)
        vault = Vault(self.config.vault, read_key(self.config.keys / "vault.key"))
        pen = Writer(
            store, vault, self._signer(), Pseudonyms(read_key(self.config.keys / "pseudonym.key")), self.lane
        )  # fmt: skip
        naive = Naive(store)
        naive.take(store.records(), store)
        try:
            pen.rebuild()
            self.compare(pen, naive)
            for _ in range(self.chance.randrange(1, 12)):
                if self.chance.random() < 0.1:
                    self._restore(pen, naive)
                    continue
                pen.keys.fetch(set(self.chance.sample(sorted(self.ever), len(self.ever) // 2)))
                for _ in range(self.chance.randrange(1, 5)):
                    before = len(pen.batch.records)
                    self.chance.choice(_STEPS)(self, pen, naive.state)
                    naive.take(pen.batch.records[before:], store)
                pen.commit()
                self.compare(pen, naive)
                pen.cache()
                self.compare(pen, naive)
        except _Died:
            pass
        finally:
            store.close()  # a transaction under way is rolled back, as after a death
            vault.close()
        self.read()
        if self.chance.random() < 0.15:
            self._lose_snapshot()

    def _lose_snapshot(self) -> None:
        """The snapshot is gone and the tables say what no record does: nothing of them may be used."""
        with closing(sqlite3.connect(self.config.journal)) as db:
            db.execute("delete from snapshot")
            rows = [(sqlite.short("ob:" + key), 3) for key in OBLIGATIONS[::5]]
            db.executemany("insert or replace into idem values(?,?)", rows)
            db.execute("insert or replace into stream values('r.nobody', 5, 'sha256:0')")
            db.commit()

    def compare(self, pen: Writer, naive: Naive) -> None:
        """The owner's view against the naive one: each key ever made, each stream, and the rest of the state."""
        self.ever |= naive.keys.keys()
        assert {key: pen.keys.get(key) for key in self.ever} == {key: naive.keys.get(key) for key in self.ever}
        assert {name: pen.streams.get(name) for name in naive.streams} == dict(naive.streams)
        assert pen.state.dump() == naive.state.dump()
        assert pen.state.waiting == naive.state.waiting
        parked = naive.state.parked
        assert {name: one.body for name, one in pen.state.parked.items()} == {n: one.body for n, one in parked.items()}
        assert [one.name for one in pen.state.parked.newest()] == [*parked][::-1]
        for now in (0, pen.state.at, pen.state.at + (1 << 41)):
            mine, soonest = pen.state.parked.due(now), parked.due(now)
            assert (mine and (mine.name, mine.next)) == (soonest and (soonest.name, soonest.next))

    def read(self) -> None:
        """A reader's view of the journal as the death left it; its tables hold what they say, no more and no less."""
        assert rebuilt_equally(self.root)
        with closing(self.store()) as store:
            naive = Naive(store)
            naive.take(store.records(), store)
            assert dict(naive.keys) == keys_of(list(store.records()))
            for key in self.ever:
                if key.startswith(POINTING):
                    state = naive.state
                    expected = state.newest(key[3:]) if key.startswith("id:") else naive.keys.get(key)
                    assert newest(store, key) == expected, key
            present = present_state(store)
            assert {key: present.keys.get(key) for key in self.ever} == {k: naive.keys.get(k) for k in self.ever}
            assert present.dump() == naive.state.dump()

    def _new(self) -> str:
        self.serial += 1
        return f"{self.chance.getrandbits(100):025x}{self.serial:07x}"

    def pay(self, pen: Writer, state: State) -> None:
        """Allowed, flagged or denied, by whether the business key is taken."""
        body = copy.deepcopy(self.allowed)
        body["id"], body["obligation"] = "act_" + self._new(), self.chance.choice([*OBLIGATIONS, None])
        body["disposition"], body["tier"] = self.chance.choice(("allow", "allow", "flag")), self._tier()
        taken = body["obligation"] is not None and (
            state.keys.get("ob:" + body["obligation"]) is not None or body["obligation"] in state.refused
            or body["obligation"] in state.waiting
        )  # fmt: skip
        if taken:
            body["disposition"] = "deny"
        pen.add("action.decided", body)

    def _tier(self) -> str:
        return self.chance.choice(("embedded", "embedded", "observing"))

    def settle(self, pen: Writer, state: State) -> None:
        """An open intent ends, mostly failed: that is what frees keys."""
        if not state.open:
            return
        seq = self.chance.choice(list(state.open))
        intent = pen.record(seq)
        outcomes = ["failed", "failed", "confirmed"] + (["unknown"] if state.open[seq].status == "open" else [])
        body = {
            **copy.deepcopy(self.settled), "id": intent.body["id"], "intent": seq, "intent_digest": intent.digest,
            "outcome": self.chance.choice(outcomes), "settled": None, "tier": intent.body["tier"],
        }  # fmt: skip
        pen.add("action.settled", body)

    def ask(self, pen: Writer, state: State) -> None:
        """An action is parked under a business key that is free."""
        free = [o for o in OBLIGATIONS if state.keys.get("ob:" + o) is None and o not in state.waiting]
        body = copy.deepcopy(self.asked)
        body["id"], body["obligation"] = "act_" + self._new(), self.chance.choice([*free, None])
        decided = pen.add("action.decided", body)
        pen.add(
            "escalation.raised",
            {**self.raised, "escalation": "esc_" + decided.digest[7:39], "id": body["id"], "decided": decided.seq},
        )  # fmt: skip

    def answer(self, pen: Writer, state: State) -> None:
        """People refuse, approve in part or at last, time runs out, or others are asked."""
        pending = [(name, one) for name, one in state.parked.items() if one.state == "pending"]
        if not pending:
            return
        name, parked = self.chance.choice(pending)
        plain = {key: parked.body[key] for key in ("id", "agent", "run", "terms")}
        how = self.chance.choice(("expired", "refused", "pending", "approved", "climbed"))
        if how == "climbed":
            rung, due = parked.rung("finance") + 1, parked.until("finance") + self.chance.randrange(1 << 40)
            body = {"escalation": name, **plain, "ladder": "finance", "rung": rung, "because": "deadline", "due": due}
            pen.add("escalation.climbed", body)
            return
        if how == "expired":
            pen.add("escalation.expired", {"escalation": name, **plain})
            return
        approval = {"ladder": "finance", "person": f"person-{self.chance.randrange(3)}"}
        pen.add("escalation.answered", {"escalation": name, **plain, "approval": approval, "state": how})
        if how == "approved":
            body = copy.deepcopy(self.allowed)
            body["id"], body["escalation"], body["obligation"] = parked.body["id"], name, parked.obligation
            if parked.obligation is not None and state.keys.get("ob:" + parked.obligation) is not None:
                body["disposition"] = "deny"
            pen.add("action.decided", body)

    def paid_before(self, pen: Writer, state: State) -> None:
        """People import an obligation that is free."""
        free = [o for o in OBLIGATIONS if state.keys.get("ob:" + o) is None]
        if free:
            pen.add("obligation.imported", {"obligation": self.chance.choice(free), "import": {}, "signed": []})

    def review(self, pen: Writer, state: State) -> None:
        flagged = [s for s in state.open if pen.record(s).body["disposition"] == "flag"]
        found = [pen.record(seq) for seq in flagged]
        left = [r for r in found if state.keys.get("rv:" + r.body["id"]) is None]
        if left:
            pen.add("review.cleared", {"id": left[0].body["id"], "decided": left[0].seq})

    def run(self, pen: Writer, _: State) -> None:
        mandate = self.allowed["mandates"][0]
        pen.add(
            "run.started",
            {"run": "run_" + self._new(), "agent": self.allowed["agent"], "mandate": mandate, "purpose": ""},
        )  # fmt: skip

    def _restore(self, pen: Writer, naive: Naive) -> None:
        """The lane goes on as its successor, with movements that take keys away from whoever holds them."""
        start = pen.state.size
        held = [one.obligation for one in naive.state.open.values() if one.obligation is not None]
        taken = {*self.chance.sample(held, min(len(held), 2)), *self.chance.sample([*OBLIGATIONS, None], 2)}
        moved = [
            Movement(f"tr_{self._new()}", "", {"amount": 1, "currency": "eur", "payee": None}, 1, "tool", None, key)
            for key in sorted(taken, key=str)
        ]
        self.lane = successor(self.lane)
        succeed(pen, self._signer(), None, Activity(0, 1, (), (), moved))
        naive.take(pen.store.records(start), pen.store)  # type: ignore[arg-type]
        self.compare(pen, naive)


_STEPS: tuple[Callable[[History, Writer, State], None], ...] = (
    History.pay, History.pay, History.pay, History.settle, History.settle, History.settle, History.ask, History.answer,
    History.paid_before, History.review, History.run,
)  # fmt: skip
