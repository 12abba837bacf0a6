"""Code that the tests of pure steps share, and a worker that runs Python where the interpreter would stand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from countermark.compute import Pool, process, worker

ADD = "def main(a, b):\n    return {'sum': a + b}\n"
FOREVER = "def main():\n    for _ in range(2000000000):\n        pass\n    return {}\n"

# Everything is the real program, started by the real pool; only what a call does is replaced: it runs the Python text
# of its input `probe` inside the confined process and returns what that leaves in `out`.
_PROBE = """
import sys, json, os, ctypes, mmap, socket, resource, signal, subprocess, threading, errno
from importlib.machinery import SourceFileLoader
worker = SourceFileLoader("worker", {path!r}).load_module()

def attempt(what, *args):
    try:
        return repr(what(*args))
    except BaseException as error:
        return type(error).__name__

def run(self, slot, ticks, memory_mb, text):
    scope = dict(globals())
    exec(json.loads(text)["probe"], scope)
    return b"k", 0, json.dumps({{"out": scope["out"]}}, separators=(",", ":")).encode()

worker.Interpreter.run = run
{more}
worker.main()
"""
ANY = "def main(probe):\n    return {}\n"


def probing(folder: Path, monkeypatch: Any, more: str = "") -> Pool:
    """A pool whose workers run Python; ``more`` is done to the worker's module before it begins."""
    program = folder / "probe.py"
    program.write_text(_PROBE.format(path=worker.__file__, more=more))
    monkeypatch.setattr(process, "PROGRAM", str(program))
    return Pool(1)


def until(condition: Any) -> None:
    """Give the processor away until something in another process or thread is so."""
    while not condition():
        os.sched_yield()


def only_worker(pool: Pool) -> process.Worker:
    return pool._workers[0]
