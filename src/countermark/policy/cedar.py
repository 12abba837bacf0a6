"""Cedar text: its policies one by one, with the line each starts on, what its scope covers and what it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import cedarpy
from cedarpy import pst

from countermark.model.errors import PolicyError
from countermark.model.tool import ToolSpec

POLICY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
POLICIES_MAX = 2_000
STATEMENT_CHARS_MAX = 32_768
DEPTH_MAX = 24  # of brackets; with the operators this needs less than 2 MiB of stack, measured at 13 and 7 KiB each
OPERATORS_MAX = 250
_OPAQUE = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*', re.DOTALL)
_OPERATOR = re.compile(r"[.&|+*!<>=-]|\b(?:if|has|like|in|is)\b")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SKIPPED = re.compile(r"(?:\s+|//[^\n]*)*")


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of one policy, from its first token to its semicolon. ``line`` counts from 1."""

    file: str
    line: int
    text: str


def split(text: str, file: str = "") -> Iterator[Statement]:
    """The statements of a Cedar text. What follows the last semicolon is one more statement, which will not parse.

    In Cedar a semicolon ends a policy and stands nowhere else, except inside strings and comments.
    """
    start = _SKIPPED.match(text, 0).end()  # type: ignore[union-attr]
    at = start
    while at < len(text):
        mark = text[at]
        if mark == '"':
            at = _after_string(text, at)
        elif text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif mark == ";":
            at += 1
            yield Statement(file, text.count("\n", 0, start) + 1, text[start:at])
            start = at = _SKIPPED.match(text, at).end()  # type: ignore[union-attr]
        else:
            at += 1
    if start < len(text):
        yield Statement(file, text.count("\n", 0, start) + 1, text[start:])


def _after_string(text: str, at: int) -> int:
    at += 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at + 1


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. ``actions`` is None for an open action scope, else the actions and groups it names.

    ``agent`` and ``payee`` are those that its scope names with ``==``, None when it names none. ``open`` is the same
    policy without the parts of its scope that ``covers`` and ``concerns`` have judged already.
    ``words`` are the names that occur in its text: what it reads is among them (``docs/spec/policy.md``, `reads`);
    ``entities`` are the (type, id) it names.
    """

    statement: Statement
    id: str
    effect: Literal["permit", "forbid"]
    annotations: Mapping[str, str]
    actions: frozenset[str] | None
    agent: str | None
    payee: str | None
    words: frozenset[str]
    entities: frozenset[tuple[str, str]]
    always: bool
    open: pst.Template

    @property
    def escalate(self) -> str | None:
        """The ladder that may lift this forbid."""
        return self.annotations.get("escalate")

    @property
    def flag(self) -> str | None:
        """Why this permit marks an action for review."""
        return self.annotations.get("flag")

    def covers(self, tool: ToolSpec) -> bool:
        """Whether the action scope can match the tool."""
        return self.actions is None or tool.name in self.actions or tool.class_ in self.actions

    def concerns(self, agent: str | None, payee: str | None) -> bool:
        """Whether the rest of the scope can match; None stands for whoever no scope of the bundle names."""
        return self.agent in (None, agent) and self.payee in (None, payee)


def parse(statement: Statement) -> Policy:
    """Read one statement.

    Raises:
        PolicyError: it is not exactly one Cedar policy, or a template, or nested too deep.
    """
    _check_size(statement.text)
    try:
        tree = cedarpy.policies_to_pst(statement.text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"not a Cedar policy: {error}"[:300]) from None
    if tree.templates or tree.template_links or len(tree.static_policies) != 1:
        raise PolicyError("templates (?principal, ?resource) are not allowed", hint="Name the principal or payee.")
    (policy,) = tree.static_policies.values()
    # The scope matters too: a policy without conditions that names a principal or a payee is not unconditional.
    always = not policy.clauses and isinstance(policy.principal, pst.ScopeAny | pst.ScopeIs)
    always = always and isinstance(policy.resource, pst.ScopeAny | pst.ScopeIs)
    return Policy(
        statement,
        policy.annotations.get("id", ""),
        policy.effect,
        dict(policy.annotations),
        _actions(policy.action),
        _named(policy.principal, "Agent"),
        _named(policy.resource, "Payee"),
        frozenset(_WORD.findall(statement.text)),
        frozenset((uid.type.basename, uid.id) for uid in pst.entity_uids(policy)),
        always,
        _opened(policy),
    )


def _opened(policy: pst.Template) -> pst.Template:
    """A policy whose scope leaves to Cedar only what is not a tool, one agent or one payee."""
    agent, payee = _named(policy.principal, "Agent"), _named(policy.resource, "Payee")
    return replace(
        policy,
        id=policy.annotations.get("id", ""),
        action=pst.ScopeAny(),
        principal=policy.principal if agent is None else pst.ScopeAny(),
        resource=policy.resource if payee is None else pst.ScopeAny(),
    )


def set_of(policies: Mapping[str, pst.Template]) -> cedarpy.PolicySet:
    """The policies as one set."""
    return cedarpy.PolicySet.from_pst(pst.PolicySet({}, policies, ()))


def _check_size(text: str) -> None:
    """Bounds that hold before Cedar sees the text: its parser recurses, and deep nesting kills the process."""
    if len(text) > STATEMENT_CHARS_MAX:
        raise PolicyError(f"a policy is longer than {STATEMENT_CHARS_MAX} characters")
    if "\\" in text:  # an escape can spell a name that no reader, and no word search, would find
        raise PolicyError("a policy holds a backslash", hint="Write names and texts without escapes.")
    plain = _OPAQUE.sub('""', text)
    depth = deepest = 0
    for mark in plain:
        depth += (mark in "([{") - (mark in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEPTH_MAX or len(_OPERATOR.findall(plain)) > OPERATORS_MAX:
        raise PolicyError(
            f"a policy is nested deeper than {DEPTH_MAX} or has more than {OPERATORS_MAX} operators",
            hint="Split it into several policies.",
        )


def _named(scope: Any, kind: str) -> str | None:
    if not isinstance(scope, pst.ScopeEq) or not isinstance(scope.entity, pst.EntityUid):
        return None
    return str(scope.entity.id) if scope.entity.type.basename == kind else None


def _actions(scope: Any) -> frozenset[str] | None:
    if isinstance(scope, pst.ScopeAny):
        return None
    if isinstance(scope, pst.ActionEq):
        return frozenset((scope.entity.id,))
    return frozenset(entity.id for entity in scope.entities)
