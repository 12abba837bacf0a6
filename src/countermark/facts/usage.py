"""How full the windows of a fact are: for people who look, not for decisions. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nlargest
from typing import Any

from countermark.facts.kinds import Key, Subject, WindowTracker, plain
from countermark.facts.window import BUCKETS_BACK_CAP, Window


def usage(tracker: WindowTracker, held: Iterable[tuple[int, Subject]], now_us: int, groups_max: int) -> dict[str, Any]:
    """The fullest groups of a window at ``now_us``.

    ``held`` are time and subject of every intent without a final outcome.

    Returns:
        ``{"groups": [{"group": [values], "used", "held", "next_at", "next"}], "more"}``: ``used`` is settled, ``held``
        is what open intents reserve; at ``next_at`` (microseconds) the oldest bucket, of ``next``, no longer counts,
        None where nothing does; ``more`` is how many groups that hold something are left out.
    """
    values = {key: window.value(now_us, BUCKETS_BACK_CAP) for key, window in tracker.groups.items()}
    full = {key: value for key, value in values.items() if value}
    open_by = _held(tracker, held, now_us)
    shown = nlargest(groups_max, full, key=lambda key: (full[key], repr(key)))
    return {
        "groups": [_row(tracker.groups[key], key, full[key], open_by.get(key, 0), now_us) for key in shown],
        "more": len(full) - len(shown),
    }


def _held(tracker: WindowTracker, held: Iterable[tuple[int, Subject]], now_us: int) -> Mapping[Key, int]:
    found: dict[Key, int] = {}
    for at, subject in held:
        weight, key = tracker.weight(subject), tracker.key(subject)
        window = None if key is None else tracker.groups.get(key)
        if (
            weight is not None
            and key is not None
            and window is not None
            and window.covers(at, now_us, BUCKETS_BACK_CAP)
        ):
            found[key] = found.get(key, 0) + weight
    return found


def _row(window: Window, key: Key, value: int, held: int, now_us: int) -> dict[str, Any]:
    oldest = now_us // window.width - BUCKETS_BACK_CAP
    leaving = next(((at, weight) for at, weight in window.buckets.items() if at >= oldest and weight), None)
    return {
        "group": [plain(part) for part in key], "used": value - held, "held": held,
        "next_at": None if leaving is None else (leaving[0] + BUCKETS_BACK_CAP + 1) * window.width,
        "next": 0 if leaving is None else leaving[1],
    }  # fmt: skip
