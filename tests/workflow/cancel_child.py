"""``python cancel_child.py ROOT RUN POINT``: cancels a run in a process of its own, which dies at a crash point."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

from flow_rig import AGENT
from rig import Provider
from trigger_child import _last

import countermark
from countermark.connectors import ApproveConnector
from countermark.model import crash
from countermark.model.clock import FakeClock

if __name__ == "__main__":
    root, run, point = sys.argv[1:]
    connectors = {"stripe": Provider(), "workflow": ApproveConnector()}
    handle = countermark.open(root, agent=AGENT, connectors=connectors, clock=FakeClock(wall_us=_last(Path(root))))
    handle.call("workflow.show", {"run": run})
    crash._ARMED[point] = 1
    handle.call("workflow.cancel", {"run": run, "reason": "wrong", "person": "treasurer"})
