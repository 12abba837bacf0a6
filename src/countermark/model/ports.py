"""Ports: what the gate asks of the outside. Rooms on floor 4 know each other only through these."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request


class Clock(Protocol):
    """Wall time and never-stepping time, integer microseconds."""

    def now_us(self) -> int: ...
    def steady_us(self) -> int: ...


class Connector(Protocol):
    """A provider. ``prepare`` is pure; ``execute`` sends exactly the prepared bytes, adding only credentials.

    ``blocking`` says whether ``execute`` waits for a network, so that the gate runs it on a worker thread.
    """

    name: str
    blocking: bool

    def tools(self) -> Sequence[ToolSpec]:
        """Drafts of the tools it offers; the bundle's ``tools.toml`` chooses and completes them."""
        ...

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        """Make the exact request. ``key`` is the provider's idempotency key. Raises ``ArgumentError``."""
        ...

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        """Send once. Never raises for what a provider or a network does: that is an ``Outcome``."""
        ...

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        """Ask whether the effect happened: ``confirmed``/``found``, ``failed``/``not_found`` or ``unknown``.

        ``not_found`` is only what the provider says now; whether that settles the intent is the gate's to judge.
        """
        ...

    def close(self) -> None:
        """Let go of idle connections; a connector may be used again afterwards."""
        ...


class Book(Protocol):
    """A provider's own list of movements, for reconciliation."""

    def movements(self, since_us: int, until_us: int) -> Iterator[Mapping[str, Any]]: ...


@dataclass(slots=True)
class Batch:
    """What one transaction of the lane writes.

    ``head``: size and signed note. ``keys``: identity or obligation key -> newest seq, ``None`` frees it.
    ``sealed``: seq, subject, ciphertext.
    ``bundles``: digest -> canonical document.
    """

    records: list[Record] = field(default_factory=list)
    head: tuple[int, bytes] = (0, b"")
    keys: dict[str, int | None] = field(default_factory=dict)
    sealed: list[tuple[int, str, bytes]] = field(default_factory=list)
    bundles: dict[str, bytes] = field(default_factory=dict)


class Store(Protocol):
    """Durable records. One writer; every ``commit`` is one transaction and one fsync. Raises ``StoreError``.

    ``snapshot`` (size and document) and streams (name -> place and digest) are a cache of what the records say;
    ``save`` writes them in a transaction of their own, ``forget`` empties both.
    """

    def commit(self, batch: Batch) -> None: ...
    def size(self) -> int: ...
    def head(self) -> tuple[int, bytes] | None: ...
    def key(self, key: str) -> int | None: ...
    def keys(self, keys: Collection[str]) -> dict[str, int]: ...
    def record(self, seq: int) -> Record: ...
    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]: ...
    def sealed(self, seq: int) -> tuple[str, bytes] | None: ...
    def bundle(self, digest: str) -> bytes | None: ...
    def snapshot(self) -> tuple[int, bytes] | None: ...
    def stream(self, name: str) -> tuple[int, str] | None: ...
    def save(self, streams: Mapping[str, tuple[int, str]], snapshot: tuple[int, bytes] | None) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...
