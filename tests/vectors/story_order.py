"""Honest histories in which two things happen to one payment, and the rules say which of them counts."""

from __future__ import annotations

from build import Key
from bundle import asking_bundle, person_key
from fields import payment
from scribe import ALLOWED, Escalation, Story
from story import TRANSFER, args_of, ask, opened, pay, root_of_story, run_of

ROTATED = ("activator", "director", "treasurer")
NEW_KEYS = {person: Key(f"person/{person}/new") for person in ROTATED}
BOTH_KEYS = {person: [person_key(person).text, NEW_KEYS[person].text] for person in ROTATED}


def refused() -> Story:
    """While a question waits nobody else pays; a refusal stays, an expiry does not; a revoked parent beats a limit."""
    story = opened("refused", bundle=asking_bundle())
    run = run_of(story)
    less = payment(10_000, "aurora", "inv-1")
    question = ask(story, 1, 60_000)
    story.decide(run, "call-2", TRANSFER, payment(60_000, "aurora", "INV-1"), question.waiting)
    story.decide(run, "call-3", TRANSFER, less, question.waiting)
    refusal = story.answer(question, "treasurer", "refuse")
    story.decide(run, "call-4", TRANSFER, less, ("deny", "obligation", "refused_by_person", [f"seq:{refusal}"]))
    silent = ask(story, 5, 60_000)
    story.wait(3600)
    story.expire(silent)
    answered = story.escalate(
        run, "call-6", TRANSFER, payment(60_000, "aurora", "INV-5"), {"treasury": ["ask-treasury"]}
    )
    story.answer(answered, "treasurer")
    story.settle(story.again(answered, args_of(answered), ALLOWED, lifted=["ask-treasury"]), "failed")
    story.settle(story.decide(run, "call-7", TRANSFER, payment(10_000, "aurora", "INV-5"), ALLOWED))
    root = root_of_story(story)
    run = story.run("clerk", story.grant("clerk", [[5_000, 0]], root))
    story.revoke(root)
    pay(story, 8, run=run, answer=("deny", "mandate", "mandate_not_in_force", [root]))
    return story


def rotated() -> Story:
    """Three people get new keys by a bundle that the old key activates; what they signed before stays good."""
    story = opened("rotated", bundle=asking_bundle())

    def approve(escalation: Escalation, key: Key | None = None) -> None:
        story.answer(escalation, "treasurer", key=key)
        story.settle(story.again(escalation, args_of(escalation), ALLOWED, lifted=["ask-treasury"]))

    approve(ask(story, 1, 60_000))
    story.activate(asking_bundle("new keys", keys=NEW_KEYS))
    approve(ask(story, 2, 60_000), NEW_KEYS["treasurer"])
    mandate = story.grant("payer", [[70_000, None]], key=NEW_KEYS["director"])
    story.settle(pay(story, 3, run=story.run("payer", mandate)))
    story.activate(asking_bundle("third", keys=NEW_KEYS), key=NEW_KEYS["activator"])
    story.revoke(mandate, key=NEW_KEYS["director"])
    story.settle(pay(story, 4))
    return story


def booked() -> Story:
    """Nothing booked, then more than was asked: each stops the tool, and the mandate counts what was booked."""
    story = opened("booked", bundle=asking_bundle(), limits=[[20_000, None]])
    story.settle(pay(story, 1, 15_000), amount=0)
    pay(story, 2, 1_000, answer=("deny", "kill", "killed", [*story.kills]))
    story.clear()
    story.settle(pay(story, 3, 20_000), amount=20_100)
    story.clear()
    pay(story, 4, 1, answer=("deny", "mandate", "mandate_limit", [root_of_story(story)]))
    return story
