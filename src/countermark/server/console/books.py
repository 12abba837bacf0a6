"""The daybook as pages ask it: followed up to the newest record before each answer, in steps, on the reading thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from countermark.audit import DAYBOOK, Daybook, Documents, Near, Unseal, near
from countermark.journal import SqliteStore
from countermark.model.clock import US
from countermark.model.errors import CountermarkError
from countermark.server.console.visit import Reply, Visit

if TYPE_CHECKING:
    from countermark.server.console.console import Console

STEPS_MAX = 2  # before an answer; further ones go on behind it
LAG_MAX = 5_000  # records: a daybook further behind would show something old for the newest
NOTED_MAX = 4_096  # remembered by a session
NOTED_AGAIN_US = 3_600 * US

_T = TypeVar("_T")

log = logging.getLogger("countermark.console")


class Shelf(NamedTuple):
    """What a question may read: the journal, sealed values, the daybook, and the short ways through both."""

    store: SqliteStore
    unseal: Unseal
    book: Daybook
    ways: Near


class BehindError(Exception):
    """The daybook is still being made: ``done`` of ``size`` records are in it."""

    def __init__(self, done: int, size: int) -> None:
        super().__init__("the daybook is being made")
        self.done, self.size = done, size


class Books:
    """One for a console. Everything but ``ask`` and ``reached`` runs on the console's reading thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._book: Daybook | None = None
        self._documents: Documents = {}
        self._going_on: asyncio.Task[None] | None = None

    async def ask(self, work: Callable[[Shelf], _T]) -> _T:
        """A question to journal and daybook, both in one committed state.

        Raises:
            BehindError: it is being made; ask again in a moment.
            CountermarkError: what cannot be read.
        """
        await self.reached()
        names = await self._console.payees()
        return await self._console.read(lambda store, unseal: self._answer(store, unseal, names, work))

    async def reached(self) -> None:
        """Follow the journal. Raises ``BehindError`` while too much of it is left."""
        left = 1
        for _ in range(STEPS_MAX):
            if left:
                left = await self._console.read(self._step)
        if left and (self._going_on is None or self._going_on.done()):
            self._going_on = asyncio.create_task(self._go_on())
        if left > LAG_MAX:
            size = await self._console.read(lambda store, unseal: store.size())
            raise BehindError(size - left, size)

    async def _go_on(self) -> None:
        try:
            while await self._console.read(self._step):
                await asyncio.sleep(0)  # whoever asks something is heard between two steps
        except CountermarkError as error:
            log.warning("the daybook does not follow: %s", error)

    def _step(self, store: SqliteStore, unseal: Unseal) -> int:
        return self._opened().follow(store)

    def _opened(self) -> Daybook:
        if self._book is None:
            self._book = Daybook(self._console.config.root / DAYBOOK)
        return self._book

    def _answer(
        self, store: SqliteStore, unseal: Unseal, names: Mapping[str, str], work: Callable[[Shelf], _T]
    ) -> _T:  # fmt: skip
        book = self._opened()
        with store.steady():
            return work(Shelf(store, unseal, book, near(store, book, self._documents, names)))

    async def note(self, visit: Visit, mark: str, what: str, start: int, stop: int) -> None:
        """A ``log.read`` record for what this session reads, ahead of its being shown; the same again after an hour.

        Raises ``CountermarkError`` when it cannot be recorded: then nothing is shown.
        """
        if visit.session is None:
            return
        full = f"{mark}:{visit.now // NOTED_AGAIN_US}"
        if full not in visit.session.noted and stop > start:
            body = {"reader": f"person:{visit.session.person}", "what": what, "from": start, "to": stop}
            await self._console.call("log.read", body)
            if len(visit.session.noted) >= NOTED_MAX:
                visit.session.noted.clear()  # what is read again is then noted again
            visit.session.noted.add(full)

    def close(self) -> None:
        """Let go of the file; the reading thread has ended."""
        if self._book is not None:
            self._book.close()


def with_books(handler: Callable[[Visit], Awaitable[Reply]]) -> Callable[[Visit], Awaitable[Reply]]:
    """While the daybook is being made, a page that needs it says so and comes by itself when it is there."""

    @wraps(handler)
    async def answered(visit: Visit) -> Reply:
        try:
            return await handler(visit)
        except BehindError as behind:
            return visit.html("building.html", done=behind.done, size=behind.size)

    return answered


async def building(visit: Visit) -> Reply:
    """``GET /building``: how far it is; the page that waits loads itself anew when it is there."""
    try:
        await visit.console.books.reached()
    except BehindError as behind:
        return visit.html("building_part.html", done=behind.done, size=behind.size)
    return Reply(200, b"", ((b"hx-refresh", b"true"), *visit.more))
