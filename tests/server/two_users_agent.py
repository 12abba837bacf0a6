"""What a hijacked agent tries under its own OS user. Prints one JSON object: attempt -> what came of it.

Standard library only: it runs as another user, who sees nothing of the project.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PTRACE_ATTACH = 16


def attempt(work: Callable[[], Any]) -> str:
    """``done`` with what was got, or the name of what stood in the way."""
    try:
        return f"done: {work()!r}"[:200]
    except OSError as error:
        return type(error).__name__


def ask(url: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if raw else None
    finally:
        connection.close()


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)


def attach(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def main() -> None:
    given = json.loads(sys.stdin.read())
    pid, url, token = given["pid"], given["url"], {"Authorization": f"Bearer {given['token']}"}
    found: dict[str, Any] = {"uid": os.getuid()}
    for path in given["files"]:
        found[f"read {path}"] = attempt(lambda path=path: Path(path).read_bytes()[:20])
        found[f"write {path}"] = attempt(lambda path=path: os.open(path, os.O_WRONLY))
    found["list"] = attempt(lambda: os.listdir(given["root"]))
    found["plant"] = attempt(lambda: Path(given["root"], "policy", "limits.toml").write_text("max = 1"))
    found["socket"] = attempt(lambda: connect(given["socket"]))
    for name in ("environ", "mem", "maps"):
        found[f"proc {name}"] = attempt(lambda name=name: Path(f"/proc/{pid}/{name}").read_bytes()[:20])
    found["proc fd"] = attempt(lambda: os.listdir(f"/proc/{pid}/fd"))
    found["ptrace"] = attempt(lambda: attach(pid))
    found["kill"] = attempt(lambda: os.kill(pid, 9))
    action = {"call_id": "one", "tool": given["tool"], "args": given["args"]}
    status, run = ask(url, "/v1/runs", {"purpose": "pay"}, token)
    found["run"] = status
    found["paid"] = ask(url, "/v1/actions", {**action, "run": run["run"]}, token) if status < 300 else run
    found["stranger"] = ask(url, "/v1/actions", action, {"Authorization": "Bearer cmt_" + "A" * 43})[0]
    found["people"] = ask(url, "/v1/escalations/esc_" + "0" * 32 + "/answers", {}, token)[0]
    found["provider"] = ask(given["provider"], "/v1/transfers", {}, {"Authorization": "Bearer sk_test_guessed"})[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
