"""What a type checker knows of the Python front end: checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

from countermark.workflow.definition import Definition
from countermark.workflow.flow import Effect, Job, Step, Workflow, event, matrix, run_id
from countermark.workflow.flow_expressions import Expr, contains, fmt, length

flow = Workflow("typed")
assert_type(flow.input("n", int), Expr[int])
assert_type(flow.input("s", str, default="a", choices=["a", "b"]), Expr[str])
n = flow.input("n", int, required=True)
assert_type(n < 5, Expr[bool])
assert_type(n == 5, Expr[bool])
assert_type(~(n > n), Expr[bool])
assert_type(contains("hay", "a"), Expr[bool])
assert_type(fmt("{0}", n), Expr[str])
assert_type(length(event), Expr[int])
assert_type(run_id, Expr[str])
job = flow.job("a", matrix={"x": [1, 2]}, if_=matrix["x"] == 1)
assert_type(job, Job)
step = job.pure("p", "def main(): return {}", outputs={"ok": bool})
assert_type(step, Step)
assert_type(step.outputs["ok"], Expr[Any])
assert_type(job.effect("e", "bank.pay", with_={"amount": n, "note": ["a", {"b": None}]}), Effect)
assert_type(flow.define(), Definition)

assert n < "5"  # type: ignore[operator]
flow.on_schedule("0 9 * * *", missed="sometimes")  # type: ignore[arg-type]
job.effect("e", "bank.pay", with_={"amount": 1.5})  # type: ignore[dict-item]
job.effect("e", "bank.pay", retry=3)  # type: ignore[arg-type]
job.wait("w", seconds=object())  # type: ignore[arg-type]
