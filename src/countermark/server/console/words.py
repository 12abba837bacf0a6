"""Amounts, times and other people's texts as the pages show them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from countermark.audit import CODES, day, escaped, lasting, listed, money, safe, span
from countermark.model.clock import US, iso
from countermark.model.words import written

HOSTILE_CHARS_MAX = 600
LINE_CHARS_MAX = 160

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FACTS = {
    "local_minute": "local time", "local_weekday": "day of the week", "payee_known": "payee is known",
    "instructed": "instructed by",
}  # fmt: skip
_CANNOT = {
    "denied_by_policy": "a rule forbids it now, and nobody may lift that",
    "mandate_limit": "limit now used up: the mandate's budget does not cover it any more",
    "killed": "people have stopped this",
    "approval_void": "other rules stand against it now than when people were asked",
}

__all__ = [
    "ago",
    "cannot",
    "day",
    "fact_name",
    "hostile",
    "left",
    "listed",
    "local",
    "moment",
    "money",
    "named",
    "plain",
    "short",
    "shown",
    "span",
]


def local(at_us: int, zone: str) -> str:
    """``3 Nov 2026, 10:12:03 (UTC+01:00)``: the wall clock of a zone, with its offset."""
    at = datetime.fromtimestamp(at_us // US, UTC).astimezone(ZoneInfo(zone))
    offset = at.utcoffset() or timedelta()
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{written(at)}, {at:%H:%M:%S} (UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d})"


def moment(at_us: int, zone: str) -> Markup:
    """``local`` as an element that programs can read too."""
    return Markup('<time datetime="{}">{}</time>').format(iso(at_us), local(at_us, zone))


def left(until_us: int, now_us: int) -> str:
    """How long there is until a moment, in its two largest units: ``3 hours 20 minutes``, or ``over``."""
    return lasting(until_us - now_us) if until_us - now_us >= US else "over"


def ago(at_us: int, now_us: int) -> str:
    """How long ago something was: ``2 days 3 hours ago``."""
    return "just now" if now_us - at_us < US else left(now_us, at_us) + " ago"


def cannot(code: str) -> str:
    """Why an approval would have nothing done, in words."""
    return _CANNOT.get(code) or CODES.get(code, code)


def fact_name(name: str) -> str:
    """A fact as people call it."""
    return _FACTS.get(name, name.replace("_", " "))


def hostile(value: object, most: int = HOSTILE_CHARS_MAX) -> Markup:
    """Somebody else's text: one line, what cannot be seen spelled out, cut with the number of characters left out.

    Nothing in it becomes a link or changes the direction of what follows.
    """
    text = safe(value)
    rest = f" … and {len(text) - most:,} more characters" if len(text) > most else ""
    return Markup('<bdi class="hostile" dir="ltr">{}</bdi>{}').format(text[:most], rest)


def plain(text: str, most: int) -> str:
    """What a person typed, for a document or a record: one line, trimmed and cut, no control character."""
    return _UNSEEN.sub(" ", text).strip()[:most]


def named(value: object) -> Markup:
    """A short name of somebody else's, such as an account's, all of it visible; a very long one is cut."""
    text = escaped(str(value))
    return escape(text if len(text) <= LINE_CHARS_MAX else f"{text[:LINE_CHARS_MAX]}…")


def shown(text: str) -> str:
    """A rule's own text, its lines kept: what would turn the reading around or cannot be seen is spelled out."""
    return "\n".join(escaped(line.expandtabs(4)) for line in text.split("\n"))


def short(digest: str) -> str:
    """A digest or an ID as far as people compare it by eye."""
    return digest.removeprefix("sha256:")[:12]


def content_tag(body: bytes) -> str:
    """Names bytes, for caches and for telling whether something changed."""
    return hashlib.sha256(body).hexdigest()[:16]
