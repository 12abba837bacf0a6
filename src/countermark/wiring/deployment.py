"""``countermark.open(dir)``: become the owner of a deployment, or a client of the owner that lives."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from countermark.chain import load
from countermark.gate import Caller, Gate, Parts, Pseudonyms, SocketClient, SocketServer, Writer
from countermark.journal import SCHEMA, SqliteStore, Vault, read_high_water
from countermark.log import LogSigner, TileRoots, open_checkpoint
from countermark.model.clock import SystemClock
from countermark.model.errors import (
    BehindHighWaterError,
    ConfigError,
    CountermarkError,
    GateHaltedError,
    SignatureError,
)
from countermark.model.ports import Clock, Connector, Destination
from countermark.model.tool import Value
from countermark.model.values import Receipt, Result
from countermark.wiring import telemetry
from countermark.wiring.config import Config, load_config
from countermark.wiring.connectors import connectors_of
from countermark.wiring.live import LiveUse
from countermark.wiring.log_keys import log_signer
from countermark.wiring.publishing import Surroundings, destinations_of
from countermark.wiring.telemetry import OpenTelemetry
from countermark.wiring.triggering import Triggering
from countermark.wiring.workflows import Workflows

OWNER_TRIES_MAX = 40
OWNER_WAIT_MS = 50
KEY_BYTES = 32


class Owner:
    """The process that holds the lane: lock, gate, socket."""

    def __init__(
        self, config: Config, connectors: Mapping[str, Connector], clock: Clock, lock: int, live: LiveUse, *,
        recover: bool, tier: str, triggers: bool = False,
    ) -> None:  # fmt: skip
        self._lock = lock
        self._config = config
        self._connectors = connectors
        try:
            if telemetry.wanted():
                telemetry.check_installed()
            if config.evm is not None or config.anchor is not None:
                load()
            surroundings = Surroundings(config, clock)
            parts = parts_of(config, connectors, clock, tier, destinations_of(surroundings), surroundings.tiles)
            self.gate = Gate(parts)
            live.seats = surroundings.seats = self.gate.seats
            self.gate.start()
        except BaseException:
            os.close(lock)
            raise
        self._server = SocketServer(self.gate, config.socket)
        try:
            self.gate.wait(self._server.start())
        except BaseException:
            self.gate.close("no socket")
            os.close(lock)
            raise
        self._workflows = Workflows(config, self.gate, clock)
        self.gate.driver = self._workflows
        self._telemetry = OpenTelemetry(self.gate) if telemetry.wanted() else None
        if recover:
            self.gate.wait(self.gate.recover())
        self.gate.wait(self._workflows.start())
        self.triggering = Triggering(config, self.gate, clock, self._workflows.engine)
        self._workflows.faults = lambda: self.triggering.faults
        if triggers:
            self.gate.wait(self.triggering.start())

    def call(self, op: str, body: Mapping[str, Any], agent: str) -> Any:
        """One operation on the gate's loop."""
        return self.gate.wait(self.gate.call(op, body, Caller(agent, "embedded")))

    def close(self) -> None:
        """Drain, stop, release the lane."""
        self.triggering.close()
        self.gate.wait(self._server.stop())
        self.gate.close()
        self.triggering.closed()
        self._workflows.close()
        if self._telemetry is not None:
            self._telemetry.close()
        for connector in self._connectors.values():
            connector.close()
        os.close(self._lock)


def parts_of(
    config: Config, connectors: Mapping[str, Connector], clock: Clock, tier: str = "embedded",
    destinations: tuple[Destination, ...] = (), tiles: TileRoots | None = None,
) -> Parts:  # fmt: skip
    """Load keys and check the journal against the high-water file. ``tiles`` is what its destinations take from."""
    tiles = TileRoots() if tiles is None else tiles
    signer = log_signer(config)
    pseudonym = Pseudonyms(read_key(config.keys / "pseudonym.key"))
    master = read_key(config.keys / "vault.key")
    check_high_water(config, signer)

    def open_writer() -> Writer:
        store = SqliteStore(config.journal)
        try:
            vault = Vault(config.vault, master)
        except CountermarkError:
            store.close()
            raise
        return Writer(store, vault, signer, pseudonym, config.lane, tiles)

    started = {
        "deployment": config.deployment, "version": _version(), "schema": SCHEMA, "tier": tier, "uid": os.getuid(),
    }  # fmt: skip
    return Parts(
        config.deployment, open_writer, connectors, pseudonym, clock, config.high_water, started,
        lambda: SqliteStore(config.journal, readonly=True), destinations, tiles,
    )  # fmt: skip


def _version() -> str:
    from countermark import __version__

    return __version__


def check_high_water(config: Config, signer: LogSigner) -> None:
    """Refuse a journal that ends before the last published head, or has another root there."""
    mark = read_high_water(config.high_water)
    store = SqliteStore(config.journal, readonly=True)
    try:
        size = store.size()
        note = None if mark is None else store.head_at(mark.size)
    finally:
        store.close()
    if mark is None:
        if size:
            raise BehindHighWaterError(
                "the high-water file is missing", hint="It is written when a deployment is made: restore it."
            )
        return
    if size < mark.size:
        raise BehindHighWaterError(
            f"the journal has {size} records, {mark.size} were published",
            hint="An older copy was put back or the end was cut off. Restore the newest backup.",
        )
    try:
        root = open_checkpoint(note, signer.vkeys).root.hex() if note is not None else ""
    except SignatureError:
        root = ""
    if root != mark.root:
        raise BehindHighWaterError("the journal is not the one whose head was published", hint="Restore a backup.")


def read_key(path: Path) -> bytes:
    """A 32-byte secret key in hex, in a file that its owner alone may read."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path.name} can be read by others", hint=f"chmod 600 {path.name}")
        raw = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the key file {path.name} cannot be read: {error}") from None
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"the key file {path.name} does not hold {KEY_BYTES} bytes")
    return raw


def take_lock(path: Path) -> int | None:
    """The lane's lock, or None while another process holds it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the deployment is not writable: {error.strerror}", code="read_only") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


class Deployment:
    """A deployment as its users hold it; the same whether this process owns the lane or another one does."""

    def __init__(
        self, root: Path, *, agent: str = "", connectors: Mapping[str, Connector] | None = None,
        clock: Clock | None = None, recover: bool = True, tier: str = "embedded", triggers: bool = False,
    ) -> None:  # fmt: skip
        self._triggers = triggers
        self.config = load_config(root)
        self._recover = recover
        self._tier = tier
        self.agent = agent
        self._live = LiveUse(self.config.live)
        self._connectors = connectors_of(self.config, self._live) if connectors is None else connectors
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._end: Owner | SocketClient = self._connect()
        self._run = ""

    @property
    def owner(self) -> bool:
        """Whether this process holds the lane."""
        return isinstance(self._end, Owner)

    @property
    def trigger_faults(self) -> dict[str, str]:
        """Definitions and sources that start nothing in this process, and why; empty in a client."""
        return self._end.triggering.faults if isinstance(self._end, Owner) else {}

    @property
    def gate(self) -> Gate:
        """The gate itself, for callers that drive its event loop. Raises ``ConfigError`` in a client."""
        if not isinstance(self._end, Owner):
            raise ConfigError("another process owns this deployment")
        return self._end.gate

    def _connect(self) -> Owner | SocketClient:
        for _ in range(OWNER_TRIES_MAX):
            lock = take_lock(self.config.lock)
            if lock is not None:
                return Owner(
                    self.config, self._connectors, self._clock, lock, self._live, recover=self._recover,
                    tier=self._tier, triggers=self._triggers,
                )  # fmt: skip
            client = SocketClient(self.config.socket)
            try:
                client.call("ping", {}, "")
                return client
            except OSError:
                client.close()
            time.sleep(OWNER_WAIT_MS / 1000)
        raise GateHaltedError("another process holds the lane but does not answer on its socket")

    def call(self, op: str, body: Mapping[str, Any], agent: str | None = None) -> Any:
        """One operation; if the owner dies, becomes the owner or finds the new one, and asks again.

        Asking again is safe: an action keeps its identity.
        """
        for _ in range(OWNER_TRIES_MAX):
            end = self._end
            try:
                return end.call(op, body, self.agent if agent is None else agent)
            except ConnectionError:
                self._reconnect(end)
        raise GateHaltedError("the gate keeps going away")

    def _reconnect(self, lost: Owner | SocketClient) -> None:
        with self._lock:
            if self._end is lost:  # another thread may have been here first
                lost.close()
                self._end = self._connect()

    def start_run(self, *, mandate: str | None = None, purpose: str = "", agent: str | None = None) -> str:
        """Mint a run. Returns its ID."""
        run: str = self.call("run.start", {"mandate": mandate, "purpose": purpose}, agent)
        return run

    def act(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", because: Sequence[str] = (), agent: str | None = None,
    ) -> Result:  # fmt: skip
        """Ask for one action; returns when its outcome, its denial or its escalation is durable.

        An absent ``run`` is minted once per handle; an absent ``call_id`` is random, so give one to be able to retry.
        """
        return result_from(self.call("act", self._asked(tool, args, call_id, run, reason, because, agent), agent))

    def _asked(
        self, tool: str, args: Mapping[str, Value], call_id: str | None, run: str | None, reason: str,
        because: Sequence[str], agent: str | None,
    ) -> dict[str, Any]:  # fmt: skip
        if run is None:
            self._run = self._run or self.start_run(agent=agent)
            run = self._run
        return {
            "run": run, "call_id": call_id or "c_" + secrets.token_hex(12), "tool": tool, "args": dict(args),
            "reason": reason, "because": list(because),
        }  # fmt: skip

    def admit(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", because: Sequence[str] = (), once: bool = False, agent: str | None = None,
    ) -> Result:  # fmt: skip
        """Ask whether the calling program may run a tool itself (``connector = "caller"`` in the policy).

        ``result.admitted`` means go; then ``settle`` reports what happened. Asked again with the same ``run`` and
        ``call_id`` the answer is the same and nothing more is held; but with ``once`` it is ``ArgumentError``, code
        ``admitted_before``, unless surely nobody was told to go before.
        """
        asked = self._asked(tool, args, call_id, run, reason, because, agent)
        return result_from(self.call("admit", {**asked, "once": True} if once else asked, agent))

    def settle(
        self, action: str, outcome: str, *, ref: str = "", output: Mapping[str, Value] | None = None,
        agent: str | None = None,
    ) -> Result:  # fmt: skip
        """Report the outcome of an admitted action: ``confirmed``, ``failed`` or ``unknown``, once.

        ``ref`` is the reference that the tool gave; of ``output`` only what the policy declares is kept.
        """
        body = {"id": action, "outcome": outcome, "ref": ref, "output": dict(output or {})}
        return result_from(self.call("settle", body, agent))

    def close(self) -> None:
        """Drain and release."""
        self._end.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def result_from(doc: Mapping[str, Any]) -> Result:
    """A ``Result`` from its JSON form."""
    fields = dict(doc)
    receipt = fields.pop("receipt")
    return Result(receipt=None if receipt is None else Receipt(**receipt), **fields)


def open_deployment(
    root: str | Path, *, agent: str = "", connectors: Mapping[str, Connector] | None = None,
    clock: Clock | None = None, recover: bool = True, tier: str = "embedded", triggers: bool = False,
) -> Deployment:  # fmt: skip
    """Open a deployment directory. Raises ``CountermarkError`` when anything about it is not right.

    Whoever becomes the owner first settles what an earlier one left open; with ``recover=False`` that is left to the
    background, so that an order such as a stop comes before anything is sent again. ``tier`` is what every record says
    of this owner: ``embedded`` in the program of an agent, ``enforcing`` where the agents' programs cannot reach. With
    ``triggers`` an owner starts the runs of workflows that time and events ask for, for as long as it is open.
    """
    return Deployment(
        Path(root), agent=agent, connectors=connectors, clock=clock, recover=recover, tier=tier, triggers=triggers
    )
