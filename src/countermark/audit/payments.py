"""A list of past payments as CSV, read strictly: every line that is not exactly understood is named.

Columns: ``date`` (2026-11-03) or ``at`` (2026-11-03T09:12:03Z), ``amount`` (decimal, a point and no grouping),
``currency``, and ``payee`` or ``account``; optional ``time`` (09:12, in the policy's zone), ``agent``, ``tool``,
``reference``, and any argument of the tool by its name or alias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from countermark.audit.paid import csv_rows
from countermark.audit.words import digits_of, safe
from countermark.model.clock import US
from countermark.model.errors import ArgumentError
from countermark.model.tool import AMOUNT_MAX, STRING_CHARS_MAX, ArgSpec, ToolSpec
from countermark.policy import Bundle

PAYMENTS_BYTES_MAX = 16 << 20
ROWS_MAX = 100_000
SHOWN_MAX = 20
NOON = "12:00"  # of a payment whose time is not given
YEAR_MIN, YEAR_MAX = 2_000, 2_099

_OWN = ("date", "time", "at", "amount", "currency", "payee", "account", "agent", "tool", "reference")
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Payment:
    """One line of the file as an action: ``at`` in microseconds UTC, ``args`` by the tool's own names."""

    line: int
    at: int
    agent: str
    tool: str
    args: Mapping[str, Any]


class PaymentsError(ArgumentError):
    """Lines of a list of payments that cannot be read; the message names each with its number."""

    code = "bad_import"

    def __init__(self, wrong: list[tuple[int, str]], hint: str = "") -> None:
        shown = "; ".join(f"line {number}: {why}" for number, why in wrong[:SHOWN_MAX])
        more = f"; and {len(wrong) - SHOWN_MAX} more" if len(wrong) > SHOWN_MAX else ""
        hint = hint or "Correct these lines; docs/backtest.md lists the columns."
        super().__init__(f"nothing was decided; {shown}{more}", field="file", hint=hint)


class _LineError(Exception):
    """What is wrong with one line."""


def read_payments(raw: bytes, bundle: Bundle, *, agent: str = "", tool: str = "") -> list[Payment]:
    """The payments of a file in order of time, those of one moment in the file's order.

    ``agent`` and ``tool`` stand for columns that are absent or cells that are empty; without them the bundle's only
    agent, and its only money tool that takes a payee.

    Raises:
        PaymentsError: the file or a line is malformed.
    """
    if len(raw) > PAYMENTS_BYTES_MAX:
        raise PaymentsError([(1, f"the file is longer than {PAYMENTS_BYTES_MAX} bytes")], "Split it.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PaymentsError([(1, "the file is not UTF-8")], "Save it as CSV UTF-8.") from None
    head, rows, wrong = csv_rows(text)
    _check_head(head, wrong, rows)
    if len(rows) > ROWS_MAX:
        raise PaymentsError([(rows[ROWS_MAX][0], f"more than {ROWS_MAX} payments")], "Split it.")
    reader = _Reader(bundle, head, agent or _only_agent(bundle), tool or _only_tool(bundle))
    found: list[Payment] = []
    for number, row in rows:
        try:
            found.append(reader.payment(number, row))
        except _LineError as error:
            wrong.append((number, str(error)))
    if wrong:
        raise PaymentsError(sorted(wrong))
    return sorted(found, key=lambda payment: payment.at)


def _check_head(head: list[str], wrong: list[tuple[int, str]], rows: list[Any]) -> None:
    if len(head) == 1 and ";" in head[0]:
        raise PaymentsError([(1, "the columns are separated by semicolons")], "Separate columns by commas.")
    if not wrong and not rows:
        raise PaymentsError([(1, "there is no payment in it")])
    if wrong and not rows:
        raise PaymentsError(wrong)
    lacking = [name for name in ("amount", "currency") if name not in head]
    lacking += [] if "date" in head or "at" in head else ["date (or at)"]
    lacking += [] if "payee" in head or "account" in head else ["payee (or account)"]
    if lacking:
        raise PaymentsError([(1, f"the column {name} is missing") for name in lacking])
    for one, other in (("date", "at"), ("payee", "account"), ("time", "at")):
        if one in head and other in head:
            raise PaymentsError([(1, f"both {one} and {other} are given")], "Leave one of them out.")


def _only_agent(bundle: Bundle) -> str:
    agents = sorted(bundle.compiled.agents)
    return agents[0] if len(agents) == 1 else ""


def _only_tool(bundle: Bundle) -> str:
    """The money tool that takes a payee, when there is one; of several, the one that pays others than ourselves."""
    tools = [t.name for t in bundle.compiled.tools.values() if t.class_ == "money" and t.one("payee") is not None]
    return tools[0] if len(tools) == 1 else ""


class _Reader:
    """Lines into payments, under one bundle."""

    def __init__(self, bundle: Bundle, head: list[str], agent: str, tool: str) -> None:
        self._compiled = bundle.compiled
        self._agent, self._tool = agent, tool
        self._zone = ZoneInfo(bundle.compiled.zone)
        self._more = [name for name in head if name not in _OWN]

    def payment(self, number: int, row: Mapping[str, str]) -> Payment:
        for name, cell in row.items():
            if len(cell) > STRING_CHARS_MAX or not cell.isprintable():
                raise _LineError(f"{safe(name)[:40]} is too long, or holds characters that cannot be seen")
        agent, tool = row.get("agent") or self._agent, self._named_tool(row)
        if not agent:
            raise _LineError("no agent is named, and the policy has several: add the column, or --agent")
        args = dict(self._arguments(tool, row))
        return Payment(number, self._at(row), agent, tool.name, args)

    def _named_tool(self, row: Mapping[str, str]) -> ToolSpec:
        name = row.get("tool") or self._tool
        tool = self._compiled.tools.get(name)
        if not name:
            raise _LineError("no tool is named, and the policy has several that pay: add the column, or --tool")
        if tool is None or tool.class_ != "money":
            raise _LineError(f"the policy has no tool {safe(name)[:80]} that moves money")
        return tool

    def _arguments(self, tool: ToolSpec, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        currency, amount = self._currency(tool, row["currency"]), tool.one("amount")
        for spec, value in (
            (amount, _as_argument(amount, minor_units(row["amount"], currency))), (tool.one("currency"), currency),
            (tool.one("payee"), self._account(row)),
        ):  # fmt: skip
            if spec is not None:
                yield spec.name, value
        if row.get("reference"):
            spec = _reference(tool)
            yield spec.name, _typed(spec, row["reference"])
        for name in self._more:
            if row[name]:
                found = tool.by_name.get(name) or tool.by_alias.get(name)
                if found is None:
                    raise _LineError(f"{tool.name} has no argument {safe(name)[:80]}, and no column has this name")
                yield found.name, _typed(found, row[name])

    def _currency(self, tool: ToolSpec, text: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}", text) is None:
            raise _LineError("the currency is not a code")
        for known in self._compiled.currencies:  # as the provider writes it
            if known.casefold() == text.casefold():
                return known
        if tool.one("currency") is None and text.casefold() != tool.currency.casefold():
            raise _LineError(f"{tool.name} moves {tool.currency}, not {text}")
        return text

    def _account(self, row: Mapping[str, str]) -> str:
        """The account, or that of the payee of the policy with this ID; a payee with another name is an account."""
        given = row.get("payee") or row.get("account") or ""
        if not given:
            raise _LineError("no payee is named")
        known = self._compiled.payees.get(given) if "payee" in row else None
        return given if known is None else known.account

    def _at(self, row: Mapping[str, str]) -> int:
        try:
            if "at" in row:
                if _AT.fullmatch(row["at"]) is None:
                    raise _LineError("at is written 2026-11-03T09:12:03Z")
                moment = datetime.fromisoformat(row["at"].replace("Z", "+00:00")).astimezone(UTC)
            else:
                clock = row.get("time") or NOON
                if _DATE.fullmatch(row["date"]) is None or _TIME.fullmatch(clock) is None:
                    raise _LineError("a date is written 2026-11-03, a time 09:12")
                local = datetime.fromisoformat(f"{row['date']}T{clock}")
                moment = local.replace(tzinfo=self._zone).astimezone(UTC)
        except (ValueError, OverflowError):
            raise _LineError("there is no such time") from None
        if not YEAR_MIN <= moment.year <= YEAR_MAX:
            raise _LineError(f"the year is not between {YEAR_MIN} and {YEAR_MAX}")
        return int(moment.timestamp()) * US


def minor_units(text: str, currency: str) -> int:
    """``1234.50`` in EUR -> ``123450``: by the currency's exponent, in integers throughout.

    A currency without an ISO code counts in its smallest units. Raises ``_LineError``.
    """
    found = _AMOUNT.fullmatch(text)
    digits = digits_of(currency) or 0
    if found is None:
        raise _LineError("the amount is not a number like 1234.50 (a point, no grouping, no sign)")
    whole, part = found[1], found[2] or ""
    if len(part) > digits:
        raise _LineError(f"the amount has {len(part)} digits after the point, {currency} has {digits}")
    amount = int(whole + part.ljust(digits, "0"))
    if not 1 <= amount <= AMOUNT_MAX:
        raise _LineError("the amount is out of range")
    return amount


def _as_argument(spec: ArgSpec | None, units: Any) -> Any:
    """A list's amount as the tool takes it: base units as a text where limits count larger ones."""
    return units if spec is None or not spec.unit else str(units * spec.unit)


def _reference(tool: ToolSpec) -> ArgSpec:
    """The argument that tells obligations apart, beside the payee."""
    found = [tool.by_alias[name] for name in tool.once_per if name in tool.by_alias]
    named = [spec for spec in found if spec.class_ == "reference" and spec.required]
    named = named or [spec for spec in found if spec.class_ == "reference"]
    if len(named) != 1:
        raise _LineError(f"{tool.name} has no single reference: name the column as the argument")
    return named[0]


def _typed(spec: ArgSpec, text: str) -> Any:
    if spec.type == "integer":
        if re.fullmatch(r"-?[0-9]{1,15}", text) is None:
            raise _LineError(f"{spec.name} is not an integer")
        return int(text)
    if spec.type == "boolean":
        if text not in ("true", "false"):
            raise _LineError(f"{spec.name} is neither true nor false")
        return text == "true"
    return text
