"""What a draft says other than the policy in force: two bundles compared, in words and as a document."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from countermark.audit.rules import rules_of
from countermark.audit.words import minute, money, safe, span, when
from countermark.policy import Bundle

LINES_MAX = 200  # of one file's difference; the rest is counted
_MICRO = 1_000_000
_NAMED = ("facts", "tools", "people", "agents", "payees", "ladders")
_SINGLE = {"facts": "fact", "tools": "tool", "people": "person", "agents": "agent", "payees": "payee",
           "ladders": "ladder", "policies": "policy", "limits": "limit"}  # fmt: skip
_ALSO = ("zone", "currencies", "author", "console")
_AMOUNTS = ("payment_max", "payment_ask_above", "payment_flag_above")


def bundle_changes(old: Bundle | None, new: Bundle) -> dict[str, Any]:
    """The differences of two bundles; without ``old`` everything is added.

    ``{"from", "to", "same", "files": [{file, change, lines, more}], "parts": {part: [{change, name, old, new,
    fields}]}, "words": [...]}``. ``change`` is ``added``, ``removed`` or ``changed``; parts without a difference are
    left out.
    """
    before: Mapping[str, Any] = {} if old is None else old.document["compiled"]
    after: Mapping[str, Any] = new.document["compiled"]
    parts = {name: rows for name, rows in _parts(before, after) if rows}
    return {
        "from": None if old is None else old.digest, "to": new.digest, "same": old is not None and old.raw == new.raw,
        "files": list(_files({} if old is None else dict(old.document["source"]), dict(new.document["source"]))),
        "parts": parts, "words": [line for part, rows in parts.items() for line in _words(part, rows, before, after)],
    }  # fmt: skip


def _files(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        change = "added" if before is None else "removed" if after is None else "changed"
        lines = difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), lineterm="", n=0)
        found = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        yield {"file": path, "change": change, "lines": found[:LINES_MAX], "more": max(0, len(found) - LINES_MAX)}


def _parts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield "limits", _rows(before.get("limits", {}), after["limits"])
    old = {} if not before else {name: rule.text for name, rule in rules_of(before).items()}
    yield "policies", _rows(old, {name: rule.text for name, rule in rules_of(after).items()})
    for part in _NAMED:
        yield part, _rows(_by_name(before.get(part, ())), _by_name(after[part]))
    single = [name for name in _ALSO if name in before or name in after]
    yield "settings", _rows({n: before[n] for n in single if n in before}, {n: after[n] for n in single if n in after})


def _by_name(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {item.get("id", item.get("name", "")): item for item in items}


def _rows(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            rows.append({"change": "added", "name": name, "old": None, "new": new[name], "fields": []})
        elif name not in new:
            rows.append({"change": "removed", "name": name, "old": old[name], "new": None, "fields": []})
        elif old[name] != new[name]:
            fields = _fields(old[name], new[name])
            rows.append({"change": "changed", "name": name, "old": old[name], "new": new[name], "fields": fields})
    return rows


def _fields(old: Any, new: Any) -> list[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return []
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _words(
    part: str, rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[str]:
    for row in rows:
        name, change = safe(row["name"]), row["change"]
        what = name if part == "settings" else f"{_SINGLE[part]} {name}"
        if part in ("limits", "settings"):
            shown = _limit(before, after) if part == "limits" else lambda _, value: safe(_plain(value))
            if change == "changed":
                yield f"{what}: {shown(row['name'], row['old'])} -> {shown(row['name'], row['new'])}"
            else:
                yield f"{what} {change}: {shown(row['name'], row['new' if change == 'added' else 'old'])}"
        elif change == "changed" and row["fields"]:
            said = (_field(field, row["old"].get(field), row["new"].get(field)) for field in row["fields"])
            yield f"{what} changed: {'; '.join(said)}"
        else:
            yield f"{what} {change}"


def _limit(before: Mapping[str, Any], after: Mapping[str, Any]) -> Callable[[str, Any], str]:
    """A limit in its unit: an amount in the bundle's one currency, a minute of the day, a length of time, a count."""
    codes = set(after["currencies"]) | set(before.get("currencies", ()))
    code = next(iter(codes)) if len(codes) == 1 else None
    amounts = {
        f"window_{fact['name']}"
        for compiled in (before, after)
        for fact in compiled.get("facts", ())
        if fact["kind"] == "window" and fact["of"] == "amount"
    }

    def shown(name: str, value: Any) -> str:
        if name in ("hours_from", "hours_to"):
            return minute(value)
        if name.endswith("_s"):
            return span(value * _MICRO)
        return money(value, code) if code is not None and (name in amounts or name in _AMOUNTS) else f"{value:,}"

    return shown


def _field(name: str, old: Any, new: Any) -> str:
    if name == "over_us":
        return f"over {span(old)} -> {span(new)}"
    if name == "monitor" and all(value is None or type(value) is int for value in (old, new)):
        was, now = ("none" if value is None else f"until {when(value)}" for value in (old, new))
        return f"monitor {was} -> {now}"
    if name == "deadline_s":
        return f"deadline {span(old * _MICRO)} -> {span(new * _MICRO)}"
    if name == "rungs" and len(old) == len(new):
        return "; ".join(_rungs(old, new))
    if isinstance(old, list | Mapping) and isinstance(new, list | Mapping) and len(_plain(old) + _plain(new)) > 200:
        return f"{name} changed"
    return f"{name} {safe(_plain(old))} -> {safe(_plain(new))}"


def _rungs(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What changes on each rung; of a ladder with one rung nobody needs its number."""
    for number, (one, other) in enumerate(zip(old, new, strict=True), 1):
        for name in _fields(one, other):
            said = _field(name, one.get(name), other.get(name))
            yield said if len(old) == 1 else f"rung {number}: {said}"


def _plain(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return ("yes" if value else "no") if type(value) is bool else str(value)
