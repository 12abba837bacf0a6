"""Named crash points. A test kills a real process at every one of them; in production they cost one dictionary look-up.

``COUNTERMARK_CRASH=NAME:N`` in the environment makes the process kill itself (SIGKILL: no clean-up, no flush) the
N-th time it passes the point NAME.
"""

from __future__ import annotations

import os
import signal


def _armed() -> dict[str, int]:
    name, _, count = os.environ.get("COUNTERMARK_CRASH", "").partition(":")
    return {name: int(count or "1")} if name else {}


_ARMED = _armed()


def crash_point(name: str) -> None:
    """Die here if the environment says so."""
    if name in _ARMED:
        _ARMED[name] -= 1
        if _ARMED[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
