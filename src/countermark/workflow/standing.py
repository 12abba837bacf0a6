"""Which triggers are in force, since when, and how far what they ask for is done: one small durable file.

It is no evidence: what has been started stands in the records, and nothing is started twice whatever the file says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from countermark.model.errors import StoreError
from countermark.workflow.triggers import MANUAL, SCHEDULE

VERSION = 1
FILE_BYTES_MAX = 1 << 20

What = tuple[str, str]  # a trigger within a definition of this name: its source and "", or its cron and zone


@dataclass(slots=True)
class Since:
    """When a trigger came into force: how many records there were, and the gate's time (microseconds)."""

    records: int
    at: int
    handled: int = 0  # of a schedule: the latest nominal time that was started or passed over


@dataclass(slots=True)
class Standing:
    """``heard``: what the records before it ask for is started. ``force``: by definition's name, then by trigger."""

    path: Path
    lane: str
    heard: int = 0
    force: dict[str, dict[What, Since]] = field(default_factory=dict)
    _written: bytes = b""

    def load(self, size: int) -> None:
        """Read the file; without one, of this lane, nothing was in force before the journal's ``size`` of now.

        Raises ``StoreError`` for a file that cannot be read.
        """
        self.heard = size
        try:
            raw = self.path.read_bytes()
            found: Any = orjson.loads(raw[:FILE_BYTES_MAX])
            if found["v"] != VERSION or found["lane"] != self.lane:
                return
            self.heard = min(int(found["heard"]), size)
            self.force = {
                name: {(one["trigger"][0], one["trigger"][1]): Since(one["records"], one["at"], one["handled"])
                       for one in rows}
                for name, rows in found["force"].items()
            }  # fmt: skip
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            raise StoreError(
                f"{self.path.name} cannot be read", hint="Delete it: triggers then count from now on."
            ) from None

    def save(self) -> None:
        """Write the file when anything is new. Raises ``StoreError``."""
        rows = {
            name: [{"trigger": list(what), "records": one.records, "at": one.at, "handled": one.handled}
                   for what, one in found.items()]
            for name, found in self.force.items()
        }  # fmt: skip
        raw = orjson.dumps({"v": VERSION, "lane": self.lane, "heard": self.heard, "force": rows})
        if raw == self._written:
            return
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise StoreError(f"{self.path.name} cannot be written: {error.strerror}") from None
        self._written = raw

    def put(self, documents: Iterable[Mapping[str, Any]], records: int, at: int) -> None:
        """These definitions are in force now, and no others; what was before stays since it was."""
        force: dict[str, dict[What, Since]] = {}
        for document in documents:
            before = self.force.get(document["name"], {})
            force[document["name"]] = {
                what: before.get(what) or Since(records, at)
                for what in (what_of(one) for one in document["triggers"] if one["kind"] != MANUAL)
            }
        self.force = force


def what_of(trigger: Mapping[str, Any]) -> What:
    """The trigger's own name within its definition."""
    return (trigger["cron"], trigger["zone"]) if trigger["kind"] == SCHEDULE else (trigger["source"], "")
