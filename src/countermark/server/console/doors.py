"""Which requests a page answers at all: by the name it was asked under, where the request comes from, who sent it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from countermark.model.errors import AuthorityError
from countermark.server.bodies import header
from countermark.server.console.sessions import TOKEN_CHARS
from countermark.server.problems import HttpError
from countermark.server.surroundings import Headers
from countermark.wiring import is_loopback

COOKIE = "countermark"
DOOR = "countermark-door"
COOKIE_CHARS_MAX = 16_384

_AGENTS = (b"authorization", b"signature", b"signature-input", b"x-api-key")
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{TOKEN_CHARS}}}")
_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PORT = {"http": "80", "https": "443"}


def origin_of(headers: Headers, scheme: str, console: str) -> str:
    """The origin of the page that is asked for: the console's own, or a loopback name's.

    Another name leads here only when somebody made it lead here (DNS rebinding). Raises ``HttpError`` 421.
    """
    host = header(headers, b"host").decode("latin-1").lower()
    if console and host in _netlocs(console):
        return console
    found = _HOST.fullmatch(host)
    if found is not None and is_loopback(found["name"].strip("[]")):
        return f"{scheme}://{host}"
    raise HttpError(
        421, "the pages are not shown under this name", code="wrong_host",
        hint="Open the address that `console` in limits.toml names, or http://localhost with the port.",
    )  # fmt: skip


def _netlocs(origin: str) -> tuple[str, ...]:
    parts = urlsplit(origin)
    standard = f"{parts.hostname}:{_PORT[parts.scheme]}" if parts.port is None else parts.netloc
    return (parts.netloc, standard)


def check_people_only(headers: Headers) -> None:
    """An agent's credential on a page is refused unread. Raises ``HttpError`` 403."""
    if any(name in _AGENTS for name, _ in headers):
        raise HttpError(
            403, "these pages are for people; an agent's credential is not accepted here", code="people_only",
            hint="Ask a person.",
        )  # fmt: skip


def check_same_origin(headers: Headers, origin: str) -> None:
    """A form is sent by our own page. Raises ``AuthorityError`` (``other_page``).

    Our pages send no referrer, so a browser may call the origin ``null``; then Sec-Fetch-Site says where it was.
    """
    site, sent = header(headers, b"sec-fetch-site"), header(headers, b"origin").decode("latin-1")
    wrong_site = site not in (b"", b"same-origin")
    unsaid = sent in ("", "null")
    if wrong_site or (unsaid and not site) or (not unsaid and sent != origin):
        raise AuthorityError("this was not sent by a page of this console", code="other_page",
                             hint="Open the page here, and press the button there.")  # fmt: skip


def cookies_of(headers: Headers, secure: bool) -> tuple[str, str]:
    """The session's and the door's cookie, each empty when it is absent or cannot be one of ours.

    Read as RFC 6265 section 5.4 writes them, pair by pair: whatever another server under the same name has set beside
    them, in any form, cannot hide ours. Of two with one name the last counts, which has the shortest path. No other
    space than a browser's own is taken away: a name with one in front escapes the rules for ``__Host-``.
    """
    raw = b"; ".join(value for name, value in headers if name == b"cookie")
    if len(raw) > COOKIE_CHARS_MAX:
        return "", ""
    pairs = (pair.strip(" \t").partition("=") for pair in raw.decode("latin-1").split(";"))
    jar = {name: value for name, _, value in pairs}
    found = (jar.get(cookie_name(name, secure), "") for name in (COOKIE, DOOR))
    session, door = (value if _TOKEN.fullmatch(value) else "" for value in found)
    return session, door


def cookie_name(name: str, secure: bool) -> str:
    """RFC 6265bis section 4.1.3.2: ``__Host-`` means this host only, over TLS only, for every path."""
    return f"__Host-{name}" if secure else name


def cookie(name: str, value: str, secure: bool) -> str:
    """A ``Set-Cookie`` value; without a value the cookie ends."""
    parts = [f"{cookie_name(name, secure)}={value}", "Path=/", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, *(["Secure"] if secure else []), *([] if value else ["Max-Age=0"])])
