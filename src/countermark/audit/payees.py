"""Orders about payees, and what stands behind a payee: signed, in turn, the same from question to effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.audit.follow import Differs
from countermark.authority import verify_payee_order
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.model.tool import ToolSpec
from countermark.policy import Escalation, State

_MEMBERS = frozenset(("digest", "last4"))


class Accounts:
    """The one pseudonym of each account that was met, and the other way round; their key stays in the deployment."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._taken: set[str] = set()

    def pseudonym(self, account: str, recorded: Any) -> str:
        """What stands for an account: what stood for it before, else what is recorded, if it stands for no other."""
        known = self._of.get(account)
        if known is not None:
            return known
        if type(recorded) is not str or not recorded.startswith("p:") or recorded in self._taken:
            return "a pseudonym of its own"
        self._of[account] = recorded
        self._taken.add(recorded)
        return recorded


class Payees:
    """Checks every ``payee.changed``, and every ``reference``, against the state before it."""

    def __init__(self, state: State, accounts: Accounts, differs: Differs) -> None:
        self._state = state
        self._accounts = accounts
        self._differs = differs

    def check(self, record: Record) -> None:
        """Compare one record with what may stand here."""
        if record.kind == "payee.changed":
            self._changed(record)
        elif record.kind == "action.settled":
            self._settled(record)
        elif record.kind == "policy.activated":
            bundle = self._state.bundle_of(record.body["activation"]["bundle"])
            if (shared := self._state.register.clash(bundle)) is not None:
                self._differs("activation.bundle", "payees whose accounts are theirs alone", shared)

    def _changed(self, record: Record) -> None:
        body, register = record.body, self._state.register
        signed = {name: body[name] for name in ("details", "key", "sig")}
        bundle = self._state.bundle
        people = {} if bundle is None else bundle.compiled.people
        try:
            order = verify_payee_order(signed, deployment=self._state.deployment, people=people)
            register.check(order)
        except CountermarkError as error:
            self._differs("details", "an order that verifies and fits what is known", str(error)[:300])
            return
        if record.at >= order.not_after:
            self._differs("at", f"before the order's time is over, {order.not_after}", record.at)
        before = "" if order.previous is None else order.previous.account
        for member, account in (("was", before), ("now", order.account)):
            expected = self._accounts.pseudonym(account, body[member]) if account else None
            self._differs(member, expected, body[member])

    def payee(self, account: str, recorded: Any) -> str:
        """Who has an account now; else its pseudonym."""
        known = self._state.register.known.by_account.get(account)
        return self._accounts.pseudonym(account, recorded) if known is None else known

    def reference(self, body: Mapping[str, Any], tool: ToolSpec, parked: Escalation | None) -> None:
        """A decision says what stood behind the argument exactly when its tool wants to know, as people saw it."""
        found = body.get("reference")
        if bool(tool.resolve) != ("reference" in body) or not _is_reference(found):
            self._differs("reference", "what stands behind an argument, where the tool reads it", found)
        if parked is not None and "reference" in body:
            self._differs("reference", parked.body.get("reference"), found)

    def _settled(self, record: Record) -> None:
        """Nothing is sent when something else stands there; only then does an outcome say what."""
        body = record.body
        found = body.get("reference")
        changed = (body["code"], body["request_id"]) == ("not_sent", "reference_changed")
        if changed != ("reference" in body) or (changed and (found is None or not _is_reference(found))):
            self._differs("reference", "what stands there now, exactly when that is why nothing was sent", found)
        elif found is not None:
            decided = self._state.open.get(body["intent"])
            self._differs("outcome", "failed", body["outcome"])
            if decided is not None and decided.reference == found["digest"]:
                self._differs("reference", "another one than was decided", found["digest"])


def _is_reference(value: Any) -> bool:
    return value is None or (
        isinstance(value, Mapping) and value.keys() == _MEMBERS and all(type(one) is str for one in value.values())
    )
