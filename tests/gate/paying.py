"""What the tests of payees share: signed orders, a policy with somebody to sign them, a look at the twin's accounts."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from rig import edited

from countermark import Deployment
from countermark.authority import load_private, set_payee
from countermark.model.clock import US
from countermark.twins.stripe import StripeTwin
from countermark.wiring.init import Made

CLERK = """[people.anna]               # keeps the register of payees, and may answer
name = "Anna"
roles = ["payees", "approver"]
key = "{{KEY:anna}}"

[agents.treasury]
"""
RESOLVE = {"# resolve = ": "resolve = "}


def with_anna(changes: Mapping[str, str] | None = None, tools: Mapping[str, str] | None = None) -> dict[str, str]:
    """The policy with Anna, who sets payees and may approve."""
    return edited({"[agents.treasury]\n": CLERK, **(changes or {})}, tools)


def order(
    handle: Deployment, made: Made, payee: str, account: str, *, name: str = "", person: str = "anna",
    now_us: int = 0, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """A signed order that replaces the present details; ``changes`` replace members before it is signed."""
    found = {row["payee"]: row for row in handle.call("payees", {})}.get(payee)
    document = {
        "v": 1, "deployment": made.deployment, "payee": payee, "account": account,
        "name": name or (found["name"] if found else payee),
        "previous": None if found is None else {"account": found["account"], "record": found["record"]},
        "alike": [], "reason": "their letter of today", "person": person, "nonce": "0f" * 16,
        "not_after": (now_us or 8 * 10**15) + 3600 * US,
    }  # fmt: skip
    return set_payee({**document, **changes}, load_private(made.people[person]))


def stripe(twin: StripeTwin, method: str, path: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
    """One request to the simulator, as its account's owner would make it."""
    connection = http.client.HTTPConnection(urlsplit(twin.url).netloc, timeout=10)
    headers = {"Authorization": f"Bearer {twin.key}", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request(method, path, urlencode(form or {}), headers)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def new_bank_account(twin: StripeTwin, account: str, number: str) -> dict[str, Any]:
    """The account's owner, or somebody who took it over, makes another bank account the one that is paid."""
    form = {
        "external_account[object]": "bank_account", "external_account[country]": "DE",
        "external_account[currency]": "eur", "external_account[account_number]": number,
        "default_for_currency": "true",
    }  # fmt: skip
    return stripe(twin, "POST", f"/v1/accounts/{account}/external_accounts", form)
