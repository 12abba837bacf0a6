"""The policy bundle of the vectors: small, but real Cedar (docs/spec/policy.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from rungs import ladder, rung

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
# An agent names an account, the record the payee behind it; a payee's id is nobody's account.
PAYEES = {name: f"acct-{name}" for name in ("aurora", "borealis", "cirrus", "drift")}
AGENTS = ("clerk", "payer")
LIMITS = {
    "ask_above": 50_000,
    "board_above": 200_000,
    "check_above": 90_000,
    "day": 408_500,
    "flag_from": 20_000,
    "payees": 3,
}

PERMIT = """\
@id("pay-known")
permit (principal, action in Action::"money", resource) when { context.facts.payee_known };
"""
ASK_TREASURY = """\
@id("ask-treasury") @escalate("treasury")
forbid (principal, action in Action::"money", resource) when { context.amount > Limits::"limits".ask_above };
"""
CEDAR = f"""\
{PERMIT}@id("pay-large") @flag("look at it afterwards")
permit (principal, action in Action::"money", resource)
when {{ context.facts.payee_known && context.amount >= Limits::"limits".flag_from }}
unless {{ context.amount > Limits::"limits".ask_above }};
{ASK_TREASURY}@id("ask-board") @escalate("board")
forbid (principal, action in Action::"money", resource) when {{ context.amount > Limits::"limits".board_above }};
@id("day-limit")
forbid (principal, action in Action::"money", resource) when {{ context.facts.spent_day > Limits::"limits".day }};
@id("check-first")
forbid (principal, action in Action::"money", resource)
when {{ context.amount > Limits::"limits".check_above && !context.facts.checked.known }};
@id("payee-spread")
forbid (principal, action in Action::"money", resource) when {{ context.facts.payees_day > Limits::"limits".payees }};
"""
READ_POLICY = """\
@id("read")
permit (principal, action in Action::"read", resource);
"""
NOTE_POLICY = """\
@id("note")
permit (principal, action in Action::"change", resource) when { context.facts.notes_on_topic <= 3 };
"""
BUILT_IN = {"instructed": "Set<String>", "local_minute": "Long", "local_weekday": "Long", "payee_known": "Bool"}
AGE = "{known: Bool, age_s?: Long}"
CEDAR_TYPES = {"string": "String", "integer": "Long", "boolean": "Bool"}


def members_of(tool: dict[str, Any], facts: dict[str, str]) -> dict[str, str]:
    """Every context member that a policy could read of this tool's actions, with its Cedar type; "?": may be absent."""
    members = {"amount": "Long", "currency": "String"} if tool["class"] == "money" else {}
    for arg in tool["args"]:
        if not arg["sensitive"]:
            members["args." + arg["alias"]] = CEDAR_TYPES[arg["type"]] + ("" if arg["required"] else "?")
    own = {name: kind for name, kind in facts.items() if name in tool["facts"]}
    return members | {"facts." + name: kind for name, kind in (BUILT_IN | own).items()}


def words_for(tool: dict[str, Any], cedar: str) -> list[set[str]]:
    """The words of each policy that covers the tool."""
    texts: list[set[str]] = []
    for policy in cedar.split("@id(")[1:]:
        scope = re.search(r'action in Action::"(\w+)"', policy)
        if scope is None or scope[1] == tool["class"]:
            # What stands behind the semicolon is no part of the policy.
            texts.append(set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", policy.rpartition(";")[0])))
    return texts


def has_use(fact: dict[str, Any], tool: dict[str, Any]) -> bool:
    """Whether the tool's actions have the fields that the fact is made of."""
    roles = {arg["class"] for arg in tool["args"]}
    fields = {"agent", "run", "mandate", "tool"} | {"args." + a["alias"] for a in tool["args"] if not a["sensitive"]}
    fields |= ({"amount", "currency"} if "amount" in roles else set()) | ({"payee"} & roles)
    needed = set(fact["group"])
    if fact["kind"] in ("distinct", "grounded") or (fact["kind"], fact["of"]) == ("window", "amount"):
        needed.add(fact["of"])
    return needed <= fields


def facts_of(tool: dict[str, Any], cedar: str, facts: list[dict[str, Any]]) -> list[str]:
    """The facts that have a use for the tool and whose name is a word of a policy that covers it."""
    words = {word for text in words_for(tool, cedar) for word in text}
    return sorted(fact["name"] for fact in facts if fact["name"] in words and has_use(fact, tool))


def reads_of(tool: dict[str, Any], cedar: str, facts: dict[str, str]) -> list[str]:
    """The members whose names all occur as words of one policy that covers the tool (docs/adr/0004)."""
    texts = words_for(tool, cedar)
    return sorted(name for name in members_of(tool, facts) if any(set(name.split(".")) <= words for words in texts))


def schema_of(tools: list[dict[str, Any]], facts: dict[str, str], limits: dict[str, int]) -> str:
    """Exactly the members that each tool's `reads` lists, and the numbers of the limits."""
    text = "entity Agent = { owner: String };\nentity Payee;\n"
    if limits:
        text += f"entity Limits = {{ {', '.join(f'{name}: Long' for name in sorted(limits))} }};\n"
    text += 'action "money", "change", "read";\n'
    for tool in tools:
        kinds = members_of(tool, facts)
        groups: dict[str, list[str]] = {"": [], "args": [], "facts": []}
        for member in tool["reads"]:
            group, _, name = member.rpartition(".")
            optional = "?" if kinds[member].endswith("?") else ""
            groups[group].append(f"{name}{optional}: {kinds[member].rstrip('?')}")
        parts = groups[""]
        for group in ("args", "facts"):
            # A group whose members may all be absent may be absent itself.
            mark = "?" if all("?:" in member for member in groups[group]) else ""
            parts += [f"{group}{mark}: {{ {', '.join(groups[group])} }}"] if groups[group] else []
        context = f"{{ {', '.join(parts)} }}" if parts else "{}"
        applies = f"principal: Agent, resource: Payee, context: {context}"
        text += f'action "{tool["name"]}" in ["{tool["class"]}"] appliesTo {{ {applies} }};\n'
    return text


def entities_of(limits: dict[str, int], payees: Iterable[str]) -> str:
    """Agents with their owner, payees, and the limits when there are any."""
    rows: list[tuple[str, str, dict[str, Any]]] = [("Agent", name, {"owner": "bookkeeper"}) for name in AGENTS]
    rows += [("Payee", name, {}) for name in ("$none", "$unknown", *payees)]
    rows += [("Limits", "limits", dict(limits))] if limits else []
    entities = [{"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": []} for kind, name, attrs in rows]
    return json.dumps(entities, separators=(",", ":"))


def _arg(name: str, kind: str, role: str, alias: str, required: bool = True, sensitive: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "class": role,
        "alias": alias,
        "required": required,
        "sensitive": sensitive,
        "enum": [],
        "pattern": "",
        "minimum": 1 if kind == "integer" else None,
        "maximum": 10**9 if kind == "integer" else None,
        "chars_max": 200,
    }


def _tool(name: str, role: str, args: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "connector": "bank",
        "class": role,
        "args": args,
        "recovery": "idempotent",
        "once_per": [],
        "once_scope": name,
        "currency": "",
        "encoding": "form-v1",
        "key_ttl_s": 86_400,
        "timeout_ms": 10_000,
        "settle_lag_s": 60,
        "dispatch_within_s": 120,
        "endpoint": "POST https://bank.example/v1/" + name.split(".")[1],
        "headers": [["Bank-Version", "2026-01"]],
        "outputs": [],
        "facts": [],
        "reads": [],
    } | more


_PAYMENT = [
    _arg("amount", "integer", "amount", "amount"),
    _arg("currency", "string", "currency", "currency"),
    _arg("destination", "string", "payee", "destination"),
    _arg("metadata[invoice]", "string", "reference", "invoice"),
]
_ONCE = {"once_per": ["invoice", "payee"], "once_scope": "payables"}
TOOLS = [
    _tool(
        "bank.accounts.check",
        "read",
        [_arg("account", "string", "reference", "account")],
        encoding="query-v1",
        endpoint="GET https://bank.example/v1/accounts",
        outputs=[["balance", "integer"], ["open", "boolean"]],
    ),
    _tool(
        "bank.notes.add",
        "change",
        [_arg("text", "string", "inert", "text"), _arg("topic", "string", "inert", "topic", required=False)],
        encoding="json-v1",
    ),
    _tool(
        "bank.payouts.create",
        "money",
        [*_PAYMENT, _arg("description", "string", "inert", "memo", required=False, sensitive=True)],
        **_ONCE,
    ),
    _tool(
        "bank.transfers.create",
        "money",
        [*_PAYMENT, _arg("urgent", "boolean", "inert", "urgent", required=False)],
        **_ONCE,
    ),
]
_MONEY_TOOLS = ["bank.payouts.create", "bank.transfers.create"]


def fact_of(name: str, kind: str, use: str, of: str, group: list[str], **more: Any) -> dict[str, Any]:
    base = {"name": name, "kind": kind, "use": use, "of": of, "group": group, "over_us": DAY_US, "where": []}
    return base | {"tool": "", "field": ""} | more


_PAYING = [["tool", _MONEY_TOOLS]]
FACTS = [
    fact_of("checked", "slot", "floor", "", ["agent"], where=[["tool", ["bank.accounts.check"]]]),
    fact_of("payees_day", "distinct", "cap", "payee", ["agent"], where=_PAYING),
    fact_of("spent_day", "window", "cap", "amount", ["agent", "currency"], where=_PAYING),
]
# Its group is an optional argument: an action without it is denied.
NOTES = fact_of("notes_on_topic", "window", "cap", "count", ["args.topic"])
FACT_TYPES = {"checked": AGE, "notes_on_topic": "Long", "payees_day": "Long", "spent_day": "Long"}


def person_key(person: str) -> Key:
    return Key(f"person/{person}")


LEAN = ["bank.transfers.create"]
CHECKED = ["bank.accounts.check", *LEAN]


def bundle_doc(note: str = "first", tools: list[str] | None = None) -> dict[str, Any]:
    """The bundle; another `note` makes another bundle with the same rules. `tools` keeps the files of attacks small."""
    compiled = {
        "people": [
            {"id": name, "name": name, "roles": roles, "keys": [person_key(name).text]}
            for name, roles in sorted(PEOPLE.items())
        ],
        "agents": [{"id": name, "owner": "bookkeeper"} for name in AGENTS],
        "payees": [{"id": name, "name": name, "account": account} for name, account in PAYEES.items()],
        "ladders": [
            ladder("board", rung(["board"], 2, 7_200)),
            ladder("treasury", rung(["treasury"], 1, 3_600)),
        ],
        "zone": "Europe/Zurich",
        "currencies": ["CHF", "EUR"],
        "author": "steward",
    }
    chosen = [tool for tool in TOOLS if tools is None or tool["name"] in tools]
    classes = {tool["class"] for tool in chosen}
    # A policy that covers no tool would not be valid.
    cedar = CEDAR + (READ_POLICY if "read" in classes else "") + (NOTE_POLICY if "change" in classes else "")
    facts = sorted([*FACTS, NOTES], key=lambda fact: str(fact["name"])) if "change" in classes else FACTS
    compiled |= rules(chosen, cedar, facts, FACT_TYPES, LIMITS)
    return {"v": 1, "source": [["limits.toml", f"# {note}\n"]], "compiled": compiled}


def bundle_with(
    change: Callable[[dict[str, Any]], None] | None = None, cedar: str | None = None, **limits: int
) -> dict[str, Any]:
    """The lean bundle with other numbers, perhaps with other policies, perhaps with a lie in its compiled part."""
    bundle = bundle_doc("first", LEAN)
    compiled = bundle["compiled"]
    compiled |= rules(compiled["tools"], cedar or CEDAR, FACTS, FACT_TYPES, LIMITS | limits)
    if change is not None:
        change(compiled)
    return bundle


def plain_bundle(
    note: str = "plain",
    cedar: str = PERMIT,
    tools: list[str] | None = None,
    keys: dict[str, Key] | None = None,
    limits: dict[str, int] | None = None,
    **args: dict[str, Any],
) -> dict[str, Any]:
    """One tool, one policy, no facts of its own, no limits: for attacks in which no rule of the bundle plays a part.

    `args` declare arguments otherwise, and optional ones at all unless they are sensitive; `keys` gives people other
    keys or enrols somebody as an activator.
    """
    bundle = bundle_doc(note, tools or LEAN)
    compiled = bundle["compiled"]
    for person, key in (keys or {}).items():
        known = [row for row in compiled["people"] if row["id"] == person]
        if not known:
            known = [{"id": person, "name": person, "roles": ["activator"]}]
            compiled["people"] = sorted([*compiled["people"], *known], key=lambda row: str(row["id"]))
        known[0]["keys"] = [key.text]
    drafts = []
    for tool in compiled["tools"]:
        kept = [arg for arg in tool["args"] if arg["required"] or arg["sensitive"] or arg["alias"] in args]
        declared = [arg | args.get(arg["alias"], {}) for arg in kept]
        drafts.append(tool | {"args": declared})
    compiled["payees"] = compiled["payees"][:2]
    known_payees = [row["id"] for row in compiled["payees"]]
    compiled |= rules(drafts, cedar, [], {}, limits or {}, known_payees)
    return bundle


def asking_bundle(note: str = "asking", **more: Any) -> dict[str, Any]:
    """The plain bundle, and a question to the treasury about large payments."""
    return plain_bundle(note, PERMIT + ASK_TREASURY, limits={"ask_above": LIMITS["ask_above"]}, **more)


def rules(
    tools: list[dict[str, Any]],
    cedar: str,
    facts: list[dict[str, Any]],
    types: dict[str, str],
    limits: dict[str, int],
    payees: Iterable[str] = PAYEES,
) -> dict[str, Any]:
    """The members of a bundle that say what may be done."""
    used = [tool | {"facts": facts_of(tool, cedar, facts)} for tool in tools]
    drafts = [tool | {"reads": reads_of(tool, cedar, types)} for tool in used]
    return {
        "cedar": cedar,
        "schema": schema_of(drafts, types, limits),
        "entities": entities_of(limits, payees),
        "limits": limits,
        "facts": facts,
        "tools": drafts,
    }
