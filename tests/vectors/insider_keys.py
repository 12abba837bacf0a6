"""Insiders who hand the log over to a key of their own (V10), and an honest rotation of the log's key."""

from __future__ import annotations

from typing import Any

from build import DEPLOYMENT, Json, Key
from bundle import DAY_US
from enrolments import peopled
from hindsight import four_eyes
from lies import lie, put
from scribe import Alter, Story
from story import opened, pay

NEXT = Key("log/next")
MAY = ("director", "activator")  # a principal and an operator
ROTATED: dict[str, Any] = {"bundle": peopled("rotated")}


def rotate(
    story: Story, new: Key = NEXT, old: Key | None = None, by: tuple[str, ...] = MAY, days: int = 30,
    sign: Alter | None = None, alter: Alter | None = None,
) -> int:  # fmt: skip
    """The log's key changes hands; `sign` falsifies what is signed, `alter` the record."""
    old = old or story.log_key
    doc: Json = {
        "v": 1, "deployment": DEPLOYMENT, "lane": "l0", "old": old.text, "new": new.text,
        "until": story.now + days * DAY_US, "reason": "yearly",
    }  # fmt: skip
    if sign is not None:
        sign(doc)
    proofs = {"old": old.sign_doc("rotation", doc), "new": new.sign_doc("rotation", doc)}
    body = {"rotation": doc, "proofs": proofs, "signed": four_eyes("rotation", doc, by, {})}
    if alter is not None:
        alter(body)
    story.next_key = new
    return story.add("key.rotated", "gate", [], body)


def rotated_log() -> Story:
    """A payment, a rotation, a payment: the head is signed by both keys, since the overlap is not over."""
    story = opened("rotated log", **ROTATED)
    story.settle(pay(story, 1))
    rotate(story)
    story.settle(pay(story, 2))
    return story


@lie("V10.rotation", **ROTATED)
def rotation_by_one_person(story: Story) -> int:
    return rotate(story, by=("director",))


@lie("V10.rotation", **ROTATED)
def rotation_by_one_person_twice(story: Story) -> int:
    return rotate(story, by=("director", "director"))


@lie("V10.rotation", **ROTATED)
def rotation_by_people_without_a_role(story: Story) -> int:
    return rotate(story, by=("director", "controller"))


@lie("V10.rotation", **ROTATED)
def rotation_for_another_deployment(story: Story) -> int:
    return rotate(story, sign=put("deployment", value="elsewhere"))


@lie("V10.rotation", **ROTATED)
def rotation_for_another_lane(story: Story) -> int:
    return rotate(story, sign=put("lane", value="l1"))


@lie("V10.rotation", **ROTATED)
def rotation_from_a_key_that_is_not_the_logs(story: Story) -> int:
    return rotate(story, old=Key("stranger"))


@lie("V10.rotation", **ROTATED)
def rotation_that_the_old_key_did_not_sign(story: Story) -> int:
    def forged(body: Json) -> None:
        body["proofs"]["old"] = body["proofs"]["new"]

    return rotate(story, alter=forged)


@lie("V10.rotation", **ROTATED)
def rotation_to_a_key_that_did_not_sign(story: Story) -> int:
    def forged(body: Json) -> None:
        body["proofs"]["new"] = body["proofs"]["old"]

    return rotate(story, alter=forged)


@lie("V10.rotation", **ROTATED)
def rotation_with_an_overlap_of_years(story: Story) -> int:
    return rotate(story, days=401)


@lie("V10.rotation", **ROTATED)
def rotation_to_the_same_key(story: Story) -> int:
    return rotate(story, new=story.log_key)


@lie("V10.rotation", **ROTATED)
def rotation_during_the_overlap_of_another(story: Story) -> int:
    rotate(story)
    return rotate(story, new=Key("third"), old=NEXT)
