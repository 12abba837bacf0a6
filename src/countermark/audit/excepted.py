"""Legitimate exceptions from declared paths: a file that people keep, with ticket, person, time and a narrow scope."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from countermark.model.errors import ConfigError
from countermark.workflow import Deviation

EXCEPTIONS_MAX = 1_000
TEXT_CHARS_MAX = 500
_TEXTS = ("ticket", "person", "deviation", "place")
_OPTIONAL = ("run", "from", "until", "reason", "what")


@dataclass(frozen=True, slots=True)
class Exempt:
    """``at``: when it was agreed; ``run`` or the time between ``since`` and ``until``, microseconds, bounds it."""

    ticket: str
    person: str
    at: int
    deviation: str
    place: str
    what: str
    run: str
    since: int
    until: int
    reason: str

    def covers(self, run: str, at: int, found: Deviation) -> bool:
        """Whether a deviation of a run that began at ``at`` is within its scope."""
        if found.kind != self.deviation or found.place != self.place or self.what not in ("", found.what):
            return False
        return run == self.run if self.run else self.since <= at < self.until

    def document(self) -> dict[str, Any]:
        return {"ticket": self.ticket, "person": self.person, "at": self.at, "reason": self.reason}


def read_exceptions(text: str) -> list[Exempt]:
    """Read ``[[exception]]`` tables of a TOML text. Raises ``ConfigError``, which says which one."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"the exceptions cannot be read: {error}") from None
    rows = document.get("exception", [])
    if document.keys() - {"exception"} or type(rows) is not list or len(rows) > EXCEPTIONS_MAX:
        raise ConfigError(f"exceptions are at most {EXCEPTIONS_MAX:,} tables [[exception]], and nothing else")
    return [_read(row, number) for number, row in enumerate(rows, 1)]


def _read(row: object, number: int) -> Exempt:
    def wrong(says: str) -> ConfigError:
        return ConfigError(f"exception {number} {says}", hint="See docs/path-conformance.md.")

    if type(row) is not dict or row.keys() - {*_TEXTS, *_OPTIONAL, "at"}:
        raise wrong(f"has other members than at, {', '.join((*_TEXTS, *_OPTIONAL))}")
    for name in _TEXTS:
        if type(row.get(name)) is not str or len(row[name]) > TEXT_CHARS_MAX or (name != "place" and not row[name]):
            raise wrong(f"says no {name}")
    for name in ("run", "reason", "what"):
        if type(row.get(name, "")) is not str or len(row.get(name, "")) > TEXT_CHARS_MAX:
            raise wrong(f"has a {name} that is no short text")
    if "at" not in row:
        raise wrong("does not say at which time it was agreed")
    bounded = "from" in row and "until" in row
    if bool(row.get("run")) == bounded or (("from" in row) != ("until" in row)):
        raise wrong("must name a run, or from and until")
    times: Mapping[str, int] = {name: _time(row[name], wrong) for name in ("at", "from", "until") if name in row}
    return Exempt(
        row["ticket"], row["person"], times["at"], row["deviation"], row["place"], row.get("what", ""),
        row.get("run", ""), times.get("from", 0), times.get("until", 0), row.get("reason", ""),
    )  # fmt: skip


def _time(value: object, wrong: Any) -> int:
    if type(value) is not datetime or value.tzinfo is None:
        raise wrong("has a time without date, time and zone, as in 2026-11-03T09:00:00Z")
    return int((value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
