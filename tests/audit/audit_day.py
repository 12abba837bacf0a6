"""One day of a deployment in which every way to end happens, played by the real gate against a recorded provider."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from countermark.audit import Unseal, unsealer
from countermark.authority import build_approval, clear, load_private, revoke, sign_approval
from countermark.connectors import NoopConnector
from countermark.gate import Caller
from countermark.journal import SqliteStore, Vault
from countermark.log import LogSigner
from countermark.model.clock import US, FakeClock
from countermark.model.records import Record, seal
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.policy import template_files
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import Deployment, open_deployment, read_key
from countermark.wiring.init import Made, init_deployment

AGENT = "treasury"
TOOL = "stripe.transfers.create"
PAPER, HOSTING, STRANGER = "acct_1AcmePaper", "acct_1BorealisHosting", "acct_1Somebody"
START_US = 1_793_700_000 * US  # Tuesday 3 November 2026, 11:20 in Berlin
SENSITIVE = '\n[tool."stripe.transfers.create".args.description]\nclass = "inert"\nsensitive = true\n'


class Provider(NoopConnector):
    """Confirms everything but invoices that begin with FAIL (refused) or LOST (no answer, then not known)."""

    name = "stripe"

    def __init__(self) -> None:
        super().__init__(drafts()["stripe"])

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        if b"FAIL" in request.body:
            return Outcome("failed", "provider_refused", http_status=402)
        if b"LOST" in request.body:
            return Outcome("unknown", "timeout")
        return super().execute(tool, request)

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        if b"LOST" in request.body:
            return Outcome("unknown", "timeout")
        return super().lookup(tool, request, key, since_us)


@dataclass
class Day:
    """The deployment after its day. ``ids`` maps a call to its action, ``escalations`` likewise."""

    made: Made
    ids: dict[str, str] = field(default_factory=dict)
    escalations: dict[str, str] = field(default_factory=dict)
    kill: str = ""
    run: str = ""

    @property
    def store(self) -> SqliteStore:
        return SqliteStore(self.made.root / "data" / "journal.db", readonly=True)

    @property
    def signer(self) -> LogSigner:
        origin = f"countermark/{self.made.deployment}/l0"
        return LogSigner(origin, load_private(self.made.root / "keys" / "log.pem"))

    @property
    def vault(self) -> Vault:
        return Vault(self.made.root / "data" / "vault.db", read_key(self.made.root / "keys" / "vault.key"))

    def unseal(self, store: SqliteStore) -> Unseal:
        return unsealer(store, self.vault)


class Player:
    """Plays calls into an open deployment."""

    def __init__(self, handle: Deployment, day: Day, clock: FakeClock) -> None:
        self.handle = handle
        self.day = day
        self.clock = clock

    def act(self, call: str, amount: int, account: str = PAPER, invoice: str | None = None, **more: Any) -> str:
        """Ask for a transfer; answers the status."""
        self.clock.advance(30)
        args = {"amount": amount, "currency": "eur", "destination": account, "metadata[invoice]": invoice or call}
        args |= more.pop("args", {})
        result = self.handle.act(TOOL, args, call_id=call, run=self.day.run, agent=AGENT, **more)
        self.day.ids[call] = result.action
        if result.escalation is not None:
            self.day.escalations[call] = result.escalation
        return result.status

    def answer(self, call: str, verdict: str) -> Mapping[str, Any]:
        """The controller answers."""
        self.clock.advance(60)
        (asked,) = [e for e in self.handle.call("escalations", {}) if e["escalation"] == self.day.escalations[call]]
        document = build_approval(
            asked,
            deployment=self.day.made.deployment,
            ladder="finance",
            verdict=verdict,
            person="controller",  # type: ignore[arg-type]
        )
        reply: Mapping[str, Any] = self.handle.call("answer", sign_approval(document, self.key("controller")))
        return reply

    def key(self, person: str) -> Any:
        return load_private(self.day.made.people[person])

    def expire(self) -> None:
        """Let the deadline of whatever waits pass."""
        self.clock.advance(5 * 3_600)
        gate = self.handle.gate
        gate.wait(gate._expire())


def _play(player: Player) -> None:
    day, handle = player.day, player.handle
    player.act("INV-1", 48_000, reason="the invoice is due", args={"description": "for the roof of the town hall"})
    player.act("INV-2", 240_000)
    player.act("again", 48_000, invoice="inv - 1")
    player.act("FAIL-1", 10_000)
    player.act("LOST-1", 11_000, HOSTING)
    player.act("lost-again", 11_000, HOSTING, invoice="LOST-1")
    player.act("INV-3", 600_000)
    player.answer("INV-3", "approve")
    player.act("INV-4", 7_000, STRANGER)
    player.answer("INV-4", "refuse")
    player.act("refused-again", 7_000, STRANGER, invoice="INV-4")
    player.act("INV-5", 8_000, STRANGER, reason="they wrote a mail", args={"description": "urgent"})
    player.expire()
    player.act("INV-6", 2_400_000)
    player.act("INV-7", 2_600_000)
    killed = handle.call("kill.set", {"kind": "payee", "value": "acme-paper", "reason": "looks wrong"})
    day.kill = killed["kill"]
    player.act("INV-8", 1_000)
    order = {"deployment": day.made.deployment, "kill": day.kill, "person": "controller", "reason": "checked"}
    handle.call("kill.clear", clear(order, player.key("controller")))
    player.act("INV-9", 1_200)
    player.act("INV-10", 9_000, STRANGER)  # waits until the end
    mandate = day.made.mandates[AGENT]
    order = {"deployment": day.made.deployment, "mandate": mandate, "person": "treasurer", "reason": "the work is done"}
    handle.call("mandate.revoke", revoke(order, player.key("treasurer")))
    player.act("INV-11", 1_300)
    body = {"run": day.run, "call_id": "bad", "tool": TOOL, "args": {"amount": "1"}}
    handle.gate.wait(_refused(handle, body))
    handle.call("run.end", {"run": day.run, "reason": "done"}, AGENT)


async def _refused(handle: Deployment, body: dict[str, Any]) -> None:
    from countermark.model.errors import CountermarkError

    try:
        await handle.gate.act(Caller(AGENT, "embedded"), body)
    except CountermarkError:
        return
    raise AssertionError("a string was taken for an amount")


@cache
def the_day() -> Day:
    """The day, played once for all tests of this process."""
    folder = tempfile.mkdtemp(prefix="countermark-audit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = Path(folder) / "deployment"
    clock = FakeClock(START_US)
    provider = {"stripe": Provider()}
    tools = template_files("vendor-payments")["tools.toml"] + SENSITIVE
    made = init_deployment(
        root, "vendor-payments", "acme", edit={"tools.toml": tools}, clock=clock, connectors=provider
    )
    day = Day(made)
    with open_deployment(root, agent=AGENT, connectors=provider, clock=clock) as handle:
        day.run = handle.start_run(purpose="pay the invoices of the week")
        _play(Player(handle, day, clock))
    return day


Alter = Callable[[dict[str, Any]], None]


def resealed(records: list[Record], seq: int, alter: Alter) -> list[Record]:
    """The records with the body at ``seq`` altered and everything after it chained again: an insider's rewrite.

    What refers to a record by its digest is carried along; only people's signatures on what was renamed break.
    """
    out: list[Record] = []
    renamed: dict[str, str] = {}
    for record in records:
        if record.seq < seq:
            out.append(record)
            continue
        document = _renamed(
            {"body": dict(record.body), "streams": {k: list(v) for k, v in record.streams.items()}}, renamed
        )
        if record.seq == seq:
            alter(document["body"])
        again = seal(
            lane="l0", seq=record.seq, prev=out[-1].digest if out else record.prev, kind=record.kind, at=record.at,
            nonce="0" * 32, by=record.by, streams=document["streams"], body=document["body"],
        )  # fmt: skip
        renamed[record.digest] = again.digest
        renamed["esc_" + record.digest[7:39]] = "esc_" + again.digest[7:39]
        out.append(again)
    return out


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    return value
