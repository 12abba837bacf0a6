"""A deployment with tools that the calling program runs itself, for the tests of the tier ``observing``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rig import ACME, Provider, edited, make

from countermark.model.clock import FakeClock
from countermark.wiring.init import Made

REFUND, NOTE = "desk.refund", "desk.note"
CALLER_TOOLS = """
[tool."desk.refund"]                      # the support desk's own function moves this money
connector = "caller"
class = "money"
once_per = ["payee", "ticket"]
currency = "eur"
dispatch_within_s = 600
outputs = { receipt = "string", left = "integer" }

[tool."desk.refund".args.amount]
type = "integer"
class = "amount"
required = true

[tool."desk.refund".args.account]
class = "payee"
required = true

[tool."desk.refund".args.ticket]
class = "reference"
required = true

[tool."desk.note"]
connector = "caller"
class = "change"

[tool."desk.note".args.text]
class = "inert"
required = true
"""
NOTES = """
@id("desk.notes")
permit (principal, action == Action::"desk.note", resource);
"""


def make_desk(root: Path, provider: Provider, *, clock: FakeClock | None = None, tools: str = CALLER_TOOLS) -> Made:
    """The vendor-payments deployment with the desk's tools beside Stripe's."""
    files = edited()
    edit = {"tools.toml": files["tools.toml"] + tools, "policies/desk.cedar": NOTES}
    return make(root, provider, clock=clock, edit=edit)


def refund_args(ticket: object, amount: int = 1000, account: str = ACME) -> Mapping[str, Any]:
    return {"amount": amount, "account": account, "ticket": f"T-{ticket}"}
