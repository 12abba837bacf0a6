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
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rig import rebuilt_equally

from countermark.audit import bundles_of, newest, present_state
from countermark.authority import PublicKey, load_private, public_of
from countermark.gate import Activity, Movement, Pseudonyms, Writer, caches, succeed, successor, writer
from countermark.journal import SqliteStore, Vault, sqlite
from countermark.log import LogSigner, parse_vkey
from countermark.model.records import Record
from countermark.policy import DictKeys, State, event_key
from countermark.wiring.config import load_config
from countermark.wiring.deployment import read_key

OBLIGATIONS = [f"sha256:{n:064x}" for n in range(1, 60)]
POINTS = ("lane.in_snapshot", "lane.cached", "lane.forgotten", "lane.in_transaction")
POINTING = ("id:", "es:", "rv:", "ro:")


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
        elif kind == "mandate.accepted":
            keys.update(dict.fromkeys(("rd:" + name for name in body["redeems"]), seq))
        elif kind == "review.cleared":
            keys["rv:" + body["id"]] = seq
        elif kind == "obligation.reopened":
            keys["ro:" + body["id"]] = seq
        elif kind in ("lane.imported", "obligation.imported") and body["obligation"] is not None:
            keys["ob:" + body["obligation"]] = seq
        elif kind == "workflow.defined":
            keys["wf:" + body["digest"]] = seq
        elif kind == "event.received":
            keys[event_key(body["source"], body["event"])] = seq
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
        self.following = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
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
        name = f"countermark/{self.config.deployment}/{self.lane}"
        return LogSigner(name, self.private, following=LogSigner(name, self.following))

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
        mine, expected = pen.state.dump(), naive.state.dump()
        wrong = {name: (mine[name], value) for name, value in expected.items() if mine[name] != value}
        assert wrong == {}, wrong
        assert pen.state.roll.listed() == naive.state.roll.listed()
        assert pen.state.register.listed() == naive.state.register.listed()
        assert pen.state.facts.dump() == naive.state.facts.dump()
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

    def reopened(self, pen: Writer, state: State) -> None:
        """Two people take a refusal back; a business key that nothing else holds is free again."""
        if state.refused:
            seq = self.chance.choice(list(state.refused.values()))
            plain = {key: pen.record(seq).body[key] for key in ("id", "agent", "run", "terms")}
            pen.add("obligation.reopened", {**plain, "refused": seq, "reopening": {}, "signed": []})

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

    # What people order ----------------------------------------------------------------------------------------------

    def key(self, pen: Writer, state: State) -> None:
        """A key is enrolled, or one that there is goes: the policy's own, or an enrolled one."""
        person = self.chance.choice(sorted(state.people))
        theirs = [str(key) for key in state.people[person].keys]
        if theirs and self.chance.random() < 0.5:
            pen.add("key.removed", {"removal": {"person": person, "key": self.chance.choice(theirs)}})
            return
        raw = self.chance.randbytes(32)
        text = str(Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw().hex())
        order = {"person": person, "key": str(PublicKey(bytes.fromhex(text))), "label": f"no. {self.serial}"}
        signed = [{"person": name} for name in self.chance.sample(sorted(state.people), self.chance.randrange(1, 3))]
        pen.add("key.enrolled", {"enrolment": order, "signed": signed, "proof": None})

    def rotation(self, pen: Writer, state: State) -> None:
        """The log's key goes to the other one, perhaps with an overlap."""
        keys = [self.private, self.following]
        if parse_vkey(state.log_key).public != self.private.public_key().public_bytes_raw():
            keys.reverse()
        old, new = (str(public_of(key)) for key in keys)
        until = state.at + self.chance.choice((0, 1 << 32))
        pen.add("key.rotated", {"rotation": {"old": old, "new": new, "until": until}})

    def absence(self, pen: Writer, state: State) -> None:
        away, stands_in = self.chance.sample(sorted(state.people), 2)
        since = state.at + self.chance.randrange(-10, 10) * 1_000_000
        said = {"person": away, "stands_in": stands_in, "from": since, "until": since + self.chance.randrange(1 << 34)}
        pen.add("absence.set", {"absence": said, "signed": []})

    def payee(self, pen: Writer, state: State) -> None:
        """A payee is new, has another account or name, or is closed; an account may come back to somebody."""
        known = state.register.known
        name = self.chance.choice([*known.payees, f"new-{self.chance.randrange(6)}"])
        before = known.payees.get(name)
        accounts = [f"acct_{n}" for n in range(5) if f"acct_{n}" not in known.by_account]
        accounts += [before.account, ""] if before is not None else []
        if not accounts:
            return  # every account has its payee
        account = self.chance.choice(accounts)
        was = None if before is None or not before.account else "p:" + pen.pseudonym("payee", before.account)
        now = "p:" + pen.pseudonym("payee", account) if account else None
        details = {"payee": name, "name": f"Name {self.serial}", "account": account, "person": "controller"}
        pen.add("payee.changed", {"details": details, "was": was, "now": now})

    def mandate(self, pen: Writer, state: State) -> None:
        """A grant, an AP2 mandate that was accepted, or the end of one."""
        known = [name for name in state.mandates if name not in state.revoked]
        if known and self.chance.random() < 0.3:
            pen.add("mandate.revoked", {"revocation": {"mandate": self.chance.choice(known)}})
            return
        doc = dict(next(iter(state.mandates.values())))
        doc["parent"] = self.chance.choice([None, *known[-3:]])
        body = {"mandate": doc, "digest": f"sha256:{self.chance.getrandbits(256):064x}"}
        if self.chance.random() < 0.5:
            pen.add("mandate.granted", body)
            return
        names = [f"sha256:{self.chance.getrandbits(256):064x}" for _ in range(self.chance.randrange(1, 3))]
        pen.add("mandate.accepted", {**body, "source": "wallet", "ap2": "", "redeems": names})

    def stop(self, pen: Writer, state: State) -> None:
        """A stop, or its end."""
        if state.kills and self.chance.random() < 0.5:
            pen.add("kill.cleared", {"clearance": {"kill": self.chance.choice(sorted(state.kills))}})
            return
        kind = self.chance.choice(("deployment", "agent", "tool", "payee"))
        pen.add("kill.set", {"kill": "kill_" + self._new()[:16], "scope": {"kind": kind, "value": "x"}, "reason": ""})

    def activate(self, pen: Writer, state: State) -> None:
        """The same policy comes into force anew, by another person."""
        bundle = state.bundle
        assert bundle is not None
        activation = {"bundle": bundle.digest, "activator": self.chance.choice(sorted(state.people))}
        pen.add("policy.activated", {"activation": activation})

    def accept(self, pen: Writer, state: State) -> None:
        """Somebody accepts the restored lane."""
        if state.succession is not None:
            who = self.chance.choice(("controller", "treasurer"))
            pen.add("lane.accepted", {"acceptance": {"person": who}})

    def end(self, pen: Writer, state: State) -> None:
        if state.runs:
            name = self.chance.choice(sorted(state.runs))
            pen.add("run.ended", {"run": name, "agent": state.runs[name].agent, "reason": ""})

    def keep(self, pen: Writer, state: State) -> None:
        """A legal hold, the end of one, an erasure, or a disclosure."""
        holds, chance = sorted(state.erasures.holds), self.chance.random()
        if chance < 0.4:
            scope = {"kind": "all", "value": ""}
            pen.add(
                "hold.set", {"order": {"hold": "hold_" + self._new()[-16:], "scope": scope, "person": "controller"}}
            )
        elif chance < 0.6 and holds:
            hold = self.chance.choice(holds)
            pen.add("hold.cleared", {"hold": hold, "release": {"hold": hold}})
        elif chance < 0.8:
            pen.add("data.erased", {"erasure": {"subject": self.chance.choice(("acme-paper", "agent:treasury"))}})
        else:
            pen.add("data.disclosed", {"fields": ["$reason"]})

    def published(self, pen: Writer, state: State) -> None:
        """What came back for a head: the state keeps how far witnesses saw the log, and how far epochs reach."""
        size, at = max(1, state.size - self.chance.randrange(3)), state.at
        kind = self.chance.choice(("head.witnessed", "head.stamped", "anchor.published", "epoch.closed"))
        body: dict[str, Any] = {"size": size, "root": "ab" * 32}
        if kind == "head.witnessed":
            body |= {"note": "", "asked": at, "answered": at}
        elif kind == "epoch.closed":
            body |= {"epoch": self.chance.randrange(4), "until": at, "from": 0, "streams": 1, "manifest": "cd" * 32}
        pen.add(kind, body)

    def outside(self, pen: Writer, _: State) -> None:
        """What only keys remember: a definition, and something that happened outside."""
        digest = "sha256:" + f"{self.chance.getrandbits(256):064x}"
        if self.chance.random() < 0.5:
            pen.add("workflow.defined", {"digest": digest, "document": {}})
        else:
            pen.add("event.received", {"source": "bank", "event": digest[7:19], "key": "", "digest": digest})

    def other(self, pen: Writer, _: State) -> None:
        """What no state takes notice of."""
        kind = self.chance.choice(
            (
                "gate.stopped", "log.read", "action.resolved", "request.signed", "action.refused",
                "compute.executed", "step.waiting", "step.resumed", "run.cancelled", "run.migrated",
            )
        )  # fmt: skip
        body: dict[str, Any] = {"agent": self.allowed["agent"], "run": ""} if kind[0] in "arcs" else {}
        pen.add(kind, body)

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
    History.paid_before, History.reopened, History.review, History.run, History.key, History.rotation, History.absence,
    History.payee, History.payee, History.mandate, History.stop, History.activate, History.accept, History.end,
    History.other, History.outside, History.keep, History.published,
)  # fmt: skip
