"""What the tests of workflows share: definitions by hand, a deployment that drives them, and its records."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from rig import ACME, AGENT, TOOL, Stand, args_for, bodies, rebuilt_equally, transfers, unsound

import countermark

ADD = "def main(amount):\n    return {'amount': amount + 1}\n"


def step(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """A step of a canonical document; lists of pairs from mappings."""
    found: dict[str, Any] = {
        "id": name, "kind": kind, "name": "", "if": None, "continue_on_error": False, "timeout_s": None, "retry": None,
    }  # fmt: skip
    found.update({"with": []} if kind in ("effect", "pure", "call") else {})
    found.update({"undo": None} if kind == "effect" else {})
    for key, value in more.items():
        pairs = key in ("with_", "sees") and isinstance(value, dict)
        found[key.rstrip("_")] = sorted([name, given] for name, given in value.items()) if pairs else value
    return found


def job(name: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": name, "needs": [], "if": None, "matrix": None, "fail_fast": True, "parallel": 4,
        "continue_on_error": False, "timeout_s": None, "outputs": [], "steps": list(steps), **more,
    }  # fmt: skip


def document(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "v": 1, "name": "test-flow", "triggers": [], "inputs": {}, "outputs": [], "concurrency": None,
        "timeout_s": None, "jobs": list(jobs), **more,
    }  # fmt: skip


def ref(text: str) -> dict[str, str]:
    """A template that is one expression."""
    return {"$": text}


def an_input(kind: str = "int", **more: Any) -> dict[str, Any]:
    return {"type": kind, "required": True, "default": None, "choices": [], **more}


def pay(name: str = "pay", invoice: Any = "1", amount: Any = 1000, **more: Any) -> dict[str, Any]:
    """An effect step that pays an invoice."""
    return step("effect", name, tool=TOOL, with_={**args_for("0", amount), "metadata[invoice]": invoice}, **more)


def three_steps() -> dict[str, Any]:
    """Pure, effect, pure."""
    return document(
        job(
            "main",
            step("pure", "first", code=ADD, with_={"amount": ref("inputs.amount")}, outputs={"amount": "int"}),
            pay(invoice=ref("inputs.invoice"), amount=ref("steps.first.outputs.amount")),
            step(
                "pure", "last", code=ADD, with_={"amount": ref("steps.first.outputs.amount")}, outputs={"amount": "int"}
            ),
            outputs=[["amount", ref("steps.last.outputs.amount")], ["ref", ref("steps.pay.outputs.ref")]],
        ),
        inputs={"amount": an_input(), "invoice": an_input("string")},
        outputs=[["amount", ref("needs.main.outputs.amount")], ["ref", ref("needs.main.outputs.ref")]],
    )


def run_it(handle: countermark.Deployment, definition: Mapping[str, Any], **inputs: Any) -> dict[str, Any]:
    """Start a run and wait until it waits or is over."""
    found: dict[str, Any] = handle.call(
        "workflow.start", {"document": dict(definition), "inputs": inputs, "agent": AGENT, "wait": True}
    )
    return found


__all__ = [
    "ACME",
    "ADD",
    "AGENT",
    "TOOL",
    "Stand",
    "an_input",
    "args_for",
    "bodies",
    "document",
    "job",
    "pay",
    "rebuilt_equally",
    "ref",
    "run_it",
    "step",
    "three_steps",
    "transfers",
    "unsound",
]


APPROVALS = {
    "tools": '\n[tool."workflow.approve"]\nconnector = "workflow"\n',
    "policies/approve.cedar": (
        '@id("workflow.approve")\npermit (principal, action == Action::"workflow.approve", resource);\n\n'
        '@id("workflow.approve.people")\n@escalate("finance")\n'
        'forbid (principal, action == Action::"workflow.approve", resource);\n'
    ),
}


def with_approvals(files: Mapping[str, str]) -> dict[str, str]:
    """A policy under which approve steps ask the ladder ``finance``."""
    return {
        **files, "tools.toml": files["tools.toml"] + APPROVALS["tools"],
        "policies/approve.cedar": APPROVALS["policies/approve.cedar"],
    }  # fmt: skip
