"""Policy bundles as a pack carries them (docs/spec/policy.md): read, shape-checked, indexed by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark_verify import canon
from countermark_verify.container import POLICY_BYTES_MAX
from countermark_verify.errors import Malformed
from countermark_verify.shape import (
    boolean,
    const,
    either,
    fixed,
    integer,
    listing,
    mapping,
    maybe,
    record,
    text,
)

# Beyond what any deployment has, and below what would cost a reader minutes.
DEFINITIONS_MAX = 512
DEFINITION_PARTS_MAX = 16
ITEMS_MAX = 100_000
TOOLS_MAX = 1_000
TOOL_PARTS_MAX = 256
TOOL_FACTS_MAX = 128
ENUM_MAX = 4_096
BUNDLE_VALUES_MAX = 1_000_000

_TEXT = text()
_LONG_TEXT = text(chars_max=POLICY_BYTES_MAX)
_NAMES = listing(_TEXT, ITEMS_MAX)
_FEW_NAMES = listing(_TEXT, DEFINITION_PARTS_MAX)
_SCALAR = either(_TEXT, integer(), boolean)
_KEY = maybe(text(r"ed25519:[A-Za-z0-9+/]{43}="))

_DEFINITION = record(
    {
        "name": _TEXT,
        "kind": const("window", "slot", "distinct", "grounded"),
        "of": _TEXT,
        "over_us": integer(0),
        "group": _FEW_NAMES,
        "where": listing(fixed(_TEXT, listing(_SCALAR)), DEFINITION_PARTS_MAX),
        "use": const("cap", "floor"),
        "tool": _TEXT,
        "field": _TEXT,
    },
)

_ARGUMENT = record(
    {
        "name": _TEXT,
        "type": const("string", "integer", "boolean"),
        "class": const("amount", "currency", "payee", "reference", "inert"),
        "alias": text(r"[A-Za-z0-9_.$-]{1,64}"),
        "required": boolean,
        "sensitive": boolean,
        "enum": listing(_SCALAR, ENUM_MAX),
        "pattern": _TEXT,
        "minimum": maybe(integer()),
        "maximum": maybe(integer()),
        "chars_max": integer(0),
    },
)

_TOOL = record(
    {
        "name": _TEXT,
        "connector": _TEXT,
        "class": const("money", "change", "read"),
        "args": listing(_ARGUMENT, TOOL_PARTS_MAX),
        "recovery": const("idempotent", "lookup", "escalate"),
        "once_per": _FEW_NAMES,
        "once_scope": _TEXT,
        "currency": _TEXT,
        "encoding": const("form-v1", "query-v1", "json-v1"),
        "key_ttl_s": integer(0),
        "timeout_ms": integer(0),
        "settle_lag_s": integer(0),
        "dispatch_within_s": integer(0),
        "endpoint": text(r"[A-Z]+ \S+"),
        "headers": listing(fixed(_TEXT, _TEXT), TOOL_PARTS_MAX),
        "outputs": listing(fixed(_TEXT, const("string", "integer", "boolean")), TOOL_PARTS_MAX),
        "facts": listing(_TEXT, TOOL_FACTS_MAX),
        "reads": listing(text(r"amount|currency|args\.[A-Za-z0-9_.$-]{1,64}|facts\..{1,64}"), 2 * TOOL_PARTS_MAX),
    }
)

_BUNDLE = record(
    {
        "v": const(1),
        "source": listing(fixed(_TEXT, _LONG_TEXT)),
        "compiled": record(
            {
                "cedar": _LONG_TEXT,
                "schema": _LONG_TEXT,
                "entities": _LONG_TEXT,
                "limits": mapping(integer()),
                "facts": listing(_DEFINITION, DEFINITIONS_MAX),
                "tools": listing(_TOOL, TOOLS_MAX),
                "people": listing(record({"id": _TEXT, "name": _TEXT, "roles": _NAMES, "key": _KEY}), ITEMS_MAX),
                "agents": listing(record({"id": _TEXT, "owner": _TEXT}), ITEMS_MAX),
                "payees": listing(record({"id": _TEXT, "name": _TEXT, "account": _TEXT}), ITEMS_MAX),
                "ladders": listing(
                    record({"id": _TEXT, "roles": _NAMES, "quorum": integer(1), "deadline_s": integer()}), ITEMS_MAX
                ),
                "zone": _TEXT,
                "currencies": _NAMES,
                "author": _TEXT,
            }
        ),
    }
)


@dataclass(frozen=True)
class Bundle:
    """A bundle of the right shape; maps are by id or name, `accounts` from an account to the payees that have it."""

    digest: str
    cedar: str
    schema: str
    entities: str
    limits: Mapping[str, int]
    facts: Mapping[str, dict[str, Any]]
    tools: Mapping[str, dict[str, Any]]
    people: Mapping[str, dict[str, Any]]
    owners: Mapping[str, str]
    payees: frozenset[str]
    accounts: Mapping[str, frozenset[str]]
    ladders: Mapping[str, dict[str, Any]]
    zone: str
    currencies: frozenset[str]
    author: str


def read_bundle(raw: bytes) -> Bundle:
    """Raises `Malformed` unless the bytes are a canonical document of exactly the bundle's shape."""
    document: Any = canon.parse(raw, POLICY_BYTES_MAX, BUNDLE_VALUES_MAX)
    if reason := _BUNDLE(document):
        raise Malformed(f"does not have the shape of a bundle{reason}")
    paths = [path for path, _ in document["source"]]
    if paths != sorted(set(paths)):
        raise Malformed("has sources that are not sorted, or one twice")
    compiled = document["compiled"]
    bundle = Bundle(
        digest=canon.digest("bundle", raw),
        cedar=compiled["cedar"],
        schema=compiled["schema"],
        entities=compiled["entities"],
        limits=compiled["limits"],
        facts=_by(compiled["facts"], "name"),
        tools=_by(compiled["tools"], "name"),
        people=_by(compiled["people"], "id"),
        owners={agent: item["owner"] for agent, item in _by(compiled["agents"], "id").items()},
        payees=frozenset(_by(compiled["payees"], "id")),
        accounts=_accounts(compiled["payees"]),
        ladders=_by(compiled["ladders"], "id"),
        zone=compiled["zone"],
        currencies=frozenset(compiled["currencies"]),
        author=compiled["author"],
    )
    _check_tools(bundle)
    return bundle


def _by(items: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    index = {item[name]: item for item in items}
    if len(index) != len(items):
        raise Malformed("names something twice")
    return index


def _accounts(payees: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    accounts: dict[str, set[str]] = {}
    for payee in payees:
        if payee["account"]:
            accounts.setdefault(payee["account"], set()).add(payee["id"])
    return {account: frozenset(ids) for account, ids in accounts.items()}


def _check_tools(bundle: Bundle) -> None:
    for name, tool in bundle.tools.items():
        _by(tool["args"], "alias")
        _by(tool["args"], "name")
        for member in ("facts", "once_per"):
            if len(set(tool[member])) != len(tool[member]):
                raise Malformed(f"has a tool {name} with one name twice in {member}")
        if unknown := [fact for fact in tool["facts"] if fact not in bundle.facts]:
            raise Malformed(f"has a tool {name} with an undefined fact {unknown[0]}")
