"""docs/payees.md, command by command, and what `payee` says when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import bench, document, fresh, ok, run
from walking import script, walk

from countermark.journal import SqliteStore

LIMIT_S = 120


@pytest.mark.slow
def test_the_page_works_as_typed(tmp_path: Path) -> None:
    """The register changes as the page says; the new account waits, the old one is denied, the twin needs a yes."""
    told = walk(script("payees.md", ()), tmp_path, LIMIT_S)
    for part in (
        "Recorded acme-paper: from ...aper to ...Bank.", "escalated [needs_approval]", "denied [account_replaced]",
        "this account is the payee's no longer. Treasurer (treasurer) changed Acme Paper GmbH (acme-paper)",
        "[payee_alike]", "Recorded acme-papier",
    ):  # fmt: skip
        assert part in told, f"{part} in {told}"
    store = SqliteStore(tmp_path / "acme" / "data" / "journal.db", readonly=True)
    found = [record.body["details"] for record in store.records() if record.kind == "payee.changed"]
    store.close()
    assert [order["payee"] for order in found] == ["acme-paper", "cirrus", "acme-papier"]
    assert [order["alike"] for order in found] == [[], [], ["acme-paper"]]


def test_orders_that_cannot_be_are_refused_in_words(tmp_path: Path) -> None:
    """Somebody without the role, an unknown payee, a new one without a name, an account that another has."""
    made = fresh(tmp_path)
    at = ("-C", str(made.root), "payee")

    def by(person: str, *words: str) -> tuple[str, ...]:
        key = str(made.people[person])
        return (*at, *words, "--reason", "ticket 1", "--person", person, "--key", key, "--json")

    def code(*words: str) -> str:
        return str(document(run(*words), 1)["error"]["code"])

    assert code(*by("controller", "set", "acme-paper", "--account", "acct_1New")) == "not_authorised"
    assert code(*by("treasurer", "close", "ghost")) == "payee_unknown"
    assert code(*by("treasurer", "set", "ghost", "--account", "acct_1New")) == "payee_unknown"
    assert code(*by("treasurer", "set", "acme-paper", "--account", "acct_1BorealisHosting")) == "payee_account_taken"
    assert code(*by("treasurer", "set", "acme-paper", "--account", "acct_1AcmePaper")) == "payee_unchanged"
    assert code(*at, "show", "ghost", "--json") == "unknown_payee"
    assert run(*by("treasurer", "set", "acme-paper", "--account", "")).exit_code == 64
    assert document(run(*by("treasurer", "close", "acme-paper")))["payee"] == "acme-paper"
    (row,) = [row for row in document(run(*at, "list", "--json")) if row["payee"] == "acme-paper"]
    assert (row["account"], row["by"]) == ("", "treasurer")
    assert "none: closed" in ok(run(*at, "show", "acme-paper"))


def test_who_approves_sees_what_is_known_about_the_payee() -> None:
    """The approval shows the payments to a known account, and warns of a stranger's that looks like one."""
    on = bench()
    on.act("PAYEE-1")
    on.act("PAYEE-2", 600_000)
    on.act("PAYEE-3", 1_000, "acct_1AcmePapar")
    shown = {}
    for row in document(on.run("approvals", "list", "--json")):
        words = ("approvals", "approve", row["escalation"], "--person", "controller", "--key", on.key("controller"))
        shown[row["terms"]["amount"]] = on.run(*words, stdin="n\n").stdout
    assert "to ...aper" in shown[600_000]
    assert "looks like the account of Acme Paper GmbH (acme-paper)" in shown[1_000]
