"""Fetching a passkey that somebody offers from the server, with a pass of the person who is going to sign."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countermark.authority import make_pass
from countermark.connectors import origin_of
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ArgumentError, ConfigError
from countermark.wiring.config import Config

TIMEOUT_S = 10
ANSWER_BYTES_MAX = 65_536
PASS_S = 60


def fetch_offer(
    config: Config, code: str, server: str | None, person: str, private: Ed25519PrivateKey
) -> dict[str, Any]:
    """The offer of a code: ``enrolment``, ``proof``, ``fingerprint``.

    Raises:
        ArgumentError: ``not_found``: nothing is offered under it, or not any more.
        ConfigError: the server cannot be reached, or says no.
    """
    host = f"[{config.serve.host}]" if ":" in config.serve.host else config.serve.host
    scheme = "http" if config.serve.tls_cert is None else "https"
    url = urlsplit(origin_of((server or f"{scheme}://{host}:{config.serve.port}").rstrip("/")))
    target = f"/v1/people/offers/{quote(code.strip(), safe='')}"
    shown = make_pass(
        private, deployment=config.deployment, person=person, method="GET", target=target, body=b"",
        not_after=SystemClock().now_us() + PASS_S * US,
    )  # fmt: skip
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", target, headers={"Authorization": shown, "Accept": "application/json"})
        answer = connection.getresponse()
        status, raw = answer.status, answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        raise ConfigError(f"the server at {url.netloc} does not answer", code="no_server",
                          hint="Is `countermark serve` running? Say where with --server URL.") from None  # fmt: skip
    finally:
        connection.close()
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if status == http.client.NOT_FOUND:
        raise ArgumentError("no passkey is offered under this code, or not any more", field="offer", code="not_found",
                            hint="Offers are kept for half an hour: offer it again.")  # fmt: skip
    if status != http.client.OK or type(found) is not dict or not {"enrolment", "proof"} <= found.keys():
        raise ConfigError(f"the server at {url.netloc} did not give the offer ({status})",
                          hint="Is it the server of this deployment? Say where that is with --server URL.")  # fmt: skip
    return found
