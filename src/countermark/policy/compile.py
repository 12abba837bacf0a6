"""From sources and connector drafts to a bundle. Pure; it lists every problem that it finds, not the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from countermark.facts import FactDef
from countermark.model.errors import CountermarkError, PolicyError
from countermark.model.tool import ToolSpec
from countermark.model.words import nearest
from countermark.policy import generated
from countermark.policy.bundle import NO_PAYEE, UNKNOWN_PAYEE, VERSION, Bundle
from countermark.policy.cases import FOLDER, read_cases
from countermark.policy.cedar import POLICIES_MAX, POLICY_ID, Policy, parse, split
from countermark.policy.findings import Findings
from countermark.policy.limits import Limits, read_limits
from countermark.policy.own_facts import applies, read_facts
from countermark.policy.schema import entities_of, reads_of, schema_of
from countermark.policy.sources import FACTS, LADDERS, LIMITS, TOOLS, Sources, checked
from countermark.policy.toml import Source
from countermark.policy.tools import check_currencies, read_tools
from countermark.policy.validate import validate
from countermark.policy.witness import WITNESSES, check_before, read_rule

SHIPPED = "(shipped)"  # the file name of the policies that are made from limits.toml
_ANNOTATION_CHARS_MAX = 200


def compile_bundle(
    sources: Sequence[tuple[str, str]], drafts: Mapping[str, Sequence[ToolSpec]], deployment: str = ""
) -> Bundle:
    """The bundle of a policy directory's files (``load_sources``).

    ``drafts`` maps a connector's name to the tools it offers; a connector without drafts has all in ``tools.toml``.
    ``deployment``: whose witnesses do not count for it; where it is not given, activation looks again.

    Raises:
        PolicyError: with ``findings``, every problem with file, line and hint.
    """
    ordered = checked(sources)
    findings = Findings()
    document = _compile(ordered, drafts, findings, deployment)
    findings.refuse()
    try:
        return Bundle.from_document(document, findings.warnings)
    except CountermarkError as error:
        # For instance: longer than a document may be, or a string that is not valid Unicode.
        findings.error("", 0, "bad_bundle", error.message, error.hint)
    findings.refuse()
    raise PolicyError("the policy does not make a bundle")


def _compile(
    ordered: Sources, drafts: Mapping[str, Sequence[ToolSpec]], findings: Findings, deployment: str
) -> dict[str, Any]:
    texts = dict(ordered)
    parsed = {path: Source(path, text, findings) for path, text in ordered if path.endswith(".toml")}
    findings.refuse()  # what is not TOML is missing everywhere else: nothing further would be worth saying
    limits = read_limits(parsed[LIMITS], parsed.get(LADDERS))
    tools = read_tools(parsed[TOOLS], drafts, limits.currencies)
    check_currencies(parsed[LIMITS].root(), limits.currencies, tools)
    rule = read_rule(texts.get(WITNESSES), limits.stale_after, deployment, LIMITS, findings)
    check_before(tools, {name: parsed[TOOLS].line(("tool", name, "witness")) for name in tools}, rule, TOOLS, findings)
    facts = generated.window_facts(limits, tools)
    if FACTS in parsed:
        facts |= read_facts(parsed[FACTS], tools, facts.keys())
    for path, source in parsed.items():
        if path.startswith(FOLDER):
            read_cases(source, tools, limits.agents)
    _check_money(limits, tools, facts, findings)

    shipped = generated.policies(limits, tools, facts)
    policies = _policies([(SHIPPED, shipped), *((path, text) for path, text in ordered if path.endswith(".cedar"))],
                         limits, findings)  # fmt: skip
    tools = {name: replace(tool, facts=_facts_of(tool, facts, policies)) for name, tool in tools.items()}
    tools = {name: replace(tool, reads=reads_of(tool, policies)) for name, tool in tools.items()}
    numbers = generated.numbers(limits)
    schema = schema_of(tools, facts, numbers)
    # With broken tools or facts every policy that uses one would be reported as well: first things first.
    if not findings.has_errors_in(TOOLS) and not findings.has_errors_in(FACTS):
        validate(policies, schema, tools, facts, numbers, findings)
    _check_permitted(tools, policies, findings)
    _check_asked(limits, policies, findings)
    read = _read_facts(tools, facts, findings, texts.get(FACTS, ""))
    compiled = {
        "cedar": "\n\n".join(policy.statement.text for policy in policies) + "\n",
        "schema": schema,
        "entities": entities_of(limits.agents.values(), limits.payees, numbers),
        "limits": numbers,
        "facts": [definition.document() for definition in read],
        "tools": [tool.document() for _, tool in sorted(tools.items())],
        **_who(limits),
        **({"witness": rule.document()} if rule is not None else {}),
    }
    return {"v": VERSION, "source": [[path, text] for path, text in ordered], "compiled": compiled}


def _who(limits: Limits) -> dict[str, Any]:
    """The members of a compiled bundle that say who and where."""
    return {
        "people": [person.document() for _, person in sorted(limits.people.items())],
        "agents": [agent.document() for _, agent in sorted(limits.agents.items())],
        "payees": [
            {"id": payee.id, "name": payee.name, "account": payee.account}
            for _, payee in sorted(limits.payees.items())
        ],
        "ladders": [ladder.document() for _, ladder in sorted(limits.ladders.items())],
        "zone": limits.zone, "currencies": list(limits.currencies), "author": limits.author,
        **({"test": True} if limits.test else {}),
        **({"console": limits.console} if limits.console else {}),
        **({"ap2": [source.document() for source in limits.ap2]} if limits.ap2 else {}),
        **({"retention": limits.retention.document()} if limits.retention is not None else {}),
    }  # fmt: skip


def _check_money(
    limits: Limits, tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef], findings: Findings
) -> None:
    money = sorted(name for name, tool in tools.items() if tool.class_ == "money")
    if money and limits.payment is None:
        findings.error(
            LIMITS, 0, "missing_key", f"{money[0]} moves money, but there is no [payment]",
            "Add [payment] with max = the most that one payment may be, in minor units.",
        )  # fmt: skip
    for window in limits.windows:
        bound = generated.bound_tools(window, facts, tools)
        for name in money:
            if name not in bound:
                findings.warn(
                    LIMITS,
                    window.line,
                    "window_not_binding",
                    f"window {window.name!r} does not bind {name}, which has no {' or '.join(window.per)}",
                )


def _policies(files: Sequence[tuple[str, str]], limits: Limits, findings: Findings) -> list[Policy]:
    """Every policy that can be read, shipped ones first; ids, annotations and counts are checked."""
    found: dict[str, Policy] = {}
    for file, text in files:
        for statement in split(text, file):
            try:
                policy = parse(statement)
            except PolicyError as error:
                findings.error(file, statement.line, "bad_cedar", error.message, error.hint)
                continue
            first = found.get(policy.id)
            if POLICY_ID.fullmatch(policy.id) is None:
                findings.error(file, statement.line, "missing_id", "a policy has no @id of its own",
                               'Start it with @id("name"): A-Z a-z 0-9 _ . and -, at most 64.')  # fmt: skip
            elif first is not None:
                findings.error(
                    file,
                    statement.line,
                    "duplicate",
                    f"@id({policy.id!r}) stands already in {first.statement.file}:{first.statement.line}",
                )
            else:
                found[policy.id] = policy
                _check_annotations(policy, limits, findings)
                _check_entities(policy, limits, findings)
    if len(found) > POLICIES_MAX:
        findings.error("policies", 0, "too_many", f"more than {POLICIES_MAX} policies")
    return list(found.values())


def _check_annotations(policy: Policy, limits: Limits, findings: Findings) -> None:
    file, line = policy.statement.file, policy.statement.line
    ladder = policy.escalate
    if ladder is not None and policy.effect == "permit":
        findings.error(file, line, "bad_annotation", f"{policy.id}: @escalate marks a forbid that people may lift")
    elif ladder is not None and ladder not in limits.ladders and file != SHIPPED:
        findings.error(file, line, "unknown_ladder", f"{policy.id}: there is no ladder {ladder!r}",
                       nearest(ladder, limits.ladders))  # fmt: skip
    if policy.flag is not None and policy.effect == "forbid":
        findings.error(file, line, "bad_annotation", f"{policy.id}: @flag marks a permit",
                       "To stop an action until people answer, use @escalate on the forbid.")  # fmt: skip
    if "ticket" in policy.annotations and (policy.effect == "forbid" or not policy.words & {"local_day", "known"}):
        findings.error(file, line, "bad_annotation", f"{policy.id}: @ticket marks a permit that ends by itself",
                       "An exception reads facts.local_day, or whether a fact with `over` is known.")  # fmt: skip
    if any(len(value) > _ANNOTATION_CHARS_MAX for value in policy.annotations.values()):
        findings.error(file, line, "bad_annotation", f"{policy.id}: an annotation is too long")


def _check_permitted(tools: Mapping[str, ToolSpec], policies: Sequence[Policy], findings: Findings) -> None:
    for name, tool in sorted(tools.items()):
        if not any(policy.effect == "permit" and policy.covers(tool) for policy in policies):
            findings.warn(TOOLS, 0, "never_permitted", f"no policy permits {name}",
                          "Tools of the class change need a permit of their own in policies/.")  # fmt: skip


def _check_asked(limits: Limits, policies: Sequence[Policy], findings: Findings) -> None:
    asked = {policy.escalate for policy in policies}
    for name in sorted(limits.ladders.keys() - asked):
        findings.warn(LIMITS, 0, "ladder_not_asked", f"nothing asks the ladder {name!r}",
                      "A rule asks it with @escalate, and limits.toml with ladder in [payment].")  # fmt: skip


def _check_entities(policy: Policy, limits: Limits, findings: Findings) -> None:
    """A forbid for a misspelt payee would validate and never apply, so whatever a policy names must exist."""
    known = {
        "Agent": list(limits.agents),
        "Payee": [*limits.payees, UNKNOWN_PAYEE, NO_PAYEE],
        "Limits": ["limits"],
    }
    for type_, name in sorted(policy.entities):
        if type_ in known and name not in known[type_]:
            line = policy.statement.line + policy.statement.text.partition(f'"{name}"')[0].count("\n")
            findings.error(policy.statement.file, line, "unknown_entity",
                           f'{policy.id}: there is no {type_}::"{name[:60]}"', nearest(name, known[type_]))  # fmt: skip


def _facts_of(tool: ToolSpec, facts: Mapping[str, FactDef], policies: Sequence[Policy]) -> tuple[str, ...]:
    """The facts that a tool's actions can have and that a policy which can apply to them may read."""
    covering = [policy for policy in policies if policy.covers(tool)]
    return tuple(
        name
        for name, definition in sorted(facts.items())
        if applies(definition, tool) and any(name in policy.words for policy in covering)
    )


def _read_facts(
    tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef], findings: Findings, text: str
) -> list[FactDef]:
    """The definitions that some tool needs, by name; an own one that nobody reads is worth a warning."""
    used = {name for tool in tools.values() for name in tool.facts}
    own = Source(FACTS, text, Findings())
    for name in sorted(facts.keys() - used):
        if name in own.data.get("facts", {}):
            findings.warn(FACTS, own.line(("facts", name)), "fact_never_read",
                          f"fact {name!r} is never read by a policy that can apply")  # fmt: skip
    return [facts[name] for name in sorted(used)]
