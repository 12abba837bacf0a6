"""What re-executes pure steps: a program of its own that gives up every right before it reads the first of them.

Started as `python -I -S recompute_worker.py INTERPRETER PARENT` with no environment; descriptor 0 is a socket, 2 takes
last words. It reads batches, each a length (4 bytes) and JSON `[[code...], [[code's number, inputs as JSON, ticks,
milliseconds, MiB]...]]`, whole before it runs the first, and answers each call at once: a length and JSON
`[status, text, ticks, microseconds of processor time]`. Of a call without inputs the code is only parsed. Its first
answer says whether it is confined.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEPT_MAX = 128
OUTPUT_BYTES_MAX = 16_000
STACK_BYTES = 64 << 20

# docs/spec/workflow.md, "Running code": word for word, since its own loops are ticks too.
DRIVER = """\
load("code", "main")

def check(value, depth):
    kind = type(value)
    if kind == "dict":
        if depth > 8:
            fail("nested deeper than 8")
        for key, item in value.items():
            if type(key) != "string":
                fail("a key of type " + type(key))
            check(item, depth + 1)
    elif kind == "list" or kind == "tuple":
        if depth > 8:
            fail("nested deeper than 8")
        for item in value:
            check(item, depth + 1)
    elif kind != "string" and kind != "int" and kind != "bool" and kind != "NoneType":
        fail("a value of type " + kind)

def run(text):
    output = main(**json.decode(text))
    if type(output) != "dict":
        fail("main returned a value of type " + type(output) + ", not a dict")
    check(output, 0)
    return json.encode(output)
"""

# System calls by number. Plain: read, write, close, munmap, brk, rt_sigprocmask, rt_sigreturn, sched_yield, mremap,
# madvise, setitimer, exit, gettimeofday, sigaltstack, futex, restart_syscall, clock_gettime, exit_group, getrandom.
# Then mmap and mprotect, unless they ask for memory to execute, and prlimit64 of the process itself.
MACHINES = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 11, 12, 14, 15, 24, 25, 28, 38, 60, 96, 131, 202, 219, 228, 231, 318),
        (9, 10), 302, 126,
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 215, 214, 135, 139, 124, 216, 233, 103, 93, 169, 132, 98, 128, 113, 94, 278),
        (222, 226), 261, 91,
    ),
}  # fmt: skip
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


def system_call_filter(machine: str) -> bytes:
    """The BPF program, as the kernel reads it."""
    arch, plain, memory, limits, _ = MACHINES[machine]
    load, equal, at_least, bits, ret = 0x20, 0x15, 0x35, 0x45, 0x06
    out = [(load, 0, 0, 4), (equal, 1, 0, arch), (ret, 0, 0, _KILL)]
    out += [(load, 0, 0, 0), (at_least, 0, 1, 1 << 30), (ret, 0, 0, _KILL)]
    for number in plain:
        out += [(equal, 0, 1, number), (ret, 0, 0, _ALLOW)]
    for number in memory:  # argument 2 has PROT_EXEC
        out += [(equal, 0, 4, number), (load, 0, 0, 32), (bits, 0, 1, 4), (ret, 0, 0, _EPERM), (ret, 0, 0, _ALLOW)]
    out += [(equal, 0, 3, limits), (load, 0, 0, 16), (equal, 0, 1, 0), (ret, 0, 0, _ALLOW), (ret, 0, 0, _EPERM)]
    return b"".join(struct.pack("<HBBI", *line) for line in out)


def give_up_everything(parent: int) -> str:
    """Confine this process; an empty text, or why that is not possible."""
    import ctypes

    machine = os.uname().machine
    if machine not in MACHINES or sys.byteorder != "little":
        return f"no system call filter for {machine}"
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.closerange(3, 65_536)
    os.close(1)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    for name, most in (("CORE", 0), ("FSIZE", 0), ("NPROC", 0), ("MEMLOCK", 0), ("MSGQUEUE", 0), ("NOFILE", 3)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    program = system_call_filter(machine)
    held = ctypes.create_string_buffer(program, len(program))
    seccomp = ctypes.c_char_p(struct.pack("@HP", len(program) // 8, ctypes.addressof(held)))
    none, head = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 2)(0x20080522, 0)
    for what, done in (
        ("PR_SET_PDEATHSIG", lambda: libc.prctl(1, signal.SIGKILL, 0, 0, 0)),
        ("the caller", lambda: 0 if os.getppid() == parent else 1),
        ("PR_SET_DUMPABLE", lambda: libc.prctl(4, 0, 0, 0, 0)),
        ("PR_SET_NO_NEW_PRIVS", lambda: libc.prctl(38, 1, 0, 0, 0)),
        ("capset", lambda: libc.syscall(MACHINES[machine][4], head, none)),
        ("PR_SET_SECCOMP", lambda: libc.prctl(22, 2, seccomp, 0, 0)),
    ):
        if done() != 0:
            return f"{what} failed with error {ctypes.get_errno()}"
    return ""


class Steps:
    """Runs code that was parsed once and is frozen since."""

    def __init__(self, starlark: Any) -> None:
        self._lark = starlark
        self._kept: dict[str, tuple[Any, int]] = {}
        self._options = starlark.EvalOptions(check_cancelled=self._thousand, max_callstack_size=100)
        self._driver = starlark.parse("driver", DRIVER, starlark.Dialect.standard())
        self._json = starlark.Globals.extended_by([starlark.LibraryExtension.Json])
        self._dialect = starlark.Dialect.standard()
        for name in ("load", "load_reexport", "f_strings", "top_level_stmt", "positional_only_arguments"):
            setattr(self._dialect, f"enable_{name}", False)
        for name in ("def", "lambda", "keyword_only_arguments"):
            setattr(self._dialect, f"enable_{name}", True)
        self._dialect.enable_types = starlark.DialectTypes.DISABLE
        self._ticks = self._most = 0

    def _thousand(self) -> bool:
        self._ticks += 1_000
        return self._ticks > self._most

    def _frozen(self, code: str) -> tuple[Any, int]:
        lark, module, around = self._lark, self._lark.Module(), self._lark.Module()
        lark.eval_with(self._options, module, lark.parse("code", code, self._dialect), lark.Globals.standard())
        frozen, used = module.freeze(), self._ticks
        lark.eval(around, self._driver, self._json, lark.FileLoader(lambda name: frozen))
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[code] = around.freeze(), used
        return self._kept[code]

    def run(self, code: str, inputs: str, most: int) -> tuple[str, str, int]:
        self._ticks, self._most = 0, most
        if not inputs:
            return self._parsed(code)
        try:
            if code in self._kept:
                step, self._ticks = self._kept[code]
            else:
                step, _ = self._frozen(code)
            if self._ticks > most:
                return "ticks", "", self._ticks
            output: str = step.call_with(self._options, "run", inputs).value
        except self._lark.StarlarkError as error:
            return "ticks" if self._ticks > most else "error", str(error)[:20_000], self._ticks
        return ("ok", output, self._ticks) if len(output.encode()) <= OUTPUT_BYTES_MAX else ("size", "", self._ticks)

    def _parsed(self, code: str) -> tuple[str, str, int]:
        try:
            self._lark.parse("code", code, self._dialect)
        except self._lark.StarlarkError as error:
            return "syntax", str(error)[:20_000], 0
        return "parsed", "", 0


def say(*answer: object) -> None:
    raw = json.dumps(answer).encode()
    raw = struct.pack("<I", len(raw)) + raw
    while raw:
        raw = raw[os.write(0, raw) :]


def listen(length: int) -> bytes:
    raw = bytearray()
    while len(raw) < length:
        more = os.read(0, min(length - len(raw), 1 << 20))
        if not more:
            os._exit(0)
        raw += more
    return bytes(raw)


def main() -> None:
    from importlib.machinery import ExtensionFileLoader, ModuleSpec
    from importlib.util import module_from_spec

    loader = ExtensionFileLoader("starlark", sys.argv[1])
    starlark = module_from_spec(ModuleSpec("starlark", loader, origin=sys.argv[1]))
    loader.exec_module(starlark)
    steps = Steps(starlark)
    why = give_up_everything(int(sys.argv[2]))
    say("unconfined" if why else "ready", why, 0, 0)
    if why:
        os._exit(1)
    memory = 0
    while True:
        codes, calls = json.loads(listen(struct.unpack("<I", listen(4))[0]))
        for number, inputs, ticks, milliseconds, memory_mb in calls:
            if memory_mb != memory:
                resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, resource.RLIM_INFINITY))
                memory = memory_mb
            signal.setitimer(signal.ITIMER_PROF, milliseconds / 1_000)
            answer = steps.run(codes[number], inputs, ticks)
            left = signal.setitimer(signal.ITIMER_PROF, 0)[0]
            say(*answer, milliseconds * 1_000 - round(left * 1_000_000))


if __name__ == "__main__":
    main()
