"""Amounts and days as people read them, and text that others wrote. The decimal point is put in as text: no float."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches

from countermark.model.currency import digits_of

TOLD_CHARS_MAX = 60  # of what a caller sent, told back: ``quoted``
LISTED_MAX = 8  # names in a hint

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FILLERS = "\u115f\u1160\u3164\uffa0"  # letters by category, blank on every screen


def money(amount: int, currency: str | None) -> str:
    """``990000, "eur"`` -> ``9,900.00 EUR``; ``990000, "jpy"`` -> ``990,000 JPY``."""
    digits = None if currency is None else digits_of(currency)
    if currency is None or digits is None:
        return f"{amount:,} smallest units" + (f" of {currency}" if currency else "")
    sign, whole = ("-", -amount) if amount < 0 else ("", amount)
    units, rest = divmod(whole, 10**digits)
    point = f".{rest:0{digits}d}" if digits else ""
    return f"{sign}{units:,}{point} {currency.upper()}"


def written(day: date) -> str:
    """``3 Nov 2026``, the same in every locale; of a moment, its day in its own zone."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def safe(value: object) -> str:
    """A value that somebody else wrote, in one line: whatever a reader could not see is spelled out.

    That is line breaks, escapes, direction marks, marks that combine with a letter, fillers and odd spaces; several
    spaces become one, so that no text can wrap into a line that looks like ours.
    """
    text = ("true" if value else "false") if type(value) is bool else str(value)
    return " ".join(part for part in escaped(text).split(" ") if part)


def escaped(text: str) -> str:
    """Text in one line, with every character that cannot be seen spelled out; spaces stay as they are."""
    return "".join(c if _visible(c) else f"\\u{ord(c):04x}" for c in unicodedata.normalize("NFC", text))


def quoted(value: object) -> str:
    """The beginning of what a caller sent, told back: in quotes, in one line, with nothing in it that is not seen."""
    return f"'{escaped(str(value)[:TOLD_CHARS_MAX])}'"


def close_to(name: str, names: Iterable[str]) -> str:
    """``Did you mean ...?`` when one of ``names`` looks like ``name``, in whatever case; else an empty string."""
    known = {one.casefold(): one for one in sorted(names, reverse=True)}
    close = get_close_matches(name[:TOLD_CHARS_MAX].casefold(), known, n=1)
    return f"Did you mean {known[close[0]]!r}?" if close else ""


def listed(names: Iterable[str]) -> str:
    """The first ``LISTED_MAX`` of some names, sorted."""
    known = sorted(set(names))
    return ", ".join(known[:LISTED_MAX]) + (", ..." if len(known) > LISTED_MAX else "")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint: ``close_to``, else what there is; an empty string where there is nothing."""
    known = set(names)
    return close_to(name, known) or (f"Known: {listed(known)}." if known else "")


def _visible(char: str) -> bool:
    if char.isascii():
        return char.isprintable()
    return char.isprintable() and unicodedata.category(char) not in ("Mn", "Me", "Mc", "Zs") and char not in _FILLERS
