"""The register of payees on paper (docs/spec/record.md, `payee.changed`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, str]


@dataclass
class Register:
    """Bundle's payees, and those of orders over them."""

    bundled: list[Row] = field(default_factory=list)
    ordered: dict[str, Row] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)  # payee -> digest of the newest order's record
    since: dict[str, int] = field(default_factory=dict)

    def payees(self) -> list[Row]:
        return [*(row for row in self.bundled if row["id"] not in self.ordered), *self.ordered.values()]

    def of(self, payee: str) -> Row | None:
        return next((row for row in self.payees() if row["id"] == payee), None)

    def activated(self, payees: list[Row], at: int, *, first: bool) -> None:
        before = {row["id"]: row["account"] for row in self.bundled}
        for row in payees:
            if not first and row["id"] not in self.ordered and before.get(row["id"]) != row["account"]:
                self.since[row["id"]] = at
        self.bundled = payees

    def changed(self, order: dict[str, Any], at: int, digest: str) -> None:
        before = self.of(order["payee"])
        if before is None or before["account"] != order["account"]:
            self.since[order["payee"]] = at
        self.ordered[order["payee"]] = {"id": order["payee"], "name": order["name"], "account": order["account"]}
        self.records[order["payee"]] = digest

    def previous(self, payee: str) -> dict[str, Any] | None:
        row = self.of(payee)
        return None if row is None else {"account": row["account"], "record": self.records.get(payee)}

    def age(self, payee: str, now: int) -> dict[str, Any]:
        at = self.since.get(payee)
        return {"known": False} if at is None else {"known": True, "age_s": (now - at) // 1_000_000}
