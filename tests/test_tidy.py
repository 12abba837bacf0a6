"""The house rules, kept by a test. Every rule takes source text, so that each is also seen to fail on a bad sample."""

from __future__ import annotations

import ast
import fnmatch
import gc
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500

# Modules that nobody imports because somebody outside starts them: console scripts, ``python -m``, the packages' faces.
# Adapters and hosts are for programs that users write: they import each module, under the name of its framework.
ENTRY_POINTS = re.compile(
    r"(countermark|countermark_verify)(\.cli)?|.*\.__main__"
    r"|countermark\.adapters(\.(claude_agent|crewai|fastmcp|google_adk|langchain|openai_agents|pydantic_ai))?"
    r"|countermark\.hosts(\.(dbos|temporal))?"
)
# "path:function" of a handler that may catch everything without raising -> why.
MAY_CATCH_ALL = {
    "countermark/gate/publishing.py:_turn": "a destination that breaks its contract must not end its thread",
    "countermark/gate/executor.py:_call": "a connector that breaks its contract sent nobody knows what: that is an"
    " unknown outcome, to be recorded like any other",
    "countermark/gate/executor.py:resolve": "a connector that breaks its contract read nothing: what was not read"
    " denies",
    "countermark/gate/lane.py:_cycle": "whatever went wrong, memory may be ahead of the disk: the lane halts, fails"
    " every caller and reads the journal again",
    "countermark/gate/lane.py:_cache": "a snapshot is a cache, written after the answers: nothing depends on it, and"
    " nothing may stop for it",
    **{
        f"countermark/workflow/{place}": "a fault must not leave a run that nobody goes on with,"
        " nor end the turns of all others: it is logged whole and tried again"
        for place in (
            "engine.py:_tick",
            "driving.py:_turn",
            "driving.py:_perform",
            "driving.py:then",
            "roster.py:_one",
            "roster.py:pump",
            "scheduler.py:run",
        )
    },
}
# "path:function" that may hold a float in a room that handles money -> why.
MAY_HOLD_FLOAT = {
    "countermark/connectors/mcp/definition.py:_finite": "a number in another server's description of its tools, such as"
    " a schema's `multipleOf`: it is digested and passed on as it came, and never becomes an amount",
}
MAY_PRINT = ("countermark/cli/", "countermark/twins/", "countermark_verify/cli.py", "countermark_verify/report.py")
MONEY_ROOMS = tuple(
    f"countermark/{room}/"
    for room in ("facts", "policy", "authority", "gate", "journal", "connectors", "net", "notify")
)
# A float is seconds of waiting in names like these, and nothing else.
WAITING = re.compile(r"timeout|wait|poll|interval|backoff|sleep|_s$")

Rule = Callable[[ast.Module, str], Iterator[str]]


def _at(node: ast.AST, what: str) -> str:
    return f"line {getattr(node, 'lineno', 0)}: {what}"


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` of a dotted expression, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


@lru_cache(maxsize=1024)
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Everything in a tree, in the order of ``ast.walk``: a dozen rules ask for it."""
    return tuple(ast.walk(tree))


def imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every dotted name that an import statement brings in, wherever it stands."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                yield node, item.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node, node.module
            for item in node.names:
                yield node, f"{node.module}.{item.name}"


def short_functions(tree: ast.Module, path: str) -> Iterator[str]:
    """A function fits a screen."""
    for node in nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield _at(node, f"{node.name} has {lines} lines")


def no_assert(tree: ast.Module, path: str) -> Iterator[str]:
    """``python -O`` removes assertions, so no promise may rest on one."""
    for node in nodes(tree):
        if isinstance(node, ast.Assert):
            yield _at(node, "assert")


def no_pickle(tree: ast.Module, path: str) -> Iterator[str]:
    """Formats that run code when they are read are never read."""
    bad = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for node, name in imports(tree):
        if name.split(".")[0] in bad:
            yield _at(node, f"imports {name}")


def _functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the function it stands in."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else inside
        yield name, node
        yield from _functions(node, name)


def _raises(body: list[ast.stmt]) -> bool:
    """Whether a raise stands in these statements themselves, not in a function that they define."""
    for node in body:
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if any(_raises([child]) for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)):
            return True
    return False


def no_swallowed_exception(tree: ast.Module, path: str) -> Iterator[str]:
    """A handler of everything raises again, or stands in ``MAY_CATCH_ALL`` with its reason."""
    everything = {"Exception", "BaseException"}
    for function, node in _functions(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = any(kind is None or dotted(kind) in everything for kind in kinds)
            if wide and not _raises(node.body) and f"{path}:{function}" not in MAY_CATCH_ALL:
                yield _at(node, f"{function or 'module'} swallows every exception")
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func).split(".")[-1] == "suppress"
            and any(dotted(arg) in everything for arg in node.args)
        ):
            yield _at(node, "suppress(Exception)")


def no_clock(tree: ast.Module, path: str) -> Iterator[str]:
    """Only model/clock.py reads a clock; everybody else is handed one."""
    if path == "countermark/model/clock.py":
        return
    names = {"time"} | {
        item.asname or item.name
        for node in nodes(tree)
        if isinstance(node, ast.Import)
        for item in node.names
        if item.name == "time"
    }
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            for item in node.names:
                if item.name != "sleep":
                    yield _at(node, f"from time import {item.name}")
        elif isinstance(node, ast.Attribute):
            head, _, last = dotted(node).rpartition(".")
            owner = head.split(".")[-1]
            if (
                (head in names and last != "sleep")
                or (head == "os" and last == "times")
                or (owner in {"datetime", "date", "dt"} and last in {"now", "utcnow", "today"})
                or (owner in {"loop", "_loop"} and last == "time")
            ):
                yield _at(node, f"{head}.{last}")


def _waits(tree: ast.Module) -> set[int]:
    """ids of the nodes whose value is assigned or passed to a name that is plainly a waiting time."""
    found: set[int] = set()

    def mark(name: str, value: ast.AST | None) -> None:
        if value is not None and WAITING.search(name.lower()):
            found.update(id(node) for node in ast.walk(value))

    for node in nodes(tree):
        if isinstance(node, ast.keyword):
            mark(node.arg or "", node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                mark(dotted(target), node.value)
        elif isinstance(node, ast.AnnAssign):
            mark(dotted(node.target), node.value)
        elif isinstance(node, ast.arguments):
            positional = node.posonlyargs + node.args
            for arg, value in zip(reversed(positional), reversed(node.defaults), strict=False):
                mark(arg.arg, value)
            for arg, default in zip(node.kwonlyargs, node.kw_defaults, strict=True):
                mark(arg.arg, default)
        elif isinstance(node, ast.Call):
            for value in node.args:
                mark(dotted(node.func).split(".")[-1], value)
        elif isinstance(node, ast.BinOp) and WAITING.search(ast.unparse(node).lower()):
            found.update(id(part) for part in ast.walk(node))
    return found


def no_float(tree: ast.Module, path: str) -> Iterator[str]:
    """In the rooms that handle money there is no float: no literal, no float(), no division by or of a number."""
    if not path.startswith(MONEY_ROOMS):
        return
    waits = _waits(tree)
    for function, node in _functions(tree):
        if id(node) in waits or f"{path}:{function}" in MAY_HOLD_FLOAT:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield _at(node, f"the float {node.value}")
        elif isinstance(node, ast.Call) and dotted(node.func) == "float":
            yield _at(node, "float()")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            sides = [side.value for side in (node.left, node.right) if isinstance(side, ast.Constant)]
            if any(isinstance(side, int) for side in sides):
                yield _at(node, "a true division")


def no_print(tree: ast.Module, path: str) -> Iterator[str]:
    """Only the edges speak to people."""
    if path.startswith(MAY_PRINT):
        return
    for node in nodes(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "print":
            yield _at(node, "print()")
        elif isinstance(node, ast.Attribute) and dotted(node) in {"sys.stdout", "sys.stderr"}:
            yield _at(node, dotted(node))


def no_global_state(tree: ast.Module, path: str) -> Iterator[str]:
    """No module-level container that changes (lower-case by convention), no ``global``."""
    makers = {"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter", "WeakValueDictionary"}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        made = isinstance(value, ast.Call) and dotted(value.func).split(".")[-1] in makers
        if made or isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp):
            for name in map(dotted, targets):
                if not name.startswith("__") and name != name.upper():
                    yield _at(node, f"module-level {name}")
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield _at(inner, f"global {', '.join(inner.names)}")


def through_the_face(tree: ast.Module, path: str) -> Iterator[str]:
    """A room is imported through its ``__init__``; floor 1 has no face, its modules are the values themselves.

    Under connectors and twins every provider is a room of its own.
    """
    if path == "countermark/__init__.py":  # the package's own face opens rooms late and by name
        return
    own = ".".join(Path(path).with_suffix("").parts[:2])
    for node in nodes(tree):
        names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            depth = 3 if parts[1:2] in (["connectors"], ["twins"]) else 2
            room = ".".join(parts[:2])
            past = parts[0] == "countermark" and len(parts) > depth and room not in ("countermark.model", own)
            if past or (name.startswith("countermark_verify.") and not path.startswith("countermark_verify/")):
                yield _at(node, f"imports past the face of {room}: {name}")


def facts_stated(tree: ast.Module, path: str) -> Iterator[str]:
    """A test's docstring states the fact that it proves."""
    for node in nodes(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and not (ast.get_docstring(node) or "").strip()
        ):
            yield _at(node, f"{node.name} has no docstring")


def generator_is_independent(tree: ast.Module, path: str) -> Iterator[str]:
    """What makes the attack files shares no code with what they test; only the tests beside it may know both."""
    if Path(path).name.startswith("test_"):
        return
    for node, name in imports(tree):
        if name.split(".")[0] in ("countermark", "countermark_verify"):
            yield _at(node, f"imports {name}")


# Each rule: the files it applies to, a path for the samples, samples that it must find, a sample that it must not.
_LONG = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX
_GATE, _CLI = "countermark/gate/x.py", "countermark/cli/x.py"
SRC_RULES: dict[Rule, tuple[str, tuple[str, ...], str]] = {
    short_functions: (
        _GATE,
        (_LONG, _LONG.replace("def", "class C:\n  async def")),
        _LONG.replace("    x = 1\n", "", 1),
    ),
    no_assert: (_GATE, ("def f(x):\n    assert x",), "asserted = 1"),
    no_pickle: (_GATE, ("import pickle", "from marshal import loads", "def f():\n    import shelve"), "import json"),
    no_swallowed_exception: (
        _GATE,
        (
            "try:\n    f()\nexcept Exception:\n    pass",
            "try:\n    f()\nexcept:\n    pass",
            "try:\n    f()\nexcept (ValueError, BaseException):\n    x = 1",
            "try:\n    f()\nexcept Exception:\n    def g():\n        raise",
            "with contextlib.suppress(Exception):\n    f()",
        ),
        "try:\n    f()\nexcept ValueError:\n    pass\nexcept Exception:\n    if x:\n        raise Bad",
    ),
    no_clock: (
        _GATE,
        (
            "import time\ntime.time()",
            "import time as t\nt.monotonic_ns()",
            "from time import perf_counter",
            "datetime.datetime.now(UTC)",
            "date.today()",
            "self._loop.time()",
        ),
        "import time\ntime.sleep(1)\nclock.now_us()",
    ),
    no_float: (
        _GATE,
        ("x = 0.1", "y = float(x)", "z = total / 100", "def f(amount=1.0): ..."),
        "PUBLISH_S = 0.5\ndef f(wait_s: float = 1.5): g(timeout=2.0)\nroot = folder / 'x'\ny = spec.timeout_ms / 1000",
    ),
    no_print: (_GATE, ("print(1)", "import sys\nsys.stderr.write('x')"), "echo(1)"),
    no_global_state: (
        _GATE,
        ("cache = {}", "_seen: set[str] = set()", "def f():\n    global x\n    x = 1"),
        "__all__ = ['f']\n_TABLE = {1: 2}\nname = 'x'",
    ),
    through_the_face: (
        _CLI,
        ("from countermark.gate.lane import Lane", "import countermark.policy.cedar", "import countermark_verify.tree"),
        "from countermark.gate import Lane\nfrom countermark.model.canon import canon\nfrom countermark.cli.x import y",
    ),
}
TEST_RULES: dict[Rule, tuple[str, tuple[str, ...], str]] = {
    facts_stated: ("x.py", ("def test_x():\n    pass", "class TestX:\n    def test_y(self): ..."), "def helper(): ..."),
}
VECTOR_RULES: dict[Rule, tuple[str, tuple[str, ...], str]] = {
    generator_is_independent: (
        "x.py",
        ("from countermark.model import canon", "import countermark_verify"),
        "import hashlib",
    ),
}
ALL_RULES = {**SRC_RULES, **TEST_RULES, **VECTOR_RULES}


def files(folder: Path, pattern: str = "*.py") -> list[Path]:
    found = []
    for where, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if name not in ("__pycache__", "node_modules")]
        found += [Path(where, name) for name in fnmatch.filter(names, pattern)]
    return sorted(found)


@lru_cache(maxsize=1024)
def parsed(text: str) -> ast.Module:
    gc.disable()  # it would look through all trees that are kept, again and again: five times the work
    try:
        return ast.parse(text)
    finally:
        gc.enable()


def tree_of(path: Path) -> ast.Module:
    return parsed(path.read_text("utf-8"))


def _found(rule: Rule, folder: Path, pattern: str = "*.py") -> list[str]:
    where = [(path, path.relative_to(folder).as_posix()) for path in files(folder, pattern)]
    return [f"{name}, {finding}" for path, name in where for finding in rule(tree_of(path), name)]


@pytest.mark.parametrize("rule", SRC_RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Rule) -> None:
    """No source file breaks this house rule."""
    assert _found(rule, SRC) == []


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_tests_keep_the_rule(rule: Rule) -> None:
    """No test file breaks this house rule."""
    assert _found(rule, ROOT / "tests", "test_*.py") == []


@pytest.mark.parametrize("rule", VECTOR_RULES, ids=lambda rule: rule.__name__)
def test_attack_files_are_made_independently(rule: Rule) -> None:
    """The generator of the attack files imports neither the product nor the verifier."""
    assert _found(rule, ROOT / "tests" / "vectors") == []


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_what_it_forbids(rule: Rule) -> None:
    """The rule reports each bad sample and is silent on the good one."""
    path, bad_samples, good = ALL_RULES[rule]
    for bad in bad_samples:
        assert list(rule(ast.parse(bad), path)), bad
    assert list(rule(ast.parse(good), path)) == []


def test_rules_about_a_room_hold_only_there() -> None:
    """The clock's own module may read it, the command line may print, rooms without money may hold a float."""
    assert list(no_clock(ast.parse("import time\ntime.time()"), "countermark/model/clock.py")) == []
    assert list(no_print(ast.parse("print(1)"), _CLI)) == []
    assert list(no_float(ast.parse("x = 0.1"), "countermark/twins/x.py")) == []


def test_every_file_fits_a_sitting() -> None:
    """No source file has more than 500 lines."""
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in files(SRC)}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_every_permission_is_used() -> None:
    """Each entry of an allow-list names a function that exists and says why."""
    for entry, why in {**MAY_CATCH_ALL, **MAY_HOLD_FLOAT}.items():
        path, _, function = entry.partition(":")
        assert function in {name for name, _ in _functions(tree_of(SRC / path))}, entry
        assert len(why) > 20, entry


def dead_modules(sources: dict[str, str], entry_points: re.Pattern[str]) -> list[str]:
    """Modules that no chain of imports reaches from an entry point. Keys are dotted names, values source text.

    A module named in full by a string (a lazy command table, ``python -m``) counts as imported.
    """
    alive: set[str] = set()
    todo = [name for name in sources if entry_points.fullmatch(name)]
    while todo:
        name = todo.pop()
        if name in alive:
            continue
        alive.add(name)
        tree = parsed(sources[name])
        named = {found for _, found in imports(tree)}
        named |= {node.value for node in nodes(tree) if isinstance(node, ast.Constant) and type(node.value) is str}
        for target in named:
            parts = str(target).partition(":")[0].split(".")
            todo += [head for n in range(1, len(parts) + 1) if (head := ".".join(parts[:n])) in sources]
    return sorted(sources.keys() - alive)


def _sources() -> dict[str, str]:
    found = {}
    for path in files(SRC):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return found


def test_no_module_is_dead() -> None:
    """Every module is reached by imports from a console script or the face of a package."""
    assert dead_modules(_sources(), ENTRY_POINTS) == []


def test_a_dead_module_is_found() -> None:
    """Two modules that import only each other are dead; one imported inside a function or named by a string is not."""
    sources = {
        "p": "", "p.cli": "def f():\n    from p import a\nlazy = {'b': 'p.b:main'}", "p.a": "", "p.b": "",
        "p.x": "import p.y", "p.y": "import p.x",
    }  # fmt: skip
    assert dead_modules(sources, re.compile(r"p(\.cli)?")) == ["p.x", "p.y"]
