"""Payment mandates of the Agent Payments Protocol (AP2 v0.2, April 2026), turned into mandates of ours.

An open payment mandate (``mandate.payment.open.1``) is what a user wants within constraints, signed by the user's agent
provider; a closed one (``mandate.payment.1``) is one payment, signed by that key or, below an open one, by the agent's
own (``cnf``). Whose keys count, for which principal, agent, tools and payees, the policy says. Everything that cannot
be enforced is refused; what is read and not checked is listed in ``docs/mandates.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from countermark.authority.fields import PAYEE
from countermark.authority.mandate import ANY, COUNT, PAYEES_MAX, Mandate, check_narrower, mandate_digest, parse_mandate
from countermark.authority.sdjwt import JoseKey, Token, bad, hashed, opened, read_token
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.clock import US
from countermark.model.currency import iso_digits
from countermark.model.digest import REDEMPTION, digest
from countermark.model.errors import AuthorityError, SignatureError
from countermark.model.values import NAME, TOOL

OPEN, CLOSED = "mandate.payment.open.1", "mandate.payment.1"
CHARS_MAX = 24_000
CONSTRAINTS_MAX = 32
TOOLS_MAX = 64
DAY_US = 86_400 * US
EVERY_US = {
    "DAILY": DAY_US, "WEEKLY": 7 * DAY_US, "BIWEEKLY": 14 * DAY_US, "MONTHLY": 30 * DAY_US, "QUARTERLY": 91 * DAY_US,
    "ANNUALLY": 365 * DAY_US,
}  # fmt: skip
PURPOSE = "AP2 payment mandate"

_MAY_HIDE = frozenset(("allowed", "delegate_payload"))
_ROOT = frozenset(("delegate_payload", "_sd_alg", "iss", "sub", "vct", "iat", "nbf", "exp"))
_BOUND = frozenset(("delegate_payload", "_sd_alg", "iat", "exp", "aud", "nonce", "sd_hash", "issuer_jwt_hash"))
_OPEN = (frozenset(("vct", "constraints", "cnf")),
         frozenset(("payee", "payment_amount", "payment_instrument", "risk_data", "iat", "exp")))  # fmt: skip
_CLOSED = (frozenset(("vct", "transaction_id", "payee", "payment_amount", "payment_instrument")),
           frozenset(("risk_data", "iat", "exp")))  # fmt: skip
_SOURCE = frozenset(("id", "issuer", "principal", "agent", "agent_key", "audience", "tools", "payees"))
_MERCHANT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,128}")
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,256}")
_TRANSACTION = re.compile(r"[\x21-\x7e]{1,256}")
_CODE = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Ap2Source:
    """Whose AP2 mandates the policy accepts: the keys, and what a mandate of them may become here."""

    id: str
    issuer: JoseKey
    principal: str
    agent: str
    agent_key: JoseKey
    audience: str
    tools: tuple[str, ...]
    payees: Mapping[str, str]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Ap2Source:
        """Read an entry of a bundle's ``ap2``. Raises ``AuthorityError`` (``bad_ap2``) or ``SignatureError``."""
        if item.keys() != _SOURCE:
            raise AuthorityError("an AP2 source of the bundle does not have exactly its members", code="bad_ap2")
        pairs = [(str(name), str(payee)) for name, payee in item["payees"]]
        source = cls(
            item["id"], JoseKey.parse(item["issuer"]), item["principal"], item["agent"],
            JoseKey.parse(item["agent_key"]), item["audience"], tuple(item["tools"]), dict(pairs),
        )  # fmt: skip
        right = (
            all(NAME.fullmatch(name) for name in (source.id, source.principal, source.agent))
            and 1 <= len(source.tools) <= TOOLS_MAX and len(set(source.tools)) == len(source.tools)
            and all(TOOL.fullmatch(tool) for tool in source.tools) and _AUDIENCE.fullmatch(source.audience)
            and len(source.payees) == len(pairs) <= PAYEES_MAX and source.issuer != source.agent_key
            and all(_MERCHANT.fullmatch(name) and PAYEE.fullmatch(payee) for name, payee in pairs)
        )  # fmt: skip
        if not right:
            raise AuthorityError("an AP2 source of the bundle has a member of the wrong form", code="bad_ap2")
        return source

    def document(self) -> dict[str, Any]:
        """The compiled form; ``Ap2Source.of`` of it gives an equal source."""
        return {
            "id": self.id, "issuer": str(self.issuer), "principal": self.principal, "agent": self.agent,
            "agent_key": str(self.agent_key), "audience": self.audience, "tools": list(self.tools),
            "payees": [[name, payee] for name, payee in sorted(self.payees.items())],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mandate of ours that an AP2 document stands for. ``redeems``: names that no other acceptance may have."""

    ap2: str
    mandate: Mandate
    redeems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Here:
    """Where a document is accepted: the deployment, the currencies of its policy, and the time (microseconds)."""

    deployment: str
    currencies: tuple[str, ...]
    at: int


Above = Callable[[str], Mandate | None]


def accept_ap2(text: str, source: Ap2Source, here: Here, above: Above) -> list[Accepted]:
    """Verify an AP2 payment mandate and say what it becomes: the open one, the closed one, or the one below the other.

    Args:
        above: the mandate that an open one with this redemption name became before, ``None`` when there is none.

    Raises:
        AuthorityError: ``bad_ap2``, ``ap2_unsupported``, ``ap2_constraint``, ``ap2_expired``, ``unknown_merchant`` or
            ``mandate_not_narrower``. Whether something was redeemed before is the caller's question.
        SignatureError: a signature does not verify under the keys of the source.
    """
    if type(text) is not str or not text.isascii() or len(text) > CHARS_MAX:
        raise bad(f"is longer than {CHARS_MAX} characters, or not ASCII")
    if text.lstrip()[:1] in ("{", "["):
        raise AuthorityError("AP2 documents are accepted in the form of v0.2, an SD-JWT", code="ap2_unsupported",
                             hint="The JSON of v0.1 is not read: see docs/mandates.md.")  # fmt: skip
    first, *rest = text.split("~~")
    if len(rest) > 1:
        raise AuthorityError("AP2 mandates that agents passed on to agents are not accepted", code="ap2_unsupported")
    root = read_token(first + "~" if rest else first)
    root.verify(source.issuer)
    if root.header.get("typ", "").startswith("kb+") or not root.payload.keys() <= _ROOT:
        raise bad("does not begin with a mandate that its issuer signed")
    content = _content(root)
    if content["vct"] == CLOSED:
        if rest:
            raise bad("has something below a closed mandate")
        return [_closed(text, source, here, root, content, None)]
    if not rest:
        return [_open(text, source, here, root, content)]
    return _chained(text, source, here, (root, content), read_token(rest[0]), above)


def _chained(
    text: str, source: Ap2Source, here: Here, top: tuple[Token, Mapping[str, Any]], token: Token, above: Above
) -> list[Accepted]:
    """A closed mandate that the agent signed below the open one that names its key."""
    root, content = top
    wide = _open(root.text, source, here, root, content)
    token.verify(source.agent_key)
    payload = token.payload
    if token.header.get("typ") != "kb+sd-jwt" or not payload.keys() <= _BOUND:
        raise bad("is closed by something else than a kb+sd-jwt")
    bindings = {name: payload[name] for name in ("sd_hash", "issuer_jwt_hash") if name in payload}
    if bindings not in ({"sd_hash": hashed(root.text)}, {"issuer_jwt_hash": hashed(root.issuer_jwt)}):
        raise AuthorityError("the closed AP2 mandate belongs to another open one", code="ap2_constraint")
    if payload.get("aud") != source.audience:
        raise AuthorityError("the closed AP2 mandate is made for another audience", code="ap2_constraint")
    closed = _content(token)
    if closed["vct"] != CLOSED:
        raise bad("is not closed by a closed payment mandate")
    _evaluate(content, closed)
    known = above(wide.redeems[0])
    parent = wide.mandate if known is None else known
    found = _closed(text, source, here, token, closed, parent)
    return [found] if known is not None else [wide, found]


def _content(token: Token) -> Mapping[str, Any]:
    """The one payment mandate among the documents that a token delegates. Checkout mandates are the merchant's."""
    items = opened(token, _MAY_HIDE).get("delegate_payload")
    if type(items) is not list or any(type(item) is not dict or type(item.get("vct")) is not str for item in items):
        raise bad("has no delegate_payload of mandates")
    found = [item for item in items if not item["vct"].startswith("mandate.checkout.")]
    if len(found) != 1 or found[0]["vct"] not in (OPEN, CLOSED):
        raise AuthorityError(f"an AP2 document has one disclosed payment mandate, {OPEN} or {CLOSED}",
                             code="ap2_unsupported")  # fmt: skip
    content: Mapping[str, Any] = found[0]
    needed, others = _OPEN if content["vct"] == OPEN else _CLOSED
    if not needed <= content.keys() <= needed | others:
        raise AuthorityError("the AP2 mandate lacks a member, or has one that is not known here",
                             code="ap2_unsupported")  # fmt: skip
    return content


def _open(text: str, source: Ap2Source, here: Here, token: Token, content: Mapping[str, Any]) -> Accepted:
    cnf = content["cnf"]
    try:
        key = JoseKey.of_jwk(cnf.get("jwk") if isinstance(cnf, Mapping) else None)
    except SignatureError as error:
        raise bad(f"binds no usable key: {error.message}") from None
    if key != source.agent_key:
        raise AuthorityError("the AP2 mandate is bound to another agent's key", code="ap2_constraint")
    by_type = _constraints(content)
    begin, end = _validity(token, content, here.at)
    dates = by_type.get("payment.execution_date", {"type": ""})
    _only(dates, {"not_before", "not_after"}, set())
    begin = max(begin, _moment(dates["not_before"]) if "not_before" in dates else 0)
    end = min(end, _moment(dates["not_after"]) + 1) if "not_after" in dates else end
    return _accepted(text, source, here, None, {
        "limits": _limits(by_type, content, here), "payees": _payees(by_type, content, source),
        "purpose": PURPOSE, "not_before": begin, "not_after": end,
    }, (redemption("mandate", token.signed),))  # fmt: skip


def _closed(
    text: str, source: Ap2Source, here: Here, token: Token, content: Mapping[str, Any], parent: Mandate | None
) -> Accepted:
    amount, code = _amount(content["payment_amount"])
    transaction = content["transaction_id"]
    if type(transaction) is not str or _TRANSACTION.fullmatch(transaction) is None:
        raise bad("has no transaction_id")
    begin, end = _validity(token, content, here.at, parent)
    currency = _currency(code, here)
    limits = [(currency, amount, 0), (currency, amount, None), (COUNT, 1, None)]
    purpose = PURPOSE if parent is None else parent.purpose
    return _accepted(text, source, here, parent, {
        "limits": limits, "payees": [_payee(content["payee"], source)],
        "purpose": f"{purpose}: transaction {transaction}", "not_before": begin, "not_after": end,
    }, (redemption("mandate", token.signed), redemption("transaction", transaction)))  # fmt: skip


def _accepted(
    text: str, source: Ap2Source, here: Here, parent: Mandate | None, members: Mapping[str, Any],
    redeems: tuple[str, ...],
) -> Accepted:  # fmt: skip
    limits = [{"currency": code, "amount": amount, "over_us": over} for code, amount, over in members["limits"]]
    if members["not_before"] >= members["not_after"] or here.at >= members["not_after"]:
        raise AuthorityError("the AP2 mandate is over, or is never valid", code="ap2_expired")
    mandate = parse_mandate({
        "v": 1, "deployment": here.deployment, "principal": source.principal, "agent": source.agent,
        "parent": None if parent is None else mandate_digest(parent.document()),
        "agent_key": str(source.agent_key) if source.agent_key.alg == "EdDSA" else None,
        "tools": list(source.tools), "named": [], "nonce": redeems[0].removeprefix("sha256:")[:32], **members,
        "limits": limits,
    })  # fmt: skip
    if parent is not None:
        check_narrower(mandate, parent)
    return Accepted(text, mandate, redeems)


def redemption(kind: str, text: str) -> str:
    """The name under which something is redeemed once: a signed ``mandate`` (without its signature, which can be
    written in two ways), or a ``transaction``.
    """
    return digest(REDEMPTION, f"{kind}\0{text}".encode("ascii"))


def _constraints(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Constraints by type. One that cannot be enforced here fails, as AP2 asks of whoever verifies."""
    items = content["constraints"]
    if type(items) is not list or len(items) > CONSTRAINTS_MAX:
        raise bad(f"has more than {CONSTRAINTS_MAX} constraints, or no list of them")
    found: dict[str, Mapping[str, Any]] = {}
    for item in items:
        kind = item.get("type") if type(item) is dict else None
        if kind not in _KNOWN:
            raise AuthorityError(f"the constraint {str(kind)[:60]!r} cannot be enforced here", code="ap2_unsupported")
        if kind in found:
            raise AuthorityError(f"the constraint {kind} stands there twice", code="ap2_unsupported")
        found[kind] = item
    return found


_KNOWN = (
    "payment.amount_range", "payment.budget", "payment.allowed_payees", "payment.agent_recurrence",
    "payment.execution_date", "payment.reference",
)  # fmt: skip


def _only(item: Mapping[str, Any], names: set[str], needed: set[str]) -> None:
    if not needed <= item.keys() <= names | {"type"}:
        raise AuthorityError(f"the constraint {item['type']} has other members than AP2 v0.2 gives it",
                             code="ap2_unsupported")  # fmt: skip


def _limits(
    by_type: Mapping[str, Mapping[str, Any]], content: Mapping[str, Any], here: Here
) -> list[tuple[str, int, int | None]]:
    """(currency, amount, microseconds) of each limit; an open mandate without any amount is refused."""
    most: dict[tuple[str, int | None], int] = {}
    if "payment_amount" in content:
        amount, code = _amount(content["payment_amount"])
        most[_currency(code, here), 0] = amount
    if (item := by_type.get("payment.amount_range")) is not None:
        _only(item, {"currency", "max", "min"}, {"currency", "max"})
        if _integer(item.get("min", 0)):
            raise AuthorityError("a least amount cannot be enforced here", code="ap2_unsupported")
        place = _currency(item["currency"], here), 0
        most[place] = min(_integer(item["max"]), most.get(place, INTEGER_ABS_MAX))
    if (item := by_type.get("payment.budget")) is not None:
        _only(item, {"currency", "max"}, {"currency", "max"})
        currency = _currency(item["currency"], here)
        most[currency, None] = _integer(_integer(item["max"]) * 10 ** iso_digits(item["currency"]))
    if not most or len({currency for currency, _ in most}) > 1:
        raise AuthorityError("an AP2 mandate names an amount, and one currency", code="ap2_unsupported")
    limits = [(currency, amount, over) for (currency, over), amount in most.items()]
    return limits + _recurrence(by_type.get("payment.agent_recurrence"))


def _recurrence(item: Mapping[str, Any] | None) -> list[tuple[str, int, int | None]]:
    """How often: once, unless the user said how often else."""
    if item is None:
        return [(COUNT, 1, None)]
    _only(item, {"frequency", "max_occurrences"}, {"frequency"})
    often = item["frequency"]
    if often not in ("ON_DEMAND", *EVERY_US):
        raise bad("has a recurrence of no known frequency")
    found: list[tuple[str, int, int | None]] = [(COUNT, 1, EVERY_US[often])] if often in EVERY_US else []
    if "max_occurrences" in item:
        found.append((COUNT, _integer(item["max_occurrences"]), None))
    return found


def _payees(by_type: Mapping[str, Mapping[str, Any]], content: Mapping[str, Any], source: Ap2Source) -> list[str]:
    """Payees of ours, of every merchant that is allowed and disclosed; all, when the user named none."""
    found: list[list[str]] = []
    if "payee" in content:
        found.append([_payee(content["payee"], source)])
    if (item := by_type.get("payment.allowed_payees")) is not None:
        _only(item, {"allowed"}, {"allowed"})
        if type(item["allowed"]) is not list or len(item["allowed"]) > PAYEES_MAX:
            raise bad("has no list of allowed payees")
        found.append([_payee(merchant, source) for merchant in item["allowed"]])
    if not found:
        return [ANY]
    kept = [payee for payee in dict.fromkeys(found[0]) if all(payee in names for names in found)]
    if not kept:
        raise AuthorityError("the AP2 mandate allows no payee, or discloses none", code="ap2_constraint")
    return kept


def _payee(merchant: object, source: Ap2Source) -> str:
    name = merchant.get("id") if type(merchant) is dict else None
    if type(name) is not str or _MERCHANT.fullmatch(name) is None:
        raise bad("names a merchant without an id")
    payee = source.payees.get(name)
    if payee is None:
        raise AuthorityError(f"the policy has no payee for the merchant {name[:60]!r}", code="unknown_merchant",
                             hint=f"Add it to [ap2.{source.id}.payees] in limits.toml.")  # fmt: skip
    return payee


def _evaluate(content: Mapping[str, Any], closed: Mapping[str, Any]) -> None:
    """Hold a closed mandate against the open one above it. How often and how much in all, the budgets count."""
    for name in content.keys() & closed.keys() - {"vct", "iat", "exp", "risk_data"}:
        if content[name] != closed[name]:
            raise AuthorityError(f"the closed AP2 mandate has another {name} than the open one", code="ap2_constraint")
    by_type = _constraints(content)
    allowed = by_type.get("payment.allowed_payees")
    if allowed is not None and closed["payee"] not in allowed["allowed"]:
        raise AuthorityError("the closed AP2 mandate pays somebody whom the open one does not allow",
                             code="ap2_constraint")  # fmt: skip
    amount, code = _amount(closed["payment_amount"])
    for item in (by_type.get("payment.amount_range"), by_type.get("payment.budget")):
        if item is not None and item["currency"] != code:
            raise AuthorityError("the closed AP2 mandate is in another currency", code="ap2_constraint")
    within = by_type.get("payment.amount_range")
    if within is not None and amount > within["max"]:
        raise AuthorityError("the closed AP2 mandate is above the open one's range", code="ap2_constraint")


def _amount(value: object) -> tuple[int, str]:
    if type(value) is not dict or value.keys() != {"amount", "currency"}:
        raise bad("has an amount of no known form")
    return _integer(value["amount"]), value["currency"]


def _currency(code: object, here: Here) -> str:
    """The policy's name for an ISO 4217 code."""
    if type(code) is not str or _CODE.fullmatch(code) is None:
        raise bad("has a currency that is no ISO 4217 code")
    found = [currency for currency in here.currencies if currency.upper() == code]
    if len(found) != 1:
        raise AuthorityError(f"the policy does not move {code}", code="ap2_constraint")
    return found[0]


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_ABS_MAX:
        raise bad("has a number that is no natural number")
    return value


def _validity(token: Token, content: Mapping[str, Any], at: int, parent: Mandate | None = None) -> tuple[int, int]:
    """From the latest beginning to the earliest end that the mandate, its token and its parent name."""
    payload = token.payload
    begins: Sequence[object] = (content.get("iat", 0), payload.get("iat", 0), payload.get("nbf", 0))
    ends = [part["exp"] for part in (content, payload) if "exp" in part]
    begin, end = max(_integer(value) for value in begins) * US, min((_integer(v) * US for v in ends), default=None)
    if parent is not None:
        begin, end = max(begin, parent.not_before), parent.not_after if end is None else min(end, parent.not_after)
    if end is None:
        raise AuthorityError("an AP2 mandate that never expires is not accepted", code="ap2_unsupported",
                             hint="Ask for one with an exp.")  # fmt: skip
    return _integer(begin), _integer(end)


def _moment(value: object) -> int:
    """Microseconds of an ISO 8601 time in UTC, with a Z."""
    try:
        moment = datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise bad("has a date that is not written like 2026-04-30T23:59:59Z") from None
    return _integer(int(moment.timestamp()) * US)
