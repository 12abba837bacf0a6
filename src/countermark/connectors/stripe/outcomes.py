"""From Stripe's answer to an ``Outcome``. Only an answer in Stripe's own shape settles anything; the rest is unknown.

Source: Stripe's API reference, "Errors" and "Idempotent requests".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.connectors.http_send import Answer
from countermark.connectors.json_answer import plain
from countermark.connectors.stripe.drafts import EFFECTS
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.clock import US
from countermark.model.digest import RESPONSE, digest
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import Outcome

DEPTH_MAX = 32
REFUSED = frozenset((400, 401, 402, 403, 404))
_BEFORE_THE_KEY = frozenset((401, 403, 429))  # answered before Stripe looks at the idempotency key
_REF = re.compile(r"[A-Za-z0-9_]{1,128}")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TYPES = {"string": str, "integer": int, "boolean": bool}


@dataclass(frozen=True, slots=True)
class Facts:
    """What every outcome of an answer has in common."""

    http_status: int
    request_id: str
    response: str

    def outcome(self, status: Any, code: str, **more: Any) -> Outcome:
        return Outcome(
            status, code, http_status=self.http_status, request_id=self.request_id, response=self.response, **more
        )


def facts_of(answer: Answer) -> Facts:
    given = answer.headers.get("request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else ""
    return Facts(answer.status, request_id, digest(RESPONSE, answer.body))


def document_of(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer, numbers with a fraction as text; ``None`` when it is not one.

    Nothing in it is deeper, larger or stranger than what can be passed on: depth, integers and Unicode are checked.
    """
    try:
        value = json.loads(answer.body.decode("utf-8"), parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict and plain(value, DEPTH_MAX) else None


def judge(tool: ToolSpec, answer: Answer, *, doubtful: bool) -> Outcome:
    """The outcome of one try.

    ``doubtful``: an earlier try with the same key may have arrived. Then an answer that Stripe gives before looking at
    the key (401, 403, 429) says nothing about that earlier try, and the outcome stays unknown.
    """
    facts, doc = facts_of(answer), document_of(answer)
    if tool.class_ == "read":
        return _read(tool, facts, doc)
    if 200 <= answer.status < 300:
        return changed(tool, facts, doc) if tool.class_ == "change" else _moved(tool, facts, doc)
    error = doc.get("error") if doc is not None else None
    if type(error) is dict and tool.class_ == "money" and (made := _declined(tool, facts, error, doc)) is not None:
        return made
    if type(error) is not dict:
        return facts.outcome("unknown", "provider_error")
    if doubtful and answer.status in _BEFORE_THE_KEY:
        return facts.outcome("unknown", "provider_error", result=doc)
    if error.get("type") == "idempotency_error":  # the key was used before, for something else: look, do not guess
        return facts.outcome("unknown", "provider_error", result=doc)
    if answer.status in REFUSED:
        return facts.outcome("failed", "provider_refused", result=doc)
    if answer.status == 429:
        return facts.outcome("failed", "provider_rate_limited", result=doc)
    return facts.outcome("unknown", "provider_error", result=doc)


def _read(tool: ToolSpec, facts: Facts, doc: dict[str, Any] | None) -> Outcome:
    """A read has no effect that could be in doubt: it worked, or it failed."""
    if doc is not None and 200 <= facts.http_status < 300:
        return facts.outcome("confirmed", "ok", output=outputs(tool, doc), result=doc)
    if facts.http_status == 429:
        return facts.outcome("failed", "provider_rate_limited", result=doc)
    code = "provider_refused" if facts.http_status in REFUSED else "provider_error"
    return facts.outcome("failed", code, result=doc)


def _declined(tool: ToolSpec, facts: Facts, error: Mapping[str, Any], doc: Any) -> Outcome | None:
    """A payment intent that was made although its first charge was declined.

    It can still be confirmed, so its amount counts: calling this failed would free a budget that can yet be spent.
    """
    made = error.get("payment_intent")
    moved = movement(tool, made) if facts.http_status == 402 and type(made) is dict else None
    if moved is None or made is None:
        return None
    return facts.outcome("confirmed", "ok", **moved, output=outputs(tool, made), result=doc)


def changed(tool: ToolSpec, facts: Facts, doc: Mapping[str, Any] | None) -> Outcome:
    """The answer to a change of a payment intent. Its amount counted when it was made: none is stated here."""
    ref = None if doc is None else doc.get("id")
    if doc is None or doc.get("object") != "payment_intent" or type(ref) is not str or not _REF.fullmatch(ref):
        return facts.outcome("unknown", "provider_error", result=doc)
    return facts.outcome("confirmed", "ok", ref=ref, output=outputs(tool, doc), result=doc)


def _moved(tool: ToolSpec, facts: Facts, doc: dict[str, Any] | None) -> Outcome:
    moved = None if doc is None else movement(tool, doc)
    if doc is None or moved is None:
        return facts.outcome("unknown", "provider_error", result=doc)
    if doc.get("status") in ("failed", "canceled"):
        return facts.outcome("failed", "provider_refused", ref=moved["ref"], result=doc)
    return facts.outcome("confirmed", "ok", **moved, output=outputs(tool, doc), result=doc)


def movement(tool: ToolSpec, doc: Mapping[str, Any]) -> dict[str, Any] | None:
    """``ref``, ``amount`` and ``currency`` of what a money tool made; ``None`` when the object is something else."""
    path = tool.endpoint.partition(" ")[2]
    kind = next((made for end, (made, _) in EFFECTS.items() if path.endswith(end)), None)
    ref, amount, currency = doc.get("id"), doc.get("amount"), doc.get("currency")
    fits = (
        doc.get("object") == kind and type(ref) is str and _REF.fullmatch(ref) is not None
        and type(amount) is int and 0 <= amount <= INTEGER_ABS_MAX
        and type(currency) is str and re.fullmatch(r"[a-z]{3}", currency) is not None
    )  # fmt: skip
    return {"ref": ref, "amount": amount, "currency": currency} if fits else None


def shown(tool: ToolSpec, doc: Mapping[str, Any]) -> dict[str, Any] | None:
    """An object of a list as an effect of a tool: what moved, when (microseconds), and the arguments that made it.

    None when it is something else.
    """
    moved, metadata, created = movement(tool, doc), doc.get("metadata"), doc.get("created")
    if moved is None or type(created) is not int:
        return None
    notes = metadata if type(metadata) is dict else {}
    values = {**{f"metadata[{name}]": value for name, value in notes.items()}, **doc}
    args = {arg.name: values[arg.name] for arg in tool.args if type(values.get(arg.name)) in (str, int, bool)}
    return {**moved, "key": str(notes.get("countermark_key", "")), "at": created * US, "args": args}


def outputs(tool: ToolSpec, doc: Mapping[str, Any]) -> dict[str, Value]:
    """The declared outputs: members of the answer, by name, that have the declared type."""
    return {name: doc[name] for name, kind in tool.outputs if name in doc and type(doc[name]) is _TYPES.get(kind)}
