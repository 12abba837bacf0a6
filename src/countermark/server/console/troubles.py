"""Warnings and errors of this process, the newest remembered for the page that shows its health."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from countermark.model.ports import Clock

REMEMBERED_MAX = 50
CHARS_MAX = 500
ROOT = "countermark"


class Troubles(logging.Handler):
    """Hears the program's own loggers. What they say holds names and codes, no arguments and no secrets."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._found: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_MAX)
        logging.getLogger(ROOT).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember one."""
        said = f"{record.name.removeprefix(ROOT + '.')}: {record.getMessage()}"[:CHARS_MAX]
        self._found.append({"at": self._clock.now_us(), "said": said})

    def listed(self) -> list[dict[str, Any]]:
        """``{"at": microseconds, "said"}``, the newest last."""
        return list(self._found)

    def close(self) -> None:
        """Hear no more."""
        logging.getLogger(ROOT).removeHandler(self)
        super().close()
