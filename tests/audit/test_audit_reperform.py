"""Re-performance finds nothing in an honest history, and names the lie in a rewritten one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from audit_day import resealed, the_day
from audit_packs import honest_with, load

from countermark.audit import Report, bundles_of, reperform
from countermark.model.records import KINDS, Record
from countermark.wiring.connectors import drafts


def records() -> list[Record]:
    store = the_day().store
    try:
        return list(store.records())
    finally:
        store.close()


def again(found: list[Record], **more: Any) -> Report:
    return reperform(found, bundles_of(the_day().store), **more)


def seq_of(kind: str, number: int = 0, **body: Any) -> int:
    """Position of the n-th record of a kind whose body has these members."""
    hits = [r.seq for r in records() if r.kind == kind and all(r.body[k] == v for k, v in body.items())]
    return hits[number]


def test_an_honest_history_is_equal() -> None:
    """Every decision, fact, budget and request of the day follows from what came before; the bundle compiles again."""
    report = again(records(), drafts=drafts())
    assert report.ok, report.mismatches
    assert report.stopped is None
    assert report.decisions == sum(record.kind == "action.decided" for record in records())
    assert report.recompiled == 1
    assert report.facts > 50
    assert report.requests >= 14


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def alter(body: dict[str, Any]) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = value

    return alter


def intent(**body: Any) -> int:
    return seq_of("action.decided", **body)


LIES: dict[str, tuple[Callable[[], int], Callable[[dict[str, Any]], None], str, Any, Any]] = {
    "fact": (lambda: intent(call_id="INV-2"), put("facts", "day_total", value=1), "facts.day_total", 288_000, 1),
    "slot": (
        lambda: intent(call_id="INV-3"), put("facts", "paid_before", value={"known": False}), "facts.paid_before",
        {"known": True, "age_s": 150}, {"known": False},
    ),
    "budget": (lambda: intent(call_id="INV-2"), put("budgets", 0, 2, value=7), "budgets", None, None),
    "verdict": (lambda: intent(call_id="INV-1"), put("code", value="flagged"), "code", "allowed", "flagged"),
    "reason": (
        lambda: intent(call_id="INV-2"), put("reasons", value=["limits.permit"]), "reasons",
        ["limits.payment.flag", "limits.permit"], ["limits.permit"],
    ),
    "stage": (lambda: intent(call_id="INV-7"), put("stage", value="policy"), "stage", "mandate", "policy"),
    "amount": (lambda: intent(call_id="INV-2"), put("terms", "amount", value=1), "terms.amount", 240_000, 1),
    "payee": (lambda: intent(call_id="INV-2"), put("terms", "payee", value="borealis-hosting"), "streams", None, None),
    "argument": (lambda: intent(call_id="INV-2"), put("args", "amount", value=240_001), "action", None, None),
    "key": (lambda: intent(call_id="INV-2"), put("key", value="cm_" + "0" * 48), "key", None, "cm_" + "0" * 48),
    "identity": (lambda: intent(call_id="INV-2"), put("id", value="act_" + "0" * 32), "id", None, "act_" + "0" * 32),
    "request": (lambda: intent(call_id="INV-2"), put("salt", value="1" * 32), "request", None, None),
    "obligation": (lambda: intent(call_id="INV-9"), put("obligation", value=None), "obligation", None, None),
    "time": (lambda: intent(call_id="INV-9"), put("not_after", value=2**50), "not_after", None, 2**50),
    "lifted": (lambda: intent(call_id="INV-1"), put("lifted", value=["limits.payment.max"]), "lifted", [],
               ["limits.payment.max"]),
    "ladders": (lambda: seq_of("escalation.raised"), put("ladders", value={}), "ladders", None, {}),
    "deadline": (lambda: seq_of("escalation.raised"), put("not_after", value=1), "not_after", None, 1),
    "approver": (lambda: seq_of("escalation.answered"), put("approval", "person", value="treasurer"), "approval",
                 None, None),
    "answer": (lambda: seq_of("escalation.answered", 1), put("state", value="approved"), "state", "refused",
               "approved"),
    "expired early": (lambda: seq_of("escalation.expired"), put("terms", "amount", value=3), "terms", None, None),
    "outcome": (lambda: seq_of("action.settled"), put("outcome", value="maybe"), "outcome", None, "maybe"),
    "intent digest": (lambda: seq_of("action.settled"), put("intent_digest", value="sha256:" + "1" * 64),
                      "intent_digest", None, "sha256:" + "1" * 64),
    "mandate": (lambda: seq_of("mandate.granted"), put("mandate", "limits", value=[]), "mandate", None, None),
    "revocation": (lambda: seq_of("mandate.revoked"), put("revocation", "reason", value="other"), "revocation",
                   None, None),
    "clearance": (lambda: seq_of("kill.cleared"), put("clearance", "person", value="treasurer"), "clearance",
                  None, None),
    "activation": (lambda: seq_of("policy.activated"), put("activation", "activator", value="controller"),
                   "activation", None, None),
    "salt": (lambda: intent(call_id="INV-2"), put("salt", value=None), "salt", None, None),
    "moved currency": (lambda: seq_of("action.settled"), put("settled", value={"amount": 48_000, "currency": "usd"}),
                       "settled.currency", "eur", "usd"),
    "moved by nothing": (lambda: seq_of("action.settled", outcome="unknown"),
                         put("settled", value={"amount": 11_000, "currency": "eur"}), "settled", None, None),
    "other amount": (lambda: seq_of("action.settled"), put("settled", value={"amount": 0, "currency": "eur"}), "code",
                     "booked_differently", "ok"),
    "attempts": (lambda: seq_of("action.settled"), put("attempts", value=0), "attempts", None, 0),
    "tier": (lambda: intent(call_id="INV-2"), put("tier", value="enforcing"), "tier", "embedded", "enforcing"),
    "unknown argument": (lambda: intent(call_id="INV-2"), put("args", "more", value="x"), "args.more", None, "x"),
    "required argument": (lambda: intent(call_id="INV-2"), lambda body: body["args"].pop("amount"), "args.amount",
                          "a required argument", None),
    "output": (lambda: seq_of("action.settled"), put("output", value={"secret": "x"}), "output.secret", None, "x"),
    "run": (lambda: seq_of("run.started"), put("agent", value="other"), "agent", "treasury", "other"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_named_with_its_record(name: str) -> None:
    """One member altered, chain rebuilt: the first difference is that member of that record, with both values."""
    where, alter, what, expected, actual = LIES[name]
    seq = where()
    report = again(resealed(records(), seq, alter))
    assert not report.ok
    assert min(mismatch.seq for mismatch in report.mismatches) == seq
    hits = [m for m in report.mismatches if m.seq == seq and m.what == what]
    assert hits, [str(m) for m in report.mismatches[:5]]
    if expected is not None:
        assert hits[0].expected == expected
    if actual is not None:
        assert hits[0].actual == actual


@pytest.mark.parametrize("kind", KINDS)
def test_who_a_record_is_by_follows_from_what_it_says(kind: str) -> None:
    """Every kind has its author: the agent, the person who signed, or the gate. The vectors have them all."""
    found, bundle_of = load(honest_with(kind))
    seq = next(record.seq for record in found if record.kind == kind)
    found[seq] = found[seq]._replace(by="agent:stranger")
    assert [m.what for m in reperform(found, bundle_of).mismatches if m.seq == seq] == ["by"]


def test_a_denial_turned_into_a_payment_is_found() -> None:
    """A decision that was a denial and now says allow is named, with what the policy answers."""
    seq = intent(call_id="INV-8")

    def alter(body: dict[str, Any]) -> None:
        body.update(disposition="allow", stage="policy", code="allowed", reasons=["limits.permit"])

    found = {m.what: m for m in again(resealed(records(), seq, alter)).mismatches if m.seq == seq}
    assert found["disposition"].expected == "deny"
    assert found["stage"].expected == "kill"
    assert found["code"].expected == "killed"


@pytest.mark.parametrize("kind", ["action.decided", "action.settled", "escalation.raised"])
def test_a_record_left_out_is_found(kind: str) -> None:
    """Without one record the chain, the positions and the streams no longer fit."""
    seq = seq_of(kind)
    found = records()
    report = again(found[:seq] + found[seq + 1 :])
    first = [m.what for m in report.mismatches if m.seq == seq + 1]
    assert {"seq", "prev"} <= set(first)


def test_a_record_that_cannot_be_folded_stops_the_pass() -> None:
    """A settlement of an intent that never was is named; what follows it is not claimed to be checked."""
    seq = seq_of("action.settled")
    report = again(resealed(records(), seq, put("intent", value=10**6)))
    assert report.stopped == seq
    assert not report.ok
    assert report.records == seq


def test_records_that_end_before_what_shares_their_commit_are_found() -> None:
    """An approval without its decision is named at the answer that completed it."""
    seq = seq_of("escalation.answered", state="approved")
    (missing,) = again(records()[: seq + 1]).mismatches
    assert (missing.seq, missing.what, missing.actual) == (seq, "next", None)
    assert missing.expected["kind"] == "action.decided"
    assert again(records()[: seq + 2]).ok


@pytest.mark.parametrize("value", [None, 7, "x", [], {"a": 1}])
@pytest.mark.parametrize("member", ["terms", "args", "budgets", "facts", "mandates", "claimed", "run", "tool"])
def test_a_member_of_any_shape_is_reported_and_never_raises(member: str, value: Any) -> None:
    """Whatever stands in a member, the answer is a report with that record in it."""
    seq = intent(call_id="INV-2")
    report = again(resealed(records(), seq, put(member, value=value)))
    assert not report.ok
    assert any(mismatch.seq == seq for mismatch in report.mismatches)


def test_a_bundle_whose_compiled_part_does_not_follow_from_its_sources_is_found() -> None:
    """A number changed in the compiled part only is named, once the connectors' drafts are given."""
    tampered = {}

    def bundle_of(digest: str) -> Any:
        bundle = bundles_of(the_day().store)(digest)
        compiled = dict(bundle.document["compiled"])
        compiled["limits"] = {**compiled["limits"], "payment_max": 1}
        tampered[digest] = replace(bundle, document={**bundle.document, "compiled": compiled})
        return tampered[digest]

    report = reperform(records(), bundle_of, drafts())
    hits = [m for m in report.mismatches if m.what == "compiled.limits"]
    assert hits[0].actual["payment_max"] == 1
    assert hits[0].expected["payment_max"] == 2_500_000


def test_history_given_or_kept_is_the_same() -> None:
    """A caller who can read earlier records again and one who cannot get the same report."""
    found = records()
    kept = again(found, drafts=drafts())
    given = again(found, drafts=drafts(), history=lambda seq: found[:seq])
    assert kept.document() == given.document()
