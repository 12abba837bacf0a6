"""The pool: what becomes of calls, whatever they do to their worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from compute.compute_cases import ADD, ANY, FOREVER, only_worker, probing, until

from countermark.compute import ComputeBusyError, ComputeClosedError, Limits, Pool, Ran, UnconfinedError, process
from countermark.compute import pool as pool_module
from countermark.compute.values import read_output
from countermark.model.errors import ArgumentError, EncodingError


@pytest.fixture(name="pool", scope="module")
def _pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def body(*lines: str) -> str:
    return "def main():\n" + "".join(f"    {line}\n" for line in lines)


def test_it_returns_what_main_returns(pool: Pool) -> None:
    """Integers of 53 bits, texts of any characters, truth, null, lists, tuples and objects come back as they are."""
    inputs = {"a": [-(2**53 - 1), 2**53 - 1, 0, True, None], "b": {"x.y-$": 'é\u2028\U0001f600\n"\\\x01', "n": []}}
    code = "def main(a, b):\n    return {'a': a, 'b': b, 'c': (1, ('x',))}\n"
    assert pool.submit(code, inputs).result() == Ran("ok", {**inputs, "c": [1, ["x"]]}, "", 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["return {'a': 1 // 0}"], "Floor division by zero: 1 // 0 (line 2, column 18)"),
        (["fail('too', 'little')"], "too little (line 2, column 5)"),
        (["return {1: 2}"], "a key of type int"),
        (["return {'a': {(1, 2): 2}}"], "a key of type tuple"),
        (["return {'a b': 1}"], "the output does not fit: an object key is outside [A-Za-z0-9_.$-]{1,64}"),
        (["return {'a': 9007199254740992}"], "the output does not fit: an integer is outside ±(2^53-1)"),
        (
            ["return {'a': 1 << 200}"],
            "the output does not fit: a value of type float is not allowed (floats never are)",
        ),
        (["return {'a': main}"], "a value of type function"),
        (["return [1]"], "main returned a value of type list, not a dict"),
        (["pass"], "main returned a value of type NoneType, not a dict"),
        (["x = [1]", "for y in x:", "    x.append(y)", "return {}"], "This operation mutates an iterable"),
        (["x = []", "x.append(x)", "return {'a': x}"], "nested deeper than 8"),
        (["return {'a': [[[[[[[[[]]]]]]]]]}"], "nested deeper than 8"),
        (["return {'a': nothing}"], "Variable `nothing` not found (line 2, column 18)"),
        (["return {'a': json}"], "Variable `json` not found"),
        (["return {'a': check}"], "Variable `check` not found"),
    ],
)
def test_what_goes_wrong_is_an_error_with_its_place(pool: Pool, lines: list[str], message: str) -> None:
    """A failure, or an output outside the profile, is status error with a message for people; the worker lives on."""
    ran = pool.submit(body(*lines), {}).result()
    assert (ran.status, ran.output) == ("error", None)
    assert ran.message.startswith(message)
    assert "/" not in ran.message.replace("//", "")  # no path


def test_a_value_eight_deep_fits(pool: Pool) -> None:
    """A member of the output may be nested eight deep, and so may an input; not nine."""
    deep: list[object] = [1]
    for _ in range(7):
        deep = [deep]
    same = "def main(a):\n    return {'a': a}\n"
    assert pool.submit(same, {"a": deep}).result().output == {"a": deep}
    with pytest.raises(EncodingError, match="nested deeper than 8"):
        pool.submit(same, {"a": [deep]})


def test_inputs_are_main_s_parameters(pool: Pool) -> None:
    """An input that is missing, or that main does not have, is an error."""
    assert "Missing parameter `b`" in pool.submit(ADD, {"a": 1}).result().message
    assert "extra named parameter" in pool.submit(ADD, {"a": 1, "b": 2, "c": 3}).result().message


def test_what_may_not_be_run_is_refused_at_once(pool: Pool) -> None:
    """Code with a float, code too long and inputs outside the profile raise where they are handed in."""
    with pytest.raises(ArgumentError, match=r"line 2, column 18: 1\.5 is a float"):
        pool.submit(body("return {'a': 1.5}"), {})
    with pytest.raises(ArgumentError, match="longer than 32000 bytes"):
        pool.submit(ADD + "#" * 32_000, {})
    for wrong in (1.5, 2**53, "\ud800", "x" * (1 << 20), {"a b": 1}):
        with pytest.raises(EncodingError):
            pool.submit(ADD, {"a": wrong, "b": 1})


def test_the_output_has_a_size(pool: Pool) -> None:
    """16,000 bytes of canonical output fit; one more is a limit, and so is a text of many megabytes."""
    for size, fits in ((16_000 - len('{"a":""}'), True), (16_001 - len('{"a":""}'), False), (5_000_000, False)):
        ran = pool.submit(body(f"return {{'a': 'x' * {size}}}"), {}).result()
        assert ran.status == ("ok" if fits else "limit")
        assert fits or ran.message == "size: the output has more than 16000 bytes"


def test_messages_move_no_cursor(pool: Pool) -> None:
    """A space stands for each control character: a message is printed on terminals, in one line."""
    ran = pool.submit(body(r"fail('a\033[1A\nb\u2028\u0085c')"), {}).result()
    assert ran.message == "a [1A b  c (line 2, column 5)"


def test_messages_have_a_size(pool: Pool) -> None:
    """A message has at most 500 characters, with the place at its end."""
    ran = pool.submit(body("fail('é' * 100000)"), {}).result()
    assert len(ran.message) <= 500
    assert ran.message.endswith("é (line 2, column 5)")


def test_ticks(pool: Pool) -> None:
    """Turns of a loop are counted by the thousand, the top level's too, and a call that has too many is stopped."""
    loop = "def main(n):\n    for _ in range(n):\n        pass\n    return {}\n"
    assert [pool.submit(loop, {"n": n}).result().ticks for n in (10, 1_500, 20_500)] == [0, 1_000, 20_000]
    above = "x = [y for y in range(5500)]\n" + loop
    assert [pool.submit(above, {"n": 1_500}).result().ticks for _ in range(3)] == [6_000] * 3  # loaded, and kept
    ran = pool.submit(loop, {"n": 10**8}, Limits(ticks=50_000)).result()
    assert ran == Ran("limit", None, "ticks: more than 50000", 51_000)
    assert pool.submit(above, {"n": 0}, Limits(ticks=4_000)).result().status == "limit"
    assert (
        pool.submit("x = [y for y in range(7500)]\n" + loop, {"n": 0}, Limits(ticks=4_000)).result().status == "limit"
    )


def test_recursion_has_an_end(pool: Pool) -> None:
    """Recursion without an end is an error, and a worker's stack is large enough for all that is allowed."""
    ran = pool.submit("def f(n):\n    return f(n + 1)\n" + body("return {'a': f(0)}"), {}).result()
    assert (ran.status, ran.message) == ("error", "Starlark call stack overflow (line 2, column 12)")
    nested = "[" * 40 + "f(n)" + "]" * 40
    ran = pool.submit(f"def f(n):\n    return {nested}\n" + body("return {'a': f(0)}"), {}).result()
    assert ran.status == "error"


BOMBS = {
    "lists by adding": ["x = [1]", "for _ in range(100):", "    x = x + x", "return {}"],
    "lists by extending": ["x = [1]", "for _ in range(100):", "    x.extend(x)", "return {}"],
    "texts by adding": ["x = 'a'", "for _ in range(100):", "    x = x + x", "return {}"],
    "a text by joining": ["return {'a': len('a'.join(['x' * 1000000] * 1000000))}"],
    "a text by replacing": ["return {'a': len(('a' * 1000000).replace('a', 'b' * 1000000))}"],
    "a list by repeating": ["return {'a': len([1] * 2000000000)}"],
    "an object": ["x = {}", "for i in range(100000000):", "    x[i] = 'x' * 1000", "return {}"],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_memory_bomb_is_a_limit(pool: Pool, bomb: str) -> None:
    """Whatever eats memory ends its worker as a limit `memory`; calls before and behind it have their answers."""
    before = [pool.submit(ADD, {"a": 1, "b": n}) for n in range(3)]
    ran = pool.submit(body(*BOMBS[bomb]), {}, Limits(memory_mb=64))
    behind = [pool.submit(ADD, {"a": 2, "b": n}) for n in range(3)]
    assert ran.result().status == "limit"
    assert ran.result().message.startswith("memory: more than the step may use")
    assert [one.result().output for one in before + behind] == [{"sum": 1 + n} for n in (0, 1, 2, 1, 2, 3)]


def test_memory_that_others_left_is_not_held_against_a_call(pool: Pool) -> None:
    """A call that fits into a new worker's memory is not refused because of what code loaded before it keeps."""
    keeps = "x = [1] * 4000000\ndef main():\n    return {'a': len(x)}\n"
    takes = body("return {'a': len([2] * 4000000)}")
    limits = Limits(memory_mb=112)
    for code in (keeps, takes, keeps, takes):
        assert pool.submit(code, {}, limits).result() == Ran("ok", {"a": 4_000_000}, "", 0)


@pytest.mark.slow
def test_a_step_without_ticks_ends_by_its_time(pool: Pool) -> None:
    """Work inside one operation, where nothing is counted, ends after its seconds of processor time."""
    ran = pool.submit(body("x = 3", "for _ in range(40):", "    x = x * x", "return {}"), {}, Limits(seconds=1))
    behind = pool.submit(ADD, {"a": 1, "b": 2})
    assert ran.result() == Ran("limit", None, "time: more processor time than the step may use", 0)
    assert behind.result().output == {"sum": 3}


def test_kill_9_in_the_middle() -> None:
    """The call that ran when its worker was killed is a limit `died`; those queued behind it run on a new one."""
    with Pool(1) as pool:
        assert pool.submit(ADD, {"a": 0, "b": 0}).result().status == "ok"
        before = [pool.submit(ADD, {"a": 0, "b": n}) for n in range(5)]
        victim = pool.submit(FOREVER, {}, Limits(ticks=10**10, seconds=60))
        behind = [pool.submit(ADD, {"a": 1, "b": n}) for n in range(100)]
        worker = only_worker(pool)
        until(lambda: worker.begun == 7)
        os.kill(worker.pid, signal.SIGKILL)
        assert victim.result() == Ran("limit", None, "died: the worker ended by signal 9", 0)
        assert [one.result().output for one in before] == [{"sum": n} for n in range(5)]
        assert [one.result().output for one in behind] == [{"sum": 1 + n} for n in range(100)]
        assert only_worker(pool).pid != worker.pid


def test_a_worker_whose_timer_fails_is_ended_by_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer for far longer than its call may take is ended from outside, as a limit `time`."""
    monkeypatch.setattr(pool_module, "LOOK_S", 0.01)
    with Pool(1) as pool:
        assert pool.submit(ADD, {"a": 0, "b": 0}).result().status == "ok"
        worker = only_worker(pool)
        stuck = pool.submit(FOREVER, {}, Limits(ticks=10**10, seconds=60))
        until(lambda: worker.begun == 2)
        os.kill(worker.pid, signal.SIGSTOP)
        monkeypatch.setattr(process, "WALL_FACTOR", 0)
        monkeypatch.setattr(process, "WALL_MORE_US", 20_000)
        assert stuck.result() == Ran("limit", None, "time: more processor time than the step may use", 0)
        monkeypatch.undo()
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().output == {"sum": 3}


def test_kill_9_between_calls() -> None:
    """A worker that dies while it runs nothing takes no call along."""
    with Pool(1) as pool:
        for n in range(3):
            assert pool.submit(ADD, {"a": 0, "b": n}).result().output == {"sum": n}
            worker = only_worker(pool)
            os.kill(worker.pid, signal.SIGKILL)
            assert pool.submit(ADD, {"a": 1, "b": n}).result().output == {"sum": 1 + n}


def test_the_queue_is_bounded() -> None:
    """A full queue refuses at once, retryable; what was taken is not lost."""
    with Pool(1, queue_max=3) as pool:
        assert pool.submit(ADD, {"a": 0, "b": 0}).result().status == "ok"
        worker = only_worker(pool)
        long = pool.submit(FOREVER, {}, Limits(ticks=10**10, seconds=60))
        taken = []

        def fill() -> None:
            for _ in range(1_000):
                taken.append(pool.submit(ADD, {"a": 1, "b": 2}))

        with pytest.raises(ComputeBusyError) as caught:
            fill()
        assert caught.value.retryable
        until(lambda: worker.begun == 2)
        os.kill(worker.pid, signal.SIGKILL)
        assert long.result().message.startswith("died")
        assert {one.result().output["sum"] for one in taken if one.result().output} == {3}


def test_close_fails_what_is_left() -> None:
    """Closing ends workers, fails what has not run, and refuses what comes later; closing again is nothing."""
    pool = Pool(2)
    running = [pool.submit(FOREVER, {}, Limits(ticks=10**10, seconds=60)) for _ in range(4)]
    until(lambda: running[0].running())
    workers = list(pool._workers)
    pool.close()
    pool.close()
    for one in running:
        assert isinstance(one.exception(), ComputeClosedError)
    with pytest.raises(ComputeClosedError):
        pool.submit(ADD, {"a": 1, "b": 2})
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)
    unused = Pool(1)
    unused.close()
    with pytest.raises(ComputeClosedError):
        unused.submit(ADD, {"a": 1, "b": 2})


def test_a_cancelled_call_does_not_run() -> None:
    """A future that was cancelled before its call was handed out is left out."""
    with Pool(1) as pool:
        first = pool.submit(ADD, {"a": 1, "b": 2})
        others = [pool.submit(ADD, {"a": 1, "b": n}) for n in range(200)]
        cancelled = [one for one in others if one.cancel()]
        assert first.result().status == "ok"
        assert all(one.cancelled() or one.result().status == "ok" for one in others)
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().status == "ok"
        assert all(one.cancelled() for one in cancelled)


def test_many_codes_share_a_worker(pool: Pool) -> None:
    """More codes than a worker keeps take turns, each with its own answers."""
    codes = [f"def main(a):\n    return {{'a': a + {n}}}\n" for n in range(300)]
    for _ in range(2):
        ran = [pool.submit(code, {"a": 1}) for code in codes]
        assert [one.result().output for one in ran] == [{"a": 1 + n} for n in range(300)]


def test_workers_start_when_there_is_work() -> None:
    """A pool without calls has neither processes nor threads."""
    with Pool(2) as pool:
        assert (pool._workers, pool._thread) == ([], None)
    for wrong in (0, 65):
        with pytest.raises(ArgumentError):
            Pool(wrong)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b'{"a":1.5}', b'{"a":1,"a":1}', b'{"a": 1}', b'{"a":NaN}', b'{"a":"\\ud800"}', b"\xff"]
)
def test_what_a_worker_says_is_held_to_the_profile(raw: bytes) -> None:
    """An output that is no JSON of the profile, in its shortest form, is an error, whoever sent it."""
    assert read_output(raw, 0).status == "error"


LIES = {
    "an answer before it is ready": "line.answer(b'k', 0, b'{}'); line.flush()",
    "a frame of no kind": "line.answer(b'r', 0, b''); line.answer(b'?', 0, b'{}'); line.flush()",
    "ready twice": "line.answer(b'r', 0, b''); line.answer(b'r', 0, b''); line.flush()",
    "an answer too long": "line.answer(b'r', 0, b''); os.write(0, worker.ANSWER.pack(b'k', 0, 1 << 30)); os.read(0, 9)",
    "a page with nonsense": "line.answer(b'r', 0, b''); line.flush(); os.read(0, 9); line._begun[0] = 1 << 63",
    "a page with nothing": "line.answer(b'r', 0, b''); line.flush(); os.read(0, 9); line._begun[0] = 0",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_lies_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    """Frames that no worker of ours sends end it: its calls have an answer, or fail, and the pool goes on."""
    with probing(tmp_path, monkeypatch, f"line = worker.Line(); {LIES[lie]}; os._exit(0)") as pool:
        call = pool.submit(ANY, {"probe": ""})
        try:
            assert call.result().message.startswith("died: the worker ended")
        except UnconfinedError as error:
            assert error.retryable  # noqa: PT017 (either will do)
        monkeypatch.undo()
        assert pool.submit(ADD, {"a": 1, "b": 2}).result().output == {"sum": 3}
