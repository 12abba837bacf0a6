"""V15: what the pack holds, counted; and whether its predicate says the same."""

from collections import Counter
from typing import Any

from countermark_verify.identity import Identity
from countermark_verify.manifest import Manifest
from countermark_verify.report import Ledger
from countermark_verify.state import State

_CURRENCIES_MAX = 1_000
# What the policy of a monitored tool would have done, and did not.
_WAIVED = ("would_deny", "would_escalate")


class Counts:
    """Counters by kind, disposition and outcome, and confirmed totals per currency."""

    def __init__(self, disclosed: int) -> None:
        self._kinds: Counter[str] = Counter()
        self._dispositions: Counter[str] = Counter()
        self._waived = dict.fromkeys(_WAIVED, 0)
        self._outcomes: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._open = self._unknown = 0
        self._disclosed = disclosed
        self._withheld = self._erased = 0
        self.tiers: set[str] = set()
        # First decisions, and how many of them the agent's own signature asks for.
        self.asked = self.proved = 0
        # Keys that the auditor knows from the records alone.
        self.vouched: list[dict[str, Any]] = []

    def check(self, position: int, record: dict[str, Any]) -> None:
        self._kinds[record["kind"]] += 1
        body = record["body"]
        if record["kind"] == "action.decided":
            self._dispositions[body["disposition"]] += 1
            if body["stage"] == "monitor" and body["code"] in self._waived:
                self._waived[body["code"]] += 1
            if body["disposition"] in ("allow", "flag"):
                self.tiers.add(body["tier"])
        elif record["kind"] == "action.settled":
            self._outcomes[body["outcome"]] += 1
            if body["outcome"] == "confirmed":
                self._add(body)

    def _add(self, body: dict[str, Any]) -> None:
        settled = body["settled"] or body["terms"]
        currency = settled["currency"] or body["terms"]["currency"]
        if settled["amount"] is None or currency is None:
            return
        if currency in self._totals or len(self._totals) < _CURRENCIES_MAX:
            self._totals[currency] += settled["amount"]

    def finish(self, ledger: Ledger, state: State, identity: Identity, manifest: Manifest | None) -> None:
        ledger.ran("V15", sum(self._kinds.values()))
        for intent in state.intents.values():
            if intent.state == "open":
                self._open += 1
            else:
                self._unknown += 1
        if manifest is None:
            return
        predicate = manifest.predicate
        self._withheld, self._erased = predicate["withheld"], predicate["erased"]
        if self._erased:
            ledger.lack("V15.erased", "values are said to be erased, and no record says by whom", None, 0, self._erased)
        if predicate["disclosed"] != self._disclosed:
            ledger.refute(
                "V15.count", "another number of disclosed values", None, self._disclosed, predicate["disclosed"]
            )
        claimed = predicate["withheld"] + predicate["erased"] + predicate["disclosed"]
        if claimed != identity.sealed:
            ledger.refute("V15.count", "another number of sealed values", None, identity.sealed, claimed)

    def as_dict(self) -> dict[str, Any]:
        return {
            "records": sum(self._kinds.values()),
            "kinds": dict(sorted(self._kinds.items())),
            "dispositions": dict(sorted(self._dispositions.items())),
            "waived": self._waived,
            "outcomes": dict(sorted(self._outcomes.items())),
            "totals": dict(sorted(self._totals.items())),
            "open": self._open,
            "unknown": self._unknown,
            "withheld": self._withheld,
            "erased": self._erased,
            "disclosed": self._disclosed,
            "signed": self.proved,
            "enrolled": self.vouched,
        }
