"""Values that travel through the house: Action, Request, Outcome, Result."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from countermark.model.digest import ACTION_ID, BODY, REQUEST, digest, digest_of
from countermark.model.errors import ArgumentError, EncodingError
from countermark.model.tool import Value

Disposition = Literal["allow", "flag", "escalate", "deny"]
EXECUTING = ("allow", "flag")  # the dispositions under which the effect takes place
Status = Literal["confirmed", "failed", "unknown"]
Tier = Literal["enforcing", "embedded", "observing"]

CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
TOOL = re.compile(r"[a-z0-9][A-Za-z0-9_.-]{0,95}")
RUN = re.compile(r"run_[0-9a-f]{32}")
ACT_ID = re.compile(r"act_[0-9a-f]{32}")
_USER = re.compile(r"uid:(?:0|[1-9][0-9]{0,9})")
REASON_CHARS_MAX = 2_000
BECAUSE_MAX = 32


def is_reader(text: object, people: Container[str]) -> bool:
    """Whether this says who reads records: ``uid:N``, a user of this machine, or ``person:NAME``, one of ``people``."""
    if type(text) is not str:
        return False
    kind, _, name = text.partition(":")
    return _USER.fullmatch(text) is not None or (kind == "person" and name in people)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the agent says about an action: recorded as claimed, outside the action's identity."""

    reason: str = ""
    model: str = ""
    trace: str = ""
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One typed request to do one thing. ``args`` keep the provider's own names."""

    run: str
    call_id: str
    tool: str
    args: Mapping[str, Value]
    claim: Claim = field(default_factory=Claim)

    @staticmethod
    def check_names(run: object, call_id: object, tool: object) -> None:
        """Raise ``ArgumentError`` unless run, call_id and tool have their exact forms."""
        if type(run) is not str or RUN.fullmatch(run) is None:
            raise ArgumentError("run must be a run id minted by the gate", field="run")
        if type(call_id) is not str or CALL_ID.fullmatch(call_id) is None:
            raise ArgumentError("call_id must be 1 to 128 of A-Z a-z 0-9 _ . : -", field="call_id")
        if type(tool) is not str or TOOL.fullmatch(tool) is None:
            raise ArgumentError("tool must be a tool's name", field="tool", code="unknown_tool")


def action_id(agent: str, run: str, call_id: str) -> str:
    """The identity of a call, and the ID that ``explain`` takes: ``act_`` + 32 hex digits."""
    return "act_" + digest_of(ACTION_ID, [agent, run, call_id])[7:39]


@dataclass(frozen=True, slots=True)
class Request:
    """The exact provider request of an action, without secrets.

    ``headers`` are the non-secret ones, in wire order; ``body`` are the bytes that will be sent.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def digest(self, salt: str) -> str:
        """Request digest. ``salt`` (32 hex digits) keeps a guessable body from being recognised by its digest.

        Raises:
            EncodingError: a text of the request cannot be written as UTF-8.
        """
        body = digest(BODY, salt.encode("ascii") + self.body)
        try:  # nothing but texts, under keys in their order: these are the bytes that ``canon`` would make
            raw = orjson.dumps({"body": body, "headers": self.headers, "method": self.method, "url": self.url})
        except orjson.JSONEncodeError:
            raise EncodingError("a request holds something that is no text") from None
        return digest(REQUEST, raw)


@dataclass(frozen=True, slots=True)
class Reference:
    """What stands behind an argument at the provider: a digest of everything that says where the money goes, and the
    last four characters of the account for people (``""`` when there is no one account to name).
    """

    digest: str
    last4: str

    def document(self) -> dict[str, str]:
        return {"digest": self.digest, "last4": self.last4}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened at the provider.

    ``amount`` and ``currency`` are what the provider says was moved (minor units), when it says so; ``output`` are
    the declared outputs that policies may read; ``response`` is the digest of the provider's answer.
    ``code`` is stable: ``ok``, ``provider_refused``, ``provider_error``, ``provider_rate_limited``, ``timeout``,
    ``not_sent``, ``found``, ``not_found``, ``key_expired``, ``reported``.
    """

    status: Status
    code: str
    ref: str = ""
    amount: int | None = None
    currency: str = ""
    http_status: int = 0
    request_id: str = ""
    response: str = ""
    attempts: int = 1
    output: Mapping[str, Value] = field(default_factory=dict)
    result: Any = None  # the provider's answer for the caller; never recorded in clear
    evidence: Mapping[str, Any] | None = None  # what proves it to somebody who trusts nobody here
    reference: Reference | None = None  # what stood behind an argument, when that kept the request from being sent


class Receipt(NamedTuple):
    """How far the evidence reaches: record digests and log position of the decision and of the outcome."""

    decided_seq: int
    decided: str
    settled_seq: int | None
    settled: str | None
    log_size: int
    tier: Tier


class Result(NamedTuple):
    """The answer to an action. Agents get a code, whether to retry and the next step: never a threshold.

    ``status`` is ``confirmed``, ``failed``, ``unknown``, ``denied``, ``escalated`` or ``pending``.
    """

    action: str
    run: str
    disposition: Disposition
    status: str
    code: str
    retryable: bool
    next_step: str
    escalation: str | None = None
    ref: str = ""
    output: Mapping[str, Value] = MappingProxyType({})
    receipt: Receipt | None = None
    result: Any = None

    @property
    def admitted(self) -> bool:
        """Of an answer to ``admit``: whether the caller is to run the tool now."""
        return self.status == "pending" and self.disposition in EXECUTING

    def document(self) -> dict[str, Any]:
        """JSON form, for ``--json`` and the socket."""
        receipt = self.receipt
        return {
            "action": self.action, "run": self.run, "disposition": self.disposition, "status": self.status,
            "code": self.code, "retryable": self.retryable, "next_step": self.next_step,
            "escalation": self.escalation, "ref": self.ref, "output": dict(self.output),
            "receipt": None if receipt is None else {
                "decided_seq": receipt.decided_seq, "decided": receipt.decided, "settled_seq": receipt.settled_seq,
                "settled": receipt.settled, "log_size": receipt.log_size, "tier": receipt.tier,
            },
        }  # fmt: skip
