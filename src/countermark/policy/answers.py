"""What ``tools.toml`` says beyond a connector's draft: how a JSON API answers, and what its caller runs itself."""

from __future__ import annotations

import re

from countermark.model.answers import Answers
from countermark.model.tool import ToolSpec
from countermark.policy.toml import Table

STATUSES_MAX = 64
NESTING_MAX = 4

_POINTER = re.compile(r"(/([^~/]|~[01]){1,64}){1,8}")
_LOOKUP = re.compile(r"GET (https?://[^/\s]{1,260})?/[!-~]{0,400}")
_MEMBER = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_NOT_FOR_CALLERS = ("endpoint", "headers", "recovery", "key_ttl_s", "settle_lag_s", "timeout_ms", "answers", "encoding")


def read_answers(table: Table, origin: str) -> Answers | None:
    """The subtable ``answers``, or None without one."""
    if "answers" not in table:
        return None
    below = table.table("answers")
    below.only("confirmed", "failed", "ref", "amount", "currency", "lookup")
    confirmed, failed = _statuses(below, "confirmed"), _statuses(below, "failed")
    if set(confirmed) & set(failed):
        below.error("failed", "bad_value", "a status cannot both confirm and fail")
    ref, amount, currency = (
        below.text(name, "", form=_POINTER, form_hint='Write a JSON pointer, like "/data/id".')
        for name in ("ref", "amount", "currency")
    )
    if bool(amount) != bool(currency):
        below.error("amount", "bad_value", "an amount is compared only together with its currency", "Declare both.")
    lookup = below.text("lookup", "", form=_LOOKUP, form_hint='Write "GET /path/{key}".')
    method, _, target = lookup.partition(" ")
    if lookup and lookup.count("{key}") != 1:
        below.error("lookup", "bad_path", "a lookup asks by {key}, once", 'Write for instance "GET /payments/{key}".')
    if lookup and target.startswith("/"):
        lookup = f"{method} {origin}{target}"
    return Answers(confirmed, failed, ref, amount, currency, lookup)


def _statuses(table: Table, key: str) -> tuple[int, ...]:
    value = table.value.get(key, [])
    right = type(value) is list and len(value) <= STATUSES_MAX
    if not right or not all(type(one) is int and 200 <= one <= 599 for one in value) or len(set(value)) != len(value):
        table.error(key, "wrong_type", f"{key!r} must be a list of different HTTP statuses, 200 to 599")
        return ()
    return tuple(sorted(value))


def check_by_caller(table: Table) -> None:
    """What the caller runs is not sent, so nothing can be said about how."""
    for key in _NOT_FOR_CALLERS:
        if key in table:
            table.error(key, "bad_value", f"{key!r} is not for a tool that its caller runs",
                        'The gate sends nothing for connector = "caller".')  # fmt: skip


def check_object(table: Table, tool: ToolSpec) -> None:
    """The names of an ``object-v1`` tool make one JSON object, whichever of its arguments are given."""
    names = {arg.name for arg in tool.args if "{" + arg.alias + "}" not in tool.endpoint}
    for name in sorted(names):
        parts = name.split(".")
        if len(parts) > NESTING_MAX or not all(_MEMBER.fullmatch(part) for part in parts):
            table.error("args", "bad_name", f"{name[:70]!r} cannot be a member of a JSON object here",
                        "Names are A-Z a-z 0-9 _ $ -, with a dot for each object within.")  # fmt: skip
        if any(".".join(parts[:end]) in names for end in range(1, len(parts))):
            table.error("args", "duplicate", f"{name[:70]!r} lies within another argument's value")
