"""Who looks at a page: sessions in memory, named by a random cookie of which only the digest is kept.

Before somebody is known, nothing is kept at all: the door's cookie, its nonces and its form tokens prove themselves by
a key that lives as long as the process. A restart ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from countermark.authority import Person, encode64, enrolled, parse_key
from countermark.model.clock import US
from countermark.model.errors import AuthorityError, SignatureError
from countermark.model.ports import Clock
from countermark.server.once import Once

IDLE_S_MAX = 30 * 60
LIFE_S_MAX = 8 * 3_600
SESSIONS_MAX = 1_024
SESSIONS_PER_PERSON_MAX = 8
NONCE_LIFE_S = 300
TOKEN_BYTES = 32
TOKEN_CHARS = 43
_TAG_BYTES = 16
_NONCE_BYTES = 16 + 8 + _TAG_BYTES


@dataclass(slots=True)
class Session:
    """A person's browser. Times are microseconds; ``key`` is the one that opened it; ``token`` stands in its forms."""

    person: str
    key: str
    token: str
    since: int
    seen: int
    noted: set[str] = field(default_factory=set)  # what this session's reading was recorded for


class Sessions:
    """All sessions of a process. One instance, on the gate's loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._all: OrderedDict[bytes, Session] = OrderedDict()
        self._used = Once()

    def __len__(self) -> int:
        return len(self._all)

    def open(self, person: str, key: str) -> str:
        """A new session. Returns the cookie's value; the oldest sessions give way when there are too many."""
        now = self._clock.now_us()
        self._drop_old(now)
        own = [name for name, one in self._all.items() if one.person == person]
        for name in own[: max(0, len(own) - SESSIONS_PER_PERSON_MAX + 1)]:
            del self._all[name]
        while len(self._all) >= SESSIONS_MAX:
            self._all.popitem(last=False)
        cookie = encode64(secrets.token_bytes(TOKEN_BYTES))
        self._all[_name(cookie)] = Session(person, key, self.form_token(cookie), now, now)
        return cookie

    def find(self, cookie: str, people: Mapping[str, Person], *, touch: bool) -> Session | None:
        """The session of a cookie; none when it is over, or when its person or key is no longer enrolled.

        ``touch``: a person asked; a page that refreshes itself keeps no session alive.
        """
        name = _name(cookie)
        found = self._all.get(name)
        if found is None:
            return None
        now = self._clock.now_us()
        if _over(found, now) or not _enrolled(found, people):
            del self._all[name]
            return None
        if touch:
            found.seen = now
        return found

    def end(self, cookie: str) -> None:
        """Forget a session."""
        self._all.pop(_name(cookie), None)

    def _drop_old(self, now: int) -> None:
        for name in [name for name, one in self._all.items() if _over(one, now)]:
            del self._all[name]

    def door(self) -> str:
        """A cookie for a browser that nobody has signed in from."""
        return encode64(secrets.token_bytes(TOKEN_BYTES))

    def form_token(self, cookie: str) -> str:
        """What the forms of a browser with this cookie carry."""
        return encode64(self._mac(b"form", cookie.encode("ascii")))

    def is_form_token(self, cookie: str, token: str) -> bool:
        return hmac.compare_digest(self.form_token(cookie).encode("ascii"), token.encode("utf-8"))

    def nonce(self, door: str) -> tuple[str, int]:
        """A nonce for one sign-in from the browser with this cookie, and when it ends."""
        until = self._clock.now_us() + NONCE_LIFE_S * US
        head = secrets.token_bytes(16) + until.to_bytes(8, "big")
        return (head + self._tag(head, door)).hex(), until

    def until(self, nonce: str, door: str) -> int:
        """When a nonce ends. Raises ``AuthorityError``: not ours, another browser's, used or over."""
        try:
            raw = bytes.fromhex(nonce)
        except ValueError:
            raw = b""
        head = raw[:-_TAG_BYTES]
        ours = len(raw) == _NONCE_BYTES and hmac.compare_digest(raw[-_TAG_BYTES:], self._tag(head, door))
        until = int.from_bytes(head[16:], "big") if ours else 0
        if not ours or nonce in self._used or until <= self._clock.now_us():
            raise AuthorityError("this sign-in was not begun in this browser, or is over", hint="Begin again.")
        return until

    def use(self, nonce: str, person: str, until: int) -> None:
        """Remember that a nonce was used. Raises ``GateBusyError`` when too many were."""
        self._used.add(nonce, person, until, self._clock.now_us())

    def stand_in(self, person: str) -> bytes:
        """A credential for a name that has none: whoever asks does not learn who is enrolled."""
        return self._mac(b"nobody", person.encode("utf-8"))[:16]

    def _tag(self, head: bytes, door: str) -> bytes:
        return self._mac(b"nonce", head + door.encode("ascii"))[:_TAG_BYTES]

    def _mac(self, what: bytes, value: bytes) -> bytes:
        return hmac.digest(self._secret, what + b"\0" + value, "sha256")


def _name(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8")).digest()


def _over(session: Session, now: int) -> bool:
    return now >= min(session.since + LIFE_S_MAX * US, session.seen + IDLE_S_MAX * US)


def _enrolled(session: Session, people: Mapping[str, Person]) -> bool:
    try:
        enrolled(people, session.person, parse_key(session.key))
    except (AuthorityError, SignatureError):
        return False
    return True
