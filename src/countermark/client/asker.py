"""Asking over HTTP, and asking the same once more where that is safe. Everything has a bound."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import ssl
import weakref
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import Any

import orjson

from countermark.client.answers import Said, said, wait_s_of
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError, EncodingError, GateHaltedError
from countermark.model.values import Request
from countermark.net import LostError, NotSentError, Sender, origin_of

TIMEOUT_MS = 120_000
TIMEOUT_MS_MAX = 3_600_000
TRIES = 8
TRIES_MAX = 100
WAIT_MS_FIRST, WAIT_MS_MAX = 100, 2_000  # between two tries without an answer; twice as long each time
RETRY_AFTER_S_MAX = 30
QUESTION_BYTES_MAX = 1 << 20
TOKEN_CHARS_MAX = 4_096

# The gate is where the user says that it is; a private address is as good as a public one.
_ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{8,}=*")  # RFC 6750 section 2.1; a shorter one stands in many a text by chance
_JSON = (("Content-Type", "application/json"),)
_AS_THEY_ARE = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class Asker:
    """One gate and one credential. Safe to use from many threads, and in a forked child.

    ``timeout_ms`` is for a question with all its tries. The certificate of an ``https`` gate is always verified;
    ``ca_file`` (PEM) replaces the system's roots.
    """

    def __init__(
        self, url: str, token: str, *, timeout_ms: int, tries: int, ca_file: str | Path | None
    ) -> None:  # fmt: skip
        if type(token) is not str or len(token) > TOKEN_CHARS_MAX or _TOKEN.fullmatch(token) is None:
            hint = "`countermark token issue` prints one; strip the line break when it is read from a file."
            raise ConfigError("the token is not in the form of a bearer token", hint=hint)
        if type(timeout_ms) is not int or not 0 < timeout_ms <= TIMEOUT_MS_MAX:
            raise ConfigError(f"timeout_ms is 1 to {TIMEOUT_MS_MAX}")
        if type(tries) is not int or not 0 < tries <= TRIES_MAX:
            raise ConfigError(f"tries is 1 to {TRIES_MAX}")
        self._token, self._timeout_ms, self._tries = token, timeout_ms, tries
        self._tls = None if ca_file is None else _roots(ca_file)
        self.url = url.removesuffix("/") if type(url) is str else ""
        self._connect()
        mine = weakref.ref(self)  # what is registered for forks stays registered, and must not keep this alive

        def forked() -> None:  # two processes on one connection would read each other's answers
            asker = mine()
            if asker is not None:
                asker._connect()

        os.register_at_fork(after_in_child=forked)

    def _connect(self) -> None:
        try:
            self._sender = Sender(self.url, allowed=_ANYWHERE, tls=self._tls)
        except (ConfigError, ValueError):  # the latter from taking the URL apart
            if self.url.startswith("http://") and _is_origin("https" + self.url.removeprefix("http")):
                hint = "Use the gate's https address."
                raise ConfigError("the token would cross a network in clear", code="needs_tls", hint=hint) from None
            hint = "Such as https://gate.example or http://127.0.0.1:8521, without a path."
            raise ConfigError("this is not the address of a gate", hint=hint) from None

    @property
    def token(self) -> str:
        """The credential, for comparing; it is in no error and in no log."""
        return self._token

    def ask(self, method: str, target: str, body: Mapping[str, Any] | None = None, *, again: bool = True) -> Said:
        """The answer to a request, whatever its status.

        Without an answer, or when the gate asks to come back later, the same is asked again. With ``again=False`` only
        what surely did nothing is.

        Raises:
            EncodingError: ``body`` cannot be written as JSON, or is too long.
            GateHaltedError: in all the tries, or in time, no answer came.
        """
        raw = b"" if body is None else _written(body)
        request = Request(method, self.url + target, () if body is None else _JSON, raw)
        clock = SystemClock()
        end_us = clock.steady_us() + self._timeout_ms * 1000
        number = 0
        while True:
            number += 1
            answer: Said | None = None
            wait_ms, why = _backoff_ms(number), "no connection"
            try:
                found = self._sender.send(request, self._token, max(1, (end_us - clock.steady_us()) // 1000))
            except NotSentError as failed:
                why = failed.message
            except LostError as failed:
                why = failed.message
                if not again or failed.code == "timeout":
                    raise _no_answer(why) from None
            else:
                answer = said(found.status, found.headers, found.body)
                wait_s = wait_s_of(answer, self._token, again=again)
                if wait_s is None:
                    return answer
                wait_ms = max(wait_ms, min(wait_s, RETRY_AFTER_S_MAX) * 1000)
            if number == self._tries or clock.steady_us() + wait_ms * 1000 >= end_us:
                if answer is not None:
                    return answer
                raise _no_answer(why)
            sleep(wait_ms / 1000)

    def close(self) -> None:
        """Close the kept connections."""
        self._sender.close()


def _is_origin(text: str) -> bool:
    try:
        return origin_of(text) == text
    except (ConfigError, ValueError):
        return False


def _backoff_ms(number: int) -> int:
    """Not the same for everybody: a gate that starts anew must not meet all its agents at once."""
    most = min(WAIT_MS_FIRST << min(number - 1, 16), WAIT_MS_MAX)
    return most // 2 + secrets.randbelow(most // 2 + 1)


def _no_answer(why: str) -> GateHaltedError:
    hint = "Of an action, nothing is known: ask again with the same run and call_id."
    return GateHaltedError(f"the gate gave no answer: {why}", hint=hint)


def _written(body: Mapping[str, Any]) -> bytes:
    try:
        raw = orjson.dumps(body, option=_AS_THEY_ARE)
    except orjson.JSONEncodeError as wrong:
        raise EncodingError(f"the request cannot be written as JSON: {wrong}") from None
    if len(raw) > QUESTION_BYTES_MAX:
        raise EncodingError(f"a request is longer than {QUESTION_BYTES_MAX} bytes")
    return raw


def _roots(ca_file: str | Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError, TypeError):  # ssl.SSLError is an OSError
        raise ConfigError("ca_file holds no certificates in PEM form, or cannot be read") from None
