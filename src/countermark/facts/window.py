"""The bucket ring: an exact running total over a sliding window, in at most 64 buckets."""

from __future__ import annotations

BUCKETS_BACK_CAP = 63  # docs/spec/facts.md, "Buckets": a cap counts the oldest bucket whole
BUCKETS_BACK_FLOOR = 62  # a floor leaves it out
LIFE_WIDTH_US = 1 << 62  # one bucket for all times: a total that never expires


def width_of(over_us: int) -> int:
    """Width of a bucket in microseconds: ``ceil(over_us / 63)``."""
    return -(-over_us // 63)


class Window:
    """Sum of integer weights by bucket of time. ``total`` is the running sum of what ``buckets`` holds.

    Times are microseconds and must not fall from one ``add`` to the next, as the ``at`` of records never does: then
    the dictionary's own order is the order of time, and what has expired stands in front.
    """

    __slots__ = ("buckets", "first", "total", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.buckets: dict[int, int] = {}
        self.total = 0
        self.first = 0  # the oldest bucket held, when there is one: most questions end at looking at it

    def add(self, at_us: int, weight: int) -> None:
        """Count ``weight`` at ``at_us``, and forget what has left every window that can still be asked for."""
        bucket = at_us // self.width
        buckets = self.buckets
        if bucket in buckets:
            buckets[bucket] += weight
        else:
            self.expire(bucket - BUCKETS_BACK_CAP)
            if not buckets:
                self.first = bucket
            buckets[bucket] = weight
        self.total += weight

    def adjust(self, at_us: int, delta: int) -> None:
        """Correct what was counted at ``at_us``. A bucket that has left the window needs no correction."""
        bucket = at_us // self.width
        if bucket in self.buckets:
            self.buckets[bucket] += delta
            self.total += delta

    def value(self, now_us: int, back: int) -> int:
        """The sum over buckets not older than ``back`` before the one of ``now_us``. Changes nothing."""
        oldest = now_us // self.width - back
        total = self.total
        if self.first >= oldest:
            return total
        for bucket, weight in self.buckets.items():
            if bucket >= oldest:
                break
            total -= weight
        return total

    def covers(self, at_us: int, now_us: int, back: int) -> bool:
        """Whether what happened at ``at_us`` counts in the sum at ``now_us``."""
        return at_us // self.width >= now_us // self.width - back

    def expire(self, oldest: int) -> None:
        """Forget the buckets before ``oldest``."""
        buckets = self.buckets
        while buckets and self.first < oldest:
            self.total -= buckets.pop(self.first)
            self.first = next(iter(buckets), 0)

    def dump(self) -> list[list[int]]:
        """``[[bucket, weight], ...]`` in order of time."""
        return [[bucket, weight] for bucket, weight in self.buckets.items()]

    @classmethod
    def load(cls, width: int, pairs: list[list[int]]) -> Window:
        """Inverse of ``dump``."""
        window = cls(width)
        window.buckets = {bucket: weight for bucket, weight in pairs}  # noqa: C416  (mypy cannot type dict(list of lists))
        window.total = sum(window.buckets.values())
        window.first = next(iter(window.buckets), 0)
        return window
