"""A process of the crash tests: the gate's owner, or a DBOS host that drives runs and says how each ended.

It is forked from one that has everything imported. ``crash`` (``NAME:N``) makes it kill itself at a crash point of the
gate, or of DBOS, once it is ready.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dbos  # before the first fork: it takes seconds
from flow_rig import AGENT, an_input, document, job, pay, ref, three_steps

import countermark
from countermark.hosts.dbos import Host
from countermark.model import crash

assert dbos.DBOS is not None
assert countermark.Deployment is not None


def flows() -> list[dict[str, Any]]:
    """One that succeeds, and one whose second payment is denied, so that its first one is undone."""
    back = pay("x", invoice=ref("format('{0}-back', inputs.invoice)"), amount=5)
    undo = {"tool": back["tool"], "with": back["with"]}
    fails = document(
        job("main", pay("one", invoice=ref("inputs.invoice"), undo=undo), pay("two", invoice=ref("inputs.invoice"))),
        name="pays-twice", inputs={"amount": an_input(), "invoice": an_input("string")},
    )  # fmt: skip
    return [three_steps(), fails]


def arm(crash_at: str) -> None:
    """From now on the crash point counts."""
    name, _, count = crash_at.partition(":")
    if name.startswith("DEBUG_TRIGGER"):
        from dbos._debug_trigger import DebugAction, DebugTriggers

        left = [int(count)]

        def passed() -> None:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

        DebugTriggers.set_debug_trigger(name, DebugAction(callback=passed))
    elif name:
        crash._ARMED[name] = int(count)


def drive(said: Connection, root: Path, database: str, executor: str, tag: str, count: int, crash_at: str) -> None:
    """Queue all runs, as every host does, and wait for their ends."""
    with countermark.open(root, agent=AGENT) as handle:
        host = Host(handle, name="crash", database=database, executor=executor, poll_s=0.05)
        with host:
            arm(crash_at)
            said.send("ready")
            ids = [
                host.enqueue(flows()[n % 2], {"amount": 100 + n, "invoice": f"{tag}-{n}"}, workflow_id=f"{tag}-{n}")
                for n in range(count)
            ]
            said.send([host.result(workflow)["status"] for workflow in ids])


def own(said: Connection, root: Path, crash_at: str) -> None:
    """Hold the gate until somebody says that it is enough."""
    with countermark.open(root, agent=AGENT):
        arm(crash_at)
        with suppress(BrokenPipeError, EOFError):  # it was enough before this one was ready
            said.send("ready")
            said.recv()


def run(said: Connection, errors: str, what: str, *args: Any) -> None:
    """The whole life of the process; what it complains of goes to a file."""
    handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    (own if what == "owner" else drive)(said, *args)
    sys.stderr.flush()
    os._exit(0)  # DBOS leaves threads
