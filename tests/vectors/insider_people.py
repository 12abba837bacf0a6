"""Insiders who give themselves or each other keys (V09, V10), and an honest year of people's keys."""

from __future__ import annotations

import json
from typing import Any

from bundle import person_key
from enrolments import PHONE, SECOND, Passkey, away, enrol, peopled, remove
from fields import payment
from lies import FOREIGN, lie, put
from scribe import ALLOWED, Escalation, Story
from story import TRANSFER, args_of, ask, opened, pay, root_of_story, run_of


def two_desks(note: str = "two desks") -> dict[str, Any]:
    """The agent `payer` is the controller's, who may answer; `clerk` stays the bookkeeper's."""
    bundle = peopled(note)
    compiled = bundle["compiled"]
    for row in compiled["agents"]:
        if row["id"] == "payer":
            row["owner"] = "controller"
    rows = json.loads(compiled["entities"])
    for row in rows:
        if row["uid"] == {"type": "Agent", "id": "payer"}:
            row["attrs"]["owner"] = "controller"
    compiled["entities"] = json.dumps(rows, separators=(",", ":"))
    return bundle


DESKS: dict[str, Any] = {"bundle": two_desks()}
ALL_KEYS: dict[str, Any] = {"treasurer": [person_key("treasurer").text, SECOND.text]}
PEOPLED: dict[str, Any] = {"bundle": peopled()}
ALONE: dict[str, Any] = {"bundle": peopled("alone", test=True)}


def approve(story: Story, number: int, key: Any = None, person: str = "treasurer") -> int:
    """A question, answered with this key, and the payment that follows."""
    question = ask(story, number, 60_000)
    answered = story.answer(question, person, key=key)
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"]))
    return answered


def enrolled() -> Story:
    """A passkey by its person, a file by two others, a lost key removed, an absence, and policies in between."""
    story = opened("enrolled", **PEOPLED)
    approve(story, 1)
    enrol(story, PHONE)
    approve(story, 2, PHONE)
    enrol(story, SECOND, by=("director", "activator"))
    remove(story, person_key("treasurer").text, signer=PHONE)
    approve(story, 3, SECOND)
    away(story, by=("treasurer",), keys={"treasurer": PHONE})
    story.activate(peopled("next"))  # it still lists the key that was lost
    approve(story, 4, PHONE)
    remove(story, SECOND.text, by="director")
    third = Passkey("activator's laptop")
    enrol(story, third, "activator")
    story.activate(peopled("third"), key=third)  # type: ignore[arg-type]
    story.settle(pay(story, 5))
    return story


def alone() -> Story:
    """A deployment that says it is a test: one other person enrols."""
    story = opened("alone", **ALONE)
    enrol(story, SECOND, by=("director",))
    approve(story, 1, SECOND)
    return story


def desks() -> Story:
    """Two agents of two people: each owner answers for the other's agent, and for nothing that both stand behind."""
    story = opened("desks", **DESKS)
    approve(story, 1, person="treasurer")
    clerk = story.run("clerk", story.grant("clerk", [[900_000, None]]))
    question = asked_by(story, clerk, 2)
    story.answer(question, "controller")
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"]))
    return story


def asked_by(story: Story, run: str, number: int) -> Escalation:
    """A question about invoice `number`, put by whoever has the run."""
    args = payment(60_000, "aurora", f"INV-{number}")
    return story.escalate(run, f"call-{number}-{len(story.log.leaves)}", TRANSFER, args, {"treasury": ["ask-treasury"]})


def stood_in() -> Story:
    """The activator, who has no role of any ladder, answers while the treasurer is away, and not before or after."""
    story = opened("stood-in", **PEOPLED)
    away(story, stands_in="activator")
    approve(story, 1, person="activator")
    approve(story, 2)
    away(story, "steward", "activator")
    away(story, stands_in="activator", sign=put("until", value=story.now + 5_000_000))
    story.wait(10)
    approve(story, 3, person="controller")
    return story


@lie("V10.approval", **PEOPLED)
def answer_by_a_stand_in_after_the_absence(story: Story) -> int:
    away(story, stands_in="activator", sign=put("until", value=story.now + 2_000_000))
    story.wait(5)
    return approve(story, 1, person="activator")


@lie("V10.approval", **PEOPLED)
def answer_by_who_stands_in_for_nobody(story: Story) -> int:
    away(story, stands_in="activator")
    away(story, stands_in="controller")
    return approve(story, 1, person="activator")


@lie("V10.separation", **PEOPLED)
def answer_by_who_stands_in_for_the_policy_author(story: Story) -> int:
    away(story, "steward", "activator")
    return approve(story, 1, person="activator")


@lie("V10.separation", **PEOPLED)
def answer_by_who_stands_in_for_the_agents_owner(story: Story) -> int:
    away(story, "bookkeeper", "activator")
    return approve(story, 1, person="activator")


@lie("V10.separation", **DESKS)
def answer_by_the_owner_of_an_agent_that_asked_the_same_before(story: Story) -> int:
    first = asked_by(story, run_of(story), 1)
    story.wait(3600)
    story.expire(first)
    question = asked_by(story, story.run("clerk", story.grant("clerk", [[900_000, None]])), 1)
    answered = story.answer(question, "controller")
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"]))
    return answered


@lie("V10.separation", **DESKS)
def answer_by_the_owner_of_an_agent_that_delegated(story: Story) -> int:
    child = story.grant("clerk", [], root_of_story(story), not_after=story.now + 86_400_000_000)
    question = asked_by(story, story.run("clerk", child), 1)
    answered = story.answer(question, "controller")
    story.settle(story.again(question, args_of(question), ALLOWED, lifted=["ask-treasury"]))
    return answered


@lie("V10.approval", **PEOPLED)
def answer_for_an_agent_that_the_policy_dropped(story: Story) -> int:
    # Whose agent it is, and so who may not answer, nobody can say any more.
    question = ask(story, 1, 60_000)
    bundle = peopled("without the payer")
    compiled = bundle["compiled"]
    compiled["agents"] = [row for row in compiled["agents"] if row["id"] != "payer"]
    rows = [row for row in json.loads(compiled["entities"]) if row["uid"] != {"type": "Agent", "id": "payer"}]
    compiled["entities"] = json.dumps(rows, separators=(",", ":"))
    story.activate(bundle)
    return story.answer(question, "controller", "refuse")


@lie("V10.enrolment", **PEOPLED)
def enrolment_by_a_foreign_key(story: Story) -> int:
    return enrol(story, PHONE, keys={"treasurer": FOREIGN})


@lie("V10.enrolment", **PEOPLED)
def enrolment_signed_by_the_key_that_it_enrols(story: Story) -> int:
    return enrol(story, SECOND, keys={"treasurer": SECOND})


@lie("V10.enrolment", **PEOPLED)
def enrolment_of_a_passkey_that_nobody_shows(story: Story) -> int:
    return enrol(story, PHONE, alter=put("proof", value=None))


@lie("V10.enrolment", **PEOPLED)
def enrolment_with_a_proof_by_another_passkey(story: Story) -> int:
    def swap(body: dict[str, Any]) -> None:
        body["proof"] = Passkey("somebody's").sign_doc("enrolment-proof", body["enrolment"])

    return enrol(story, PHONE, alter=swap)


@lie("V10.enrolment", **PEOPLED)
def enrolment_with_an_assertion_altered(story: Story) -> int:
    def bend(body: dict[str, Any]) -> None:
        proof = body["proof"]["signature"]
        body["proof"]["signature"] = proof[:20] + ("A" if proof[20] != "A" else "B") + proof[21:]

    return enrol(story, PHONE, alter=bend)


@lie("V10.enrolment", **PEOPLED)
def enrolment_whose_proof_nobody_verified(story: Story) -> int:
    return enrol(story, Passkey("unverified", flags=0x01))


@lie("V10.enrolment", **PEOPLED)
def enrolment_with_the_proof_of_an_earlier_one(story: Story) -> int:
    """The passkey was shown for the treasurer; the proof is put under the controller's enrolment."""

    def as_the_treasurers(body: dict[str, Any]) -> None:
        body["proof"] = PHONE.sign_doc("enrolment-proof", body["enrolment"] | {"person": "treasurer"})

    return enrol(story, PHONE, "controller", alter=as_the_treasurers)


@lie("V10.enrolment", **PEOPLED)
def enrolment_by_one_other_where_two_are_needed(story: Story) -> int:
    return enrol(story, SECOND, by=("director",))


@lie("V10.enrolment", **PEOPLED)
def enrolment_by_one_other_twice(story: Story) -> int:
    return enrol(story, SECOND, by=("director", "director"))


@lie("V10.enrolment", **PEOPLED)
def enrolment_by_the_person_and_one_other(story: Story) -> int:
    return enrol(story, SECOND, "director", by=("director", "activator"))


@lie("V10.enrolment", **PEOPLED)
def enrolment_by_others_without_a_role(story: Story) -> int:
    return enrol(story, SECOND, by=("director", "controller"))


@lie("V10.enrolment", **ALONE)
def enrolment_by_nobody_in_a_test(story: Story) -> int:
    return enrol(story, SECOND, by=())


@lie("V10.enrolment", **PEOPLED)
def enrolment_for_another_deployment(story: Story) -> int:
    return enrol(story, PHONE, sign=put("deployment", value="elsewhere"))


@lie("V10.enrolment", **PEOPLED)
def enrolment_recorded_too_late(story: Story) -> int:
    return enrol(story, PHONE, lasts_us=0)


@lie("V10.enrolment", **PEOPLED)
def enrolment_good_for_a_year(story: Story) -> int:
    return enrol(story, PHONE, lasts_us=365 * 86_400_000_000)


@lie("V10.enrolment", **PEOPLED)
def enrolment_of_nobody(story: Story) -> int:
    return enrol(story, PHONE, "ghost", by=("director", "activator"))


@lie("V10.enrolment", **PEOPLED)
def enrolment_given_twice(story: Story) -> int:
    first = enrol(story, PHONE)
    return story.add("key.enrolled", "gate", [], story.log.records[first]["body"])


@lie("V10.enrolment", **PEOPLED)
def enrolment_of_one_key_for_two_people(story: Story) -> int:
    enrol(story, PHONE)
    return enrol(story, PHONE, "controller")


@lie("V10.enrolment", **PEOPLED)
def enrolment_of_a_key_that_was_removed(story: Story) -> int:
    enrol(story, PHONE)
    remove(story, PHONE.text)
    return enrol(story, PHONE)


@lie("V10.enrolment", **PEOPLED)
def enrolment_of_a_seventeenth_key(story: Story) -> int:
    for number in range(15):
        enrol(story, Passkey(f"number {number}"))
    return enrol(story, PHONE)


@lie("V10.approval", **PEOPLED)
def answer_by_a_key_before_its_enrolment(story: Story) -> int:
    answered = approve(story, 1, PHONE)
    enrol(story, PHONE)
    return answered


@lie("V10.approval", **PEOPLED)
def answer_by_a_key_after_its_removal(story: Story) -> int:
    enrol(story, PHONE)
    approve(story, 1, PHONE)
    remove(story, PHONE.text)
    return approve(story, 2, PHONE)


@lie("V10.approval", **PEOPLED)
def answer_by_a_key_enrolled_for_another_person(story: Story) -> int:
    enrol(story, PHONE, "controller")
    return approve(story, 1, PHONE)


@lie("V10.approval", **PEOPLED)
def answer_by_a_key_that_the_policy_lists_and_a_record_removed(story: Story) -> int:
    enrol(story, PHONE)
    remove(story, person_key("treasurer").text, signer=PHONE)
    story.activate(peopled("next"))
    return approve(story, 1)


@lie("V10.approval", **PEOPLED)
def answer_by_an_enrolled_key_of_somebody_who_had_left(story: Story) -> int:
    """Out of the policy and in again: what was enrolled before does not come back."""
    enrol(story, PHONE)
    without = peopled("without")
    people = without["compiled"]["people"]
    without["compiled"]["people"] = [row for row in people if row["id"] != "treasurer"]
    story.activate(without)
    story.activate(peopled("again"))
    return approve(story, 1, PHONE)


@lie("V10.enrolment", **PEOPLED)
def removal_by_somebody_who_may_not(story: Story) -> int:
    return remove(story, person_key("treasurer").text, by="controller")


@lie("V10.enrolment", **PEOPLED)
def removal_by_a_foreign_key(story: Story) -> int:
    return remove(story, person_key("treasurer").text, signer=FOREIGN)


@lie("V10.enrolment", **PEOPLED)
def removal_of_what_the_person_does_not_have(story: Story) -> int:
    return remove(story, PHONE.text)


@lie("V10.enrolment", **PEOPLED)
def removal_of_the_last_key_that_grants(story: Story) -> int:
    return remove(story, person_key("director").text, "director", "director")


@lie("V10.enrolment", **PEOPLED)
def removal_for_another_deployment(story: Story) -> int:
    return remove(story, person_key("treasurer").text, sign=put("deployment", value="elsewhere"))


@lie("V10.absence", **PEOPLED)
def absence_by_one_other(story: Story) -> int:
    return away(story, by=("director",))


@lie("V10.absence", **PEOPLED)
def absence_by_two_of_whom_one_grants_nothing(story: Story) -> int:
    return away(story, by=("director", "activator"))


@lie("V10.absence", **PEOPLED)
def absence_by_a_foreign_key(story: Story) -> int:
    return away(story, keys={"treasurer": FOREIGN})


@lie("V10.absence", **PEOPLED)
def absence_for_another_deployment(story: Story) -> int:
    return away(story, sign=put("deployment", value="elsewhere"))


@lie("V10.absence", **PEOPLED)
def absence_that_never_ends(story: Story) -> int:
    return away(story, sign=put("until", value=9_000_000_000_000_000))


@lie("V10.absence", **PEOPLED)
def absence_with_the_person_as_their_own_stand_in(story: Story) -> int:
    return away(story, stands_in="treasurer")


@lie("V10.absence", **PEOPLED)
def absence_with_a_stand_in_whom_nobody_knows(story: Story) -> int:
    return away(story, stands_in="ghost")


@lie("V09.bundle", **PEOPLED)
def policy_that_gives_an_enrolled_key_to_somebody_else(story: Story) -> int:
    enrol(story, SECOND)
    return story.activate(peopled("stolen", keys={"controller": SECOND}))


@lie("V09.bundle", **PEOPLED)
def policy_that_gives_a_removed_key_to_an_agent(story: Story) -> int:
    enrol(story, SECOND)
    remove(story, SECOND.text)
    bundle = peopled("machine")
    bundle["compiled"]["agents"][0]["keys"] = [SECOND.text]
    return story.activate(bundle)


@lie("V09.signature", **PEOPLED)
def policy_activated_with_a_key_that_was_removed(story: Story) -> int:
    enrol(story, PHONE, "activator")
    remove(story, person_key("activator").text, "activator", "activator", PHONE)
    return story.activate(peopled("next"))
