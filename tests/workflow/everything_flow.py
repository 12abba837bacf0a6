"""The Python twin of ``good/everything.yaml``."""

from __future__ import annotations

from countermark.workflow import flow_expressions as fx
from countermark.workflow.flow import Retry, Workflow, event, matrix, run_id

CODE = """\
def main(invoice, limit):
    return {"ok": invoice["total"] <= limit, "amount": invoice["total"], "who": "acct_1"}
"""


def everything(report: str) -> Workflow:
    """The same workflow, built step by step; ``report`` is the digest of the one that it calls."""
    flow = Workflow("pay-invoice", timeout_minutes=1440)
    invoice = flow.input("invoice", dict, required=True)
    mail = flow.input("mail", str, default="a@example.com")
    rail = flow.input("rail", str, default="sepa", choices=["sepa", "swift"])
    flow.concurrency(fx.fmt("pay {0}", rail), cancel_in_progress=True)
    copies = flow.input("copies", int)
    flow.on_manual()
    flow.on_schedule(
        "0 9 * * mon-fri", zone="Europe/Berlin", missed="latest", with_={"invoice": fx.from_json(event["day"])}
    )
    flow.on_webhook("stripe", if_=event["type"] == "invoice.paid", with_={"invoice": event["invoice"]})
    flow.on_chain("usdc-in", with_={"invoice": {"payer": event["from"]}})

    payment = flow.job("payment")
    match = payment.pure(
        "match",
        CODE,
        name="Three-way match",
        with_={"invoice": invoice, "limit": 700},
        outputs={"ok": bool, "amount": int, "who": str},
        retry=Retry(3, delay_s=5, factor=3),
    )
    amount = match.outputs["amount"]
    payment.approve("step-2", fx.fmt("Pay {0} {{cents}} to {1}?", amount, mail | "nobody"), if_=amount > 100)
    pay = payment.effect(
        "pay",
        "bank.pay",
        name="Pay",
        if_=match.outputs["ok"] & fx.success(),
        with_={"amount": amount, "payee": match.outputs["who"], "nothing": None},
        retry=Retry(4),
        continue_on_error=True,
    )
    pay.undo("bank.refund", {"payment": pay.outputs["ref"]})
    payment.wait("settle", event="bank", key=pay.outputs["ref"], timeout_minutes=60)
    payment.wait("step-5", seconds=7200)
    payment.wait("step-6", seconds=copies)
    payment.wait("step-7", until="2026-12-01T09:00:00Z")
    ref = payment.output("ref", pay.outputs["ref"])
    flow.output("ref", ref)

    after = flow.job(
        "after",
        needs=[payment],
        if_=fx.always() & (matrix["copy"] < 3),
        matrix={"who": ["ann", "bob"], "copy": [1, 2]},
        fail_fast=False,
        max_parallel=2,
        continue_on_error=True,
        timeout_minutes=90,
    )
    chase = after.agent(
        "chase",
        "clerk",
        fx.fmt("Say thanks to {0}.", matrix["who"]),
        tools=["mail.send", "bank.pay"],
        calls=5,
        minutes=10,
        budget={"eur": 100},
        sees={"payment": fx.context("needs", "payment", "outputs")},
        where={"mail.send": {"to": [mail]}, "bank.pay": {"amount": [1, 2]}},
        outputs={"said": str},
    )
    after.call("step-2", report, with_={"text": fx.to_json(chase.outputs), "run": run_id})
    return flow
