"""``policy``: check a policy directory, run its tests, try an action, put it in force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from countermark.cli.act import EXITS, read_action, under
from countermark.cli.base import (
    Here,
    as_json_option,
    bad,
    careful,
    emit,
    good,
    key_option,
    mandate_option,
    pass_here,
    private_key,
    reading,
    short,
    signer_of,
    table,
)
from countermark.cli.draft import backtest, compiled, diff, preview
from countermark.cli.two import out_option, read_half, second_option, write_half
from countermark.model.errors import AuthorityError, PolicyError

if TYPE_CHECKING:
    from countermark.audit import Trial
    from countermark.policy import State


@click.group()
def policy() -> None:
    """Check, test, try, compare and activate the policy."""


policy.add_command(diff)
policy.add_command(backtest)


@policy.command()
@as_json_option
@pass_here
@click.pass_context
def check(ctx: click.Context, here: Here, as_json: bool) -> None:
    """Compile the policy directory; list every problem, and what each tool can lead to. Exit 1 when refused."""
    from countermark.policy import check as checked
    from countermark.wiring import connectors

    report = checked(here.config().policy, connectors.drafts(), here.config().deployment)
    emit(report.document(), report.lines(), as_json=as_json)
    ctx.exit(0 if report.ok else 1)


@policy.command()
@as_json_option
@pass_here
@click.pass_context
def test(ctx: click.Context, here: Here, as_json: bool) -> None:
    """Run the policy's tests (tests/*.toml). Exit 1 when one fails."""
    from countermark.policy import run_cases

    results = run_cases(compiled(here.config()))
    failed = [result for result in results if not result.passed]
    lines = [f"{good('ok  ') if result.passed else bad('FAIL')}  {result}" for result in results]
    lines.append(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    document = {
        "ok": not failed, "passed": len(results) - len(failed), "failed": len(failed),
        "cases": [
            {
                "file": r.case.file, "line": r.case.line, "name": r.case.name, "passed": r.passed,
                "expected": r.case.expect, "disposition": r.verdict.disposition, "code": r.verdict.code,
                "reasons": list(r.verdict.reasons),
            }
            for r in results
        ],
    }  # fmt: skip
    emit(document, lines, as_json=as_json)
    ctx.exit(1 if failed else 0)


@policy.command(name="try")
@click.argument("file", metavar="ACTION")
@click.option("--agent", metavar="NAME", help="Who asks (default: the policy's only agent).")
@mandate_option
@as_json_option
@pass_here
@click.pass_context
def try_(ctx: click.Context, here: Here, file: str, agent: str | None, mandate: str | None, as_json: bool) -> None:
    """What the policy in force would answer to an action now. Nothing is recorded, nothing is sent.

    ACTION is a file as for `countermark act`. Exit 0 allowed, 3 denied, 4 escalated.
    """
    from countermark.audit import present_state, try_action
    from countermark.model.clock import SystemClock
    from countermark.model.digest import pseudonym
    from countermark.wiring import deployment

    config = here.config()
    action = read_action(file)
    key = deployment.read_key(config.keys / "pseudonym.key")
    with reading(config) as store:
        state = present_state(store)
        if mandate is not None:
            mandate, agent = under(state.mandates, mandate, agent, action)
        trial = try_action(
            state, action, agent=agent, at=max(state.at, SystemClock().now_us()),
            pseudonymous=lambda kind, value: pseudonym(key, kind, value), mandate=mandate,
        )  # fmt: skip
        document = {} if state.bundle is None else dict(state.bundle.document["compiled"])
    found = trial.judgement
    emit(_tried(trial), [*_words(trial, document), *_used(trial, state)], as_json=as_json)
    ctx.exit({"deny": EXITS["denied"], "escalate": EXITS["escalated"]}.get(found.disposition, 0))


def _tried(trial: Trial) -> dict[str, Any]:
    names = ("disposition", "stage", "code", "reasons", "facts", "budgets", "mandates", "terms", "obligation", "bundle")
    return {**{name: trial.body[name] for name in names}, "ladders": _ladders(trial)}


def _ladders(trial: Trial) -> dict[str, list[str]]:
    return {name: list(ids) for name, ids in (trial.judgement.ladders or {}).items()}


def _words(trial: Trial, document: dict[str, Any]) -> list[str]:
    from countermark.audit import numbers, rules_of

    body = trial.body
    paint = {"deny": bad, "escalate": careful}.get(body["disposition"], good)
    lines = [f"{paint(body['disposition'])} [{body['code']}] at the stage {body['stage']}"]
    rules = rules_of(document)
    for name in body["reasons"]:
        said = numbers(rules[name], body, document) if name in rules else []
        shown = name.replace("seq:", "#") if name.startswith("seq:") else name
        lines.append(f"  {shown}" + (f": {' and '.join(said)}" if said else ""))
    for ladder, ids in _ladders(trial).items():
        lines.append(f"  ladder {ladder} could lift {', '.join(ids)}")
    return lines


def _used(trial: Trial, state: State) -> list[str]:
    from countermark.audit import counted

    rows = [(state.mandates[name]["limits"][index], name, used) for name, index, used in trial.body["budgets"]]
    return [f"  mandate {short(name)}: {counted(used, limit['currency'])} used with this" for limit, name, used in rows]


@policy.command()
@as_json_option
@pass_here
def monitored(here: Here, as_json: bool) -> None:
    """What would have been refused, or put to people, of the tools that are only monitored."""
    from countermark.audit import money, present_state, when
    from countermark.audit import monitored as found_in

    with reading(here.config()) as store:
        found, bundle = found_in(store), present_state(store).bundle
    tools = {} if bundle is None else bundle.compiled.tools
    until = {name: tool.monitor for name, tool in tools.items() if tool.monitor is not None}
    lines = [f"{name} is monitored until {when(moment)}; then everything is refused" for name, moment in until.items()]
    for name, codes in found["counts"].items():
        lines.append(f"{name}: " + ", ".join(f"{code} {count}" for code, count in sorted(codes.items())))
    rows = [
        [
            row["id"], row["code"],
            "" if row["terms"]["amount"] is None else money(row["terms"]["amount"], row["terms"]["currency"]),
            row["terms"]["payee"] or "", ", ".join(row["reasons"]), when(row["at"]),
        ]
        for row in found["decisions"]
    ]  # fmt: skip
    lines += table(("action", "would", "amount", "payee", "rules", "decided"), rows, right=(2,))
    emit({"until": until, **found}, lines or ["No tool is or was monitored."], as_json=as_json)


@policy.command()
@click.option(
    "--author", metavar="NAME", required=True, help="Who wrote it; must be the author that limits.toml names."
)
@key_option
@out_option
@second_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json_option
@pass_here
def activate(
    here: Here, author: str, key: Path, out: Path | None, second: Path | None, yes: bool, as_json: bool
) -> None:  # fmt: skip
    """Sign the compiled policy and put it in force. Its tests must pass.

    It first shows what changes, as `policy diff` does, and asks; where nobody answers, nothing is signed. --yes or
    --json is for scripts, and shows nothing.

    The key's owner signs as the one who activates: somebody of the policy in force, or of the first one itself. A
    policy that only monitors a tool is signed by two people: the first with --out FILE, the other with --second FILE.
    """
    from countermark.audit import present_state
    from countermark.authority import activate as sign
    from countermark.authority import countersign
    from countermark.policy import run_cases
    from countermark.wiring import open_deployment

    config = here.config()
    bundle = compiled(config)
    if author != bundle.compiled.author:
        raise AuthorityError(f"limits.toml names {bundle.compiled.author} as the author, not {author}")
    failed = [result for result in run_cases(bundle) if not result.passed]
    if failed:
        raise PolicyError(f"{len(failed)} of the policy's tests fail, the first: {failed[0]}",
                          hint="Run `countermark policy test`.")  # fmt: skip
    private = private_key(key)
    with reading(config) as store:
        state = present_state(store)
    person = signer_of(bundle.compiled.people if state.bundle is None else state.people, private).id
    if not (yes or as_json):
        preview(config, bundle)
    order: dict[str, Any] = {
        "deployment": config.deployment, "bundle": bundle.digest, "author": author, "activator": person,
        "previous": state.activation,
    }  # fmt: skip
    signed = sign(order, private)
    if out is not None:
        write_half(out, "activate", [order], [{"person": person, "key": signed["key"], "sig": signed["sig"]}])
        emit({"file": str(out), "activation": order}, f"{good('Signed')} into {out}. Now somebody else: --second {out}",
             as_json=as_json)  # fmt: skip
        return
    if second is not None:
        documents, rows = read_half(second, "activate", person)
        if documents != [{**order, "activator": rows[0].get("person")}]:
            raise AuthorityError(f"{second} is about another policy, or one was activated meanwhile")
        order, first = documents[0], rows[0]
        signed = {"activation": order, "key": first.get("key"), "sig": first.get("sig")}
        signed["second"] = countersign(order, person, private)
    with open_deployment(config.root, recover=False) as handle:
        digest = handle.call("activate", {**signed, "document": bundle.document})
    people = order["activator"] + (f" and {person}" if second is not None else "")
    text = f"{good('In force:')} {digest}, written by {author}, activated by {people}."
    emit(
        {"bundle": digest, "previous": order["previous"], "author": author, "activator": order["activator"]}, text,
        as_json=as_json,
    )  # fmt: skip
