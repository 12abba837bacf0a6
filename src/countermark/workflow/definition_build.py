"""Parts of a canonical document, for those who make one: what was not said has its default, lists are sorted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from countermark.model.canon import canon
from countermark.model.errors import EncodingError

VERSION = 1
PARALLEL_DEFAULT = 16
RETRY_DELAY_S, RETRY_FACTOR = 10, 2
MANUAL: Mapping[str, Any] = {"kind": "manual"}
MISSED_DEFAULT = "skip"
ZONE_DEFAULT = "UTC"

_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


def slug(text: str, chars_max: int) -> str:
    """A name made of a title: ``Create a test customer`` becomes ``create-a-test-customer``."""
    return _NOT_PLAIN.sub("-", text.lower()).strip("-")[:chars_max].strip("-")


def pairs(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[list[Any]]:
    """``[[NAME, VALUE]...]``, sorted by name."""
    return [[name, value] for name, value in sorted(dict(values).items())]


def retry(attempts: int, delay_s: int = RETRY_DELAY_S, factor: int = RETRY_FACTOR) -> dict[str, int]:
    """How often, and how long after a failure, a step is tried again."""
    return {"attempts": attempts, "delay_s": delay_s, "factor": factor}


def step(
    id_: str, kind: str, members: Mapping[str, Any], *, name: str = "", if_: str | None = None,
    continue_on_error: bool = False, timeout_s: int | None = None, retry: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A step of a kind with that kind's ``members``."""
    return {
        "id": id_, "kind": kind, "name": name, "if": if_, "continue_on_error": continue_on_error,
        "timeout_s": timeout_s, "retry": retry, **members,
    }  # fmt: skip


def job(
    id_: str, steps: list[dict[str, Any]], *, needs: Iterable[str] = (), if_: str | None = None,
    matrix: Mapping[str, list[Any]] | None = None, fail_fast: bool = True, parallel: int | None = None,
    continue_on_error: bool = False, timeout_s: int | None = None, outputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A job. Without a matrix there is one combination, so nothing to run side by side."""
    return {
        "id": id_, "needs": sorted(needs), "if": if_, "matrix": None if matrix is None else pairs(matrix),
        "fail_fast": fail_fast, "parallel": parallel or (1 if matrix is None else PARALLEL_DEFAULT),
        "continue_on_error": continue_on_error, "timeout_s": timeout_s, "outputs": pairs(outputs or {}), "steps": steps,
    }  # fmt: skip


def definition(
    name: str, jobs: list[dict[str, Any]], *, triggers: Iterable[Mapping[str, Any]] = (MANUAL,),
    inputs: Mapping[str, Mapping[str, Any]] | None = None, outputs: Mapping[str, Any] | None = None,
    concurrency: Mapping[str, Any] | None = None, timeout_s: int | None = None, sensitive: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """The document. ``sensitive`` stands in it only when it is said."""
    return {
        "v": VERSION, "name": name, "triggers": in_order(triggers), "inputs": dict(inputs or {}),
        "outputs": pairs(outputs or {}), "concurrency": concurrency, "timeout_s": timeout_s,
        "jobs": _after_needs(jobs), **({} if sensitive is None else {"sensitive": sensitive}),
    }  # fmt: skip


def _after_needs(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each job after those it needs, and by id where that leaves a choice: the order of keys in YAML means nothing.

    Jobs that never come to be ready (a circle, an unknown need) stay at the end, to be refused.
    """
    left = sorted(jobs, key=lambda one: str(one["id"]))
    found: list[dict[str, Any]] = []
    while True:
        done = {one["id"] for one in found}
        ready = [one for one in left if done.issuperset(one["needs"])]
        if not ready:
            return found + left
        found += ready
        left = [one for one in left if one not in ready]


def in_order(triggers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Triggers as a document has them; what is no JSON stays where it is, to be refused when the document is read."""
    found = list(triggers)
    try:
        return sorted(found, key=canon)
    except EncodingError:
        return found
