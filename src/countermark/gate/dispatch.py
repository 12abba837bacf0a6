"""The dispatch barrier: the last look before an effect, and the list of effects under way.

The lane publishes here, under the lock, whatever may stop an effect; an effect registers here, under the same lock,
before its first byte. So after a kill has answered, no new effect starts, and those under way are listed. A kill that
is asked for and not yet recorded holds its scope from the moment of asking: payments do not outrun it in the queue.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from countermark.model.records import Record
from countermark.policy import Seats, State, killed_by


class Intent(NamedTuple):
    """A durable intent: its deciding record. ``not_after`` is microseconds."""

    record: Record

    @property
    def seq(self) -> int:
        return self.record.seq

    @property
    def body(self) -> Mapping[str, Any]:
        return self.record.body

    @property
    def not_after(self) -> int:
        return int(self.body["not_after"])


class Dispatch:
    """Barrier and register of effects under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: State | None = None
        self._halted = False
        self._seats = Seats()
        self._holds: dict[str, Mapping[str, Any]] = {}  # kills asked for and not yet published: name -> scope
        self.in_flight: dict[int, Intent] = {}
        self.since = 0  # the first record of this gate: of what was decided later, it knows what is under way

    def publish(self, state: State) -> list[dict[str, Any]]:
        """Make committed authority visible; returns what is in flight at this moment."""
        with self._lock:
            self._view(state)
            return self._listed()

    def _view(self, state: State) -> None:
        view = State(state.keys, state.bundle_of)
        self._holds = {name: scope for name, scope in self._holds.items() if name not in state.kills}
        view.kills, view.revoked = {**state.kills, **self._holds}, set(state.revoked)
        view.mandates, view.engine, view.register = state.mandates, state.engine, state.register.barrier()
        self._state, self._halted, self._seats = view, False, state.seats

    def seats(self) -> Seats:
        """Who stands behind the policy in force, as last committed."""
        with self._lock:
            return self._seats

    def halt(self) -> None:
        """Stop every dispatch until the lane has reopened."""
        with self._lock:
            self._halted = True

    def hold(self, kill: str, scope: Mapping[str, Any]) -> None:
        """Stop a scope from now on, before the kill of that name is recorded; publishing its record ends the hold."""
        with self._lock:
            self._holds[kill] = scope
            if self._state is not None:
                self._state.kills[kill] = scope

    def release(self, kill: str) -> None:
        """The kill was not recorded: its hold ends. Of one that was recorded nothing changes."""
        with self._lock:
            if self._holds.pop(kill, None) is not None and self._state is not None:
                self._state.kills.pop(kill, None)

    def begin(self, intent: Intent, now_us: int) -> str | None:
        """Register an effect, or say why it must not start: a stable code."""
        with self._lock:
            code = self._why_not(intent, now_us)
            if code is None:
                self.in_flight[intent.seq] = intent
            return code

    def stopped(self, intent: Intent) -> bool:
        """Whether a kill, a revocation, a halt or an order about the payee came in meanwhile: nothing is sent then."""
        with self._lock:
            state, body = self._state, intent.body
            if state is None or self._halted:
                return True
            mandates, payee = body["mandates"], body["terms"]["payee"]
            hit = killed_by(state, body["agent"], body["tool"], mandates, payee)
            moved = state.register.moved_since(payee, intent.seq)
            return bool(hit) or moved or not state.revoked.isdisjoint(mandates)

    def why_not(self, intent: Intent, now_us: int) -> str | None:
        """Why an effect must not start now: a stable code."""
        with self._lock:
            return self._why_not(intent, now_us)

    def _why_not(self, intent: Intent, now_us: int) -> str | None:
        state, record = self._state, intent.record
        now_us = max(now_us, record.at)  # as the lane counts time: it never goes back
        if state is None or self._halted:
            return "gate_halted"
        body, bundle = record.body, state.bundle
        if now_us >= body["not_after"]:
            return "too_late"
        if bundle is None or bundle.digest != body["bundle"]:
            return "policy_changed"
        mandates, payee = body["mandates"], body["terms"]["payee"]
        for mandate in mandates:
            if mandate in state.revoked or not _valid(state, mandate, now_us):
                return "mandate_not_in_force"
        if killed_by(state, body["agent"], body["tool"], mandates, payee):
            return "killed"
        if state.register.moved_since(payee, record.seq):
            return "payee_changed"
        return "already_running" if record.seq in self.in_flight else None

    def running(self, seq: int) -> bool:
        """Whether the effect of an intent is under way."""
        with self._lock:
            return seq in self.in_flight

    def end(self, seq: int) -> None:
        """The effect is over, however it went."""
        with self._lock:
            self.in_flight.pop(seq, None)

    def _listed(self) -> list[dict[str, Any]]:
        return [{"seq": i.seq, "id": i.body["id"], "tool": i.body["tool"]} for i in self.in_flight.values()]


def _valid(state: State, mandate: str, now_us: int) -> bool:
    doc = state.mandates.get(mandate)
    return doc is not None and bool(doc["not_before"] <= now_us < doc["not_after"])
