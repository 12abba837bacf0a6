"""The looks of ``doctor`` at the machine: durable writes, clock, room, keys' reach, other users, backups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from countermark.cli.base import reading
from countermark.model.clock import US
from countermark.model.errors import CountermarkError

if TYPE_CHECKING:
    from countermark.audit import Compared
    from countermark.cli.base import Config
    from countermark.policy import Seats

Found = Iterator[tuple[str, str]]

DISK_FREE_BYTES_MIN = 1 << 30
DAYS_LEFT_MIN = 30
BACKUP_AGE_US_MAX = 26 * 3_600 * US  # a nightly one, and two hours for it to run late
OFFSET_US_MAX = US  # what a clock that is kept right is not off
FAST_SYNC_US = 30  # faster than any disk with its cache switched off
FULL_KEYS = ("sk_", "sk-")
RESTRICTED_KEYS = ("rk_",)
LISTED_MAX = 8


def fsync(config: Config) -> Found:
    """Whether a durable write takes the time that one takes."""
    from countermark.wiring import syncing

    found = syncing(config.journal.parent)
    said = f"a block in {found.write_us} us, durable in {found.sync_us} us, on {found.filesystem or 'an unknown kind'}"
    if found.remote:
        yield "wrong", f"{said}. SQLite's log and locks do not hold on a network file system."
    elif found.volatile:
        yield "warning", f"{said}: what is written there may not outlive the machine or the container."
    elif found.sync_us < FAST_SYNC_US:
        yield "warning", f"{said}: too fast for a disk. A cache without a battery would lose what was decided."
    else:
        yield "ok", f"{said}. A disk that lies about its cache cannot be told from here."


def clock(config: Config) -> Found:
    """The clock against the newest record and against others' clocks, and whether anything keeps it right."""
    from countermark.audit import compared, newest_seen, present_state, when
    from countermark.model.clock import SystemClock
    from countermark.wiring import disciplined

    with reading(config) as store:
        size = store.size()
        last = store.record(size - 1).at if size else 0
        bundle = present_state(store).bundle
        rule = None if bundle is None else bundle.compiled.witness
        found, seen = compared(store), newest_seen(store, rule)
    now = SystemClock().now_us()
    if now < last:
        yield "wrong", f"the clock says {when(now)}, but the newest record is of {when(last)}. Repair the clock."
        return
    kept = disciplined()
    if kept is False:
        yield "warning", f"{when(now)}, and no time source keeps this clock right. Run an NTP client."
    elif rule is None:
        yield "ok", f"{when(now)}; no witness is configured to compare it with"
    elif seen is None:
        yield "warning", f"{when(now)}; no witness has answered yet"
    else:
        yield "ok" if seen.ahead is not None else "warning", f"{when(now)}; {seen.offset()} at {when(seen.answered)}"
    for one in found:
        yield _against(one, when(one.at))


def _against(one: Compared, when: str) -> tuple[str, str]:
    """The clock against an authority's, as its newest time stamp bounds it."""
    said = f"compared with {one.clock} at {when}"
    if one.offset is None:
        return "warning", f"{said}: the extra `stamp` is needed to read it"
    low, high = (f"{value / US:+.3f} s" for value in one.offset)
    off = one.offset.ahead or one.offset.behind
    if off > OFFSET_US_MAX:
        way = "ahead" if one.offset.ahead else "behind"
        return "warning", f"{said}: at least {off / US:.3f} s {way}. Find out which of the two is wrong."
    return "ok", f"{said}: from {low} to {high} off"


def witnesses(config: Config) -> Found:
    """Who has seen the log, and whether that is new enough for money to move."""
    from countermark.audit import newest_seen, present_state
    from countermark.model.clock import SystemClock
    from countermark.policy import is_stale

    with reading(config) as store:
        state = present_state(store)
        rule = None if state.bundle is None else state.bundle.compiled.witness
        seen = newest_seen(store, rule)
    if rule is None:
        yield "ok", "no witness is configured: nobody outside would notice a rewrite"
    elif seen is None:
        yield "warning", "no witness has seen the log yet: money is denied until they answer"
    else:
        stale = is_stale(rule, state.witnessed, SystemClock().now_us())
        old = f"; older than {rule.stale_after_s} s, so money is denied until they answer again" if stale else ""
        yield "warning" if stale else "ok", seen.said() + old


def disk(config: Config) -> Found:
    """Room now, and for how long at the pace of the last day."""
    from countermark.wiring import growth

    with reading(config) as store:
        found = growth(config, store)
    said = f"{found.bytes_free >> 20:,} MiB free"
    if found.days_left is not None:
        said += f", {_bytes(found.bytes_per_day)} a day: full in {_days(found.days_left)}"
    short = found.bytes_free < DISK_FREE_BYTES_MIN or (found.days_left or DAYS_LEFT_MIN) < DAYS_LEFT_MIN
    yield ("warning", f"{said}. On a full disk nothing is decided.") if short else ("ok", said)


def _bytes(count: int) -> str:
    return f"{count >> 20:,} MiB" if count >> 20 else f"{count >> 10:,} KiB"


def _days(days: int) -> str:
    return "more than 10 years" if days > 3_650 else f"{days:,} days"


def secrets(config: Config) -> Found:
    """Whether each credential is there, and how far it reaches: by its kind, never its value."""
    from countermark import wiring
    from countermark.audit import present_state
    from countermark.wiring import config as configuration

    with reading(config) as store:
        seats = present_state(store).seats
    own = {tool: where for tools in config.tool_secrets.values() for tool, where in tools.items()}
    for name, reference in (*sorted(config.secrets.items()), *sorted(own.items())):
        try:
            value = configuration.resolve_secret(reference, config.root)
        except CountermarkError as error:
            yield "warning", f"{name}: {error.message}. Its tools cannot send. {error.hint}".strip()
            continue
        if wiring.is_live(value, config.live):
            yield from _enough(name, reference, seats)
        else:
            yield "ok", f"{name}: {reference} does not say that it is live: one person may use it"
        if value.startswith(FULL_KEYS):
            yield (
                "warning",
                f"{name}: {reference} is a full key: whoever gets it can do everything. Use a restricted one (rk_), "
                "a key for each tool.",
            )
        elif value.startswith(RESTRICTED_KEYS):
            yield "ok", f"{name}: {reference} is there, a restricted key"
        else:
            yield "ok", f"{name}: {reference} is there"


def _enough(name: str, reference: str, seats: Seats) -> Found:
    """Whether enough different people stand behind the policy for a live credential."""
    lacking = seats.lacking()
    if lacking:
        yield "wrong", f"{name}: {reference} is live and is not used: {'; '.join(lacking)} [not_enough_people]"
    else:
        yield "ok", f"{name}: {reference} is live; author, activator and approvers are different people"


def users(config: Config) -> Found:
    """Which other users of this machine could read or replace what is the gate's alone."""
    from countermark.wiring import exposed

    found = exposed(config)
    for phrase in found[:LISTED_MAX]:
        yield "wrong", phrase
    if len(found) > LISTED_MAX:
        yield "wrong", f"and {len(found) - LISTED_MAX:,} more"
    if os.getuid() == 0:
        yield "warning", "you are root: run the gate as a user of its own (docs/deploying.md)"
    elif not found:
        yield "ok", f"only uid {os.getuid()} can read keys and journal, or change configuration and policy"


def backup(config: Config) -> Found:
    """When the newest backup was made, and how much is not in it."""
    from countermark.audit import span, when
    from countermark.model.clock import SystemClock
    from countermark.wiring import newest_backup

    found = newest_backup(config)
    if found is None:
        yield "warning", "none was made here. Run `countermark backup TARGET` every night, to another machine."
        return
    with reading(config) as store:
        missing = store.size() - found["size"]
    age = SystemClock().now_us() - found["made_at"]
    said = f"{when(found['made_at'])}, {span(max(0, age) // (60 * US) * 60 * US)} ago; {missing:,} records are newer"
    yield ("ok", said) if 0 <= age <= BACKUP_AGE_US_MAX else ("warning", f"{said}. Make one.")


def channels(config: Config) -> Found:
    """Whether people can be told: each channel's secrets, what waits or is dead, and ladders that no channel serves."""
    from countermark.audit import present_state
    from countermark.notify import Outbox, roles_of
    from countermark.wiring import channel_fault

    if not config.notify:
        yield "warning", "none: nobody is told what waits for people. Write [[notify]] in countermark.toml."
        return
    with reading(config) as store:
        bundle = present_state(store).bundle
    for name, ladder in sorted({} if bundle is None else bundle.compiled.ladders.items()):
        if not any(one.takes_ladder(name, roles_of(ladder, 1)) for one in config.notify):
            yield "warning", f"no channel serves the ladder {name}"
    counts = {}
    if config.outbox.exists():
        outbox = Outbox(config.outbox)
        counts = outbox.counts()
        outbox.close()
    for one in config.notify:
        fault = channel_fault(config, one)
        dead, queued = counts.get((one.name, "dead"), 0), counts.get((one.name, "queued"), 0)
        said = f"{one.name} ({one.kind}): {queued:,} messages wait, {dead:,} are dead"
        if fault:
            yield "wrong", f"{one.name} ({one.kind}): {fault}"
        elif dead:
            yield "warning", f"{said}. See `countermark notify dead`."
        else:
            yield "ok", said


def triggers(config: Config) -> Found:
    """What starts nothing, a line for each: in the process that owns the gate, and in the folder as it is now."""
    from countermark.audit import present_state
    from countermark.wiring import owner_call, startable

    try:
        faults = {name: str(why) for name, why in owner_call(config)("workflow.faults", {}).items()}
    except OSError:  # nobody owns it now
        faults = {}
    settings, starting = config.workflows, f"no folder {config.workflows.folder}: nothing starts by itself"
    if settings.path(config.root).is_dir():
        with reading(config) as store:
            bundle = present_state(store).bundle
        found, runs = startable(config, config.workflows.known(bundle))
        faults |= {name: f"{error.message}. {error.hint}".strip() for name, error in found.faults.items()}
        starting = f"{len(found.definitions)} definitions, of which {len(runs)} start by themselves"
    for name, why in faults.items():
        yield "warning", f"{name} starts nothing: {why}"
    if not faults:
        yield "ok", starting
