"""What people say afterwards: an unknown settled by two, a flagged action seen, obligations paid before the gate."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rig import (
    ACME,
    AGENT,
    TOOL,
    Provider,
    args_for,
    bodies,
    hold,
    kinds,
    make,
    pay,
    rebuilt_equally,
    transfers,
    unsound,
)  # fmt: skip
from support import records

import countermark
from countermark.audit import explain, review_queue
from countermark.authority import generate, load_private, sign_import, sign_resolution, sign_review
from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.init import Made

BOTH = ("treasurer", "controller")
LATER_S = 600


def resolution(
    root: Path, made: Made, action: str, outcome: str = "confirmed", people: tuple[str, ...] = BOTH, **changes: Any
) -> dict[str, Any]:
    """A resolution of an action as the journal has it; ``changes`` replace members before it is signed."""
    intent = next(r for r in records(root) if r.kind == "action.decided" and r.body["id"] == action)
    document = {
        "v": 1, "deployment": made.deployment, "action": action, "intent_digest": intent.digest, "outcome": outcome,
        "ref": "tr_by_hand" if outcome == "confirmed" else "",
        "amount": intent.body["terms"]["amount"] if outcome == "confirmed" else None,
        "reason": "seen in the provider's books", **changes,
    }  # fmt: skip
    signed = [sign_resolution(document, name, load_private(made.people[name])) for name in people]
    return {"resolution": document, "signed": signed}


def refused(handle: countermark.Deployment, op: str, body: Mapping[str, Any], *codes: str) -> None:
    with pytest.raises(CountermarkError) as caught:
        handle.call(op, body)
    assert caught.value.code in codes, caught.value


def story(root: Path, ref: str) -> str:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return explain(store, ref).text
    finally:
        store.close()


def test_two_people_settle_an_unknown(tmp_path: Path) -> None:
    """The outcome stands as they signed it, money and business key follow, and it survives a restart."""
    provider, clock = Provider(["lost_before"] * 6, lookup="timeout"), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, tools=transfers(recovery="escalate"))
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        lost, gone = pay(handle, 1, run=run), pay(handle, 2, run=run)
        assert (lost.status, gone.status) == ("unknown", "unknown")
        early = resolution(tmp_path / "d", made, lost.action)
        refused(handle, "resolve", early, "not_unknown")
        clock.advance(LATER_S)
        answer = handle.call("resolve", early)
        assert (answer["status"], answer["code"], answer["ref"]) == ("confirmed", "resolved", "tr_by_hand")
        assert handle.call("resolve", resolution(tmp_path / "d", made, gone.action, "failed"))["status"] == "failed"
        refused(handle, "resolve", early, "not_unknown")  # once is once
        assert pay(handle, 1, run=run).status == "confirmed"
        assert pay(handle, 1, run=run, call_id="again").code == "duplicate_obligation"
        provider.script.clear()
        assert pay(handle, 2, run=run, call_id="anew").status == "confirmed"  # what failed may be paid again
    with hold(tmp_path / "d", provider, clock) as handle:
        assert handle.call("status", {})["open"] == []
        assert pay(handle, 1, run=run).ref == "tr_by_hand"
    told = story(tmp_path / "d", lost.action)
    assert "signed on" in told
    assert "by the word of two people" in told
    assert unsound(tmp_path / "d") == []
    assert rebuilt_equally(tmp_path / "d")


def test_another_amount_by_people_stops_the_tool(tmp_path: Path) -> None:
    """When two people say that the provider moved something else, it counts as booked and the tool is stopped."""
    provider, clock = Provider(["lost_before"] * 6, lookup="timeout"), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, tools=transfers(recovery="escalate"))
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        lost = pay(handle, 1, run=run)
        clock.advance(LATER_S)
        answer = handle.call("resolve", resolution(tmp_path / "d", made, lost.action, amount=900))
        assert answer["code"] == "booked_differently"
        assert pay(handle, 2, run=run).code == "killed"
    assert bodies(tmp_path / "d", "action.settled")[-1]["settled"] == {"amount": 900, "currency": "eur"}
    assert unsound(tmp_path / "d") == []


def test_nobody_settles_alone(tmp_path: Path) -> None:
    """One person, the same twice, a stranger, another action, deployment, intent or outcome: nothing is recorded."""
    provider, clock = Provider(["lost_before"] * 6, lookup="timeout"), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock, tools=transfers(recovery="escalate"))
    root = tmp_path / "d"
    with hold(root, provider, clock) as handle:
        run = handle.start_run()
        lost, done = pay(handle, 1, run=run), None
        provider.script.clear()
        done = pay(handle, 2, run=run)
        clock.advance(LATER_S)
        good = resolution(root, made, lost.action)
        stranger = {**good["signed"][0], **sign_resolution(good["resolution"], "controller", generate())}
        for signed in ([], good["signed"][:1], good["signed"][:1] * 2, [*good["signed"], good["signed"][0]]):
            refused(handle, "resolve", {**good, "signed": signed}, "four_eyes", "bad_resolution")
        refused(handle, "resolve", {**good, "signed": [good["signed"][0], stranger]}, "not_authorised")
        other = {**good["resolution"], "outcome": "failed", "amount": None}
        refused(handle, "resolve", {**good, "resolution": other}, "bad_signature")
        refused(handle, "resolve", resolution(root, made, lost.action, deployment="other"), "not_authorised")
        refused(handle, "resolve", resolution(root, made, lost.action, intent_digest="sha256:" + "0" * 64),
                "bad_resolution")  # fmt: skip
        refused(handle, "resolve", resolution(root, made, lost.action, amount=None), "bad_resolution")
        with pytest.raises(CountermarkError):
            resolution(root, made, lost.action, "failed", amount=5)
        refused(handle, "resolve", resolution(root, made, done.action), "not_unknown")
        refused(handle, "resolve", {**good, "resolution": {"action": "act_" + "0" * 32}}, "unknown_action")
        refused(handle, "resolve", {}, "unknown_action")
    assert "action.resolved" not in kinds(root)


def test_an_effect_under_way_is_not_settled_by_people(tmp_path: Path) -> None:
    """While a request is on its way nobody can say how it ended."""
    provider, clock = Provider(["hold"]), FakeClock()
    made = make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        payer = threading.Thread(target=pay, args=(handle, 1), kwargs={"run": run})
        payer.start()
        provider.held.acquire()
        clock.advance(LATER_S)
        action = bodies(tmp_path / "d", "action.decided")[0]["id"]
        refused(handle, "resolve", resolution(tmp_path / "d", made, action, "failed"), "not_unknown")
        provider.go.set()
        payer.join()
    assert bodies(tmp_path / "d", "action.settled")[-1]["outcome"] == "confirmed"


def cleared(made: Made, record: Any, person: str, **changes: Any) -> dict[str, Any]:
    document = {
        "deployment": made.deployment, "action": record.body["id"], "decided_digest": record.digest, "person": person,
        "note": "delivery note and invoice agree", **changes,
    }  # fmt: skip
    return sign_review(document, load_private(made.people[person]))


def queue(root: Path) -> list[Any]:
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        return review_queue(store)
    finally:
        store.close()


def test_a_flagged_action_waits_until_somebody_else_has_looked(tmp_path: Path) -> None:
    """The queue is what the records say; its owner cannot clear it, nobody twice, and it survives a restart."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    root = tmp_path / "d"
    with hold(root, provider) as handle:
        run = handle.start_run()
        pay(handle, 1, run=run)
        first, second = pay(handle, 2, 300_000, run=run), pay(handle, 3, 300_000, run=run)
        assert first.disposition == second.disposition == "flag"
        waiting = queue(root)
        assert [r.body["id"] for r in waiting] == [first.action, second.action]
        assert handle.call("status", {})["unreviewed"] == 2
        refused(handle, "review.clear", cleared(made, waiting[0], "treasurer"), "four_eyes")
        refused(
            handle,
            "review.clear",
            cleared(made, waiting[0], "controller", decided_digest=waiting[1].digest),
            "bad_review",
        )
        plain = next(r for r in records(root) if r.kind == "action.decided" and r.body["disposition"] == "allow")
        refused(handle, "review.clear", cleared(made, plain, "controller"), "unknown_action")
        assert handle.call("review.clear", cleared(made, waiting[0], "controller")) == first.action
        refused(handle, "review.clear", cleared(made, waiting[0], "controller"), "not_waiting")
    with hold(root, provider) as handle:
        assert handle.call("status", {})["unreviewed"] == 1
        assert [r.body["id"] for r in queue(root)] == [second.action]
        refused(handle, "review.clear", cleared(made, waiting[0], "controller"), "not_waiting")
    assert "looked at it" in story(root, first.action)
    assert "review queue" in story(root, second.action)
    assert unsound(root) == []
    assert rebuilt_equally(root)


def paid(made: Made, *invoices: str, people: tuple[str, ...] = BOTH, **changes: Any) -> dict[str, Any]:
    """An import of invoices of the paper mill; ``changes`` replace members of each document."""
    rows = []
    for invoice in invoices:
        document = {
            "v": 1, "deployment": made.deployment, "tool": TOOL,
            "pairs": [["invoice", invoice], ["payee", "acme-paper"]],
            "ref": "old-" + invoice, "date": "2026-09-30", "source": "ledger", **changes,
        }  # fmt: skip
        signed = [sign_import(document, name, load_private(made.people[name])) for name in people]
        rows.append({"import": document, "signed": signed})
    return {"paid": rows}


def test_what_was_paid_before_the_gate_is_not_paid_again(tmp_path: Path) -> None:
    """An imported obligation denies the agent's payment of it, however spelt, also after a restart."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    root = tmp_path / "d"
    with hold(root, provider) as handle:
        assert handle.call("import", paid(made, "inv-1", "inv-2"))["imported"] == 2
    with hold(root, provider) as handle:
        run = handle.start_run()
        denied = pay(handle, 1, run=run)
        assert denied.code == "duplicate_obligation"
        spelt = {**args_for("x"), "metadata[invoice]": "Inv - 2"}
        assert handle.act(TOOL, spelt, run=run, call_id="c").code == "duplicate_obligation"
        assert pay(handle, 3, run=run).status == "confirmed"
    assert provider.sent == provider.effects
    assert len(provider.sent) == 1
    assert "already settled as old-inv-1 on 2026-09-30" in story(root, denied.action)
    assert unsound(root) == []
    assert rebuilt_equally(root)


def test_an_import_is_whole_or_nothing(tmp_path: Path) -> None:
    """A duplicate, within it or with the records, a bad pair, tool or signature: not one obligation is taken."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    root = tmp_path / "d"
    with hold(root, provider) as handle:
        run = handle.start_run()
        pay(handle, 7, run=run)
        refused(handle, "import", paid(made, "inv-1", "inv-7"), "duplicate_import")
        refused(handle, "import", paid(made, "inv-1", "inv-1"), "duplicate_import")
        refused(handle, "import", paid(made, "inv-1", "INV-2"), "bad_import")
        refused(handle, "import", paid(made, "inv-1", people=("treasurer",)), "four_eyes")
        refused(handle, "import", paid(made, "inv-1", people=("treasurer", "treasurer")), "four_eyes")
        refused(handle, "import", paid(made, "inv-1", tool="stripe.nothing"), "bad_import")
        refused(handle, "import", paid(made, "inv-1", pairs=[["invoice", "inv-1"]]), "bad_import")
        refused(handle, "import", paid(made, "inv-1", pairs=[["invoice", "inv-1"], ["payee", ACME]]), "bad_import")
        forged = paid(made, "inv-1", "inv-2")
        forged["paid"][1]["import"]["ref"] = "other"
        refused(handle, "import", forged, "bad_signature")
        refused(handle, "import", {"paid": []}, "bad_import")
        assert handle.act(TOOL, args_for(1), run=run, call_id="c").status == "confirmed"
    assert "obligation.imported" not in kinds(root)


def test_a_reading_is_a_record(tmp_path: Path) -> None:
    """Who reads what stands in the log, and nobody reads what is not there."""
    provider = Provider()
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        size = handle.call("status", {})["records"]
        seq = handle.call("log.read", {"reader": "uid:1000", "what": "export", "from": 0, "to": size})
        assert seq == size
        for body in (
            {"reader": "uid:1000", "what": "export", "from": 0, "to": size + 2},
            {"reader": "uid:1000", "what": "export", "from": 3, "to": 3},
            {"reader": "uid:1000", "what": "gossip", "from": 0, "to": 1},
            *(
                {"reader": who, "what": "export", "from": 0, "to": 1}
                for who in ("", "ann", "uid:", "uid:01", "uid:-1", "person:ghost", "person:", 7, None)
            ),
            {"what": "export", "from": 0, "to": 1},
            {"reader": "uid:1", "what": "export", "from": True, "to": 1},
        ):
            refused(handle, "log.read", body, "bad_argument")
    assert AGENT not in str(bodies(tmp_path / "d", "log.read"))
    assert unsound(tmp_path / "d") == []
