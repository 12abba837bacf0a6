"""Tricks in the agent's own process: the client, its arguments, its objects, its memory."""

from __future__ import annotations

import functools
import pickle
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from siege import (
    ACME,
    AGENT,
    ASK,
    REFUND,
    TOOL,
    Siege,
    args_for,
    embedded,
    paid_at,
    refund_args,
    signed_answer,
    unsound,
)

import countermark
from countermark.adapters.governor import Governor
from countermark.gate import actions
from countermark.model.errors import CountermarkError
from countermark.wiring import deployment as wiring

OVER = 2_500_001  # above the limit that no approval lifts


@pytest.fixture
def client(siege: Siege) -> Iterator[countermark.Deployment]:
    """The Python client of the gate that the child owns."""
    with countermark.open(siege.root, agent=AGENT) as handle:
        assert not handle.owner
        yield handle


class Turning(Mapping[str, Any]):
    """Arguments whose amount is another one each time it is looked at."""

    def __init__(self, invoice: str, *amounts: int) -> None:
        self._rest = args_for(invoice)
        self._amounts = list(amounts)

    def __getitem__(self, name: str) -> Any:
        if name == "amount" and len(self._amounts) > 1:
            return self._amounts.pop(0)
        return self._amounts[0] if name == "amount" else self._rest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rest)

    def __len__(self) -> int:
        return len(self._rest)


class Lying(int):
    """A number that compares, prints and converts as another one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __ge__ = __gt__ = __lt__

    def __hash__(self) -> int:
        return hash(5)

    def __str__(self) -> str:
        return "5"

    __repr__ = __str__

    def __int__(self) -> int:
        return 5

    __index__ = __int__


class Payee(str):
    """A text that equals every other one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(ACME)


def test_arguments_by_position(client: countermark.Deployment) -> None:
    """Prevented: call id, run or agent given by position, where one could pass for another."""
    for more in (("c-1",), ("c-1", "run_" + "0" * 32, AGENT)):
        with pytest.raises(TypeError):
            client.act(TOOL, args_for("CLIENT-1"), *more)  # type: ignore[misc]
    with pytest.raises(TypeError):
        client.act(TOOL, args_for("CLIENT-1"), approved=True)  # type: ignore[call-arg]


def test_arguments_that_turn(siege: Siege, client: countermark.Deployment, tmp_path: Path) -> None:
    """Prevented: a mapping that shows one amount to the check and another one to the sender: it is read once."""
    assert client.act(TOOL, Turning("CLIENT-2", 7, OVER, OVER)).status == "confirmed"
    assert [m.amount for m in siege.paid("CLIENT-2")] == [7]
    with embedded(tmp_path) as (own, _, twin):
        assert own.act(TOOL, Turning("CLIENT-2", 7, OVER, OVER)).status == "confirmed"
        assert [m.amount for m in paid_at(twin, "CLIENT-2")] == [7]


def test_the_same_with_the_http_client(siege: Siege) -> None:
    """Prevented: with the HTTP client, arguments by position or that turn, numbers and payees that lie, another agent's
    name or tier: what is sent is what is decided, for the agent of the token.
    """
    with countermark.Client(siege.url, siege.token) as far:
        for more in ({"agent": "clerk"}, {"tier": "embedded"}, {"approved": True}):
            with pytest.raises(TypeError):
                far.act(TOOL, args_for("CLIENT-H"), **more)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            far.act(TOOL, args_for("CLIENT-H"), "c-1")  # type: ignore[misc]
        for args in (
            Turning("CLIENT-H", 7, OVER, OVER), Turning("CLIENT-H", 7, 7, OVER), args_for("CLIENT-H", Lying(OVER)),
            args_for("CLIENT-H", 5, Payee("acct_stranger")),
        ):  # fmt: skip
            try:
                far.act(TOOL, args)
            except (CountermarkError, TypeError):
                continue
    assert [(m.amount, m.destination) for m in siege.paid("CLIENT-H")] in ([], [(7, ACME)])


def test_numbers_and_texts_that_lie(siege: Siege, client: countermark.Deployment, tmp_path: Path) -> None:
    """Prevented: an amount or payee of a class of the caller's own that compares or prints as something else."""
    tricks = [args_for("CLIENT-3", Lying(OVER)), args_for("CLIENT-3", 5, Payee("acct_stranger"))]
    with embedded(tmp_path) as (own, _, twin):
        for args in tricks:
            with pytest.raises(CountermarkError):
                own.act(TOOL, args)
        assert paid_at(twin, "CLIENT-3") == []
    for args in tricks:  # what crosses the socket is the plain value, and is judged as such
        try:
            status = client.act(TOOL, args).status
        except (CountermarkError, TypeError):
            status = "refused"
        assert status in ("denied", "refused", "escalated")
    assert siege.paid("CLIENT-3") == []


def test_arguments_changed_after_they_were_decided(tmp_path: Path) -> None:
    """Prevented: the caller's dictionary changed while people look at the action: what they approved is sent."""
    with embedded(tmp_path) as (own, made, twin):
        args = args_for("CLIENT-4", ASK)
        result = own.act(TOOL, args, call_id="changed")
        args.update(amount=OVER, destination="acct_stranger")
        (parked,) = own.call("escalations", {})
        assert own.call("answer", signed_answer(made, parked))["state"] == "approved"
        assert [(m.amount, m.destination) for m in paid_at(twin, "CLIENT-4")] == [(ASK, ACME)]
    assert result.status == "escalated"


def test_a_client_whose_code_was_replaced(
    siege: Siege, client: countermark.Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevented: everything of the client replaced in the agent's own process: the gate in another one decides."""
    yes: dict[str, Any] = {"disposition": "allow", "status": "confirmed"}
    monkeypatch.setattr(actions, "judge", lambda *_, **__: yes)
    monkeypatch.setattr(
        wiring.Deployment, "_asked",
        lambda self, tool, args, call_id, run, *_: {
            "run": run or self.start_run(), "call_id": "patched", "tool": tool, "args": dict(args), "approved": True,
        },
    )  # fmt: skip
    with pytest.raises(CountermarkError, match="has no member 'approved'"):
        client.act(TOOL, args_for("CLIENT-5"))
    monkeypatch.undo()
    monkeypatch.setattr(actions, "judge", lambda *_, **__: yes)
    assert client.act(TOOL, args_for("CLIENT-5", OVER)).status == "denied"
    assert siege.paid("CLIENT-5") == []


def test_a_gate_whose_code_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detected: a gate embedded in the agent's program, whose decision that program replaced: the payment is made, and
    its recorded decision does not follow from facts and policy, as re-performance says.
    """
    honest = actions.judge

    def bribed(state: Any, ask: Any, *more: Any) -> Any:
        return honest(state, ask._replace(terms={**ask.terms, "amount": 1}), *more)

    with embedded(tmp_path) as (own, made, twin):
        assert own.act(TOOL, args_for("CLIENT-6", OVER)).status == "denied"
        monkeypatch.setattr(actions, "judge", bribed)
        assert own.act(TOOL, args_for("CLIENT-6", OVER)).status == "confirmed"
        monkeypatch.undo()
        assert len(paid_at(twin, "CLIENT-6")) == 1
    assert any("disposition" in wrong or "facts" in wrong for wrong in unsound(made.root)), unsound(made.root)


def test_the_function_behind_a_tool_that_the_caller_runs(siege: Siege, client: countermark.Deployment) -> None:
    """Not covered: a tool that the agent's own process runs, called past its adapter, as by ``__wrapped__``: there is
    no decision and no record. Only what the gate runs itself is out of the agent's reach.
    """
    ran: list[int] = []

    def refund(amount: int, account: str, ticket: str) -> str:
        ran.append(amount)
        return "done"

    governor = Governor(client, run=client.start_run())

    @functools.wraps(refund)
    def governed(**args: Any) -> Any:
        return governor.call(REFUND, args, None, lambda: refund(**args))

    args = dict(refund_args("CLIENT-7", OVER))
    answer = governed(**args)
    assert (answer.go, ran) == (False, [])
    size = siege.size
    assert governed.__wrapped__(**args) == "done"
    assert (siege.size, ran) == (size, [OVER])


def test_another_agents_name_through_the_socket(siege: Siege, client: countermark.Deployment) -> None:
    """Not covered: whoever may open the gate's socket, which is its own OS user alone, says which agent it is. Over
    HTTP the credential says it.
    """
    result = client.act(TOOL, args_for("CLIENT-8"), agent="clerk", run=client.start_run(agent="clerk"))
    assert result.status == "confirmed"
    assert siege.ask("GET", f"/v1/actions/{result.action}").status == 404
    assert oct(siege.root.joinpath("gate.sock").stat().st_mode)[-3:] == "600"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pickles(siege: Siege, client: countermark.Deployment, tmp_path: Path) -> None:
    """Prevented: a pickle that runs code where it is read, as a body, as a frame on the socket or as an argument; and
    an open gate pickled into another process.
    """
    mark = tmp_path / "went off"
    bomb = pickle.dumps(Bomb(mark))
    for kind in ("application/json", "application/octet-stream", "application/x-python-pickle"):
        assert siege.ask("POST", "/v1/actions", bomb, {"content-type": kind}).status in (400, 415)
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(siege.root / "gate.sock"))
        end.sendall(len(bomb).to_bytes(4, "big") + bomb)
        end.settimeout(20)
        assert b"error" in end.recv(65_536)
    with pytest.raises((CountermarkError, TypeError)):
        client.act(TOOL, {**args_for("CLIENT-9"), "description": bomb})  # type: ignore[dict-item]
    with pytest.raises((CountermarkError, TypeError)):
        client.act(TOOL, {**args_for("CLIENT-9"), "description": Bomb(mark)})  # type: ignore[dict-item]
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(client)
    assert not mark.exists()
    assert siege.paid("CLIENT-9") == []
