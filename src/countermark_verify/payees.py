"""V10, V11: orders about payees, and what stood behind an account from the question to the effect."""

from typing import Any

from countermark_verify import canon
from countermark_verify.authority import Authority
from countermark_verify.report import Ledger
from countermark_verify.state import State

ROLE = "payees"


class Payees:
    """Checks each record against the state that earlier ones left."""

    def __init__(self, ledger: Ledger, authority: Authority, state: State) -> None:
        self._ledger = ledger
        self._authority = authority
        self._state = state
        # What stood behind the account of an open intent: its digest, by action.
        self._behind: dict[str, str] = {}
        self._checks = {
            "policy.activated": self._activated,
            "payee.changed": self._changed,
            "action.decided": self._decided,
            "action.settled": self._settled,
            "escalation.raised": self._raised,
        }

    def check(self, position: int, record: dict[str, Any]) -> None:
        check = self._checks.get(record["kind"])
        if check is not None:
            check(position, record, record["body"])

    def _activated(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        bundle = self._state.bundles.get(body["activation"]["bundle"])
        if bundle is not None and (shared := self._state.register.clash(bundle)):
            self._ledger.refute("V09.bundle", "two payees would have one account", seq, None, shared)

    def _changed(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        refute, order, register = self._ledger.refute, body["details"], self._state.register
        authority, person = self._authority, body["details"]["person"]
        self._ledger.ran("V10", 1)
        authority.deployment("V10.payee", seq, order)
        authority.enrolled("V10.payee", seq, person, body["key"], ROLE)
        authority.by_person("V10", "V10.payee", seq, person, body, canon.signing_bytes("payee", order))
        if order["alike"] != sorted(set(order["alike"])):
            refute("V10.payee", "those alike are not sorted, or one stands there twice", seq, None, order["alike"])
        if record["at"] >= order["not_after"]:
            refute("V10.payee", "ordered after its time was over", seq, order["not_after"], record["at"])
        if order["previous"] != (previous := register.previous(order["payee"])):
            refute("V10.payee", "replaces other details than the present ones", seq, previous, order["previous"])
        if misfit := register.misfit(order):
            refute("V10.payee", misfit, seq, None, [order["payee"], order["account"]])

    def _decided(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """A decision says what stood behind the account exactly when its tool reads that."""
        bundle = self._state.bundle
        tool = bundle.tools.get(body["tool"]) if bundle is not None else None
        if tool is not None and ("resolve" in tool) != ("reference" in body):
            self._ledger.refute("V12.terms", "a reference exactly for tools that read one", seq, "resolve" in tool)
        escalation = self._state.escalations.get(body["escalation"] or "")
        found = body.get("reference")
        if escalation is not None and "reference" in body and found != (asked := escalation.body.get("reference")):
            self._ledger.refute("V12.terms", "another reference than people were asked about", seq, asked, found)
        if found is not None and body["disposition"] in ("allow", "flag"):
            self._behind[body["id"]] = found["digest"]

    def _raised(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        parked = self._state.parked.get(body["id"])
        decided = parked.body.get("reference") if parked is not None else body.get("reference")
        if body.get("reference") != decided:
            self._ledger.refute(
                "V11.escalation", "another reference than was decided", seq, decided, body.get("reference")
            )

    def _settled(self, seq: int, record: dict[str, Any], body: dict[str, Any]) -> None:
        """Only what was not sent since something else stands there says what does."""
        refute, found = self._ledger.refute, body.get("reference")
        moved = (body["code"], body["request_id"]) == ("not_sent", "reference_changed")
        if moved != ("reference" in body):
            refute("V11.outcome", "a reference exactly where it kept the effect back", seq, moved, found)
        elif found is not None:
            if body["outcome"] != "failed":
                refute("V11.outcome", "not sent, and yet not failed", seq, "failed", body["outcome"])
            if self._behind.get(body["id"]) == found["digest"]:
                refute("V11.outcome", "the reference that was decided", seq, None, found["digest"])
        if body["outcome"] != "unknown":
            self._behind.pop(body["id"], None)
