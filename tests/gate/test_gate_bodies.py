"""What a caller may send: whatever it is, a mistake is that caller's alone, and the lane goes on undisturbed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import AGENT, TOOL, Provider, args_for, hold, kinds, make, pay, unsound, waiting
from socket_peers import Later, Raw, busy_lane, request, until
from support import records
from test_gate_escalation import activate_again

import countermark
from countermark.gate import Gate
from countermark.gate import escalation as escalation_module
from countermark.gate import gate as gate_module
from countermark.gate import orders as orders_module
from countermark.gate.bodies import PAGE_MAX, TEXT_CHARS_MAX
from countermark.model.errors import CountermarkError, EncodingError
from countermark.policy import Bundle
from countermark.wiring.init import Made

LARGE = 600_000
OPS = ("activate", "mandate.grant", "mandate.revoke", "kill.set", "kill.clear", "answer", "result", "run.start",
       "run.end", "act", "status", "escalations", "recover", "ping")  # fmt: skip
NESTED = ("document", "activation", "mandate", "approval", "revocation", "clearance", "key", "value", "id", "run",
          "purpose", "after", "args", "call_id")  # fmt: skip
Stage = tuple[Path, Provider, countermark.Deployment, Made]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        yield tmp_path / "d", provider, handle, made
    assert unsound(tmp_path / "d") == []


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("op", OPS)
def test_nested_json_disturbs_no_lane(stage: Stage, op: str) -> None:
    """Nesting of any depth, in any member of any operation, from either transport, is its caller's error alone."""
    root, _, handle, _ = stage
    writer = handle.gate.lane._writer
    with Raw(root) as peer:
        for name in NESTED:
            for value in (deep(10), deep(40), deep(5_000)):
                with pytest.raises(CountermarkError) as caught:
                    handle.call(op, {name: value})
                assert caught.value.code not in ("gate_halted", "internal_error")
            peer.frame(b'{"id":1,"op":"%s","agent":"treasury","body":{"%s":%s}}'
                       % (op.encode(), name.encode(), b"[" * 60_000 + b"]" * 60_000))  # fmt: skip
            assert peer.answer()["error"]["code"] == "bad_encoding"
            peer.frame(request(op, {name: deep(11)}))
            assert peer.answer()["error"]["code"] not in ("gate_halted", "internal_error")
    assert handle.gate.lane._writer is writer
    assert handle.call("status", {})["kills"] == []


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":1,"op":"status","op":"kill.set","agent":"treasury","body":{"kind":"deployment"}}',
        b'{"id":1,"op":"kill.set","agent":"treasury","body":{"kind":"deployment","kind":"agent"}}',
        b'{"id":1.5,"op":"status","agent":"treasury","body":{}}',
        b'{"id":1,"op":"act","agent":"treasury","body":{"args":{"amount":1e3}}}',
        b'{"id":12345678901234567890,"op":"status","agent":"treasury","body":{}}',
        b'{"id":1,"op":"status","agent":"\\ud800","body":{}}',
    ],
)
def test_frames_are_strict_json(stage: Stage, raw: bytes) -> None:
    """A key twice, a float, a huge integer, half a surrogate pair: the frame is refused, the connection serves on."""
    root, _, handle, _ = stage
    before = handle.call("status", {})["records"]
    with Raw(root) as peer:
        peer.frame(raw)
        assert peer.answer()["error"]["code"] == "bad_encoding"
        peer.frame(request())
        assert peer.answer()["ok"]["records"] == before


def test_a_float_over_the_socket_is_an_error(stage: Stage) -> None:
    """A client whose program passes a float hears so at once, under a stable code."""
    root, provider, _, _ = stage
    with hold(root, provider) as client:
        assert not client.owner
        run = client.start_run()
        with pytest.raises(CountermarkError) as caught:
            client.act(TOOL, args_for(1, 10.5), run=run)
        assert caught.value.code == "bad_encoding"
        assert pay(client, 1, run=run).status == "confirmed"


@pytest.mark.parametrize("agent", [["treasury"], {"a": 1}, 5, None, True, AGENT + "x" * 64])
def test_an_agent_is_a_string(stage: Stage, agent: object) -> None:
    """What names no agent is refused as it stands: nothing is made a string, or cut until it fits."""
    root, _, handle, _ = stage
    before = len(records(root))
    with Raw(root) as peer:
        for op in OPS:
            peer.frame({"id": 7, "op": op, "agent": agent, "body": {}})
            answer = peer.answer()
            assert (answer["id"], answer["error"]["code"] in ("bad_argument", "unknown_agent")) == (7, True)
    with pytest.raises(CountermarkError):
        handle.call("run.start", {}, [] if agent is None else agent)  # type: ignore[arg-type]
    assert len(records(root)) == before


BAD_TEXTS = ("a\nb", "\x1b[2J", "\x7f", "\x9b", "a\u2028b", "x" * (TEXT_CHARS_MAX + 1), 5, None, ["x"], {"a": "b"})


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_texts_are_bounded_lines(stage: Stage, text: object) -> None:
    """Purposes, reasons and names of scopes are strings of bounded length without control characters, or refused."""
    root, _, handle, _ = stage
    run = handle.start_run()
    before = len(records(root))
    for op, body in (
        ("run.start", {"purpose": text}),
        ("run.end", {"run": run, "reason": text}),
        ("run.end", {"run": text}),
        ("kill.set", {"kind": "deployment", "reason": text}),
        ("kill.set", {"kind": "agent", "value": text}),
        ("kill.set", {"kind": text}),
        ("result", {"id": text}),
    ):
        with pytest.raises(CountermarkError) as caught:
            handle.call(op, body)
        assert caught.value.code in ("bad_argument", "bad_encoding")
    assert len(records(root)) == before
    handle.call("run.end", {"run": run, "reason": "é" * TEXT_CHARS_MAX})


def test_a_fault_in_a_message_is_its_own(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A message that fails before it added a record gets an error, with a trace in the log; others are answered."""
    _, _, handle, _ = stage
    run = handle.start_run()
    gate = handle.gate
    writer = gate.lane._writer

    def faulty(_: object) -> None:
        raise RecursionError("a bug")

    with busy_lane(handle):
        first = Later(lambda: pay(handle, 1, run=run))
        until(lambda: len(gate.lane._inbox) == 1)
        fault = Later(lambda: gate.wait(gate.lane.ask(faulty)))
        until(lambda: len(gate.lane._inbox) == 2)
        last = Later(lambda: pay(handle, 2, run=run))
        until(lambda: len(gate.lane._inbox) == 3)
    error = fault.join()
    assert isinstance(error, CountermarkError)
    assert (error.code, error.retryable) == ("internal_error", False)
    assert [first.join().status, last.join().status] == ["confirmed"] * 2
    assert gate.lane._writer is writer
    assert any(record.exc_info for record in caplog.records)


def test_a_fault_in_one_request_loses_no_other_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw becomes the answer to its own request; its neighbours have theirs."""
    root, _, _, _ = stage

    async def faulty(self: object, caller: object, action: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Gate, "result", faulty)
    with Raw(root) as peer:
        peer.frame([request(number=1), request("result", {"id": "act_" + "0" * 32}, 2), request(number=3)])
        one, two, three = peer.answer()
        assert [one["ok"]["deployment"], three["ok"]["deployment"]] == ["test"] * 2
        assert (two["id"], two["error"]["code"]) == (2, "internal_error")
        peer.frame(request())
        assert "ok" in peer.answer()


def test_a_result_is_its_agents_own(stage: Stage) -> None:
    """By an action's ID its agent sees the present answer; to anybody else the action does not exist."""
    _, _, handle, _ = stage
    done, parked = pay(handle, 1), pay(handle, 2, LARGE)
    for action in (done, parked):
        assert handle.call("result", {"id": action.action})["status"] == action.status
        for other in ("other", "", "treasur", "treasury "):
            with pytest.raises(CountermarkError) as caught:
                handle.call("result", {"id": action.action}, other)
            assert caught.value.code == "unknown_action"


def test_escalations_come_in_pages(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest come first, so that nobody hides one behind a heap of older ones; a page is short in every way."""
    _, _, handle, _ = stage
    raised = [pay(handle, number, LARGE).escalation for number in range(23)][::-1]
    default = escalation_module.PAGE_DEFAULT
    page = handle.call("escalations", {})
    assert [entry["escalation"] for entry in page] == raised[:default]
    rest = handle.call("escalations", {"limit": PAGE_MAX, "after": page[-1]["seq"]})
    assert [entry["escalation"] for entry in rest] == raised[default:]
    assert handle.call("escalations", {"after": rest[-1]["seq"]}) == []
    assert [e["escalation"] for e in handle.call("escalations", {"limit": 2})] == raised[:2]
    for wrong in ({"limit": 0}, {"limit": PAGE_MAX + 1}, {"limit": True}, {"limit": "5"}, {"after": "x"},
                  {"limit": None}, {"after": True}, {"page": 1}):  # fmt: skip
        with pytest.raises(CountermarkError) as caught:
            handle.call("escalations", wrong)
        assert caught.value.code in ("bad_argument", "unknown_argument")
    monkeypatch.setattr(escalation_module, "PAGE_BYTES_MAX", 2_000)
    assert len(handle.call("escalations", {})) < 5
    assert [entry["escalation"] for entry in waiting(handle)] == raised[::-1]


def test_a_policy_is_read_beside_the_lane(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is parsed on a thread of its own, and one without an enrolled person's signature not at all."""
    root, _, handle, made = stage
    threads: list[str] = []
    parse = Bundle.from_document

    class Watched:
        @staticmethod
        def from_document(document: Any) -> Bundle:
            threads.append(threading.current_thread().name)
            return parse(document)

    monkeypatch.setattr(orders_module, "Bundle", Watched)
    text = (root / "policy" / "limits.toml").read_text("utf-8")
    activate_again(root, made, handle, {"limits.toml": text + "# once more\n"})
    assert [name.startswith("countermark-aside") for name in threads] == [True]
    with pytest.raises(CountermarkError):
        handle.call("activate", {"document": {"v": 1}, "activation": {}, "key": "", "sig": ""})
    assert len(threads) == 1


def test_an_activation_that_was_overtaken_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another policy comes into force while a bundle is read, the lane refuses the older order."""
    root, _, handle, made = stage
    text = (root / "policy" / "limits.toml").read_text("utf-8")
    read = orders_module.read_activation
    nested: list[str] = []

    def slow(body: Any, in_force: Any, deployment: str) -> Any:
        ready = read(body, in_force, deployment)
        if not nested:
            nested.append("now")
            future = handle.gate._submit(handle.gate.lane.ask(lambda writer: orders_module.activate(writer, ready)))
            nested.append(future.result(10))
        return ready

    monkeypatch.setattr(orders_module, "read_activation", slow)
    with pytest.raises(CountermarkError) as caught:
        activate_again(root, made, handle, {"limits.toml": text + "# once more\n"})
    assert caught.value.code == "bad_policy"
    assert handle.call("status", {})["bundle"] == nested[1]
    assert kinds(root).count("policy.activated") == 2


def test_a_closed_gate_says_so(tmp_path: Path) -> None:
    """A call after closing, or asked again and again while closing, is answered with an error in the one shape."""
    provider = Provider(["hold"])
    make(tmp_path / "d", provider)
    handle = hold(tmp_path / "d", provider)
    run = handle.start_run()
    payer = Later(lambda: pay(handle, 1, run=run))
    assert provider.held.acquire(timeout=10)
    gate = handle.gate
    closer = Later(handle.close)
    until(lambda: gate._closed)
    with pytest.raises(CountermarkError) as caught:
        handle.call("status", {})
    assert (caught.value.code, caught.value.retryable) == ("gate_halted", True)
    provider.go.set()
    assert closer.join() is None
    assert payer.join().status == "confirmed"  # what was under way is finished, and recorded, before the gate leaves
    assert kinds(tmp_path / "d")[-1] == "gate.stopped"
    for op in ("status", "act", "kill.set"):
        with pytest.raises(CountermarkError) as caught:
            handle.call(op, {"kind": "deployment"} if op == "kill.set" else {})
        assert caught.value.code == "gate_halted"
    assert unsound(tmp_path / "d") == []


def test_nobody_waits_for_a_gate_that_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that does not end holds the closing up for a bounded time, and its caller hears that the gate closed."""
    monkeypatch.setattr(gate_module, "CLOSE_WAIT_S", 0.05)
    monkeypatch.setattr(gate_module, "LEAVE_WAIT_S", 0.05)
    make(tmp_path / "d", Provider())
    handle = hold(tmp_path / "d", Provider())
    gate = handle.gate

    begun = threading.Event()

    async def endless() -> None:
        begun.set()
        await gate.loop.create_future()

    stuck = Later(lambda: gate.wait(endless()))
    assert begun.wait(30)
    handle.close()
    error = stuck.join()
    assert isinstance(error, CountermarkError)
    assert error.code == "gate_halted"


def test_a_bad_body_does_not_reach_the_lane(stage: Stage) -> None:
    """What a signed order holds besides strict JSON is refused while the lane is busy with something else."""
    _, _, handle, _ = stage
    with busy_lane(handle):
        for op in ("mandate.grant", "mandate.revoke", "kill.clear", "answer"):
            with pytest.raises(EncodingError):
                handle.call(op, {"key": "k", "sig": 0.5})
