"""Restores, honest and not: an insider who puts an old copy back wants its successor to hide, or to pay again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from build import b64, doc_digest, root_of, verifier_key
from bundle import plain_bundle
from cases import Case, case
from fields import payment
from lanes import accept, kill_of, movement, origin_of, packed, start, succeed, trusting
from lies import FOREIGN, put
from scribe import ALLOWED, Story
from story import TRANSFER, opened, pay, root_of_story, run_of

KILLED = ("deny", "kill", "killed")


def old(label: str) -> Story:
    """What the backup has: one payment, confirmed."""
    story = opened(label, bundle=plain_bundle())
    story.settle(pay(story, 1))
    return story


def paid_meanwhile(story: Story) -> dict[str, Any]:
    """Invoice 2, which the lost records paid."""
    return movement(story, TRANSFER, "tr_2", 10_000, payee="aurora", invoice="INV-2")


def restored(label: str, lost: int = 0) -> tuple[Story, int]:
    """A successor lane that waits for people. Answers the place of its lane.succeeded."""
    story = old(label)
    seq = succeed(story, [paid_meanwhile(story)], lost)
    start(story)
    return story, seq


def opened_again(label: str, lost: int = 0) -> tuple[Story, int]:
    """The same after both people, with a mandate granted anew."""
    story, seq = restored(label, lost)
    accept(story, seq, "treasurer")
    accept(story, seq, "controller")
    story.run("payer", story.grant("payer", [[1_000_000, None]]))
    return story, seq


def honest(label: str, lost: int = 0) -> Story:
    story, seq = restored(label, lost)
    pay(story, 3, answer=(*KILLED, [kill_of(story, seq)]))
    accept(story, seq, "treasurer")
    pay(story, 4, answer=(*KILLED, [kill_of(story, seq)]))
    accept(story, seq, "controller")
    pay(story, 5, answer=("deny", "mandate", "mandate_not_in_force", [root_of_story(story)]))
    run = story.run("payer", story.grant("payer", [[1_000_000, None]]))
    for number, taken in ((1, 4), (2, seq + 1)):
        no = ("deny", "obligation", "duplicate_obligation", [f"seq:{taken}"])
        story.decide(run, f"again-{number}", TRANSFER, payment(10_000, "aurora", f"INV-{number}"), no)
    story.settle(pay(story, 6, run=run))
    return story


@case
def honest_restored() -> Case:
    story = honest("restored")
    earlier = story.log.leaves[:6]
    kept = {"size": 6, "root": b64(root_of(earlier)), "source": "of the lane before", "origin": "countermark/acme/l0"}
    return Case(packed(story).write(), "verified", [], trust=trusting(story, "l1", kept))


@case
def honest_restored_twice() -> Case:
    story = honest("restored twice")
    seq = succeed(story, [], lane="l2")
    accept(story, seq, "controller")
    accept(story, seq, "treasurer")
    return Case(packed(story, "l2").write(), "verified", [], trust=trusting(story, "l2"))


@case
def honest_restored_over_an_open_intent() -> Case:
    """A movement takes its business key also from an intent that is still open, and keeps it when that one failed."""
    story = old("open")
    open_one = pay(story, 2)
    seq = succeed(story, [paid_meanwhile(story)])
    start(story)
    story.settle(open_one, "failed", via="lookup")
    accept(story, seq, "treasurer")
    accept(story, seq, "controller")
    run = story.run("payer", story.grant("payer", [[1_000_000, None]]))
    taken = ("deny", "obligation", "duplicate_obligation", [f"seq:{seq + 1}"])
    story.decide(run, "again", TRANSFER, payment(10_000, "aurora", "INV-2"), taken)
    return Case(packed(story).write(), "verified", [], trust=trusting(story))


@case
def restored_and_the_head_still_the_old_one() -> Case:
    # Nobody who holds the predecessor's key alone can say that its log was restored.
    story = old("old head")
    seq = succeed(story, [paid_meanwhile(story)])
    accept(story, seq, "treasurer")
    return Case(packed(story, "l0").write(), "refuted", ["V03.origin"], None, trusting(story, "l0"))


@case
def restored_with_a_declared_gap() -> Case:
    story, seq = opened_again("gap", lost=7)
    kept = {"size": seq + 7, "root": b64(b"\xab" * 32), "source": "before it broke", "origin": "countermark/acme/l0"}
    return Case(packed(story).write(), "incomplete", ["V15.gap"], None, trusting(story, "l1", kept))


@case
def restored_and_another_head_declared() -> Case:
    # As long as the auditor's, and of a history that the lane before never had: what was lost is another one.
    story, seq = opened_again("another head", lost=7)
    kept = {"size": seq + 7, "root": b64(b"\x07" * 32), "source": "before it broke", "origin": "countermark/acme/l0"}
    return Case(packed(story).write(), "refuted", ["V07.undeclared"], seq, trusting(story, "l1", kept))


@case
def restored_without_any_kept_head() -> Case:
    story = old("no head")
    succeed(story, [], known=False)
    return Case(packed(story).write(), "incomplete", ["V15.gap"], None, trusting(story))


@case
def restored_and_the_gap_not_declared() -> Case:
    # The auditor has a longer head of the lane before than the restore admits to.
    story, seq = opened_again("undeclared", lost=3)
    kept = {"size": seq + 4, "root": b64(b"\x07" * 32), "source": "before it broke", "origin": "countermark/acme/l0"}
    return Case(packed(story).write(), "refuted", ["V07.undeclared"], seq, trusting(story, "l1", kept))


@case
def restored_from_a_rewritten_log() -> Case:
    story = honest("rewritten")
    kept = {"size": 5, "root": b64(b"\x07" * 32), "source": "of the lane before", "origin": "countermark/acme/l0"}
    return Case(packed(story).write(), "refuted", ["V07.rewritten"], None, trusting(story, "l1", kept))


def lying(code: str) -> Callable[[Callable[[str], tuple[Story, Any]]], None]:
    """Register a falsified restore under its function's name."""

    def register(make: Callable[[str], tuple[Story, Any]]) -> None:
        def build() -> Case:
            story, seq = make(make.__name__)
            lane = story.log.records[-1]["lane"]
            return Case(packed(story, lane).write(), "refuted", [code], seq, trusting(story, lane))

        build.__name__ = make.__name__
        case(build)

    return register


@lying("V06.lane")
def restored_on_another_root(label: str) -> tuple[Story, Any]:
    story = old(label)
    return story, succeed(story, [], alter=put("predecessor", "root", value="cd" * 32))


@lying("V06.lane")
def restored_at_another_size(label: str) -> tuple[Story, Any]:
    story = old(label)
    return story, succeed(story, [], alter=put("predecessor", "size", value=4))


@lying("V06.lane")
def restored_past_a_lane(label: str) -> tuple[Story, Any]:
    story = old(label)
    return story, succeed(story, [], lane="l2")


@lying("V06.lane")
def restored_on_an_older_head_of_another_log(label: str) -> tuple[Story, Any]:
    story = old(label)
    return story, succeed(story, [], alter=put("known", value={"size": 3, "root": "cd" * 32}))


@lying("V06.lane")
def restored_on_a_head_of_its_own_past(label: str) -> tuple[Story, Any]:
    story = old(label)
    head = {"size": 3, "root": root_of(story.log.leaves[:3]).hex()}
    return story, succeed(story, [], alter=put("known", value=head))


@lying("V06.lane")
def restored_under_the_key_of_another_log(label: str) -> tuple[Story, Any]:
    story = old(label)
    key = verifier_key(origin_of("l7"), story.log_key)
    return story, succeed(story, [], alter=put("log_key", value=key))


@lying("V11.succession")
def restored_and_a_provider_not_named(label: str) -> tuple[Story, Any]:
    # People see an empty list, and not that nobody was asked.
    story = old(label)
    return story, succeed(story, [], alter=put("activity", "asked", value=[]))


@lying("V11.succession")
def restored_and_asked_since_too_late_a_time(label: str) -> tuple[Story, Any]:
    # The payment that was under way when the backup was made is older than the list.
    story = opened(label, bundle=plain_bundle())
    pay(story, 1)
    story.wait(7_200)
    story.kill("payee", "aurora")
    return story, succeed(story, [])


@lying("V06.seq")
def lane_changed_without_a_restore(label: str) -> tuple[Story, Any]:
    story = old(label)
    story.log.lane = "l1"
    return story, start(story)


@lying("V14.decision")
def restored_and_opened_by_one(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    accept(story, seq, "treasurer")
    story.run("payer", story.grant("payer", [[1_000_000, None]]))
    action = story.decide(run_of(story, 1), "three", TRANSFER, payment(10_000, "aurora", "INV-3"), ALLOWED)
    story.settle(action)
    return story, action.seq


@lying("V10.succession")
def restored_and_accepted_twice_by_one(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    accept(story, seq, "treasurer")
    return story, accept(story, seq, "treasurer")


@lying("V10.succession")
def restored_and_accepted_with_fewer_movements(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, accept(story, seq, "treasurer", alter=put("imported", value=0))


@lying("V10.succession")
def acceptance_of_another_restore(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, accept(story, seq, "treasurer", alter=put("succession", value="sha256:" + "ab" * 32))


@lying("V10.succession")
def acceptance_foreign_key(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, accept(story, seq, "treasurer", key=FOREIGN)


@lying("V10.succession")
def acceptance_of_a_lane_that_is_open(label: str) -> tuple[Story, Any]:
    story, seq = opened_again(label)
    return story, accept(story, seq, "director")


@lying("V10.succession")
def restored_and_opened_by_a_clearance(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, story.clear(kill_of(story, seq))


@lying("V10.clearance")
def restored_and_opened_by_a_kill_of_its_id(label: str) -> tuple[Story, Any]:
    # The kill of the whole deployment would become one of somebody whom nobody pays.
    story, seq = restored(label)
    story.kill("payee", "nobody", name=kill_of(story, seq))
    return story, len(story.log.leaves) - 1


@lying("V10.succession")
def acceptance_for_another_deployment(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, accept(story, seq, "treasurer", alter=put("deployment", value="elsewhere"))


@lying("V10.succession")
def acceptance_under_another_policy(label: str) -> tuple[Story, Any]:
    story, seq = restored(label)
    return story, accept(story, seq, "treasurer", alter=put("bundle", value="sha256:" + "ab" * 32))


@lying("V10.mandate")
def mandate_granted_again_after_a_restore(label: str) -> tuple[Story, Any]:
    # Its revocation may be among the records that were lost: the old signature is worth nothing any more.
    story, _ = opened_again(label)
    return story, story.replay(2)


@lying("V11.succession")
def restored_and_a_movement_left_out(label: str) -> tuple[Story, Any]:
    story = old(label)
    seq = succeed(story, [paid_meanwhile(story)], written=[])
    start(story)
    return story, seq


@lying("V11.succession")
def movement_outside_a_restore(label: str) -> tuple[Story, Any]:
    story, _ = opened_again(label)
    return story, story.add("lane.imported", "gate", [], paid_meanwhile(story))


@lying("V12.obligation")
def movement_takes_another_key_than_it_says(label: str) -> tuple[Story, Any]:
    story = old(label)
    body = movement(
        story, TRANSFER, "tr_2", 10_000, put("obligation", value="sha256:" + "ab" * 32), payee="aurora", invoice="INV-2"
    )
    return story, succeed(story, [body]) + 1


@lying("V12.obligation")
def movement_in_a_spelling_that_no_payment_has(label: str) -> tuple[Story, Any]:
    # It stands in the log, and the true key of invoice 2 is still free.
    pairs = [["invoice", "INV-2"], ["payee", "aurora"]]
    story = old(label)

    def spelt(body: dict[str, Any]) -> None:
        body |= {"pairs": pairs, "obligation": doc_digest("obligation", ["payables", pairs])}

    return story, succeed(
        story, [movement(story, TRANSFER, "tr_2", 10_000, spelt, payee="aurora", invoice="INV-2")]
    ) + 1


@lying("V12.obligation")
def movement_to_another_payee_than_it_takes_the_key_of(label: str) -> tuple[Story, Any]:
    story = old(label)
    to_other = put("terms", "payee", value="borealis")
    body = movement(story, TRANSFER, "tr_2", 10_000, to_other, payee="aurora", invoice="INV-2")
    return story, succeed(story, [body]) + 1


@lying("V11.succession")
def movement_from_a_provider_that_nobody_asked(label: str) -> tuple[Story, Any]:
    def unasked(body: dict[str, Any]) -> None:
        body["activity"] |= {"asked": [], "unasked": ["bank"]}

    story = old(label)
    return story, succeed(story, [paid_meanwhile(story)], alter=unasked) + 1


@lying("V14.decision")
def movement_paid_again(label: str) -> tuple[Story, Any]:
    story, _ = opened_again(label)
    action = story.decide(run_of(story, 1), "two", TRANSFER, payment(10_000, "aurora", "INV-2"), ALLOWED)
    story.settle(action)
    return story, action.seq


@lying("V14.decision")
def mandate_of_before_a_restore(label: str) -> tuple[Story, Any]:
    story, _ = opened_again(label)
    action = pay(story, 3)
    story.settle(action)
    return story, action.seq
