"""What a server said, as a value of ours or as an error: takes bytes, reads no clock and no net.

Whatever is not exactly an answer of a gate to the question that was asked is ``bad_answer``, never an allow. Members
that this version does not know are passed over, so that a newer gate can say more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

import orjson

from countermark.model.canon import INTEGER_ABS_MAX, read_json
from countermark.model.errors import (
    ArgumentError,
    AuthorityError,
    CountermarkError,
    EncodingError,
    GateBusyError,
    GateHaltedError,
    SignatureError,
    StoreError,
)
from countermark.model.values import ACT_ID, RUN, Disposition, Receipt, Result, Tier

ANSWER_BYTES_MAX = 1 << 20
ANSWER_DEPTH_MAX = 32
TEXT_CHARS_MAX = 2_000
WAIT_DIGITS_MAX = 4

JSON, PROBLEM = "application/json", "application/problem+json"
_TYPE = "urn:countermark:problem:"
_CODE = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")

# The HTTP status of an action's answer says the same as the answer does; a proxy's 200 around something else does not.
_STATUSES: Mapping[int, tuple[str, ...]] = {
    200: ("confirmed", "failed"), 202: ("escalated", "unknown", "pending"), 403: ("denied",),
}  # fmt: skip
_SETTLED = ("confirmed", "failed", "unknown")
_DISPOSITIONS: Mapping[str, tuple[str, ...]] = {
    "confirmed": ("allow", "flag"), "failed": ("allow", "flag"), "unknown": ("allow", "flag"),
    "pending": ("allow", "flag"), "escalated": ("escalate",), "denied": ("deny", "escalate"),
}  # fmt: skip
_TIERS = ("enforcing", "embedded", "observing")

_BY_CODE: Mapping[str, type[CountermarkError]] = {
    "gate_busy": GateBusyError, "store_failed": StoreError, "behind_high_water": StoreError,
    "bad_encoding": EncodingError, "bad_signature": SignatureError, "stale_signature": SignatureError,
}  # fmt: skip
_BY_STATUS: Mapping[int, type[CountermarkError]] = {
    401: AuthorityError, 403: AuthorityError, 429: AuthorityError, 500: CountermarkError, 503: GateHaltedError,
}  # fmt: skip


class Said(NamedTuple):
    """An HTTP answer: its status, media type, ``Retry-After`` and body."""

    status: int
    kind: str
    retry_after: str
    body: bytes


def said(status: int, headers: Mapping[str, str], body: bytes) -> Said:
    """An answer from its status, its headers (names in lower case) and its body."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return Said(status, kind, headers.get("retry-after", ""), body)


def bad_answer(why: str) -> EncodingError:
    """The error for whatever is no answer of a gate."""
    hint = "Check the address. Of an action, nothing is known: ask again with the same run and call_id."
    return EncodingError(f"what came back is not the answer of a gate: {why}", code="bad_answer", hint=hint)


def document_of(answer: Said, token: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises ``EncodingError`` (``bad_answer``).

    An answer that holds the caller's own token is refused: its texts end in errors, in logs and before a model.
    """
    if answer.kind not in (JSON, PROBLEM):
        raise bad_answer(f"status {answer.status} without JSON")
    try:
        found = read_json(answer.body, bytes_max=ANSWER_BYTES_MAX, depth_max=ANSWER_DEPTH_MAX)
    except EncodingError as wrong:
        raise bad_answer(wrong.message) from None
    if type(found) is not dict:
        raise bad_answer("no JSON object")
    if token.encode("ascii") in orjson.dumps(found):
        raise bad_answer("it repeats the credential")
    return found


def answered(answer: Said, token: str, status: int) -> dict[str, Any]:
    """The document of an answer with this status. Raises the error that the gate told, or ``EncodingError``."""
    document = document_of(answer, token)
    if answer.kind == PROBLEM and answer.status >= 400:
        raise problem_of(answer.status, document)
    if answer.kind != JSON or answer.status != status:
        raise bad_answer(f"status {answer.status}")
    return document


def acted(answer: Said, token: str, action: str, run: str) -> Result:
    """The answer to ``act`` or ``admit``, which is about this action of this run. A denial is an answer, not an error.

    Raises ``CountermarkError``: the error that the gate told, or ``EncodingError`` (``bad_answer``).
    """
    document = document_of(answer, token)
    if answer.kind == PROBLEM and answer.status >= 400:
        error = problem_of(answer.status, document)
        if answer.status != 403 or "result" not in document:
            raise error
        document = document["result"]
    elif answer.kind != JSON or answer.status not in (200, 202):
        raise bad_answer(f"status {answer.status}")
    result = result_of(document, action)
    if result.run != run:
        raise bad_answer("it is about another run")
    if result.status not in _STATUSES[answer.status]:
        raise bad_answer(f"status {answer.status} of an action that is {result.status}")
    return result


def problem_of(status: int, document: Mapping[str, Any]) -> CountermarkError:
    """A problem document (RFC 9457) as an error of ours, with its code, hint and whether to retry."""
    texts = [document.get(name) for name in ("detail", "hint", "code")]
    if any(type(text) is not str for text in texts) or type(document.get("retryable")) is not bool:
        raise bad_answer(f"status {status} without a problem in its form")
    detail, hint, code = map(str, texts)
    if _CODE.fullmatch(code) is None or document.get("type") != _TYPE + code or document.get("status") != status:
        raise bad_answer(f"status {status} without a problem in its form")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, ArgumentError)
    error = kind(_plain(detail), code=code, hint=_plain(hint))
    error.retryable = document["retryable"]
    return error


def wait_s_of(answer: Said, token: str, *, again: bool) -> int | None:
    """How many seconds to wait before the same is asked once more; ``None`` when this answer is final.

    ``again``: the question may be asked twice whatever became of the first. Any other is asked again only when the
    gate itself says that nothing was recorded.
    """
    after = answer.retry_after
    known = after.isascii() and after.isdecimal() and len(after) <= WAIT_DIGITS_MAX
    if answer.status != 429 and (answer.status != 503 or not known):
        return None
    try:
        problem = problem_of(answer.status, document_of(answer, token))
    except EncodingError:  # somebody in front of the gate, such as a proxy
        sure = again
    else:
        sure = problem.retryable and (again or answer.status == 429 or problem.code == "gate_busy")
    return None if not sure else int(after) if known else 1


def result_of(document: object, action: str) -> Result:
    """A ``Result`` about this action, each member checked, and against the others. Raises ``EncodingError``."""
    if type(document) is not dict:
        raise bad_answer("no result")
    if _text(document, "action", ACT_ID) != action:
        raise bad_answer("it is about another action")
    status, disposition = _one_of(document, "status", _DISPOSITIONS), document.get("disposition")
    if type(disposition) is not str or disposition not in _DISPOSITIONS[status]:
        raise bad_answer("status and disposition do not go together")
    receipt = receipt_of(document.get("receipt"))
    if (receipt.settled is not None) != (status in _SETTLED):
        raise bad_answer("status and receipt do not go together")
    escalation = document.get("escalation")
    output = document.get("output")
    if type(output) is not dict or any(type(value) not in (str, int, bool) for value in output.values()):
        raise bad_answer("output is not in its form")
    return Result(
        action=action, run=_text(document, "run", RUN), disposition=cast(Disposition, disposition), status=status,
        code=_text(document, "code", _CODE), retryable=_truth(document, "retryable"),
        next_step=_plain(_text(document, "next_step")),
        escalation=None if escalation is None else _text(document, "escalation", _ESCALATION),
        ref=_text(document, "ref"), output=output, receipt=receipt,
    )  # fmt: skip


def receipt_of(document: object) -> Receipt:
    """A ``Receipt`` from its JSON form. Raises ``EncodingError``."""
    if type(document) is not dict:
        raise bad_answer("no receipt")
    settled = document.get("settled_seq") is not None
    if settled != (document.get("settled") is not None):
        raise bad_answer("half a receipt")
    decided_seq, size = _whole(document, "decided_seq"), _whole(document, "log_size")
    settled_seq = _whole(document, "settled_seq") if settled else None
    if not decided_seq < (size if settled_seq is None else settled_seq) <= size or settled_seq == size:
        raise bad_answer("a receipt whose records are not in its log")
    return Receipt(
        decided_seq, _text(document, "decided", _DIGEST), settled_seq,
        _text(document, "settled", _DIGEST) if settled else None, size,
        cast(Tier, _one_of(document, "tier", _TIERS)),
    )  # fmt: skip


def proof_of(document: dict[str, Any], action: str) -> dict[str, Any]:
    """Check the form of a receipt with its signed head and its proofs. Verifying them is ``countermark-verify``'s."""
    if _text(document, "action", ACT_ID) != action:
        raise bad_answer("it is about another action")
    receipt_of(document.get("receipt"))
    _one_of(document, "status", _DISPOSITIONS)
    _text(document, "checkpoint")
    proofs = document.get("proofs")
    if type(proofs) is not list or not all(type(proof) is dict and _is_path(proof.get("path")) for proof in proofs):
        raise bad_answer("proofs are not in their form")
    for proof in proofs:
        _whole(proof, "seq")
    return document


def _is_path(path: object) -> bool:
    return type(path) is list and all(type(part) is str and _HASH.fullmatch(part) is not None for part in path)


def explained(document: dict[str, Any], action: str) -> dict[str, Any]:
    """Check that an explanation is one, and of this action."""
    if document.get("kind") != "action" or _text(document, "id", ACT_ID) != action:
        raise bad_answer("it is about another action")
    for name in ("status", "code", "next_step"):
        _text(document, name)
    return document


def run_of(document: Mapping[str, Any], run: str = "") -> tuple[str, str]:
    """The run that an answer is about, and its agent. With ``run`` it must be that one."""
    found, agent = _text(document, "run", RUN), _text(document, "agent")
    if not agent or (run and found != run):
        raise bad_answer("it is about another run")
    return found, agent


def _text(document: Mapping[str, Any], name: str, form: re.Pattern[str] | None = None) -> str:
    found = document.get(name)
    if type(found) is not str or (form is not None and form.fullmatch(found) is None):
        raise bad_answer(f"{name} is not in its form")
    return found


def _plain(text: str) -> str:
    """A text for people and models: one line, and not without end."""
    return "".join(char if char.isprintable() else " " for char in text[:TEXT_CHARS_MAX])


def _truth(document: Mapping[str, Any], name: str) -> bool:
    found = document.get(name)
    if type(found) is not bool:
        raise bad_answer(f"{name} is not in its form")
    return found


def _whole(document: Mapping[str, Any], name: str) -> int:
    found = document.get(name)
    if type(found) is not int or not 0 <= found <= INTEGER_ABS_MAX:
        raise bad_answer(f"{name} is not in its form")
    return found


def _one_of(document: Mapping[str, Any], name: str, known: Collection[str]) -> str:
    found = document.get(name)
    if type(found) is not str or found not in known:
        raise bad_answer(f"{name} is not in its form")
    return found
