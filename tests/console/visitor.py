"""What the console's tests share: a browser without a screen, signed in with a person's key file."""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Mapping
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from face import WAIT_S, Answer, Face
from paying import order
from rig import ACME, AGENT, Provider, args_for, make, pay, waiting

from countermark.authority import load_private, sign_session, until_of, write_code

__all__ = [
    "ACME",
    "AGENT",
    "FORM",
    "Answer",
    "Face",
    "Provider",
    "Visitor",
    "args_for",
    "fields_of",
    "make",
    "order",
    "pay",
    "text_of",
    "waiting",
]

FORM = "application/x-www-form-urlencoded"
_FIELD = re.compile(r'<input type="hidden" name="([a-z]+)" value="([^"]*)">')


class Visitor:
    """Keeps cookies and sends forms as a browser does; nothing is followed."""

    def __init__(self, face: Face, host: str = "") -> None:
        self.face = face
        self.host = host or f"localhost:{face.address[1]}"
        self.cookies: dict[str, str] = {}
        self.origin_is = ""  # where a proxy in front speaks TLS

    @property
    def origin(self) -> str:
        return self.origin_is or "http://" + self.host

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; header names are written with ``_`` for ``-``."""
        connection = http.client.HTTPConnection(*self.face.address, timeout=WAIT_S)
        sent = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, target, body, sent)
            answer = connection.getresponse()
            for value in answer.headers.get_all("set-cookie") or ():
                for name, one in SimpleCookie(value).items():
                    self.cookies.pop(name, None)
                    if one.value:
                        self.cookies[name] = one.value
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.ask("GET", target, None, **{"Sec_Fetch_Site": "none", **headers})

    def poll(self, target: str) -> Answer:
        """As htmx asks."""
        return self.ask("GET", target, None, Sec_Fetch_Site="same-origin", HX_Request="true")

    def post(self, target: str, fields: Mapping[str, str], **headers: str) -> Answer:
        """Send a form from our own page. ``fields`` hold its token."""
        sent = {"Content_Type": FORM, "Origin": self.origin, "Sec_Fetch_Site": "same-origin", **headers}
        return self.ask("POST", target, urlencode(fields).encode(), **{k: v for k, v in sent.items() if v})

    def sign_in(self, person: str) -> Answer:
        """With the person's key file, by a code."""
        page = text_of(self.get(f"/login?person={person}"))
        fields = fields_of(page, "/login/code")
        found = re.search(r"countermark console link (\S+) --deployment \S+ --page (\S+) --person", page)
        assert found is not None, page
        return self.post("/login/code", {**fields, "code": self.code(person, found[1], found[2])})

    def code(self, person: str, nonce: str, page: str) -> str:
        """What ``countermark console link`` prints."""
        order = {"v": 1, "deployment": self.face.made.deployment, "person": person, "nonce": nonce, "origin": page,
                 "not_after": until_of(nonce)}  # fmt: skip
        return write_code(sign_session(order, load_private(self.face.made.people[person])))

    def token(self, target: str = "/waiting") -> str:
        """The form token of this browser, from a page."""
        found = re.search(r'name="token" value="([^"]+)"', text_of(self.get(target)))
        assert found is not None
        return found[1]


def text_of(answer: Answer) -> str:
    return unescape(answer.body.decode("utf-8"))


def fields_of(page: str, action: str) -> dict[str, str]:
    """The hidden fields of the form that is sent to ``action``."""
    part = page.partition(f'action="{action}"')[2].partition("</form>")[0]
    return dict(_FIELD.findall(part))
