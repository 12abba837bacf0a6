"""What people order: activate a policy, grant and revoke mandates, kill and clear; and a look at the state."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.authority import (
    Activation,
    parse_mandate,
    verify_activation,
    verify_clearance,
    verify_grant,
    verify_revocation,
    verify_second,
)
from countermark.gate import ap2, climbing, enrolment, erasing, escalation, hindsight, payees, rotation
from countermark.gate.callers import no_agent
from countermark.gate.judging import InForce, eyes_of, people_of
from countermark.gate.lane import AfterCommit
from countermark.gate.looking import limits
from countermark.gate.succession import accept
from countermark.gate.writer import Writer
from countermark.model.canon import check
from countermark.model.errors import ArgumentError, AuthorityError, PolicyError
from countermark.model.tool import MONITOR_DAYS_MAX
from countermark.policy import Bundle, Engine, check_disjoint, check_own, standing

CHAIN_MANDATES_MAX = 64
CHAIN_LIMITS_MAX = 512  # of all mandates of a chain: a decision's record has a row for each

_PSEUDONYM = re.compile(r"p:[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Ready:
    """An activation that only needs to be compared and added. ``judged``: the bundle in force, and its people."""

    bundle: Bundle
    signed: Mapping[str, Any]
    order: Activation
    judged: InForce | None


def read_activation(body: Mapping[str, Any], judge: InForce | None, deployment: str) -> Ready:
    """Read and verify a bundle and the order to put it in force: pure, and too slow for the lane or the loop.

    The people of the bundle in force judge; the first one is judged by its own. Raises ``CountermarkError``.
    """
    signed = {name: body.get(name) for name in ("activation", "key", "sig")}
    if body.get("second") is not None:
        signed["second"] = body["second"]
    document, first = body.get("document"), False
    if judge is not None:  # a stranger's document is not even read
        order = verify_activation(signed, deployment=deployment, people=judge.people)
    if not isinstance(document, Mapping):
        raise PolicyError("a policy bundle is a JSON object")
    check(document)
    bundle = Bundle.from_document(document)
    bundle.compiled.check_names()
    if judge is None:
        judge = InForce(bundle, bundle.compiled.people)
        order = verify_activation(signed, deployment=deployment, people=judge.people)
        first = True
    if order.bundle != bundle.digest:
        raise PolicyError("the activation names another bundle")
    if order.author != bundle.compiled.author:
        raise PolicyError("the activation names another author than the policy")
    if any(tool.monitor is not None for tool in bundle.compiled.tools.values()):
        verify_second(signed, order, eyes_of(judge))
    elif "second" in signed:
        raise AuthorityError("one person signs a policy that monitors nothing", code="bad_activation")
    check_own(bundle.compiled.witness, deployment)
    Engine(bundle)  # raises where the lane would have to halt
    return Ready(bundle, signed, order, None if first else judge)


def activate(writer: Writer, ready: Ready) -> str:
    """Put a bundle in force, unless another one was activated since its order was signed or judged."""
    state, bundle = writer.state, ready.bundle
    same = state.bundle is None if ready.judged is None else ready.judged.still(writer)
    if ready.order.previous != state.activation or not same:
        raise PolicyError("the activation follows another one than the newest: one was activated meanwhile")
    check_disjoint(state, bundle)
    for tool in bundle.compiled.tools.values():
        if not tool.monitor_fits(writer.at):
            raise PolicyError(f"{tool.name} may be monitored for {MONITOR_DAYS_MAX} days from now at the most",
                              code="monitor_too_long", hint="Change monitor_until in tools.toml.")  # fmt: skip
    shared = state.register.clash(bundle)
    if shared is not None:
        raise PolicyError(f"the policy and the register of payees give two payees the account {shared}",
                          code="payee_account_taken", hint="See `countermark payee list`.")  # fmt: skip
    writer.bundles[bundle.digest] = bundle
    writer.batch.bundles[bundle.digest] = bundle.raw
    writer.add("policy.activated", dict(ready.signed), by=f"person:{ready.order.activator}")
    return bundle.digest


def grant(writer: Writer, body: Mapping[str, Any]) -> str:
    """Record a signed mandate. A second grant of the same document changes nothing."""
    parent_digest = body["mandate"].get("parent") if isinstance(body.get("mandate"), dict) else None
    parent_doc = writer.state.mandates.get(parent_digest) if isinstance(parent_digest, str) else None
    parent = None if parent_doc is None else parse_mandate(parent_doc)
    mandate = verify_grant(body, deployment=writer.state.deployment, people=people_of(writer), parent=parent)
    bundle = writer.state.bundle
    if bundle is None or mandate.agent not in bundle.compiled.agents:
        raise no_agent(mandate.agent)
    if parent_digest is not None and len(writer.state.chain(parent_digest)) >= CHAIN_MANDATES_MAX:
        raise AuthorityError(f"a chain has at most {CHAIN_MANDATES_MAX} mandates", code="bad_mandate")
    above = () if parent_digest is None else writer.state.chain(parent_digest)
    if len(mandate.limits) + sum(len(writer.state.mandates[one]["limits"]) for one in above) > CHAIN_LIMITS_MAX:
        raise AuthorityError(f"a chain has at most {CHAIN_LIMITS_MAX} limits", code="bad_mandate")
    digest = str(body["digest"])
    if digest not in writer.state.mandates:
        writer.add("mandate.granted", dict(body), by=f"person:{mandate.principal}")
    return digest


def revoke(writer: Writer, body: Mapping[str, Any]) -> AfterCommit:
    """End a mandate and all below it, at once, also between decision and dispatch. Answers with what is in flight."""
    order = verify_revocation(body, deployment=writer.state.deployment, people=people_of(writer))
    if order.mandate not in writer.state.mandates:
        raise AuthorityError("there is no such mandate")
    writer.add("mandate.revoked", dict(body), by=f"person:{order.person}")
    return AfterCommit(lambda in_flight: {"revoked": order.mandate, "in_flight": in_flight})


def accept_ap2(writer: Writer, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record what an AP2 payment mandate becomes here (``gate.ap2``)."""
    return {"mandates": ap2.accept(writer, body, people_of(writer))}


def kill_of(body: Mapping[str, Any], deployment: str) -> tuple[str, dict[str, str]]:
    """A fresh name and the scope of the kill that a checked body asks for."""
    kind = body["kind"]
    value = deployment if kind == "deployment" else body.get("value", "")
    return "kill_" + secrets.token_hex(8), {"kind": kind, "value": value}


def kill(writer: Writer, name: str, scope: Mapping[str, str], reason: str) -> AfterCommit:
    """Stop a scope. Nobody needs a key to stop; after the answer no new effect of the scope starts."""
    _check_known(writer, scope["kind"], scope["value"])
    writer.add("kill.set", {"scope": dict(scope), "reason": reason, "kill": name})
    return AfterCommit(lambda in_flight: {"kill": name, "in_flight": in_flight})


def _check_known(writer: Writer, kind: str, value: str) -> None:
    """A stop with a misspelt name would stop nothing, so it is refused."""
    bundle = writer.state.bundle
    if kind == "deployment" or (kind == "mandate" and value in writer.state.mandates):
        return
    if bundle is not None and kind != "mandate":
        compiled = bundle.compiled
        known: Mapping[str, Any] = {
            "agent": compiled.agents,
            "tool": compiled.tools,
            "payee": writer.state.register.known.payees,
        }[kind]
        if value in known or (kind == "payee" and _PSEUDONYM.fullmatch(value) is not None):
            return
    raise ArgumentError(
        f"no {kind} has this name, so nothing would be stopped", field="value", hint="Or stop the deployment."
    )


def clear(writer: Writer, body: Mapping[str, Any]) -> str:
    """Clear a kill: this needs a person's signature."""
    order = verify_clearance(body, deployment=writer.state.deployment, people=people_of(writer))
    if order.kill not in writer.state.kills:
        raise AuthorityError("there is no such kill")
    if writer.state.succession is not None and order.kill == writer.state.succession.kill:
        raise AuthorityError("a restored lane is opened by two people", hint="Use `countermark lane accept`.")
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
        "mandates": {entry["mandate"]: entry for entry in standing(state, writer.at)},
        "open": [{"seq": seq, "id": i.id, "tool": i.tool, "status": i.status} for seq, i in state.open.items()],
        "waiting": len(state.parked), "unreviewed": state.unreviewed,
    }  # fmt: skip


def mandates(writer: Writer, _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every mandate with what is used, held and free of its limits (``policy.standing``)."""
    return standing(writer.state, writer.at)


ORDERS: Mapping[str, Callable[[Writer, Mapping[str, Any]], Any]] = {
    "mandate.grant": grant,
    "mandate.accept": accept_ap2,
    "mandate.revoke": revoke,
    "kill.clear": clear,
    "lane.accept": accept,
    "key.enrol": enrolment.enrol,
    "key.remove": enrolment.remove,
    "absence.set": enrolment.away,
    "key.rotate": rotation.rotate,
    "review.clear": hindsight.clear_review,
    "reopen": hindsight.reopen,
    "log.read": hindsight.note_reading,
    "data.disclose": erasing.note_disclosure,
    "hold.set": erasing.hold,
    "hold.clear": erasing.release,
    "escalation.unreachable": climbing.unreachable,
}
ASIDE: Mapping[str, Callable[..., Awaitable[Any]]] = {"payee.set": payees.order, "erase": erasing.order}
QUERIES: Mapping[str, Callable[[Writer, Mapping[str, Any]], Any]] = {
    "status": status,
    "limits": limits,
    "escalations": payees.waiting,
    "people": enrolment.people,
    "escalation.preview": escalation.look,
    "payee.history": payees.history,
    "payees": payees.listed,
    "payee.names": payees.names,
    "mandates": mandates,
}
