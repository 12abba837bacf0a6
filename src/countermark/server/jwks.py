"""Public keys of an issuer (RFC 7517), from a file or an https URL: bounded, cached, refreshed seldom.

A URL is fetched without redirects and without a proxy, on another thread. Whoever sends tokens with invented key IDs
causes at most one fetch in ``RETRY_US``; tokens whose key is known never wait for one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from countermark.connectors import LostError, NotSentError, Sender, networks_of
from countermark.model.canon import read_json
from countermark.model.clock import US
from countermark.model.errors import ConfigError, EncodingError
from countermark.model.ports import Clock
from countermark.model.values import Request

SET_BYTES_MAX = 1 << 18
KEYS_MAX = 64
FRESH_US = 300 * US
RETRY_US = 30 * US
STALE_US = 3_600 * US  # keys that could not be refreshed for so long are no longer used
FETCH_S_MAX = 5
KID_CHARS_MAX = 256

# RFC 7518 section 3.1 and RFC 8037: which keys an algorithm takes.
_TAKES: Mapping[str, tuple[str, str]] = {
    "EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    **dict.fromkeys(("PS256", "PS384", "PS512", "RS256", "RS384", "RS512"), ("RSA", "")),
}  # fmt: skip
_ANYWHERE = networks_of(("0.0.0.0/0", "::/0"))  # an issuer is where the operator says that it is
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))

log = logging.getLogger("countermark.server")


class KeySet:
    """The keys of one issuer."""

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._keys: list[Mapping[str, Any]] = []
        self._read_us: int | None = None  # when the keys were last read
        self._tried_us: int | None = None
        self._seen: tuple[int, int, int] | None = None
        self._turn = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The one key that may have signed with ``algorithm`` under this ID, or None.

        Without an ID the set must hold exactly one key that fits: trying several would let any of them answer for all.
        """
        if self._source.startswith(("https://", "http://")):
            await self._refresh(self._fitting(kid, algorithm) is None)
        else:
            self._reload()
        return self._fitting(kid, algorithm)

    def _fitting(self, kid: str | None, algorithm: str) -> PyJWK | None:
        kind, curve = _TAKES[algorithm]
        found = [
            key for key in self._keys
            if key["kty"] == kind and key.get("crv", "") == curve and key.get("alg", algorithm) == algorithm
            and (kid is None or key.get("kid") == kid)
        ]  # fmt: skip
        if len(found) != 1:
            return None
        try:
            return PyJWK(dict(found[0]), algorithm)
        except (PyJWTError, ValueError, TypeError):
            return None

    def _reload(self) -> None:
        try:
            found = Path(self._source).stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._seen, self._keys = None, []
                with Path(self._source).open("rb") as file:
                    self._keys = read_set(file.read(SET_BYTES_MAX + 1))
                self._seen = seen
        except (OSError, EncodingError) as error:
            self._seen, self._keys = None, []
            log.warning("the keys of an issuer cannot be read: %s", _why(error))

    async def _refresh(self, missing: bool) -> None:
        if not self._due(missing):
            return
        async with self._turn:
            if not self._due(missing):  # somebody else has fetched meanwhile
                return
            self._tried_us = self._clock.steady_us()
            try:
                async with asyncio.timeout(2 * FETCH_S_MAX):
                    self._keys = read_set(await asyncio.to_thread(fetch, self._source))
                self._read_us = self._clock.steady_us()
            except (TimeoutError, LostError, NotSentError, ConfigError, EncodingError) as error:
                log.warning("the keys of an issuer cannot be fetched: %s", _why(error))
        if self._read_us is not None and self._clock.steady_us() - self._read_us > STALE_US:
            self._keys = []

    def _due(self, missing: bool) -> bool:
        now = self._clock.steady_us()
        if self._tried_us is not None and now - self._tried_us < RETRY_US:
            return False
        return missing or self._read_us is None or now - self._read_us >= FRESH_US


def fetch(url: str) -> bytes:
    """The bytes at a URL, all of them within ``FETCH_S_MAX``. Only 200 counts: a redirect could lead anywhere.

    Raises:
        LostError, NotSentError: it cannot be reached, or answers otherwise, or too slowly.
    """
    parts = urlsplit(url)
    origin, query = f"{parts.scheme}://{parts.netloc}", f"?{parts.query}" if parts.query else ""
    sender = Sender(origin, allowed=_ANYWHERE)
    try:
        look = Request("GET", f"{origin}{parts.path or '/'}{query}", (), b"")
        answer = sender.send(look, None, FETCH_S_MAX * 1_000)
    finally:
        sender.close()
    if answer.status != 200:
        raise LostError(f"status {answer.status}")
    return answer.body


def read_set(raw: bytes) -> list[Mapping[str, Any]]:
    """The public signature keys of a JWK set; others are left out. Raises ``EncodingError``."""
    doc = read_json(raw, bytes_max=SET_BYTES_MAX)
    keys = doc.get("keys") if type(doc) is dict else None
    if type(keys) is not list or len(keys) > KEYS_MAX:
        raise EncodingError(f"not a JWK set of at most {KEYS_MAX} keys")
    found: list[Mapping[str, Any]] = []
    for key in keys:
        if type(key) is not dict or not all(type(key.get(name, "")) is str for name in ("kty", "crv", "alg", "kid")):
            raise EncodingError("a JWK set holds something else than keys")
        if _PRIVATE & key.keys():
            raise EncodingError("a JWK set holds a private or a symmetric key")
        if key.get("use", "sig") == "sig" and len(key.get("kid", "")) <= KID_CHARS_MAX and "kty" in key:
            found.append(key)
    return found


def _why(error: Exception) -> str:
    return getattr(error, "message", "") or type(error).__name__
