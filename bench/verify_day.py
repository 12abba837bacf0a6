"""A day of governed workflows as an evidence pack, and what the independent verifier needs for it.

The real gate decides every action against a provider that does nothing, each workflow in a run of its own; the pack is
exported as an operator exports one. The verifier is measured as a process of its own, so that start and imports count.

    python bench/verify_day.py make FOLDER WORKFLOWS [--actions 3] [--agent-day] [--driven]
    python bench/verify_day.py time FOLDER [--rounds 3] [--src DIRECTORY ...] [--set "--jobs 2" ...]

With `--driven` each workflow is a run of a definition (pure step, payment, pure step), so that the verifier follows it
and executes its pure steps again. `--src` names the directory that holds `countermark_verify`: several versions are
measured in turns, and their medians divided. `--set` names options of `countermark-verify`, measured in turns too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

IN_FLIGHT = 64
PACK, TRUST = "pack.zip", "trust.json"
_ZONE = ZoneInfo("Europe/Berlin")  # of the template


def make(folder: Path, workflows: int, actions: int, agent_day: bool, driven: bool) -> dict[str, Any]:
    """Play the day, export it, write what an auditor trusts."""
    from countermark.audit import Wanted, export_extract, export_pack
    from countermark.authority import load_private
    from countermark.cli.epoch import reach
    from countermark.journal import SqliteStore
    from countermark.log import LogSigner
    from countermark.wiring import load_config
    from countermark.wiring.bench import AGENT, rig

    if not (folder / "deployment").exists():  # played before: only the pack is made again
        folder.mkdir(parents=True)
        with rig(folder / "deployment") as made:
            if driven:
                sys.path.insert(0, str(Path(__file__).resolve().parent / "drivers"))
                from workflow_driver import Flows

                Flows(made).measure({"in_flight": IN_FLIGHT, "seconds": 0, "units": workflows})
            else:
                made.gate.wait(_play(made, workflows, actions))
    config = load_config(folder / "deployment")
    today = Wanted(agent=AGENT, days=(datetime.now(_ZONE).date(),) * 2)
    if agent_day:
        reach(config, today)
    signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
    store = SqliteStore(config.journal, readonly=True)
    try:
        where: dict[str, Any] = {"deployment": config.deployment, "lane": config.lane}
        bundle = next(r.body["activation"]["bundle"] for r in store.records() if r.kind == "policy.activated")
        compiled = json.loads(store.bundle(bundle) or b"")["compiled"]
        if agent_day:
            done = export_extract(folder / PACK, store, signer, today, **where)
        else:
            done = export_pack(folder / PACK, store, signer, **where)
    finally:
        store.close()
    head = {"size": done.size, "root": done.root, "source": "kept by the auditor", "verified": agent_day}
    trust = {
        "v": 1, "log": {"origin": config.origin, "keys": [signer.vkey]},
        "people": {one["id"]: one["keys"] for one in compiled["people"]}, "heads": [head],
    }  # fmt: skip
    (folder / TRUST).write_text(json.dumps(trust), "utf-8")
    return {"records": done.size, "bytes": (folder / PACK).stat().st_size}


async def _play(made: Any, workflows: int, actions: int) -> None:
    from countermark.gate import Caller
    from countermark.wiring.bench import AGENT

    caller, left = Caller(AGENT, "embedded"), iter(range(workflows))

    async def worker() -> None:
        for _ in left:
            run = await made.gate.call("run.start", {"purpose": "pay three invoices"}, caller)
            for _ in range(actions):
                result = await made.gate.act(caller, {**made.body(), "run": run})
                if result.status != "confirmed":
                    raise SystemExit(f"an action was {result.status}: {result.code}")
            await made.gate.call("run.end", {"run": run, "reason": "done"}, caller)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def measure(src: Path, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """One verification in a process of its own: seconds, processor seconds, memory, verdict."""
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from countermark_verify.cli import main; sys.exit(main())"
    )
    words = [sys.executable, "-c", program, str(src), str(folder / PACK), "--trust", str(folder / TRUST), "--json"]
    begin = time.perf_counter()
    with subprocess.Popen([*words, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = report["exit"]
    took = time.perf_counter() - begin
    return {
        "seconds": took, "cpu": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
        "verdict": report["verdict"], "codes": [f["code"] for s in report["steps"] for f in s["findings"]],
    }  # fmt: skip


def compare(folder: Path, rounds: int, sources: Sequence[Path], sets: Sequence[str]) -> None:
    """Rounds in turns; medians, and ratios to the first candidate within the same round."""
    found: dict[tuple[Path, str], list[dict[str, Any]]] = {key: [] for key in product(sources, sets)}
    for _ in range(rounds):
        for (src, options), rows in found.items():
            rows.append(measure(src, folder, options.split()))
    (first, *_) = found.values()
    for (src, options), rows in found.items():
        ratio = median(own["seconds"] / base["seconds"] for own, base in zip(rows, first, strict=True))
        middle = {name: median(row[name] for row in rows) for name in ("seconds", "cpu", "peak_mb")}
        print(
            f"{src} {options!r}: {middle['seconds']:.2f} s, {middle['cpu']:.2f} s of processor time, "
            f"{middle['peak_mb']:.0f} MB, {rows[0]['verdict']} {rows[0]['codes'][:3]}; {ratio:.2f} of the first"
        )
    print("load", os.getloadavg())


def main() -> None:
    """Make a pack, or measure with one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("workflows", type=int)
    making.add_argument("--actions", type=int, default=3)
    making.add_argument("--agent-day", action="store_true", help="an extract of the agent's day instead of the log")
    making.add_argument("--driven", action="store_true", help="runs of a definition instead of an agent's")
    timing = commands.add_parser("time")
    timing.add_argument("folder", type=Path)
    timing.add_argument("--rounds", type=int, default=3)
    timing.add_argument("--src", type=Path, action="append")
    timing.add_argument("--set", dest="sets", action="append")
    options = parser.parse_args()
    if options.command == "make":
        print(make(options.folder, options.workflows, options.actions, options.agent_day, options.driven))
        return
    here = Path(__file__).resolve().parent.parent / "src"
    compare(options.folder, options.rounds, options.src or [here], options.sets or [""])


if __name__ == "__main__":
    main()
