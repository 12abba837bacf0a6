"""From a caller's words to an ask: decode strictly, prepare the exact request, digest both. Pure but for its salts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from countermark.authority import Behalf, Scope, SignedRequest
from countermark.model import digest as d
from countermark.model.canon import canon
from countermark.model.errors import ArgumentError
from countermark.model.ports import Preparer
from countermark.model.random import RandomPool
from countermark.model.tool import CALLER, ToolSpec, Value
from countermark.model.values import ACT_ID, BECAUSE_MAX, REASON_CHARS_MAX, Claim, Request, action_id
from countermark.model.words import quoted
from countermark.policy import Ask, Bundle, Known, normal, obligation_of

PSEUDONYM_CACHE_MAX = 65_536
CLAIM_CHARS_MAX = 200
CLAIMS = frozenset(("reason", "model", "trace", "because"))
ASKED_BYTES_MAX = 40_000  # of a record's 65,535: what the gate adds to any record about the action fits in the rest

_NO_CLAIM = Claim()
_UNCLAIMED: Mapping[str, Any] = {"because": [], "reason": None, "model": "", "trace": ""}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # a reason may have lines


class Pseudonyms:
    """Keyed pseudonyms, remembered (kinds as in ``docs/spec/digests.md``), and fresh salts."""

    def __init__(self, key: bytes) -> None:
        self.salt = RandomPool().hex16
        self._of = lru_cache(maxsize=PSEUDONYM_CACHE_MAX)(lambda kind, value: d.pseudonym(key, kind, value))

    def __call__(self, kind: str, value: str) -> str:
        return self._of(kind, value)

    def forget(self) -> None:
        """Let go of the values that were asked about: some of them may be erased now."""
        self._of.cache_clear()


class Prepared(NamedTuple):
    """An ask with what must not stand in a record: the request's bytes, the plain values, what will be sealed.

    ``args`` are the plain values by the provider's names, ``plain`` the same by alias; ``known`` is the version of the
    payees by whom its terms were read.
    """

    ask: Ask
    request: Request
    args: Mapping[str, Value]
    plain: Mapping[str, Value]
    sealed: bytes | None
    subject: str
    salt: str
    caller: Caller | None = None
    known: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and how far the evidence about them reaches.

    ``scope`` is what their credential allows, ``behalf`` the chain of delegation that it states, ``signed`` the
    request that their own key signed. ``driver``: the gate itself, for a run that a definition drives.
    """

    agent: str
    tier: str
    scope: Scope | None = None
    behalf: Behalf | None = None
    signed: SignedRequest | None = None
    driver: bool = False


def terms_of(
    bundle: Bundle, known: Known, tool: ToolSpec, args: Mapping[str, Value], pseudonym: Pseudonyms
) -> dict[str, Any]:  # fmt: skip
    """Amount (minor units), currency and payee of an action; null where the tool has none."""
    terms: dict[str, Any] = {"amount": None, "currency": None, "payee": None}
    amount, currency, payee = tool.one("amount"), tool.one("currency"), tool.one("payee")
    if amount is not None and amount.name in args:
        terms["amount"] = amount.counted(args[amount.name])
        code = args.get(currency.name, tool.currency) if currency is not None else tool.currency
        bundle.compiled.check_currency(code, currency.name if currency else "currency")
        terms["currency"] = code
    if payee is not None and payee.name in args:
        account = str(args[payee.name])
        named = known.by_account.get(account)
        terms["payee"] = named if named is not None else "p:" + pseudonym("payee", account)
    return terms


def claim_of(body: Mapping[str, Any]) -> Claim:
    """What a caller says about an action. Raises ``ArgumentError`` for a member of the wrong type."""
    if CLAIMS.isdisjoint(body):
        return _NO_CLAIM
    given = {name: value for name, value in body.items() if value is not None}
    because = given.get("because", ())
    if not isinstance(because, (list, tuple)):
        raise ArgumentError("because must be a list of action IDs", field="because")
    texts = [given.get(name, "") for name in ("reason", "model", "trace")]
    if any(type(text) is not str for text in (*texts, *because)):
        raise ArgumentError("reason, model, trace and because must be strings", field="reason")
    return Claim(texts[0], texts[1], texts[2], tuple(because))


def claimed_of(claim: Claim, pseudonym: Pseudonyms) -> tuple[Mapping[str, Any], list[str] | None]:
    """The recorded form of a claim; the free text of its reason is sealed, not recorded."""
    if claim is _NO_CLAIM:
        return _UNCLAIMED, None
    if len(claim.reason) > REASON_CHARS_MAX or len(claim.because) > BECAUSE_MAX:
        raise ArgumentError("the claim is too long", field="reason")
    for name, text in (("model", claim.model), ("trace", claim.trace)):
        if text and (len(text) > CLAIM_CHARS_MAX or _CONTROL.search(text) is not None):
            raise ArgumentError(f"{name} takes {CLAIM_CHARS_MAX} characters and no control characters", field=name)
    if claim.because and not all(ACT_ID.fullmatch(action) for action in claim.because):
        raise ArgumentError("because takes the IDs of actions", field="because")
    if _CONTROL_IN_TEXT.search(claim.reason) is not None:
        raise ArgumentError("the reason holds control characters", field="reason")
    reason, sealed = None, None
    if claim.reason:
        salt = pseudonym.salt()
        reason = {"$sd": d.digest_of(d.FIELD, [salt, "$reason", claim.reason])}
        sealed = [salt, claim.reason]
    return {"because": list(claim.because), "reason": reason, "model": claim.model, "trace": claim.trace}, sealed


def seal_args(
    tool: ToolSpec, args: Mapping[str, Value], salt_of: Callable[[str], str]
) -> tuple[dict[str, Any], dict[str, Value], list[list[Any]]]:
    """Recorded form by alias, clear values by alias, and ``[alias, salt, value]`` of the sensitive ones.

    ``salt_of`` gives the salt of an alias: a fresh one, or an earlier record's, to compare a retried action with it.
    """
    recorded: dict[str, Any] = {}
    clear: dict[str, Value] = {}
    hidden: list[list[Any]] = []
    specs = tool.by_name
    for name, value in args.items():
        spec = specs[name]
        if spec.sensitive:
            salt = salt_of(spec.alias)
            recorded[spec.alias] = {"$sd": d.digest_of(d.FIELD, [salt, spec.alias, value])}
            hidden.append([spec.alias, salt, value])
        else:
            recorded[spec.alias] = clear[spec.alias] = value
    return recorded, clear, hidden


def action_digest(run: str, call_id: str, tool: str, recorded: Mapping[str, Any]) -> str:
    """Digest of the action's canonical bytes (sensitive values by their salted digests); all was decoded strictly."""
    return d.digest_of_fitting(d.ACTION, {"run": run, "call_id": call_id, "tool": tool, "args": recorded})


def prepare(
    bundle: Bundle, known: Known, connectors: Mapping[str, Preparer], pseudonym: Pseudonyms, deployment: str,
    caller: Caller, run: str, call_id: str, tool_name: str, args: object, claim: Claim,
) -> Prepared:  # fmt: skip
    """Make the ask and the exact request of an action. Raises ``ArgumentError`` for anything that does not fit."""
    if caller.scope is not None and not caller.scope.allows(tool_name, run):
        raise ArgumentError("this credential is not for this tool or this run", field="tool", code="out_of_scope")
    tool = bundle.compiled.tools.get(tool_name)
    if tool is None or tool.connector not in connectors:
        raise _no_tool(tool_name, tool)
    decoded = tool.decode(args)
    terms = terms_of(bundle, known, tool, decoded, pseudonym)
    recorded, clear, hidden = seal_args(tool, decoded, lambda _: pseudonym.salt())
    claimed, reason = claimed_of(claim, pseudonym)
    if len(orjson.dumps([recorded, claimed])) > ASKED_BYTES_MAX:
        raise ArgumentError(f"arguments and claims take more than {ASKED_BYTES_MAX} bytes", field="args")
    plain = {tool.by_name[name].alias: value for name, value in decoded.items()} if hidden else clear
    digest = action_digest(run, call_id, tool_name, recorded)
    key = "cm_" + d.digest_of_fitting(d.PROVIDER_KEY, [deployment, caller.agent, run, call_id, digest])[7:55]
    request = connectors[tool.connector].prepare(tool, decoded, key)
    salt = pseudonym.salt()
    sealed = None
    if hidden or reason is not None:
        sealed = canon({"fields": hidden, "salt": salt if hidden else None, "reason": reason})
    ask = Ask(
        id=action_id(caller.agent, run, call_id), agent=caller.agent, run=run, call_id=call_id, tool=tool,
        args=recorded, clear=clear, action=digest, request=request.digest(salt), salt=None if hidden else salt,
        key=key, terms=terms, obligation=obligation_of(tool, terms, plain, pseudonym), claimed=claimed, named={},
        bundle=bundle.digest, tier=caller.tier,
    )  # fmt: skip
    subject = terms["payee"] or f"agent:{caller.agent}"
    return Prepared(ask, request, decoded, plain, sealed, subject, salt, caller, known.version)


def _no_tool(name: str, tool: ToolSpec | None) -> ArgumentError:
    """Whoever asks at the wrong entrance is told which one is right: the policy, not the caller, decides who runs."""
    if tool is None:
        return ArgumentError(f"there is no tool {quoted(name)} here", field="tool", code="unknown_tool")
    if tool.connector == CALLER:
        return ArgumentError(f"{name} is run by its caller: ask with admit", field="tool", code="caller_runs_it")
    return ArgumentError(f"{name} is not run by its caller here", field="tool", code="unknown_tool")


def named_of(plain: Mapping[str, Value], pseudonym: Pseudonyms) -> dict[str, str]:
    """Pseudonyms of the argument values, for the fact ``instructed``; booleans never count as named."""
    return {a: pseudonym("named", normal(v)) for a, v in plain.items() if type(v) is not bool}
