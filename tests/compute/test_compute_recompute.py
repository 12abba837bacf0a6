"""The verifier's own re-execution: the same results as the product's, the same confinement, nothing shared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compute.compute_cases import ADD
from compute.test_compute_pool import BOMBS, body
from compute.test_compute_same import VALUES
from hypothesis import HealthCheck, given, settings

from countermark.compute import ENGINE, Limits, Pool, process, worker
from countermark.model.canon import canon
from countermark_verify import recompute, recompute_worker
from countermark_verify.recompute import Call, NotRecomputed, Outcome, Recomputer, execute

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "workflow.md"


@pytest.fixture(name="again", scope="module")
def _again() -> Iterator[Recomputer]:
    with Recomputer(ENGINE, 2) as again:
        yield again


@pytest.fixture(name="pool", scope="module")
def _pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def test_the_driver_is_the_specification_s() -> None:
    """Product, verifier and specification have the same text around a step: its loops are ticks too."""
    text = SPEC.read_text("utf-8")
    assert "".join(f"    {line}\n" if line else "\n" for line in worker.DRIVER.splitlines()) in text
    assert recompute_worker.DRIVER == worker.DRIVER
    assert f"`{ENGINE}`" in text
    assert list(recompute.ENGINES) == [ENGINE]


def test_both_filters_allow_the_same() -> None:
    """The two system call filters, written apart, are the same program but for its order."""
    for machine, (column, arch) in worker.ARCHES.items():
        theirs = recompute_worker.MACHINES[machine]
        assert theirs[0] == arch
        assert sorted(theirs[1]) == sorted(numbers[column] for numbers in worker.CALLS.values())
        assert theirs[2:] == (
            (worker.MMAP[column], worker.MPROTECT[column]),
            worker.PRLIMIT[column],
            worker.CAPSET[column],
        )
        lines = recompute_worker.system_call_filter(machine)
        assert sorted(lines[at : at + 8] for at in range(0, len(lines), 8)) == sorted(
            worker.struct.pack("<HBBI", *line) for line in worker.program(machine)
        )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=VALUES)
def test_what_ran_runs_again(pool: Pool, again: Recomputer, value: Any) -> None:
    """Output, status and ticks of any value come out as they were recorded."""
    code = "def main(a):\n    return {'a': a, 'text': str(a), 'n': [x for x in range(len(str(a)) * 100)][-1:]}\n"
    ran = pool.submit(code, {"a": value}).result()
    (outcome,) = again.run([Call(code, canon({"a": value}).decode())])
    assert outcome == Outcome("ok", "", canon(ran.output), "", ran.ticks)


CASES = {
    "an error": (body("return {'a': 1 // 0}"), {}),
    "a failure": (body("fail('no\\nmore')"), {}),
    "a key": (body("return {1: 1}"), {}),
    "twice": (body("return {'a': 2 << 60}"), {}),
    "a name": (body("return {'a b': 2}"), {}),
    "ticks": ("def main():\n    for _ in range(10000000):\n        pass\n    return {}\n", {"ticks": 50_000}),
    "ticks above": ("x = [y for y in range(100000)]\n" + body("return {}"), {"ticks": 50_000}),
    "size": (body("return {'a': 'x' * 16000}"), {}),
    "immutable": ("x = []\n" + body("x.append(1)", "return {}"), {}),
    "recursion": ("def f():\n    return f()\n" + body("return f()"), {}),
    "no such input": (ADD, {}),
    "syntax": ("def main():\n  return 1\n    return 2\n", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_went_wrong_goes_wrong_again(pool: Pool, again: Recomputer, case: str) -> None:
    """Errors, and limits that no machine has a part in, come out again with the same ticks."""
    code, limits = CASES[case]
    ran = pool.submit(code, {}, Limits(**limits)).result()
    (outcome,) = again.run([Call(code, "{}", **limits)])
    assert (outcome.status, outcome.which, outcome.ticks) == (
        ran.status, ran.message.split(":")[0] if ran.status == "limit" else "", ran.ticks,
    )  # fmt: skip
    assert ran.status != "ok"
    assert outcome.output is None


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_one_call(again: Recomputer, bomb: str) -> None:
    """A memory bomb in a pack is that call's limit; those around it have their outcomes, in order."""
    calls = [Call(ADD, f'{{"a":1,"b":{n}}}') for n in range(5)]
    calls[2] = Call(body(*BOMBS[bomb]), "{}", memory_mb=64)
    outcomes = list(again.run(calls))
    assert outcomes[2] == Outcome("limit", "memory", None, "", 0)
    assert [one.output for one in outcomes if one.output] == [f'{{"sum":{1 + n}}}'.encode() for n in (0, 1, 3, 4)]


@pytest.mark.slow
def test_time_ends_one_call(again: Recomputer) -> None:
    """A step whose work is inside one operation ends after its processor time."""
    slow = Call(body("x = 3", "for _ in range(40):", "    x = x * x", "return {}"), "{}", seconds=1)
    outcomes = list(again.run([Call(ADD, '{"a":1,"b":2}'), slow, Call(ADD, '{"a":1,"b":2}')]))
    assert [(one.status, one.which) for one in outcomes] == [("ok", ""), ("limit", "time"), ("ok", "")]


def test_many_in_order(again: Recomputer) -> None:
    """A thousand calls of three hundred codes over two processes come out in the order they were asked."""
    codes = [f"def main(a):\n    return {{'a': a * {n}}}\n" for n in range(300)]
    outcomes = again.run(Call(codes[n % 300], f'{{"a":{n}}}') for n in range(1_000))
    assert [json.loads(one.output or b"{}")["a"] for one in outcomes] == [n * (n % 300) for n in range(1_000)]
    assert list(again.run([])) == []


def test_without_the_interpreter_nothing_is_re_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing interpreter, another version and an unknown engine are said, not guessed around."""
    with pytest.raises(NotRecomputed, match="is not known here"):
        Recomputer("starlark-go/1")
    monkeypatch.setitem(recompute.ENGINES, ENGINE, "1999.1")
    with pytest.raises(NotRecomputed, match=r"2026\.1\.3 is installed"):
        Recomputer(ENGINE)
    monkeypatch.setattr(recompute, "find_spec", lambda name: None)
    with pytest.raises(NotRecomputed, match="is needed"):
        execute(ENGINE, Call(ADD, "{}"))


_HOSTILE = """
import sys, json, os, socket, subprocess
from importlib.machinery import SourceFileLoader
worker = SourceFileLoader("worker", {path!r}).load_module()
{more}
def attempt(what):
    try:
        return repr(what())
    except BaseException as error:
        return type(error).__name__
def run(self, code, inputs, most):
    return "ok", json.dumps({{"a": eval(json.loads(inputs)["probe"])}}, separators=(",", ":")), 0
worker.Steps.run = run
worker.main()
"""


def hostile(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    program = folder / "hostile.py"
    program.write_text(_HOSTILE.format(path=recompute_worker.__file__, more=more))
    monkeypatch.setattr(recompute, "_PROGRAM", str(program))


@pytest.mark.parametrize(
    "what", ["socket.socket()", "os.open('/etc/passwd', 0)", "os.fork()", "os.execv('/bin/true', ['true'])",
             "os.kill(os.getppid(), 0)", "os.pipe()", "os.stat('/')"],
)  # fmt: skip
def test_its_worker_reaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Python in the verifier's worker can neither connect, open, fork, execute nor signal."""
    hostile(tmp_path, monkeypatch)
    probe = json.dumps({"probe": f"attempt(lambda: {what})"})
    assert execute(ENGINE, Call(ADD, probe)).output == b'{"a":"PermissionError"}'


def test_its_worker_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of the verifier's environment is there, and nothing of its modules."""
    monkeypatch.setenv("SECRET", "x")
    hostile(tmp_path, monkeypatch)
    probe = json.dumps(
        {"probe": "[[n for n in os.environ if n != 'LC_CTYPE'], [m for m in sys.modules if 'counter' in m]]"}
    )
    assert execute(ENGINE, Call(ADD, probe)).output == b'{"a":[[],[]]}'


@pytest.mark.parametrize("more", ["worker.MACHINES = {}", "worker.system_call_filter = lambda machine: b'x' * 8"])
def test_unconfined_it_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    """Where the confinement cannot be had, nothing is re-executed, and why is said."""
    hostile(tmp_path, monkeypatch, more)
    with pytest.raises(NotRecomputed, match=r"no confined process can be started: .*(filter|SECCOMP)"):
        Recomputer(ENGINE)


@pytest.mark.parametrize(
    "answer",
    [
        '"ok", "[]", 0',
        '"ok", "{", 0',
        '"ok", "{\\"a\\":1.5}", 0',
        '"ok", "{\\"a\\":1,\\"a\\":1}", 0',
        "1, 2, 3",
        '"ok"',
    ],
)
def test_its_worker_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """An answer outside the form is an error of the step or the end of the worker, never an exception."""
    hostile(tmp_path, monkeypatch)
    program = tmp_path / "hostile.py"
    program.write_text(
        program.read_text().replace("worker.Steps.run = run", f"worker.Steps.run = lambda *_: ({answer},)")
    )
    outcome = execute(ENGINE, Call(ADD, "{}"))
    assert outcome.status in ("error", "limit")
    assert outcome.output is None


def test_the_two_say_the_same_about_messages(pool: Pool) -> None:
    """An error's message is spelled alike, but for the place, so that people can compare."""
    ran = pool.submit(body("fail('no more')"), {}).result()
    assert ran.message.startswith(execute(ENGINE, Call(body("fail('no more')"), "{}")).message)
    assert process.ENGINE == ENGINE
