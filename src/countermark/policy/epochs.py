"""Closed epochs as the lane's state knows them: where the next one begins."""

from __future__ import annotations

from typing import Any, NamedTuple


class Closed(NamedTuple):
    """How far the log is covered: ``number`` epochs are closed, together over the first ``size`` records, whose times
    are all before ``until``.
    """

    number: int = 0
    size: int = 0
    until: int = 0


def closed_by(body: Any) -> Closed:
    """What an ``epoch.closed`` record leaves."""
    return Closed(body["epoch"] + 1, body["size"], body["until"])
