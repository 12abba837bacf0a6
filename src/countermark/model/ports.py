"""Ports: what the gate asks of the outside. Rooms on floor 4 know each other only through these."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from countermark.model.records import Record
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Reference, Request


class Clock(Protocol):
    """Wall time and never-stepping time, integer microseconds."""

    def now_us(self) -> int: ...
    def steady_us(self) -> int: ...


class Preparer(Protocol):
    """The pure part of a connector."""

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        """Make the exact request. ``key`` is the provider's idempotency key. Raises ``ArgumentError``."""
        ...


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


@runtime_checkable
class Resolving(Protocol):
    """A connector that can read what stands behind an argument."""

    def resolve(self, tool: ToolSpec, args: Mapping[str, Value]) -> Reference | None:
        """Read it now; None when that cannot be told. Never raises for what a provider or a network does."""
        ...


@runtime_checkable
class Patient(Protocol):
    """A connector that waits for what it sent."""

    def hurry(self) -> None:
        """Wait no longer, from any thread: the gate ends, and asks again when it is there again."""
        ...


class Witnessing(Protocol):
    """A connector that can list what its provider did, whoever asked for it: what a restore rebuilds from."""

    def effects(self, tool: ToolSpec, since_us: int, until_us: int) -> Iterator[Mapping[str, Any]]:
        """Each is ``{"ref", "key", "amount", "currency", "at", "args"}``. Raises ``CountermarkError``."""
        ...


@dataclass(frozen=True, slots=True)
class Description:
    """What a provider says about a tool and its arguments (by provider name): claims, in visible characters."""

    text: str
    arguments: Mapping[str, str]


@runtime_checkable
class Describing(Protocol):
    """A connector whose provider describes its tools itself."""

    def describe(self, tools: Sequence[ToolSpec]) -> Mapping[str, Description]:
        """By tool name; a tool that is absent cannot be called now, because it is gone or is not what it was."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A durable signed head: ``size`` records, the 32-byte ``root``, the signed ``note`` (C2SP tlog-checkpoint)."""

    size: int
    root: bytes
    note: bytes


class Destination(Protocol):
    """Where published heads go: witnesses, an authority of time, a chain. One thread asks, one head after the other.

    What comes back is evidence, and becomes a record: its kind and body, whose ``size`` and ``root`` are the head's.
    """

    name: str

    def check(self) -> None:
        """Before the gate opens. Raises ``CountermarkError`` when it must not: somebody has seen more than this log."""
        ...

    def due(self, head: Head, busy: bool, now_us: int) -> bool:
        """Whether to publish this head now. ``busy``: something else than publications was recorded since the last."""
        ...

    def publish(self, head: Head) -> tuple[str, Mapping[str, Any]] | None:
        """Bring the head there; the record to write, if there is one. Raises ``CountermarkError``: tried again later.

        May take as long as a network takes.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


@runtime_checkable
class Awaited(Protocol):
    """A destination that effects may wait for: while one does, the newest head is due there at once."""

    effects_wait: bool


class Book(Protocol):
    """A provider's own list of movements, for reconciliation."""

    def movements(self, since_us: int, until_us: int) -> Iterator[Mapping[str, Any]]: ...


@dataclass(slots=True)
class Batch:
    """What one transaction of the lane writes.

    ``head``: size and signed note. ``sealed``: seq, subject, ciphertext. ``bundles``: digest -> canonical document.
    ``unsealed``: seqs whose sealed values are deleted; ``erased``: the vault's keys to destroy once that is durable.
    """

    records: list[Record] = field(default_factory=list)
    size: int = 0  # bytes of the records
    head: tuple[int, bytes] = (0, b"")
    sealed: list[tuple[int, str, bytes]] = field(default_factory=list)
    bundles: dict[str, bytes] = field(default_factory=dict)
    unsealed: Sequence[int] = ()
    erased: Sequence[str] = ()


@dataclass(slots=True)
class Cache:
    """What the records below ``size`` say, kept so that a look-up is one probe and a start reads few records.

    ``keys``: identity or obligation key -> newest seq, ``None`` frees it. ``streams``: name -> place and digest.
    ``snapshot``: the document of the whole state at ``size``, or None to keep the one before.
    """

    size: int
    keys: Mapping[str, int | None]
    streams: Mapping[str, tuple[int, str]]
    snapshot: bytes | None = None


class Store(Protocol):
    """Durable records. One writer; every ``commit`` is one transaction and one fsync. Raises ``StoreError``.

    Keys, streams and snapshot (size and document) are a cache of the records below ``cached``: whoever asks for a key
    or a stream looks at the records from there on too. ``save`` writes them in a transaction of their own, ``forget``
    empties them.
    """

    def commit(self, batch: Batch) -> None: ...
    def size(self) -> int: ...
    def head(self) -> tuple[int, bytes] | None: ...
    def head_at(self, size: int) -> bytes | None: ...
    def key(self, key: str) -> int | None: ...
    def keys(self, keys: Collection[str]) -> dict[str, int]: ...
    def record(self, seq: int) -> Record: ...
    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]: ...
    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]: ...
    def sealed(self, seq: int) -> tuple[str, bytes] | None: ...
    def bundle(self, digest: str) -> bytes | None: ...
    def snapshot(self) -> tuple[int, bytes] | None: ...
    def stream(self, name: str) -> tuple[int, str] | None: ...
    def cached(self) -> int: ...
    def save(self, cache: Cache) -> None: ...
    def forget(self) -> None: ...
    def reader(self) -> Store:
        """Another connection that only reads, for work beside the lane; whoever asked closes it."""
        ...

    def close(self) -> None: ...
