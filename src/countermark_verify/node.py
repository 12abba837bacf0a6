"""A node of the auditor's own, asked for the blocks of a chain: the one module here that uses a network."""

import json
import urllib.request
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import urlsplit

from countermark_verify.errors import TrustError
from countermark_verify.vouching import Unavailable

ANSWER_BYTES_MAX = 1 << 20
TIMEOUT_S = 10
BLOCKS_ASKED_MAX = 10_000


class Node:
    """A node of the auditor's choice, asked over JSON-RPC: https, or http on this machine; no proxy, no redirect."""

    words = "that the auditor's own node gave"

    def __init__(self, url: str, chain_id: int) -> None:
        """Errors: `TrustError` for an address that is not one (it is the auditor's own input)."""
        self._url = url
        self._chain_id = chain_id
        self._known: bool = False
        self._asked = 0
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            parts = urlsplit(url)
            port_fits = parts.port is None or parts.port > 0
        except ValueError:
            raise TrustError(f"the node of chain {chain_id}: not an address") from None
        local = parts.scheme == "http" and _loopback(parts.hostname or "")
        if not (parts.scheme == "https" or local) or not parts.hostname or not port_fits or parts.username:
            raise TrustError(f"the node of chain {chain_id}: https://HOST..., or http:// on this machine")

    def hash_at(self, number: int, claimed: bytes) -> bytes | None:
        if not self._known:
            found = self._ask("eth_chainId", [])
            if found != hex(self._chain_id):
                raise Unavailable(f"it is of chain {str(found)[:40]}")
            self._known = True
        self._asked += 1
        if self._asked > BLOCKS_ASKED_MAX:
            raise Unavailable("too many blocks to ask for")
        block = self._ask("eth_getBlockByNumber", [hex(number), False])
        if block is None:
            return None
        text = block.get("hash") if type(block) is dict else None
        try:
            if type(text) is not str or not text.startswith("0x") or len(text) != 66:
                raise ValueError
            return bytes.fromhex(text[2:])
        except ValueError:
            raise Unavailable("its block has no hash") from None

    def _ask(self, method: str, params: list[Any]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                raw = answer.read(ANSWER_BYTES_MAX + 1)
            found = json.loads(raw) if len(raw) <= ANSWER_BYTES_MAX else None
        except (OSError, ValueError, RecursionError, HTTPException):
            raise Unavailable("it does not answer") from None
        if type(found) is not dict or "result" not in found:
            raise Unavailable("its answer is none")
        return found["result"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise OSError("a redirect")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
