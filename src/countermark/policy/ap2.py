"""``[ap2.NAME]`` of ``limits.toml``: whose AP2 mandates count here, for whom, and what they may become."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from countermark.authority import PRINCIPAL, Ap2Source, JoseKey
from countermark.model.errors import AuthorityError, SignatureError
from countermark.model.words import nearest
from countermark.policy.toml import Table

AP2_MAX = 64


def read_ap2(
    root: Table, principals: Collection[str], agents: Collection[str], payees: Collection[str]
) -> list[Ap2Source]:
    """Sources by name, sorted. What is wrong goes to the findings; what is wrong in form does not become a source."""
    found: list[Ap2Source] = []
    for name, table in root.tables("ap2"):
        table.only("issuer", "principal", "agent", "agent_key", "audience", "tools", "payees")
        pairs = _payees(table, payees)
        item: dict[str, Any] = {
            "id": name, "issuer": table.text("issuer"), "principal": table.text("principal"),
            "agent": table.text("agent"), "agent_key": table.text("agent_key"), "audience": table.text("audience"),
            "tools": list(table.texts("tools")), "payees": pairs,
        }  # fmt: skip
        for key, known, what in (("principal", principals, PRINCIPAL), ("agent", agents, "agent")):
            if item[key] and item[key] not in known:
                table.error(key, "unknown_name", f"there is no {what} {item[key]!r}", nearest(item[key], known))
        if all(_is_key(table, key) for key in ("issuer", "agent_key")):
            try:
                found.append(Ap2Source.of(item))
            except (AuthorityError, SignatureError) as error:
                table.error("", "bad_value", error.message, "See docs/mandates.md.")
    if len(found) > AP2_MAX:
        root.error("ap2", "too_many", f"more than {AP2_MAX} sources of AP2 mandates")
    return sorted(found, key=lambda source: source.id)


def _is_key(table: Table, key: str) -> bool:
    try:
        JoseKey.parse(table.text(key))
    except SignatureError as error:
        table.error(key, "bad_key", error.message, "es256:POINT or ed25519:KEY; see docs/mandates.md.")
        return False
    return True


def _payees(table: Table, payees: Collection[str]) -> list[list[str]]:
    """``[merchant, payee]`` pairs, sorted by the merchant's id."""
    if "payees" not in table:
        return []
    names = table.table("payees")
    pairs = [[merchant, names.text(merchant)] for merchant in sorted(names.value)]
    for merchant, payee in pairs:
        if payee and payee not in payees:
            names.error(merchant, "unknown_payee", f"there is no payee {payee!r}", nearest(payee, payees))
    return pairs
