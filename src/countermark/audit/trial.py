"""What the policy would answer to an action now, against the state that earlier records make. Nothing is recorded.

The tests of a bundle are another thing: they bring their own history (``countermark.policy.run_cases``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.model.clock import US
from countermark.model.errors import ArgumentError, AuthorityError, PolicyError
from countermark.model.tool import ToolSpec, Value
from countermark.model.values import action_id
from countermark.model.words import nearest, quoted
from countermark.policy import Ask, Bundle, Judgement, Known, Run, State, decided_body, judge, normal, obligation_of

_HIDDEN = "sha256:" + "0" * 64  # stands for a sensitive value: no rule can read it

Pseudonym = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Trial:
    """What would be decided. ``body`` is the ``action.decided`` body that would be recorded, without digests."""

    judgement: Judgement
    body: Mapping[str, Any]


def only_agent(bundle: Bundle) -> str:
    """The bundle's agent, when it has one. Raises ``ArgumentError`` otherwise."""
    agents = sorted(bundle.compiled.agents)
    if len(agents) != 1:
        raise ArgumentError(
            f"the policy has {len(agents)} agents", field="agent", hint=f"Name one: {', '.join(agents)}."
        )
    return agents[0]


def ask_for(
    bundle: Bundle, *, agent: str, run: str, call_id: str, tool_name: str, args: object, pseudonymous: Pseudonym,
    named: bool = False, known: Known | None = None,
) -> Ask:  # fmt: skip
    """An action as a decision sees it; what only evidence needs (digests, salts, keys) is left empty. No provider is
    asked: what stands behind an argument counts as read. ``known`` are the payees of the moment, else the bundle's.

    Raises:
        ArgumentError: the tool is unknown or the arguments do not fit it.
    """
    tool = bundle.compiled.tools.get(tool_name)
    if tool is None:
        raise ArgumentError(
            f"there is no tool {quoted(tool_name)} here", field="tool", code="unknown_tool",
            hint=nearest(tool_name, bundle.compiled.tools),
        )  # fmt: skip
    decoded = tool.decode(args)
    plain = {tool.by_name[name].alias: value for name, value in decoded.items()}
    terms = _terms(bundle, known, tool, decoded, pseudonymous)
    clear = {alias: value for alias, value in plain.items() if not tool.by_alias[alias].sensitive}
    hidden = {alias: {"$sd": _HIDDEN} for alias in plain if alias not in clear}
    return Ask(
        id=action_id(agent, run, call_id), agent=agent, run=run, call_id=call_id, tool=tool, args={**clear, **hidden},
        clear=clear, action="", request="", salt=None, key="", terms=terms,
        obligation=obligation_of(tool, terms, plain, pseudonymous),
        claimed={"because": [], "reason": None, "model": "", "trace": ""},
        named={a: pseudonymous("named", normal(v)) for a, v in plain.items() if type(v) is not bool} if named else {},
        bundle=bundle.digest, tier="enforcing",
        reference={"digest": _HIDDEN, "last4": ""} if tool.resolve else None,
    )  # fmt: skip


def _terms(
    bundle: Bundle, known: Known | None, tool: ToolSpec, args: Mapping[str, Value], pseudonymous: Pseudonym
) -> dict[str, Any]:  # fmt: skip
    """Amount, currency and payee, as ``docs/spec/record.md`` defines ``terms``."""
    terms: dict[str, Any] = {"amount": None, "currency": None, "payee": None}
    amount, currency, payee = tool.one("amount"), tool.one("currency"), tool.one("payee")
    if amount is not None and amount.name in args:
        terms["amount"] = amount.counted(args[amount.name])
        terms["currency"] = tool.currency if currency is None else args.get(currency.name, tool.currency)
        bundle.compiled.check_currency(terms["currency"])
    if payee is not None and payee.name in args:
        account = str(args[payee.name])
        named = (bundle.compiled.payee_by_account if known is None else known.by_account).get(account)
        terms["payee"] = "p:" + pseudonymous("payee", account) if named is None else named
    return terms


def tried(state: State, ask: Ask, at: int) -> Trial:
    """Judge an ask and show the body that would be recorded."""
    judgement = judge(state, ask, at)
    body = decided_body(
        ask, judgement, bundle=ask.bundle, not_after=at + ask.tool.dispatch_within_s * US, escalation=None, lifted=[]
    )
    return Trial(judgement, body)


def try_action(
    state: State,
    action: Mapping[str, Any],
    *,
    agent: str | None,
    at: int,
    pseudonymous: Pseudonym,
    mandate: str | None = None,
) -> Trial:
    """What would be decided about an action now, by the bundle in force.

    Args:
        state: the present state; a run that the action does not name is made up in it, so pass one of your own.
        action: ``{run?, call_id?, tool, args}``.
        at: microseconds UTC.
        mandate: digest of the mandate of the made-up run (default: the agent's only one in force).

    Raises:
        ArgumentError, AuthorityError, PolicyError: there is nothing that could be decided.
    """
    current = state.bundle
    if current is None:
        raise PolicyError("no policy is active", hint="Run `countermark policy activate`.")
    run = action.get("run")
    if run is not None and run not in state.runs:
        raise ArgumentError(f"there is no open run {quoted(run)}", field="run", code="unknown_run")
    who = state.runs[run].agent if run is not None else agent or only_agent(current)
    if who not in current.compiled.agents:
        raise AuthorityError(f"the policy has no agent {who!r}", code="unknown_agent")
    if run is None:
        run = "run_" + "0" * 32
        state.runs[run] = Run(who, _mandate(state, who, at, mandate))
    ask = ask_for(
        current, agent=who, run=run, call_id=str(action.get("call_id") or "try"), tool_name=str(action.get("tool")),
        args=action.get("args"), pseudonymous=pseudonymous,
        named=bool(state.mandates[state.runs[run].mandate]["named"]), known=state.register.known,
    )  # fmt: skip
    return tried(state, ask, at)


def _mandate(state: State, agent: str, at: int, named: str | None) -> str:
    """The mandate in force that is named, or the agent's only one."""
    fitting = [
        digest
        for digest, doc in state.mandates.items()
        if doc["agent"] == agent
        and named in (None, digest)
        and digest not in state.revoked
        and doc["not_before"] <= at < doc["not_after"]
    ]
    if not fitting:
        raise AuthorityError("the agent has no mandate in force", code="mandate_missing",
                             hint="A principal grants one: `countermark mandate grant`.")  # fmt: skip
    if len(fitting) > 1:
        raise AuthorityError("the agent has several mandates", code="mandate_ambiguous",
                             hint="Name one: --mandate DIGEST.")  # fmt: skip
    return fitting[0]
