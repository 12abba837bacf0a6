"""AP2 mandates that a gate accepted, verified and mapped again from the text in their record."""

from __future__ import annotations

from countermark.audit.follow import Differs
from countermark.authority import Here, Mandate, accept_ap2, check_principal, mandate_digest, parse_mandate
from countermark.model.errors import CountermarkError
from countermark.model.records import Record
from countermark.policy import State


def check_accepted(state: State, record: Record, differs: Differs) -> None:
    """Compare an acceptance with what its text, the policy in force and the mandates before it lead to."""
    body, bundle = record.body, state.bundle
    source = None if bundle is None else bundle.compiled.ap2.get(body["source"])
    if bundle is None or source is None:
        differs("source", "a source of AP2 mandates of the policy in force", body["source"])
        return
    parent = state.mandates.get(body["mandate"]["parent"] or "")

    def above(name: str) -> Mandate | None:
        """What the open mandate of this name became: the parent that the record names, if its nonce is the name's."""
        if parent is None or state.keys.get("rd:" + name) is None or not name.startswith("sha256:" + parent["nonce"]):
            return None
        return parse_mandate(parent)

    try:
        check_principal(bundle.compiled.people, source.principal)
        here = Here(state.deployment, bundle.compiled.currencies, record.at)
        chain = accept_ap2(body["ap2"], source, here, above)
    except CountermarkError as error:
        differs("ap2", "a document that verifies", str(error)[:300])
        return
    if len(chain) > 1:
        differs("ap2", "what stands below an open mandate that was accepted before", body["digest"])
    found = chain[-1]
    document = found.mandate.document()
    differs("mandate", document, body["mandate"])
    differs("digest", mandate_digest(document), body["digest"])
    differs("redeems", list(found.redeems), body["redeems"])
    for name in body["redeems"]:
        if state.keys.get("rd:" + name) is not None:
            differs("redeems", "what was never redeemed", name)
