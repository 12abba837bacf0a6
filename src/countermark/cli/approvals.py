"""``approvals``: what waits for people, shown from the exact bytes that would be sent, and a person's signed answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from countermark.cli.act import EXITS
from countermark.cli.base import (
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    folded,
    good,
    key_option,
    opening,
    pass_here,
    person_option,
    reading,
    table,
)
from countermark.cli.two import enrolled_here
from countermark.model.errors import AuthorityError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countermark.audit import Sealed
    from countermark.cli.base import Config
    from countermark.model.records import Record
    from countermark.model.values import Request
    from countermark.policy import Bundle, Escalation, Register, State

TO_BE_SENT = "to be sent"
NOT_SENT = "nothing is sent: the answer goes back to the workflow"
QUESTION = "workflow.approve"  # the tool of a step that only asks
LISTED = 500


@dataclass(frozen=True)
class Parked:
    """An action that waits: its decision, the question, and the request rebuilt from the journal."""

    escalation: Escalation
    decided: Record
    bundle: Bundle
    sealed: Sealed | None
    request: Request
    args: dict[str, Any]
    cannot: str
    register: Register

    @property
    def id(self) -> str:
        return str(self.escalation.body["escalation"])

    @property
    def sends(self) -> bool:
        """Whether something goes out after a yes; a workflow's question goes nowhere."""
        return bool(self.decided.body["tool"] != QUESTION)


@click.group()
def approvals() -> None:
    """Answer what the gate asks people."""


@approvals.command(name="list")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=LISTED,
    show_default=True,
    help="At most so many, the newest; each agent has its share.",
)
@as_json_option
@pass_here
def list_(here: Here, limit: int, as_json: bool) -> None:
    """The escalations that wait for an answer."""
    from countermark.audit import cannot, present_state, safe

    document: list[dict[str, Any]] = []
    with reading(here.config()) as store:
        state = present_state(store)
        now = _now(state)
        for parked in reversed(list(islice(state.parked.shared(limit), limit))):
            why = cannot(state, parked, store.record(parked.body["decided"]), now)
            rungs = {
                ladder.id: {"rung": parked.rung(ladder.id), "of": len(ladder.rungs), "due": parked.until(ladder.id)}
                for ladder in parked.plan.ladders
            }
            answers = {ladder: list(people) for ladder, people in parked.answers.items()}
            about = _about(state, store.record(parked.body["decided"]).body)
            document.append({**parked.body, **about, "answers": answers, "rungs": rungs, "cannot_approve": why})
    rows = [_row(body) for body in document]
    head, *told = table(("escalation", "agent", "amount", "payee", "for", "ladder", "until"), rows, right=(2,)) or [""]
    lines = [head] if told else []
    for line, body in zip(told, document, strict=True):
        lines += [line, f"  {safe(' '.join(filter(None, (body['workflow'], body['run']))))}: {safe(body['question'])}"]
    lines += [bad(f"{body['escalation']}: cannot approve: {body['cannot_approve']}") for body in document
              if body["cannot_approve"]]  # fmt: skip
    if len(state.parked) > len(document):
        lines.append(f"{len(state.parked) - len(document):,} older ones wait too; --limit shows more.")
    emit(document, lines or ["Nothing waits for people."], as_json=as_json)


def _row(body: Mapping[str, Any]) -> list[str]:
    from countermark.audit import money, safe, when

    amount, currency = body["terms"]["amount"], body["terms"]["currency"]
    moved = money(amount, currency) if amount is not None else "a question" if body["tool"] == QUESTION else "-"
    rungs = body["rungs"]
    asked = [name + (f" {row['rung']}/{row['of']}" if row["of"] > 1 else "") for name, row in rungs.items()]
    until = when(min(row["due"] for row in rungs.values()))
    payee, reference = body["terms"]["payee"] or "-", safe(body["for"]) or "-"
    return [body["escalation"], body["agent"], moved, payee, reference, ", ".join(asked), until]


def _about(state: State, decided: Mapping[str, Any]) -> dict[str, Any]:
    """Which tool, for what, which workflow's run, and what is asked: the text of `approve`, elsewhere the tool.

    ``for`` are the arguments that the policy calls references, such as ``invoice 4711``; a sealed one has no value.
    """
    run = state.runs.get(decided["run"])
    tool = None if state.bundle is None else state.bundle.compiled.tools.get(decided["tool"])
    given = decided["args"]
    named = [arg.alias for arg in tool.args if arg.class_ == "reference" and arg.alias in given] if tool else []
    question = given.get("question") if decided["tool"] == QUESTION else None
    return {
        "tool": decided["tool"], "workflow": "" if run is None else run.name,
        "for": ", ".join(f"{name} {'(sealed)' if type(given[name]) is dict else given[name]}" for name in named),
        "question": question if type(question) is str else decided["tool"],
    }  # fmt: skip


def _answer(
    here: Here,
    name: str,
    verdict: Literal["approve", "refuse"],
    key: Path,
    person: str,
    ladder: str | None,
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Show, ask, sign, hand in; returns the exit code: with an approval that of the action, as ``act`` has it."""
    from countermark.authority import build_approval, sign_approval
    from countermark.wiring import connectors, open_deployment, owner_lives

    config = here.config()
    private = enrolled_here(config, person, key)
    parked = _parked(config, name)
    asked = _ladder(parked, person, ladder)
    last = verdict == "approve" and _completes(parked, asked, person)
    if last and not owner_lives(config.lock):  # this process will send: an approval must not be used up in vain
        connectors.check_sending(config, parked.bundle.compiled.tools[parked.decided.body["tool"]])
    if not as_json or not yes:
        lines = shown(parked)
        bytes_from = next(number for number, line in enumerate(lines) if line in (TO_BE_SENT, NOT_SENT))
        for line in lines[:bytes_from]:
            folded(line, err=as_json)
        click.echo("\n".join(lines[bytes_from:]), err=as_json)  # what is sent stands as it is
    if not yes:
        question = f"{verdict.capitalize()} exactly this"
        if last:
            question = "Approve and send exactly this now" if parked.sends else "Answer yes to exactly this"
            question = "Approve although this is denied now" if parked.cannot else question
        click.confirm(f"{question}, as {person} on the ladder {asked}?", abort=True, err=as_json)
    document = build_approval(
        parked.escalation.body,
        deployment=config.deployment,
        ladder=asked,
        verdict=verdict,
        person=person,
        rung=parked.escalation.rung(asked),
    )
    signed = sign_approval(document, private)
    with open_deployment(config.root, recover=False) as handle:
        reply = handle.call("answer", signed)
    emit(reply, _replied(reply, parked), as_json=as_json)
    result = reply["result"]
    return 0 if result is None or verdict == "refuse" else EXITS.get(result["status"], 1)


def _now(state: State) -> int:
    """When an answer that is given now would be judged."""
    from countermark.model.clock import SystemClock

    return max(state.at, SystemClock().now_us())


def _completes(parked: Parked, asked: str, person: str) -> bool:
    """Whether this answer is the last one needed."""
    from countermark.policy import state_after

    return state_after(parked.escalation, parked.bundle.compiled, asked, person, "approve") == "approved"


def _replied(reply: dict[str, Any], parked: Parked) -> list[str]:
    from countermark.audit import money

    paint = {"approved": good, "refused": bad}.get(reply["state"], careful)
    lines = [f"The escalation is {paint(reply['state'])}."]
    result = reply["result"]
    if reply["state"] == "pending":
        lines.append("It still needs other people's answers.")
    elif result is not None:
        lines.append(f"The action: {result['status']} [{result['code']}] {result['next_step']}")
        terms = parked.decided.body["terms"]
        if terms["amount"] is not None:
            lines.append(f"  amount   {money(terms['amount'], terms['currency'])}")
        if result["ref"]:
            lines.append(f"  ref      {result['ref']}")
    return lines


_yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_ladder_option = click.option("--ladder", metavar="NAME", help="On which ladder, when several ask this person.")


@approvals.command()
@click.argument("name", metavar="ID")
@key_option
@person_option
@_ladder_option
@_yes
@as_json_option
@pass_here
@click.pass_context
def approve(
    ctx: click.Context, here: Here, name: str, key: Path, person: str, ladder: str | None, yes: bool, as_json: bool
) -> None:
    """Sign a yes to an escalation, after seeing what exactly would be sent.

    The last yes that is needed sends it, from the process that owns the deployment: without one, from here, where the
    provider's secret must be then. The exit code says what became of the action, as with `countermark act`; 0 as well
    when others still have to answer.
    """
    ctx.exit(_answer(here, name, "approve", key, person, ladder, yes=yes, as_json=as_json))


@approvals.command()
@click.argument("name", metavar="ID")
@key_option
@person_option
@_ladder_option
@_yes
@as_json_option
@pass_here
def refuse(here: Here, name: str, key: Path, person: str, ladder: str | None, yes: bool, as_json: bool) -> None:
    """Sign a no. It binds the obligation: nobody can ask for it again."""
    _answer(here, name, "refuse", key, person, ladder, yes=yes, as_json=as_json)


def _parked(config: Config, name: str) -> Parked:
    """The waiting action, with its request rebuilt; refuses when the bytes are not those that were decided.

    The gate's word about what it will send is not enough to sign.
    """
    from countermark.audit import bundles_of, cannot, is_decided, present_state, request_of

    with reading(config) as store, opening(config, store) as unseal:
        state = present_state(store)
        parked = state.parked.get(name)
        if parked is None:
            raise AuthorityError("this escalation is not waiting for an answer", code="approval_closed",
                                 hint="See `countermark approvals list`.")  # fmt: skip
        decided = store.record(parked.body["decided"])
        bundle = bundles_of(store)(parked.body["bundle"])
        sealed = unseal(decided.seq)
        parked.keep()
        why = cannot(state, parked, decided, _now(state))
    tool = bundle.compiled.tools.get(decided.body["tool"])
    found = None if tool is None else request_of(decided.body, tool, sealed)
    if found is None:
        raise AuthorityError("the request cannot be rebuilt: sealed values were erased", code="approval_mismatch")
    if not is_decided(decided.body, found[0], sealed) or decided.digest != parked.body["decided_digest"]:
        raise AuthorityError("the request is not the one that was decided", code="approval_mismatch",
                             hint="Do not sign. Run `countermark doctor`.")  # fmt: skip
    return Parked(parked, decided, bundle, sealed, *found, why, state.register)


def _ladder(parked: Parked, person: str, given: str | None) -> str:
    """The ladder that this person answers on."""
    from countermark.policy import asked_of

    known = parked.bundle.compiled.people.get(person)
    if known is None:
        raise AuthorityError(f"the policy knows no person {person}", code="approval_not_eligible")
    asks = parked.escalation.body["ladders"]
    rungs = {name: asked_of(parked.escalation, parked.bundle.compiled, name) for name in asks}
    fitting = [name for name, rung in rungs.items() if rung is not None and known.roles & rung.roles]
    if given is not None:
        if given not in asks:
            raise ConfigError(f"the escalation does not ask the ladder {given}", hint=f"It asks {', '.join(asks)}.")
        return given
    if not fitting:
        raise AuthorityError(f"{person} has no role of a rung that is asked now", code="approval_not_eligible",
                             hint=f"Asked: {', '.join(asks)}. Who stands in for somebody says --ladder.")  # fmt: skip
    if len(fitting) > 1:
        raise ConfigError("several ladders ask this person", hint=f"Name one with --ladder: {', '.join(fitting)}.")
    return str(fitting[0])


def shown(parked: Parked) -> list[str]:
    """What a person must see before signing: what the exact bytes say, the rules with their numbers, the claim."""
    from countermark.audit import claim, money, numbers, rules_of, safe, when

    body, compiled = parked.decided.body, parked.bundle.document["compiled"]
    terms = body["terms"]
    tool = parked.bundle.compiled.tools[body["tool"]]
    payee = parked.register.known.payees.get(terms["payee"] or "")
    account = tool.one("payee")
    unknown = bad("NOT IN THE POLICY") if terms["payee"] else "none"
    lines = [
        f"{body['tool']} for agent {body['agent']}, asked on {when(parked.decided.at)}",
    ]
    if parked.sends:
        lines += [
            f"  amount   {'none' if terms['amount'] is None else money(terms['amount'], terms['currency'])}",
            f"  payee    {f'{payee.name} ({payee.id})' if payee is not None else unknown}",
        ]
    if account is not None and account.alias in parked.args:
        lines.append(f"  account  {safe(parked.args[account.alias])}")
    lines += _about_payee(parked)
    lines += [f"  {alias} = {safe(value)}" for alias, value in sorted(parked.args.items())]
    lines.append("asked because")
    rules = rules_of(compiled)
    for ladder, ids in parked.escalation.body["ladders"].items():
        for name in ids:
            said = numbers(rules[name], body, compiled) if name in rules else []
            lines.append(f"  {name} (ladder {ladder})" + (f": {' and '.join(said)}" if said else ""))
    for ladder, people in parked.escalation.answers.items():
        lines.append(f"  approved so far on {ladder}: {', '.join(people)}")
    for ladder in parked.escalation.plan.ladders:
        if len(ladder.rungs) > 1:
            rung, until = parked.escalation.rung(ladder.id), when(parked.escalation.until(ladder.id))
            lines.append(f"  ladder {ladder.id}: rung {rung} of {len(ladder.rungs)}, until {until}")
    if parked.cannot:
        lines.append(bad(f"CANNOT APPROVE NOW: {parked.cannot}"))
    reason = _reason(parked)
    if reason:
        lines += ["the agent claims (unverified)", *claim(reason)]
    sent = [TO_BE_SENT, *_bytes(parked.request)] if parked.sends else [NOT_SENT]
    return [*lines, *sent, f"answer before {when(parked.escalation.body['not_after'])}"]


def _about_payee(parked: Parked) -> list[str]:
    """What stands behind the account now, what changed, and whom an unknown account could be taken for."""
    from countermark.audit import safe
    from countermark.cli.payee import said
    from countermark.policy import alike

    payee, known = parked.decided.body["terms"]["payee"], parked.register.known
    behind = parked.escalation.body.get("reference")
    lines = [f"  bank     ...{safe(behind['last4']) or '(several)'}, read at the provider"] if behind else []
    if payee in known.payees:
        return [*lines, *said(parked.register.history(payee))]
    account = parked.bundle.compiled.tools[parked.decided.body["tool"]].one("payee")
    given = "" if payee is None or account is None else str(parked.args.get(account.alias, ""))
    return [*lines, *(bad(f"  looks like the account of {safe(row.name)} ({row.payee})")
                      for row in alike(known.payees, account=given))]  # fmt: skip


def _reason(parked: Parked) -> str:
    from countermark.audit import opened

    return str(opened(parked.decided.body, parked.sealed).get("$reason", ""))


def _bytes(request: Request) -> list[str]:
    """The request as it goes out, without the credential that the sender adds."""
    from countermark.audit import escaped

    lines = [f"  {request.method} {escaped(request.url)}"]
    lines += [f"  {name}: {escaped(value)}" for name, value in request.headers]
    return [*lines, f"  {escaped(request.body.decode('utf-8', 'replace'))}"] if request.body else lines
