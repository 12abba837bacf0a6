"""A run's receipt: what each step rests on, and what was not run."""

from __future__ import annotations

from typing import Any

import pytest
from run_fixtures import AGENT, RUN, START, Drive, define, effect, job, pause, pure

from countermark.model.canon import canon
from countermark.model.digest import RECORD, digest
from countermark.model.errors import ArgumentError
from countermark.model.records import Record
from countermark.workflow.receipts import receipt

BUNDLE = "sha256:" + "2" * 64
FILLED: dict[str, dict[str, Any]] = {
    "action.decided": {"request": "sha256:req", "action": "sha256:act", "stage": "policy", "reasons": ["r"],
                       "tier": "enforcing", "bundle": BUNDLE, "key": "cm_1", "claimed": {"because": []}},
    "action.settled": {"settled": None, "via": "execute", "response": "", "tier": "enforcing"},
    "escalation.answered": {"approval": {"person": "ada", "verdict": "approve", "ladder": "l", "rung": 1}},
}  # fmt: skip


def _records(run: Drive, **tiers: str) -> list[Record]:
    """The run's records as a store has them, with what the gate adds."""
    told = [("run.started", run.started, START), *run.records]
    found = []
    for seq, (kind, body, at) in enumerate(told, 40):
        full = {**FILLED.get(kind, {}), **body}
        if kind == "action.decided" and full["call_id"] in tiers:
            full["tier"] = tiers[full["call_id"]]
        raw = canon(full)
        found.append(Record(seq, kind, at, "gate", full, "", {}, raw, digest(RECORD, raw)))
    return found


def _run() -> Drive:
    run = Drive(define(
        job("a", pure("check", None, {"ok": "int"}),
            effect("pay", name="Pay it", retry={"attempts": 2, "delay_s": 1, "factor": 1}),
            pause("w", {"kind": "event", "source": "bank", "key": "k"}), pure("after", if_="inputs.amount == 6")),
        job("b", pure("never"), needs=("a",), if_="failure()"),
    ))  # fmt: skip
    run.computed("a.check", {"ok": 1})
    run.done("a.pay", "failed", "provider_error")
    run.wait(1)
    action = run.decided("a.pay", "escalate", "needs_approval")
    run.tell("escalation.answered", {"id": action, "state": "approved"})
    run.tell("action.decided", {"id": action, "call_id": "a.pay:2", "disposition": "allow", "code": "allowed"})
    run.settled(action, ref="tr_1")
    run.waiting("a.w")
    run.resumed("a.w")
    run.end()
    return run


def test_a_receipt_cites_every_record_that_a_step_rests_on() -> None:
    """Decisions with bundle and code, approvals, the idempotency key, the provider's reference, digests of code."""
    run = _run()
    records = _records(run)
    found = receipt(run.definition, records)
    canon(found)  # it can be digested, signed, recorded
    assert (found["run"], found["agent"], found["definition"]) == (RUN, AGENT, run.definition.digest)
    assert (found["status"], found["tier"], found["size"]) == ("success", "enforcing", len(records))
    assert found["started"] == {"seq": 40, "digest": records[0].digest, "at": START}
    check, pay, wait = found["steps"]
    assert {name: check["computed"][0][name] for name in ("seq", "code", "input", "result")} == {
        "seq": 41, **{name: records[1].body[name] for name in ("code", "input", "result")}
    }  # fmt: skip
    first, second = pay["attempts"]
    assert [one["settled"][-1]["code"] for one in (first, second)] == ["provider_error", "ok"]
    assert [(one["disposition"], one["bundle"]) for one in second["decided"]] == [
        ("escalate", BUNDLE),
        ("allow", BUNDLE),
    ]
    assert [(one["person"], one["state"]) for one in second["answers"]] == [("ada", "approved")]
    assert (second["key"], second["request"], second["settled"][0]["ref"]) == ("cm_1", "sha256:req", "tr_1")
    assert (wait["waited"]["for"]["key"], wait["waited"]["resumed"]["code"]) == ("k", "event")
    cited = {one["seq"] for step in found["steps"] for one in _cites(step)}
    assert cited >= {41, 42, 43, 44, 46, 47, 48, 49, 50}


def _cites(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = [value] if "seq" in value else []
        return own + [one for inner in value.values() for one in _cites(inner)]
    return [one for inner in value for one in _cites(inner)] if isinstance(value, list) else []


def test_a_receipt_names_what_was_not_run() -> None:
    """Steps whose condition did not hold, and those of jobs that were skipped."""
    assert receipt(_run().definition, _records(_run()))["not_run"] == ["a.after", "b.never"]


def test_the_tier_is_the_weakest_of_the_run_s_effects() -> None:
    """One observed effect makes the whole run an observed one; without effects there is nothing to say."""
    run = _run()
    assert receipt(run.definition, _records(run, **{"a.pay:1": "embedded"}))["tier"] == "embedded"
    assert (
        receipt(run.definition, _records(run, **{"a.pay:1": "embedded", "a.pay:2": "observing"}))["tier"] == "observing"
    )
    assert receipt(run.definition, _records(run, **{"a.pay:1": "unheard of"}))["tier"] == "unheard of"
    assert receipt(run.definition, _records(run)[:1])["tier"] is None


def test_a_run_that_goes_on_has_a_receipt_too() -> None:
    """At every record: what there is so far, and the status `running`."""
    run = _run()
    records = _records(run)
    for count in range(1, len(records)):
        found = receipt(run.definition, records[:count])
        assert (found["status"], found["ended"], found["strays"]) == (
            "running" if count < len(records) - 1 else "success",
            None,
            [],
        )


def test_a_cancelled_run_says_who_and_what_was_undone() -> None:
    """The person, the reason, and the places that were undone or left."""
    run = Drive(define(job("a", effect("pay", undo=("noop.undo", {"x": 1})), pure("s"))))
    run.done("a.pay")
    run.cancel("wrong payee", "bob")
    run.done("a.pay.undo")
    run.end()
    found = receipt(run.definition, _records(run))
    assert (found["cancelled"]["person"], found["cancelled"]["reason"]) == ("bob", "wrong payee")
    assert (found["status"], found["undone"], found["not_run"]) == ("cancelled", ["a.pay"], ["a.s"])
    assert [step["place"] for step in found["steps"]] == ["a.pay", "a.pay.undo"]


def test_what_the_definition_did_not_ask_for_is_named() -> None:
    """A record that answers nothing stands under `strays`."""
    run = Drive(define(job("a", effect("pay"))))
    action = run.done("a.pay")
    run.settled(action, "failed", "late")
    assert receipt(run.definition, _records(run))["strays"] == [43]


def test_other_records_have_no_receipt() -> None:
    """Neither nothing nor a run of an agent."""
    run = _run()
    for records in ([], _records(run)[1:]):
        with pytest.raises(ArgumentError):
            receipt(run.definition, records)
