"""What the body of an operation may be, and who is heard first: judged before the lane sees anything of it.

Whatever a caller sends, a mistake in it is answered to that caller. Signed documents are only bounded here; the room
that verifies them reads them strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from countermark.gate.lane import Rank
from countermark.model.canon import check
from countermark.model.errors import ArgumentError, ConfigError, no_member

SCOPES = ("deployment", "agent", "tool", "mandate", "payee")
TEXT_CHARS_MAX = 500
PAGE_MAX = 100
SHARE_MAX = 10_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCALATION = re.compile(r"esc_[0-9a-f]{32}")
_SIGNED = ("key", "sig")
_MEMBERS: Mapping[str, frozenset[str]] = {
    op: frozenset(names)
    for op, names in {
        "run.start": ("mandate", "purpose"),
        "run.end": ("run", "reason", "outputs"),
        "run.show": ("run",),
        "result": ("id",),
        "tools": (),
        "tool.shape": ("tool",),
        "content": ("id",),
        "settle": ("id", "outcome", "ref", "output"),
        "answer": ("approval", *_SIGNED),
        "activate": ("document", "activation", "second", *_SIGNED),
        "mandate.grant": ("mandate", "digest", *_SIGNED),
        "mandate.accept": ("ap2", "source"),
        "mandate.revoke": ("revocation", *_SIGNED),
        "kill.set": ("kind", "value", "reason"),
        "kill.clear": ("clearance", *_SIGNED),
        "lane.accept": ("acceptance", *_SIGNED),
        "key.enrol": ("enrolment", "signed", "proof"),
        "key.remove": ("removal", *_SIGNED),
        "absence.set": ("absence", "signed"),
        "key.rotate": ("rotation", "proofs", "signed"),
        "resolve": ("resolution", "signed"),
        "reopen": ("reopening", "signed"),
        "review.clear": ("review", *_SIGNED),
        "import": ("paid",),
        "payee.set": ("details", *_SIGNED),
        "payee.history": ("payee",),
        "payees": ("limit", "after"),
        "payee.names": (),
        "data.disclose": ("reader", "to", "reason", "fields", "size", "count"),
        "hold.set": ("order", *_SIGNED),
        "hold.clear": ("release", "signed"),
        "erase": ("erasure", "signed"),
        "log.read": ("reader", "what", "from", "to"),
        "escalations": ("limit", "after", "share", "alike"),
        "people": (),
        "escalation.preview": ("escalation",),
        "escalation.unreachable": ("escalation", "ladder", "rung"),
        "status": (),
        "epoch.close": (),
        "mandates": (),
        "limits": (),
        "recover": (),
        "ping": (),
    }.items()
}
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "run.start": ("purpose",), "run.end": ("run", "reason"), "run.show": ("run",), "result": ("id",),
    "kill.set": ("kind", "value", "reason"),
    "settle": ("id", "outcome", "ref"), "log.read": ("reader", "what"),
    "data.disclose": ("reader", "to", "reason"),
    "tool.shape": ("tool",), "content": ("id",),
    "escalation.preview": ("escalation",), "escalation.unreachable": ("escalation", "ladder"),
    "payee.history": ("payee",), "payees": ("after",),
}  # fmt: skip
_RANKS = {
    "kill.set": Rank.STOP, "kill.clear": Rank.ORDER, "mandate.revoke": Rank.ORDER, "mandate.grant": Rank.ORDER,
    "answer": Rank.ORDER, "activate": Rank.ORDER, "ping": Rank.ORDER, "lane.accept": Rank.ORDER,
    "mandate.accept": Rank.ORDER, "resolve": Rank.ORDER, "review.clear": Rank.ORDER, "import": Rank.ORDER,
    "key.enrol": Rank.ORDER, "key.remove": Rank.ORDER, "absence.set": Rank.ORDER, "payee.set": Rank.ORDER,
    "key.rotate": Rank.ORDER, "reopen": Rank.ORDER,
    "hold.set": Rank.ORDER, "hold.clear": Rank.ORDER, "erase": Rank.ORDER,
}  # fmt: skip


def rank_of(op: str) -> Rank:
    """Who is heard first."""
    return _RANKS.get(op, Rank.REST)


def check_body(op: str, body: Mapping[str, Any]) -> None:
    """Refuse a body that is not its operation's. An action's body is not judged here: its refusal is recorded.

    Raises:
        ConfigError: there is no such operation.
        ArgumentError: an unknown member; a text that is too long or holds control characters.
        EncodingError: a value outside the record profile, such as deep nesting or a float.
    """
    members = _MEMBERS.get(op)
    if members is None:
        raise ConfigError(f"unknown operation {op[:40]!r}")
    if not body.keys() <= members:
        raise no_member(op, body, members)
    for name in _TEXTS.get(op, ()):
        _check_text(name, body.get(name, ""))
    if op == "kill.set" and body.get("kind") not in SCOPES:
        raise ArgumentError(f"a kill's scope is one of {', '.join(SCOPES)}", field="kind")
    if op == "run.start" and body.get("mandate") is not None:
        _check_text("mandate", body["mandate"])
    if op == "run.end" and type(body.get("outputs", {})) is not dict:
        raise ArgumentError("outputs must be an object", field="outputs")
    if op == "payees":
        _check_page({name: value for name, value in body.items() if name != "after"})
    if op == "escalations":
        _check_list(body)
    if op.startswith("escalation."):
        _check_escalation(body, members)
    # A policy's document is large: it is checked beside the loop, after the signature over its digest.
    check({name: value for name, value in body.items() if name != "document"})


def _check_escalation(body: Mapping[str, Any], members: frozenset[str]) -> None:
    if body.keys() != members or _ESCALATION.fullmatch(body["escalation"]) is None:
        raise ArgumentError("escalation must be the id of one", field="escalation")
    if "rung" in members and type(body["rung"]) is not int:
        raise ArgumentError("rung must be an integer", field="rung")


def _check_text(name: str, value: object) -> None:
    if type(value) is not str or len(value) > TEXT_CHARS_MAX or _CONTROL.search(value) is not None:
        raise ArgumentError(
            f"{name} must be a string of at most {TEXT_CHARS_MAX} characters without control characters", field=name
        )


def _check_list(body: Mapping[str, Any]) -> None:
    _check_page(body)
    share = body.get("share", 1)
    if type(share) is not int or not 1 <= share <= SHARE_MAX:
        raise ArgumentError(f"share must be an integer from 1 to {SHARE_MAX}", field="share")
    if type(body.get("alike", True)) is not bool:
        raise ArgumentError("alike must be true or false", field="alike")


def _check_page(body: Mapping[str, Any]) -> None:
    limit, after = body.get("limit", PAGE_MAX), body.get("after")
    if type(limit) is not int or not 1 <= limit <= PAGE_MAX:
        raise ArgumentError(f"limit must be an integer from 1 to {PAGE_MAX}", field="limit")
    if after is not None and type(after) is not int:
        raise ArgumentError("after must be the seq of an escalation", field="after")
