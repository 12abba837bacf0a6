"""The worker: a program of its own that confines itself, then runs pure steps until its caller hangs up.

It is started as ``python -I -S worker.py INTERPRETER PARENT`` with an empty environment, descriptor 0 being a socket to
the caller and 2 a pipe for last words, and imports nothing of this package: what is not in its memory cannot leak.

Descriptor 1 is a page shared with the caller, which begins with the number of calls begun: by that and by the answers
the caller knows which call this process died of, so that answers may be sent several at once.

Frames from the caller are a head (kind, slot, ticks, milliseconds of processor time, MiB, length) and a body: ``C``
puts code into a slot, ``R`` runs a slot's code on a JSON object. Frames to the caller are a head (kind, ticks, length)
and a body: ``r`` ready, ``x`` no confinement (why), ``k`` the output as JSON, ``e`` error, ``l`` limit.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec

TYPE_CHECKING = False  # typing itself is not loaded
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

ASK = struct.Struct("<cHQIII")
ANSWER = struct.Struct("<cQI")
SLOTS = 256
TICKS_AT_ONCE = 1_000  # the interpreter asks whether to go on after so many
CALLS_DEEP_MAX = 100
OUTPUT_BYTES_MAX = 16_000
MESSAGE_CHARS_MAX = 500
PLACE_CHARS = 40
PLACE = re.compile(r"\n *--> (code|driver):([0-9]{1,9}):([0-9]{1,9})(?=\n|$)")
OUT_OF_MEMORY = 77  # exit status: what runs out of memory cannot be trusted to send a frame
STACK_BYTES = 64 << 20
READ_BYTES = 1 << 18
SEND_BYTES = 1 << 14
PAGE_BYTES = 4_096

# Every call goes through this, so that what a value is, is asked of the interpreter itself: its JSON would show a key
# that is an integer as a string, and an infinite number as null. Its loops count as ticks: it stands in the spec.
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

# What the interpreter needs once everything is open: x86_64, aarch64. Whatever is not named here fails with EPERM.
CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "setitimer": (38, 103),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
}
MMAP, MPROTECT, PRLIMIT = (9, 222), (10, 226), (302, 261)
CAPSET = (126, 91)
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
KILL, REFUSE, ALLOW = 0x80000000, 0x00050001, 0x7FFF0000
PROT_EXEC = 4
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF, with constants
NUMBER, ARCH, ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; an argument's lower half comes first


class Unconfined(Exception):
    """The confinement is not there; nothing may be run."""


def program(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter as a list of (code, jump if true, jump if false, constant)."""
    if machine not in ARCHES or sys.byteorder != "little":
        raise Unconfined(f"no system call filter is written for {machine}")
    column, arch = ARCHES[machine]
    lines = [
        (LOAD, 0, 0, ARCH),
        (EQUAL, 1, 0, arch),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, 0x40000000),  # x32: the same calls under other numbers
        (RETURN, 0, 0, KILL),
    ]
    for numbers in CALLS.values():
        lines += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ALLOW)]
    for numbers in (MMAP, MPROTECT):  # memory, but none that can be executed
        lines += [
            (EQUAL, 0, 4, numbers[column]),
            (LOAD, 0, 0, ARGUMENT + 2 * 8),
            (ANY_BIT, 0, 1, PROT_EXEC),
            (RETURN, 0, 0, REFUSE),
            (RETURN, 0, 0, ALLOW),
        ]
    lines += [  # its own limits, which it can only lower
        (EQUAL, 0, 3, PRLIMIT[column]),
        (LOAD, 0, 0, ARGUMENT),
        (EQUAL, 0, 1, 0),
        (RETURN, 0, 0, ALLOW),
    ]
    return [*lines, (RETURN, 0, 0, REFUSE)]


def confine(parent: int) -> None:
    """Give up everything that is not needed to compute. Raises ``Unconfined``."""
    import ctypes  # late, since the caller imports this module for its constants

    libc = ctypes.CDLL(None, use_errno=True)
    machine = os.uname().machine

    def must(done: int, what: str) -> None:
        if done != 0:
            raise Unconfined(f"{what}: {os.strerror(ctypes.get_errno())}")

    lines = program(machine)
    must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # what a caller ignores or blocks, its children inherit
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if os.getppid() != parent:
        raise Unconfined("the caller is gone")
    must(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    os.closerange(3, 65_536)
    os.close(1)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    for limit in ("CORE", "FSIZE", "NPROC", "MEMLOCK", "MSGQUEUE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    libc.prctl(PR_CAPBSET_DROP, 24, 0, 0, 0)  # refused to whoever has nothing to drop
    none = (ctypes.c_uint32 * 6)()
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    must(libc.syscall(CAPSET[ARCHES[machine][0]], head, none), "capset")
    code = b"".join(struct.pack("<HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    wanted = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
    must(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(wanted), 0, 0), "PR_SET_SECCOMP")


def load_interpreter(path: str) -> Any:
    """The extension module alone: nothing else of what is installed beside it can be imported."""
    loader = ExtensionFileLoader("starlark", path)
    module = module_from_spec(ModuleSpec("starlark", loader, origin=path))
    loader.exec_module(module)
    return module


class Line:
    """The caller's end of the socket, and the page shared with it."""

    def __init__(self) -> None:
        self._begun = memoryview(mmap.mmap(1, PAGE_BYTES)).cast("Q")
        self._out = bytearray()

    def begin(self) -> None:
        self._begun[0] += 1

    def answer(self, kind: bytes, ticks: int, body: bytes) -> None:
        self._out += ANSWER.pack(kind, ticks, len(body)) + body
        if len(self._out) >= SEND_BYTES:
            self.flush()

    def flush(self) -> None:
        while self._out:
            del self._out[: os.write(0, self._out)]

    def frames(self) -> Iterator[tuple[Any, ...]]:
        """What the caller asks for, until it hangs up: (kind, slot, ticks, milliseconds, MiB, body)."""
        waiting = b""
        while True:
            self.flush()  # before waiting
            more = os.read(0, READ_BYTES)
            if not more:
                return
            waiting += more
            at = 0
            while len(waiting) - at >= ASK.size:
                *head, length = ASK.unpack_from(waiting, at)
                start = at + ASK.size
                if len(waiting) - start < length:
                    break
                at = start + length
                yield (*head, waiting[start:at])
            waiting = waiting[at:]


class Interpreter:
    """Runs code in slots. What was loaded is kept frozen, so that no call can leave anything to the next."""

    def __init__(self, starlark: Any, flush: Callable[[], None]) -> None:
        self._lark, self._flush = starlark, flush
        self._code = [b""] * SLOTS
        self._loaded: list[tuple[Any, int] | None] = [None] * SLOTS
        self._plain = starlark.Globals.standard()
        self._with_json = starlark.Globals.extended_by([starlark.LibraryExtension.Json])
        self._dialect = dialect(starlark)
        self._options = starlark.EvalOptions(check_cancelled=self._tick, max_callstack_size=CALLS_DEEP_MAX)
        self._driver = starlark.parse("driver", DRIVER, starlark.Dialect.standard())
        self._ticks = self._ticks_max = 0
        self._memory_mb = 0

    def _tick(self) -> bool:
        self._flush()  # this call is not a short one: others' answers need not wait for it
        self._ticks += TICKS_AT_ONCE
        return self._ticks > self._ticks_max

    def put(self, slot: int, code: bytes) -> None:
        self._code[slot], self._loaded[slot] = code, None

    def _load(self, slot: int) -> tuple[Any, int]:
        """The frozen driver around a slot's code, and the ticks of the code's own top level."""
        self._flush()
        lark = self._lark
        module = lark.Module()
        lark.eval_with(self._options, module, lark.parse("code", self._code[slot].decode(), self._dialect), self._plain)
        code = module.freeze()
        used, around = self._ticks, lark.Module()
        lark.eval(around, self._driver, self._with_json, lark.FileLoader(lambda name: code))
        return around.freeze(), used

    def run(self, slot: int, ticks_max: int, memory_mb: int, text: bytes) -> tuple[bytes, int, bytes]:
        """One call: (kind, ticks, body)."""
        if memory_mb != self._memory_mb:
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, hard))
            self._memory_mb = memory_mb
        self._ticks, self._ticks_max = 0, ticks_max
        try:
            loaded = self._loaded[slot]
            if loaded is None:
                loaded = self._loaded[slot] = self._load(slot)
            else:
                self._ticks = loaded[1]
            if self._ticks > ticks_max:
                return self._out_of_ticks()
            output = loaded[0].call_with(self._options, "run", text.decode()).value.encode()
        except self._lark.StarlarkError as error:
            if self._ticks > ticks_max:
                return self._out_of_ticks()
            return b"e", self._ticks, plain(str(error)).encode()
        if len(output) > OUTPUT_BYTES_MAX:
            return b"l", self._ticks, b"size: the output has more than %d bytes" % OUTPUT_BYTES_MAX
        return b"k", self._ticks, output

    def _out_of_ticks(self) -> tuple[bytes, int, bytes]:
        return b"l", self._ticks, b"ticks: more than %d" % self._ticks_max


def dialect(starlark: Any) -> Any:
    """Functions, lambdas and keyword arguments; no load, no types, no `if` or `for` outside of functions.

    Positional-only parameters are off too: their mark would be the one `/` that does not divide.
    """
    made = starlark.Dialect.standard()
    for feature in ("load", "load_reexport", "f_strings", "top_level_stmt", "positional_only_arguments"):
        setattr(made, f"enable_{feature}", False)
    for feature in ("def", "lambda", "keyword_only_arguments"):
        setattr(made, f"enable_{feature}", True)
    made.enable_types = starlark.DialectTypes.DISABLE
    return made


def plain(text: str) -> str:
    """What happened and on which line, without the interpreter's drawing of the place and of the calls above it."""
    at = 0 if text.startswith("error: ") else text.find("\nerror: ") + 1
    found = PLACE.search(text, at)
    what = text[at : found.start() if found else len(text)].removeprefix("error: ").removeprefix("fail: ")
    what = what[: MESSAGE_CHARS_MAX - PLACE_CHARS]
    return f"{what} (line {found[2]}, column {found[3]})" if found and found[1] == "code" else what


def main() -> None:
    path, parent = sys.argv[1:]
    line = Line()
    try:
        interpreter = Interpreter(load_interpreter(path), line.flush)
        json.loads(json.dumps(""))  # the interpreter converts through it
        confine(int(parent))
    except (Unconfined, ImportError, OSError, ValueError) as error:
        line.answer(b"x", 0, f"{type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX].encode())
        line.flush()
        os._exit(1)
    line.answer(b"r", 0, b"")
    try:
        for kind, slot, ticks, milliseconds, memory_mb, body in line.frames():
            if kind == b"C":
                interpreter.put(slot, body)
                continue
            line.begin()
            signal.setitimer(signal.ITIMER_PROF, milliseconds / 1_000)  # SIGPROF then ends this process
            line.answer(*interpreter.run(slot, ticks, memory_mb, body))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    os._exit(0)


if __name__ == "__main__":
    main()
