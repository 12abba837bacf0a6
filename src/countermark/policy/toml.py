"""Strict reading of TOML with line numbers: every wrong or unknown key becomes a finding where it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.clock import US
from countermark.model.words import nearest
from countermark.policy.findings import Findings

Path: TypeAlias = tuple[str | int, ...]

TEXT_CHARS_MAX = 1_000
LIST_MAX = 1_000
_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MOMENT = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEYS = re.compile(rf"{_PART}(?:\s*\.\s*{_PART})*")
_AT_LINE = re.compile(r"\(at line (\d+)")


def _path_of(keys: str) -> tuple[str, ...]:
    """The parts of a dotted key, unquoted by the TOML parser itself."""
    value: Any = tomllib.loads(f"{keys} = 0")
    path: list[str] = []
    while isinstance(value, dict):
        (name,) = value
        path.append(name)
        value = value[name]
    return tuple(path)


class _Scanner:
    """Finds the line of every table header and key. It follows TOML that ``tomllib`` has already accepted."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._table: Path = ()
        self._counts: dict[tuple[str, ...], int] = {}
        self._depth = 0
        self._quote = ""

    def feed(self, number: int, line: str) -> None:
        start = line.strip()
        if self._depth == 0 and not self._quote and start and not start.startswith("#"):
            rest = self._header(number, start) if start.startswith("[") else self._key(number, start)
        else:
            rest = line
        self._follow(rest)

    def _header(self, number: int, start: str) -> str:
        array = start.startswith("[[")
        found = _KEYS.match(start.lstrip("[").lstrip())
        if found is None:
            return ""
        names = _path_of(found.group())
        if array:
            index = self._counts.get(names, 0)
            self._counts[names] = index + 1
            self._table = (*names, index)
        else:
            self._table = self._inside(names)
        self.lines.setdefault(self._table, number)
        for end in range(1, len(names) + 1):
            self.lines.setdefault(names[:end], number)
        return ""

    def _inside(self, names: tuple[str, ...]) -> Path:
        """A table below an array of tables belongs to the array's newest element."""
        for end in range(len(names) - 1, 0, -1):
            if names[:end] in self._counts:
                return (*names[:end], self._counts[names[:end]] - 1, *names[end:])
        return names

    def _key(self, number: int, start: str) -> str:
        found = _KEYS.match(start)
        if found is None:
            return start
        path = (*self._table, *_path_of(found.group()))
        self.lines.setdefault(path, number)
        return start[found.end() :]

    def _follow(self, text: str) -> None:
        """Track open brackets and multi-line strings, so that what stands inside them is not taken for a key."""
        at = 0
        while at < len(text):
            if self._quote:
                end = text.find(self._quote, at)
                if end < 0:
                    if len(self._quote) == 1:
                        self._quote = ""
                    return
                escaped = self._quote[0] == '"' and (end - len(text[:end].rstrip("\\"))) % 2 == 1
                at = end + (1 if escaped else len(self._quote))
                if not escaped:
                    self._quote = ""
                continue
            mark = text[at]
            if mark == "#":
                return
            if mark in "\"'":
                self._quote = mark * 3 if text.startswith(mark * 3, at) else mark
                at += len(self._quote)
                continue
            self._depth += (mark in "[{") - (mark in "]}")
            at += 1


class Source:
    """One TOML file: its data, and where each key stands."""

    def __init__(self, file: str, text: str, findings: Findings) -> None:
        self.file = file
        self.findings = findings
        self.data: dict[str, Any] = {}
        self._lines: dict[Path, int] = {}
        try:
            self.data = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            found = _AT_LINE.search(str(error))
            line = int(found.group(1)) if found else 0
            findings.error(file, line, "bad_toml", f"not TOML: {str(error).split(' (at ')[0]}"[:200])
            return
        scanner = _Scanner()
        for number, line_text in enumerate(text.splitlines(), 1):
            scanner.feed(number, line_text)
        self._lines = scanner.lines

    def line(self, path: Path) -> int:
        """The line of a key, or of the nearest table around it."""
        for end in range(len(path), 0, -1):
            line = self._lines.get(path[:end])
            if line is not None:
                return line
        return 0

    def root(self) -> Table:
        return Table(self, (), self.data)


class Table:
    """One table. Readers return the value, or a default after noting what is wrong."""

    def __init__(self, source: Source, path: Path, value: Any) -> None:
        self.source = source
        self.path = path
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            self.error("", "wrong_type", f"{self.label} must be a table")

    @property
    def label(self) -> str:
        return ".".join(str(part) for part in self.path) or self.source.file

    @property
    def line(self) -> int:
        return self.source.line(self.path)

    def at(self, key: str) -> int:
        return self.source.line((*self.path, key)) if key else self.line

    def error(self, key: str, code: str, message: str, hint: str = "") -> None:
        self.source.findings.error(self.source.file, self.at(key), code, message, hint)

    def warn(self, key: str, code: str, message: str, hint: str = "") -> None:
        self.source.findings.warn(self.source.file, self.at(key), code, message, hint)

    def only(self, *names: str) -> None:
        """Note every key that is not one of ``names``."""
        for key in self.value:
            if key not in names:
                self.error(key, "unknown_key", f"{key!r} is not a key of {self.label}", nearest(key, names))

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def text(
        self, key: str, default: str | None = None, *, form: re.Pattern[str] | None = None, form_hint: str = ""
    ) -> str:
        """A string; without ``default`` it is required. ``form`` must match all of it."""
        if key not in self.value:
            if default is None:
                self.error("", "missing_key", f"{self.label} needs {key!r}")
            return default or ""
        value = self.value[key]
        if type(value) is not str or len(value) > TEXT_CHARS_MAX or not value.isprintable():
            self.error(
                key, "wrong_type", f"{key!r} must be a string of at most {TEXT_CHARS_MAX} characters, in one line"
            )
            return default or ""
        if form is not None and form.fullmatch(value) is None:
            self.error(key, "bad_value", f"{key!r} does not have the right form: {value[:60]!r}", form_hint)
            return default or ""
        return value

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default)
        if key in self.value and type(self.value[key]) is str and value not in options:
            self.error(key, "bad_value", f"{key!r} cannot be {value[:60]!r}", nearest(value, options))
            return default or options[0]
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = INTEGER_ABS_MAX) -> int:
        if key not in self.value:
            if default is None:
                self.error("", "missing_key", f"{self.label} needs {key!r}")
            return low if default is None else default
        value = self.value[key]
        if type(value) is not int:
            self.error(key, "wrong_type", f"{key!r} must be an integer", "Amounts are integers in minor units.")
        elif not low <= value <= high:
            self.error(key, "bad_value", f"{key!r} must lie between {low} and {high}")
        else:
            return value
        return low if default is None else default

    def maybe_integer(self, key: str, *, low: int = -INTEGER_ABS_MAX, high: int = INTEGER_ABS_MAX) -> int | None:
        return self.integer(key, low=low, high=high) if key in self.value else None

    def boolean(self, key: str, default: bool) -> bool:
        value = self.value.get(key, default)
        if type(value) is not bool:
            self.error(key, "wrong_type", f"{key!r} must be true or false")
            return default
        return value

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of different strings."""
        if key not in self.value:
            if default is None:
                self.error("", "missing_key", f"{self.label} needs {key!r}")
            return tuple(default or ())
        value = self.value[key]
        right = type(value) is list and len(value) <= LIST_MAX and all(type(item) is str for item in value)
        if not right or len(set(value)) != len(value):
            self.error(key, "wrong_type", f"{key!r} must be a list of different strings")
            return tuple(default or ())
        return tuple(value)

    def duration_s(self, key: str, default: str | None = None) -> int:
        """Seconds of a duration like ``90s``, ``30m``, ``24h`` or ``7d``."""
        text = self.text(key, default, form=_DURATION, form_hint="Write a number and s, m, h or d, like 24h.")
        found = _DURATION.fullmatch(text)
        return int(found.group(1)) * _SECONDS[found.group(2)] if found else 1

    def maybe_moment_us(self, key: str) -> int | None:
        """Microseconds UTC of a time like ``2026-12-24T18:00Z``; None without the key."""
        if key not in self.value:
            return None
        text = self.text(key, form=_MOMENT, form_hint="Write UTC, like 2026-12-24T18:00Z.")
        try:
            return round(datetime.fromisoformat(text).timestamp()) * US
        except ValueError:
            self.error(key, "bad_value", f"there is no such time: {text[:60]}")
            return None

    def minute(self, key: str) -> int:
        """Minute of the day of a time like ``08:30``."""
        text = self.text(key, form=_CLOCK, form_hint="Write hours and minutes, like 08:30.")
        found = _CLOCK.fullmatch(text)
        return int(found.group(1)) * 60 + int(found.group(2)) if found else 0

    def table(self, key: str) -> Table:
        return Table(self.source, (*self.path, key), self.value.get(key, {}))

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """The named tables below ``key``: ``[key.NAME]``."""
        below = self.table(key)
        for name, value in below.value.items():
            yield name, Table(self.source, (*below.path, name), value)

    def array(self, key: str) -> Iterator[Table]:
        """The tables of ``[[key]]``."""
        value = self.value.get(key, [])
        if type(value) is not list:
            self.error(key, "wrong_type", f"{key!r} is written [[{key}]]")
            return
        for index, item in enumerate(value):
            yield Table(self.source, (*self.path, key, index), item)
