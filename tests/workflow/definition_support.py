"""A definition with a step of every kind, and ways to change it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from countermark.model.tool import ArgSpec, ToolSpec

CODE = "def main(invoice):\n    return {'ok': True, 'amount': invoice['total'], 'who': 'acct_1'}\n"
DIGEST = "sha256:" + "0" * 64


def step(id_: str, kind: str, **members: Any) -> dict[str, Any]:
    """A step with the members that all have, and those of its kind."""
    common = {"id": id_, "kind": kind, "name": "", "if": None, "continue_on_error": False, "timeout_s": None}
    return common | {"retry": None} | members


def job(id_: str, *steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A job of these steps."""
    common: dict[str, Any] = {
        "id": id_, "needs": [], "if": None, "matrix": None, "fail_fast": True, "parallel": 1,
        "continue_on_error": False, "timeout_s": None, "outputs": [],
    }  # fmt: skip
    return common | members | {"steps": list(steps)}


def definition() -> dict[str, Any]:
    """A new copy of a definition that uses everything."""
    match = step(
        "match", "pure", code=CODE, outputs={"ok": "bool", "amount": "int", "who": "string"},
        **{"with": [["invoice", {"$": "inputs.invoice"}]]}, retry={"attempts": 3, "delay_s": 10, "factor": 2},
    )  # fmt: skip
    pay = step(
        "pay", "effect", tool="bank.pay", **{"if": "steps.match.outputs.ok"},
        **{"with": [["amount", {"$": "steps.match.outputs.amount"}], ["payee", {"$": "steps.match.outputs.who"}]]},
        undo={"tool": "bank.refund", "with": [["payment", {"$": "steps.pay.outputs.ref"}]]},
    )  # fmt: skip
    settle = step(
        "settle", "wait", timeout_s=3600,
        **{"for": {"kind": "event", "source": "bank", "key": {"$": "steps.pay.outputs.ref"}}},
    )  # fmt: skip
    chase = step(
        "chase", "agent", timeout_s=600, agent="clerk", goal="Say thanks.", tools=["mail.send"], calls=5,
        budget=[["eur", 100]], sees=[["payment", {"$": "needs.payment.outputs"}]],
        where=[["mail.send", "to", [{"$": "inputs.mail"}]]], outputs={"said": "string"},
    )  # fmt: skip
    report = step("report", "call", workflow=DIGEST, timeout_s=7200, **{"with": [["text", "done"]]})
    return copy.deepcopy(
        {
            "v": 1, "name": "pay-invoice",
            "triggers": [{"kind": "manual"}],
            "inputs": {
                "invoice": {"type": "object", "required": True, "default": None, "choices": []},
                "mail": {"type": "string", "required": False, "default": "a@example.com", "choices": []},
                "rail": {"type": "string", "required": False, "default": "sepa", "choices": ["sepa", "swift"]},
            },
            "outputs": [["ref", {"$": "needs.payment.outputs.ref"}]],
            "concurrency": {"group": {"$": "format('pay {0}', inputs.rail)"}, "cancel": False},
            "timeout_s": 86400,
            "jobs": [
                job("payment", match, pay, settle, outputs=[["ref", {"$": "steps.pay.outputs.ref"}]]),
                job(
                    "after", chase, report, needs=["payment"], matrix=[["copy", [1, 2]], ["who", ["ann", "bob"]]],
                    **{"if": "always() && matrix.copy < 3"},
                ),
            ],
        }
    )  # fmt: skip


def changed(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one member of a definition; the last part of the path may be new."""

    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = to

    return change


def tool(name: str, *args: ArgSpec, outputs: tuple[tuple[str, str], ...] = ()) -> ToolSpec:
    """A tool of a bank that does not exist."""
    return ToolSpec(name=name, connector="bank", class_="money", args=args, outputs=outputs)


TOOLS = {
    "bank.pay": tool(
        "bank.pay", ArgSpec("amount", "integer", "amount", "amount"), ArgSpec("payee", "string", "payee", "payee"),
        ArgSpec("note", "string", "inert", "note", required=False, enum=("a", "b")), outputs=(("fee", "integer"),),
    ),
    "bank.refund": tool("bank.refund", ArgSpec("payment", "string", "reference", "payment")),
    "mail.send": tool("mail.send", ArgSpec("to", "string", "reference", "to")),
}  # fmt: skip
