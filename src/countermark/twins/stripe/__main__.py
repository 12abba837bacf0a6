"""``python -m countermark.twins.stripe``: run the simulator as a process of its own. It moves no money."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from countermark.model.errors import ConfigError, CountermarkError
from countermark.twins.stripe.api import SERVER, START_S, Api, SimClock, secret_key
from countermark.twins.stripe.books import Ledger
from countermark.twins.stripe.faults import Faults, faults_from, faults_from_text
from countermark.twins.stripe.server import Server, seed_books


def build(directory: Path, seed: int, now_s: int, running: bool, faults: str) -> Api:
    """Open or continue the books in ``directory``: clock, seed and fault schedule of an earlier start go on."""
    ledger = Ledger(directory)
    with ledger.transaction():
        boot = int(ledger.meta("boot", 0)) + 1
        ledger.set_meta("boot", boot)
        seed = int(ledger.meta("seed", seed))
        ledger.set_meta("seed", seed)
        clock = SimClock(**ledger.meta("clock", {"running": running, "base_s": 0 if running else now_s}))
        ledger.set_meta("clock", {"running": clock.running, "base_s": clock.base_s})
        schedule = faults_from(ledger.meta("faults", Faults(seed).document()))
        if faults:
            schedule = faults_from_text(faults, seed)
            ledger.set_meta("faults", schedule.document())
    return Api(ledger, seed, clock, schedule, secret_key(seed), boot)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m countermark.twins.stripe",
        description="A loopback SIMULATOR of Stripe's HTTP contract. It is not Stripe and moves no money.",
    )
    parser.add_argument("--dir", type=Path, required=True, help="directory of its books")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("--seed", type=int, default=0, help="decides ids, its key and the drawn faults")
    parser.add_argument("--now", type=int, default=START_S, help="seconds since 1970 at which its clock stands")
    parser.add_argument("--running", action="store_true", help="let its clock run with this machine's")
    parser.add_argument("--faults", default="", help="JSON, or NAME=CHANCE_PER_MILLION joined by commas")
    parser.add_argument("--account", action="append", default=[], metavar="ID", help="an account to know (repeatable)")
    parser.add_argument(
        "--balance", action="append", default=[], metavar="CURRENCY=AMOUNT", help="minor units to add (repeatable)"
    )
    parser.add_argument("--tethered", action="store_true", help="stop when standard input ends")
    args = parser.parse_args()
    print(f"{SERVER}: a simulator of Stripe's HTTP contract; not Stripe, no money moves.", file=sys.stderr)
    try:
        balances = _balances(args.balance)
        api = build(args.dir, args.seed, args.now, args.running, args.faults)
        seed_books(api, args.account, balances)
    except CountermarkError as error:
        print(error, file=sys.stderr)
        return 64
    announce = {"pid": os.getpid(), "key": api.key, "simulator": SERVER, "livemode": False}
    asyncio.run(_serve(api, args.port, announce, args.tethered))
    return 0


def _balances(given: Sequence[str]) -> dict[str, int]:
    """From ``eur=100000``. Raises ``ConfigError``."""
    found = {}
    for text in given:
        match = re.fullmatch(r"([a-z]{3})=([0-9]{1,15})", text)
        if match is None:
            raise ConfigError(f"--balance {text} is not CURRENCY=AMOUNT, like eur=100000")
        found[match[1]] = int(match[2])
    return found


async def _serve(api: Api, port: int, announce: dict[str, object], tethered: bool) -> None:
    await Server(api).run(port, announce, tethered=tethered)


if __name__ == "__main__":
    sys.exit(main())
