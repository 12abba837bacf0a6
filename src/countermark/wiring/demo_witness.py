"""The witness of the demo: another process, in a directory of its own, as another OS user where that can be."""

from __future__ import annotations

import json
import os
import pwd
import select
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from countermark.journal import LogView, SqliteStore
from countermark.log import Cosignature, Frontier, LogSigner, consistency_proof, leaf_hash, parse_cosigner
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError
from countermark.publish import Submission, Witness, WitnessClient, WitnessError, make_witness

START_S_MAX = 60
PROBE_S_MAX = 30
NAME = "witness.example/demo"
OTHER_UIDS = range(61_500, 62_000)


class DemoWitness:
    """Starts at once; ``begin`` waits until it answers. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()  # the process has another working directory
        self._child: subprocess.Popen[bytes] | None = None
        self._client: WitnessClient | None = None
        self.vkey = ""
        self.uid: int | None = None  # of the other user; None while it is ours
        self.cosigned: list[int] = []

    def __enter__(self) -> DemoWitness:
        if find_spec("uvicorn") is None or find_spec("jwt") is None:  # the extra [server] is not installed
            return self
        self.vkey = make_witness(self._folder, NAME)
        python, environment, self.uid = _another_user(self._folder)
        user: dict[str, Any] = {}
        if self.uid is not None:
            _give(self._folder, self.uid)
            user = {"user": self.uid, "group": self.uid, "extra_groups": [], "umask": 0o077}
        words = ["-m", "countermark.cli", "witness", "serve", str(self._folder), "--port", "0", "--json"]
        self._child = subprocess.Popen(
            [python, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=environment, **user
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()

    @property
    def there(self) -> bool:
        return self._child is not None

    def begin(self, log_vkey: str) -> None:
        """Have it cosign for this log. Raises ``ConfigError`` when it did not start."""
        if self._child is None or self._child.stdout is None:
            return
        Witness(self._folder, SystemClock()).add_log(log_vkey)
        if self.uid is not None:
            _give(self._folder, self.uid)
        ready, _, _ = select.select([self._child.stdout], [], [], START_S_MAX)
        line = self._child.stdout.readline() if ready else b""
        try:
            url = json.loads(line)["url"]
        except (ValueError, KeyError):
            raise ConfigError("the demo's witness did not start") from None
        self._client = WitnessClient(NAME, parse_cosigner(self.vkey), url)

    def show(self, store: SqliteStore, size: int, note: bytes) -> None:
        """Have the head of so many records cosigned. Raises ``WitnessError``."""
        if self._client is None:
            return
        view = LogView(store)
        view.grow()
        old = self.cosigned[-1] if self.cosigned else 0
        said = self._client.add(Submission(old, tuple(view.consistency(old, size)), note))
        if not isinstance(said, Cosignature):
            raise ConfigError("the demo's witness knows another log")
        self.cosigned.append(size)

    def meet(self, signer: LogSigner, raws: Sequence[bytes]) -> dict[str, Any]:
        """What it says to an insider, who has the log's key and shows it the same number of records, rewritten."""
        if self._client is None:
            return {"asked": False}
        leaves = [leaf_hash(raw) for raw in raws]
        frontier = Frontier()
        for leaf in leaves:
            frontier.append(leaf)
        note = signer.sign_checkpoint(len(raws), frontier.root())
        old = self.cosigned[-1]
        try:
            self._client.add(Submission(old, tuple(consistency_proof(leaves, old, len(leaves))), note))
            code = ""
        except WitnessError as error:
            code = error.code
        kept = Witness(self._folder, SystemClock()).kept(signer.name)
        return {
            "asked": True, "cosigned": self.cosigned, "refused": code, "kept": [str(path) for path in kept],
            "user": self.uid, "vkey": self.vkey,
        }  # fmt: skip


def _give(folder: Path, uid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


def _another_user(folder: Path) -> tuple[str, dict[str, str], int | None]:
    """A Python, its environment, and another user who can run it with this program and reach the folder.

    Only root can start a process as somebody else; where the program lies in a folder that is closed to others, it
    runs as we do.
    """
    environment = {name: value for name, value in os.environ.items() if name != "COUNTERMARK_CRASH"}
    if os.getuid() != 0:
        return sys.executable, environment, None
    source = Path(__file__).resolve().parents[2]
    path = os.pathsep.join((str(source), sysconfig.get_paths()["platlib"]))
    small = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    uid = next(one for one in OTHER_UIDS if not _taken(one))
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", f"import os, countermark.model.errors, cryptography; os.stat({str(folder.parent)!r})"],
                cwd="/", env=small, user=uid, group=uid, extra_groups=[], capture_output=True, timeout=PROBE_S_MAX,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python, small, uid
    return sys.executable, environment, None


def _taken(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
