"""What the tests of this room share: keys, connector drafts, and a small policy that compiles."""

from __future__ import annotations

import base64

from countermark.authority import generate, public_of
from countermark.model.tool import ArgSpec, ToolSpec
from countermark.policy import Bundle, compile_bundle
from countermark.policy.templates import template_files, template_people, with_keys

KEYS = {name: str(public_of(generate())) for name in ("treasurer", "controller")}
WEAK_KEY = "ed25519:" + base64.b64encode(bytes(32)).decode()


def _text(name: str, class_: str, alias: str = "", required: bool = False) -> ArgSpec:
    return ArgSpec(name, "string", class_, alias or name, required)  # type: ignore[arg-type]


AMOUNT = ArgSpec("amount", "integer", "amount", "amount")
DRAFTS = {
    "bank": (
        ToolSpec(
            "bank.pay", "bank", "money",
            (AMOUNT, _text("currency", "currency", required=True), _text("to", "payee", required=True),
             _text("note", "inert"), _text("metadata[invoice]", "reference", "invoice")),
            recovery="idempotent", key_ttl_s=3_600, encoding="form-v1", endpoint="POST /v1/pay",
            outputs=(("paid", "integer"),),
        ),
        ToolSpec(
            "bank.sweep", "bank", "money", (AMOUNT, _text("to", "payee"), _text("batch", "reference", required=True)),
            encoding="form-v1", endpoint="POST /v1/sweep",
        ),
        ToolSpec("bank.balance", "bank", "read", (), encoding="form-v1", endpoint="GET /v1/balance",
                 outputs=(("total", "integer"),)),
    )
}  # fmt: skip

LIMITS = f"""
author = "treasurer"
zone = "Europe/Berlin"
currencies = ["eur"]
[people.treasurer]
roles = ["principal"]
key = "{KEYS["treasurer"]}"
[people.controller]
roles = ["approver"]
key = "{KEYS["controller"]}"
[agents.treasury]
owner = "treasurer"
[payees.acme]
account = "acct_acme"
[payment]
max = 1000
ask_above = 500
flag_above = 200
unknown_payee = "ask"
ladder = "finance"
[[window]]
name = "day_total"
over = "24h"
per = ["agent"]
max = 5000
[ladder.finance]
roles = ["approver"]
deadline = "4h"
"""
TOOLS = """
[connector.bank]
origin = "https://api.bank.example"
[tool."bank.pay"]
connector = "bank"
once_per = ["payee", "invoice"]
[tool."bank.pay".args."metadata[invoice]"]
required = true
[tool."bank.sweep"]
connector = "bank"
once_per = ["batch"]
currency = "eur"
[tool."bank.balance"]
connector = "bank"
"""
SOURCES = {"limits.toml": LIMITS, "tools.toml": TOOLS}


def compiled(**files: str) -> Bundle:
    """The small policy with some files replaced or added; ``own`` is ``policies/own.cedar``."""
    names = {"limits": "limits.toml", "tools": "tools.toml", "facts": "facts.toml", "own": "policies/own.cedar",
             "ladders": "ladders.toml", "cases": "tests/cases.toml"}  # fmt: skip
    sources = {**SOURCES, **{names[key]: text for key, text in files.items()}}
    return compile_bundle(tuple(sources.items()), DRAFTS)


def template(name: str, drafts: dict) -> Bundle:
    """A shipped template with fresh keys."""
    keys = {person: str(public_of(generate())) for person in template_people(template_files(name))}
    return compile_bundle(tuple(with_keys(template_files(name), keys).items()), drafts)
