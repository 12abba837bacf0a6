"""Insiders who falsify the form, the order or the authority of records (V04, V06, V09, V10)."""

from __future__ import annotations

from typing import Any

from build import ZERO, Key
from bundle import CHECKED, DAY_US, asking_bundle, person_key, plain_bundle
from lies import ATTACKS, FOREIGN, OTHER, Attack, lie, put
from scribe import ALLOWED, READ, START_US, Story
from story import CHECK, TRANSFER, args_of, ask, child, pay, root_of_story, run_of

# --- V04: the form of a record ---


def _bad_record(name: str, **forge: Any) -> None:
    ATTACKS.append(Attack(name, ["V04.record"], lambda story: story.settle(pay(story, 1), **forge)))


_bad_record("record-not-canonical", raw=lambda leaf: leaf.replace(b'{"at":', b'{ "at":', 1))
_bad_record("record-duplicate-key", raw=lambda leaf: leaf.replace(b'"v":1}', b'"v":1,"v":1}'))
_bad_record("record-float", raw=lambda leaf: leaf.replace(b'"attempts":1,', b'"attempts":1.0,'))
_bad_record("record-integer-too-large", alter=put("attempts", value=2**53))
_bad_record("record-unknown-kind", envelope=put("kind", value="action.blessed"))
_bad_record("record-unknown-field", alter=put("bonus", value=1))
_bad_record("record-missing-field", alter=lambda body: body.pop("ref"))
_bad_record("record-boolean-for-integer", alter=put("attempts", value=True))
_deep: Any = 1
for _ in range(20):
    _deep = {"a": _deep}
_bad_record("record-too-deep", alter=put("output", value=_deep))


# --- V06: order ---


@lie("V06.seq")
def seq_gap(story: Story) -> int:
    story.settle(pay(story, 1))
    return story.add("gate.stopped", "gate", [], {"reason": "x"}, envelope=put("seq", value=7))


@lie("V06.prev")
def prev_broken(story: Story) -> int:
    return story.settle(pay(story, 1), envelope=put("prev", value=ZERO))


@lie("V06.at")
def at_backwards(story: Story) -> int:
    story.settle(pay(story, 1))
    return story.add("gate.stopped", "gate", [], {"reason": "x"}, envelope=put("at", value=START_US))


@lie("V06.stream")
def stream_gap(story: Story) -> int:
    def skip(record: dict[str, Any]) -> None:
        name = min(record["streams"])
        record["streams"][name][0] += 1

    return story.settle(pay(story, 1), envelope=skip)


@lie("V06.stream")
def stream_missing(story: Story) -> int:
    # The settlement stays out of the account's stream: a payee's history would look unsettled.
    def leave(record: dict[str, Any]) -> None:
        record["streams"] = {k: v for k, v in record["streams"].items() if not k.startswith("p.")}

    return story.settle(pay(story, 1), envelope=leave)


@lie("V06.stream")
def stream_of_a_run_that_nobody_named(story: Story) -> int:
    # A refused request that named no run is put among a run's: there it would count as one of its own.
    body = {"agent": "payer", "run": "", "call_id": "", "tool": "", "code": "unknown_run", "field": "run"}
    return story.add("action.refused", "agent:payer", story.streams("payer", run_of(story)), body)


@lie("V06.stream")
def stream_of_an_agent_that_nobody_named(story: Story) -> int:
    body = {"agent": "", "run": "", "call_id": "", "tool": "", "code": "unknown_agent", "field": "agent"}
    return story.add("action.refused", "agent:", story.streams("payer", run_of(story))[:1], body)


@lie("V06.stream")
def stream_shared_by_two_agents(story: Story) -> int:
    story.stream_of["clerk"] = "payer"
    child(story)
    return len(story.log.leaves) - 1


@lie("V06.stream")
def agent_with_two_streams(story: Story) -> int:
    story.settle(pay(story, 1))
    story.stream_of["payer"] = "payer's shadow"
    action = pay(story, 2)
    story.settle(action)
    return action.seq


# --- V09, V10: policy and authority ---


@lie("V09.signature", bundle_key=FOREIGN)
def activation_foreign_key(story: Story) -> int:
    return 1


@lie("V09.chain")
def activation_wrong_previous(story: Story) -> int:
    return story.activate(plain_bundle("second"), alter=put("previous", value=OTHER))


@lie("V09.bundle", "V09.chain", "V09.signature")
def activation_other_author(story: Story) -> int:
    # Whoever is not named as the author might approve what the policy of his own making lets through.
    return story.activate(plain_bundle("second"), alter=put("author", value="treasurer"))


@lie("V10.mandate", key=FOREIGN)
def mandate_foreign_key(story: Story) -> int:
    return 2


@lie("V10.mandate", key=person_key("controller"), principal="controller")
def mandate_by_person_without_role(story: Story) -> int:
    return 2


@lie("V10.mandate")
def child_foreign_agent_key(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story), key=Key("agent/clerk"))
    return len(story.log.leaves) - 1


@lie("V10.mandate", tools=[TRANSFER])
def child_wider_tools(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story))
    return len(story.log.leaves) - 1


@lie("V10.mandate", payees=["aurora"])
def child_wider_payees(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story), payees=["aurora", "borealis"])
    return len(story.log.leaves) - 1


@lie("V10.mandate", not_after=START_US + DAY_US)
def child_outlives_parent(story: Story) -> int:
    story.grant("clerk", [[1_000, 0]], root_of_story(story), not_after=START_US + DAY_US + 1)
    return len(story.log.leaves) - 1


@lie("V14.decision", "V10.mandate")
def action_after_revocation(story: Story) -> int:
    story.revoke(root_of_story(story))
    return pay(story, 1).seq


@lie("V10.mandate", "V10.clearance")
def revocation_foreign_key(story: Story) -> int:
    return story.revoke(root_of_story(story), key=FOREIGN)


@lie("V14.decision", "V10.mandate", not_after=START_US + 60_000_000, bundle=asking_bundle())
def action_outside_validity(story: Story) -> int:
    story.settle(pay(story, 1))
    story.wait(100)
    return pay(story, 2).seq


@lie("V13.limit", "V14.decision")
def mandate_budget_exceeded(story: Story) -> int:
    mandate = story.grant("payer", [[15_000, None]], None)
    run = story.run("payer", mandate)
    story.settle(pay(story, 1, run=run))
    return pay(story, 2, run=run).seq


@lie("V10.clearance")
def clearance_foreign_key(story: Story) -> int:
    return story.clear(story.kill("agent", "clerk"), key=FOREIGN)


@lie("V14.decision")
def kill_ignored(story: Story) -> int:
    story.kill("payee", "aurora")
    return pay(story, 1).seq


# --- V10: approvals ---


def _answered(name: str, *codes: str, wait: int = 40, **answer: Any) -> None:
    def write(story: Story) -> int:
        escalation = ask(story, 1, 60_000)
        story.wait(wait)
        seq = story.answer(escalation, **({"person": "treasurer"} | answer))
        story.settle(story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]))
        return seq

    ATTACKS.append(Attack(name, list(codes), write, {"bundle": asking_bundle()}))


_answered("approval-by-unknown-person", "V10.approval", "V10.separation", person="stranger")
_answered("approval-by-agent-owner", "V10.separation", person="bookkeeper")
_answered("approval-by-policy-author", "V10.separation", person="steward")
_answered("approval-without-role", "V10.separation", "V10.approval", person="activator")
_answered("approval-foreign-key", "V10.approval", key=FOREIGN)
_answered("approval-key-of-another-person", "V10.approval", key=person_key("controller"))
_answered("approval-other-amount", "V10.approval", alter=put("terms", "amount", value=6_000))
_answered("approval-other-request", "V10.approval", alter=put("request", value=OTHER))
_answered("approval-other-policy-ids", "V10.approval", alter=put("ids", value=["ask-board", "ask-treasury"]))
_answered("approval-after-deadline", "V10.approval", wait=3601)


@lie("V11.escalation", "V10.approval", bundle=asking_bundle())
def approval_deadline_stretched(story: Story) -> int:
    # The ladder gives an hour; the question gives a day, and is answered after two hours.
    escalation = ask(story, 1, 60_000, alter=lambda raised: raised.update(not_after=raised["not_after"] + DAY_US))
    story.wait(7_200)
    story.answer(escalation, "treasurer")
    story.settle(story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]))
    return escalation.action.seq + 1


@lie("V10.approval", bundle=asking_bundle())
def approval_replayed(story: Story) -> int:
    first = ask(story, 1, 60_000)
    seq = story.answer(first, "treasurer")
    body = story.log.records[seq]["body"]
    story.settle(story.again(first, args_of(first), ALLOWED, lifted=["ask-treasury"]))
    second = ask(story, 2, 60_000)
    seq = story.answer(second, "treasurer", signed=(body["approval"], body["sig"]))
    story.again(second, args_of(second), ALLOWED, lifted=["ask-treasury"])
    return seq


def _with_board(story: Story, answers: list[tuple[str, str, str]]) -> list[int]:
    """A payment that needs one of the treasury and two of the board; answers are (person, ladder, state)."""
    check = story.decide(run_of(story), "call-0", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 1})
    board = ask(story, 1, 250_000, board=True)
    seqs = [story.answer(board, person, ladder=ladder, state=state) for person, ladder, state in answers]
    story.again(board, args_of(board), ALLOWED, lifted=["ask-board", "ask-treasury"])
    return seqs


@lie("V10.approval", "V10.separation", "V11.escalation", bundle_tools=CHECKED)
def approval_same_person_twice(story: Story) -> int:
    answers = [
        ("controller", "board", "pending"),
        ("director", "board", "pending"),
        ("controller", "treasury", "approved"),
    ]
    return _with_board(story, answers)[-1]


@lie("V11.escalation", "V10.approval", bundle_tools=CHECKED)
def approval_quorum_short(story: Story) -> int:
    return _with_board(story, [("treasurer", "treasury", "pending"), ("controller", "board", "approved")])[-1]
