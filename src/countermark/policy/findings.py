"""What is wrong with a policy directory: every problem, with its file, its line and the nearest right name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from countermark.model.errors import PolicyError

FINDINGS_MAX = 500

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One problem. ``line`` counts from 1; 0 means the whole file. Warnings refuse nothing."""

    file: str
    line: int
    code: str
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file or "policy"
        return f"{place}: {self.severity}: {self.message} [{self.code}]" + (f" {self.hint}" if self.hint else "")


class Findings:
    """Collects findings in the order of files and lines; each once."""

    def __init__(self) -> None:
        self._found: set[Finding] = set()

    def error(self, file: str, line: int, code: str, message: str, hint: str = "") -> None:
        self._add(Finding(file, line, code, message, hint))

    def warn(self, file: str, line: int, code: str, message: str, hint: str = "") -> None:
        self._add(Finding(file, line, code, message, hint, "warning"))

    def _add(self, finding: Finding) -> None:
        if len(self._found) < FINDINGS_MAX:
            self._found.add(finding)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(sorted(finding for finding in self._found if finding.severity == "error"))

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(sorted(finding for finding in self._found if finding.severity == "warning"))

    def has_errors_in(self, file: str) -> bool:
        return any(finding.file == file for finding in self.errors)

    def refuse(self) -> None:
        """Raise ``PolicyError`` with every finding when one of them is an error."""
        errors = self.errors
        if errors:
            count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
            raise PolicyError(
                f"the policy has {count}, the first: {errors[0]}",
                findings=tuple(sorted(self._found)),
                hint="Run `countermark policy check` to see them all.",
            )
