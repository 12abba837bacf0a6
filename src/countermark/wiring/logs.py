"""Structured logs: with ``COUNTERMARK_LOG=json`` one JSON object a line on standard error.

Our own messages hold ids, names and codes. What others log may hold what a client sent, so of theirs only the template
stands here, without its arguments; and of an exception its type and places, without its message.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from pathlib import Path

from countermark.model.clock import iso
from countermark.model.errors import ConfigError

SWITCH = "COUNTERMARK_LOG"
FORMS = ("", "text", "json")
MESSAGE_CHARS_MAX = 2_000
FRAMES_MAX = 20
_OURS = "countermark"


class JsonLines(logging.Formatter):
    """``{"at", "level", "logger", "message"}``, with ``"error": {"type", "frames"}`` where there was an exception."""

    def format(self, record: logging.LogRecord) -> str:
        ours = record.name.partition(".")[0] == _OURS
        line: dict[str, object] = {
            "at": iso(round(record.created * 1_000_000)), "level": record.levelname.lower(), "logger": record.name,
            "message": (record.getMessage() if ours else str(record.msg))[:MESSAGE_CHARS_MAX],
        }  # fmt: skip
        if record.exc_info is not None and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])[-FRAMES_MAX:]
            line["error"] = {
                "type": record.exc_info[0].__name__,
                "frames": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
            }
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


def configure_logs() -> None:
    """Set the process's logging up as the environment asks. Raises ``ConfigError`` for a form that is not known."""
    form = os.environ.get(SWITCH, "")
    if form not in FORMS:
        raise ConfigError(f"{SWITCH} is json, text or unset", hint=f"Not {form[:40]!r}.")
    if form != "json":
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
