"""V15: what the pack holds, counted; and whether its predicate says the same."""

from collections import Counter
from typing import Any

from countermark_verify.erasure import Erasures
from countermark_verify.identity import Identity
from countermark_verify.manifest import Manifest
from countermark_verify.population import Population
from countermark_verify.report import Ledger
from countermark_verify.state import State
from countermark_verify.workflows import Workflows

_CURRENCIES_MAX = 1_000
# What the policy of a monitored tool would have done, and did not.
_WAIVED = ("would_deny", "would_escalate")


class Counts:
    """Counters by kind, disposition and outcome, and confirmed totals per currency."""

    def __init__(self, disclosed: int, *, lines: bool) -> None:
        """`lines`: a file of the actions is there."""
        self.kinds: Counter[str] = Counter()
        self._dispositions: Counter[str] = Counter()
        self._waived = dict.fromkeys(_WAIVED, 0)
        self._outcomes: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._open = self._unknown = 0
        self._disclosed = disclosed
        self._withheld = self._erased = 0
        self.tiers: set[str] = set()
        self.population = Population(lines=lines)
        # First decisions, and how many of them the agent's own signature asks for.
        self.asked = self.proved = 0
        self.extract = False  # chosen records only
        # Keys that the auditor knows from the records alone.
        self.anchored = ""  # how far anchors reach, in words
        self.workflows: Workflows | None = None
        self.effects: Counter[str] = Counter()  # confirmed effects, by how far their own evidence reaches
        self.vouched: list[dict[str, Any]] = []
        self._erasures: list[dict[str, Any]] = []
        # What the times of the records rest on (V16).
        self.time: dict[str, Any] = {}

    def check(self, position: int, record: dict[str, Any]) -> None:
        self.kinds[record["kind"]] += 1
        self.population.check(position, record)
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

    def finish(
        self, ledger: Ledger, state: State, identity: Identity, manifest: Manifest | None, erasures: Erasures
    ) -> None:
        self._erasures = erasures.named
        ledger.ran("V15", sum(self.kinds.values()))
        for intent in state.intents.values():
            if intent.state == "open":
                self._open += 1
            else:
                self._unknown += 1
        if manifest is None:
            return
        predicate = manifest.predicate
        self._withheld, self._erased = predicate["withheld"], predicate["erased"]
        if self._erased > erasures.values:
            message = "values are said to be erased, and no record says by whom"
            # What a restore lost may have been that record; then the gap is named, and this stays open with it.
            say = ledger.lack if self.kinds["lane.succeeded"] else ledger.refute
            say("V15.erased", message, None, erasures.values, self._erased)
        elif self._erased < erasures.values:
            ledger.refute("V15.erased", "values that were erased are still there", None, erasures.values, self._erased)
        if predicate["disclosed"] != self._disclosed:
            ledger.refute(
                "V15.count", "another number of disclosed values", None, self._disclosed, predicate["disclosed"]
            )
        claimed = predicate["withheld"] + predicate["erased"] + predicate["disclosed"]
        if claimed != identity.sealed:
            ledger.refute("V15.count", "another number of sealed values", None, identity.sealed, claimed)

    def _unfollowed(self) -> dict[str, int]:
        """Runs of workflows that were not followed, since their values are not here."""
        veiled = None if self.workflows is None else self.workflows.veiled
        return {"withheld": 0 if veiled is None else veiled.withheld, "erased": 0 if veiled is None else veiled.gone}

    def as_dict(self) -> dict[str, Any]:
        return {
            "records": sum(self.kinds.values()),
            "kinds": dict(sorted(self.kinds.items())),
            "dispositions": dict(sorted(self._dispositions.items())),
            "waived": self._waived,
            "outcomes": dict(sorted(self._outcomes.items())),
            "totals": dict(sorted(self._totals.items())),
            "actions": len(self.population),
            "asked": dict(sorted(self.population.asked().items())),
            "open": self._open,
            "unknown": self._unknown,
            "withheld": self._withheld,
            "erased": self._erased,
            "disclosed": self._disclosed,
            "runs": self._unfollowed(),
            "signed": self.proved,
            "enrolled": self.vouched,
            "erasures": self._erasures,
            "time": self.time,
            "steps": {} if self.workflows is None else self.workflows.counted(),
        }
