"""What code of a step may be, and what executing it again may take: the same to the verifier as to the product."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from compute.test_compute_same import ALLOWED, REFUSED
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.compute.code import checked
from countermark.model.errors import ArgumentError
from countermark_verify import as_text, load_trust, recompute, recomputed, verify, workflows
from countermark_verify.cli import main
from countermark_verify.recompute import NotRecomputed
from countermark_verify.report import Ledger, Report, as_json
from countermark_verify.starlark_text import refused

FILES = Path(__file__).parents[1] / "vectors" / "files"
FOLLOWED = "honest-workflow"
EXPECTED = json.loads((FILES / "expected.json").read_text("utf-8"))
STEPS = 3  # pure ones of the pack, in two runs of one definition that has two pieces of code
_MAIN = "def main():\n    return {}\n"


def same(code: str) -> None:
    """The scanners of both say the same of it."""
    try:
        taken = checked(code)[2]
    except ArgumentError:
        assert refused(code, ()), code
    else:
        assert refused(code, taken) == "", code
        assert refused(code, (*taken, "no_such_name")), code


@pytest.mark.parametrize("code", [code for code in (*REFUSED, *ALLOWED) if "\ud800" not in code], ids=ascii)
def test_both_refuse_the_same_code(code: str) -> None:
    """What the product's scanner refuses, and what it lets pass, are what the verifier's does."""
    same(code)


CONVERSIONS = st.lists(
    st.sampled_from(["%", "%%", "%(", "(", ")", "0", "5", "*", ".", "-", " ", "e", "G", "d", "x"]), max_size=12
)


@settings(max_examples=250, deadline=None)
@given(CONVERSIONS)
def test_both_find_the_same_conversions(parts: list[str]) -> None:
    """Of a text before a percent sign both say the same, and what the specification's expression says."""
    text = "".join(parts)
    code = f"{_MAIN}x = '{text}' % 1\n"
    same(code)
    spelled = re.search(r"%(?:\([^)]*\))?[-#0 +]*[0-9*]*(?:\.[0-9*]+)?[eEfFgG]", f"'{text}'".replace("%%", "  "))
    assert bool(refused(code, ())) is bool(spelled)


def test_no_text_takes_long() -> None:
    """A text of zeros behind a percent sign, which can be parted in many ways, is read at once."""
    for text in ("%" + "0" * 31_000, "%(" * 15_000, "%0." * 10_000):
        same(f"{_MAIN}x = '{text}' % 1\n")


@settings(max_examples=400, deadline=None)
@given(st.text(st.sampled_from("'\"\\\n #rfb()[]{}:,.=/%1eE_xa-+é\x0b\t"), max_size=60))
def test_both_read_the_same_tokens(text: str) -> None:
    """So are they of any text, at the left margin, in a function and in brackets."""
    for code in (text, f"{_MAIN}x = {text}", f"{_MAIN}x = [{text}\n]\n", text + _MAIN):
        same(code)


_NESTED = (
    ("(", ")"), ("[-", "]"), ("f(1, ", ")"), ("-", ""), ("not ", ""), ("lambda: ", ""), ("1 + ", ""), ("[1], ", ""),
    ("(1 + 1), ", ""), ("[1,\n", "]"),
)  # fmt: skip


@pytest.mark.parametrize("ends", _NESTED)
def test_both_have_the_same_bounds(ends: tuple[str, str]) -> None:
    """The last number of repetitions that one lets pass is the last that the other does."""
    for times in (48, 49, 50, 51, 52, 249, 250, 251, 332, 333, 334, 499, 500, 501, 999, 1_000, 1_001):
        same(f"{_MAIN}x = {ends[0] * times}1{ends[1] * times}\n")
        same(_MAIN + "".join(" " * at + "if a:\n" for at in range(times % 60)))


def test_code_of_the_largest_size() -> None:
    """32,000 bytes of UTF-8 are let pass, one more is not."""
    for more in ("x", "é"):
        room = 32_000 - len(_MAIN.encode()) - 1
        code = _MAIN + "#" + more * (room // len(more.encode()))
        same(code)
        same(code + more)


def trusted(name: str) -> Path:
    return FILES / str(EXPECTED[f"{name}.zip"]["trust"])


def report(name: str = FOLLOWED, ticks: int = recomputed.BUDGET_TICKS) -> Report:
    return verify(FILES / f"{name}.zip", load_trust(trusted(name)), ticks=ticks)


def test_executing_again_has_a_budget() -> None:
    """What is left when the ticks are used up is counted, leaves the pack incomplete, and is not executed."""
    whole = report(ticks=(2 + STEPS) * 1_000)
    assert whole.verdict == "verified"
    assert whole.counts["steps"] == {
        "pure": STEPS, "again": STEPS, "unexecuted": 0, "ended": 0, "ended_otherwise": 0, "unparsed": 0, "refused": 0,
        "unproved": 0,
    }  # fmt: skip
    short = report(ticks=(1 + STEPS) * 1_000)
    assert (short.verdict, short.codes()) == ("incomplete", ["V21.budget"])
    assert short.counts["steps"]["again"] == STEPS - 1
    assert short.axes["computation"]["level"] == "recorded"
    none = report(ticks=1)  # what was granted before it was used up is done
    assert none.counts["steps"]["again"] == 0
    assert none.counts["steps"]["unparsed"] == 1
    assert "whether 1 pieces of code are Starlark at all" in as_text(none)


def test_the_budget_is_the_auditors(capsys: pytest.CaptureFixture[str]) -> None:
    """`--ticks` grants more or less; it is a number of at least 1."""
    words = [str(FILES / f"{FOLLOWED}.zip"), "--trust", str(trusted(FOLLOWED))]
    assert main([*words, "--ticks", "2000"]) == 2
    assert "V21.budget" in capsys.readouterr().out
    assert main([*words, "--ticks", "5000"]) == 0
    for wrong in ("0", "-1", "many", "1e9", "٣"):
        assert main([*words, f"--ticks={wrong}"]) == 64


def test_without_the_engine_it_is_said_what_was_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is executed and nothing parsed: both are counted, and the tokens of the code are checked all the same."""

    def nothing(engine: str) -> str:
        raise NotRecomputed("no engine is installed")

    monkeypatch.setattr(recompute, "interpreter", nothing)
    found = report()
    assert (found.verdict, found.counts["steps"]["again"], found.counts["steps"]["unparsed"]) == ("verified", 0, 2)
    assert "no engine is installed" in found.axes["computation"]["shown"]
    left = f"the outputs of {STEPS} of {STEPS} pure steps: not executed here"
    assert left in json.loads(as_json(found))["not_checked"]
    assert f"not checked   {left}" in as_text(found)
    last = as_text(found).splitlines()[-1]
    assert last.startswith(f"VERIFIED: everything that was checked holds. Not checked: {STEPS} outputs of pure steps, ")
    assert report("workflow-code-with-a-float").codes() == ["V21.definition"]


def test_that_all_was_executed_again_can_be_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--require re-executed` is met with the engine, and without it leaves the pack incomplete."""
    words = [str(FILES / f"{FOLLOWED}.zip"), "--trust", str(trusted(FOLLOWED)), "--require", "re-executed"]
    assert main(words) == 0
    assert "everything that was checked holds. Not checked: what stands above" in capsys.readouterr().out

    def nothing(engine: str) -> str:
        raise NotRecomputed("no engine is installed")

    monkeypatch.setattr(recompute, "interpreter", nothing)
    assert main(words) == 2
    assert "V21.unexecuted" in capsys.readouterr().out
    assert main([*words, "--record", "x"]) == 64


def test_what_a_machine_ended_stays_the_operators_word() -> None:
    """A step that is said to have run out of memory is counted, and that it came to an end here is said."""
    ledger = Ledger()
    again = recomputed.Recomputed(ledger)
    body = {
        "engine": next(iter(recompute.ENGINES)), "limits": dict(recomputed.LIMITS),
        "status": "limit", "message": "memory: more than the step may use", "ticks": 0, "result": None,
    }  # fmt: skip
    again.add(7, "a.b", _MAIN, "{}", body)
    again.add(8, "a.b", "def main():\n    return {'a': 'x' * 900000000}\n", "{}", body)
    again.finish()
    assert (again.total, again.executed, again.ended, again.ended_otherwise) == (2, 0, 2, 1)
    assert ledger.status("V21") == "skipped"


def test_what_says_less_than_it_takes_is_not_executed_to_its_end() -> None:
    """A step that is said to take no ticks and takes all costs the auditor a thousand."""
    ledger = Ledger()
    again = recomputed.Recomputed(ledger, 1_500)
    loop = "def main():\n    for _ in range(9000000):\n        pass\n    return {}\n"
    body = {
        "engine": next(iter(recompute.ENGINES)), "limits": dict(recomputed.LIMITS),
        "status": "ok", "message": "", "ticks": 0, "result": "sha256:" + "0" * 64,
    }  # fmt: skip
    again.add(7, "a.b", loop, "{}", body)
    again.finish()
    (finding,) = ledger.steps["V21"].findings
    assert (finding.code, finding.expected) == ("V21.compute", "ticks")
    assert again.budget > -100_000


def test_following_runs_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that would take too long are not followed, which leaves the pack incomplete and refutes nothing."""
    monkeypatch.setattr(workflows, "LOOKED_MAX", 12)
    found = report()
    assert (found.verdict, found.codes()) == ("incomplete", ["V21.too_many"])
    monkeypatch.setattr(workflows, "LOOKED_MAX", 10_000)
    assert report().verdict == "verified"
