"""``tools.toml``: which connector tools exist here, what every argument means, and what makes a payment the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

from countermark.model.currency import ISO_CODES
from countermark.model.errors import CountermarkError
from countermark.model.request import path_aliases
from countermark.model.tool import (
    AMOUNT_MAX,
    ARGS_MAX,
    CALLER,
    STRING_CHARS_MAX,
    ArgClass,
    ArgSpec,
    ArgType,
    Recovery,
    ToolClass,
    ToolSpec,
    alias_of,
)  # fmt: skip
from countermark.model.values import TOOL
from countermark.model.words import close_to, nearest
from countermark.policy import evm_tools, mcp_tools
from countermark.policy.answers import check_by_caller, check_object, read_answers
from countermark.policy.toml import Source, Table
from countermark.policy.witness import read_before

TOOLS_MAX = 256
ENCODINGS = ("evm-v1", "form-bare-v1", "form-v1", "json-v1", "mcp-v1", "object-v1", "query-v1")
TOOL_CLASSES: tuple[str, ...] = get_args(ToolClass)
ARG_CLASSES: tuple[str, ...] = get_args(ArgClass)
ARG_TYPES: tuple[str, ...] = get_args(ArgType)
RECOVERIES: tuple[str, ...] = get_args(Recovery)

NO_ISO_CODE = 'What is no ISO code is named by its tool: currency = "...", or enum of its currency argument.'

_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ENDPOINT = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (\S{1,500})")
_ORIGIN = re.compile(
    r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?"
)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_OUTPUT = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SENDERS_HEADERS = ("authorization", "content-type", "idempotency-key", "host", "content-length", "cookie",
                     "mcp-tool-digest")  # fmt: skip
_KEY_TTL_S_MAX = 10 * 366 * 86_400
_TIMEOUT_MS_MAX = 600_000
_SETTLE_LAG_S_MAX = 7 * 86_400
_DISPATCH_S_MAX = 86_400
_TOOL_KEYS = (
    "connector", "class", "args", "recovery", "once_per", "once_scope", "currency", "encoding", "endpoint", "headers",
    "outputs", "answers", "key_ttl_s", "timeout_ms", "settle_lag_s", "dispatch_within_s", "pin", "denied",
    "monitor_until", "resolve", "like", "evm", "witness",
)  # fmt: skip
_ARG_KEYS = (
    "type",
    "class",
    "alias",
    "required",
    "sensitive",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "chars_max",
    "max",
)


def read_tools(
    source: Source, drafts: Mapping[str, Sequence[ToolSpec]], currencies: Sequence[str]
) -> dict[str, ToolSpec]:
    """The tools of this deployment by name, as far as they could be read; what is wrong goes to the findings.

    Raises ``PolicyError`` when nobody can say what some tool is: everything that names it would seem wrong as well.
    """
    root = source.root()
    root.only("connector", "tool")
    origins = _origins(root)
    tools: dict[str, ToolSpec] = {}
    waiting = unread = False
    for name, table in root.tables("tool"):
        if TOOL.fullmatch(name) is None or name in TOOL_CLASSES:
            table.error("", "bad_name", f"{name[:100]!r} is not a valid tool name")
            unread = True
            continue
        if table.boolean("denied", False):
            mcp_tools.denied(table, partial(_tool, name, drafts=drafts, origins=origins, currencies=currencies))
            waiting = True
            continue
        tool = _tool(name, table, drafts, origins, currencies)
        if tool is None:
            unread = True
        else:
            tools[name] = tool
    if unread:
        source.findings.refuse()
    if not tools and not waiting:
        root.error("", "missing_key", 'no [tool."NAME"]: there is nothing to do here')
    if len(tools) > TOOLS_MAX:
        root.error("tool", "too_many", f"more than {TOOLS_MAX} tools")
    return tools


def check_currencies(root: Table, currencies: Sequence[str], tools: Mapping[str, ToolSpec]) -> None:
    """Every currency of ``limits.toml`` is spelled as a tool that moves money takes it, and is one that there is.

    A code that ISO 4217 does not have, such as a token's, is one where a tool's own line names it.
    """
    money = [tool for tool in tools.values() if tool.class_ == "money"]
    named = {tool.currency for tool in money}.union(*(arg.enum for tool in money for arg in _currency_args(tool)))
    for code in currencies if money else ():
        others = sorted({code.lower(), code.upper()} - {code})
        right = [one for one in others if one in named or (_taken(one, money) and not _taken(code, money))]
        if code in named:
            continue
        if right:
            what, hint = f"the tools do not spell a currency {code!r}", f"Did you mean {right[0]!r}?"
        elif code.lower() not in ISO_CODES:
            what = f"{code!r} is no ISO 4217 code, and no tool names it"
            near = close_to(code, ISO_CODES if code.islower() else map(str.upper, ISO_CODES))
            hint = f"{near} {NO_ISO_CODE}".strip()
        elif any(one in currencies for one in others):
            what, hint = f"{code!r} stands there twice, in different case", "Keep it as the provider writes it."
        else:
            if not _taken(code, money):
                root.warn("currencies", "currency_not_moved", f"no tool here moves {code!r}", "Leave it out.")
            continue
        root.error("currencies", "bad_value", what, hint)


def _currency_args(tool: ToolSpec) -> list[ArgSpec]:
    return [arg for arg in tool.args if arg.class_ == "currency" and arg.type == "string"]


def _taken(code: str, tools: Sequence[ToolSpec]) -> bool:
    """Whether one of some tools can move a currency, spelled like that."""
    return any(code == tool.currency or any(_fits(code, arg) for arg in _currency_args(tool)) for tool in tools)


def _fits(value: str, arg: ArgSpec) -> bool:
    try:
        arg.check(value)
    except (CountermarkError, re.error):  # a wrong pattern is told where it stands
        return False
    return True


def _origins(root: Table) -> dict[str, str]:
    origins: dict[str, str] = {}
    for name, table in root.tables("connector"):
        table.only("origin")
        if name == CALLER:
            table.error("", "bad_name", f"{CALLER!r} stands for the calling program, and has no origin")
        origins[name] = table.text(
            "origin", "", form=_ORIGIN, form_hint="Write https://HOST without a path; http only for loopback."
        )
    return origins


def _draft(name: str, table: Table, connector: str, drafts: Mapping[str, Sequence[ToolSpec]]) -> ToolSpec | None:
    """What the connector drafts under the tool's name, or under that which ``like`` says: several tools of one kind.

    None where it drafts no such tool, and so nothing more can be said about this one.
    """
    offered = {draft.name: draft for draft in drafts.get(connector, ())}
    like = table.text("like", name)
    draft = offered.get(like)
    if draft is None:
        if offered or "like" in table:
            table.error("like" if "like" in table else "", "unknown_tool",
                        f"connector {connector!r} has no tool {like!r}", nearest(like, offered))  # fmt: skip
            return None
        return ToolSpec(name, connector, "money", (), encoding="object-v1" if connector == CALLER else "json-v1")
    return replace(draft, name=name)


def _tool(
    name: str, table: Table, drafts: Mapping[str, Sequence[ToolSpec]], origins: Mapping[str, str],
    currencies: Sequence[str],
) -> ToolSpec | None:  # fmt: skip
    """A tool as far as it could be read; None when whose it is, or which one, is not known."""
    table.only(*_TOOL_KEYS)
    connector = table.text("connector")
    by_caller = connector == CALLER
    if connector and connector not in origins and connector not in drafts and not by_caller:
        table.error("connector", "unknown_connector", f"there is no [connector.{connector}]", nearest(
            connector, [*origins, *drafts]))  # fmt: skip
        return None
    draft = _draft(name, table, connector, drafts) if connector else None
    if draft is None:
        return None
    drafted = bool(draft.args or draft.endpoint)
    class_ = table.choice("class", TOOL_CLASSES, draft.class_ if drafted else None)
    tool = replace(
        draft,
        connector=connector,
        class_=class_ if class_ in TOOL_CLASSES else "money",  # type: ignore[arg-type]
        args=_args(table, draft),
        recovery=table.choice("recovery", RECOVERIES, draft.recovery),  # type: ignore[arg-type]
        once_per=table.texts("once_per", draft.once_per),
        once_scope=table.text("once_scope", draft.once_scope or name),
        currency=table.text("currency", draft.currency),
        encoding=table.choice("encoding", ENCODINGS, draft.encoding if drafted or by_caller else None),
        endpoint=_address(name, connector, table, draft, origins),
        headers=_pairs(table, "headers", draft.headers),
        outputs=_pairs(table, "outputs", draft.outputs),
        facts=(),
        key_ttl_s=table.integer("key_ttl_s", draft.key_ttl_s, high=_KEY_TTL_S_MAX),
        timeout_ms=table.integer("timeout_ms", draft.timeout_ms, low=1, high=_TIMEOUT_MS_MAX),
        settle_lag_s=table.integer("settle_lag_s", draft.settle_lag_s, high=_SETTLE_LAG_S_MAX),
        dispatch_within_s=table.integer("dispatch_within_s", draft.dispatch_within_s, low=1, high=_DISPATCH_S_MAX),
        answers=None if by_caller else read_answers(table, origins.get(connector, "")),
        monitor=table.maybe_moment_us("monitor_until"),
        resolve=_resolve(table, draft),
        resolvable=(),
        witness=read_before(table, class_, connector),
    )
    if by_caller:
        check_by_caller(table)
    if tool.monitor is not None:
        table.warn("monitor_until", "monitored", f"{name} is only monitored: what rules forbid is done all the same",
                   "Hard limits, business keys, mandates and stops hold. Two people sign the activation.")  # fmt: skip
    if tool.encoding == "object-v1":
        check_object(table, tool)
    if tool.encoding == evm_tools.ENCODING:
        tool = evm_tools.onchain(table, tool)
    elif "evm" in table:
        table.error("evm", "bad_value", "'evm' is for tools on a chain")
    if tool.encoding == mcp_tools.ENCODING:
        tool = mcp_tools.pinned(table, tool)
    elif "pin" in table:
        table.error("pin", "bad_value", "'pin' is for tools of MCP servers")
    _check_tool(table, tool, currencies)
    return tool


def _resolve(table: Table, draft: ToolSpec) -> str:
    """The argument whose meaning at the provider is read: one that the connector can read."""
    name = table.text("resolve", "")
    if name and name not in draft.resolvable:
        table.error("resolve", "bad_value", f"the connector cannot read what stands behind {name[:40]!r}",
                    f"It can for {', '.join(draft.resolvable)}." if draft.resolvable else "Leave it out.")  # fmt: skip
    return name


def _address(name: str, connector: str, table: Table, draft: ToolSpec, origins: Mapping[str, str]) -> str:
    """Where the tool's requests go; on a chain, the tool's own subtable says it."""
    if connector == CALLER:
        return f"CALL {name}"
    if draft.encoding == evm_tools.ENCODING:
        return draft.endpoint
    return _endpoint(table, connector, draft, origins)


def _endpoint(table: Table, connector: str, draft: ToolSpec, origins: Mapping[str, str]) -> str:
    text = table.text("endpoint", draft.endpoint or None, form=_ENDPOINT,
                      form_hint='Write "POST /path", or "POST https://host/path".')  # fmt: skip
    method, _, target = text.partition(" ")
    if not target.startswith("/"):
        return text
    origin = origins.get(connector, "")
    if not origin:
        table.error(
            "connector", "missing_origin", f"the endpoint {text!r} has no origin",
            f'Add [connector.{connector}] with origin = "https://...". {close_to(connector, origins)}'.strip(),
        )  # fmt: skip
    return f"{method} {origin}{target}"


def _pairs(table: Table, key: str, default: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """A small table of strings, over the draft's."""
    below = table.table(key)
    form = _HEADER if key == "headers" else _OUTPUT
    pairs = dict(default)
    for name in below.value:
        if form.fullmatch(name) is None or (key == "headers" and name.lower() in _SENDERS_HEADERS):
            below.error(name, "bad_name", f"{name[:70]!r} may not stand in {key}")
        else:
            pairs[name] = below.choice(name, ARG_TYPES) if key == "outputs" else below.text(name)
    return tuple(sorted(pairs.items())) if key == "outputs" else tuple(pairs.items())


def _args(table: Table, draft: ToolSpec) -> tuple[ArgSpec, ...]:
    specs: dict[str, ArgSpec] = dict(draft.by_name)
    for name, below in table.tables("args"):
        below.only(*_ARG_KEYS)
        base = specs.get(name)
        if base is None:
            if "class" not in below:
                below.error(
                    "", "unclassified", f"argument {name!r} has no class",
                    f"Say class = one of {', '.join(ARG_CLASSES)}. {nearest(name, draft.by_name)}".strip(),
                )  # fmt: skip
            base = ArgSpec(name, "string", "inert", "", required=False)
        specs[name] = _arg(name, below, base)
    for name, spec in specs.items():
        if spec.class_ not in ARG_CLASSES:
            table.error(
                "args",
                "unclassified",
                f"argument {name!r} has no class",
                f'Add [tool."{draft.name}".args."{name}"] with class = one of {", ".join(ARG_CLASSES)}.',
            )
    aliases: dict[str, str] = {}
    for name, spec in specs.items():
        if aliases.setdefault(spec.alias, name) != name:
            table.error("args", "duplicate", f"{name!r} and {aliases[spec.alias]!r} have the same alias {spec.alias!r}")
    if len(specs) > ARGS_MAX:
        table.error("args", "too_many", f"more than {ARGS_MAX} arguments")
    return tuple(specs[name] for name in sorted(specs))


def _arg(name: str, table: Table, base: ArgSpec) -> ArgSpec:
    alias = base.alias
    if not alias and "alias" not in table:
        try:
            alias = alias_of(name)
        except CountermarkError as error:
            table.error("", "bad_name", error.message, 'Add alias = "name".')
    if "maximum" in table and "max" in table:
        table.error("max", "duplicate", "'max' and 'maximum' say the same")
    highest = table.maybe_integer("max", low=-AMOUNT_MAX, high=AMOUNT_MAX)
    maximum = table.maybe_integer("maximum", low=-AMOUNT_MAX, high=AMOUNT_MAX)
    spec = replace(
        base,
        type=table.choice("type", ARG_TYPES, base.type),  # type: ignore[arg-type]
        class_=table.choice("class", ARG_CLASSES, base.class_),  # type: ignore[arg-type]
        alias=table.text("alias", alias, form=_ALIAS, form_hint="Use a-z, 0-9 and _, starting with a letter."),
        required=table.boolean("required", base.required),
        sensitive=table.boolean("sensitive", base.sensitive),
        enum=table.texts("enum", base.enum),
        pattern=table.text("pattern", base.pattern),
        minimum=table.integer("minimum", low=-AMOUNT_MAX, high=AMOUNT_MAX) if "minimum" in table else base.minimum,
        maximum=next((value for value in (highest, maximum) if value is not None), base.maximum),
        chars_max=table.integer("chars_max", base.chars_max, low=1, high=STRING_CHARS_MAX),
    )
    _check_arg(table, spec)
    return spec


def _check_arg(table: Table, spec: ArgSpec) -> None:
    try:
        re.compile(spec.pattern)
    except re.error as error:
        table.error("pattern", "bad_value", f"'pattern' is not a regular expression: {error.msg}")
    if spec.type != "string" and (spec.enum or spec.pattern):
        table.error("enum" if spec.enum else "pattern", "bad_value", "'enum' and 'pattern' are for strings")
    if spec.type != "integer" and not spec.unit and (spec.minimum is not None or spec.maximum is not None):
        table.error("", "bad_value", "'minimum' and 'maximum' are for integers")
    if spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        table.error("", "bad_value", "'minimum' is greater than 'maximum'")


def _check_tool(table: Table, tool: ToolSpec, currencies: Sequence[str]) -> None:
    for class_ in ("amount", "currency", "payee"):
        if sum(1 for arg in tool.args if arg.class_ == class_) > 1:
            table.error("args", "ambiguous", f"more than one argument has the class {class_!r}",
                        "An action moves one amount in one currency to one payee.")  # fmt: skip
    _check_once(table, tool)
    _check_path(table, tool)
    if tool.recovery == "idempotent" and tool.key_ttl_s == 0:
        table.error("recovery", "bad_value", "recovery by idempotency key needs key_ttl_s",
                    "Say for how many seconds the provider keeps keys.")  # fmt: skip
    if tool.currency and tool.currency.lower() not in map(str.lower, currencies):  # else it is spelled in two ways
        table.error("currency", "unknown_currency", f"{tool.currency!r} is not one of currencies", nearest(
            tool.currency, currencies))  # fmt: skip
    payee = tool.one("payee")
    if payee is not None and payee.type != "string":
        table.error("args", "bad_value", f"the payee {payee.name!r} must be a string")
    if tool.class_ == "money":
        _check_money(table, tool)
    elif tool.one("amount") is not None:
        table.error("class", "bad_class", "a tool with an amount moves money", 'Say class = "money".')


def _check_path(table: Table, tool: ToolSpec) -> None:
    """Every brace of the endpoint belongs to ``{alias}`` of a required, clear argument, once, in the path."""
    aliases, rest = path_aliases(tool.endpoint), tool.endpoint
    for alias in aliases:
        rest = rest.replace("{" + alias + "}", "", 1)
        arg = tool.by_alias.get(alias)
        if arg is None or not arg.required or arg.sensitive:
            table.error("endpoint", "bad_path", f"{{{alias}}} in the endpoint is no required, clear argument's alias",
                        "What stands in a path is in the clear, and a path without it is another path.")  # fmt: skip
    if len(set(aliases)) != len(aliases) or "{" in rest or "}" in rest or "{" in "/".join(tool.endpoint.split("/")[:3]):
        table.error("endpoint", "bad_path", "braces in an endpoint name an argument by its alias, once, in the path",
                    'Write for instance "POST /v1/payment_intents/{intent}/capture".')  # fmt: skip


def _check_once(table: Table, tool: ToolSpec) -> None:
    known = [arg.alias for arg in tool.args] + (["payee"] if tool.one("payee") is not None else [])
    for name in tool.once_per:
        if name not in known:
            table.error(
                "once_per", "unknown_alias", f"once_per names {name!r}, but no argument of {tool.name} is called so",
                nearest(name, known),
            )  # fmt: skip


def _countable(amount: ArgSpec) -> bool:
    """An integer of minor units, or a text of base units with a unit."""
    return amount.type == ("string" if amount.unit else "integer")


def _may_be_zero(amount: ArgSpec) -> bool:
    return amount.minimum is not None and amount.minimum < 1


def _check_money(table: Table, tool: ToolSpec) -> None:
    amount, currency = tool.one("amount"), tool.one("currency")
    if amount is None:
        if not any(arg.class_ == "amount" for arg in tool.args):
            table.error("args", "amount_not_mapped", f"{tool.name}: amount not mapped",
                        'A money tool has one argument with class = "amount".')  # fmt: skip
    elif not _countable(amount) or not amount.required or amount.sensitive or _may_be_zero(amount):
        table.error("args", "bad_amount", f"the amount {amount.name!r} must be a required, clear integer of at least 1",
                    "Amounts are integers in minor units.")  # fmt: skip
    if currency is None and not tool.currency:
        table.error("currency", "currency_not_mapped", f"{tool.name}: currency not mapped",
                    'Give one argument class = "currency", or say currency = "eur" for the tool.')  # fmt: skip
    elif currency is not None and (currency.type != "string" or currency.sensitive):
        table.error("args", "bad_currency", f"the currency {currency.name!r} must be a clear string")
    elif currency is not None and not currency.required and not tool.currency:
        table.error("args", "bad_currency", f"the currency {currency.name!r} may be absent, and the tool names none",
                    'Say required = true, or currency = "eur" for the tool.')  # fmt: skip
    if not tool.once_per:
        table.error(
            "once_per", "missing_key", f"{tool.name}: once_per is missing",
            'Say which arguments make two payments the same obligation, e.g. once_per = ["payee", "invoice"].',
        )  # fmt: skip
