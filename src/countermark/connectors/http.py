"""JSON APIs without a connector of their own: everything about them is declared in ``tools.toml``.

One origin, no redirects, no proxy, the name resolved once, private addresses refused unless listed. What an answer
means is declared too (``Answers``); whatever the declaration does not cover is unknown, and nothing is retried here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from countermark.connectors.addresses import Network
from countermark.connectors.http_send import Answer, LostError, NotSentError, Sender, no_credential
from countermark.connectors.json_answer import read_object, typed_outputs
from countermark.model.answers import Answers, pointed
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.digest import RESPONSE, digest
from countermark.model.errors import CountermarkError
from countermark.model.request import prepare
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome, Request, Status

REF_CHARS_MAX = 128

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_REF = re.compile(r"[ -~]{1,128}")


class HttpConnector:
    """A ``Connector`` for one origin. ``secret`` gives a tool's credential by the tool's name, each time it is used;
    ``None`` for an API that takes none.
    """

    blocking = True

    def __init__(
        self, name: str, origin: str, secret: Callable[[str], str] | None, *, header: str = "",
        allowed: Sequence[Network] = (),
    ) -> None:  # fmt: skip
        """``header`` carries the secret as it is; without one it is a bearer token. Raises ``ConfigError``."""
        self.name = name
        self._secret = secret
        self._sender = Sender(origin, secret_header=header, allowed=allowed)

    def tools(self) -> Sequence[ToolSpec]:
        return ()

    def prepare(self, tool: ToolSpec, args: Mapping[str, Value], key: str) -> Request:
        return prepare(tool, args, key)

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        try:
            answer = self._send(tool, request)
        except NotSentError as error:
            return Outcome("failed", "not_sent", request_id=error.reason)
        except LostError as error:
            return Outcome("failed" if tool.class_ == "read" else "unknown", error.code)
        return judge(tool, answer, "ok")

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        if tool.class_ == "read":
            return Outcome("failed", "not_found")
        if tool.answers is None or not tool.answers.lookup:
            return Outcome("unknown", "provider_error")
        url = tool.answers.lookup.partition(" ")[2].replace("{key}", key)
        try:
            answer = self._send(tool, Request("GET", url, tool.headers, b""))
        except NotSentError:
            return Outcome("unknown", "not_sent")
        except LostError as error:
            return Outcome("unknown", error.code)
        if answer.status == 404:
            return Outcome("failed", "not_found", http_status=404)
        found = judge(tool, answer, "found") if answer.status == 200 else None
        return found if found is not None and found.status == "confirmed" else Outcome("unknown", "provider_error")

    def close(self) -> None:
        """Close idle connections."""
        self._sender.close()

    def _send(self, tool: ToolSpec, request: Request) -> Answer:
        secret = None
        if self._secret is not None:
            try:
                secret = self._secret(tool.name)
            except (CountermarkError, OSError, LookupError, ValueError) as error:
                raise no_credential(error, "this tool") from None
        return self._sender.send(request, secret, tool.timeout_ms)


def judge(tool: ToolSpec, answer: Answer, code: str) -> Outcome:
    """The outcome of one answer. ``code`` is that of a confirmation."""
    answers = Answers() if tool.answers is None else tool.answers
    said = answers.status_of(answer.status)
    document = read_object(answer.body)
    request_id = answer.headers.get("request-id") or answer.headers.get("x-request-id") or ""
    common: dict[str, Any] = {
        "http_status": answer.status, "response": digest(RESPONSE, answer.body), "result": document,
        "request_id": request_id if _REQUEST_ID.fullmatch(request_id) else "",
    }  # fmt: skip
    # A read has no effect that could be in doubt: it worked, or it failed.
    unclear: Status = "failed" if tool.class_ == "read" else "unknown"
    if said == "confirmed":
        moved = _moved(answers, document)
        if moved is None:  # it confirms, but does not say what it was declared to say: what was done is not known
            return Outcome(unclear, "provider_error", **common)
        output = {} if document is None else typed_outputs(tool, document)
        return Outcome("confirmed", code, **moved, output=output, **common)
    if said == "failed":
        return Outcome("failed", "provider_rate_limited" if answer.status == 429 else "provider_refused", **common)
    return Outcome(unclear, "provider_rate_limited" if answer.status == 429 else "provider_error", **common)


def _moved(answers: Answers, document: dict[str, Any] | None) -> dict[str, Any] | None:
    """``ref``, ``amount`` and ``currency`` as far as they are declared; None when one is declared and not there."""
    moved: dict[str, Any] = {}
    if answers.ref:
        ref = pointed(document, answers.ref)
        ref = str(ref) if type(ref) is int else ref
        if type(ref) is not str or _REF.fullmatch(ref) is None:
            return None
        moved["ref"] = ref
    if answers.amount:
        amount, currency = pointed(document, answers.amount), pointed(document, answers.currency)
        if type(amount) is not int or not 0 <= amount <= INTEGER_ABS_MAX:
            return None
        if type(currency) is not str or not currency.isascii() or not currency.isalnum():
            return None
        moved |= {"amount": amount, "currency": currency}
    return moved
