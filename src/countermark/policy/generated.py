"""The shipped policies: what the numbers of ``limits.toml`` become. They read limits and facts like any own policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from countermark.facts import FactDef
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import NO_PAYEE, UNKNOWN_PAYEE
from countermark.policy.limits import Limits, WindowLimit
from countermark.policy.own_facts import applies

US = 1_000_000
DETAILS = "payee_details"  # how old the present account of a payee is


def numbers(limits: Limits) -> dict[str, int]:
    """The bundle's ``limits``: what policies read as ``Limits::"limits".NAME``."""
    found: dict[str, int] = {}
    payment, hours = limits.payment, limits.hours
    if payment is not None:
        found["payment_max"] = payment.max
        if payment.ask_above is not None:
            found["payment_ask_above"] = payment.ask_above
        if payment.flag_above is not None:
            found["payment_flag_above"] = payment.flag_above
        if payment.cool_off_s:
            found["payment_cool_off"] = payment.cool_off_s
    for window in limits.windows:
        found[f"window_{window.name}"] = window.max
    if hours is not None:
        found["hours_from"], found["hours_to"] = hours.start, hours.end
    return found


def window_facts(limits: Limits, tools: Mapping[str, ToolSpec]) -> dict[str, FactDef]:
    """One cap per window limit, and the age of a payee's account. Amounts are grouped by currency, counts are of money
    tools."""
    money = tuple(sorted(name for name, tool in tools.items() if tool.class_ == "money"))
    facts: dict[str, FactDef] = {}
    for window in limits.windows:
        over_us = window.over_s * US
        if window.of == "amount":
            facts[window.name] = FactDef(window.name, "window", "amount", over_us, (*window.per, "currency"))
        else:
            facts[window.name] = FactDef(window.name, "window", "count", over_us, window.per, (("tool", money),))
    if limits.payment is not None and limits.payment.cool_off_s:
        facts[DETAILS] = FactDef(DETAILS, "details", group=("payee",), use="floor")
    return facts


def bound_tools(window: WindowLimit, facts: Mapping[str, FactDef], tools: Mapping[str, ToolSpec]) -> list[str]:
    """The money tools that a window limit binds: those whose actions have what it is counted by."""
    return sorted(name for name, tool in tools.items() if tool.class_ == "money" and applies(facts[window.name], tool))


def _policy(name: str, effect: str, scope: str, *, ask: str = "", flag: str = "", clause: str = "") -> str:
    lines = [f'@id("{name}")']
    if ask:
        lines.append(f'@escalate("{ask}")')
    if flag:
        lines.append(f'@flag("{flag}")')
    lines.append(f"{effect}({scope})" + (f"\n{clause};" if clause else ";"))
    return "\n".join(lines)


def _scope(action: str, resource: str = "") -> str:
    return f"principal, action {action}, resource" + (f' == Payee::"{resource}"' if resource else "")


def _one_of(names: Iterable[str]) -> str:
    return "in [" + ", ".join(f'Action::"{name}"' for name in names) + "]"


_MONEY = 'in Action::"money"'
_LIMITS = 'Limits::"limits"'  # parsed once with the bundle, where a context is parsed at every decision


def policies(limits: Limits, tools: Mapping[str, ToolSpec], facts: Mapping[str, FactDef]) -> str:
    """Cedar text of the shipped policies for these limits and tools."""
    found: list[str] = []
    classes = {tool.class_ for tool in tools.values()}
    if "read" in classes:
        found.append(_policy("tools.read", "permit", _scope('in Action::"read"')))
    if "money" in classes and limits.payment is not None:
        found.append(_policy("limits.permit", "permit", _scope(_MONEY)))
        found += _payment(limits) + _payees(limits, tools) + _cool_off(limits, tools) + _hours(limits)
        for window in limits.windows:
            bound = bound_tools(window, facts, tools)
            if bound:
                found.append(
                    _policy(
                        f"limits.window.{window.name}", "forbid", _scope(_one_of(bound)),
                        ask=limits.payment.ladder if window.above == "ask" else "",
                        clause=f"when {{ context.facts.{window.name} > {_LIMITS}.window_{window.name} }}",
                    )
                )  # fmt: skip
    return "\n\n".join(found) + "\n" if found else ""


def _payment(limits: Limits) -> list[str]:
    payment = limits.payment
    if payment is None:
        return []
    found = [
        _policy(
            "limits.payment.max", "forbid", _scope(_MONEY),
            clause=f"when {{ context.amount > {_LIMITS}.payment_max }}",
        )
    ]  # fmt: skip
    if payment.ask_above is not None:
        found.append(
            _policy(
                "limits.payment.ask", "forbid", _scope(_MONEY), ask=payment.ladder,
                clause=f"when {{ context.amount > {_LIMITS}.payment_ask_above }}",
            )
        )  # fmt: skip
    if payment.flag_above is not None:
        found.append(
            _policy(
                "limits.payment.flag", "permit", _scope(_MONEY), flag="large payment",
                clause=f"when {{ context.amount > {_LIMITS}.payment_flag_above }}",
            )
        )  # fmt: skip
    return found


def _payees(limits: Limits, tools: Mapping[str, ToolSpec]) -> list[str]:
    """An unknown payee, and a payee left out where the tool takes one. A tool without payees is not concerned."""
    payment = limits.payment
    if payment is None:
        return []
    ask = payment.ladder if payment.unknown_payee == "ask" else ""
    found = []
    payees = {name: tool.one("payee") for name, tool in sorted(tools.items()) if tool.class_ == "money"}
    if any(payee is not None for payee in payees.values()):
        found.append(_policy("limits.payee.unknown", "forbid", _scope(_MONEY, UNKNOWN_PAYEE), ask=ask))
    optional = [name for name, payee in payees.items() if payee is not None and not payee.required]
    if optional:
        found.append(_policy("limits.payee.none", "forbid", _scope(_one_of(optional), NO_PAYEE), ask=ask))
    return found


def _cool_off(limits: Limits, tools: Mapping[str, ToolSpec]) -> list[str]:
    """People are asked while a payee's account is new: a changed bank account is how payments go astray."""
    payment = limits.payment
    paying = [name for name, tool in sorted(tools.items()) if tool.class_ == "money" and tool.one("payee") is not None]
    if payment is None or not payment.cool_off_s or not paying:
        return []
    clause = (
        f"when {{\n  context.facts.{DETAILS}.known && context.facts.{DETAILS} has age_s &&\n"
        f"  context.facts.{DETAILS}.age_s < {_LIMITS}.payment_cool_off\n}}"
    )
    return [_policy("limits.cool_off", "forbid", _scope(_one_of(paying)), ask=payment.ladder, clause=clause)]


def _hours(limits: Limits) -> list[str]:
    hours, payment = limits.hours, limits.payment
    if hours is None or payment is None:
        return []
    days = ", ".join(str(day) for day in hours.days)
    clause = (
        f"unless {{\n  [{days}].contains(context.facts.local_weekday) &&\n"
        f"  context.facts.local_minute >= {_LIMITS}.hours_from &&\n"
        f"  context.facts.local_minute < {_LIMITS}.hours_to\n}}"
    )
    ask = payment.ladder if hours.outside == "ask" else ""
    return [_policy("limits.hours", "forbid", _scope(_MONEY), ask=ask, clause=clause)]
