"""What a decision or a signed request says of itself alone, looked at before anybody knows what came before it.

The same checks as those of the pass over the records, with the same code: an identifier, a key or a request is that of
the action, and the policy gives this decision of these facts. Only that they hold is ever told. Whoever follows the log
takes it where the record stands under the bundle that it names, and looks again at everything that does not hold.
"""

from collections.abc import Mapping
from typing import Any

from countermark_verify import rules
from countermark_verify.bundle import Bundle
from countermark_verify.canon import value_of
from countermark_verify.crypto import signed_text
from countermark_verify.decide import judged, recorded
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

    def look(self, raw: bytes) -> int:
        """What holds of a record whose text was found to have the shapes of its kind."""
        if _DECIDED in raw:
            body = value_of(raw)["body"]
            bundle = self._bundles.get(body.get("bundle", ""))
            if bundle is not None and body["tool"] in bundle.tools and body["escalation"] is None:
                return self._decided(body, bundle)
        elif _SIGNED in raw:
            body = value_of(raw)["body"]
            return SIGNED if signed_text(body["key"], body["sig"], base_of(body)) else 0
        return 0

    def _decided(self, body: dict[str, Any], bundle: Bundle) -> int:
        found = 0
        sealed = body["claimed"]["reason"] is not None or any(type(value) is dict for value in body["args"].values())
        if not sealed and body["salt"] is not None:
            self._identity.derive(0, body, bundle.tools[body["tool"]], body["args"])
            if self._ledger.steps["V12"].findings:
                self._begin()
            else:
                found |= IDENTIFIED
        payee = body["terms"]["payee"]
        if body["stage"] in ("policy", "monitor") and (payee is None or payee in bundle.payees):
            policies = self._load(bundle) if rules.installed() else None
            if policies is not None and judged(policies, body, bundle, ()) == recorded(body):
                found |= JUDGED
        return found

    def _load(self, bundle: Bundle) -> Rules | None:
        if bundle.digest not in self._rules:
            try:
                self._rules[bundle.digest] = rules_of(bundle)
            except Malformed:
                self._rules[bundle.digest] = None
        return self._rules[bundle.digest]
