"""`needs.JOB.each`: every combination of a job, not only its last one, in the product and in the verifier."""

from __future__ import annotations

from pathlib import Path

import pytest
from flow_rig import an_input, document, job, pay, ref, run_it, step
from rig import Provider, hold, make, unsound

from countermark.model.clock import FakeClock
from countermark.workflow import DefinitionError, read_yaml

NAMES = """\
def main(each):
    return {"failed": [one["matrix"]["n"] for one in each if one["outputs"]["how"] != "success"]}
"""


def test_a_batch_says_which_of_its_parts_failed(tmp_path: Path) -> None:
    """One of three is a duplicate: the others are paid, and the summary names it. The verifier reads the same."""
    provider, clock = Provider(), FakeClock()
    root = make(tmp_path / "d", provider, clock=clock).root
    paying = pay(invoice=ref("inputs.invoices[matrix.n]"), continue_on_error=True)
    flow = document(
        job("pay", paying, matrix=[["n", [0, 1, 2]]], fail_fast=False, parallel=1,
            outputs=[["how", ref("steps.pay.outcome")]]),
        job("sum", step("pure", "names", code=NAMES, with_={"each": ref("needs.pay.each")}, outputs={"failed": "list"}),
            needs=["pay"], outputs=[["failed", ref("steps.names.outputs.failed")]]),
        inputs={"invoices": an_input("list")},
        outputs=[["all", ref("length(needs.pay.each)")], ["failed", ref("needs.sum.outputs.failed")]],
    )  # fmt: skip
    with hold(root, provider, clock) as handle:
        found = run_it(handle, flow, invoices=["A", "A", "B"])
    assert (found["status"], found["outputs"]) == ("success", {"failed": [1], "all": 3})
    assert len(provider.effects) == 2
    assert unsound(root) == []


def test_each_is_a_list() -> None:
    """Its members are not outputs: who reads one as such is told."""
    wait = "steps: [{ wait: { seconds: 1 } }]"
    text = f"name: x\njobs:\n  a: {{ {wait} }}\n  b: {{ needs: a, if: needs.a.each == 1, {wait} }}\n"
    with pytest.raises(DefinitionError):
        read_yaml(text)
