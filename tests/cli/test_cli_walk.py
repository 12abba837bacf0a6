"""The walk of docs/operating.md, command by command, as somebody new types it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "operating.md"


def script() -> str:
    """The page's blocks of bash and Python, in their order, as one script; the simulator's port is a free one."""
    parts = ["set -eu", f'countermark() {{ {sys.executable} -m countermark.cli "$@"; }}']
    for kind, text in re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        parts.append(text if kind == "bash" else f"python - <<'PROGRAM'\n{text}PROGRAM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return "\n".join(parts).replace("4242", port)


@pytest.mark.slow
def test_the_walk_of_the_operating_page_works_as_typed(tmp_path: Path) -> None:
    """Simulator, payment, approval, a program, trust file, pack: each command ends well, and the pack is verified."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": tools}
    with (tmp_path / "told.txt").open("wb") as file:
        done = subprocess.Popen(
            ["bash", "-c", script()], cwd=tmp_path, env=env, stdout=file, stderr=file, start_new_session=True
        )
        try:
            done.wait(120)
        finally:
            os.killpg(done.pid, signal.SIGTERM)  # the simulator runs in the background of the script
    told = (tmp_path / "told.txt").read_text("utf-8")
    assert done.returncode == 0, told
    assert "VERIFIED" in told.upper()
    for part in ("3 tools can be sent", "480.00 EUR", "6,000.00 EUR", "confirmed"):
        assert part in told, f"{part} in {told}"
    trust = json.loads((tmp_path / "trust.json").read_text("utf-8"))
    assert set(trust["people"]) == {"treasurer", "controller"}
