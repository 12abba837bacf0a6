"""What goes into a pure step and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

from countermark.model.canon import canon, render, structure
from countermark.model.digest import CODE, VALUE, digest
from countermark.model.errors import ArgumentError, EncodingError

STARLARK_VERSION = "2026.1.3"
ENGINE = f"starlark-pyo3/{STARLARK_VERSION}"

CODE_BYTES_MAX = 32_000
INPUT_BYTES_MAX = 1 << 20
OUTPUT_BYTES_MAX = 16_000
MESSAGE_CHARS_MAX = 500
VALUE_DEPTH_MAX = 8  # of one input or output; the object that holds them stands above
TICKS_MAX = 10_000_000_000
MEMORY_MB_MIN, MEMORY_MB_MAX = 64, 4_096  # the interpreter itself takes 24
SECONDS_MAX = 600


@dataclass(frozen=True)
class Limits:
    """What one call may use.

    Attributes:
        ticks: steps of the interpreter (calls and turns of loops), counted by the thousand.
        memory_mb: MiB of address space of the worker.
        seconds: seconds of processor time.
    """

    ticks: int = 10_000_000
    memory_mb: int = 256
    seconds: int = 5

    def __post_init__(self) -> None:
        """Raises ``ArgumentError``."""
        for name, least, most in (
            ("ticks", 1, TICKS_MAX), ("memory_mb", MEMORY_MB_MIN, MEMORY_MB_MAX), ("seconds", 1, SECONDS_MAX),
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ArgumentError(f"{name} is not between {least} and {most}", field=name)


@dataclass(frozen=True)
class Ran:
    """What became of one call: the members of a ``compute.executed`` of the same names.

    Attributes:
        status: ``ok``, ``error`` (the code failed, or what it returned does not fit) or ``limit``.
        output: what ``main`` returned, unless ``status`` is another than ``ok``.
        message: why not, at most 500 characters; of a ``limit`` it begins with ``ticks``, ``memory``, ``time``,
            ``size`` or ``died`` and a colon.
        ticks: what was counted, a multiple of 1,000; 0 when the worker did not live to tell.
    """

    status: Literal["ok", "error", "limit"]
    output: dict[str, Any] | None
    message: str
    ticks: int


def limit(which: str, why: str, ticks: int = 0) -> Ran:
    return Ran("limit", None, f"{which}: {why}"[:MESSAGE_CHARS_MAX], ticks)


def input_bytes(inputs: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a call's inputs. Raises ``EncodingError``."""
    raw = canon(dict(inputs), bytes_max=INPUT_BYTES_MAX)
    if _deep(raw, inputs):
        raise EncodingError(f"an input is nested deeper than {VALUE_DEPTH_MAX}")
    return raw


def input_digest(inputs: Mapping[str, Any]) -> str:
    """Digest (``countermark/v1/value``) of a call's inputs, as recorded. Raises ``EncodingError``."""
    return digest(VALUE, input_bytes(inputs))


@lru_cache(maxsize=1_024)
def code_digest(text: str) -> str:
    """Digest (``countermark/v1/code``) of code: of its UTF-8 bytes as they are."""
    return digest(CODE, text.encode("utf-8"))


def read_output(raw: bytes, ticks: int) -> Ran:
    """What a worker says that ``main`` returned, held to the profile: a worker is not believed."""
    try:
        value = orjson.loads(raw)
        if type(value) is not dict:
            raise EncodingError("main did not return a dict")
        structure(value)
        again = render(value, OUTPUT_BYTES_MAX)
    except (EncodingError, ValueError, RecursionError) as error:
        why = error.message if isinstance(error, EncodingError) else "not JSON"
        return Ran("error", None, f"the output does not fit: {why}"[:MESSAGE_CHARS_MAX], ticks)
    if len(again) != len(raw):  # the same escapes, no white space: only a member that stands twice is lost
        return Ran("error", None, "the output does not fit: an object holds a key twice", ticks)
    if _deep(raw, value):
        return Ran("error", None, f"the output does not fit: nested deeper than {VALUE_DEPTH_MAX}", ticks)
    return Ran("ok", value, "", ticks)


def _deep(raw: bytes, members: Mapping[str, Any]) -> bool:
    """Whether a member is nested too deep; with few brackets none can be, even if none stood in a text."""
    return raw.count(b"[") + raw.count(b"{") > VALUE_DEPTH_MAX + 1 and any(map(_too_deep, members.values()))


def _too_deep(value: Any, depth: int = 0) -> bool:
    if type(value) not in (dict, list, tuple):
        return False
    if depth == VALUE_DEPTH_MAX:
        return True
    return any(_too_deep(item, depth + 1) for item in (value.values() if type(value) is dict else value))
