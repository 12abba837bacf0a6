"""Requests that agents signed themselves: each signature again, and the signed words against the decision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from countermark.audit.follow import Differs
from countermark.authority import recheck
from countermark.model.canon import read_json
from countermark.model.errors import CountermarkError, SignatureError
from countermark.model.records import Record
from countermark.policy import State

WHERE = ("POST", "/v1/actions")  # what a body means that was sent there
BODY_BYTES_MAX = 24_000  # docs/spec/record.md
_VALUE = re.compile(r"[\x20-\x7e]*")
_LENGTH = re.compile(r"[0-9]{1,9}")
_CLAIMS: Mapping[str, Any] = {"because": [], "model": "", "trace": ""}
_MEMBERS = frozenset(("run", "call_id", "tool", "args", "reason", *_CLAIMS))


class Asked:
    """Follows ``request.signed`` and the decision directly after each, against the state before it."""

    def __init__(self, state: State, differs: Differs) -> None:
        self._state = state
        self._differs = differs
        self._nonces: set[tuple[str, str]] = set()
        self._before: Record | None = None

    def check(self, record: Record) -> None:
        """Compare one record of any kind; that a decision follows at once is ``Follow``'s to say."""
        before, self._before = self._before, None
        if record.kind == "request.signed":
            self._signature(record)
            self._before = record
        elif record.kind == "action.decided" and before is not None:
            self._words(before, record.body)

    def _signature(self, record: Record) -> None:
        bundle, body = self._state.bundle, record.body
        agent = None if bundle is None else bundle.compiled.agents.get(body["agent"])
        keys = () if agent is None else agent.keys
        for name, value in body["covered"]:
            if _VALUE.fullmatch(value) is None:
                self._differs(f"covered.{name}", "printable ASCII", value)
        try:
            used = recheck(body, deployment=self._state.deployment, keys=keys, at_us=record.at)
            if used in self._nonces:
                raise SignatureError("the nonce was used before")
            self._nonces.add(used)
        except CountermarkError as error:
            self._differs("request", "a signature that verifies", str(error)[:300])

    def _words(self, signed: Record, decided: Mapping[str, Any]) -> None:
        """The bytes that were signed ask for exactly the action that was decided."""
        body = signed.body
        for name in ("id", "agent", "run", "call_id"):
            self._differs(name, decided[name], body[name], signed.seq)
        covered = dict(body["covered"])
        if body["body"] is None:
            self._left_out(signed.seq, covered, decided)
            return
        self._differs("covered", WHERE, (covered.get("@method"), covered.get("@path")), signed.seq)
        try:
            asked = read_json(body["body"].encode("utf-8"))
        except (CountermarkError, UnicodeEncodeError) as error:
            self._differs("body", "the request of an action", str(error)[:300], signed.seq)
            return
        if type(asked) is not dict or not asked.keys() <= _MEMBERS:
            self._differs("body", "the request of an action", str(asked)[:300], signed.seq)
            return
        said = self._said(decided, asked)
        for name in sorted(said.keys() | asked.keys()):
            if not _same(said.get(name), asked.get(name)):
                self._differs(f"body.{name}", said.get(name), asked.get(name), signed.seq)

    def _left_out(self, seq: int, covered: Mapping[str, str], decided: Mapping[str, Any]) -> None:
        """Only a body that is long, of a request with sealed values, or sent elsewhere stands as a digest."""
        sealed = decided["claimed"]["reason"] is not None or any(type(one) is dict for one in decided["args"].values())
        length = covered.get("content-length", "")
        short = _LENGTH.fullmatch(length) is not None and int(length) <= BODY_BYTES_MAX
        if short and not sealed and covered.get("@path") == WHERE[1]:
            self._differs("body", "the body that was signed", None, seq)

    def _said(self, decided: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a request for this decision says. A claim that the agent left out is recorded as none."""
        bundle = self._state.bundle
        tool = None if bundle is None else bundle.compiled.tools.get(decided["tool"])
        specs = {} if tool is None else tool.by_alias
        args = {specs[alias].name if alias in specs else alias: value for alias, value in decided["args"].items()}
        said = {"run": decided["run"], "call_id": decided["call_id"], "tool": decided["tool"], "args": args}
        for name, nothing in _CLAIMS.items():
            claimed = decided["claimed"][name]
            said[name] = asked.get(name) if claimed == nothing and asked.get(name) is None else claimed
        # A reason is sealed, and a request with one stands as a digest; an empty one is as good as none.
        return said | {"reason": asked["reason"] if asked.get("reason") == "" else None}


def _same(one: object, other: object) -> bool:
    """Equal as JSON, where ``true`` is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
