"""Insiders who falsify how an escalation climbs its ladders (V10, V11), and the honest history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bundle import CHECKED, asking_bundle, bundle_doc
from fields import payment
from lies import ATTACKS, Attack, put
from rungs import end_of, laddered
from scribe import ALLOWED, READ, Escalation, Story
from story import CHECK, args_of, ask, opened, run_of

BOTH = ["ask-board", "ask-treasury"]
Write = Callable[[Story], Any]


def climb(
    story: Story,
    question: Escalation,
    rung: int = 2,
    name: str = "treasury",
    because: str = "deadline",
    alter: Callable[[dict[str, Any]], None] | None = None,
    early: int = 0,
) -> int:
    """Ask the next rung, at the end of the one before (less `early` seconds), or now when nobody could be told."""
    compiled = story.bundles[-1]["compiled"]
    start = question.due[name] if because == "deadline" else story.now + 1_000_000
    if because == "deadline":
        story.now = max(story.now, start - 1_000_000 - early * 1_000_000)
    rungs = next(row for row in compiled["ladders"] if row["id"] == name)["rungs"]
    body = {
        **{k: question.body[k] for k in ("escalation", "id", "agent", "run", "terms")},
        "ladder": name,
        "rung": rung,
        "because": because,
        "due": end_of(rungs[min(rung, len(rungs)) - 1], start, compiled["zone"]),
    }
    if alter is not None:
        alter(body)
    question.due[name] = body["due"]
    streams = story.streams(body["agent"], body["run"], body["terms"]["payee"])
    return story.add("escalation.climbed", "gate", streams, body)


def overdue(story: Story, question: Escalation, name: str = "treasury") -> int:
    story.now = question.due[name] - 1_000_000
    return story.expire(question)


def ladders() -> Story:
    """Climbed for want of an answer and for want of anybody to ask; approved, refused and expired on later rungs."""
    story = opened("ladders", bundle=laddered(bundle_doc(tools=CHECKED)))
    late = ask(story, 1, 60_000)
    story.answer(late, "treasurer", state="pending")
    climb(story, late)
    story.answer(late, "director", rung=2)
    story.settle(story.again(late, args_of(late), ALLOWED, lifted=["ask-treasury"]))
    unheard = ask(story, 2, 55_000)
    story.answer(unheard, "treasurer", state="pending")
    story.wait(90)
    climb(story, unheard, because="unreachable")
    climb(story, unheard, 3)
    # What somebody said on the first rung counts no more, so that they may say it again.
    story.answer(unheard, "treasurer", rung=3, state="pending")
    story.answer(unheard, "controller", rung=3)
    story.settle(story.again(unheard, args_of(unheard), ALLOWED, lifted=["ask-treasury"]))
    refused = ask(story, 3, 51_000)
    climb(story, refused)
    seq = story.answer(refused, "controller", "refuse", rung=2)
    no = ("deny", "obligation", "refused_by_person", [f"seq:{seq}"])
    story.decide(run_of(story), "call-4", "bank.transfers.create", payment(1_000, "aurora", "INV-3"), no)
    _two_ladders(story)
    # Asked on a Friday at half past four, the board has until Monday.
    story.now += (3 * 86_400 - story.now // 1_000_000 % 86_400 + 15 * 3_600 + 1_800) * 1_000_000
    weekend = ask(story, 6, 52_000)
    climb(story, weekend)
    climb(story, weekend, 3)
    overdue(story, weekend)
    return story


def superseded() -> Story:
    """Another policy comes into force while people are asked: asked again, the question is withdrawn first."""
    story = opened("superseded", bundle=asking_bundle())
    first, second = ask(story, 1, 60_000), ask(story, 2, 61_000)
    story.activate(asking_bundle("next"))
    story.expire(first, because="policy")
    args = payment(60_000, "aurora", "INV-1")
    anew = story.escalate(run_of(story), "call-9", "bank.transfers.create", args, {"treasury": ["ask-treasury"]})
    story.answer(anew, "treasurer")
    story.settle(story.again(anew, args_of(anew), ALLOWED, lifted=["ask-treasury"]))
    story.expire(second, because="policy")
    return story


def _two_ladders(story: Story) -> None:
    """Each climbs on its own: the board has its people and stays, the treasury climbs."""
    check = story.decide(run_of(story), "call-0", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 1})
    board = ask(story, 5, 250_000, board=True)
    story.answer(board, "director", ladder="board", state="pending")
    story.answer(board, "controller", ladder="board", state="pending")
    climb(story, board, because="unreachable")
    climb(story, board, 3)
    story.answer(board, "treasurer", rung=3, state="pending")
    overdue(story, board)


def _lie(*codes: str, tools: list[str] | None = None) -> Callable[[Write], Write]:
    def register(write: Write) -> Write:
        bundle = laddered(asking_bundle() if tools is None else bundle_doc(tools=tools))
        ATTACKS.append(Attack(write.__name__.replace("_", "-"), list(codes), write, {"bundle": bundle}))
        return write

    return register


def _paid(story: Story, question: Escalation) -> None:
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"]))


# --- climbs ---


@_lie("V11.escalation")
def climb_before_the_rung_ended(story: Story) -> int:
    return climb(story, ask(story, 1, 60_000), early=1)


@_lie("V11.escalation")
def climb_past_a_rung(story: Story) -> int:
    # The board is never asked: the friends of the third rung are.
    return climb(story, ask(story, 1, 60_000), 3)


@_lie("V11.escalation")
def climb_that_numbers_the_next_rung_as_the_one_after(story: Story) -> int:
    # The board's time runs, and the friends of the third rung may answer within it.
    return climb(story, ask(story, 1, 60_000), alter=put("rung", value=3))


@_lie("V11.escalation")
def climb_to_a_later_end(story: Story) -> int:
    question = ask(story, 1, 60_000)
    return climb(story, question, alter=lambda body: body.update(due=body["due"] + 3_600_000_000))


@_lie("V11.escalation")
def climb_that_counts_the_night_as_business_time(story: Story) -> int:
    story.wait(8 * 3_600)
    question = ask(story, 1, 60_000)
    end = question.due["treasury"] + 4 * 3_600_000_000
    return climb(story, question, alter=put("due", value=end))


@_lie("V11.escalation")
def climb_of_a_ladder_that_is_not_asked(story: Story) -> int:
    question = ask(story, 1, 60_000)
    question.due["board"] = question.due["treasury"]
    return climb(story, question, name="board")


@_lie("V11.escalation")
def climb_although_everybody_had_approved(story: Story) -> int:
    # Both of the treasury said yes, which decided it; the gate says they had not, and asks others.
    question = ask(story, 1, 60_000)
    story.answer(question, "treasurer", state="pending")
    story.answer(question, "controller")
    return climb(story, question)


@_lie("V11.escalation")
def climb_after_a_refusal(story: Story) -> int:
    question = ask(story, 1, 60_000)
    story.answer(question, "treasurer", "refuse")
    return climb(story, question)


@_lie("V11.escalation")
def climb_beyond_the_last_rung(story: Story) -> int:
    question = ask(story, 1, 60_000)
    climb(story, question)
    climb(story, question, 3)
    return climb(story, question, 4)


@_lie("V11.escalation")
def climb_for_want_of_people_to_gain_time(story: Story) -> int:
    # The rung ended an hour ago; called unreachable now, the next one would end an hour later.
    question = ask(story, 1, 60_000)
    story.wait(7_200)
    return climb(story, question, because="unreachable")


@_lie("V11.escalation")
def climb_down_again(story: Story) -> int:
    question = ask(story, 1, 60_000)
    climb(story, question)
    return climb(story, question, 1, because="unreachable")


@_lie("V11.escalation")
def climb_for_another_run(story: Story) -> int:
    return climb(story, ask(story, 1, 60_000), alter=put("terms", "amount", value=1))


@_lie("V11.escalation", tools=CHECKED)
def climb_of_a_ladder_that_has_its_answers(story: Story) -> int:
    # The board's two have said yes, which the gate wants to forget while the treasury is asked.
    check = story.decide(run_of(story), "call-0", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 1})
    question = ask(story, 1, 250_000, board=True)
    story.answer(question, "director", ladder="board", state="pending")
    story.answer(question, "controller", ladder="board", state="pending")
    return climb(story, question, name="board", because="unreachable")


@_lie("V11.escalation", "V10.approval", tools=CHECKED)
def climb_while_another_ladder_was_due(story: Story) -> int:
    # The treasury's hour ended before the board's two.
    check = story.decide(run_of(story), "call-0", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 1})
    return climb(story, ask(story, 1, 250_000, board=True), name="board")


# --- answers ---


@_lie("V10.approval")
def approval_on_a_rung_that_was_left(story: Story) -> int:
    question = ask(story, 1, 60_000)
    story.answer(question, "treasurer", state="pending")
    climb(story, question)
    seq = story.answer(question, "controller", rung=1)
    _paid(story, question)
    return seq


@_lie("V10.approval")
def approval_on_a_rung_to_come(story: Story) -> int:
    question = ask(story, 1, 60_000)
    seq = story.answer(question, "director", rung=2)
    _paid(story, question)
    return seq


@_lie("V10.approval")
def approval_of_a_rung_that_had_ended(story: Story) -> int:
    # Nobody climbed, and two hours later the first rung answers.
    question = ask(story, 1, 60_000)
    story.answer(question, "treasurer", state="pending")
    story.wait(7_200)
    seq = story.answer(question, "controller")
    _paid(story, question)
    return seq


@_lie("V10.approval", "V11.escalation")
def approvals_of_two_rungs_added_up(story: Story) -> int:
    # One of two on the first rung and one of two on the third are not two of two.
    question = ask(story, 1, 60_000)
    story.answer(question, "treasurer", state="pending")
    climb(story, question)
    climb(story, question, 3)
    seq = story.answer(question, "controller", rung=3)
    _paid(story, question)
    return seq


@_lie("V10.approval")
def approval_by_a_role_of_the_next_rung(story: Story) -> int:
    question = ask(story, 1, 60_000)
    return story.answer(question, "director", state="pending")


@_lie("V10.approval", "V10.separation")
def approval_twice_on_one_rung(story: Story) -> int:
    question = ask(story, 1, 60_000)
    climb(story, question)
    climb(story, question, 3)
    story.answer(question, "treasurer", rung=3, state="pending")
    seq = story.answer(question, "treasurer", rung=3)
    _paid(story, question)
    return seq


@_lie("V10.approval", tools=CHECKED)
def approval_after_another_ladder_was_over(story: Story) -> int:
    # The treasury ran out of rungs and people; the board says no afterwards, which would bind the invoice.
    check = story.decide(run_of(story), "call-0", CHECK, {"account": "aurora"}, READ)
    story.settle(check, output={"balance": 1})
    question = ask(story, 1, 250_000, board=True)
    climb(story, question, because="unreachable")
    climb(story, question, 3, because="unreachable")
    story.now = question.due["treasury"]
    return story.answer(question, "director", "refuse", ladder="board")


# --- ends ---


@_lie("V11.escalation")
def expired_with_a_rung_left(story: Story) -> int:
    return overdue(story, ask(story, 1, 60_000))


@_lie("V11.escalation")
def expired_before_the_last_rung_ended(story: Story) -> int:
    question = ask(story, 1, 60_000)
    climb(story, question)
    climb(story, question, 3)
    story.wait(60)
    return story.expire(question)


@_lie("V11.escalation", "V10.approval")
def first_rung_longer_than_it_is(story: Story) -> int:
    question = ask(story, 1, 60_000, alter=lambda raised: raised["due"].update(treasury=raised["due"]["treasury"] + 1))
    return question.action.seq + 1


@_lie("V11.escalation", "V10.approval")
def question_without_its_later_rungs(story: Story) -> int:
    def shorten(raised: dict[str, Any]) -> None:
        raised["not_after"] = raised["due"]["treasury"]

    return ask(story, 1, 60_000, alter=shorten).action.seq + 1


@_lie("V11.escalation")
def question_with_the_end_of_another_ladder(story: Story) -> int:
    return ask(story, 1, 60_000, alter=lambda raised: raised["due"].update(board=1)).action.seq + 1


@_lie("V11.escalation")
def question_of_the_policy_in_force_withdrawn(story: Story) -> int:
    """No other policy came into force: people may still say yes or no."""
    return story.expire(ask(story, 1, 60_000), because="policy")


@_lie("V11.escalation")
def question_of_the_policy_in_force_again_withdrawn(story: Story) -> int:
    """Another one was in force meanwhile; the one that asked is again."""
    asked = ask(story, 1, 60_000)
    story.activate(laddered(asking_bundle("meanwhile")))
    story.activate(story.bundles[0])
    return story.expire(asked, because="policy")
