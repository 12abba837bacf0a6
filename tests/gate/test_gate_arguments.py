"""G4 for what callers send: whatever does not fit exactly is refused, recorded without its values, and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig import ACME, AGENT, TOOL, Provider, args_for, bodies, hold, make, signed_revocation, unsound, waiting
from support import records

from countermark.model.errors import CountermarkError

SECRET = "4242-secret-value"
DEEP: Any = []
for _ in range(5_000):
    DEEP = [DEEP]

BAD_ARGS: dict[str, object] = {
    "no object": [],
    "nothing": None,
    "a string": SECRET,
    "empty": {},
    "deeply nested": {**args_for(1), "description": DEEP},
    "deeply nested object": DEEP,
    "amount missing": {k: v for k, v in args_for(1).items() if k != "amount"},
    "amount zero": args_for(1, 0),
    "amount negative": args_for(1, -1),
    "amount NaN": args_for(1, float("nan")),
    "amount infinite": args_for(1, float("inf")),
    "amount float": args_for(1, 1000.0),
    "amount string": args_for(1, "1000"),
    "amount bool": args_for(1, True),
    "amount null": args_for(1, None),
    "amount list": args_for(1, [1000]),
    "amount i64 max": args_for(1, 2**63 - 1),
    "amount beyond i64": args_for(1, 2**63),
    "amount beyond u64": args_for(1, 2**64),
    "amount huge": args_for(1, 10**400),
    "amount minus i64": args_for(1, -(2**63)),
    "payee number": args_for(1, 1000, 7),
    "payee empty": args_for(1, 1000, ""),
    "payee of another form": args_for(1, 1000, SECRET),
    "payee with a newline": args_for(1, 1000, ACME + "\n"),
    "payee with a NUL": args_for(1, 1000, ACME + "\0"),
    "payee with a space": args_for(1, 1000, " " + ACME),
    "payee too long": args_for(1, 1000, "acct_" + "a" * 70_000),
    "payee in Cyrillic": args_for(1, 1000, ACME.replace("A", "А")),
    "payee in full width": args_for(1, 1000, "ａcct_1AcmePaper"),
    "payee with a zero-width space": args_for(1, 1000, "acct_1Acme​Paper"),
    "payee right to left": args_for(1, 1000, "acct_1Acme‮Paper"),
    "payee lone surrogate": args_for(1, 1000, "acct_\ud800"),
    "invoice lone surrogate": {**args_for(1), "metadata[invoice]": "\udfff"},
    "invoice control": {**args_for(1), "metadata[invoice]": "INV\x1b[2J"},
    "invoice oversized": {**args_for(1), "metadata[invoice]": "x" * 70_000},
    "invoice missing": {k: v for k, v in args_for(1).items() if "invoice" not in k},
    "currency in capitals": {**args_for(1), "currency": "EUR"},
    "currency unknown": {**args_for(1), "currency": "xau"},
    "currency not allowed here": {**args_for(1), "currency": "usd"},
    "unknown field": {**args_for(1), "on_behalf_of": SECRET},
    "misspelt field": {**args_for(1), "amuont": 5},
    "field of another case": {**args_for(1), "Amount": 5},
    "field not a string": {**args_for(1), 5: 5},
    "field lone surrogate": {**args_for(1), "\ud800": 5},
    "the gate's own key": {**args_for(1), "metadata[countermark_key]": "cm_x"},
    "another metadata": {**args_for(1), "metadata[other]": "x"},
    "too many fields": {f"f{n}": 1 for n in range(10_000)},
}


BAD_NAMES = list(BAD_ARGS)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One deployment for the whole file: nothing here may change what it does for the next case."""
    root, provider = tmp_path_factory.mktemp("arguments") / "d", Provider()
    make(root, provider)
    with hold(root, provider) as handle:
        yield handle, provider, root
    assert unsound(root) == []
    plain = b"".join(path.read_bytes() for path in (root / "data").iterdir())
    assert SECRET.encode() not in plain


@pytest.mark.parametrize("name", BAD_ARGS)
def test_arguments_that_do_not_fit(gate: Any, name: str) -> None:
    """Refused with a stable code, one record without any value, no decision, nothing sent; the gate goes on."""
    handle, provider, root = gate
    run = handle.start_run()
    before, sent = records(root), len(provider.sent)
    body = {"run": run, "call_id": "c-1", "tool": TOOL, "args": BAD_ARGS[name]}
    with pytest.raises(CountermarkError) as caught:
        handle.call("act", body)
    assert caught.value.code in ("bad_argument", "unknown_argument", "missing_argument")
    (added,) = records(root)[len(before) :]
    assert added.kind == "action.refused"
    assert set(added.body) == {"agent", "run", "call_id", "tool", "code", "field"}
    assert (added.body["run"], added.body["call_id"], added.body["tool"]) == (run, "c-1", TOOL)
    assert len(added.body["field"]) <= 64
    assert SECRET.encode() not in added.raw
    assert len(provider.sent) == sent
    # The refused request took no identity: the call_id is free for a well-formed one.
    fresh = handle.act(TOOL, args_for(f"{BAD_NAMES.index(name)}-after"), run=run, call_id="c-1")
    assert fresh.status == "confirmed"


@pytest.mark.parametrize(
    "change",
    [
        {"run": SECRET}, {"run": None}, {"run": "run_" + "0" * 31}, {"run": ["x"]}, {"run": {}}, {"run": 5},
        {"call_id": SECRET + " !"}, {"call_id": ""}, {"call_id": "x" * 129}, {"call_id": 5}, {"call_id": None},
        {"call_id": "c\n"}, {"call_id": "ç"}, {"call_id": "\ud800"},
        {"tool": SECRET}, {"tool": "stripe.transfers.delete"}, {"tool": "Stripe.transfers.create"}, {"tool": ""},
        {"tool": None}, {"tool": "stripe.transfers.create\n"}, {"tool": "stripe.transfers.сreate"}, {"tool": {}},
        {"tool": "noop.pay"},
        {"reason": 5}, {"reason": ["x"]}, {"reason": "x" * 2_001}, {"reason": "\ud800"}, {"reason": {}}, {"reason": 0},
        {"because": "act_1"}, {"because": [5]}, {"because": ["x"] * 33}, {"because": {"a": 1}}, {"because": [[1]]},
        {"because": 0}, {"model": 5}, {"trace": []}, {"model": "x" * 201}, {"model": False},
        {"amount": 5}, {"agent": "other"}, {"dry_run": True}, {"approval": {}}, {SECRET: 1},
    ],
)  # fmt: skip
def test_requests_that_do_not_fit(gate: Any, change: dict[str, object]) -> None:
    """Names, claims and members of the wrong shape are refused; ill-formed names are recorded as empty strings."""
    handle, provider, root = gate
    body: dict[str, object] = {"run": handle.start_run(), "call_id": "c-1", "tool": TOOL, "args": args_for("r")}
    before, sent = records(root), len(provider.sent)
    with pytest.raises(CountermarkError) as caught:
        handle.call("act", {**body, **change})
    assert caught.value.code in ("bad_argument", "unknown_argument", "unknown_tool", "unknown_run")
    (added,) = records(root)[len(before) :]
    assert added.kind == "action.refused"
    for name in change:
        if name in ("run", "call_id", "tool"):
            assert added.body[name] == ""
    assert SECRET.encode() not in added.raw
    assert len(provider.sent) == sent


TOLD: dict[str, tuple[dict[str, Any], str, str]] = {
    "tool": ({"tool": "stripe.transfer.create"}, "no tool 'stripe.transfer.create'", f"Did you mean {TOOL!r}?"),
    "tool of nobody": ({"tool": "x" * 90}, "no tool '" + "x" * 60 + "'", "Known: stripe.payouts.create, "),
    "argument": (
        {"args": {**args_for(1), "amuont": 4242}},
        f"{TOOL} has no argument 'amuont'",
        "Did you mean 'amount'? It takes: ",
    ),
    "argument that cannot be seen": ({"args": {"\x1b[2J\u202e": 1}}, "'\\u001b[2J\\u202e'", "It takes: amount"),
    "currency": ({"args": {**args_for(1), "currency": "usd"}}, "the currency 'usd'", "Currencies here: eur."),
    "currency in capitals": ({"args": {**args_for(1), "currency": "EUR"}}, "currency", "It matches "),
    "member": ({"reasn": "because"}, "the request has no member 'reasn'", "Did you mean 'reason'?"),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_refusal_says_which(gate: Any, case: str) -> None:
    """What does not fit is named to whoever sent it, escaped and in bounds, with what there is; no value is."""
    handle, _, _ = gate
    change, message, hint = TOLD[case]
    body = {"run": handle.start_run(), "call_id": "c-1", "tool": TOOL, "args": args_for("t"), **change}
    with pytest.raises(CountermarkError) as caught:
        handle.call("act", body)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "4242" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_hint_names_only_tools_that_the_agent_may_use(tmp_path: Path) -> None:
    """Whoever has no mandate is told that there is no such tool, and nothing about those that others have."""
    made = make(tmp_path / "d", Provider())
    with hold(tmp_path / "d", Provider()) as handle:
        run = handle.start_run()
        handle.call("mandate.revoke", signed_revocation(made, made.mandates[AGENT]))
        with pytest.raises(CountermarkError) as caught:
            handle.act(TOOL[:-1], args_for(1), run=run, call_id="c-1")
    assert (caught.value.code, caught.value.hint) == ("unknown_tool", "")


@pytest.mark.parametrize("agent", ["nobody", "", "a b", "é" * 60, "agent\n", "\ud800", AGENT.upper(), AGENT + " "])
def test_a_stranger_leaves_no_record(gate: Any, agent: str) -> None:
    """Who is no agent of this deployment gets an error and cannot write into the journal."""
    handle, provider, root = gate
    before, sent = len(records(root)), len(provider.sent)
    run = handle.start_run()
    for op, body in (
        ("act", {"run": run, "call_id": "x", "tool": TOOL, "args": args_for("s")}),
        ("act", {}),
        ("run.start", {"mandate": None, "purpose": ""}),
        ("run.end", {"run": run, "reason": ""}),
    ):
        with pytest.raises(CountermarkError) as caught:
            handle.call(op, body, agent)
        assert ("no open run '" if op == "run.end" else "no agent '") in caught.value.message
        assert caught.value.message.isprintable()
        assert AGENT not in str(caught.value).replace(agent, "")  # who else there is, a stranger is not told
    assert len(records(root)) == before + 1  # the run that this test started
    assert len(provider.sent) == sent


OPS = (
    "activate", "mandate.grant", "mandate.revoke", "kill.clear", "answer", "result", "run.end", "act", "", "nonsense",
    "kill.set", "run.start",
)  # fmt: skip
JUNK: tuple[dict[str, Any], ...] = (
    {},
    {"document": 5, "activation": [], "mandate": [1], "key": {}, "sig": 3, "approval": "x", "run": {}, "id": [1],
     "kind": {}, "value": [], "revocation": 1, "clearance": 2, "mandate_": None, "digest": []},
    {"document": {}, "mandate": {"parent": {}}, "digest": "x", "kind": "galaxy", "activation": {}, "approval": {},
     "revocation": {}, "clearance": {}, "key": "", "sig": ""},
    {"document": {"v": 1, "source": {}, "compiled": {}}, "mandate": {"parent": []}, "activation": None, "key": None},
    {"document": [], "activation": DEEP, "mandate": DEEP, "approval": DEEP, "revocation": DEEP, "clearance": DEEP},
)  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_junk_never_halts_the_gate(gate: Any, op: str) -> None:
    """Every operation answers junk with an error of its own; the lane neither halts nor records more than refusals."""
    handle, provider, root = gate
    sent = len(provider.sent)
    for body in JUNK:
        before = len(records(root))
        try:
            handle.call(op, body)
        except CountermarkError as error:
            code = error.code
        else:
            code = "" if op == "run.start" else "taken"
        assert code not in ("gate_halted", "taken"), (op, body)
        assert {r.kind for r in records(root)[before:]} <= {"action.refused", "run.started"}
    assert len(provider.sent) == sent
    assert handle.call("status", {})["kills"] == []


def test_a_confusable_payee_is_a_stranger(tmp_path: Path) -> None:
    """An account that only looks like an enrolled one is unknown: people are asked, nothing is paid."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        for number, account in enumerate(("acct_1AcmePapet", "acct_1acmepaper", "acct_lAcmePaper", "acct_1AcmePaper0")):
            result = handle.act(TOOL, args_for(number, 1000, account), call_id=f"c{number}")
            assert result.status == "escalated"
        assert all(parked["terms"]["payee"].startswith("p:") for parked in waiting(handle))
    assert provider.sent == []
    assert bodies(tmp_path / "d", "action.settled") == []
