"""Amounts, times and other people's texts as the pages show them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from countermark.audit import CODES, day, escaped, listed, money, safe, span
from countermark.model.clock import US, iso

HOSTILE_CHARS_MAX = 600
LINE_CHARS_MAX = 160

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
    "short",
    "span",
]


def local(at_us: int, zone: str) -> str:
    """``3 Nov 2026, 10:12:03 (UTC+01:00)``: the wall clock of a zone, with its offset."""
    at = datetime.fromtimestamp(at_us // US, UTC).astimezone(ZoneInfo(zone))
    offset = at.utcoffset() or timedelta()
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    shown = day(at_us + minutes * 60 * US)
    return f"{shown}, {at:%H:%M:%S} (UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d})"


def moment(at_us: int, zone: str) -> Markup:
    """``local`` as an element that programs can read too."""
    return Markup('<time datetime="{}">{}</time>').format(iso(at_us), local(at_us, zone))


def left(until_us: int, now_us: int) -> str:
    """How long there is until a moment, in its two largest units: ``3 hours 20 minutes``, or ``over``."""
    seconds = (until_us - now_us) // US
    if seconds <= 0:
        return "over"
    parts: list[str] = []
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {name}" + ("" if count == 1 else "s"))
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 "))


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


def named(value: object) -> Markup:
    """A short name of somebody else's, such as an account's, all of it visible; a very long one is cut."""
    text = escaped(str(value))
    return escape(text if len(text) <= LINE_CHARS_MAX else f"{text[:LINE_CHARS_MAX]}…")


def short(digest: str) -> str:
    """A digest or an ID as far as people compare it by eye."""
    return digest.removeprefix("sha256:")[:12]


def content_tag(body: bytes) -> str:
    """Names bytes, for caches and for telling whether something changed."""
    return hashlib.sha256(body).hexdigest()[:16]
