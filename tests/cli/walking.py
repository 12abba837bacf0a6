"""A page of the documentation as one script: its blocks of bash and Python, as somebody new types them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
BLOCK = re.compile(r"^```(bash|python)( [a-z]+)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def script(page: str, ports: Collection[str], extras: Collection[str] = ()) -> str:
    """The page's blocks, with free ports in place of ``ports``. One marked ``python NAME`` needs that extra."""
    parts = ["set -eu"]
    for kind, needs, text in BLOCK.findall((DOCS / page).read_text("utf-8")):
        if needs and needs.strip() not in extras:
            continue
        parts.append(text if kind == "bash" else f"python - <<'PROGRAM'\n{text}PROGRAM")
    whole = "\n".join(parts)
    for port in ports:
        whole = whole.replace(port, free_port())
    return whole


def walk(commands: str, folder: Path, limit_s: float) -> str:
    """Run a page's commands in ``folder``. Returns what they said; every one of them ended well."""
    program = folder / "bin" / "countermark"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m countermark.cli "$@"\n', "utf-8")
    program.chmod(0o755)
    tools = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {name: value for name, value in os.environ.items() if name not in ("COUNTERMARK_DIR", "STRIPE_API_KEY")}
    with (folder / "told.txt").open("wb") as file:
        done = subprocess.Popen(
            ["bash", "-c", commands], cwd=folder, env={**env, "PATH": tools}, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        try:
            done.wait(limit_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGTERM)  # what runs in the background of the script, if anything
            done.wait(limit_s)
    told = (folder / "told.txt").read_text("utf-8")
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}: {told}")
    return told
