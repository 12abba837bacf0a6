"""Minor units of currencies: how many digits of an amount stand after the point."""

from __future__ import annotations

import re

# ISO 4217 minor units other than two, as payment providers take amounts. ISK and UGX have none by ISO, but providers
# take them with two for compatibility, so they are not listed.
_DIGITS = {
    **dict.fromkeys(
        ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"), 0
    ),
    **dict.fromkeys(("bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"), 3),
}
_NONE_BY_ISO = ("isk", "ugx")
_CODE = re.compile(r"[A-Za-z]{3}")


def digits_of(currency: str) -> int | None:
    """Digits after the point of a currency's amounts; None for what is no ISO code, such as a token on a chain."""
    return _DIGITS.get(currency.lower(), 2) if _CODE.fullmatch(currency) else None


def iso_digits(code: str) -> int:
    """The same by ISO 4217, for those who write by it and not as providers take amounts."""
    return 0 if code.lower() in _NONE_BY_ISO else digits_of(code) or 0
