"""A day of workflows in a process of its own that may die at any moment, then run again.

``python flow_child.py ROOT TAG RUNS [SNAPSHOTS]``. What starts a run is an event of its own, so asking again starts
nothing twice; the end of the process is the end of the day: every run is over.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from flow_rig import ADD, AGENT, TOOL, an_input, args_for, document, job, ref, step

import countermark
from countermark.gate import caches
from countermark.model.errors import CountermarkError

WAIT_S = 0.02
WAITS_MAX = 1_500


def transfer(name: str, part: str, amount: Any, **more: Any) -> dict[str, Any]:
    invoice = ref(f"format('{{0}}-{part}', inputs.invoice)")
    return step("effect", name, tool=TOOL, with_={**args_for("0", amount), "metadata[invoice]": invoice}, **more)


def definition() -> dict[str, Any]:
    """Two payments after one another with code around them, then two side by side; the first one can be undone."""
    first = ref("steps.first.outputs.amount")
    back = args_for("0", 1)
    back["metadata[invoice]"] = ref("format('{0}-back', inputs.invoice)")  # type: ignore[assignment]
    undo = {"tool": TOOL, "with": sorted([name, value] for name, value in back.items())}
    return document(
        job(
            "one",
            step("pure", "first", code=ADD, with_={"amount": ref("inputs.amount")}, outputs={"amount": "int"}),
            transfer("pay", "a", first, undo=undo),
            step("pure", "second", code=ADD, with_={"amount": first}, outputs={"amount": "int"}),
            transfer("again", "b", ref("steps.second.outputs.amount"),
                     retry={"attempts": 2, "delay_s": 1, "factor": 1}),
            outputs=[["amount", ref("steps.second.outputs.amount")]],
        ),
        job(
            "two",
            step("effect", "each", tool=TOOL, with_={
                **args_for("0", ref("needs.one.outputs.amount")),
                "metadata[invoice]": ref("format('{0}-{1}', inputs.invoice, matrix.part)"),
            }),
            needs=["one"], matrix=[["part", ["c", "d"]]],
        ),
        # Fails when the input says so, by a payment that stands already: then the first is undone.
        job("three", transfer("twice", "a", 7), needs=["two"], **{"if": "success() && inputs.fail"}),
        inputs={"amount": an_input(), "fail": an_input("bool"), "invoice": an_input("string")}, name="storm",
    )  # fmt: skip


def day(root: Path, tag: str, runs: int) -> None:
    with countermark.open(root, agent=AGENT) as handle:
        names = []
        for number in range(runs):
            body = {
                "document": definition(), "agent": AGENT,
                "inputs": {"amount": 100 + number, "fail": number % 3 == 2, "invoice": f"{tag}-{number}"},
                "trigger": {"kind": "manual", "event": f"{tag}-{number}", "record": None},
            }  # fmt: skip
            names.append(handle.call("workflow.start", body)["run"])
        for name in names:
            _over(handle, name)


def _over(handle: countermark.Deployment, run: str) -> None:
    for _ in range(WAITS_MAX):
        found = handle.call("workflow.drive", {"run": run})
        if found["status"] not in ("running", "waiting"):
            return
        time.sleep(WAIT_S)  # a retry's delay, or an outcome that nobody knows yet
        try:
            handle.call("recover", {})
        except CountermarkError as error:
            print(error, file=sys.stderr)
    raise SystemExit(f"the run {run} is not over: {found}")


if __name__ == "__main__":
    if len(sys.argv) > 4:
        caches.SNAPSHOT_PART, caches.SNAPSHOT_RECORDS, caches.DIRTY_MAX = 0, int(sys.argv[4]), 3
    day(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
