"""How long the console's pages take behind a long journal.

    python bench/console.py [--records N] [--rounds N] [--dir DIR]

It writes N made-up records (``long_journal.py``), opens a gate over them, serves it, makes the daybook, and asks for
every page over HTTP as a browser does. Times are of whole answers on one connection each, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "console"))

from long_journal import LongJournal
from visitor import Visitor

from countermark.connectors import NoopConnector
from countermark.model.clock import US, FakeClock, SystemClock
from countermark.policy import template_files
from countermark.server import Listener
from countermark.wiring import ServeSettings, open_deployment
from countermark.wiring.bench import AGENT, TEMPLATE, _wide_limits
from countermark.wiring.connectors import drafts
from countermark.wiring.init import Made, init_deployment

RECORDS = 1_000_000
DAYS = 200
ROUNDS = 15
CLOCK = SystemClock()


@dataclass
class Served:
    """What a visitor needs to know of a server."""

    made: Made
    address: tuple[str, int]


def say(text: str) -> None:
    print(text, flush=True)


def seconds(since: int) -> float:
    return (CLOCK.steady_us() - since) / US


@contextmanager
def journal(root: Path, records: int) -> Iterator[Made]:
    """A deployment with so many records; one that is there already is taken as it is."""
    if (root / "countermark.toml").exists():
        people = {path.stem: path for path in (root / "people").glob("*.pem")}
        yield Made(root, "bench", people, "", "", {})
        return
    provider = {"stripe": NoopConnector(drafts()["stripe"])}
    limits = _wide_limits(template_files(TEMPLATE)["limits.toml"])
    begun, now = CLOCK.steady_us(), CLOCK.now_us()
    made = init_deployment(
        root, TEMPLATE, "bench", edit={"limits.toml": limits}, connectors=provider,
        clock=FakeClock(now - DAYS * 86_400 * US),
    )  # fmt: skip
    written = LongJournal(root)
    for size in written.lay(records, now - 60 * US):
        if size % 200_000 < 20_000:
            say(f"  {size:,} records")
    written.close()
    say(f"{records:,} records written in {seconds(begun):.0f} s")
    yield made


def timed(visitor: Visitor, target: str, rounds: int) -> list[float]:
    """Milliseconds of whole answers."""
    took = []
    for _ in range(rounds):
        begun = CLOCK.steady_us()
        answer = visitor.get(target)
        took.append((CLOCK.steady_us() - begun) / 1_000)
        if answer.status != 200:
            raise SystemExit(f"{target}: {answer.status} {answer.body[:300]!r}")
        if b"is being made" in answer.body:
            raise SystemExit(f"{target}: the daybook is not there")
    return took


def targets(size: int, first: str) -> dict[str, str]:
    """The pages, and the lists that are hardest to find."""
    return {
        "payments, newest": "/payments", "payments, in the middle": f"/payments?before={size // 2}",
        "payments of an agent": f"/payments?agent={AGENT}", "payments failed": "/payments?status=failed",
        "payments expired, of a payee": "/payments?status=expired&payee=acme-paper",
        "payments that none fits (walks)": "/payments?disposition=deny&status=confirmed",
        "reference, one fits": "/payments?text=INV-123456", "reference, all fit": "/payments?text=inv",
        "reference, walks": "/payments?text=inv&status=refused&disposition=allow",
        "one day": "/payments?day=2026-10-01", "one payment": f"/payments/{first}",
        "limits": "/limits", "agents": "/agents", "policy": "/policy", "evidence": "/evidence", "health": "/health",
        "waiting": "/waiting",
    }  # fmt: skip


def measure(root: Path, made: Made, rounds: int) -> dict[str, object]:
    begun = CLOCK.steady_us()
    connectors = {"stripe": NoopConnector(drafts()["stripe"])}
    with open_deployment(root, agent=AGENT, connectors=connectors) as handle:
        say(f"gate opened in {seconds(begun):.0f} s")
        listener = Listener(handle, settings=ServeSettings(port=0))
        url = urlsplit(listener.start())
        try:
            visitor = Visitor(Served(made, (str(url.hostname), int(url.port or 0))))  # type: ignore[arg-type]
            visitor.sign_in("treasurer")
            begun = CLOCK.steady_us()
            while b"is being made" in visitor.get("/payments").body:
                visitor.poll("/building")
            daybook = seconds(begun)
            say(f"daybook made in {daybook:.0f} s")
            page = visitor.get("/payments").body.decode()
            first = "act_" + page.partition('href="/payments/act_')[2][:32]
            size = handle.call("status", {})["records"]
            rows = {}
            for name, target in targets(size, first).items():
                took = sorted(timed(visitor, target, rounds))
                rows[name] = {"median_ms": round(median(took), 1), "worst_ms": round(took[-1], 1)}
                say(f"{name:36}{rows[name]['median_ms']:>9.1f} ms{rows[name]['worst_ms']:>9.1f} ms at worst")
            return {"records": size, "daybook_s": round(daybook, 1), "pages": rows}
        finally:
            listener.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dir", help="where the deployment stays, for another time (default: nowhere)")
    options = parser.parse_args()
    folder = Path(options.dir) if options.dir else Path(tempfile.mkdtemp(prefix="countermark-console-"))
    try:
        with journal(folder / "deployment", options.records) as made:
            say(json.dumps(measure(folder / "deployment", made, options.rounds)))
    finally:
        if not options.dir:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
