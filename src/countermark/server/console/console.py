"""The console: every page goes through here, and what every page needs is done here once.

In this order: the name it was asked under, no agent's credential, the policy in force, the session and whether its
person and key are still enrolled, what the person's roles permit, and for a form where it comes from and its token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from countermark.audit import Looked, Unseal, unsealer
from countermark.gate import Caller
from countermark.journal import SqliteStore, Vault
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError, GateBusyError
from countermark.policy import Bundle
from countermark.server.actions import query_of, send_whole
from countermark.server.bodies import header, read_body
from countermark.server.console import doors, roles
from countermark.server.console.assets import FOLDER, Assets
from countermark.server.console.books import Books
from countermark.server.console.jobs import Jobs
from countermark.server.console.render import environment
from countermark.server.console.sessions import Sessions
from countermark.server.console.troubles import Troubles
from countermark.server.console.visit import HTML, Page, Reply, Visit
from countermark.server.console.words import hostile
from countermark.server.logs import LogReader
from countermark.server.problems import HttpError, plain, status_of
from countermark.server.surroundings import Surroundings
from countermark.wiring import read_key

FORM_BYTES_MAX = 16_384
FORM_FIELDS_MAX = 24
FILES_AT_ONCE_MAX = 2  # bodies that are no forms
FORM = b"application/x-www-form-urlencoded"
OCTETS = b"application/octet-stream"
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'"
)
GUARDS = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "
                            b"microphone=(), geolocation=(), payment=(), usb=(), clipboard-read=()"),
)  # fmt: skip
NO_STORE = (b"cache-control", b"no-store")
HSTS = (b"strict-transport-security", b"max-age=31536000")

_ONWARD = re.compile(r"/[a-z][A-Za-z0-9_./-]{0,200}")
_T = TypeVar("_T")


class Console:
    """All pages of a deployment. Runs on the gate's loop; what it reads from the journal it reads aside."""

    def __init__(self, surroundings: Surroundings, pages: Sequence[Page]) -> None:
        self.all = surroundings
        self.gate = surroundings.gate
        self.config = surroundings.config
        self.clock = surroundings.clock
        self.sessions = Sessions(surroundings.clock)
        self.assets = Assets()
        self.pages = tuple(pages)
        self._files = 0
        self._reader = LogReader(surroundings.config, "console", surroundings.gate.tiles)
        self.books = Books(self)
        self.jobs = Jobs(surroundings.clock)
        self.troubles = Troubles(surroundings.clock)
        self.looked: tuple[int, list[Mapping[str, Any]]] = (-1 << 62, [])  # when, and what waited then
        self.questions: Looked = {}  # for the reading thread alone
        nav = [(page.path, page.nav, page.needs) for page in pages if page.nav]
        self._templates = environment(
            self.assets.urls, {"nav": nav, "paths": {page.path for page in pages}, "deployment": self.config.deployment}
        )

    def routes(self) -> list[BaseRoute]:
        """For the server's router."""
        found: list[BaseRoute] = [Route(FOLDER + "/{name}", _Asset(self), methods=["GET"])]
        return found + [Route(page.path, _Shown(self, page), methods=[page.method]) for page in self.pages]

    def close(self) -> None:
        """Let go of the journal."""
        self.jobs.close()
        self.troubles.close()
        self._reader.close()
        self.books.close()

    async def call(self, op: str, body: Mapping[str, Any] | None = None) -> Any:
        """One operation of the gate, in no agent's name. Raises ``CountermarkError``."""
        return await self.gate.call(op, body or {}, Caller("", self.all.settings.tier))

    async def read(self, work: Callable[[SqliteStore, Unseal], _T]) -> _T:
        """A question to the journal, on a thread of its own; ``work`` may open sealed values."""

        def question(store: SqliteStore) -> _T:
            vault = Vault(self.config.vault, read_key(self.config.keys / "vault.key"))
            try:  # opened anew each time: it remembers keys, and one that was destroyed opens nothing any more
                return work(store, unsealer(store, vault))
            finally:
                vault.close()

        return await self._reader.run(question)

    async def payees(self) -> Mapping[str, str]:
        """Everybody who can be paid by name now, of the policy or of the register: id -> name."""
        found: Mapping[str, str] = await self.call("payee.names")
        return found

    def origin(self, bundle: Bundle) -> str:
        """Where passkeys work: the policy's ``console``, empty where it names none."""
        return str(getattr(bundle.compiled, "console", "") or "")

    def render(self, template: str, visit: Visit, values: Mapping[str, Any]) -> bytes:
        """A template with what all of them know: the visit, the time, the zone."""
        known = {"visit": visit, "now": visit.now, "zone": visit.zone, "may": visit.may, **values}
        return self._templates.get_template(template).render(known).encode("utf-8")

    async def show(self, page: Page, scope: Scope, receive: Receive) -> Reply:
        """The answer to a request for a page, errors included."""
        headers = scope["headers"]
        doors.check_people_only(headers)
        bundle = await self.gate.policy()
        origin = doors.origin_of(headers, scope["scheme"], self.origin(bundle))
        secure = origin.startswith("https:")
        cookie, door = doors.cookies_of(headers, secure)
        known = bool(cookie) or page.needs is None  # a stranger's request for a page asks the lane for nothing
        people = await self.gate.people() if known else {}
        visit = Visit(
            self, origin, scope["path"], scope["path_params"], {}, {}, bundle, people, self.clock.now_us(), door,
            fragment=header(headers, b"hx-request") == b"true",
        )  # fmt: skip
        if secure:
            visit.more.append(HSTS)
        try:
            self._recognise(visit, cookie, touch=not page.poll)
            if page.needs is not None and visit.session is None:
                return self._strange(visit, scope)
            visit.query = query_of(scope, page.query)
            if page.raw:
                return await self._with_file(visit, page, scope, receive)
            body = await read_body(scope, receive, FORM_BYTES_MAX)
            if page.method == "POST":
                doors.check_same_origin(headers, origin)
                visit.form = _form(headers, body, page.form)
                self._check_token(visit, visit.form.get("token", ""))
            if page.needs is not None:
                visit.need(page.needs)
            return await page.handler(visit)
        except CountermarkError as error:
            return self.trouble(visit, error)

    def _recognise(self, visit: Visit, cookie: str, *, touch: bool) -> None:
        session = self.sessions.find(cookie, visit.people, touch=touch) if cookie else None
        if session is None:
            return
        visit.session, visit.cookie, visit.person = session, cookie, visit.people[session.person]
        asked = {role for ladder in visit.bundle.compiled.ladders.values() for role in ladder.roles}
        visit.may = roles.permitted(visit.person.roles, asked)

    def _strange(self, visit: Visit, scope: Scope) -> Reply:
        """Nobody is signed in. A link from elsewhere comes without the cookie: the page is then asked for once more."""
        if visit.fragment:
            return Reply(401, b"", ((b"hx-redirect", b"/login"), *visit.more))
        if scope["method"] != "GET":
            raise AuthorityError("nobody is signed in here any more", hint="Sign in again.")
        if header(scope["headers"], b"sec-fetch-site") == b"cross-site":
            return visit.html("again.html", target=onward(visit.path))
        return visit.go("/login", next=visit.path)

    async def _with_file(self, visit: Visit, page: Page, scope: Scope, receive: Receive) -> Reply:
        """Everything about the request is judged before its body is read."""
        headers = scope["headers"]
        doors.check_same_origin(headers, visit.origin)
        self._check_token(visit, header(headers, b"x-countermark-token").decode("latin-1"))
        visit.need(page.needs or roles.LOOK)
        if header(headers, b"content-type") != OCTETS:
            raise HttpError(415, "this takes a file from our own page", code="bad_media_type")
        if self._files >= FILES_AT_ONCE_MAX:
            raise GateBusyError("other files are being taken; nothing was read", hint="Try again in a minute.")
        self._files += 1  # each is held in memory, beside the lane, until its page has answered
        try:
            visit.raw = await read_body(scope, receive, page.raw)
            return await page.handler(visit)
        finally:
            self._files -= 1

    def _check_token(self, visit: Visit, token: str) -> None:
        if not visit.cookie or not self.sessions.is_form_token(visit.cookie, token):
            raise AuthorityError("this form was not made for this browser, or is too old", code="other_page",
                                 hint="Open the page again, and press the button there.")  # fmt: skip

    def trouble(self, visit: Visit, error: CountermarkError) -> Reply:
        """What went wrong, as a page."""
        status = status_of(error)
        self.all.counters.add("console_refused", error.code)
        return visit.html(
            "trouble.html", status, code=error.code, title=HTTPStatus(status).phrase, message=hostile(error.message),
            hint=hostile(error.hint) if error.hint else "", retryable=error.retryable,
        )  # fmt: skip

    def asset(self, scope: Scope) -> Reply:
        """A file of the pages; it tells nobody anything, so nobody is asked who they are."""
        found = self.assets.reply(scope["path_params"]["name"], header(scope["headers"], b"if-none-match"))
        if found is None:
            raise plain(404)
        return found


def onward(text: str, home: str = "/") -> str:
    """A page of ours to go on to; never another site's."""
    return text if _ONWARD.fullmatch(text) else home


def _form(headers: Sequence[tuple[bytes, bytes]], body: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """A form's fields, each known and each once. Raises ``CountermarkError``."""
    if header(headers, b"content-type").partition(b";")[0].strip().lower() != FORM:
        raise HttpError(415, "this takes a form of our own pages", code="bad_media_type")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=FORM_FIELDS_MAX,
            errors="strict",
        )  # fmt: skip
    except ValueError:
        raise ArgumentError("the form cannot be read", code="bad_argument") from None
    found = dict(pairs)
    if len(found) != len(pairs) or not found.keys() <= {*names, "token"}:
        raise ArgumentError("the form has a field that is not known here, or one twice", code="unknown_argument")
    return found


class _Shown:
    """A page as an ASGI app."""

    def __init__(self, console: Console, page: Page) -> None:
        self._console, self._page = console, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["countermark.route"] = self._page.path
        await _send(send, await self._console.show(self._page, scope, receive), NO_STORE)


class _Asset:
    """The files as an ASGI app."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["countermark.route"] = FOLDER
        await read_body(scope, receive, 0)
        await _send(send, self._console.asset(scope))


async def _send(send: Send, reply: Reply, *more: tuple[bytes, bytes]) -> None:
    headers = [*GUARDS, *more, *reply.headers, (b"content-length", b"%d" % len(reply.body))]
    if reply.body or reply.kind != HTML:
        headers.append((b"content-type", reply.kind))
    await send_whole(send, reply.status, headers, reply.body)
