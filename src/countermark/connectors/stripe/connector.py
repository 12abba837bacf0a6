"""The Stripe connector: prepared bytes out, an ``Outcome`` back. It retries nothing and guesses nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from countermark.connectors.http_send import Answer, LostError, NotSentError, Sender, no_credential
from countermark.connectors.stripe.changes import check_own, object_url, took_place
from countermark.connectors.stripe.drafts import DRAFTS, EFFECTS, HEADERS, OBJECTS
from countermark.connectors.stripe.memory import Answers, for_agents
from countermark.connectors.stripe.outcomes import changed, document_of, facts_of, judge, movement, outputs, shown
from countermark.model.clock import US
from countermark.model.errors import CountermarkError
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request

ORIGIN = "https://api.stripe.com"
PAGES_MAX = 50
PAGE_SIZE = 100
SKEW_S_MAX = 300  # how far Stripe's clock may be behind ours before a lookup would miss an effect
DOUBTS_MAX = 10_000
LOOK_MS_MAX = 5_000  # for reading an object before it is changed, or for an SDK that asks again
BOOK_TIMEOUT_MS = 30_000
BOOK = "stripe.balance_transactions.list"  # the name under which the book asks for its credential


class ProviderError(CountermarkError):
    """Stripe's books cannot be read now."""

    code = "provider_error"
    retryable = True


class StripeConnector:
    """A ``Connector`` and a ``Book``.

    ``secret`` is asked for the credential of a tool, by the tool's name, each time; the value is put on the wire and
    kept nowhere. ``origin`` is the only one that is ever contacted.
    """

    name = "stripe"
    blocking = True

    def __init__(self, secret: Callable[[str], str], origin: str = ORIGIN) -> None:
        """Raises ``ConfigError`` when ``origin`` is not https (or http on loopback)."""
        self._secret = secret
        self._sender = Sender(origin)
        self._answers = Answers()
        self._doubts: OrderedDict[str, None] = OrderedDict()
        self._forgot = False  # some doubt was dropped for want of room: from then on every key is doubtful
        self._lock = threading.Lock()

    def tools(self) -> Sequence[ToolSpec]:
        return DRAFTS

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        key = dict(request.headers).get("Idempotency-Key", "")
        with self._lock:
            doubtful = key in self._doubts or self._forgot
        try:
            if tool.class_ == "change":
                self._check_own(tool, request)
            answer = self._send(tool.name, request, tool.timeout_ms)
            outcome = judge(tool, answer, doubtful=doubtful)
            self._answers.keep(outcome.response, answer)
        except NotSentError as error:
            outcome = Outcome("unknown" if doubtful else "failed", "not_sent", request_id=error.reason)
        except LostError as error:
            outcome = Outcome("failed" if tool.class_ == "read" else "unknown", error.code)
        self._remember(key, outcome)
        return outcome

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        if tool.class_ == "read":
            return Outcome("failed", "not_found")
        if tool.class_ == "change":
            return self._look_at_change(tool, request)
        made = EFFECTS.get(urlsplit(request.url).path)
        if made is None:
            return Outcome("unknown", "provider_error")
        asked = dict(parse_qsl(request.body.decode("ascii", "replace")))
        query = {name: asked[name] for name in made[1] if name in asked}
        query["created[gte]"] = str(max(0, since_us // US - SKEW_S_MAX))
        url = request.url.partition("?")[0]
        try:
            for answer, items in self._pages(tool.name, url, query, tool.headers, tool.timeout_ms):
                for item in items:
                    metadata = item.get("metadata")
                    if type(metadata) is dict and metadata.get("countermark_key") == key:
                        return _found(tool, answer, item)
        except NotSentError:
            return Outcome("unknown", "not_sent")
        except (LostError, ProviderError) as error:
            return Outcome("unknown", error.code)
        return Outcome("failed", "not_found")

    def answer_of(self, response: str) -> bytes | None:
        """Stripe's answer with this digest, while it is kept, as agents may see it."""
        return self._answers.body(response)

    def fetch(self, tool: ToolSpec, ref: str) -> bytes | None:
        """An object as it is now, by its id, read with the tool's credential; ``None`` when it cannot be read."""
        path = OBJECTS.get(ref.partition("_")[0])
        if path is None or not ref.replace("_", "").isalnum():
            return None
        look = Request("GET", f"{self._sender.origin}{path}/{ref}", HEADERS, b"")
        try:
            answer = self._send(tool.name, look, LOOK_MS_MAX)
        except (NotSentError, LostError):
            return None
        return for_agents(answer.body) if answer.status == 200 and document_of(answer) is not None else None

    def _check_own(self, tool: ToolSpec, request: Request) -> None:
        """Raises ``NotSentError`` unless the gate made what is to be changed."""
        look = Request("GET", object_url(request), tool.headers, b"")
        try:
            answer = self._send(tool.name, look, min(tool.timeout_ms, LOOK_MS_MAX))
        except LostError:
            raise NotSentError("what is to be changed cannot be read now", "no_connection") from None
        check_own(request, document_of(answer) if answer.status == 200 else None)

    def _look_at_change(self, tool: ToolSpec, request: Request) -> Outcome:
        """Ask the object itself whether a change took place."""
        look = Request("GET", object_url(request), tool.headers, b"")
        try:
            answer = self._send(tool.name, look, tool.timeout_ms)
        except NotSentError:
            return Outcome("unknown", "not_sent")
        except LostError as error:
            return Outcome("unknown", error.code)
        doc = document_of(answer) if answer.status == 200 else None
        done = None if doc is None else took_place(request, doc)
        if done is None or doc is None:
            return Outcome("unknown", "provider_error")
        found = changed(tool, facts_of(answer), doc)
        return replace(found, code="found") if done else Outcome("failed", "not_found")

    def movements(self, since_us: int, until_us: int) -> Iterator[Mapping[str, Any]]:
        """Balance transactions created in ``[since_us, until_us)``, newest first.

        Each is ``{"id", "ref", "kind", "amount", "fee", "net", "currency", "at"}``: minor units, signed as they change
        the balance; ``ref`` is the transfer, refund or payout; ``at`` is microseconds.

        Raises:
            CountermarkError: the book cannot be read to its end (``provider_error``, ``timeout`` or ``not_sent``).
        """
        query = {"created[gte]": str(since_us // US), "created[lt]": str(-(-until_us // US))}
        url = self._sender.origin + "/v1/balance_transactions"
        for _, items in self._pages(BOOK, url, query, HEADERS, BOOK_TIMEOUT_MS):
            for item in items:
                move = _entry(item)
                if since_us <= move["at"] < until_us:
                    yield move

    def effects(self, tool: ToolSpec, since_us: int, until_us: int) -> Iterator[Mapping[str, Any]]:
        """What exists at Stripe of the kind that ``tool`` makes, created in ``[since_us, until_us)``, whoever made it.

        Each is ``{"ref", "key", "amount", "currency", "at", "args"}``: ``key`` is our provider key or ``""``, ``args``
        are the tool's arguments by Stripe's names as far as the object shows them.

        Raises:
            CountermarkError: the list cannot be read to its end (``provider_error``, ``timeout`` or ``not_sent``).
        """
        url = tool.endpoint.partition(" ")[2]
        if EFFECTS.get(urlsplit(url).path) is None:
            return
        query = {"created[gte]": str(max(0, since_us // US)), "created[lt]": str(-(-until_us // US))}
        for _, items in self._pages(tool.name, url, query, tool.headers, tool.timeout_ms):
            for item in items:
                found = shown(tool, item)
                if found is None:
                    raise ProviderError("a list from Stripe holds an object that is not of its kind")
                yield found

    def close(self) -> None:
        """Close idle connections."""
        self._sender.close()

    def _send(self, tool: str, request: Request, timeout_ms: int) -> Answer:
        try:
            secret = self._secret(tool)
        except (CountermarkError, OSError, LookupError, ValueError) as error:
            raise no_credential(error, "this tool") from None
        return self._sender.send(request, secret, timeout_ms)

    def _remember(self, key: str, outcome: Outcome) -> None:
        """Keep in mind which keys may have arrived without an answer, so that a later 429 does not free them."""
        if not key:
            return
        with self._lock:
            if outcome.status != "unknown":
                self._doubts.pop(key, None)
                return
            self._doubts[key] = None
            if len(self._doubts) > DOUBTS_MAX:
                self._doubts.popitem(last=False)
                self._forgot = True

    def _pages(
        self, tool: str, url: str, query: Mapping[str, str], headers: tuple[tuple[str, str], ...], timeout_ms: int
    ) -> Iterator[tuple[Answer, list[dict[str, Any]]]]:
        """Pages of a list until its end. Raises ``ProviderError`` when a page is not one, or there are too many."""
        cursor: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            text = urlencode({**query, "limit": str(PAGE_SIZE), **cursor})
            answer = self._send(tool, Request("GET", f"{url}?{text}", headers, b""), timeout_ms)
            doc = document_of(answer) if answer.status == 200 else None
            items = doc.get("data") if doc is not None and doc.get("object") == "list" else None
            if type(items) is not list or any(type(item) is not dict for item in items):
                raise ProviderError(f"Stripe answered {answer.status} to a list request")
            yield answer, items
            more = doc.get("has_more") if doc is not None else None
            if more is False:
                return
            last = items[-1].get("id") if items else None
            if more is not True or type(last) is not str:
                raise ProviderError("a list from Stripe does not say how it goes on")
            cursor = {"starting_after": last}
        raise ProviderError(f"a list from Stripe has more than {PAGES_MAX} pages")


def _found(tool: ToolSpec, answer: Answer, item: Mapping[str, Any]) -> Outcome:
    facts, moved = facts_of(answer), movement(tool, item)
    if moved is None:
        return facts.outcome("unknown", "provider_error")
    return facts.outcome("confirmed", "found", **moved, output=outputs(tool, item), result=dict(item))


def _entry(item: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: item.get(name) for name in ("amount", "fee", "net", "created")}
    if any(type(value) is not int for value in numbers.values()):
        raise ProviderError("a balance transaction from Stripe has no integer amounts")
    return {
        "id": str(item.get("id")), "ref": str(item.get("source") or ""), "kind": str(item.get("type")),
        "amount": item["amount"], "fee": item["fee"], "net": item["net"], "currency": str(item.get("currency")),
        "at": item["created"] * US,
    }  # fmt: skip
