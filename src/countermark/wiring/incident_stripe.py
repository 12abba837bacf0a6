"""Incident 2 where no record tells of the change: at the provider, whose bank details the gate reads again before it
sends. Played against the Stripe simulator, once without the second look and once with it.
"""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from countermark.audit import explain
from countermark.authority import build_approval, load_private, sign_approval
from countermark.connectors import StripeConnector
from countermark.journal import SqliteStore
from countermark.model.errors import ConfigError
from countermark.model.tool import Value
from countermark.policy import template_files
from countermark.twins.stripe import StripeTwin
from countermark.wiring.config import load_config
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import Made, init_deployment

SEED = 4713
AGENT, TOOL, ACCOUNT = "treasury", "stripe.transfers.create", "acct_1AcmePaper"
AMOUNT = 4_800_000  # 48,000.00 EUR
ANOTHER = "370400440532013000"
TIMEOUT_S = 10


def run_at_provider(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Ask, change the bank details at the provider, approve: paid without the second look, stopped with it."""
    say("")
    say("5. The same at a payment provider (the Stripe simulator); the details change, and no record tells of it:")
    paid = _play(folder / "provider-not-read-again", read_again=False)
    say(f"   not read again: {paid['status']}, {paid['moved']} transfer moved {paid['amount'] // 100:,}.00 EUR")
    stopped = _play(folder / "provider-read-again", read_again=True)
    say(f"   read again before sending: {stopped['status']}, {stopped['moved']} transfers")
    for line in stopped["explained"].splitlines()[:1]:
        say(f"   {line}")
    as_told = (
        (paid["status"], paid["moved"], paid["amount"]) == ("confirmed", 1, AMOUNT)
        and (stopped["status"], stopped["moved"]) == ("failed", 0)
        and stopped["why"] == "reference_changed"
    )  # fmt: skip
    return {"not_read_again": paid, "read_again": stopped, "as_told": as_told}


def _play(root: Path, *, read_again: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="countermark-incident-") as scratch, StripeTwin.start(
        Path(scratch), seed=SEED, balances={"eur": 10**8}, accounts=[ACCOUNT]
    ) as twin:  # fmt: skip
        connectors = {"stripe": StripeConnector(lambda _: twin.key, twin.url)}
        made = init_deployment(root, "vendor-payments", "incident", stripe_origin=twin.url, edit=_policy(read_again),
                               connectors=connectors)  # fmt: skip
        with open_deployment(root, agent=AGENT, connectors=connectors) as handle:
            args: dict[str, Value] = {
                "amount": AMOUNT,
                "currency": "eur",
                "destination": ACCOUNT,
                "metadata[invoice]": "HC-7012",
            }
            asked = handle.act(TOOL, args, call_id="hc-7012", reason="the crane of berth 4")
            _changed(twin)
            (waits,) = handle.call("escalations", {"after": None})
            document = build_approval(waits, deployment=made.deployment, ladder="finance", verdict="approve",
                                      person="controller")  # fmt: skip
            reply = handle.call("answer", sign_approval(document, load_private(made.people["controller"])))
        moved = [movement for movement in twin.books().movements() if movement.kind == "transfer"]
    return {
        "status": reply["result"]["status"], "moved": len(moved), "amount": sum(one.amount for one in moved),
        "deployment": str(root), "action": asked.action, **_told(made, asked.action),
    }  # fmt: skip


def _policy(read_again: bool) -> dict[str, str]:
    """The vendor-payments template with room for the amount, and with or without the second look."""
    files = dict(template_files("vendor-payments"))
    for name, old, new in (
        ("limits.toml", "max = 2500000", "max = 6000000"), ("tools.toml", "# resolve = ", "resolve = "),
        ("tests/vendors.toml", files["tests/vendors.toml"], ""),
    ):  # fmt: skip
        if old not in files[name]:
            raise ConfigError("the template is not the one that the demo tells about")
        if read_again or name != "tools.toml":
            files[name] = files[name].replace(old, new)
    return files


def _changed(twin: StripeTwin) -> None:
    """Whoever took the vendor's account over makes another bank account the one that is paid."""
    form = {
        "external_account[object]": "bank_account", "external_account[country]": "DE",
        "external_account[currency]": "eur", "external_account[account_number]": ANOTHER,
        "default_for_currency": "true",
    }  # fmt: skip
    connection = http.client.HTTPConnection(urlsplit(twin.url).netloc, timeout=TIMEOUT_S)
    try:
        headers = {"Authorization": f"Bearer {twin.key}", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/v1/accounts/{ACCOUNT}/external_accounts", urlencode(form), headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ConfigError(f"the simulator did not change the bank details: HTTP {answer.status}")
    finally:
        connection.close()


def _told(made: Made, action: str) -> dict[str, Any]:
    """The story of the action, and why nothing was sent, if nothing was."""
    store = SqliteStore(load_config(made.root).journal, readonly=True)
    try:
        settled = [r.body for r in store.records() if r.kind == "action.settled" and r.body["id"] == action]
        why = settled[-1]["request_id"] if settled and settled[-1]["code"] == "not_sent" else ""
        return {"why": why, "explained": explain(store, action).text}
    finally:
        store.close()
