"""V13 and V14 of an extract: decisions recomputed from the facts and budgets that they record.

What earlier records of others add up to is not there. So what a decision says of it is believed, as far as it fits the
policy and the mandates; everything that follows from it is computed again.
"""

from typing import Any

from countermark_verify.boundary import BUDGET, CALLS
from countermark_verify.bundle import Bundle
from countermark_verify.decide import Decider, Decision, deny
from countermark_verify.facts import COUNT
from countermark_verify.report import Ledger
from countermark_verify.state import State

_TAKEN = ("refused_by_person", "duplicate_obligation", "already_waiting")


class Recorded(Decider):
    """Believes own facts, budgets, and that a business key was taken by a record that is not there."""

    def __init__(self, ledger: Ledger, state: State, verified: bool) -> None:
        """`verified`: the auditor verified the whole log, and with it everything that is believed here."""
        super().__init__(ledger, state)
        self._verified = verified
        self._believed = 0

    def finish(self) -> None:
        super().finish()
        if self._believed and not self._verified:
            message = f"facts and budgets of {self._believed} decisions rest on records that an extract does not have"
            self._ledger.lack("V13.extract", message)

    def check(self, position: int, record: dict[str, Any]) -> None:
        self._believed += record["kind"] == "action.decided"
        super().check(position, record)

    def _limits(self, body: dict[str, Any]) -> list[list[Any]]:
        """Digest, index and amount of each limit that the budgets of a decision are about."""
        terms = body["terms"]
        return [
            [digest, index, limit["amount"]]
            for digest in self._state.mandates_of(body)
            if digest in self._state.mandates and terms["amount"] is not None
            for index, limit in enumerate(self._state.mandates[digest].document["limits"])
            if limit["currency"] in (terms["currency"], COUNT)
        ]

    def _by_boundary(self, body: dict[str, Any], now: int) -> Decision | None:
        """Calls and amounts of the run may be among the records that are not there."""
        known = super()._by_boundary(body, now)
        run = self._state.runs.get(body["run"])
        bounded = run is not None and run.bounds is not None
        if not bounded or body["stage"] != "boundary" or known is not None:
            return known
        currency = body["terms"]["currency"]
        if body["code"] == CALLS and body["escalation"] is None:
            return deny("boundary", CALLS, [])
        if body["code"] == BUDGET and body["terms"]["amount"] is not None:
            return deny("boundary", BUDGET, [currency])
        return None

    def _beyond_limit(self, chain: list[str], body: dict[str, Any], now: int) -> Decision | None:
        """A limit is exceeded when the decision says so, and names a mandate that has one."""
        said = body["reasons"][0] if len(body["reasons"]) == 1 else ""
        if (body["stage"], body["code"]) != ("mandate", "mandate_limit"):
            return None
        limited = {digest for digest, _, _ in self._limits(body)}
        return deny("mandate", "mandate_limit", [said]) if said in limited else None

    def _check_budgets(self, seq: int, body: dict[str, Any], now: int) -> None:
        expected = self._limits(body)
        if [row[:2] for row in body["budgets"]] != [row[:2] for row in expected]:
            self._ledger.refute("V13.budget", "not the limits of the mandates", seq, expected, body["budgets"])
            return
        for (digest, _, used), (_, _, limit) in zip(body["budgets"], expected, strict=True):
            if used > limit:
                self._ledger.refute("V13.limit", f"beyond a limit of {digest}", seq, limit, used)

    def _by_obligation(self, seq: int, body: dict[str, Any]) -> Decision | None:
        known = super()._by_obligation(seq, body)
        if body["obligation"] is None or body["stage"] != "obligation" or len(body["reasons"]) != 1:
            return known
        place = body["reasons"][0].removeprefix("seq:")
        earlier = place.isascii() and place.isdigit() and len(place) < 17 and int(place) < seq
        if earlier and body["code"] in _TAKEN:
            return deny("obligation", body["code"], [f"seq:{int(place)}"])
        return known

    def _check_facts(self, seq: int, body: dict[str, Any], now: int, bundle: Bundle) -> list[str]:
        """The facts that everybody can compute are compared; of the others only their names."""
        expected = self._built_in(seq, body, now, bundle)
        own, recorded = bundle.tools[body["tool"]]["facts"], body["facts"]
        if body["stage"] == "facts":
            self._no_facts(seq, body)
            said = body["reasons"][0] if len(body["reasons"]) == 1 else ""
            return [said] if said in own else []
        for name, value in expected.items():
            if name not in recorded or type(recorded[name]) is not type(value) or recorded[name] != value:
                self._ledger.refute("V13.fact", f"{name} is not the recomputed value", seq, value, recorded.get(name))
        if recorded.keys() != {*own, *expected}:
            self._ledger.refute("V13.fact", "not the facts of this tool", seq, sorted({*own, *expected}),
                                sorted(recorded))  # fmt: skip
        return []
