"""``act``: ask for one action and wait for its outcome, its denial or its escalation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.base import (
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    good,
    mandate_named,
    mandate_option,
    pass_here,
    read_object,
    short,
)
from countermark.model.errors import ConfigError, CountermarkError

if TYPE_CHECKING:
    from countermark.model.values import Result
    from countermark.wiring import Deployment

EXITS = {"confirmed": 0, "denied": 3, "escalated": 4, "unknown": 5, "pending": 5, "failed": 6}
FINAL = ("confirmed", "denied", "failed")
UNKNOWN_TOOL = (
    "`countermark policy check` lists the policy's tools, `countermark doctor` those that nothing here can send."
)
ACTION = ("run", "call_id", "tool", "args", "reason")


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--agent", metavar="NAME", help="Who asks (default: the only agent with a mandate).")
@mandate_option
@as_json_option
@pass_here
@click.pass_context
def act(ctx: click.Context, here: Here, file: str, agent: str | None, mandate: str | None, as_json: bool) -> None:
    """Ask for one action and wait for what becomes of it.

    FILE is {run?, call_id, tool, args, reason?} in JSON, - is standard input. Without a run one is minted, and ended
    after a final answer. After any other the answer names the run: put it into FILE before you ask again, or it is
    another action. The exit code says what happened: 0 confirmed, 3 denied, 4 escalated, 5 unknown or pending,
    6 failed, 1 an error.
    """
    from countermark.wiring import open_deployment

    action = read_action(file)
    with open_deployment(here.config().root) as handle:
        if mandate is not None:
            mandate, agent = under(handle.call("status", {})["mandates"], mandate, agent, action)
        who = agent or only_agent(handle)
        result = _asked(handle, action, who, mandate)
    emit(result.document(), _lines(result), as_json=as_json)
    ctx.exit(EXITS.get(result.status, 1))


def under(
    mandates: Mapping[str, Mapping[str, Any]], given: str, agent: str | None, action: Mapping[str, Any]
) -> tuple[str, str]:
    """The whole digest of the mandate that ``--mandate`` names, and whose it is. Raises ``CountermarkError``."""
    if action.get("run"):
        raise click.UsageError("a run has its mandate already: leave out --mandate, or 'run' in FILE")
    digest = mandate_named(mandates, given)
    owner = str(mandates[digest]["agent"])
    if agent not in (None, owner):
        raise ConfigError(f"this mandate is agent {owner}'s, not {agent}'s", hint="See `countermark mandate show`.")
    return digest, owner


def _asked(handle: Deployment, action: Mapping[str, Any], who: str, mandate: str | None) -> Result:
    """The gate's answer. A run minted for it ends with a final answer, else it is named: the next question needs it."""
    given = action.get("run")
    run = given or handle.start_run(agent=who, mandate=mandate)
    final = False
    try:
        result = handle.act(
            action["tool"], action["args"], call_id=action["call_id"], run=run, reason=action.get("reason") or "",
            agent=who,
        )  # fmt: skip
        final = result.status in FINAL
    except CountermarkError as error:
        final = not error.retryable
        if error.code == "unknown_tool":
            error.hint = error.hint or UNKNOWN_TOOL
        if error.retryable and not given:
            error.hint = f'{error.hint} Ask again with "run": "{run}".'.strip()
        raise
    finally:
        if final and not given:
            with suppress(CountermarkError):  # the answer matters more than a run that stays open
                handle.call("run.end", {"run": run, "reason": "answered"}, who)
    return result


def read_action(file: str) -> dict[str, Any]:
    """An action file. What stands in ``args`` is the gate's to judge. Raises ``ConfigError`` or ``EncodingError``."""
    action = read_object(file, ACTION, ("call_id", "tool", "args"))
    for name in ("run", "call_id", "tool", "reason"):
        if name in action and type(action[name]) is not str:
            raise ConfigError(f"{file}: {name!r} must be a string")
    if not action["call_id"]:
        raise ConfigError(
            f"{file}: 'call_id' is empty", hint="Give the action a name of its own, to be able to ask again."
        )
    if type(action["args"]) is not dict:
        raise ConfigError(f"{file}: 'args' must be an object")
    return action


def only_agent(handle: Deployment) -> str:
    """The only agent that has a mandate. Raises ``ConfigError``."""
    mandates = handle.call("status", {})["mandates"].values()
    agents = sorted({entry["agent"] for entry in mandates if not entry["revoked"]})
    if len(agents) != 1:
        some = f"With a mandate: {', '.join(agents)}."
        none = "No agent has a mandate: a principal grants one with `countermark mandate grant`."
        raise ConfigError("say who asks: --agent NAME", hint=some if agents else none)
    return str(agents[0])


def _lines(result: Result) -> list[str]:
    paint = good if result.status == "confirmed" else careful if result.status in ("escalated", "pending") else bad
    lines = [f"{paint(result.status)} [{result.code}] {result.next_step}", f"  action   {result.action}"]
    lines.append(f"  run      {result.run}")
    if result.ref:
        lines.append(f"  ref      {result.ref}")
    lines += [f"  output   {name} = {value}" for name, value in sorted(result.output.items())]
    if result.status == "escalated":
        lines.append(f"  waits    {result.escalation}")
    if result.status not in FINAL:
        lines.append(f'  again    ask again with "run": "{result.run}" and the same call_id')
    if result.receipt is not None:
        receipt = result.receipt
        lines.append(f"  decided  #{receipt.decided_seq} {short(receipt.decided)}")
        if receipt.settled is not None:
            lines.append(f"  settled  #{receipt.settled_seq} {short(receipt.settled)}")
        lines.append(f"  tier     {receipt.tier}")
    return lines
