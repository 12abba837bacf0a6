"""Two real OS users: numbers that nobody has, and a Python that somebody else can run the checkout with."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
UIDS = range(61_000, 61_500)


def unused_uids() -> tuple[int, int]:
    """Two numbers that no user of this machine has."""

    def free(uid: int) -> bool:
        with suppress(KeyError):
            pwd.getpwuid(uid)
            return False
        return True

    first, second, *_ = filter(free, UIDS)
    return first, second


def environment(path: str, **more: str) -> dict[str, str]:
    """What the gate's user runs the checkout with. ``path`` is where checkout and packages are."""
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", **more}


def as_user(uid: int) -> dict[str, Any]:
    """Arguments of ``subprocess`` that make a child another user's, with no group of ours."""
    return {"user": uid, "group": uid, "extra_groups": [], "umask": 0o077}


def python_for(uid: int, spare: Path) -> tuple[str, str]:
    """A Python that another user can run, and the path on which it finds checkout and packages.

    Where those lie in a folder that is closed to other users, copies in ``spare`` serve.
    """
    places = [ROOT / "src", Path(sysconfig.get_paths()["platlib"])]
    for copied in (False, True):
        if copied:
            places = [shutil.copytree(place, spare / place.name, symlinks=True) for place in places]
        path = os.pathsep.join(map(str, places))
        for python in (sys.executable, "/usr/bin/python3"):
            with suppress(OSError):
                done = subprocess.run(
                    [python, "-c", "import countermark.cli, countermark.server, cedarpy, uvicorn"], cwd="/",
                    capture_output=True, env=environment(path), timeout=60, check=False, **as_user(uid),
                )  # fmt: skip
                if done.returncode == 0:
                    return python, path
    pytest.skip("needs debian: python3, of the environment's version, which other users can run")
