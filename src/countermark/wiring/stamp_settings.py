"""``[[publish.stamp]]`` of ``countermark.toml``: authorities of time that stamp the log's heads (RFC 3161)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from countermark.connectors import networks_of, origin_of
from countermark.model.clock import US
from countermark.model.errors import ConfigError
from countermark.model.ports import Clock
from countermark.publish import Stamps, StampSettings, read_certificates

EVERY_DEFAULT = "1h"
EVERY_US_MIN = 60 * US
EVERY_US_MAX = 7 * 86_400 * US
AUTHORITIES_MAX = 8
CERTIFICATE_BYTES_MAX = 65_536

_KEYS = frozenset(("authority", "url", "certificate", "every", "allow_addresses"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"https?://[!-~]{1,500}")
_EVERY = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class StampAuthority:
    """An authority as configuration names it; ``certificate`` is a PEM file."""

    authority: str
    url: str
    certificate: Path
    every_us: int
    allow_addresses: tuple[str, ...] = ()


def read_stamps(section: object, root: Path, file: str) -> tuple[StampAuthority, ...]:
    """The authorities of the section ``publish``. Raises ``ConfigError``."""
    if not isinstance(section, dict) or section.keys() - {"anchor", "stamp"}:
        raise ConfigError(f"{file}: publish takes only: anchor, stamp")
    tables = section.get("stamp", [])
    if (
        not isinstance(tables, list)
        or len(tables) > AUTHORITIES_MAX
        or not all(isinstance(one, dict) for one in tables)
    ):
        raise ConfigError(f"{file}: publish.stamp is a list of at most {AUTHORITIES_MAX} tables")
    found = tuple(_read(table, root, f"{file}: publish.stamp") for table in tables)
    if len({one.authority for one in found}) != len(found):
        raise ConfigError(f"{file}: publish.stamp names an authority twice")
    return found


def _read(table: Mapping[str, Any], root: Path, where: str) -> StampAuthority:
    if table.keys() - _KEYS:
        raise ConfigError(f"{where} takes only: {', '.join(sorted(_KEYS))}")
    authority, url, certificate = (table.get(key) for key in ("authority", "url", "certificate"))
    if not isinstance(authority, str) or _NAME.fullmatch(authority) is None:
        raise ConfigError(f"{where}.authority is a name of 1 to 64 of A-Z a-z 0-9 _ . -")
    where = f"{where} {authority}"
    if not isinstance(url, str) or _URL.fullmatch(url) is None or "#" in url:
        raise ConfigError(f"{where}: url is that of the authority, https://HOST/PATH")
    if not isinstance(certificate, str) or not certificate:
        raise ConfigError(f"{where}: certificate is a PEM file with the root that its tokens lead to")
    every = _EVERY.fullmatch(str(table.get("every", EVERY_DEFAULT)))
    every_us = 0 if every is None else int(every[1]) * _UNITS_S[every[2]] * US
    if not EVERY_US_MIN <= every_us <= EVERY_US_MAX:
        raise ConfigError(f"{where}: every is a time from 1m to 7d")
    allowed = table.get("allow_addresses", [])
    if not isinstance(allowed, list) or not all(isinstance(text, str) for text in allowed):
        raise ConfigError(f"{where}: allow_addresses is a list of networks")
    try:
        parts = urlsplit(url)
        origin_of(f"{parts.scheme}://{parts.netloc}")
        networks_of(allowed)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{where}: {getattr(error, 'message', 'its url cannot be read')}") from None
    return StampAuthority(authority, url, root / certificate, every_us, tuple(allowed))


def stamps_of(one: StampAuthority, clock: Clock) -> Stamps:
    """The destination of an authority. Raises ``ConfigError`` when its certificate cannot be read."""
    try:
        with one.certificate.open("rb") as file:
            pem = file.read(CERTIFICATE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"the certificate of {one.authority} cannot be read: {error.strerror}") from None
    settings = StampSettings(one.authority, one.url, read_certificates(pem), one.every_us)
    return Stamps(settings, clock, allowed=networks_of(one.allow_addresses))
