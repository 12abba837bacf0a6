"""The documents of ``audit_runs`` and of a run's receipt for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from countermark.audit.recorded import cancelled_by
from countermark.audit.words import money, safe, unanswered, when

RUNS_SHOWN_MAX = 50
ALIKE_SHOWN_MAX = 5
DIGEST_CHARS = 19  # "sha256:" and twelve digits: --json has them whole

_NAMES: Mapping[str, str] = {
    "not_declared": "step not declared", "kind": "another kind of step", "tool": "another tool",
    "argument": "another argument", "code": "other code", "skipped": "step skipped", "order": "out of order",
    "not_allowed": "step not allowed", "input": "other inputs",
}  # fmt: skip


def runs_lines(found: Mapping[str, Any]) -> list[str]:
    """For a terminal: the count, each deviation with the runs that have it, each run planned against actual."""
    name, count = safe(found["name"]), found["deviating"]
    digest = found["definition"][:DIGEST_CHARS]
    lines = [f"{_runs(found['checked'])} of {name}, held against {digest}: {count:,} deviate."]
    if found["none"] is not None:
        lines = [safe(found["none"])]
    if found["open"]:
        have = "has" if found["open"] == 1 else "have"
        lines.append(f"{found['open']:,} of them {have} not ended: what is still to be done is no deviation.")
    if found["without_definition"]:
        lines.append(f"Of {found['without_definition']:,} the own definition is not here: arguments were not compared.")
    if found["incomplete"]:
        lines.append(f"{_runs(found['incomplete'])} more are not here with all their records: nothing is said of them.")
    if found["sealed"]:
        lines.append(f"{_runs(found['sealed'])} more are sealed, without their values: nothing is said of them.")
    for row in found["alike"]:
        lines += ["", f"{_named(row)}: {_runs(row['count'])}", *_alike(row)]
    for row in found["runs"][:RUNS_SHOWN_MAX]:
        lines += ["", *_run(row)]
    rest = found["more"] + max(0, len(found["runs"]) - RUNS_SHOWN_MAX)
    lines += [f"and {rest:,} more"] if rest else []
    if found["cleared"]:
        lines += ["", f"Cleared by an exception, as the file says: {found['cleared_count']:,}"]
        lines += [f"  {row['run']} {_named(row['deviation'])}: {_exception(row)}" for row in found["cleared"]]
    return lines


def _runs(count: int) -> str:
    return f"{count:,} run" + ("" if count == 1 else "s")


def _named(row: Mapping[str, Any]) -> str:
    what = f" [{safe(row['what'])}]" if row["what"] and row["kind"] in ("argument", "tool", "input") else ""
    return f"{_NAMES[row['kind']]} {safe(row['place'])}{what}".rstrip()


def _alike(row: Mapping[str, Any]) -> list[str]:
    shown, rest = row["runs"][:ALIKE_SHOWN_MAX], row["count"] - ALIKE_SHOWN_MAX
    return [*(f"  {run}" for run in shown), *([f"  and {rest:,} more (--json)"] if rest > 0 else [])]


def _exception(row: Mapping[str, Any]) -> str:
    one = row["exception"]
    late = ", after the run began" if row["afterwards"] else ""
    return safe(f"ticket {one['ticket']}, {one['person']}, {when(one['at'])}{late}")


def _run(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['run']}  {row['status']}, began {when(row['started']['at'])} (#{row['started']['seq']})"
    yield f"  planned   {safe(' > '.join(row['planned']))}"
    done = " > ".join(f"{one['place']} #{one['seq']}" for one in row["actual"])
    yield f"  actual    {safe(done or 'nothing')}"
    for number, one in enumerate(row["deviations"]):
        seq = "" if one["seq"] is None else f" (#{one['seq']})"
        others = f"; {one['others']:,} more run{'s' if one['others'] > 1 else ''} alike" if one["others"] else ""
        yield f"  {'deviates' if number == 0 else '':<10}{_named(one)}: {safe(one['words'])}{seq}{others}"


def receipt_lines(found: Mapping[str, Any]) -> list[str]:
    """A receipt for a terminal."""
    lines = [
        f"{found['status']}  {safe(found['name'])}  {found['run']}",
        f"  definition  {found['definition']}", f"  policy      {found['bundle']}",
        f"  agent       {safe(found['agent'])}",
        f"  started     {when(found['started']['at'])} (#{found['started']['seq']}) by {found['trigger']['kind']}",
    ]  # fmt: skip
    if (end := found["ended"]) is not None:
        lines.append(f"  ended       {when(end['at'])} (#{end['seq']})")
    if (said := found["cancelled"]) is not None:
        why = cancelled_by(said["person"], said["reason"])
        lines.append(f"  cancelled   {when(said['at'])} (#{said['seq']}) {why}")
    for one in found["migrated"]:
        moved = f"to {one['to'][:DIGEST_CHARS]} (#{one['seq']}): {safe(one['reason'])}"
        lines.append(f"  migrated    {safe(one['person'])} {moved}")
    for step in found["steps"]:
        code = f" [{step['code']}]" if step["code"] else ""
        lines += ["", f"{step['place']}  {step['kind']}  {step['conclusion']}{code}", *_rests_on(step)]
    lines += ["", f"not run       {', '.join(found['not_run']) or 'nothing'}"]
    if found["undone"] or found["left"]:
        lines.append(
            f"undone        {', '.join(found['undone']) or 'nothing'}; left {', '.join(found['left']) or 'no'}"
        )
    lines.append(f"weakest tier  {found['tier'] or 'no effect was asked for'}")
    return [*lines, "Levels of evidence are the verifier's to say: countermark-verify PACK --trust FILE"]


def _rests_on(step: Mapping[str, Any]) -> Iterator[str]:
    for attempt in step.get("attempts") or ():
        yield from _attempt(attempt)
    for one in step.get("computed") or ():
        given = "sealed" if one["input"] is None else one["input"][:DIGEST_CHARS]
        digests = f"code {one['code'][:DIGEST_CHARS]}, input {given}"
        result = "" if one["result"] is None else f", output {one['result'][:DIGEST_CHARS]}"
        yield f"  #{one['seq']} {one['status']}: {digests}{result}"
    agent = step.get("delegated")
    if agent is not None:
        paid = ", ".join(money(amount, currency) for currency, amount in agent["confirmed"].items()) or "nothing"
        actions = f"{agent['actions']:,} action" + ("" if agent["actions"] == 1 else "s")
        yield f"  in {agent['run']}, {actions}, confirmed: {paid} (countermark explain)"
    waited = step.get("waited")
    if waited is not None and "waiting" in waited:
        over = waited.get("resumed")
        said = "waits" if over is None else f"{over['code']} (#{over['seq']})"
        yield f"  #{waited['waiting']['seq']} for {waited['for']['kind']}: {said}"


def _attempt(attempt: Mapping[str, Any]) -> Iterator[str]:
    if "refused" in attempt:
        yield f"  #{attempt['refused']['seq']} refused: {attempt['refused']['code']}"
    for one in attempt["decided"]:
        rules = f" by {safe(', '.join(one['reasons']))}" if one["reasons"] else ""
        policy = f"policy {one['bundle'][:DIGEST_CHARS]}"
        yield f"  #{one['seq']} {one['disposition']}{rules}, {policy}, {one['tier']}"
    yield from _people(attempt["answers"])
    if "expired" in attempt:
        yield f"  #{attempt['expired']['seq']} {unanswered(attempt['expired'])}"
    for one in attempt["settled"]:
        ref = f" as {safe(one['ref'])}" if one["ref"] else ""
        yield f"  #{one['seq']} {one['outcome']}{ref}, key {attempt['key']}"


def _people(answers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in answers:
        yield f"  #{one['seq']} {safe(one['person'])}: {one['verdict']}"
