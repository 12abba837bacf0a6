"""docs/quick-start.md, command by command: HTTP, the Stripe SDK, MCP and LangChain, each allowed, denied and asked."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from walking import DOCS, script, walk

from countermark.journal import SqliteStore

PORTS = ("4242", "8521")
LIMIT_S = 240


def payments(folder: Path) -> list[tuple[str, str, str]]:
    """Agent's tool, amount and outcome of every decision that was carried out, in order."""
    store = SqliteStore(folder / "acme" / "data" / "journal.db", readonly=True)
    try:
        found = list(store.records())
    finally:
        store.close()
    decided = {r.seq: r.body for r in found if r.kind == "action.decided"}
    settled = [r.body for r in found if r.kind == "action.settled"]
    return [
        (decided[b["intent"]]["tool"], str(decided[b["intent"]]["terms"]["amount"]), b["outcome"]) for b in settled
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("extras", [(), ("langchain",)], ids=["plain", "langchain"])
def test_the_quick_start_works_as_typed(tmp_path: Path, extras: tuple[str, ...]) -> None:
    """What the page says is paid is paid, once each; what it says is refused or waits was not sent."""
    if shutil.which("curl") is None:
        pytest.skip("needs debian: curl")
    if any(find_spec(name) is None for name in extras):
        pytest.skip("needs pypi: langchain")
    told = walk(script("quick-start.md", PORTS, extras), tmp_path, LIMIT_S)
    assert told.count('"code":"duplicate_obligation"') == 2  # the problem document, and the result in it
    for part in (
        '"code":"mandate_limit"', '"ready":true', "INV-5 confirmed ok tr_", "INV-5 denied duplicate_obligation",
        "INV-6 denied mandate_limit", "INV-10 paid tr_", "INV-10 not paid: The gate denied",
        "INV-12 not paid: A person must approve this first", "'shop.list_invoices', 'shop.pay_invoice'",
        "INV-20 denied [duplicate_obligation]", "INV-21 escalated [needs_approval]", "INCOMPLETE",
    ):  # fmt: skip
        assert part in told, f"{part} in {told}"
    assert json.loads((tmp_path / "waits.json").read_text("utf-8"))["status"] == "escalated"
    paid = [
        ("stripe.transfers.create", "48000"), ("stripe.transfers.create", "600000"),
        ("stripe.transfers.create", "7000"), ("stripe.transfers.create", "12500"), ("shop.pay_invoice", "48000"),
    ]  # fmt: skip
    if extras:
        paid.append(("stripe.transfers.create", "9900"))
        assert '"code": "mandate_limit"' in told
    assert payments(tmp_path) == [(*one, "confirmed") for one in paid]


def test_every_command_block_of_the_page_is_run() -> None:
    """No block that looks like a command has a mark that the test does not know; only configuration is not run."""
    marks = re.findall(r"^```(\S.*)$", (DOCS / "quick-start.md").read_text("utf-8"), re.MULTILINE)
    assert set(marks) == {"bash", "python", "json", "python langchain"}
    everything = script("quick-start.md", PORTS, ["langchain"])
    assert everything.count("PROGRAM\n") >= 3
    assert "8521" not in everything
