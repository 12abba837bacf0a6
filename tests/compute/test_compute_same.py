"""The same inputs have the same outputs: over processes, over calls, whatever ran before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from compute.compute_cases import ADD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from countermark.compute import Limits, Pool, Ran, check_code, code_digest, input_digest
from countermark.model.digest import CODE, VALUE, digest, digest_of
from countermark.model.errors import ArgumentError, CountermarkError

KEYS = st.text("abcXYZ019_.$-", min_size=1, max_size=8)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(name="pools", scope="module")
def _pools() -> Iterator[tuple[Pool, Pool]]:
    with Pool(1) as one, Pool(1) as other:
        yield one, other


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=VALUES, other=VALUES)
def test_any_value_passes_unchanged(pools: tuple[Pool, Pool], value: Any, other: Any) -> None:
    """What goes in comes out, byte for byte, and two pools say the same about what is made of it."""
    same = "def main(a, b):\n    return {'a': a, 'b': b}\n"
    for pool in pools:
        ran = pool.submit(same, {"a": value, "b": other}).result()
        assert ran == Ran("ok", {"a": value, "b": other}, "", ran.ticks)
        assert digest_of(VALUE, ran.output) == input_digest({"a": value, "b": other})
    made = (
        "def main(a, b):\n    made = [str(a), repr(b), hash(str(a)), [a] == [b], dir(a)]\n"
        "    return {'a': made, 'b': sorted([str(a), type(b)])}\n"
    )
    first, second = (pool.submit(made, {"a": value, "b": other}).result() for pool in pools)
    assert first == second


PIECES = ("a", "b", "7", "0", "-3", "'x'", "[a, 1]", "{'k': b}", "len(str(a))", "int('9')", "a // b", "a % b", "a - b",
          "b * 3", "a + b", "(a << 3)", "a & b", "~a", "-b", "a if b else 1", "[x for x in range(5)]", "min(a, b)",
          "sorted([b, a])", "str(a).split('1')", "abs(a)", "hash('q')", "a == b", "bool(b)", "list(enumerate([a]))",
          "zip([a], [b])", "int('0x1f', 16)", "'%s-%d' % (a, b)", "'{}'.format(a)", "reversed([a])",
          "max([a, b])")  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    parts=st.lists(st.sampled_from(PIECES), min_size=1, max_size=5),
    signs=st.lists(st.sampled_from(("+", "-", "*", "//", "%", "and", "or", "==", "in", "|", "<<")), min_size=4),
    a=st.integers(-99, 99), b=st.integers(-99, 99),
)  # fmt: skip
def test_no_float_arises(pools: tuple[Pool, Pool], parts: list[str], signs: list[str], a: int, b: int) -> None:
    """Whatever is computed of integers and texts without a float in the code is none; failures are the same twice."""
    text = parts[0] + "".join(f" {sign} {part}" for sign, part in zip(signs, parts[1:], strict=False))
    code = f"def main(a, b):\n    x = {text}\n    return {{'type': type(x), 'text': str(x)[:1000]}}\n"
    first, second = (pool.submit(code, {"a": a, "b": b}, Limits(ticks=100_000)).result() for pool in pools)
    assert first == second
    assert first.output is None or first.output["type"] != "float"


def test_nothing_is_left_to_the_next_call(pools: tuple[Pool, Pool]) -> None:
    """A module's values cannot be changed by a call: neither lists, objects and defaults, nor names."""
    for changes in (
        "kept.append(1)",
        "names['x'] = 1",
        "deep[0].append(1)",
        "helper()",
        "kept.clear()",
        "kept.extend([1])",
    ):
        code = (
            "kept = [0]\nnames = {}\ndeep = [[], {}]\ndef helper(seen=[]):\n    seen.append(1)\n    return seen\n"
            f"def main():\n    {changes}\n    return {{'a': [kept, names, deep]}}\n"
        )
        for _ in range(3):
            ran = pools[0].submit(code, {}).result()
            assert (ran.status, ran.message.split(" (")[0]) == ("error", "Immutable"), changes
        looks = code.replace(f"    {changes}\n", "")
        assert pools[0].submit(looks, {}).result().output == {"a": [[0], {}, [[], {}]]}
    outside = "x = 1\ndef main():\n    y = x\n    x = y + 1\n    return {'a': x}\n"
    assert "before assignment" in pools[0].submit(outside, {}).result().message


def test_inputs_belong_to_one_call(pools: tuple[Pool, Pool]) -> None:
    """What a call does to its inputs, the next call with the same inputs does not see."""
    code = "def main(a):\n    a.append(len(a))\n    return {'a': a}\n"
    inputs = {"a": [7]}
    for _ in range(3):
        assert pools[0].submit(code, inputs).result().output == {"a": [7, 1]}
    assert inputs == {"a": [7]}


def test_one_code_s_names_are_not_another_s(pools: tuple[Pool, Pool]) -> None:
    """Code sees neither what other code defines nor what the driver around it does."""
    assert pools[0].submit("secret = 'x'\n" + ADD, {"a": 1, "b": 2}).result().status == "ok"
    for name in ("secret", "json", "check", "run", "text", "value", "output"):
        ran = pools[0].submit(f"def main():\n    return {{'a': {name}}}\n", {}).result()
        assert ran.message.startswith(f"Variable `{name}` not found"), ran


def test_order_of_members_is_of_no_account(pools: tuple[Pool, Pool]) -> None:
    """Inputs are handed over in canonical order: main sees the same whatever order they were given in."""
    code = "def main(a, b):\n    return {'keys': list(a), 'text': str(b)}\n"
    one = pools[0].submit(code, {"a": {"y": 1, "x": 2}, "b": {"q": 1, "p": 2}}).result()
    two = pools[1].submit(code, {"b": {"p": 2, "q": 1}, "a": {"x": 2, "y": 1}}).result()
    assert one == two == Ran("ok", {"keys": ["x", "y"], "text": '{"p": 2, "q": 1}'}, "", 0)


def test_random_seeds_differ_and_results_do_not() -> None:
    """Twenty workers, each with a hash seed of its own, print an object's members, errors and hashes alike."""
    code = (
        "def main(n):\n    d = {str(i * 7919 % 101): i for i in range(n)}\n"
        "    return {'d': str(d), 'k': d.keys()[:5], 'h': [hash(k) for k in d][:9], 'dir': dir(d)}\n"
    )
    wrong = "def main(n):\n    return {'a': n.no_such_member}\n"
    found = set()
    for _ in range(5):
        with Pool(4) as pool:
            found |= {str(one.result()) for one in [pool.submit(c, {"n": 60}) for c in (code, wrong) for _ in range(4)]}
    assert len(found) == 2


def test_digests() -> None:
    """Code is digested as its UTF-8 bytes, inputs as their canonical bytes."""
    assert code_digest("é\n") == digest(CODE, "é\n".encode())
    assert input_digest({"b": 1, "a": [2]}) == digest(VALUE, b'{"a":[2],"b":1}')


REFUSED = {
    "def main():\n    return {'a': 1.5}\n": "line 2, column 18: 1.5 is a float",
    "def main():\n    return {'a': 1e3}\n": "line 2, column 18: 1e3 is a float",
    "def main():\n    return {'a': .5}\n": "line 2, column 18: .5 is a float",
    "def main():\n    return {'a': 5.}\n": "line 2, column 18: 5. is a float",
    "def main(a):\n    return {'a': a / 2}\n": "line 2, column 20: / makes floats",
    "def main(a):\n    a /= 2\n": "line 2, column 7: /= makes floats",
    "def main(a, /):\n    return {}\n": "line 1, column 13: / makes floats",
    "def main(a):\n    return {'a': float(a)}\n": "line 2, column 18: there are no floats",
    "def main(a):\n    return {'a': '%.2f' % a}\n": "line 2, column 18: %.2f formats a float",
    "def main(a):\n    return {'a': '''x %(n)e'''  %  {'n': a}}\n": "line 2, column 18: %(n)e formats a float",
    "load('x', 'y')\ndef main():\n    return {}\n": "line 1, column 1: load is not possible",
    "x = 1\n": "line 1, column 1: there is no main",
    "def other():\n    def main():\n        pass\n": "line 1, column 1: there is no main",
    "def main():\n    pass\ndef main():\n    pass\n": "line 3, column 1: main is defined twice",
    "def main(*a):\n    pass\n": "line 1, column 10: * in the parameters of main",
    "def main(a, **b):\n    pass\n": "line 1, column 13: ** in the parameters of main",
    "def main(a=1):\n    pass\n": "line 1, column 11: = in the parameters of main",
    "def main(a: int):\n    pass\n": "line 1, column 11: : in the parameters of main",
    "def main():\r\n    pass\n": "line 1, column 12: the character '\\r' is not possible",
    "def main():\n    # \x85 1.5 \x0c\n    pass\n": "line 2, column 13: the character '\\x0c' is not possible",
    "def main():\n    return 'x\n": "line 2, column 12: a text without an end",
    "def main():\n    return '''x\n": "line 2, column 12: a text without an end",
    "def main():\n    return $\n": "line 2, column 12: the character '$' has no meaning here",
    "def main():\n    return é\n": "line 2, column 12: the character 'é' has no meaning here",
    "def main():\n    return (\n": "Parse error",
    "def main():\n    return f'{a}'\n": "Your Starlark dialect must enable f-strings",
    "if True:\n    x = 1\ndef main():\n    pass\n": "`if` cannot be used outside `def`",
    "x = " + "(" * 60 + "1" + ")" * 60 + "\ndef main():\n    pass\n": "line 1, column 54: nested deeper than 50",
    "x = " + "-" * 60 + "1\ndef main():\n    pass\n": "line 1, column 55: nested deeper than 50",
    "x = 1" + " + 1" * 600 + "\ndef main():\n    pass\n": "line 1, column 2001: one expression of more than 1000 parts",
    "#" * 32_001: "line 1, column 1: the code is longer than 32000 bytes",
    "#" + "é" * 16_000: "line 1, column 1: the code is longer than 32000 bytes",
    "\ud800": "line 1, column 1: the character '\\ud800' is not possible",
}


@pytest.mark.parametrize("code", REFUSED, ids=lambda code: ascii(code[:40]))
def test_code_that_may_not_be_run(code: str) -> None:
    """What is refused is refused with line and column, and what of it is ours with a way out."""
    with pytest.raises(ArgumentError) as caught:
        check_code(code)
    assert caught.value.message.startswith(REFUSED[code])
    assert caught.value.hint


ALLOWED = {
    "def main():\n    return {}\n": (),
    "x = 7 // 2\ndef main(\n    a,  # 1.5\n    b_2,\n):\n    return {'x': a // b_2, 'y': '1.5 / %f'}\n": ("a", "b_2"),
    'def main(a):\n    """Half of it: a / 2, 50 %e, "x\n    """\n    a //= 2\n'
    '    return {"a": "100%%f" % (), "b": r"\\d/\\"", "c": 0x1e5}\n': ("a",),
    "def main(a):\n    return {'a': '%d %s' % (1, a), 'b': a % 7, 'e': [x for x in a][0]}\n": ("a",),
}  # fmt: skip


@pytest.mark.parametrize("code", ALLOWED, ids=lambda code: ascii(code[:40]))
def test_code_that_may_be_run(code: str) -> None:
    """Floats and paths in texts and comments are texts and comments; the names of the inputs are returned."""
    assert check_code(code) == ALLOWED[code]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("'\"\\\n #rfb()[]{}:,.=/%1eE_xa-+é\x0b"), max_size=60))
def test_no_foreign_exception(text: str) -> None:
    """Any text is accepted or refused, never anything else."""
    for code in (text, f"def main():\n    return {{}}\nx = {text}"):
        try:
            check_code(code)
        except CountermarkError as error:
            assert error.code == "bad_argument"  # noqa: PT017 (most texts raise, some do not)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.sampled_from("'\"\\\n #rb1./e5"), max_size=24))
def test_the_scanner_and_the_parser_agree_on_texts(pools: tuple[Pool, Pool], text: str) -> None:
    """Code that the scanner lets pass never makes a float, whatever quotes, escapes and comments stand in it."""
    code = (
        f"def main():\n    return {{}}\nx = [0, {text}\n]\ny = [type(z) for z in x]\n"
        "z = [fail('found') for t in y if t == 'flo' + 'at']\n"
    )
    try:
        ran = pools[0].submit(code, {}).result()
    except ArgumentError:
        return
    assert not ran.message.startswith("found")
