"""Lane messages from people: activate a policy, grant and revoke mandates, kill and clear; and a look at the state."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from countermark.authority import (
    Person,
    parse_mandate,
    verify_activation,
    verify_clearance,
    verify_grant,
    verify_revocation,
)
from countermark.gate.lane import AfterCommit
from countermark.gate.writer import Writer
from countermark.model.errors import AuthorityError, PolicyError
from countermark.policy import Bundle

SCOPES = ("deployment", "agent", "tool", "mandate", "payee")
REASON_CHARS_MAX = 500
CHAIN_MANDATES_MAX = 64


def _people(writer: Writer) -> Mapping[str, Person]:
    bundle = writer.state.bundle
    if bundle is None:
        raise AuthorityError("no policy is active, so nobody is enrolled")
    return bundle.compiled.people


def activate(writer: Writer, body: Mapping[str, Any]) -> str:
    """Put a bundle in force. Judged by the people of the bundle in force; the first one by its own."""
    bundle = Bundle.from_document(body.get("document", {}))
    current = writer.state.bundle
    signed = {name: body.get(name) for name in ("activation", "key", "sig")}
    judges = (current or bundle).compiled.people
    order = verify_activation(signed, deployment=writer.state.deployment, people=judges)
    if order.bundle != bundle.digest or order.previous != writer.state.activation:
        raise PolicyError("the activation names another bundle, or another one was activated meanwhile")
    if order.author != bundle.compiled.author:
        raise PolicyError("the activation names another author than the policy")
    writer.bundles[bundle.digest] = bundle
    writer.batch.bundles[bundle.digest] = bundle.raw
    writer.add("policy.activated", signed, by=f"person:{order.activator}")
    return str(bundle.digest)


def grant(writer: Writer, body: Mapping[str, Any]) -> str:
    """Record a signed mandate. A second grant of the same document changes nothing."""
    parent_digest = body["mandate"].get("parent") if isinstance(body.get("mandate"), dict) else None
    parent_doc = writer.state.mandates.get(parent_digest) if isinstance(parent_digest, str) else None
    parent = None if parent_doc is None else parse_mandate(parent_doc)
    mandate = verify_grant(body, deployment=writer.state.deployment, people=_people(writer), parent=parent)
    bundle = writer.state.bundle
    if bundle is None or mandate.agent not in bundle.compiled.agents:
        raise AuthorityError("the policy does not know this agent", code="unknown_agent")
    if parent_digest is not None and len(writer.state.chain(parent_digest)) >= CHAIN_MANDATES_MAX:
        raise AuthorityError(f"a chain has at most {CHAIN_MANDATES_MAX} mandates", code="bad_mandate")
    digest = str(body["digest"])
    if digest not in writer.state.mandates:
        writer.add("mandate.granted", dict(body), by=f"person:{mandate.principal}")
    return digest


def revoke(writer: Writer, body: Mapping[str, Any]) -> AfterCommit:
    """End a mandate and all below it, at once, also between decision and dispatch. Answers with what is in flight."""
    order = verify_revocation(body, deployment=writer.state.deployment, people=_people(writer))
    if order.mandate not in writer.state.mandates:
        raise AuthorityError("there is no such mandate")
    writer.add("mandate.revoked", dict(body), by=f"person:{order.person}")
    return AfterCommit(lambda in_flight: {"revoked": order.mandate, "in_flight": in_flight})


def kill(writer: Writer, body: Mapping[str, Any]) -> AfterCommit:
    """Stop a scope. Nobody needs a key to stop; after the answer no new effect of the scope starts."""
    kind, value = str(body.get("kind")), str(body.get("value", ""))[:200]
    if kind not in SCOPES:
        raise AuthorityError(f"a kill's scope is one of {', '.join(SCOPES)}", code="bad_argument")
    scope = {"kind": kind, "value": writer.state.deployment if kind == "deployment" else value}
    name = "kill_" + secrets.token_hex(8)
    reason = str(body.get("reason", ""))[:REASON_CHARS_MAX]
    writer.add("kill.set", {"scope": scope, "reason": reason, "kill": name})
    return AfterCommit(lambda in_flight: {"kill": name, "in_flight": in_flight})


def clear(writer: Writer, body: Mapping[str, Any]) -> str:
    """Clear a kill: this needs a person's signature."""
    order = verify_clearance(body, deployment=writer.state.deployment, people=_people(writer))
    if order.kill not in writer.state.kills:
        raise AuthorityError("there is no such kill")
    writer.add("kill.cleared", dict(body), by=f"person:{order.person}")
    return order.kill


def status(writer: Writer, _: Mapping[str, Any]) -> dict[str, Any]:
    """What the lane knows about itself."""
    state = writer.state
    return {
        "deployment": state.deployment, "lane": writer.lane, "records": state.size,
        "root": writer.frontier.root().hex(),
        "bundle": None if state.bundle is None else state.bundle.digest, "activation": state.activation,
        "log_key": state.log_key,
        "kills": [{"kill": k, **v} for k, v in state.kills.items()], "runs": len(state.runs),
        "mandates": {
            digest: {
                "agent": doc["agent"], "principal": doc["principal"], "parent": doc["parent"],
                "revoked": digest in state.revoked, "not_after": doc["not_after"],
                "limits": _used(writer, digest, doc),
            }
            for digest, doc in state.mandates.items()
        },
        "open": [{"seq": seq, "id": i.id, "tool": i.tool, "status": i.status} for seq, i in state.open.items()],
        "waiting": len(state.parked),
    }  # fmt: skip


def _used(writer: Writer, digest: str, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for index, limit in enumerate(doc["limits"]):
        used = {
            row[1]: row[2] for row in writer.state.budgets.used_after((digest,), limit["currency"], 0, writer.at)
        }.get(index, 0)
        rows.append({**limit, "used": used})
    return rows


ORDERS: Mapping[str, Callable[[Writer, Mapping[str, Any]], Any]] = {
    "activate": activate,
    "mandate.grant": grant,
    "mandate.revoke": revoke,
    "kill.set": kill,
    "kill.clear": clear,
    "status": status,
}
