"""What a caller's credential adds to an action: its scope, the delegation it states, and the request it signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.authority import SKEW_S_MAX, Behalf, Scope, SignedRequest
from countermark.gate.prepare import Prepared
from countermark.gate.writer import Writer
from countermark.model.clock import US
from countermark.model.errors import ArgumentError, AuthorityError
from countermark.model.words import quoted
from countermark.policy import Bundle, State

SIGNED_BODY_BYTES_MAX = 24_000  # a longer body does not stand in the record, only its digest does
ACTIONS_PATH = "/v1/actions"  # what the body of a request there means, a verifier knows


def no_agent(agent: object) -> AuthorityError:
    """The refusal of a caller whom the policy in force does not know. It tells nobody who else there is."""
    return AuthorityError(
        f"the policy in force has no agent {quoted(agent)}", code="unknown_agent",
        hint="Agents stand in limits.toml, each as [agents.NAME].",
    )  # fmt: skip


def check_scope(scope: Scope | None, op: str, body: Mapping[str, Any]) -> None:
    """A credential for one run neither starts, ends nor shows others. Raises ``AuthorityError`` (``out_of_scope``)."""
    if scope is None or not scope.run:
        return
    if op == "run.start" or (op in ("run.end", "run.show") and body.get("run") != scope.run):
        raise AuthorityError("this credential is for another run", code="out_of_scope")


def may_see(scope: Scope | None, agent: str, decided: Mapping[str, Any]) -> bool:
    """Whether a decided action is one that a caller's credential could have asked for."""
    return decided["agent"] == agent and (scope is None or scope.allows(decided["tool"], decided["run"]))


def acts_for(state: State, mandate: str, behalf: Behalf | None) -> bool:
    """Whether a mandate's chain is the delegation that the caller's token states, if it states one."""
    return behalf is None or behalf.fits([state.mandates[digest] for digest in state.chain(mandate)])


def wrong(writer: Writer, prepared: Prepared, mandate: str) -> ArgumentError | None:
    """Why a caller's credential does not carry this action in a run under ``mandate``."""
    caller = prepared.caller
    if caller is None:
        return None
    if not acts_for(writer.state, mandate, caller.behalf):
        return ArgumentError(
            "the token's chain of delegation is not that of the run's mandate", field="run", code="other_delegation"
        )
    bundle = writer.state.bundle
    if caller.signed is not None and bundle is not None and caller.signed.key not in _keys(bundle, caller.agent):
        return ArgumentError("the policy no longer knows the key", field="run", code="stale_signature")
    if caller.signed is not None and not _of_now(caller.signed, writer.at):
        return ArgumentError("the signature is not of now", field="run", code="stale_signature")
    return None


def keep(writer: Writer, prepared: Prepared) -> None:
    """Record the agent's own signature, right before the decision about what it signed."""
    caller, ask = prepared.caller, prepared.ask
    if caller is None or caller.signed is None:
        return
    signed = caller.signed
    writer.add(
        "request.signed",
        {
            "id": ask.id, "agent": ask.agent, "run": ask.run, "call_id": ask.call_id, "key": signed.key,
            "covered": [list(pair) for pair in signed.covered], "params": signed.params, "sig": signed.signature,
            "body": _body_of(signed) if prepared.sealed is None else None,
        },
        by=f"agent:{ask.agent}",
    )  # fmt: skip


def _of_now(signed: SignedRequest, at: int) -> bool:
    """Made about when it is decided, and not over yet: the time of the record counts, not that of the door."""
    over = signed.expires is not None and at >= signed.expires * US
    return not over and abs(at - signed.created * US) <= SKEW_S_MAX * US


def _keys(bundle: Bundle, agent: str) -> tuple[str, ...]:
    found = bundle.compiled.agents.get(agent)
    return () if found is None else found.keys


def _body_of(signed: SignedRequest) -> str | None:
    """The signed bytes as text, where a verifier can read them as the action. They were read as JSON before."""
    if dict(signed.covered)["@path"] != ACTIONS_PATH or len(signed.body) > SIGNED_BODY_BYTES_MAX:
        return None
    return signed.body.decode("utf-8")
