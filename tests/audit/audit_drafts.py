"""Drafts of the day's policy, and the journal held against them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audit_day import AGENT, HOSTING, PAPER, START_US, STRANGER, Day, Player, Provider

from countermark.audit import backtest, policy_diff, present_state
from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.model.digest import pseudonym
from countermark.policy import Bundle, compile_bundle
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import open_deployment, read_key
from countermark.wiring.init import init_deployment

Edit = Mapping[str, str] | Callable[[dict[str, str]], None]


def in_force(store: SqliteStore) -> Bundle:
    bundle = present_state(store).bundle
    if bundle is None:
        raise AssertionError("no policy is in force")
    return bundle


def draft_of(bundle: Bundle, *swaps: tuple[str, str, str], add: Mapping[str, str] | None = None) -> Bundle:
    """The bundle with texts of its files replaced: ``(file, old, new)``, each of which must be there."""
    files = dict(bundle.document["source"])
    for file, old, new in swaps:
        if old not in files[file]:
            raise AssertionError(f"{file} has no {old!r}")
        files[file] = files[file].replace(old, new)
    for file, text in (add or {}).items():
        files[file] = files.get(file, "") + text
    return compile_bundle(tuple(sorted(files.items())), drafts())


def keyed(day: Day) -> Callable[[str, str], str]:
    key = read_key(day.made.root / "keys" / "pseudonym.key")
    return lambda kind, value: pseudonym(key, kind, value)


def diff(day: Day, draft: Bundle | None = None, reveal: bool = True, **more: Any) -> dict[str, Any]:
    """``policy_diff`` of the day against a draft, the policy in force without one."""
    store = day.store
    try:
        unseal = day.unseal(store) if reveal else None
        return policy_diff(store, draft or in_force(store), keyed(day), unseal=unseal, **more)
    finally:
        store.close()


def own_backtest(day: Day, draft: Bundle | None = None, **more: Any) -> dict[str, Any]:
    """``backtest`` of the day's own journal."""
    store = day.store
    try:
        return backtest(store, draft or in_force(store), keyed(day), unseal=day.unseal(store), **more)
    finally:
        store.close()


def random_day(folder: Path, seed: int, calls: int = 40) -> Day:
    """A day of seeded calls by the real gate: every outcome, every disposition, no answers of people, no stops."""
    chance = random.Random(seed)
    clock, provider = FakeClock(START_US), {"stripe": Provider()}
    made = init_deployment(folder / "d", "vendor-payments", "acme", clock=clock, connectors=provider)
    day = Day(made)
    with open_deployment(folder / "d", agent=AGENT, connectors=provider, clock=clock) as handle:
        day.run = handle.start_run(purpose="pay")
        player = Player(handle, day, clock)
        for number in range(calls):
            clock.advance(chance.choice((1, 60, 1_800)))
            name = chance.choice(("INV", "INV", "INV", "FAIL", "LOST"))
            player.act(
                f"c-{number}", chance.choice((100, 48_000, 210_000, 260_000, 600_000, 2_400_000, 2_600_000)),
                chance.choice((PAPER, PAPER, HOSTING, STRANGER)), f"{name}-{chance.randrange(calls // 2)}",
            )  # fmt: skip
    return day
