"""Amounts and days as people read them, and text that others wrote. The decimal point is put in as text: no float."""

from __future__ import annotations

import unicodedata
from datetime import date

from countermark.model.currency import digits_of

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


def _visible(char: str) -> bool:
    if char.isascii():
        return char.isprintable()
    return char.isprintable() and unicodedata.category(char) not in ("Mn", "Me", "Mc", "Zs") and char not in _FILLERS
