"""Whoever reads the log stands in it: a ``log.read`` record before anything of what was read is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from countermark.gate import Parts, SocketClient, note_disclosure, note_reading
from countermark.journal import HighWater, write_high_water
from countermark.model.clock import SystemClock
from countermark.model.errors import BehindHighWaterError, ConfigError, GateHaltedError
from countermark.wiring.config import Config
from countermark.wiring.deployment import OWNER_TRIES_MAX, OWNER_WAIT_MS, parts_of, take_lock


def record_reading(config: Config, what: str, start: int, stop: int) -> bool:
    """Record that this user reads the records from ``start`` up to, not including, ``stop``.

    ``what`` is ``export``, ``explain`` or ``audit``. Through the process that owns the lane, else in its place, without
    opening a gate. False when nothing can be recorded here: the directory cannot be written, or its journal is not the
    one whose head was published, so that no gate would open it either.

    Raises:
        CountermarkError: it could be recorded and was not; then nothing is to be shown.
    """
    return _record(config, "log.read", {"reader": _reader(), "what": what, "from": start, "to": stop})


def record_disclosure(config: Config, to: str, reason: str, fields: list[str], size: int, count: int) -> bool:
    """Record that this user discloses ``count`` values of ``fields`` in a pack of ``size`` records; as above."""
    body = {"reader": _reader(), "to": to, "reason": reason, "fields": fields, "size": size, "count": count}
    return _record(config, "data.disclose", body)


def _reader() -> str:
    return f"uid:{os.getuid()}"


def _record(config: Config, op: str, body: Mapping[str, Any]) -> bool:
    for _ in range(OWNER_TRIES_MAX):
        try:
            lock = take_lock(config.lock)
        except ConfigError as error:
            if error.code == "read_only":
                return False
            raise
        if lock is not None:
            return _write(config, op, body, lock)
        client = SocketClient(config.socket)
        try:
            client.call(op, body, "")
            return True
        except OSError:
            time.sleep(OWNER_WAIT_MS / 1000)  # it is about to open, or has just gone
        finally:
            client.close()
    raise GateHaltedError("another process holds the lane but does not answer on its socket")


def _write(config: Config, op: str, body: Mapping[str, Any], lock: int) -> bool:
    clock = SystemClock()
    try:
        parts: Parts = parts_of(config, {}, clock)
        writer = parts.open_writer()
        try:
            writer.rebuild()
            writer.now = clock.now_us()
            _NOTES[op](writer, body)
            head = writer.commit()
        finally:
            writer.store.close()
            writer.vault.close()
        write_high_water(config.high_water, HighWater(head.size, head.root.hex()))
    except BehindHighWaterError:
        return False
    finally:
        os.close(lock)
    return True


_NOTES = {"log.read": note_reading, "data.disclose": note_disclosure}
