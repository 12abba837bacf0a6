"""The last line of a report: the verdict in words that are true of just this pack."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from countermark_verify.report import Finding, Report, StepResult

NOTHING_OF_IT = "nothing of it in this pack"
_WORDS = {
    "refuted": "this pack contradicts itself, the specification or what the auditor trusts.",
    "incomplete": "nothing was refuted, but something that is needed for a verdict is missing.",
}
_TIMES = frozenset(("V18.open",))  # findings that compare two times in microseconds
_TIME_US_MAX = 253_402_300_799_999_999  # the end of the year 9999
_OF_THE_LOG = frozenset(("V02", "V03"))  # the steps that a trust file of another log refutes by itself


def words(report: "Report") -> str:
    """What was checked holds; what was not is part of the verdict, as is a trust file of another log."""
    if report.verdict == "verified":
        return f"everything that was checked holds. Not checked: {'; '.join(_left(report))}."
    if report.verdict == "refuted" and (other := _another_log(report)) is not None:
        return other
    return _WORDS[report.verdict]


def _left(report: "Report") -> list[str]:
    unexecuted = report.counts["steps"].get("unexecuted", 0) if report.counts else 0
    outputs = [f"{unexecuted:,} outputs of pure steps, which are the operator's word"] if unexecuted else []
    skipped = [f"{step.step} {step.title}" for step in report.steps if step.status == "skipped"]
    steps = [f"the skipped steps {', '.join(skipped)}"] if skipped else []
    return [*outputs, "what stands above as not checked", *steps]


def _another_log(report: "Report") -> str | None:
    """A pack that is refuted for nothing but that the trust file is of another log."""
    found = [finding for step in report.steps for finding in step.findings if finding.code == "V03.origin"]
    origin = report.pack.get("origin")
    of_it = next((one for one in found if one.seq is None and one.actual == origin), None)
    if of_it is None or {step.step for step in report.steps if step.status == "refuted"} - _OF_THE_LOG:
        return None
    said = "this pack does not fit your trust file, which is of another log; nothing else refutes it."
    deployment, _, lane = str(origin).rpartition("/")
    before, _, known = str(of_it.expected).rpartition("/")
    if deployment != before or not (report.counts and report.counts["kinds"].get("lane.succeeded")):
        return said
    return (
        f"{said} It is of lane {lane}, and its records say that a restore from a backup made it the successor of lanes"
        f" before; your trust file knows {known}. If two people of the deployment confirm that restore, take the new"
        " log's origin and key from them, keep your old heads with their own `origin`, and verify again."
    )


def checked(step: "StepResult") -> str:
    """How much a step looked at, in a column of its own."""
    if step.status == "skipped":
        return ""
    return NOTHING_OF_IT if step.status == "ok" and not step.checked else f"{step.checked:>9,} checked"


def in_words(finding: "Finding") -> tuple[Any, Any]:
    """What was expected and what is there, times as a calendar has them."""
    both = (finding.expected, finding.actual)
    if finding.code not in _TIMES or not all(type(value) is int and 0 <= value <= _TIME_US_MAX for value in both):
        return both
    first, second = (
        datetime.fromtimestamp(value // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") for value in both
    )
    return first, second
