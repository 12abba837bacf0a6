"""One request of a browser to one page, and the answer: what a page's handler is handed and gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from countermark.authority import Person
from countermark.model.errors import AuthorityError
from countermark.policy import Bundle
from countermark.server.console.roles import LOOK, SAID
from countermark.server.console.sessions import Session

if TYPE_CHECKING:
    from countermark.server.console.console import Console

HTML = b"text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``headers`` come beside those that every page has."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    kind: bytes = HTML


@dataclass(slots=True)
class Visit:
    """A request that may be answered: its parameters are decoded, its form's token was checked.

    ``session`` and ``person`` are there on every page but those that nobody needs to sign in for.
    """

    console: Console
    origin: str  # of the page, as the browser knows it
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    bundle: Bundle
    people: Mapping[str, Person]
    now: int
    cookie: str  # the session's, or the door's
    may: frozenset[str] = frozenset()
    session: Session | None = None
    person: Person | None = None
    fragment: bool = False  # htmx asks for a part of a page
    more: list[tuple[bytes, bytes]] = field(default_factory=list)
    raw: bytes = b""  # a body that is no form

    @property
    def who(self) -> Person:
        """The person signed in."""
        if self.person is None:
            raise AuthorityError("nobody is signed in")
        return self.person

    @property
    def zone(self) -> str:
        return self.bundle.compiled.zone

    @property
    def token(self) -> str:
        """What this browser's forms carry."""
        return self.console.sessions.form_token(self.cookie) if self.cookie else ""

    def need(self, capability: str) -> None:
        """Raises ``AuthorityError`` when this person's roles do not permit it."""
        if capability not in self.may:
            raise AuthorityError(f"your roles here do not let you {SAID[capability]}")

    def html(self, template: str, status: int = 200, **values: Any) -> Reply:
        """A page, or a part of one, from a template of ours. Values are escaped."""
        return Reply(status, self.console.render(template, self, values), tuple(self.more))

    def go(self, path: str, **query: str) -> Reply:
        """Send the browser on to another page of ours, after a form."""
        target = path + (f"?{urlencode(query)}" if query else "")
        return Reply(303, b"", ((b"location", target.encode("ascii")), *self.more))


Handler = Callable[[Visit], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or one of its forms. ``needs`` is what a role must permit, None where nobody has to be signed in.

    ``nav`` is its word in the navigation. ``query`` and ``form`` are the fields it takes; others are refused. A
    ``poll`` is asked for by the page itself and keeps no session alive.
    """

    path: str
    handler: Handler
    method: str = "GET"
    needs: str | None = LOOK
    nav: str = ""
    query: tuple[str, ...] = ()
    form: tuple[str, ...] = ()
    poll: bool = False
    raw: int = 0  # takes a file of at most so many bytes in place of a form, with the token in a header
