"""V10: AP2 payment mandates that a gate accepted (docs/spec/ap2.md): verified and derived again from their own text."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from countermark_verify import canon
from countermark_verify.crypto import check_key, parse_key, signed
from countermark_verify.errors import Malformed

CHARS_MAX = 24_000
DISCLOSURES_MAX = 64
CONSTRAINTS_MAX = 32
LISTED_MAX = 512
SECOND_US = 1_000_000
OPEN, CLOSED = "mandate.payment.open.1", "mandate.payment.1"
EVERY_DAYS = {"DAILY": 1, "WEEKLY": 7, "BIWEEKLY": 14, "MONTHLY": 30, "QUARTERLY": 91, "ANNUALLY": 365}
_ZERO = "bif clp djf gnf isk jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
_THREE = "bhd iqd jod kwd lyd omr tnd"
DIGITS = dict.fromkeys(_ZERO.split(), 0) | dict.fromkeys(_THREE.split(), 3)
ROOT_CLAIMS = {"delegate_payload", "_sd_alg", "iss", "sub", "vct", "iat", "nbf", "exp"}
BOUND_CLAIMS = {"delegate_payload", "_sd_alg", "iat", "exp", "aud", "nonce", "sd_hash", "issuer_jwt_hash"}
NEEDED = {OPEN: {"vct", "constraints", "cnf"}}
NEEDED[CLOSED] = {"vct", "transaction_id", "payee", "payment_amount", "payment_instrument"}
FURTHER = {OPEN: {"payee", "payment_amount", "payment_instrument", "risk_data", "iat", "exp"}}
FURTHER[CLOSED] = {"risk_data", "iat", "exp"}
# Constraint -> its members beside `type`, and those of them that it must have.
CONSTRAINTS: dict[str, tuple[set[str], set[str]]] = {
    "payment.amount_range": ({"currency", "max", "min"}, {"currency", "max"}),
    "payment.budget": ({"currency", "max"}, {"currency", "max"}),
    "payment.allowed_payees": ({"allowed"}, {"allowed"}),
    "payment.agent_recurrence": ({"frequency", "max_occurrences"}, {"frequency"}),
    "payment.execution_date": ({"not_before", "not_after"}, set()),
}
_TRANSACTION = re.compile(r"[\x21-\x7e]{1,256}")
_MERCHANT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,128}")

Limit = tuple[str, int, int | None]


@dataclass(frozen=True)
class Place:
    """Where a document was accepted: `source` is the bundle's entry, `above` finds what an open one became before."""

    source: Mapping[str, Any]
    deployment: str | None
    currencies: Collection[str]
    at: int
    above: Callable[[str], dict[str, Any] | None]


@dataclass(frozen=True)
class _Token:
    text: str
    jwt: str
    header: dict[str, Any]
    claims: dict[str, Any]
    mandate: dict[str, Any]


def derive(text: str, place: Place) -> tuple[dict[str, Any], list[str]]:
    """The mandate that a text's last document stands for, and its redemption names; raises `Malformed`."""
    if not text.isascii() or len(text) > CHARS_MAX:
        raise Malformed("is too long or not ASCII")
    first, *rest = text.split("~~")
    if len(rest) > 1:
        raise Malformed("is a chain of more than two")
    root = _token(first + "~" if rest else first, place.source["issuer"])
    if root.header.get("typ", "").startswith("kb+") or not root.claims.keys() <= ROOT_CLAIMS:
        raise Malformed("does not begin with a mandate of an issuer")
    if root.mandate["vct"] == OPEN:
        document, redeems = _open(root, place)
        return _below(root, document, redeems[0], rest[0], place) if rest else (document, redeems)
    if rest:
        raise Malformed("has something below a closed mandate")
    return _closed(root, place, None)


def _below(root: _Token, wide: dict[str, Any], name: str, text: str, place: Place) -> tuple[dict[str, Any], list[str]]:
    token = _token(text, place.source["agent_key"])
    claims = token.claims
    if token.header.get("typ") != "kb+sd-jwt" or not claims.keys() <= BOUND_CLAIMS or token.mandate["vct"] != CLOSED:
        raise Malformed("is not closed by a closed mandate in a kb+sd-jwt")
    bound = {key: claims[key] for key in ("sd_hash", "issuer_jwt_hash") if key in claims}
    if bound not in ({"sd_hash": _hash(root.text)}, {"issuer_jwt_hash": _hash(root.text.split("~")[0])}):
        raise Malformed("is closed for another open mandate")
    if claims.get("aud") != place.source["audience"]:
        raise Malformed("is closed for another audience")
    _within(root.mandate, token.mandate)
    parent = place.above(name)
    if parent is None:
        raise Malformed("stands below an open mandate that was not accepted")
    return _closed(token, place, parent)


def _within(wide: dict[str, Any], closed: dict[str, Any]) -> None:
    for name in ("payee", "payment_amount", "payment_instrument"):
        if name in wide and wide[name] != closed[name]:
            raise Malformed(f"has another {name} than the open mandate")
    found = _constraints(wide)
    amount, code = _money(closed["payment_amount"])
    if "payment.allowed_payees" in found and closed["payee"] not in found["payment.allowed_payees"]["allowed"]:
        raise Malformed("pays a merchant that is not allowed")
    for name in ("payment.amount_range", "payment.budget"):
        if name in found and found[name]["currency"] != code:
            raise Malformed("is closed in another currency")
    if "payment.amount_range" in found and amount > found["payment.amount_range"]["max"]:
        raise Malformed("is closed above the range")


def _document(
    place: Place, parent: dict[str, Any] | None, name: str, limits: list[Limit], payees: list[str], purpose: str,
    times: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    source = place.source
    if times[0] >= times[1] or place.at >= times[1]:
        raise Malformed("is over, or never valid")
    return {
        "v": 1,
        "deployment": place.deployment,
        "parent": None if parent is None else canon.digest("mandate", canon.render(parent)),
        "principal": source["principal"],
        "agent": source["agent"],
        "agent_key": source["agent_key"] if source["agent_key"].startswith("ed25519:") else None,
        "tools": source["tools"],
        "payees": payees,
        "limits": [{"currency": coin, "amount": amount, "over_us": over} for coin, amount, over in limits],
        "named": [],
        "purpose": purpose,
        "not_before": times[0],
        "not_after": times[1],
        "nonce": name.removeprefix("sha256:")[:32],
    }


def _open(token: _Token, place: Place) -> tuple[dict[str, Any], list[str]]:
    content = token.mandate
    if _jwk(content["cnf"]) != place.source["agent_key"]:
        raise Malformed("is bound to another key than the agent's")
    found = _constraints(content)
    begin, end = _times(token, None)
    dates = found.get("payment.execution_date", {})
    if "not_before" in dates:
        begin = max(begin, _moment(dates["not_before"]))
    if "not_after" in dates:
        end = min(end, _moment(dates["not_after"]) + 1)
    name = _name("mandate", token.jwt)
    limits = _limits(content, found, place)
    purpose = "AP2 payment mandate"
    return _document(place, None, name, limits, _payees(content, found, place), purpose, (begin, end)), [name]


def _closed(token: _Token, place: Place, parent: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    content = token.mandate
    amount, code = _money(content["payment_amount"])
    transaction = content["transaction_id"]
    if type(transaction) is not str or not _TRANSACTION.fullmatch(transaction):
        raise Malformed("names no transaction")
    coin = _coin(code, place)
    name = _name("mandate", token.jwt)
    purpose = f"{parent['purpose'] if parent else 'AP2 payment mandate'}: transaction {transaction}"
    limits: list[Limit] = [(coin, amount, 0), (coin, amount, None), ("*", 1, None)]
    times = _times(token, parent)
    document = _document(place, parent, name, limits, [_payee(content["payee"], place)], purpose, times)
    return document, [name, _name("transaction", transaction)]


def _limits(content: dict[str, Any], found: dict[str, dict[str, Any]], place: Place) -> list[Limit]:
    most: dict[tuple[str, int | None], int] = {}
    if "payment_amount" in content:
        amount, code = _money(content["payment_amount"])
        most[_coin(code, place), 0] = amount
    if (item := found.get("payment.amount_range")) is not None:
        if _natural(item.get("min", 0)) > 0:
            raise Malformed("has a least amount")
        each = (_coin(item["currency"], place), 0)
        most[each] = min(_natural(item["max"]), most.get(each, canon.INTEGER_MAX))
    if (item := found.get("payment.budget")) is not None:
        coin = _coin(item["currency"], place)
        most[coin, None] = _natural(_natural(item["max"]) * 10 ** DIGITS.get(item["currency"].lower(), 2))
    if len({coin for coin, _ in most}) != 1:
        raise Malformed("has no amount, or two currencies")
    limits: list[Limit] = [(coin, amount, over) for (coin, over), amount in most.items()]
    often = found.get("payment.agent_recurrence")
    if often is None:
        return [*limits, ("*", 1, None)]
    if type(often["frequency"]) is not str:
        raise Malformed("has an unknown frequency")
    if often["frequency"] in EVERY_DAYS:
        limits.append(("*", 1, EVERY_DAYS[often["frequency"]] * 86_400 * SECOND_US))
    elif often["frequency"] != "ON_DEMAND":
        raise Malformed("has an unknown frequency")
    if "max_occurrences" in often:
        limits.append(("*", _natural(often["max_occurrences"]), None))
    return limits


def _constraints(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    items = content["constraints"]
    if type(items) is not list or len(items) > CONSTRAINTS_MAX:
        raise Malformed("has no list of constraints")
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        kind = item.get("type") if type(item) is dict else None
        if type(kind) is not str or kind in found:
            raise Malformed("has a constraint twice, or one without a type")
        found[kind] = item
        if kind == "payment.reference":  # which order it is for is the merchant's to check
            continue
        if kind not in CONSTRAINTS:
            raise Malformed("has a constraint that cannot be enforced")
        allowed, needed = CONSTRAINTS[kind]
        if not needed <= item.keys() - {"type"} <= allowed:
            raise Malformed(f"has a constraint {kind} of another form")
    return found


def _payees(content: dict[str, Any], found: dict[str, dict[str, Any]], place: Place) -> list[str]:
    lists = [[_payee(content["payee"], place)]] if "payee" in content else []
    if "payment.allowed_payees" in found:
        allowed = found["payment.allowed_payees"]["allowed"]
        if type(allowed) is not list or len(allowed) > LISTED_MAX:
            raise Malformed("has no list of allowed payees")
        lists.append([_payee(item, place) for item in allowed])
    if not lists:
        return ["*"]
    kept = [payee for payee in dict.fromkeys(lists[0]) if all(payee in names for names in lists)]
    if not kept:
        raise Malformed("allows no payee")
    return kept


def _payee(merchant: Any, place: Place) -> str:
    name = merchant.get("id") if type(merchant) is dict else None
    if type(name) is not str or not _MERCHANT.fullmatch(name):
        raise Malformed("names a merchant without an id")
    known: dict[str, str] = dict(place.source["payees"])
    if name not in known:
        raise Malformed("names a merchant whom the bundle does not know")
    return known[name]


def _times(token: _Token, parent: dict[str, Any] | None) -> tuple[int, int]:
    parts = (token.mandate, token.claims)
    begin = max(_natural(part.get(name, 0)) for part in parts for name in ("iat", "nbf")) * SECOND_US
    ends = [_natural(part["exp"]) * SECOND_US for part in parts if "exp" in part]
    if parent is not None:
        begin, ends = max(begin, parent["not_before"]), [*ends, parent["not_after"]]
    if not ends:
        raise Malformed("never expires")
    return _natural(begin), _natural(min(ends))


def _moment(value: Any) -> int:
    try:
        moment = datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed("has a date of another form") from error
    return _natural(int(moment.timestamp()) * SECOND_US)


def _money(value: Any) -> tuple[int, Any]:
    if type(value) is not dict or value.keys() != {"amount", "currency"}:
        raise Malformed("has an amount of another form")
    return _natural(value["amount"]), value["currency"]


def _coin(code: Any, place: Place) -> str:
    if type(code) is not str or not re.fullmatch("[A-Z]{3}", code):
        raise Malformed("has a currency that is no code")
    found = [coin for coin in place.currencies if coin.upper() == code]
    if len(found) != 1:
        raise Malformed("is in a currency that the bundle does not move")
    return found[0]


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= canon.INTEGER_MAX:
        raise Malformed("has a number that is no natural number")
    return value


def _name(kind: str, text: str) -> str:
    return canon.digest("redemption", f"{kind}\0{text}".encode())


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("is not base64url") from error
    if not raw or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise Malformed("is not the canonical base64url of its bytes")
    return raw


def _token(text: str, key: str) -> _Token:
    """One SD-JWT (RFC 9901) whose signature verifies, with what it discloses in its place."""
    jwt, *disclosures = text.split("~")
    parts = jwt.split(".")
    if not disclosures or disclosures.pop() or len(disclosures) > DISCLOSURES_MAX or len(parts) != 3:
        raise Malformed("is not an SD-JWT without a key binding of its own")
    header, claims = _read(parts[0]), _read(parts[1])
    if type(header) is not dict or type(claims) is not dict or not {"alg"} <= header.keys() <= {"alg", "typ", "kid"}:
        raise Malformed("has a header or a payload of another form")
    if any(type(value) is not str for value in header.values()) or claims.get("_sd_alg", "sha-256") != "sha-256":
        raise Malformed("has a header or a hash of another kind")
    message = ".".join(parts[:2])
    _signature(header["alg"], key, message.encode(), _decoded(parts[2]))
    hidden: dict[str, Any] = {}
    for disclosure in disclosures:
        value = _read(disclosure)
        if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
            raise Malformed("discloses something else than an element of an array")
        hidden[_hash(disclosure)] = value[1]
    if len(hidden) != len(disclosures):
        raise Malformed("discloses something twice")
    shown = {name: _shown(value, name, hidden) for name, value in claims.items()}
    if hidden:
        raise Malformed("discloses what it does not contain")
    return _Token(text, message, header, claims, _mandate(shown.get("delegate_payload")))


def _mandate(items: Any) -> dict[str, Any]:
    if type(items) is not list or any(type(item) is not dict or type(item.get("vct")) is not str for item in items):
        raise Malformed("delegates no mandates")
    found = [item for item in items if not item["vct"].startswith("mandate.checkout.")]
    if len(found) != 1 or found[0]["vct"] not in NEEDED:
        raise Malformed("delegates not one payment mandate")
    mandate: dict[str, Any] = found[0]
    needed = NEEDED[mandate["vct"]]
    if not needed <= mandate.keys() <= needed | FURTHER[mandate["vct"]]:
        raise Malformed("has a mandate with other members")
    return mandate


def _shown(value: Any, name: str, hidden: dict[str, Any]) -> Any:
    if type(value) is dict:
        if "_sd" in value or "..." in value:
            raise Malformed("hides something else than an element of an array")
        return {key: _shown(item, key, hidden) for key, item in value.items()}
    if type(value) is not list:
        return value
    kept = []
    for item in value:
        if type(item) is not dict or "..." not in item:
            kept.append(_shown(item, name, hidden))
        elif item.keys() != {"..."} or type(item["..."]) is not str:
            raise Malformed("has an element of another form")
        elif item["..."] in hidden:
            kept.append(_shown(hidden.pop(item["..."]), name, hidden))
        elif name not in ("allowed", "delegate_payload"):
            raise Malformed(f"hides an element of {name}")
    return kept


def _signature(alg: str, key: str, message: bytes, signature: bytes) -> None:
    right = False
    if alg == "EdDSA" and key.startswith("ed25519:"):
        right = signed(parse_key(key), signature, message)
    elif alg == "ES256" and key.startswith("es256:") and len(signature) == 64:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            public = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point(key))
            public.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))
            right = True
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            right = False
    if not right:
        raise Malformed("is not signed by the key that the bundle has for it")


def point(key: str) -> bytes:
    """`es256:` and the base64url of an uncompressed point of P-256; raises `Malformed`."""
    raw = _decoded(key.removeprefix("es256:"))
    if len(raw) != 65 or raw[0] != 4:
        raise Malformed("is not an uncompressed point of P-256")
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), raw)
    except ValueError as error:
        raise Malformed("is not a point of P-256") from error
    return raw


def _jwk(cnf: Any) -> str:
    """A JWK (RFC 7517) as the bundle writes keys."""
    jwk = cnf.get("jwk") if type(cnf) is dict else None
    if type(jwk) is not dict or "d" in jwk:
        raise Malformed("binds no public key")
    parts = [_decoded(jwk[name]) if type(jwk.get(name)) is str else b"" for name in ("x", "y")]
    if (jwk.get("kty"), jwk.get("crv")) == ("OKP", "Ed25519"):
        return "ed25519:" + base64.b64encode(check_key(parts[0])).decode()
    if (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256") or [len(part) for part in parts] != [32, 32]:
        raise Malformed("binds a key of another kind")
    return "es256:" + base64.urlsafe_b64encode(b"\x04" + parts[0] + parts[1]).rstrip(b"=").decode()


def _read(part: str) -> Any:
    raw = _decoded(part)
    canon.check_depth(raw)
    try:
        value: Any = json.loads(
            raw.decode(), object_pairs_hook=_once, parse_float=_no, parse_constant=_no, parse_int=_integer
        )
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Malformed("has a part that is not strict JSON") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Malformed("has a member twice")
    return dict(pairs)


def _no(text: str) -> NoReturn:
    raise Malformed("has a number that is no integer")


def _integer(text: str) -> int:
    if len(text) > canon.INTEGER_CHARS_MAX or abs(int(text)) > canon.INTEGER_MAX:
        raise Malformed("has an integer beyond 2^53-1")
    return int(text)
