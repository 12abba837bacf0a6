"""What a decision or a signed request says of itself alone, looked at before anybody knows what came before it.

The same checks as those of the pass over the records, with the same code: an identifier, a key or a request is that of
the action, and the policy gives this decision of these facts. Only that they hold is ever told. Whoever follows the log
takes it where the record stands under the bundle that it names, and looks again at everything that does not hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from countermark_verify import rules
from countermark_verify.bundle import Bundle
from countermark_verify.canon import value_of
from countermark_verify.crypto import signed_text
from countermark_verify.decide import judged_all, recorded
from countermark_verify.disclosures import Disclosures
from countermark_verify.errors import Malformed
from countermark_verify.identity import Identity
from countermark_verify.report import Ledger
from countermark_verify.rules import Rules, rules_of
from countermark_verify.signed import base_of
from countermark_verify.state import IDENTIFIED, JUDGED, SIGNED, State
from countermark_verify.wellformed import Bounds

_DECIDED = b'"kind":"action.decided"'
_SIGNED = b'"kind":"request.signed"'


class Aside:
    """Looks at records of one deployment, under the bundles of one pack."""

    def __init__(self, deployment: str, policies: Mapping[str, bytes]) -> None:
        self._deployment = deployment
        self._bundles: dict[str, Bundle] = {}
        self._rules: dict[str, Rules | None] = {}
        bounds = Bounds()
        for raw in policies.values():
            try:
                bundle = bounds.read(raw)
            except Malformed:
                continue  # V09 says so, where the bundle is activated
            self._bundles[bundle.digest] = bundle
        self._begin()

    def _begin(self) -> None:
        self._ledger, self._state = Ledger(), State(self._bundles)
        self._state.deployment = self._deployment
        self._identity = Identity(self._ledger, self._state, Disclosures())

    def look(self, raws: Sequence[bytes]) -> bytes:
        """What holds of each record, whose text was found to have the shapes of its kind."""
        found = bytearray(len(raws))
        asked: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for place, raw in enumerate(raws):
            if _DECIDED in raw:
                body = value_of(raw)["body"]
                bundle = self._bundles.get(body.get("bundle", ""))
                if bundle is None or body["tool"] not in bundle.tools or body["escalation"] is not None:
                    continue
                found[place] = self._identified(body, bundle)
                payee = body["terms"]["payee"]
                if body["stage"] in ("policy", "monitor") and (payee is None or payee in bundle.payees):
                    asked.setdefault(bundle.digest, []).append((place, body))
            elif _SIGNED in raw:
                body = value_of(raw)["body"]
                found[place] = SIGNED if signed_text(body["key"], body["sig"], base_of(body)) else 0
        for digest, rows in asked.items():
            for place in self._judged(rows, self._bundles[digest]):
                found[place] |= JUDGED
        return bytes(found)

    def _identified(self, body: dict[str, Any], bundle: Bundle) -> int:
        sealed = body["claimed"]["reason"] is not None or any(type(value) is dict for value in body["args"].values())
        if sealed or body["salt"] is None:
            return 0
        self._identity.derive(0, body, bundle.tools[body["tool"]], body["args"])
        if self._ledger.steps["V12"].findings:
            self._begin()
            return 0
        return IDENTIFIED

    def _judged(self, rows: list[tuple[int, dict[str, Any]]], bundle: Bundle) -> list[int]:
        """The places of those that are decided as the policy says."""
        policies = self._load(bundle) if rules.installed() else None
        if policies is None:
            return []
        decisions = judged_all(policies, [body for _, body in rows], bundle)
        return [place for (place, body), decision in zip(rows, decisions, strict=True) if decision == recorded(body)]

    def _load(self, bundle: Bundle) -> Rules | None:
        if bundle.digest not in self._rules:
            try:
                self._rules[bundle.digest] = rules_of(bundle)
            except Malformed:
                self._rules[bundle.digest] = None
        return self._rules[bundle.digest]
