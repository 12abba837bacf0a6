"""``countermark.Client`` answers over HTTP what a deployment answers in its own process."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_gate import FarGate, far_gate, pay
from observed import REFUND, refund_args
from rig import TOOL, Provider, args_for, bodies
from support import records

import countermark
from countermark.adapters import Governor
from countermark.log import leaf_hash, open_checkpoint, verify_inclusion
from countermark.model.errors import (
    ArgumentError,
    AuthorityError,
    ConfigError,
    CountermarkError,
    EncodingError,
    GateBusyError,
    GateHaltedError,
)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarGate]:
    with far_gate(tmp_path_factory.mktemp("client") / "d", limits={"idle_ms_max": 200}) as served:
        yield served


@pytest.fixture
def client(gate: FarGate) -> Iterator[countermark.Client]:
    with gate.client() as made:
        yield made


def test_the_answer_is_that_of_the_deployment(gate: FarGate, client: countermark.Client) -> None:
    """Allow, deny, escalate: the gate's own process, asked the same, gives the same answer."""
    run = client.start_run(purpose="invoices")
    for number, amount, status in (("a1", 1_000, "confirmed"), ("a2", 10**9, "denied"), ("a3", 600_000, "escalated")):
        found = pay(client, number, amount, run=run)
        assert (found.status, found.run) == (status, run)
        assert gate.near.act(TOOL, args_for(number, amount), call_id=f"pay-{number}", run=run) == found
        assert client.result(found.action) == found
    assert len([key for key in gate.provider.sent if key]) == len(set(gate.provider.sent))


def test_asked_again_it_is_the_same_action(gate: FarGate, client: countermark.Client) -> None:
    """The same run and call_id, by this client or the next one, get the recorded answer and send nothing more."""
    run = client.start_run()
    first = pay(client, "b1", run=run)
    sent = len(gate.provider.sent)
    with gate.client() as later:
        assert [pay(one, "b1", run=run) for one in (client, later)] == [first, first]
    assert len(gate.provider.sent) == sent


def test_one_run_for_each_client(gate: FarGate, client: countermark.Client) -> None:
    """Actions that name no run share one that the client mints, also when threads begin at once."""
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(pay(client, f"c{n}"))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {result.status for result in found} == {"confirmed"}
    assert len({result.run for result in found}) == 1


def test_an_escalation_that_people_answer(gate: FarGate, client: countermark.Client) -> None:
    """The same call after the approval is confirmed; before it, nothing was sent."""
    before = len(gate.provider.sent)
    asked = pay(client, "d1", 600_000)
    assert (asked.status, asked.disposition, len(gate.provider.sent)) == ("escalated", "escalate", before)
    assert asked.escalation is not None
    gate.approve()
    assert pay(client, "d1", 600_000).status == "confirmed"


def test_errors_are_those_of_the_house(gate: FarGate, client: countermark.Client) -> None:
    """Code and kind are those that the deployment raises, for whatever is no action."""
    run = client.start_run()
    pay(client, "e1", run=run)
    act = "act_" + "0" * 32
    wrong = [
        (ArgumentError, "identity_conflict", lambda one: one.act(TOOL, args_for("e2"), call_id="pay-e1", run=run)),
        (ArgumentError, "unknown_tool", lambda one: one.act("no.such.tool", {}, run=run)),
        (ArgumentError, "missing_argument", lambda one: one.act(TOOL, {"amount": 1}, run=run)),
        (ArgumentError, "bad_argument", lambda one: one.act(TOOL, {**args_for("e3"), "amount": "1000"}, run=run)),
        (ArgumentError, "bad_argument", lambda one: one.act(TOOL, {**args_for("e3"), "amount": 10.5}, run=run)),
        (ArgumentError, "bad_argument", lambda one: one.act(TOOL, args_for("e4"), call_id="a b", run=run)),
        (ArgumentError, "unknown_run", lambda one: one.act(TOOL, args_for("e5"), run="run_" + "0" * 32)),
        (ArgumentError, "unknown_action", lambda one: one.settle(act, "confirmed")),
        (ArgumentError, "unknown_tool", lambda one: one.admit(TOOL, args_for("e6"), run=run)),
        (AuthorityError, "mandate_missing", lambda one: one.start_run(mandate="sha256:" + "0" * 64)),
    ]
    for kind, code, ask in wrong:
        for one in (client, gate.near):
            with pytest.raises(CountermarkError) as caught:
                ask(one)
            assert (caught.value.code, caught.value.retryable) == (code, False), (one, caught.value)
        with pytest.raises(kind):
            ask(client)


def test_nothing_foreign_is_raised(client: countermark.Client) -> None:
    """What cannot be asked at all is an error of ours too, and nothing is sent."""
    run = client.start_run()
    deep: list[object] = []
    for _ in range(2_000):
        deep = [deep]
    asks = [
        lambda: client.act(TOOL, args_for("f"), wait="never"), lambda: client.act(TOOL, [1], run=run),
        lambda: client.act(TOOL, {"amount": object()}, run=run), lambda: client.act(TOOL, {"amount": deep}, run=run),
        lambda: client.act(TOOL, {1: 2}, run=run), lambda: client.act(TOOL, {"amount": 10**30}, run=run),
        lambda: client.act(TOOL, {"amount": "\ud800"}, run=run), lambda: client.act("\ud800", {}, run=run),
        lambda: client.act(TOOL, args_for("f"), call_id="\ud800", run=run), lambda: client.act(TOOL, {}, run="../runs"),
        lambda: client.act(TOOL, {"amount": "x" * (1 << 20)}, run=run),
        lambda: client.act(TOOL, args_for("f"), because="act_1", run=run), lambda: client.act(5, {}, run=run),
        lambda: client.act(TOOL, args_for("f"), reason=5, run=run), lambda: client.result("../runs"),
        lambda: client.receipt("act_1"), lambda: client.explanation(""), lambda: client.end_run("run_1"),
        lambda: client.settle("act_1", "confirmed"), lambda: client.settle("act_" + "0" * 32, "confirmed", output=[1]),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises((ArgumentError, EncodingError)):
            ask()


def test_what_the_agent_says_is_recorded(gate: FarGate, client: countermark.Client) -> None:
    """Reason, model, trace and because stand in the record of the decision, as claimed."""
    first = pay(client, "g1")
    second = pay(client, "g2", reason="due", model="m-1", trace="t-1", because=[first.action])
    [claimed] = [body["claimed"] for body in bodies(gate.root, "action.decided") if body["id"] == second.action]
    assert (claimed["model"], claimed["trace"], claimed["because"]) == ("m-1", "t-1", [first.action])
    assert claimed["reason"]


def test_receipt_and_explanation(gate: FarGate, client: countermark.Client) -> None:
    """The receipt's proofs lead from the very records to the signed head; the explanation shows no threshold."""
    paid = pay(client, "h1")
    shown = client.receipt(paid.action)
    head = open_checkpoint(shown["checkpoint"].encode(), [gate.made.log_key])
    assert {shown["receipt"]["decided"], shown["receipt"]["settled"]} == {paid.receipt.decided, paid.receipt.settled}
    leaves = {r.seq: leaf_hash(r.raw) for r in records(gate.root)}
    assert len(shown["proofs"]) == 2
    for proof in shown["proofs"]:
        path = [bytes.fromhex(part) for part in proof["path"]]
        verify_inclusion(leaves[proof["seq"]], proof["seq"], head.size, path, head.root)
    told = client.explanation(paid.action)
    assert (told["id"], told["status"], told["call_id"]) == (paid.action, "confirmed", "pay-h1")
    assert "900000000" not in str(told)


def test_a_run_ends(client: countermark.Client) -> None:
    """In a run that ended nothing more is decided; what was decided before is still answered."""
    run = client.start_run(purpose="once")
    first = pay(client, "i1", run=run)
    for _ in range(2):  # whoever lost the answer asks again
        client.end_run(run, reason="done")
    with pytest.raises(ArgumentError) as caught:
        pay(client, "i2", run=run)
    assert caught.value.code == "unknown_run"
    assert pay(client, "i1", run=run)[:-2] == first[:-2]  # all but the receipt, whose log has grown


def test_the_next_action_after_the_clients_own_run_ended(client: countermark.Client) -> None:
    """A client whose own run was ended mints another one."""
    run = pay(client, "j1").run
    client.end_run(run)
    assert pay(client, "j2").run != run


def test_admit_and_settle(gate: FarGate, client: countermark.Client) -> None:
    """The caller is told to go, acts, reports; a second report that differs is refused."""
    asked = client.admit(REFUND, refund_args("k1"), call_id="k1")
    assert (asked.admitted, asked.status) == (True, "pending")
    done = client.settle(asked.action, "confirmed", ref="r-1", output={"receipt": "r-1", "left": 3})
    assert (done.status, done.ref, dict(done.output)) == ("confirmed", "r-1", {"receipt": "r-1", "left": 3})
    assert client.settle(asked.action, "confirmed", ref="r-1") == done
    with pytest.raises(ArgumentError) as caught:
        client.settle(asked.action, "failed")
    assert caught.value.code == "already_settled"
    assert not client.admit(REFUND, refund_args("k1"), call_id="k1").admitted


def test_an_adapter_takes_a_client(gate: FarGate, client: countermark.Client) -> None:
    """The same governor, with a client in place of a deployment: go, no, and nothing when the gate is not there."""
    governor, ran = Governor(client, run=client.start_run(), tools={"refund": REFUND}), []
    assert governor.call("refund", refund_args("l1"), "l-1", lambda: ran.append("l1") or "done") == "done"
    refused = governor.call("refund", refund_args("l2", 10**9), "l-2", lambda: ran.append("l2"))
    assert (refused.go, refused.document()["status"]) == (False, "denied")
    with gate.client("cmk_of_nobody") as stranger:
        lost = Governor(stranger, tools={"refund": REFUND}).call(
            "refund", refund_args("l3"), "l-3", lambda: ran.append(3)
        )
    assert lost.document()["code"] == "not_authenticated"
    assert ran == ["l1"]


def test_a_wrong_token_is_refused_and_told_to_nobody(gate: FarGate) -> None:
    """The error is one of authority; neither it, its traceback nor the client's repr holds the token."""
    token = "cmk_canary_that_nobody_issued"
    with gate.client(token) as client:
        with pytest.raises(AuthorityError) as caught:
            pay(client, "m1")
        assert caught.value.code == "not_authenticated"
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(client) + str(client)
    assert token not in told


def test_connections_are_kept_and_made_anew(gate: FarGate, client: countermark.Client) -> None:
    """Calls share a connection; one that the server ended meanwhile is not noticed."""
    pay(client, "n1")
    [kept] = client._asker._sender._idle
    pay(client, "n2")
    assert client._asker._sender._idle == [kept]
    kept.settimeout(20)
    assert kept.recv(1) == b""  # the server ends what only waits
    assert pay(client, "n3").status == "confirmed"


@pytest.mark.parametrize(
    ("url", "token", "more", "code"),
    [
        ("http://10.0.0.5:8521", "cmk_x_123", {}, "needs_tls"), ("http://gate.example", "cmk_x_123", {}, "needs_tls"),
        ("ftp://127.0.0.1", "cmk_x_123", {}, "bad_config"), ("127.0.0.1:8521", "cmk_x_123", {}, "bad_config"),
        ("http://127.0.0.1/x", "cmk_x_123", {}, "bad_config"), ("https://a@b.example", "cmk_x_123", {}, "bad_config"),
        ("http://[::1", "cmk_x_123", {}, "bad_config"), ("http://127.0.0.1:0", "cmk_x_123", {}, "bad_config"),
        (None, "cmk_x_123", {}, "bad_config"), ("http://127.0.0.1", "cmk_x_123\n", {}, "bad_config"),
        ("http://127.0.0.1", "", {}, "bad_config"), ("http://127.0.0.1", "cmk_x\r\ny: z", {}, "bad_config"),
        ("http://127.0.0.1", None, {}, "bad_config"), ("http://127.0.0.1", "é" * 20, {}, "bad_config"),
        ("http://127.0.0.1", "cmk_x_123", {"timeout_ms": 0}, "bad_config"),
        ("http://127.0.0.1", "cmk_x_123", {"timeout_ms": 1.5}, "bad_config"),
        ("http://127.0.0.1", "cmk_x_123", {"tries": 0}, "bad_config"),
        ("https://127.0.0.1", "cmk_x_123", {"ca_file": "/nowhere.pem"}, "bad_config"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_at_once(url: str, token: str, more: dict[str, object], code: str) -> None:
    """Before anything is sent: a token crosses no network in clear and brings no header of its own."""
    with pytest.raises(ConfigError) as caught:
        countermark.Client(url, token, **more)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert not token or token not in str(caught.value)


def test_waiting_for_the_decision_alone(tmp_path: Path) -> None:
    """With ``wait="decision"`` the answer comes while the provider is still at it, and the outcome is recorded."""
    provider = Provider(["hold"])
    with far_gate(tmp_path / "d", provider) as gate, gate.client() as client:
        asked = pay(client, "1", wait="decision")
        assert (asked.status, asked.disposition, asked.receipt.settled) == ("pending", "allow", None)
        assert provider.held.acquire(timeout=20)
        assert client.result(asked.action).status == "pending"
        provider.go.set()
    assert [body["outcome"] for body in bodies(gate.root, "action.settled")] == ["confirmed"]


def test_a_busy_gate_is_asked_again_as_long_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with ``Retry-After``: the same call is repeated after that time, and is done once."""
    provider = Provider(["hold"])
    with far_gate(tmp_path / "d", provider, {"requests_max": 1}) as gate, gate.client() as client:
        run = client.start_run()
        first = threading.Thread(target=pay, args=(client, "1"), kwargs={"run": run})
        first.start()
        assert provider.held.acquire(timeout=20)
        waited: list[float] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            provider.go.set()
            first.join()

        monkeypatch.setattr("countermark.client.asker.sleep", wait)
        assert pay(client, "2", run=run).status == "confirmed"
    assert waited == [1.0]
    assert [body["call_id"] for body in bodies(gate.root, "action.decided")] == ["pay-1", "pay-2"]


def test_a_gate_that_stays_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last try the gate's own error is raised, and nothing was recorded of the call."""
    provider = Provider(["hold"])
    monkeypatch.setattr("countermark.client.asker.sleep", lambda seconds: None)
    with far_gate(tmp_path / "d", provider, {"requests_max": 1}) as gate, gate.client(tries=3) as client:
        run = client.start_run()
        first = threading.Thread(target=pay, args=(client, "1"), kwargs={"run": run})
        first.start()
        assert provider.held.acquire(timeout=20)
        with pytest.raises(GateBusyError) as caught:
            pay(client, "2", run=run)
        assert (caught.value.code, caught.value.retryable) == ("gate_busy", True)
        provider.go.set()
        first.join()
    assert len(bodies(gate.root, "action.decided")) == 1


def test_an_answer_that_takes_too_long(tmp_path: Path) -> None:
    """The whole call has ``timeout_ms``; the error names the run and the call_id that nobody else knows."""
    provider = Provider(["hold"])
    with far_gate(tmp_path / "d", provider) as gate, gate.client(timeout_ms=300) as client:
        with pytest.raises(GateHaltedError) as caught:
            client.act(TOOL, args_for("1"))
        assert caught.value.retryable
        provider.go.set()
        run, call_id = caught.value.hint.rpartition(" run: ")[2].rstrip(".").split(", call_id: ")
        with gate.client() as patient:
            found = patient.act(TOOL, args_for("1"), run=run, call_id=call_id)
    [settled] = bodies(gate.root, "action.settled")
    assert (settled["id"], settled["outcome"], len(provider.effects)) == (found.action, "confirmed", 1)
