"""V10: requests that agents signed themselves (`request.signed`, docs/spec/record.md; RFC 9421, RFC 9530)."""

import base64
import hashlib
import json
import re
from typing import Any, NoReturn

from countermark_verify.crypto import signed_text
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.state import SIGNED, State

COVERABLE = (
    "@method",
    "@authority",
    "@path",
    "@query",
    "content-digest",
    "content-type",
    "content-length",
    "date",
    "idempotency-key",
)
REQUIRED = ("@method", "@authority", "@path", "content-digest")
SKEW_US_MAX = 300_000_000
BODY_BYTES_MAX = 24_000
_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_PARAMS = re.compile(
    r'\((?P<items>"[a-z@-]+"(?: "[a-z@-]+")*)\)(?P<rest>(?:;[a-z]+=(?:[0-9]{1,15}|' + _STRING + r"))*)", re.ASCII
)
_PARAM = re.compile(r";([a-z]+)=([0-9]{1,15}|" + _STRING + r")", re.ASCII)
_NONCE = re.compile(r"[A-Za-z0-9+/=_.-]{16,128}", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_NUMBERS = ("created", "expires")
_TEXTS = ("nonce", "alg", "keyid", "tag")
_CLAIMS: dict[str, Any] = {"because": [], "model": "", "trace": ""}
_MEMBERS = frozenset(("run", "call_id", "tool", "args", "reason", *_CLAIMS))


class Signed:
    """Checks every signature that the gate kept, and holds the signed words against the decision that follows."""

    def __init__(self, ledger: Ledger, state: State) -> None:
        self._ledger = ledger
        self._state = state
        self._nonces: set[tuple[str, str]] = set()
        # The signed record directly before, and its place.
        self._before: tuple[int, dict[str, Any]] | None = None
        # First decisions, and those of them whose agent signed exactly what was decided.
        self.asked = self.proved = 0

    def check(self, position: int, record: dict[str, Any]) -> None:
        before, self._before = self._before, None
        body = record["body"]
        if record["kind"] == "request.signed":
            self._ledger.ran("V10", 1)
            self._signature(position, record["at"], body)
            self._before = (position, body)
        elif record["kind"] == "action.decided" and body["escalation"] is None:
            self.asked += 1
            if before is not None and before[1]["id"] == body["id"]:
                self._words(*before, body)
        elif before is not None and record["kind"] == "action.decided":
            self._refute(before[0], "an action that was decided before is not asked for again")

    def _refute(self, seq: int, message: str, expected: Any = None, actual: Any = None) -> None:
        self._ledger.refute("V10.request", message, seq, expected, actual)

    def _signature(self, seq: int, at: int, body: dict[str, Any]) -> None:
        covered = dict(map(tuple, body["covered"]))
        try:
            names, params = read_params(body["params"])
        except Malformed as error:
            self._refute(seq, f"what was signed {error}")
            return
        if names != [name for name, _ in body["covered"]] or any(
            _VALUE.fullmatch(value) is None for value in covered.values()
        ):
            self._refute(seq, "the values are not those of the components signed", names, sorted(covered))
            return
        if not self._state.aside & SIGNED and not signed_text(body["key"], body["sig"], base_of(body)):
            self._refute(seq, f"the signature of the agent {body['agent']} does not verify")
        if missing := sorted(set(REQUIRED) - covered.keys()):
            self._refute(seq, "the signature does not cover the whole request", None, missing)
        bundle = self._state.bundle
        known = bundle.keys.get(body["agent"], ()) if bundle is not None else ()
        if body["key"] not in known:
            self._refute(seq, f"signed with a key that is not enrolled for {body['agent']}", sorted(known), body["key"])
        expected = {"keyid": body["key"], "tag": f"countermark/{self._state.deployment}"}
        for name, value in expected.items():
            if params.get(name) != value:
                self._refute(seq, f"signed with another {name}", value, params.get(name))
        if params.get("alg", "ed25519") != "ed25519":
            self._refute(seq, "signed with another algorithm", "ed25519", params["alg"])
        self._fresh(seq, at, body["key"], params)

    def _fresh(self, seq: int, at: int, key: str, params: dict[str, Any]) -> None:
        """Made about when it was decided, and used once."""
        created, nonce = params.get("created"), params.get("nonce", "")
        if created is None or abs(created * 1_000_000 - at) > SKEW_US_MAX:
            self._refute(seq, "signed at another time than it was decided", at, created)
        if "expires" in params and at >= params["expires"] * 1_000_000:
            self._refute(seq, "the signature had expired when it was decided", at, params["expires"])
        if _NONCE.fullmatch(nonce) is None or (key, nonce) in self._nonces:
            self._refute(seq, "the signature's nonce is none, or was used before", None, nonce)
        self._nonces.add((key, nonce))

    def _words(self, seq: int, signed: dict[str, Any], decided: dict[str, Any]) -> None:
        """The bytes that were signed ask for exactly the action that was decided."""
        for name in ("agent", "run", "call_id"):
            if signed[name] != decided[name]:
                self._refute(seq, f"another {name} than that of the decision", decided[name], signed[name])
        covered = dict(map(tuple, signed["covered"]))
        if signed["body"] is None:
            self._left_out(seq, covered, decided)
            return
        raw = signed["body"].encode()
        digest = f"sha-256=:{base64.b64encode(hashlib.sha256(raw).digest()).decode()}:"
        if covered.get("content-digest") != digest:
            self._refute(seq, "the body is not the one that was signed", covered.get("content-digest"), digest)
            return
        if (covered.get("@method"), covered.get("@path")) != ("POST", "/v1/actions"):
            self._refute(seq, "the request that was signed did not ask for an action")
            return
        try:
            asked = read_body(raw)
        except Malformed as error:
            self._refute(seq, f"the signed body {error}")
            return
        expected = self._expected(decided, asked)
        if _text(expected) != _text(asked):
            self._refute(seq, "the agent signed another request than was decided", expected, asked)
            return
        self.proved += 1

    def _left_out(self, seq: int, covered: dict[str, str], decided: dict[str, Any]) -> None:
        """Only what is long, sealed or sent elsewhere stands as a digest."""
        sealed = decided["claimed"]["reason"] is not None or any(type(one) is dict for one in decided["args"].values())
        length = covered.get("content-length", "")
        if covered.get("@path") != "/v1/actions" or sealed or _LENGTH.fullmatch(length) is None:
            return
        if int(length) <= BODY_BYTES_MAX:
            self._refute(seq, "the signed body is left out although it could stand here", None, length)

    def _expected(self, decided: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        """What a body that asks for this decision says. A member that may be left out is judged when it is there."""
        bundle = self._state.bundles.get(decided["bundle"])
        tool = bundle.tools.get(decided["tool"]) if bundle is not None else None
        names = {item["alias"]: item["name"] for item in tool["args"]} if tool is not None else {}
        said: dict[str, Any] = {
            "call_id": decided["call_id"],
            "tool": decided["tool"],
            "args": {names.get(alias, alias): value for alias, value in decided["args"].items()},
            "run": decided["run"],
        }
        for name, absent in _CLAIMS.items():
            if (name in asked and asked[name] is not None) or decided["claimed"][name] != absent:
                said[name] = decided["claimed"][name]
            elif name in asked:
                said[name] = None
        # A reason is sealed, and then there is no body; an empty one is as good as none.
        return said | ({"reason": asked["reason"]} if asked.get("reason", 0) in ("", None) else {})


def base_of(body: dict[str, Any]) -> bytes:
    """The bytes that were signed."""
    lines = [f'"{name}": {value}' for name, value in body["covered"]]
    return "\n".join([*lines, f'"@signature-params": {body["params"]}']).encode()


def read_params(text: str) -> tuple[list[str], dict[str, Any]]:
    """The components and the parameters of `@signature-params`, each once; raises `Malformed`."""
    match = _PARAMS.fullmatch(text)
    if match is None:
        raise Malformed("does not have the form of one signature's parameters")
    names = [item[1:-1] for item in match["items"].split(" ")]
    if len(set(names)) != len(names) or not set(names) <= set(COVERABLE):
        raise Malformed("names a component twice, or an unknown one")
    found: dict[str, Any] = {}
    for name, raw in _PARAM.findall(match["rest"]):
        quoted = raw[0] == '"'
        if name in found or name not in (_TEXTS if quoted else _NUMBERS):
            raise Malformed("has a parameter twice, or an unknown one")
        found[name] = re.sub(r"\\(.)", r"\1", raw[1:-1]) if quoted else int(raw)
    return names, found


def read_body(raw: bytes) -> dict[str, Any]:
    """The JSON object of a signed body: members of an action's request only, nothing twice, no floats."""
    try:
        value = json.loads(
            raw, object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float, parse_int=_integer
        )
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed("is not JSON") from error
    if type(value) is not dict or not value.keys() <= _MEMBERS:
        raise Malformed("is not the request of an action")
    return value


def _text(value: Any) -> str:
    """For comparison: Python holds True == 1, and JSON does not."""
    return json.dumps(value, sort_keys=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Malformed("has a key twice")
    return document


def _no_float(text: str) -> NoReturn:
    raise Malformed("has a number that is no integer")


def _integer(text: str) -> int:
    if len(text) > 17:
        raise Malformed("has an integer beyond 2^53-1")
    return int(text)
