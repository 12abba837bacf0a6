"""What the design's words say about authority, with nothing but lists: whether money may move now, and if not, why.

It is told what people did and what the provider was sent, and knows nothing of the gate's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TOOL = "stripe.transfers.create"
AGENT = "treasury"


@dataclass
class Wanted:
    """One action that an agent asked for. ``status``: asked, moved (or perhaps moved), failed."""

    call_id: str
    run: str
    mandate: str
    payee: str
    account: str
    invoice: str
    amount: int
    status: str = "asked"
    at: int = 0
    asked_under: str = ""  # the policy under which a person was asked
    approved_under: str = ""


@dataclass
class Model:
    """``ask_above`` maps a policy to the amount above which a person is asked."""

    now: Callable[[], int]
    ask_above: dict[str, int]
    payment_max: int
    policy: str = ""
    mandates: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    kills: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: set[tuple[str, str]] = field(default_factory=set)
    wanted: list[Wanted] = field(default_factory=list)

    def chain(self, mandate: str | None) -> list[tuple[str, dict[str, Any]]]:
        found = []
        while mandate is not None:
            found.append((mandate, self.mandates[mandate]))
            mandate = self.mandates[mandate]["parent"]
        return found

    def why_not(self, one: Wanted) -> list[str]:
        """Every reason why this must not be sent now; what was sent before and did not fail counts as spent."""
        now, chain = self.now(), self.chain(one.mandate)
        moved = [other for other in self.wanted if other is not one and other.status == "moved"]
        wrong = [f"killed: {scope}" for scope in self.kills.values() if self.covered(scope, one)]
        for digest, doc in chain:
            if digest in self.revoked:
                wrong.append("a mandate of the chain is revoked")
            if not doc["not_before"] <= now < doc["not_after"]:
                wrong.append("a mandate of the chain is not valid now")
            if doc["tools"] != ["*"] and TOOL not in doc["tools"]:
                wrong.append("the tool")
            if doc["payees"] != ["*"] and one.payee not in doc["payees"]:
                wrong.append("the payee")
            wrong += [f"limit {limit}" for limit in doc["limits"] if self.over(limit, digest, one, moved, now)]
            currencies = {limit["currency"] for limit in doc["limits"]} - {"*"}
            if currencies and "eur" not in currencies:
                wrong.append("the currency")
        if any((other.payee, other.invoice) == (one.payee, one.invoice) for other in moved):
            wrong.append("paid before")
        if (one.payee, one.invoice) in self.refused:
            wrong.append("a person refused it")
        if one.amount > self.payment_max:
            wrong.append("more than the policy allows at all")
        if one.amount > self.ask_above[self.policy] and one.approved_under != self.policy:
            wrong.append("nobody approved it under the policy in force")
        return wrong

    def over(self, limit: dict[str, Any], digest: str, one: Wanted, moved: list[Wanted], now: int) -> bool:
        count = limit["currency"] == "*"
        if not count and limit["currency"] != "eur":
            return False
        if limit["over_us"] == 0:
            return bool(one.amount > limit["amount"])
        since = -1 if limit["over_us"] is None else now - limit["over_us"]
        mine = [other for other in moved if other.at > since and digest in dict(self.chain(other.mandate))]
        return bool(sum(1 if count else other.amount for other in [*mine, one]) > limit["amount"])

    def covered(self, scope: tuple[str, str], one: Wanted) -> bool:
        names = {"deployment": ["test"], "agent": [AGENT], "tool": [TOOL], "payee": [one.payee],
                 "mandate": [digest for digest, _ in self.chain(one.mandate)]}  # fmt: skip
        return scope[1] in names[scope[0]]

    def wider(self, child: dict[str, Any]) -> bool:
        """Whether a child claims what its parent does not grant."""
        if child["parent"] is None:
            return False
        if child["parent"] not in self.mandates:
            return True
        parent = self.mandates[child["parent"]]
        for name in ("tools", "payees"):
            if parent[name] != ["*"] and not all(item in parent[name] for item in child[name]):
                return True
        for limit in child["limits"]:
            for above in parent["limits"]:
                same = (limit["currency"], limit["over_us"]) == (above["currency"], above["over_us"])
                if same and limit["amount"] > above["amount"]:
                    return True
        begins, ends = child["not_before"] < parent["not_before"], child["not_after"] > parent["not_after"]
        purpose = parent["purpose"].split(": ") if parent["purpose"] else []
        return begins or ends or child["purpose"].split(": ")[: len(purpose)] != purpose
