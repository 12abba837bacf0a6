"""``check``: everything that is wrong with a policy directory, and which dispositions each tool can reach, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.model.errors import PolicyError
from countermark.model.tool import ToolSpec
from countermark.policy.bundle import Bundle
from countermark.policy.cedar import Policy
from countermark.policy.compile import compile_bundle
from countermark.policy.engine import Engine
from countermark.policy.findings import Finding
from countermark.policy.sources import load_sources

_NEVER = {"allow": "never", "flag": "never", "escalate": "never", "deny": "(by other stages only)"}
ALWAYS = "(nothing else permits it)"


@dataclass(frozen=True, slots=True)
class Reach:
    """What can come of a tool's actions, as far as the scopes of policies say; conditions are not solved.

    Each disposition lists the ids of the policies that lead there; an empty one cannot be reached. ``deny`` always can:
    by a mandate, a kill, a duplicate, a missing fact or an error.
    """

    tool: str
    class_: str
    facts: tuple[str, ...]
    allow: tuple[str, ...]
    flag: tuple[str, ...]
    escalate: tuple[str, ...]
    deny: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        return {
            "tool": self.tool, "class": self.class_, "facts": list(self.facts), "allow": list(self.allow),
            "flag": list(self.flag), "escalate": list(self.escalate), "deny": list(self.deny),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """The result of ``check``. ``bundle`` is None when an error refuses the policy."""

    findings: tuple[Finding, ...]
    table: tuple[Reach, ...]
    bundle: Bundle | None

    @property
    def ok(self) -> bool:
        return self.bundle is not None

    def lines(self) -> list[str]:
        """The report in words, one line each."""
        lines = [str(finding) for finding in self.findings]
        for row in self.table:
            lines.append(f"{row.tool} ({row.class_})")
            for name in ("allow", "flag", "escalate", "deny"):
                ids = getattr(row, name)
                lines.append(f"  {name:<9}{', '.join(ids) or _NEVER[name]}")
        errors = sum(1 for finding in self.findings if finding.severity == "error")
        lines.append(f"bundle {self.bundle.digest}" if self.bundle is not None else f"refused: {errors} error(s)")
        return lines

    def document(self) -> dict[str, Any]:
        """JSON form, for ``--json``."""
        return {
            "ok": self.ok,
            "bundle": None if self.bundle is None else self.bundle.digest,
            "findings": [
                {
                    "file": found.file, "line": found.line, "code": found.code, "message": found.message,
                    "hint": found.hint, "severity": found.severity,
                }
                for found in self.findings
            ],
            "tools": [row.document() for row in self.table],
        }  # fmt: skip


def check(directory: str | Path, drafts: Mapping[str, Sequence[ToolSpec]], deployment: str = "") -> Report:
    """Compile a policy directory and report; an unreadable directory is a finding like any other."""
    try:
        bundle = compile_bundle(load_sources(directory), drafts, deployment)
        engine = Engine(bundle)
    except PolicyError as error:
        found = tuple(item for item in error.findings if isinstance(item, Finding))
        return Report(found or (Finding("", 0, error.code, error.message, error.hint),), (), None)
    policies = tuple(engine.policies.values())
    table = tuple(reach(tool, policies) for _, tool in sorted(bundle.compiled.tools.items()))
    return Report(bundle.warnings, table, bundle)


def reach(tool: ToolSpec, policies: Sequence[Policy]) -> Reach:
    """Which dispositions a tool can reach, by the scopes of the policies that cover it."""
    covering = [policy for policy in policies if policy.covers(tool)]
    permits = [policy for policy in covering if policy.effect == "permit"]
    forbids = [policy for policy in covering if policy.effect == "forbid"]
    hard = [policy for policy in forbids if policy.escalate is None]
    soft = [policy for policy in forbids if policy.escalate is not None]
    open_ = bool(permits) and not any(policy.always for policy in hard)
    direct = open_ and not any(policy.always for policy in soft)  # reachable without asking people
    plain = direct and not any(policy.always and policy.flag is not None for policy in permits)
    return Reach(
        tool.name,
        tool.class_,
        tool.facts,
        _ids(policy for policy in permits if plain and policy.flag is None),
        _ids(policy for policy in permits if direct and policy.flag is not None),
        _ids(policy for policy in soft if open_),
        _ids(hard) if permits else (*_ids(hard), ALWAYS),
    )


def _ids(policies: Any) -> tuple[str, ...]:
    return tuple(sorted(policy.id for policy in policies))
