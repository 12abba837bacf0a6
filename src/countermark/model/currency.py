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
# ISO 4217's alphabetic codes, with those that were withdrawn since 2022 and may stand in older books.
_LISTED = (
    "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob bov brl bsd btn bwp byn bzd cad "
    "cdf che chf chw clf clp cny cop cou crc cuc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs "
    "gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd "
    "kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn mxv myr mzn nad ngn nio nok npr "
    "nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sll sos srd ssp stn "
    "svc syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd usn uyi uyu uyw uzs ved ves vnd vuv wst xad xaf "
    "xag xau xba xbb xbc xbd xcd xcg xdr xof xpd xpf xpt xsu xts xua xxx yer zar zmw zwg zwl "
)
ISO_CODES = frozenset(_LISTED.split())
_CODE = re.compile(r"[A-Za-z]{3}")


def digits_of(currency: str) -> int | None:
    """Digits after the point of a currency's amounts; None for what is no ISO code, such as a token on a chain."""
    return _DIGITS.get(currency.lower(), 2) if _CODE.fullmatch(currency) else None


def iso_digits(code: str) -> int:
    """The same by ISO 4217, for those who write by it and not as providers take amounts."""
    return 0 if code.lower() in _NONE_BY_ISO else digits_of(code) or 0
