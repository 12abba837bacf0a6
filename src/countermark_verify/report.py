"""Findings, the verdict that they add up to, and how both are shown (docs/spec/verify.md)."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from countermark_verify import closing
from countermark_verify.scope import scope_lines

STEPS = (
    ("V01", "container"),
    ("V02", "manifest"),
    ("V03", "head"),
    ("V04", "records"),
    ("V05", "tree"),
    ("V06", "order"),
    ("V07", "trusted heads"),
    ("V08", "witnesses"),
    ("V09", "policy"),
    ("V10", "authority"),
    ("V11", "life"),
    ("V12", "digests"),
    ("V13", "facts"),
    ("V14", "decisions"),
    ("V15", "completeness"),
    ("V16", "time"),
    ("V17", "anchors"),
    ("V18", "epochs"),
    ("V19", "erasure"),
    ("V20", "effects"),
    ("V21", "workflows"),
)
# Steps that show nothing when they are skipped: what they look at is the auditor's choice, or not in every log.
_BY_CHOICE = frozenset(("V08", "V16", "V17", "V20"))
# What can be asked for alone, by the axis that it is about. The steps after these stay skipped, and with them the
# verdict is `incomplete` at best.
ONLY: Mapping[str, frozenset[str]] = {"integrity": frozenset(step for step, _ in STEPS[:8])}
REQUIRED = ("re-executed",)  # what may be asked for, of the axis computation
EXITS = {"verified": 0, "refuted": 1, "incomplete": 2, "unreadable": 3}
EXIT_USAGE = 64
EXIT_FAILED = 70  # the verifier itself: no verdict
# A hostile pack may be wrong everywhere: each step keeps its first findings and counts the rest.
FINDINGS_MAX = 100
_SHOWN_CHARS_MAX = 300
# ISO 4217: digits of the minor unit, where they are not two.
_NO_MINOR_UNIT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or missing. `seq` is the record it names, `expected` and `actual` are JSON values."""

    code: str
    message: str
    seq: int | None = None
    expected: Any = None
    actual: Any = None


@dataclass
class StepResult:
    step: str
    title: str
    status: str = "skipped"  # ok | refuted | incomplete | skipped
    checked: int = 0
    # Those that refute stand before those that only leave something open.
    findings: list[Finding] = field(default_factory=list)
    refuting: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Report:
    """What `verify` returns. `exit` is the process exit code of the verdict."""

    verdict: str
    steps: tuple[StepResult, ...]
    first_bad_seq: int | None
    axes: Mapping[str, Mapping[str, str]]
    counts: Mapping[str, Any]
    pack: Mapping[str, Any]

    @property
    def exit(self) -> int:
        return EXITS[self.verdict]

    def codes(self) -> list[str]:
        """Every distinct finding code, in the order of the steps."""
        return list(dict.fromkeys(finding.code for step in self.steps for finding in step.findings))


class Ledger:
    """Collects findings while the steps run. `incomplete` never hides `refuted`."""

    def __init__(self, only: Collection[str] | None = None) -> None:
        """`only` are the steps that there are, when it is not a pack that is checked."""
        self.steps = {step: StepResult(step, title) for step, title in STEPS if only is None or step in only}
        self.first_bad_seq: int | None = None
        self.unreadable = False

    def ran(self, step: str, checked: int = 0) -> None:
        """The step looked at `checked` more things."""
        result = self.steps[step]
        result.checked += checked
        if result.status == "skipped":
            result.status = "ok"

    def refute(self, code: str, message: str, seq: int | None = None, expected: Any = None, actual: Any = None) -> None:
        self._add("refuted", Finding(code, message, seq, expected, actual))
        if seq is not None and (self.first_bad_seq is None or seq < self.first_bad_seq):
            self.first_bad_seq = seq

    def lack(self, code: str, message: str, seq: int | None = None, expected: Any = None, actual: Any = None) -> None:
        """Something is missing that a verdict needs: the step is incomplete unless it is refuted."""
        self._add("incomplete", Finding(code, message, seq, expected, actual))

    def _add(self, status: str, finding: Finding) -> None:
        result = self.steps[finding.code[:3]]
        refutes = status == "refuted"
        at = result.refuting if refutes else len(result.findings)
        if at < FINDINGS_MAX:
            result.findings.insert(at, finding)
            result.refuting += refutes
        if at == FINDINGS_MAX or len(result.findings) > FINDINGS_MAX:
            del result.findings[FINDINGS_MAX:]
            result.left_out += 1
        result.status = "refuted" if "refuted" in (status, result.status) else "incomplete"

    def status(self, step: str) -> str:
        return self.steps[step].status

    def verdict(self) -> str:
        statuses = {result.status for result in self.steps.values()}
        if self.unreadable:
            return "unreadable"
        if "refuted" in statuses:
            return "refuted"
        skipped = [step for step, result in self.steps.items() if result.status == "skipped" and step not in _BY_CHOICE]
        return "incomplete" if "incomplete" in statuses or skipped else "verified"

    def report(
        self, axes: Mapping[str, Mapping[str, str]], counts: Mapping[str, Any], pack: Mapping[str, Any]
    ) -> Report:
        return Report(self.verdict(), tuple(self.steps.values()), self.first_bad_seq, axes, counts, pack)


class Narrow(Ledger):
    """Only some steps are asked: the others stay skipped, since they would say something about what nobody followed."""

    def __init__(self, asked: Collection[str]) -> None:
        super().__init__()
        self._asked = frozenset(asked)

    def ran(self, step: str, checked: int = 0) -> None:
        if step in self._asked:
            super().ran(step, checked)

    def refute(self, code: str, message: str, seq: int | None = None, expected: Any = None, actual: Any = None) -> None:
        if code[:3] in self._asked:
            super().refute(code, message, seq, expected, actual)

    def lack(self, code: str, message: str, seq: int | None = None, expected: Any = None, actual: Any = None) -> None:
        if code[:3] in self._asked:
            super().lack(code, message, seq, expected, actual)

    def verdict(self) -> str:
        found = super().verdict()
        return "incomplete" if found == "verified" else found


def as_json(report: Report) -> str:
    """The document of `--json`: ASCII, so that nothing in a pack reaches a terminal as a control sequence."""
    document = {
        "verdict": report.verdict,
        "exit": report.exit,
        "steps": [_step_json(step) for step in report.steps],
        "first_bad_seq": report.first_bad_seq,
        "axes": report.axes,
        "not_checked": not_checked(report),
        "counts": report.counts,
        "pack": report.pack,
    }
    return json.dumps(document, indent=2, ensure_ascii=True)


def _step_json(step: StepResult) -> dict[str, Any]:
    findings = [
        {
            "code": item.code,
            "message": item.message,
            "seq": item.seq,
            "expected": item.expected,
            "actual": item.actual,
        }
        for item in step.findings
    ]
    if step.left_out:
        message = f"{step.left_out} more findings of this step are not shown"
        code = step.findings[-1].code
        findings.append({"code": code, "message": message, "seq": None, "expected": None, "actual": None})
    return {
        "step": step.step,
        "title": step.title,
        "status": step.status,
        "checked": step.checked,
        "findings": findings,
    }


def as_text(report: Report, name: str = "this file") -> str:
    """The page for people: numbered steps, the axes, the verdict in words.

    Of a file that is no pack it is one sentence, which begins with its `name`: no step has anything to say of it.
    """
    if report.verdict == "unreadable":
        (finding, *_) = report.steps[0].findings
        return f"UNREADABLE: {_safe(name, quoted=False)}: {_safe(finding.message, quoted=False)} [{finding.code}]\n"
    lines = []
    if report.pack.get("origin") is not None:
        whole = "pack" if "seq" not in report.pack else f"#{report.pack['seq']} in"
        lines.append(f"{whole:<6} {_safe(report.pack['origin'])}, {report.pack['size']} records")
        lines.extend(scope_lines(report.pack.get("scope")))
        lines.append(f"root   {_safe(report.pack['root'])}")
        lines.append("")
    for step in report.steps:
        lines.append(f"{step.step}  {step.title:<14}{step.status:<11}{closing.checked(step)}".rstrip())
        if step.findings:
            lines.extend(_finding_lines(step.findings[0], len(step.findings) - 1 + step.left_out))
    lines.append("")
    for name, axis in report.axes.items():
        lines.append(f"{name:<14}{axis['level']}: {axis['shown']}")
    if "only" in report.pack:
        lines.append(f"only {report.pack['only']} was asked: whether the actions were allowed was not looked at")
    lines.extend(f"not checked   {words}" for words in not_checked(report))
    lines.extend(_count_lines(report.counts, acted=(report.pack.get("scope") or {}).get("kind") != "workflow"))
    if report.first_bad_seq is not None:
        lines.append(f"first bad position: seq {report.first_bad_seq}")
    lines.append(f"{report.verdict.upper()}: {closing.words(report)}")
    return "\n".join(lines) + "\n"


def _finding_lines(finding: Finding, others: int) -> list[str]:
    """A step's first finding; the document of `--json` has the others."""
    at = f" (seq {finding.seq})" if finding.seq is not None else ""
    more = f" (and {others} more)" if others else ""
    lines = [f"       {finding.code}{at}: {_safe(finding.message, quoted=False)}{more}"]
    if finding.expected is not None or finding.actual is not None:
        said = closing.in_words(finding)
        lines.append(f"         expected {_safe(said[0])}")
        lines.append(f"         actual   {_safe(said[1])}")
    return lines


def _count_lines(counts: Mapping[str, Any], *, acted: bool) -> list[str]:
    """What the records count; `acted` is not so where a pack holds the beginnings and ends of runs alone."""
    if not counts:
        return []
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts["kinds"].items()))
    waived = ", ".join(f"{name} {count}" for name, count in counts["waived"].items() if count)
    decided = ", ".join(f"{name} {count}" for name, count in sorted(counts["dispositions"].items())) or "none"
    held = ", ".join(money(amount, name) for name, amount in sorted(counts["totals"].items())) or "none"
    return [
        "",
        f"records       {kinds}",
        f"decisions     {decided if acted else 'not in this pack'}",
        *([f"waived        {waived}: done all the same, by tools that are only monitored"] if waived else []),
        f"confirmed     {held if acted else 'not in this pack'}",
        *time_lines(counts["time"]),
        *_enrolled_lines(counts["enrolled"]),
        *_erased_lines(counts["erasures"]),
        f"open          {counts['open']}, unknown {counts['unknown']}, withheld {counts['withheld']}, "
        f"erased {counts['erased']}, disclosed {counts['disclosed']}",
        *_unfollowed_lines(counts["runs"]),
    ]


def _unfollowed_lines(runs: Mapping[str, int]) -> list[str]:
    """Sealed runs of which nobody here can say what they did."""
    if not any(runs.values()):
        return []
    return [f"not followed  runs of workflows whose values are withheld {runs['withheld']}, erased {runs['erased']}"]


def _enrolled_lines(enrolled: list[dict[str, Any]]) -> list[str]:
    """Keys that the trust file does not have, and under whose signatures the records enrol them."""
    lines = []
    for one in enrolled:
        by = " and ".join(_safe(person) for person in one["by"])
        lines.append(f"enrolled      a key of {_safe(one['person'])}, under the signature of {by} at seq {one['seq']}")
    return lines


def _erased_lines(erasures: list[dict[str, Any]]) -> list[str]:
    """What is gone, whose it was and who decided so: what it was cannot be established by anybody."""
    lines = []
    for one in erasures:
        by = " and ".join(_safe(person) for person in one["by"])
        lines.append(f"erased        {one['values']} values of {_safe(one['subject'])}, by {by} at seq {one['seq']}")
    return lines


def not_checked(report: Report) -> list[str]:
    """What stays the operator's word, and what was not done here though it could be, a line each."""
    if "seq" in report.pack:
        return ["whether what the record says was right: that takes a pack"]
    sources = "that a bundle's compiled part is what its sources say: they are not compiled here"
    steps = report.counts["steps"] if report.counts else {}
    if not steps:
        return [sources]
    here = f", {steps['ended_otherwise']:,} of which came to an end here" if steps["ended_otherwise"] else ""
    said = {
        "unexecuted": f"the outputs of {steps['unexecuted']:,} of {steps['pure']:,} pure steps: not executed here",
        "ended": f"{steps['ended']:,} pure steps were ended by memory, time or death, as the operator says{here}",
        "unparsed": f"whether {steps['unparsed']:,} pieces of code are Starlark at all",
        "refused": f"{steps['refused']:,} attempts were refused for what no record shows, as the operator says",
        "unproved": f"{steps['unproved']:,} events of chains, whose evidence is too long to be here",
    }
    return [sources, *(words for name, words in said.items() if steps[name])]


def time_lines(time: Mapping[str, Any]) -> list[str]:
    """What the times of the records rest on."""
    if time["at"] is None:
        return ["time          by the deployment's own clock; no authority that the auditor trusts stamped a head"]
    low, high = (f"{value / 1_000_000:+.3f} s" for value in time["offset"])
    return [
        f"time          the first {time['covers']:,} records existed at {moment(time['at'])}, says "
        f"{_safe(time['authority'])}; {time['stamps']:,} stamps",
        f"clock         the deployment's was from {low} to {high} off that one's, as it measured itself",
    ]


def moment(at_us: int) -> str:
    """`2026-11-29 21:00:00 UTC`."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def money(amount: int, currency: str) -> str:
    """`47,275.05 EUR`: an amount in minor units, written in major ones where ISO 4217 knows the currency."""
    name = currency.upper()
    if not (len(name) == 3 and name.isascii() and name.isalpha()):
        return f"{amount:,} (smallest units) {_safe(currency)}"
    digits = 0 if name in _NO_MINOR_UNIT else 3 if name in _THOUSANDTHS else 2
    whole, rest = divmod(abs(amount), 10**digits)
    cents = f".{rest:0{digits}}" if digits else ""
    return f"{'-' if amount < 0 else ''}{whole:,}{cents} {name}"


def _safe(value: Any, quoted: bool = True) -> str:
    """Text of a pack's value without control characters, and not longer than a line or two."""
    text = json.dumps(value, ensure_ascii=True) if quoted and not isinstance(value, str) else str(value)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."
