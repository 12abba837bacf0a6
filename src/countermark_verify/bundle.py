"""Policy bundles as a pack carries them (docs/spec/policy.md): read, shape-checked, indexed by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from countermark_verify import canon, onchain
from countermark_verify.ap2 import point
from countermark_verify.container import POLICY_BYTES_MAX
from countermark_verify.crypto import is_origin, parse_any, parse_key
from countermark_verify.errors import Malformed
from countermark_verify.fields import KEY
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
from countermark_verify.witness_policy import BEFORE, CLASSES, WITNESS, WitnessRule, read_rule

# Beyond what any deployment has, and below what would cost a reader minutes.
DEFINITIONS_MAX = 512
DEFINITION_PARTS_MAX = 16
ITEMS_MAX = 100_000
TOOLS_MAX = 1_000
TOOL_PARTS_MAX = 256
TOOL_FACTS_MAX = 128
ENUM_MAX = 4_096
BUNDLE_VALUES_MAX = 1_000_000
KEPT = 4  # bundles, and what was found out about each, for the next pack that has them
AGENT_KEYS_MAX = 8
RUNGS_MAX = 8
DEADLINE_S_MAX = 30 * 86_400
RUNG_DAYS_MAX = 120  # by the calendar, where a deadline is in business time

_TEXT = text()
_LONG_TEXT = text(chars_max=POLICY_BYTES_MAX)
_NAMES = listing(_TEXT, ITEMS_MAX)
_FEW_NAMES = listing(_TEXT, DEFINITION_PARTS_MAX)
_SCALAR = either(_TEXT, integer(), boolean)
PERSON_KEYS_MAX = 16
_PERSON = record({"id": _TEXT, "name": _TEXT, "roles": _NAMES, "keys": listing(KEY, PERSON_KEYS_MAX)})
_KEYS = listing(text(r"ed25519:[A-Za-z0-9+/]{43}="), AGENT_KEYS_MAX)

_DEFINITION = record(
    {
        "name": _TEXT,
        "kind": const("window", "slot", "distinct", "grounded", "details"),
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
        "unit": text(r"[1-9][0-9]{0,36}"),
    },
    optional=("unit",),
)

NESTED = re.compile(r"[A-Za-z0-9_$-]{1,64}(\.[A-Za-z0-9_$-]{1,64}){0,3}")  # a name whose dots open objects
PLACE = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")  # an argument, by its alias, in the path of an endpoint

CALLER = "caller"  # the connector of tools that the asking program runs itself
_STATUSES = listing(integer(200, 599), TOOL_PARTS_MAX)

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
        "encoding": const("evm-v1", "form-v1", "form-bare-v1", "query-v1", "json-v1", "mcp-v1", "object-v1"),
        "key_ttl_s": integer(0),
        "timeout_ms": integer(0),
        "settle_lag_s": integer(0),
        "dispatch_within_s": integer(0),
        "endpoint": text(r"[A-Z]+ \S+"),
        "headers": listing(fixed(_TEXT, _TEXT), TOOL_PARTS_MAX),
        "outputs": listing(fixed(_TEXT, const("string", "integer", "boolean")), TOOL_PARTS_MAX),
        "facts": listing(_TEXT, TOOL_FACTS_MAX),
        "reads": listing(text(r"amount|currency|args\.[A-Za-z0-9_.$-]{1,64}|facts\..{1,64}"), 2 * TOOL_PARTS_MAX),
        "answers": record(
            {
                "confirmed": _STATUSES,
                "failed": _STATUSES,
                "ref": _TEXT,
                "amount": _TEXT,
                "currency": _TEXT,
                "lookup": _TEXT,
            }
        ),
        "monitor": integer(),
        "resolve": text(r"[A-Za-z0-9_.$-]{1,64}"),
        "witness": const(BEFORE),
        "evm": onchain.EVM,
    },
    optional=("answers", "monitor", "resolve", "witness", "evm"),
)

_HOURS = record({"from": integer(0, 1_439), "to": integer(1, 1_440), "days": listing(integer(1, 7), 7)})
_RUNG = record(
    {"roles": _NAMES, "quorum": integer(1), "deadline_s": integer(1, DEADLINE_S_MAX), "hours": maybe(_HOURS)}
)

_AP2 = record(
    {
        "id": _TEXT,
        "issuer": either(text(r"es256:[A-Za-z0-9_-]{87}"), text(r"ed25519:[A-Za-z0-9+/]{43}=")),
        "principal": _TEXT,
        "agent": _TEXT,
        "agent_key": either(text(r"es256:[A-Za-z0-9_-]{87}"), text(r"ed25519:[A-Za-z0-9+/]{43}=")),
        "audience": _TEXT,
        "tools": listing(_TEXT, TOOLS_MAX),
        "payees": listing(fixed(_TEXT, _TEXT), ENUM_MAX),
    }
)

KEEP_S_MAX = 200 * 366 * 86_400
_RETENTION = record(
    {"keep_s": maybe(integer(0, KEEP_S_MAX)), "tools": listing(fixed(_TEXT, integer(0, KEEP_S_MAX)), TOOLS_MAX)}
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
                "people": listing(_PERSON, ITEMS_MAX),
                "agents": listing(record({"id": _TEXT, "owner": _TEXT, "keys": _KEYS}, ["keys"]), ITEMS_MAX),
                "payees": listing(record({"id": _TEXT, "name": _TEXT, "account": _TEXT}), ITEMS_MAX),
                "ladders": listing(record({"id": _TEXT, "rungs": listing(_RUNG, RUNGS_MAX)}), ITEMS_MAX),
                "zone": _TEXT,
                "currencies": _NAMES,
                "author": _TEXT,
                "test": const(True),
                "console": _TEXT,
                "ap2": listing(_AP2, TOOL_PARTS_MAX),
                "retention": _RETENTION,
                "witness": WITNESS,
            },
            optional=("test", "console", "ap2", "retention", "witness"),
        ),
    }
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle of the right shape; maps are by id or name, `accounts` from an account to the payees that have it.

    Nobody changes one: the same bytes give the same object, as long as few others are read in between.
    """

    digest: str
    cedar: str
    schema: str
    entities: str
    limits: Mapping[str, int]
    facts: Mapping[str, dict[str, Any]]
    tools: Mapping[str, dict[str, Any]]
    people: Mapping[str, dict[str, Any]]
    owners: Mapping[str, str]
    # Agent -> the keys with which it signs its requests.
    keys: Mapping[str, frozenset[str]]
    # Key -> the person or the agent who has it.
    holders: Mapping[str, str]
    # Who may grant mandates.
    principals: tuple[str, ...]
    payees: frozenset[str]
    accounts: Mapping[str, frozenset[str]]
    # Payee -> its name and account.
    details: Mapping[str, tuple[str, str]]
    ladders: Mapping[str, dict[str, Any]]
    zone: str
    currencies: frozenset[str]
    author: str
    # Nothing real moves: one other person may enrol somebody's key.
    test: bool
    # Sources of AP2 mandates.
    ap2: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    # How long sealed values are kept; None: no rule.
    retention: Mapping[str, Any] | None = None
    # Whose cosignatures money waits for.
    witness: WitnessRule | None = None

    def keep_s(self, tool: str) -> int | None:
        """The retention rule for a tool's values, in seconds; None where there is none."""
        if self.retention is None:
            return None
        keep: int | None = self.retention["tools"].get(tool, self.retention["keep_s"])
        return keep

    def independent(self, person: str, *involved: str | None) -> bool:
        """Has a role of a ladder, and is none of those whom it concerns: who wrote the policy, who owns the agent."""
        roles = {role for ladder in self.ladders.values() for rung in ladder["rungs"] for role in rung["roles"]}
        known = self.people.get(person)
        return known is not None and not roles.isdisjoint(known["roles"]) and person not in involved


@lru_cache(maxsize=KEPT)
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
        keys={item["id"]: frozenset(item.get("keys", ())) for item in compiled["agents"]},
        holders={
            key: item["id"] for who in ("agents", "people") for item in compiled[who] for key in item.get("keys", ())
        },
        principals=tuple(item["id"] for item in compiled["people"] if "principal" in item["roles"]),
        payees=frozenset(_by(compiled["payees"], "id")),
        accounts=_accounts(compiled["payees"]),
        details={item["id"]: (item["name"], item["account"]) for item in compiled["payees"]},
        ladders=_by(compiled["ladders"], "id"),
        zone=compiled["zone"],
        currencies=frozenset(compiled["currencies"]),
        author=compiled["author"],
        test="test" in compiled,
        ap2=_by(compiled.get("ap2", []), "id"),
        retention=_retention(compiled.get("retention")),
        witness=read_rule(compiled["witness"]) if "witness" in compiled else None,
    )
    _check_tools(bundle)
    _check_keys(compiled)
    _check_ladders(bundle)
    _check_members(compiled)
    return bundle


def _retention(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {"keep_s": found["keep_s"], "tools": dict(map(tuple, found["tools"]))}


def _check_members(compiled: dict[str, Any]) -> None:
    """What stands there only when there is such a thing: the console's page, and sources of AP2 mandates."""
    if "console" in compiled and not is_origin(compiled["console"]):
        raise Malformed("has a console that is not the origin of a page")
    if compiled.get("ap2") == []:
        raise Malformed("has an empty list of AP2 sources")
    if (retention := compiled.get("retention")) is not None:
        names = [name for name, _ in retention["tools"]]
        if names != sorted(set(names)) or (retention["keep_s"] is None and not names):
            raise Malformed("has a retention without a rule, or rules that are not sorted, each once")
    for source in compiled.get("ap2", ()):
        issuer, agent = (_ap2_key(source["id"], source[name]) for name in ("issuer", "agent_key"))
        merchants = [merchant for merchant, _ in source["payees"]]
        if issuer == agent or len(set(merchants)) < len(merchants):
            raise Malformed(f"has an AP2 source {source['id']} whose agent is its issuer, or a merchant twice")


def _ap2_key(source: str, key: str) -> bytes:
    try:
        return point(key) if key.startswith("es256:") else parse_key(key)
    except Malformed as error:
        raise Malformed(f"has an AP2 source {source} with a key that {error}") from error


def _check_keys(compiled: dict[str, Any]) -> None:
    """A key is one person's or one agent's alone, and `keys` stands only where there are any."""
    listed = [key for item in compiled["agents"] for key in item.get("keys", ())]
    people = [parse_any(key) for item in compiled["people"] for key in item["keys"]]
    taken = set(people)
    if len(taken) != len(people):
        raise Malformed("enrols two people with the same key, or one key twice")
    empty = any(item.get("keys") == [] for item in compiled["agents"])
    if empty or len(set(listed)) != len(listed) or taken & set(listed):
        raise Malformed("has an agent's key that is somebody else's too, or an empty list of keys")


def _check_ladders(bundle: Bundle) -> None:
    """A ladder has a rung; business hours are part of a day, and no rung lasts longer than can be followed."""
    for name, ladder in bundle.ladders.items():
        if not ladder["rungs"]:
            raise Malformed(f"has a ladder {name} without a rung")
        for hours, rung in ((rung["hours"], rung) for rung in ladder["rungs"] if rung["hours"] is not None):
            days, length = hours["days"], hours["to"] - hours["from"]
            if length < 1 or not days or days != sorted(set(days)):
                raise Malformed(f"has a ladder {name} whose business hours are none")
            if rung["deadline_s"] * 7 > RUNG_DAYS_MAX * length * 60 * len(days):
                raise Malformed(f"has a ladder {name} with a rung of more than {RUNG_DAYS_MAX} days")


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
        _check_path(name, tool)
        onchain.check_tool(name, tool)
        if "resolve" in tool and all(item["alias"] != tool["resolve"] for item in tool["args"]):
            raise Malformed(f"has a tool {name} that reads what stands behind no argument of it")
        if tool["encoding"] in ("mcp-v1", "object-v1"):
            _check_nesting(name, tool)
        sent = tool["connector"] != CALLER and tool["class"] in CLASSES
        if "witness" in tool and (bundle.witness is None or not sent):
            raise Malformed(f"has a tool {name} that waits for witnesses, who are not named or cannot hold it back")
        if tool["connector"] == CALLER:
            described = {"endpoint": f"CALL {name}", "encoding": "object-v1", "headers": [], "recovery": "escalate"}
            if any(tool[member] != value for member, value in described.items()):
                raise Malformed(f"has a tool {name} that its caller runs, and that says how it would be sent")
        if unknown := [fact for fact in tool["facts"] if fact not in bundle.facts]:
            raise Malformed(f"has a tool {name} with an undefined fact {unknown[0]}")


def _check_path(name: str, tool: dict[str, Any]) -> None:
    """Braces in an endpoint name required, clear arguments, once each, between the origin and a query."""
    required = {item["alias"] for item in tool["args"] if item["required"] and not item["sensitive"]}
    before, _, query = tool["endpoint"].partition("?")
    parts = before.split("/")
    path, aliases = "/".join(parts[3:]), PLACE.findall("/".join(parts[3:]))
    if len(set(aliases)) != len(aliases) or not required.issuperset(aliases):
        raise Malformed(f"has a tool {name} whose endpoint takes something else than required, clear arguments, once")
    rest = "/".join(parts[:3]) + PLACE.sub("", path) + query
    if "{" in rest or "}" in rest:
        raise Malformed(f"has a tool {name} whose endpoint has braces that name no argument of its path")


def _check_nesting(name: str, tool: dict[str, Any]) -> None:
    """Arguments fit into one object: none of them stands where others open a deeper one."""
    names = {item["name"] for item in tool["args"] if "{" + item["alias"] + "}" not in tool["endpoint"]}
    if not all(NESTED.fullmatch(one) for one in names):
        raise Malformed(f"has a tool {name} with an argument that cannot be a member of a JSON object")
    if any(
        ".".join(parts[:end]) in names for parts in (one.split(".") for one in names) for end in range(1, len(parts))
    ):
        raise Malformed(f"has a tool {name} with an argument that stands where another opens an object")
