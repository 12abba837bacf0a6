"""What one look at the ladders costs while very many escalations are parked: python bench/ladders.py [--json OUT]

In memory: N rows, each raised as the lane folds a record. On disk: a deployment's journal with N questions in it, the
lane's own writer over it; a turn is what the gate does twice a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from countermark.authority import load_private
from countermark.gate import climbing, escalation
from countermark.gate.prepare import Pseudonyms
from countermark.gate.writer import Writer
from countermark.journal import SqliteStore, Vault
from countermark.log import LogSigner
from countermark.model.clock import US
from countermark.policy import Ladder, Rung, first_dues, template_files
from countermark.policy.parked import Parked
from countermark.wiring.config import load_config
from countermark.wiring.deployment import read_key
from countermark.wiring.init import init_deployment

START = 1_790_000_000 * US
AGENTS = 1_000
BATCH = 2_000
LOOKS = 200
DIGEST = "sha256:" + "a" * 64
FINANCE = Ladder("finance", (Rung(("approver",), 1, 14_400), Rung(("board",), 1, 86_400)))
RUNGS = """
[[ladder.finance.rung]]
roles = ["approver"]
deadline = "4h"

[[ladder.finance.rung]]
roles = ["principal"]
deadline = "24h"
"""


def body_of(number: int, bundle: str, at: int) -> dict[str, Any]:
    """A question like a real one, a millisecond after the one before."""
    due, not_after = first_dues({"finance": FINANCE}, ("finance",), at, "UTC")
    return {
        "escalation": f"esc_{number:032x}", "id": f"act_{number:032x}", "agent": f"agent-{number % AGENTS}",
        "run": f"run_{number % AGENTS:032x}", "decided": number, "decided_digest": DIGEST,
        "ladders": {"finance": ["limits.payment.ask_above"]}, "action": DIGEST, "request": DIGEST,
        "terms": {"amount": 600_000 + number, "currency": "eur", "payee": "acme-paper"}, "bundle": bundle,
        "mandate": DIGEST, "due": due, "not_after": not_after,
    }  # fmt: skip


def timed(work: Callable[[], Any], times: int = LOOKS) -> float:
    """Median microseconds."""
    found = []
    for _ in range(times):
        begin = time.perf_counter_ns()
        work()
        found.append((time.perf_counter_ns() - begin) / 1_000)
    return round(statistics.median(found), 1)


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def rows(count: int) -> dict[str, Any]:
    """N rows in memory, with a business key each."""
    bundle: Any = SimpleNamespace(compiled=SimpleNamespace(ladders={"finance": FINANCE}, zone="UTC"))
    before = memory_mib()
    parked = Parked(lambda _: bundle, lambda seq: {})
    begin = time.perf_counter()
    for number in range(count):
        parked.raised(body_of(number, "b", START + 1_000 * number), number, f"sha256:{number:064x}")
    raised_s = time.perf_counter() - begin
    found: dict[str, Any] = {
        "parked": count, "raise_us": round(raised_s / count * US, 1), "memory_mib": round(memory_mib() - before),
        "look_us": timed(lambda: parked.due(START)),
        "page_of_20_us": timed(lambda: [one.seq for one, _ in zip(parked.newest(count // 2), range(20), strict=False)]),
    }  # fmt: skip
    late = START + 14_400 * US + 1_000 * count

    def climb() -> None:
        one = parked.due(late)
        if one is not None:
            one.climb("finance", 2, one.next.at + 86_400 * US)
            parked.moved(one)

    found["step_us"] = timed(climb, min(count, 20_000))
    found["snapshot_mib"] = round(len(orjson.dumps(parked.dump())) / (1 << 20), 1)
    return found


def opened(root: Path) -> tuple[Writer, Callable[[], None]]:
    """The lane's writer over a deployment that nobody holds."""
    config = load_config(root)
    store, vault = SqliteStore(config.journal), Vault(config.vault, read_key(config.keys / "vault.key"))
    signer = LogSigner(f"countermark/{config.deployment}/{config.lane}", load_private(config.keys / "log.pem"))
    pen = Writer(store, vault, signer, Pseudonyms(read_key(config.keys / "pseudonym.key")), config.lane)

    def close() -> None:
        store.close()
        vault.close()

    return pen, close


def journal(count: int, folder: Path) -> dict[str, Any]:
    """N questions in a journal on this disk; a look with nothing due, a full turn with its commit, a page, a start."""
    head = template_files("vendor-payments")["limits.toml"].partition("[ladder.finance]")[0]
    made = folder / "d"
    init_deployment(made, "vendor-payments", "bench", edit={"limits.toml": head + RUNGS})
    pen, close = opened(made)
    pen.rebuild()
    bundle = pen.state.bundle
    if bundle is None:
        raise SystemExit("the deployment has no policy")
    pen.now = begun = pen.state.at
    begin = time.perf_counter()
    for number in range(count):
        pen.add("escalation.raised", body_of(number, bundle.digest, begun + number))
        if number % BATCH == BATCH - 1:
            pen.commit()
            pen.cache()
    pen.commit()
    found = {"parked": count, "written_per_s": round(count / (time.perf_counter() - begin))}

    def look() -> None:
        if climbing.turn(pen):
            raise SystemExit("nothing was due")

    found["look_us"] = timed(look)
    found["page_of_20_ms"] = round(timed(lambda: list(escalation_page(pen, count))) / 1_000, 2)
    pen.now = begun + 14_400 * US + count
    turns, begin = 0, time.perf_counter()
    while turns < 100 and climbing.turn(pen):
        pen.commit()
        turns += 1
    each = (time.perf_counter() - begin) / max(turns, 1)
    found |= {"turn_ms": round(1_000 * each, 1), "steps_per_s": round(climbing.STEPS_PER_TURN_MAX / each)}
    close()
    pen, close = opened(made)
    begin = time.perf_counter()
    found["folded_at_a_start"] = pen.rebuild()
    found["start_s"] = round(time.perf_counter() - begin, 2)
    close()
    return found


def escalation_page(pen: Writer, count: int) -> list[Any]:
    """Twenty questions from the middle, bodies read from the journal, and who may answer each."""
    page = [one for one, _ in zip(pen.state.parked.newest(count // 2), range(20), strict=False)]
    return [(one.body, escalation.rungs_of(one, pen.state, pen.at)) for one in page]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--journal", type=int, nargs="*", default=[100_000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result: dict[str, list[Mapping[str, Any]]] = {"rows": [], "journal": []}
    for count in given.journal:
        folder = Path(tempfile.mkdtemp(dir="."))
        try:
            result["journal"].append(journal(count, folder))
        finally:
            shutil.rmtree(folder)
        print("journal", result["journal"][-1])
    for count in given.rows:
        result["rows"].append(rows(count))
        print("rows   ", result["rows"][-1])
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
