"""What a wait step waits for (docs/spec/workflow.md, rule 5)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from countermark_verify.canon import INTEGER_MAX
from countermark_verify.evaluate import Failed, fill
from countermark_verify.flow import SECOND

SECONDS_MAX = 366 * 86_400
KEY_CHARS_MAX = 500
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


def target_of(spec: Mapping[str, Any], scope: Mapping[str, Any], turn: int) -> dict[str, Any]:
    """The member `for` of its `step.waiting`; `turn` is when the step's turn came. Raises `Failed`."""
    if spec["kind"] == "event":
        key = fill(spec["key"], scope)
        if type(key) is not str or not 1 <= len(key) <= KEY_CHARS_MAX:
            raise Failed("is no key of an event")
        return {"kind": "event", "source": spec["source"], "key": key}
    if spec["kind"] == "time":
        seconds = fill(spec["seconds"], scope)
        if type(seconds) is not int or not 0 <= seconds <= SECONDS_MAX:
            raise Failed("is no number of seconds")
        return {"kind": "time", "at": turn + seconds * SECOND}
    return {"kind": "time", "at": _moment(fill(spec["at"], scope))}


def _moment(value: Any) -> int:
    """Microseconds since 1970."""
    if type(value) is int and 0 <= value <= INTEGER_MAX:
        return value
    if type(value) is not str or not _MOMENT.fullmatch(value):
        raise Failed("is no time")
    try:
        read = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise Failed("is no time") from error
    at = round(read.timestamp()) * SECOND
    if not 0 <= at <= INTEGER_MAX:
        raise Failed("is no time")
    return at
