"""Asking a node over JSON-RPC: one fixed address, bounded answers, one chain. A node is asked, never trusted.

Before the first byte of a question leaves, every failure is ``NotSentError``; after it ``LostError``; an answer in the
node's own words that it did not do something is ``RefusedError``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from countermark.chain.codec import HASH_BYTES, ChainError, data, quantity
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.values import Request
from countermark.net import LostError, Network, NotSentError, Sender

ANSWER_BYTES_MAX = 16 << 20  # the receipts of a full block, in a node's JSON
TIMEOUT_MS = 10_000
DEPTH_MAX = 16
NODES_VALUES_MAX = 1_000_000
CONTAINERS_MAX = 200_000  # a receipt and each of its logs are two
SAID_CHARS_MAX = 200
TRANSACTIONS_MAX = 2_000  # of a block: each is asked for
CHAIN_ID_MAX = 2**53 - 1

_HEADERS = (("Content-Type", "application/json"),)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]{1,128})*/?")
_UNSHOWN = re.compile(r"[^ -~]")


class RefusedError(CountermarkError):
    """The node answered that it did not do what was asked. ``number`` is its own code, ``said`` its words, bounded."""

    code = "provider_refused"

    def __init__(self, number: int, said: str) -> None:
        super().__init__(f"the node refused: {said}")
        self.number = number
        self.said = said


class Rpc:
    """A node's JSON-RPC over HTTP. Safe to use from many threads.

    ``url`` is ``https://HOST[:PORT][/PATH]``, or ``http://`` on this machine. ``secret`` is asked for a bearer token
    each time, when the node wants one.
    """

    def __init__(
        self, url: str, chain_id: int, *, secret: Callable[[], str] | None = None, allowed: Sequence[Network] = (),
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:  # fmt: skip
        """Raises ``ConfigError`` unless the address and the chain id are such."""
        origin, path = split_url(url)
        if type(chain_id) is not int or not 0 < chain_id <= CHAIN_ID_MAX:
            raise ConfigError("a chain id is an integer from 1 to 2^53 - 1")
        self.chain_id = chain_id
        self._url = origin + (path or "/")
        self._secret = secret
        self._timeout_ms = timeout_ms
        self._sender = Sender(origin, allowed=allowed, answer_bytes_max=ANSWER_BYTES_MAX)
        self._ids = itertools.count(1)

    def call(self, method: str, *params: Any) -> Any:
        """The result of one call; JSON without floats, at most ``DEPTH_MAX`` deep.

        Raises:
            NotSentError: nothing left this process.
            LostError: the question may have arrived; there is no answer to rely on.
            RefusedError: the node says that it did not do it.
        """
        number = next(self._ids)
        asked = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}, separators=(",", ":"))
        secret = self._credential()
        request = Request("POST", self._url, _HEADERS, asked.encode("ascii"))
        answer = self._sender.send(request, secret, self._timeout_ms)
        return _result(answer.body, number)

    def check_chain(self) -> None:
        """Whether the node is one of this chain, asked anew each time: an address may lead elsewhere tomorrow.

        Raises ``NotSentError`` with the reason ``wrong_chain``, or what ``call`` raises.
        """
        found = quantity(self.call("eth_chainId"))
        if found != self.chain_id:
            raise NotSentError(f"the node is of chain {found}, not of {self.chain_id}", "wrong_chain")

    def block(self, which: str) -> Mapping[str, Any] | None:
        """A block by ``latest``, ``finalized``, its number in hex, or its hash; None when the node has no such one."""
        by_hash = len(which) == 2 + 2 * HASH_BYTES
        found = self.call("eth_getBlockByHash" if by_hash else "eth_getBlockByNumber", which, False)
        return None if found is None else _object(found)

    def receipt(self, tx: str) -> Mapping[str, Any] | None:
        """The receipt of a transaction by its hash; None while the node has none."""
        found = self.call("eth_getTransactionReceipt", tx)
        return None if found is None else _object(found)

    def receipts(self, block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All receipts of a block, in their order."""
        found = self.call("eth_getBlockReceipts", block.get("hash"))
        if type(found) is not list:
            raise ChainError("a node's receipts of a block are no list")
        return [_object(item) for item in found]

    def raw_transactions(self, block: Mapping[str, Any], going: Callable[[], bool] = lambda: True) -> list[bytes]:
        """The bytes of all transactions of a block, in their order; each is asked for while ``going`` says so."""
        hashes = block.get("transactions")
        if type(hashes) is not list or not all(type(item) is str for item in hashes):
            raise ChainError("a node's block names no transactions")
        if len(hashes) > TRANSACTIONS_MAX:
            raise ChainError(f"a node's block names more than {TRANSACTIONS_MAX} transactions")
        found = []
        for tx in hashes:
            if not going():
                raise LostError("the node is too slow", code="timeout")
            found.append(data(self.call("eth_getRawTransactionByHash", tx)))
        return found

    def transactions_of(self, address: str, which: str = "latest") -> int:
        """How many transactions an account has sent, which is its next nonce."""
        return quantity(self.call("eth_getTransactionCount", address, which))

    def close(self) -> None:
        """Close idle connections."""
        self._sender.close()

    def _credential(self) -> str | None:
        if self._secret is None:
            return None
        try:
            return self._secret()
        except (CountermarkError, OSError, LookupError, ValueError):
            raise NotSentError("no credential for the node", "missing_secret") from None


def split_url(url: str) -> tuple[str, str]:
    """Origin and path of a node's address. Raises ``ConfigError`` for a query, a user or anything else in it."""
    parts = urlsplit(url)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path
    if url != origin + path or _PATH.fullmatch(path) is None or "//" in path:
        raise ConfigError("a node's address is https://HOST, https://HOST:PORT or one of these with a plain path")
    return origin, path


def _result(body: bytes, number: int) -> Any:
    """The result in an answer to question ``number``. Raises ``LostError`` when it is not one, or ``RefusedError``."""
    if body.count(b"[") + body.count(b"{") > CONTAINERS_MAX or body.count(b",") > NODES_VALUES_MAX:
        raise LostError("the node's answer holds too many values")  # nothing else goes on while they are read
    try:
        orjson.loads(body)  # its bound of depth is its own; the next one's is the process's, which libraries raise
        found = json.loads(body.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float,
                           object_pairs_hook=_once)  # fmt: skip
    except (ValueError, RecursionError):
        raise LostError("the node's answer is not JSON") from None
    if type(found) is not dict or found.get("jsonrpc") != "2.0" or found.get("id") != number or not _plain(found):
        raise LostError("the node's answer is none to this question")
    error = found.get("error")
    if error is not None:
        said, code = (error.get("message"), error.get("code")) if type(error) is dict else ("", 0)
        words = _UNSHOWN.sub("?", said[:SAID_CHARS_MAX]) if type(said) is str else ""
        raise RefusedError(code if type(code) is int else 0, words)
    if "result" not in found:
        raise LostError("the node's answer has no result")
    return found["result"]


def _no_float(text: str) -> Any:
    raise ValueError("a float")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _plain(root: Any) -> bool:
    """Whether the answer is neither deeper nor larger than what is worked with."""
    level, count = [root], 0
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        count += len(below)
        if not below or count > NODES_VALUES_MAX:
            return not below
        level = below
    return False


def _object(found: Any) -> Mapping[str, Any]:
    if type(found) is not dict:
        raise ChainError("a node's answer is no object")
    return found
