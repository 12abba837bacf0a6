"""A long journal without a provider: well-formed records, chained and under a signed head, some 10,000 a second.

The records are made up, not decided: they are what a lane of ``vendor-payments`` would have written, so a gate opens
the journal, folds all of it and goes on. For measuring what readers do behind a long history, and for their tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from countermark.authority import load_private
from countermark.gate import Pseudonyms
from countermark.journal import HighWater, SqliteStore, write_high_water
from countermark.log import Frontier, LogSigner, leaf_hash, sign_checkpoint
from countermark.model.clock import US
from countermark.model.ports import Batch
from countermark.model.records import GENESIS, Record, seal
from countermark.wiring import Config, load_config, read_key

TOOL = "stripe.transfers.create"
AGENT = "treasury"
PAYEES = (("acme-paper", "acct_1AcmePaper"), ("borealis-hosting", "acct_1BorealisHosting"))
BATCH_RECORDS = 4_096
DEADLINE_US = 4 * 3_600 * US


def _digest(text: str) -> str:
    return "sha256:" + sha256(text.encode()).hexdigest()


class LongJournal:
    """Appends to the journal of a deployment that nobody holds."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        self.config: Config = load_config(root)
        self.store = SqliteStore(self.config.journal)
        self.random = random.Random(seed)
        self._signer = LogSigner(self.config.origin, load_private(self.config.keys / "log.pem"))
        self._pseudonym = Pseudonyms(read_key(self.config.keys / "pseudonym.key"))
        self._frontier = Frontier()
        self._batch = Batch()
        self._streams: dict[str, tuple[int, str]] = {}
        self.size, self.prev, self.at = 0, GENESIS, 0
        self.bundle = self.mandate = ""
        for record in self.store.records():
            self._see(record)
        self._run = "run_" + "0" * 32
        self.add(
            "run.started", {"run": self._run, "agent": AGENT, "mandate": self.mandate, "purpose": "a long history"}
        )
        self._number = 0

    def _see(self, record: Record) -> None:
        self._frontier.append(leaf_hash(record.raw))
        self.size, self.prev, self.at = record.seq + 1, record.digest, record.at
        for name, place in record.streams.items():
            self._streams[name] = (place[0], record.digest)
        if record.kind == "policy.activated":
            self.bundle = record.body["activation"]["bundle"]
        elif record.kind == "mandate.granted":
            self.mandate = record.body["digest"]

    def add(self, kind: str, body: dict[str, Any], after_us: int = 0) -> Record:
        """One record, ``after_us`` later than the one before."""
        self.at += after_us
        streams: dict[str, list[Any]] = {}
        if kind.startswith(("action.", "run.", "escalation.", "request.")):
            payee = (body.get("terms") or {}).get("payee")
            names = [("a.", "agent", body["agent"]), ("r.", "run", body["run"])]
            names += [("p.", "account", payee)] if payee is not None else []
            for mark, what, value in names:
                name = mark + self._pseudonym(what, value)
                last = self._streams.get(name)
                streams[name] = [0, GENESIS] if last is None else [last[0] + 1, last[1]]
        by = f"agent:{AGENT}" if kind.startswith("run.") else "gate"
        record = seal(
            lane="l0", seq=self.size, prev=self.prev, kind=kind, at=self.at, by=by, streams=streams, body=body,
            nonce=f"{self.random.getrandbits(128):032x}",
        )  # fmt: skip
        self._see(record)
        self._batch.records.append(record)
        if len(self._batch.records) >= BATCH_RECORDS:
            self.commit()
        return record

    def commit(self) -> None:
        """Write what is gathered, under a signed head."""
        if self._batch.records:
            self._batch.head = (self.size, sign_checkpoint(self._signer, self.size, self._frontier.root()))
            self.store.commit(self._batch)
            self._batch = Batch()

    def close(self) -> None:
        self.commit()
        self.store.close()
        write_high_water(self.config.high_water, HighWater(self.size, self._frontier.root().hex()))

    # Whole actions -------------------------------------------------------------------------------------------------

    def decided(
        self, disposition: str = "allow", *, agent: str = AGENT, tool: str = TOOL, payee: int = 0, invoice: str = "",
        amount: int | None = 48_000, code: str = "", again: Record | None = None, escalation: str | None = None,
        after_us: int = 0,
    ) -> Record:  # fmt: skip
        """A decision; ``again`` is the first one, of which this is the one after an approval."""
        if again is None:
            self._number += 1
            name = sha256(f"{self.random.random()}:{self._number}".encode()).hexdigest()
            call_id, invoice = f"c{self._number}", invoice or f"INV-{self._number}"
            payee_id, account = PAYEES[payee]
            terms = {"amount": amount, "currency": None if amount is None else "eur", "payee": payee_id}
            args: dict[str, Any] = {"currency": "eur", "destination": account, "invoice": invoice}
            if amount is not None:
                args["amount"] = amount
            identity = {
                "id": "act_" + name[:32], "agent": agent, "run": self._run, "call_id": call_id, "tool": tool,
                "args": args, "action": "sha256:" + name, "request": _digest("r" + name), "terms": terms,
                "obligation": _digest("o" + name), "key": "cm_" + name[:40],
            }  # fmt: skip
        else:
            kept = ("id", "agent", "run", "call_id", "tool", "args", "action", "request", "terms", "obligation", "key")
            identity = {key: again.body[key] for key in kept}
        codes = {"allow": "allowed", "flag": "flagged", "escalate": "needs_approval", "deny": "denied_by_policy"}
        reasons = {"escalate": ["limits.payment.ask"], "deny": ["limits.payment.max"], "flag": ["limits.payment.flag"]}
        whole = identity["terms"]["amount"] or 0
        body = {
            **identity, "salt": "0" * 32, "claimed": {"because": [], "reason": None, "model": "", "trace": ""},
            "named": {}, "mandates": [self.mandate], "budgets": [], "bundle": self.bundle,
            "facts": {"day_total": whole, "payee_week": whole, "hour_count": 1}, "disposition": disposition,
            "stage": "policy" if again is None else "approval", "code": code or codes[disposition],
            "reasons": reasons.get(disposition, []), "escalation": escalation, "lifted": [],
            "not_after": self.at + after_us + 60 * US, "tier": "enforcing",
        }  # fmt: skip
        return self.add("action.decided", body, after_us)

    def settled(self, intent: Record, outcome: str = "confirmed", ref: str | None = None, after_us: int = 0) -> Record:
        body = intent.body
        codes = {"confirmed": "ok", "failed": "provider_refused", "unknown": "timeout"}
        found = "tr_" + body["id"][4:28] if ref is None else ref
        return self.add(
            "action.settled",
            {
                **{name: body[name] for name in ("id", "agent", "run", "tool", "terms", "tier")}, "intent": intent.seq,
                "intent_digest": intent.digest, "outcome": outcome, "code": codes[outcome],
                "ref": found if outcome == "confirmed" else "",
                "settled": None, "http_status": 200 if outcome == "confirmed" else 402, "request_id": "",
                "response": "", "attempts": 1, "output": {}, "via": "execute",
            }, after_us,
        )  # fmt: skip

    def raised(self, decision: Record) -> str:
        body = decision.body
        name = "esc_" + decision.digest[7:39]
        kept = ("id", "agent", "run", "action", "request", "terms", "bundle")
        self.add(
            "escalation.raised",
            {
                "escalation": name, **{key: body[key] for key in kept}, "decided": decision.seq,
                "decided_digest": decision.digest, "ladders": {"finance": ["limits.payment.ask"]},
                "mandate": self.mandate, "due": {"finance": self.at + DEADLINE_US}, "not_after": self.at + DEADLINE_US,
            },
        )  # fmt: skip
        return name

    def answered(self, decision: Record, escalation: str, verdict: str, after_us: int = 0) -> None:
        body = decision.body
        approval = {"ladder": "finance", "person": "controller", "verdict": verdict, "rung": 1}
        self.add(
            "escalation.answered",
            {
                "escalation": escalation, **{key: body[key] for key in ("id", "agent", "run", "terms")},
                "approval": approval, "key": "ed25519:made-up", "sig": "made-up",
                "state": "approved" if verdict == "approve" else "refused",
            }, after_us,
        )  # fmt: skip

    def expired(self, decision: Record, escalation: str, after_us: int = 0) -> None:
        kept = {key: decision.body[key] for key in ("id", "agent", "run", "terms")}
        self.add("escalation.expired", {"escalation": escalation, **kept}, after_us)

    def action(self, step_us: int) -> None:
        """A whole action, of the kinds that a week of payments has."""
        draw, payee = self.random.random(), self.random.randrange(2)
        amount = self.random.randrange(1_000, 490_000)
        if draw < 0.92:
            kind = "flag" if draw > 0.86 else "allow"
            intent = self.decided(kind, payee=payee, amount=amount, after_us=step_us)
            self.settled(intent, "failed" if 0.40 < draw < 0.42 else "confirmed", after_us=step_us)
        elif draw < 0.95:
            self.decided("deny", payee=payee, amount=amount * 60, after_us=step_us)
        else:
            self._asked(draw, payee, amount, step_us)

    def _asked(self, draw: float, payee: int, amount: int, step_us: int) -> None:
        decision = self.decided("escalate", payee=payee, amount=amount + 500_000, after_us=step_us)
        escalation = self.raised(decision)
        if draw < 0.985:
            self.answered(decision, escalation, "approve", step_us)
            again = self.decided("allow", again=decision, escalation=escalation, after_us=1)
            self.settled(again, after_us=step_us)
        elif draw < 0.995:
            self.answered(decision, escalation, "refuse", step_us)
        else:
            self.expired(decision, escalation, step_us)

    def lay(self, records: int, until_us: int) -> Iterator[int]:
        """Whole actions until there are so many records, the last at about ``until_us``. Yields the size at times."""
        step = max(1, (until_us - self.at) // max(1, records - self.size))
        while self.size < records:
            self.action(step)
            if self._number % 10_000 == 0:
                yield self.size
