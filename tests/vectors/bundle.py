"""The policy bundle of the vectors: small, but real Cedar (docs/spec/policy.md)."""

from __future__ import annotations

import json
from typing import Any

from build import Key

DAY_US = 86_400_000_000
PEOPLE = {
    "director": ["board", "principal"],
    "controller": ["board", "treasury"],
    "treasurer": ["treasury"],
    "steward": ["treasury"],  # the bundle's author
    "bookkeeper": ["treasury"],  # owns both agents
    "activator": ["activator"],
}
PAYEES = {name: f"bank details of {name}" for name in ("aurora", "borealis", "cirrus", "drift")}
LIMITS = {
    "ask_above": 50_000,
    "board_above": 200_000,
    "check_above": 90_000,
    "day": 407_000,
    "flag_from": 20_000,
    "payees": 3,
}

CEDAR = """\
@id("pay-known")
permit (principal, action in Action::"money", resource) when { context.facts.payee_known };
@id("pay-large") @flag("look at it afterwards")
permit (principal, action in Action::"money", resource)
when { context.facts.payee_known && context.amount >= context.limits.flag_from }
unless { context.amount > context.limits.ask_above };
@id("read")
permit (principal, action in Action::"read", resource);
@id("ask-treasury") @escalate("treasury")
forbid (principal, action in Action::"money", resource) when { context.amount > context.limits.ask_above };
@id("ask-board") @escalate("board")
forbid (principal, action in Action::"money", resource) when { context.amount > context.limits.board_above };
@id("day-limit")
forbid (principal, action in Action::"money", resource) when { context.facts.spent_day > context.limits.day };
@id("check-first")
forbid (principal, action in Action::"money", resource)
when { context.amount > context.limits.check_above && !context.facts.checked.known };
@id("payee-spread")
forbid (principal, action in Action::"money", resource) when { context.facts.payees_day > context.limits.payees };
"""

_BUILT_IN = "payee_known: Bool, local_minute: Long, local_weekday: Long, instructed: Set<String>"
_TYPES = f"""\
entity Agent = {{ owner: String }};
entity Payee;
type Limits = {{ {", ".join(f"{name}: Long" for name in sorted(LIMITS))} }};
type Facts = {{ {_BUILT_IN} }};
type MoneyFacts = {{ {_BUILT_IN}, spent_day: Long, checked: {{known: Bool, age_s?: Long}}, payees_day: Long }};
action "money", "change", "read";
"""
_PAID = "amount: Long, currency: String, destination: String, invoice: String"
_APPLIES = {
    "bank.accounts.check": ("read", "", "account: String", "Facts"),
    "bank.notes.add": ("change", "", "text: String", f"{{ {_BUILT_IN}, spent_day: Long }}"),
    "bank.payouts.create": ("money", "amount: Long, currency: String, ", _PAID, "MoneyFacts"),
    "bank.transfers.create": ("money", "amount: Long, currency: String, ", f"{_PAID}, urgent?: Bool", "MoneyFacts"),
}


def schema_of(tools: list[str]) -> str:
    text = _TYPES
    for tool in tools:
        group, money, args, facts = _APPLIES[tool]
        context = f"{{ {money}args: {{ {args} }}, facts: {facts}, limits: Limits }}"
        text += (
            f'action "{tool}" in ["{group}"] appliesTo {{ principal: Agent, resource: Payee, context: {context} }};\n'
        )
    return text


def _entity(kind: str, name: str, attrs: dict[str, str]) -> dict[str, Any]:
    return {"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": []}


ENTITIES = json.dumps(
    [_entity("Agent", name, {"owner": "bookkeeper"}) for name in ("clerk", "payer")]
    + [_entity("Payee", name, {}) for name in ("$none", "$unknown", *PAYEES)],
    separators=(",", ":"),
)


def _arg(name: str, kind: str, role: str, alias: str, required: bool = True, sensitive: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "class": role,
        "alias": alias,
        "required": required,
        "sensitive": sensitive,
        "enum": None,
        "pattern": None,
        "minimum": 1 if kind == "integer" else None,
        "maximum": 10**9 if kind == "integer" else None,
        "chars_max": 200 if kind == "string" else None,
    }


def _tool(name: str, role: str, args: list[dict[str, Any]], facts: list[str], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "connector": "bank",
        "class": role,
        "args": args,
        "recovery": "idempotent",
        "once_per": [],
        "once_scope": name,
        "currency": None,
        "encoding": "form-v1",
        "key_ttl_s": 86_400,
        "timeout_ms": 10_000,
        "settle_lag_s": 60,
        "dispatch_within_s": 120,
        "endpoint": "POST https://bank.example/v1/" + name.split(".")[1],
        "headers": [["Bank-Version", "2026-01"]],
        "outputs": [],
        "facts": facts,
    } | more


_PAYMENT = [
    _arg("amount", "integer", "amount", "amount"),
    _arg("currency", "string", "currency", "currency"),
    _arg("destination", "string", "payee", "destination"),
    _arg("metadata[invoice]", "string", "reference", "invoice"),
]
_ONCE = {"once_per": ["invoice", "payee"], "once_scope": "payables"}
_MONEY = ["checked", "payees_day", "spent_day"]
TOOLS = [
    _tool(
        "bank.accounts.check",
        "read",
        [_arg("account", "string", "reference", "account")],
        [],
        encoding="query-v1",
        endpoint="GET https://bank.example/v1/accounts",
        outputs=["balance"],
    ),
    _tool("bank.notes.add", "change", [_arg("text", "string", "inert", "text")], ["spent_day"], encoding="json-v1"),
    _tool(
        "bank.payouts.create",
        "money",
        [*_PAYMENT, _arg("description", "string", "inert", "memo", required=False, sensitive=True)],
        _MONEY,
        **_ONCE,
    ),
    _tool(
        "bank.transfers.create",
        "money",
        [*_PAYMENT, _arg("urgent", "boolean", "inert", "urgent", required=False)],
        _MONEY,
        **_ONCE,
    ),
]
_MONEY_TOOLS = ["bank.payouts.create", "bank.transfers.create"]


def _fact(name: str, kind: str, of: str | None, group: list[str], tools: list[str], use: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "of": of,
        "over_us": DAY_US,
        "group": group,
        "where": [["tool", tools]],
        "use": use,
        "tool": None,
        "field": None,
    }


FACTS = [
    _fact("checked", "slot", None, ["agent"], ["bank.accounts.check"], "floor"),
    _fact("payees_day", "distinct", "payee", ["agent"], _MONEY_TOOLS, "cap"),
    _fact("spent_day", "window", "amount", ["agent", "currency"], _MONEY_TOOLS, "cap"),
]


def person_key(person: str) -> Key:
    return Key(f"person/{person}")


LEAN = ["bank.accounts.check", "bank.transfers.create"]


def bundle_doc(note: str = "first", tools: list[str] | None = None) -> dict[str, Any]:
    """The bundle; another `note` makes another bundle with the same rules. `tools` keeps the files of attacks small."""
    drafts = [tool for tool in TOOLS if tools is None or tool["name"] in tools]
    compiled = {
        "cedar": CEDAR,
        "schema": schema_of([tool["name"] for tool in drafts]),
        "entities": ENTITIES,
        "limits": LIMITS,
        "facts": FACTS,
        "tools": drafts,
        "people": [
            {"id": name, "name": name, "roles": roles, "key": person_key(name).text}
            for name, roles in sorted(PEOPLE.items())
        ],
        "agents": [{"id": name, "owner": "bookkeeper"} for name in ("clerk", "payer")],
        "payees": [{"id": name, "name": name, "account": account} for name, account in PAYEES.items()],
        "ladders": [
            {"id": "board", "roles": ["board"], "quorum": 2, "deadline_s": 3600},
            {"id": "treasury", "roles": ["treasury"], "quorum": 1, "deadline_s": 3600},
        ],
        "zone": "Europe/Zurich",
        "currencies": ["EUR"],
        "author": "steward",
    }
    return {"v": 1, "source": [["limits.toml", f"# {note}\n"]], "compiled": compiled}
