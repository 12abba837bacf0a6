"""The connectors without a provider: no-op and recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.connectors import NoopConnector, RecordedConnector, noop
from countermark.connectors.read_back import arguments
from countermark.model.errors import CountermarkError
from countermark.model.ports import Connector
from countermark.model.request import prepare
from countermark.model.tool import ArgSpec, ToolSpec

PAY = noop.PAY
ARGS: dict[str, Any] = {"amount": 5, "currency": "usd", "payee": "ada", "invoice": "I & 1"}
ANY = ToolSpec(
    name="any", connector="recorded", class_="change",
    args=(
        ArgSpec("s", "string", "inert", "s", required=False),
        ArgSpec("n", "integer", "inert", "n", required=False),
        ArgSpec("b", "boolean", "inert", "b", required=False),
    ),
    outputs=(("total", "integer"), ("name", "string")), endpoint="POST /any",
)  # fmt: skip


def test_noop_confirms_at_once_and_remembers() -> None:
    """Executing confirms under a reference that only depends on the key and reports no amount: nothing moved. A lookup
    knows the key."""
    connector = NoopConnector()
    as_port: Connector = connector
    assert not as_port.blocking
    request = connector.prepare(PAY, PAY.decode(ARGS), "k1")
    assert connector.lookup(PAY, request, "k1", 0).code == "not_found"
    outcome = connector.execute(PAY, request)
    assert (outcome.status, outcome.amount, outcome.currency) == ("confirmed", None, "")
    assert NoopConnector().execute(PAY, request) == outcome
    assert dataclasses.replace(connector.lookup(PAY, request, "k1", 0), code="ok") == outcome
    assert connector.executed == 1


def test_noop_does_not_guess_about_what_it_forgot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is bounded; once a key was dropped, an absent key is unknown."""
    monkeypatch.setattr(noop, "REMEMBERED_MAX", 2)
    connector = NoopConnector()
    request = connector.prepare(PAY, ARGS, "k")
    for key in "abc":
        connector.execute(PAY, connector.prepare(PAY, ARGS, key))
    assert connector.lookup(PAY, request, "a", 0).status == "unknown"
    assert connector.lookup(PAY, request, "c", 0).status == "confirmed"


VALUES = {"s": st.text(max_size=20), "n": st.integers(-(10**15), 10**15), "b": st.booleans()}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.fixed_dictionaries({}, optional=VALUES), st.sampled_from(["form-v1", "json-v1", "query-v1"]))
def test_arguments_survive_every_encoding(args: Mapping[str, Any], encoding: str) -> None:
    """Arguments read back from a prepared request are the arguments that went in, types included."""
    tool = dataclasses.replace(ANY, encoding=encoding)
    assert arguments(tool, prepare(tool, args, "key")) == args


def test_recorded_answers_and_keeps_a_list() -> None:
    """The recorded result comes back with amount and declared outputs; executed calls are listed; a key that comes
    again gets the first answer and is not listed twice; a recorded error is a refusal."""

    def answers(tool: str, args: Mapping[str, Any]) -> Any:
        if args.get("payee") == "eve":
            raise CountermarkError("no such payee")
        return {"tool": tool, "total": 3, "name": 4, "paid": args.get("amount")}

    connector = RecordedConnector(answers, [PAY, ANY])
    as_port: Connector = connector
    assert as_port.tools() == (PAY, ANY)
    request = connector.prepare(PAY, ARGS, "k1")
    assert connector.lookup(PAY, request, "k1", 0).code == "not_found"
    first = connector.execute(PAY, request)
    assert (first.status, first.amount, first.currency) == ("confirmed", 5, "usd")
    assert first.result == {"tool": "noop.pay", "total": 3, "name": 4, "paid": 5}
    assert connector.execute(PAY, request) is first
    assert connector.lookup(PAY, request, "k1", 0).ref == first.ref
    other = connector.execute(ANY, connector.prepare(ANY, {"n": 1}, "k2"))
    assert (other.amount, other.output) == (None, {"total": 3})
    refused = connector.execute(PAY, connector.prepare(PAY, {**ARGS, "payee": "eve"}, "k3"))
    assert (refused.status, refused.result) == ("failed", {"error": "no such payee"})
    assert [(call.tool, call.args, call.key) for call in connector.executed] == [
        ("noop.pay", ARGS, "k1"),
        ("any", {"n": 1}, "k2"),
    ]
