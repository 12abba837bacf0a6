"""The part that all adapters share: who is asked, what is told to the model, what is reported."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from desk import ACCOUNT, LARGE, SMALL, STRANGER, Broken, Desk, asked
from observed import CALLER_TOOLS
from rig import WAIT_S_MAX

from countermark.adapters import Answer, Governor
from countermark.model.errors import CountermarkError

ADAPTERS = Path(__file__).parent.parent.parent / "src" / "countermark" / "adapters"


def test_allowed_runs_once_and_is_reported(desk: Desk) -> None:
    """The tool runs between a durable decision and a report; the same call again does not run it again."""
    governor = desk.governor()
    for _ in range(2):
        found = governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    assert desk.done == [("T-1", SMALL)]
    assert isinstance(found, Answer)
    assert found.document()["output"] == {"receipt": "r-T-1"}
    assert desk.outcomes() == [("confirmed", "reported")]


def test_denied_is_told_without_a_threshold(desk: Desk) -> None:
    """The model gets a code and a next step, and the tool does not run."""
    found = desk.governor().call("refund", asked(3_000_000), "c-1", lambda: desk.refund(**asked(3_000_000)))
    assert isinstance(found, Answer)
    assert (found.go, found.ok) == (False, False)
    assert set(found.document()) == {"status", "code", "next_step"}
    assert "2500000" not in found.text
    assert desk.done == []


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("transfer_everything", {}, "unknown_tool"),
        ("refund", {"amount": "1000", "account": ACCOUNT, "ticket": "T-1"}, "bad_argument"),
        ("refund", {"amount": 10.5, "account": ACCOUNT, "ticket": "T-1"}, "bad_argument"),
        ("refund", {**asked(), "extra": 1}, "unknown_argument"),
        ("refund", {"amount": 1000, "account": ACCOUNT}, "missing_argument"),
        ("refund", {"amount": [1000], "account": ACCOUNT, "ticket": "T-1"}, "bad_argument"),
    ],
)
def test_what_the_policy_does_not_know_is_refused(desk: Desk, name: str, args: dict[str, Any], code: str) -> None:
    """An unknown tool, a wrong type, an argument too many or too few: the tool does not run."""
    found = desk.governor().call(name, args, "c-1", lambda: desk.refund(**asked()))
    assert isinstance(found, Answer)
    assert found.document()["code"] == code
    assert desk.done == []


def test_what_waits_is_the_same_action_when_it_is_asked_again(desk: Desk) -> None:
    """A model that repeats a call under a new id, before or after people answered, does not start another action."""
    governor = desk.governor()
    waiting = governor.ask("refund", asked(LARGE), "c-1")
    assert (waiting.go, waiting.waiting) == (False, True)
    assert governor.ask("refund", asked(LARGE), "c-2").action == waiting.action
    desk.approve()
    go = governor.ask("refund", asked(LARGE), "c-3")
    assert (go.go, go.action) == (True, waiting.action)
    governor.report(go, "confirmed")
    assert governor.ask("refund", asked(LARGE), "c-3").document()["code"] == "duplicate_obligation"
    assert desk.outcomes() == [("confirmed", "reported")]


def test_a_tool_that_raises_is_unknown(desk: Desk) -> None:
    """It may have done something before; the exception goes on its way, and nothing is released."""
    desk.fails = True
    governor = desk.governor()
    with pytest.raises(RuntimeError):
        governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    again = governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    assert (again.document()["status"], desk.done) == ("unknown", [("T-1", SMALL)])
    with pytest.raises(RuntimeError):
        asyncio.run(governor.acall("note", {"text": "x"}, "c-2", _fails))
    assert desk.outcomes() == [("unknown", "reported")] * 2


async def _fails() -> None:
    raise RuntimeError("no")


def test_what_nobody_foresaw_is_raised() -> None:
    """An adapter's hook that crashes must stop the tool: nothing is swallowed on the way to the framework."""
    governor = Governor(Broken())  # type: ignore[arg-type]
    ran: list[int] = []
    with pytest.raises(RuntimeError, match="crashed"):
        governor.call("refund", asked(), "c-1", lambda: ran.append(1))
    assert ran == []


def test_a_report_that_fails_takes_nothing_back(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The tool has run, so its result goes on; the action becomes unknown, and the log says so."""
    governor = desk.governor()
    answer = governor.ask("note", {"text": "x"}, "c-1")

    def gone(*_: Any, **__: Any) -> Any:
        raise CountermarkError("the gate is gone", code="gate_halted")

    desk.gate.settle = gone  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        governor.report(answer, "confirmed")
    assert "was not reported" in caplog.text


def test_the_gate_executes_what_stands_in_acts(desk: Desk) -> None:
    """The framework's own function never runs; the model is told the outcome and the reference."""
    args = {"amount": SMALL, "currency": "eur", "destination": ACCOUNT, "metadata": None, "metadata[invoice]": "INV-1"}
    found = desk.governor(acts=["pay"]).call("pay", args, "c-1", lambda: desk.done.append(("x", 1)))
    assert isinstance(found, Answer)
    assert (found.ok, found.document()["status"]) == (True, "confirmed")
    assert found.document()["ref"].startswith("tr_")
    assert desk.done == []
    assert len(desk.provider.effects) == 1


def test_what_is_free_is_not_asked_about(desk: Desk) -> None:
    """A tool that is listed as free runs without a record."""
    governor = desk.governor(free=["clock"])
    assert governor.call("clock", {"zone": 1.5}, None, lambda: "noon") == "noon"
    assert desk.decisions() == []


def test_call_ids_of_any_form_are_identities(desk: Desk) -> None:
    """An id that is not in the gate's form is one all the same: as its digest."""
    governor = desk.governor()
    for call_id in ("id with spaces", "ü" * 200, "\ud800"):
        args = {"text": call_id[:2].encode("ascii", "replace").decode()}
        first = governor.ask("note", args, call_id)
        governor.release(first)
        again = governor.ask("note", args, call_id)
        assert (first.go, again.go) == (True, True)
        assert first.action == again.action
    assert desk.decisions() == ["allow"] * 3


def test_an_object_within_an_argument_is_dotted(desk: Desk) -> None:
    """Nested arguments have the names that a JSON object tool gives them; what is null is absent."""
    answer = desk.governor().ask("note", {"text": {"body": "x"}, "to": None}, "c-1")
    assert answer.document()["code"] == "unknown_argument"


@pytest.mark.parametrize(
    "result", ["{", "[1]", "text", 7, None, {"receipt": 7}, {"receipt": "a\x00b"}, {1: "x"}, "{" * 40_000]
)
def test_any_result_can_be_reported(desk: Desk, result: Any) -> None:
    """Whatever a tool returns, its outcome is recorded; what is not declared is left out."""
    governor = desk.governor()
    governor.report(governor.ask("refund", asked(), "c-1"), "confirmed", result)
    assert desk.outcomes() == [("confirmed", "reported")]


def test_before_and_after_are_one_call(desk: Desk) -> None:
    """For hooks that come separately: an outcome without a go is nobody's."""
    governor = desk.governor()
    governor.after("refund", asked(), "c-1", "confirmed")
    assert governor.before("refund", asked(), "c-1").go
    governor.after("refund", asked(), "c-1", "confirmed", {"receipt": "r"})
    governor.after("refund", asked(), "c-1", "confirmed")
    denied = asked(account=STRANGER, ticket="T-2")
    assert not governor.before("refund", denied, "c-2").go
    governor.after("refund", denied, "c-2", "confirmed")
    assert desk.outcomes() == [("confirmed", "reported")]
    assert json.loads(governor.ask("refund", asked(), "c-1").text)["output"] == {"receipt": "r"}


def test_run_with_other_arguments_than_decided_is_unknown(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody between the decision and the tool changed the amount: the record does not say confirmed."""
    governor = desk.governor()
    governor.before("refund", asked(), "c-1")
    with caplog.at_level(logging.ERROR):
        governor.after("refund", asked(LARGE), "c-1", "confirmed", {"receipt": "r"})
    assert "other arguments" in caplog.text
    assert desk.outcomes() == [("unknown", "reported")]


def test_a_call_under_way_is_not_told_to_go_again(desk: Desk) -> None:
    """A client that repeats a call before the first one ended does not make it run twice, however the threads fall."""
    governor = desk.governor()
    entered, leave = threading.Event(), threading.Event()

    def slow() -> str:
        entered.set()
        assert leave.wait(WAIT_S_MAX)
        return desk.refund(**asked())

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(governor.call, "refund", asked(), "c-1", slow)
        assert entered.wait(WAIT_S_MAX)
        second = governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
        assert second.document()["code"] == "already_running"
        leave.set()
        assert first.result() == '{"receipt": "r-T-1"}'
    assert desk.done == [("T-1", SMALL)]
    assert desk.decisions() == ["allow"]


def test_many_at_once_run_one(desk: Desk) -> None:
    """Sixteen threads with the same call: one effect, whoever is first."""
    governor = desk.governor()
    with ThreadPoolExecutor(16) as pool:
        asking = [
            pool.submit(governor.call, "refund", asked(), "c-1", lambda: desk.refund(**asked())) for _ in range(16)
        ]
        found = [one.result() for one in asking]
    assert desk.done == [("T-1", SMALL)]
    assert found.count('{"receipt": "r-T-1"}') == 1


def test_a_call_that_could_not_be_reported_is_not_told_to_go_again(desk: Desk) -> None:
    """The tool ran and the report was lost: to the gate the call is open, and it would say go."""
    governor = desk.governor()
    with patch.object(desk.gate, "settle", side_effect=CountermarkError("gone", code="gate_halted")):
        governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    again = governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    assert again.document()["code"] == "already_running"
    assert desk.done == [("T-1", SMALL)]


def test_a_paused_tool_is_asked_about_again(desk: Desk) -> None:
    """A tool that says that it has not run yet leaves the action open, and runs under the same decision later."""
    governor = desk.governor()

    def waits() -> str:
        raise LookupError("not yet")

    with pytest.raises(LookupError):
        governor.call("refund", asked(), "c-1", waits, paused=(LookupError,))
    assert desk.outcomes() == []
    governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
    governor.before("refund", asked(ticket="T-2"), "c-2")
    governor.pause("c-2")
    assert governor.before("refund", asked(ticket="T-2"), "c-2").go
    assert desk.decisions() == ["allow", "allow"]


def test_a_cancelled_tool_is_unknown(desk: Desk) -> None:
    """A framework's time limit cancels the tool: what it did until then nobody knows, and it is reported at once."""

    async def go() -> None:
        async def slow() -> str:
            desk.done.append(("T-1", SMALL))
            await asyncio.Event().wait()
            return ""

        await asyncio.wait_for(desk.governor().acall("refund", asked(), "c-1", slow), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(go())
    assert desk.done == [("T-1", SMALL)]
    assert desk.outcomes() == [("unknown", "reported")]


@pytest.mark.parametrize(
    "args",
    [
        {"amount": SMALL, "iban": STRANGER, "account": ACCOUNT, "ticket": "T-1"},
        {"amount": SMALL, "account": ACCOUNT, "iban": STRANGER, "ticket": "T-1"},
        {"amount": SMALL, "account": ACCOUNT, "ticket": {"a": "x"}, "ticket.a": "y"},
    ],
)
def test_an_argument_under_two_names_is_refused(desk: Desk, args: dict[str, Any]) -> None:
    """The gate would judge one of them and the tool take the other."""
    found = desk.governor(names={"iban": "account"}).call("refund", args, "c-1", lambda: desk.refund(**asked()))
    assert "twice" in found.text
    assert desk.done == []


def test_an_unreachable_gate_refuses(desk: Desk) -> None:
    """The gate's process is gone and nobody takes its place: the tool does not run."""
    with desk.unreachable() as governor:
        found = governor.call("refund", asked(), "c-1", lambda: desk.refund(**asked()))
        assert found.document()["code"] == "gate_halted"
    assert desk.done == []


def test_no_framework_is_imported_with_the_package() -> None:
    """Neither the package nor the adapters' room, nor an adapter itself, imports a framework until it is used."""
    code = (
        "import sys, countermark.adapters\n"
        "from countermark.adapters import claude_agent, crewai, fastmcp, google_adk\n"
        "from countermark.adapters import langchain, openai_agents, pydantic_ai\n"
        "names = 'agents', 'claude_agent_sdk', 'crewai', 'fastmcp', 'google', 'langchain', 'langgraph', 'pydantic_ai'\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", sorted(ADAPTERS.glob("*.py")), ids=lambda path: path.stem)
def test_an_adapter_is_small(path: Path) -> None:
    """Every adapter stays under 100 lines; what they share is the governor's."""
    assert path.stem == "governor" or len(path.read_text("utf-8").splitlines()) < 100


def test_the_policy_in_the_docs_is_the_one_that_is_tested() -> None:
    """The tool that the page declares stands word for word in the policy of these tests."""
    page = (ADAPTERS.parent.parent.parent / "docs" / "adapters.md").read_text("utf-8")
    assert page.partition("```toml\n")[2].partition("```")[0].strip() in CALLER_TOOLS
