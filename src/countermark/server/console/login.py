"""Signing in and out. A person signs a session order with a passkey in the page, or with a key file elsewhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from countermark.authority import Key, SessionOrder, read_code, verify_session
from countermark.model.digest import SESSION
from countermark.model.errors import CountermarkError
from countermark.model.values import NAME
from countermark.server.console import doors, signing
from countermark.server.console.console import onward
from countermark.server.console.visit import Page, Reply, Visit

HOME = "/waiting"


async def login(visit: Visit) -> Reply:
    """``GET /login``: asks who it is; with ``person``, how they want to sign."""
    target = onward(visit.query.get("next", ""), HOME)
    if visit.session is not None:
        return visit.go(target)
    person = visit.query.get("person", "").strip()
    asked = None if NAME.fullmatch(person) is None else _challenge(visit, person)
    return visit.html("login.html", person=person, asked=asked, onward=target, home=visit.console.origin(visit.bundle),
                      wrong=bool(person) and asked is None)  # fmt: skip


def open_door(visit: Visit) -> None:
    """Give this browser a cookie for its forms, if it has none."""
    if not visit.cookie:
        visit.cookie = visit.console.sessions.door()
        said = doors.cookie(doors.DOOR, visit.cookie, visit.origin.startswith("https:"))
        visit.more.append((b"set-cookie", said.encode("ascii")))


def _challenge(visit: Visit, person: str) -> dict[str, Any]:
    """What a page needs for one sign-in. Who is enrolled does not show: a name without a passkey gets a stand-in."""
    open_door(visit)
    sessions, console = visit.console.sessions, visit.console
    nonce, until = sessions.nonce(visit.cookie)
    document = SessionOrder(console.config.deployment, person, nonce, visit.origin, until).document()
    known = visit.people.get(person)
    keys = () if known is None else signing.passkeys_of(known, visit.origin)
    credentials = [key.credential for key in keys] or [sessions.stand_in(person)]
    host = urlsplit(visit.origin).hostname or ""
    return {
        "nonce": nonce, "passkey": signing.Challenge.of(SESSION, document, host, credentials),
        "here": visit.origin == console.origin(visit.bundle), "command": _command(visit, person, nonce),
    }  # fmt: skip


def _command(visit: Visit, person: str, nonce: str) -> str:
    name = visit.console.config.deployment
    return f"countermark console link {nonce} --deployment {name} --page {visit.origin} --person {person} --key FILE"


async def by_passkey(visit: Visit) -> Reply:
    """``POST /login/passkey``."""
    order = _order(visit)
    known = visit.people.get(order.person)
    keys = () if known is None else signing.passkeys_of(known, visit.origin)
    body = signing.signed("session", SESSION, order.document(), keys, visit.form)
    return _opened(visit, order, body)


async def by_code(visit: Visit) -> Reply:
    """``POST /login/code``: what ``countermark console link`` printed."""
    return _opened(visit, _order(visit), read_code(visit.form.get("code", "")))


def _order(visit: Visit) -> SessionOrder:
    """The order that this browser asked to be signed. Raises ``AuthorityError``."""
    nonce, person = visit.form.get("nonce", ""), visit.form.get("person", "")
    until = visit.console.sessions.until(nonce, visit.cookie)
    return SessionOrder(visit.console.config.deployment, person, nonce, visit.origin, until)


def _opened(visit: Visit, order: SessionOrder, body: dict[str, Any]) -> Reply:
    """A session for whoever signed. Its cookie is new, whatever the browser held before."""
    sessions = visit.console.sessions
    try:
        key: Key = verify_session(body, order, visit.people, visit.now)
    except CountermarkError as error:
        visit.console.all.counters.add("console_sign_in", error.code)
        raise
    sessions.use(order.nonce, order.person, order.not_after)
    cookie = sessions.open(order.person, str(key))
    visit.console.all.counters.add("console_sign_in", "ok")
    secure = visit.origin.startswith("https:")
    for name, value in ((doors.COOKIE, cookie), (doors.DOOR, "")):
        visit.more.append((b"set-cookie", doors.cookie(name, value, secure).encode("ascii")))
    return visit.go(onward(visit.form.get("next", ""), HOME))


async def logout(visit: Visit) -> Reply:
    """``POST /logout``."""
    visit.console.sessions.end(visit.cookie)
    said = doors.cookie(doors.COOKIE, "", visit.origin.startswith("https:"))
    visit.more.append((b"set-cookie", said.encode("ascii")))
    return visit.go("/login")


_FORM = ("nonce", "person", "next")
PAGES = (
    Page("/login", login, needs=None, query=("person", "next")),
    Page("/login/passkey", by_passkey, "POST", None, form=(*_FORM, *signing.FIELDS)),
    Page("/login/code", by_code, "POST", None, form=(*_FORM, "code")),
    Page("/logout", logout, "POST"),
)
