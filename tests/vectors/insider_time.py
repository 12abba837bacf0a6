"""Time stamps (V16): what an operator who holds every key of the gate may try against an authority of time."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from build import b64, head_of, note_text, root_of
from bundle import plain_bundle
from cases import Case, case, trust
from scribe import Story
from stamps import Authority
from story import opened, pack_of, pay

TSA = Authority("tsa.example")
OTHER = Authority("other.example")
OWN = Authority("acme")
DAY_S = 86_400
US = 1_000_000

Token = Callable[[bytes, int], bytes]


def stamp(
    story: Story, token: Token | None = None, authority: str = "tsa.example", to_come: int = 0, **more: Any
) -> int:
    """Write a stamp over the newest head; `token` makes it of the note's text and the present time."""
    asked, size = story.now + 900_000, len(story.log.leaves)
    root = root_of(story.log.leaves)
    made = (token or TSA.token)(note_text(size, root), asked)
    body = {
        "size": size + to_come, "root": root.hex(), "authority": authority, "token": b64(made), "asked": asked,
        "answered": asked + 40_000,
    }  # fmt: skip
    return story.add("head.stamped", "gate", [], body | more)


def paid() -> Story:
    story = opened("stamped", None, bundle=plain_bundle())
    story.settle(pay(story, 1))
    return story


def judged(story: Story, verdict: str, *codes: str, seq: Any = None, by: tuple[Authority, ...] = (TSA,)) -> Case:
    stamps = [{"certificate": one.pem, "operator": one.name} for one in by]
    shown = trust([head_of(story.log.leaves)], stamps=stamps)
    return Case(pack_of(story).write(), verdict, list(codes), seq, shown)


def lying(code: str, token: Token | None = None, **more: Any) -> Case:
    """A history whose only stamp has this token, against an auditor who trusts `tsa.example` and one more."""
    story = paid()
    return judged(story, "refuted", code, seq=stamp(story, token, **more), by=(OTHER, TSA))


def twice() -> Story:
    story = paid()
    stamp(story)
    story.wait(3_600)
    story.settle(pay(story, 2))
    stamp(story, OTHER.token, "Other.Example")
    return story


@case
def honest_stamped() -> Case:
    return judged(twice(), "verified", by=(OTHER, TSA))


@case
def honest_stamped_by_nobody_the_auditor_asks_about() -> Case:
    story = twice()
    return Case(pack_of(story).write(), "verified", [], trust=trust([head_of(story.log.leaves)]))


@case
def honest_stamped_under_another_name() -> Case:
    # The operator calls the authority otherwise than the auditor does: whose certificate it is decides.
    story = paid()
    stamp(story, authority="hourly stamps")
    return judged(story, "verified")


@case
def honest_clock_two_minutes_ahead() -> Case:
    story = paid()
    stamp(story, lambda text, at: TSA.token(text, at - 120 * US))
    return judged(story, "verified")


@case
def stamp_missing() -> Case:
    return judged(paid(), "incomplete", "V16.none")


@case
def stamp_by_the_operators_own_authority() -> Case:
    story = paid()
    stamp(story, OWN.token, "acme")
    return judged(story, "incomplete", "V16.none", by=(TSA, OWN))


@case
def stamp_by_an_unknown_authority() -> Case:
    story = paid()
    stamp(story, OTHER.token, "other.example")
    return judged(story, "incomplete", "V16.none")


@case
def stamp_by_another_authority_under_a_known_name() -> Case:
    return lying("V16.token", OTHER.token)


@case
def stamp_time_changed() -> Case:
    return lying("V16.token", lambda text, at: TSA.token(text, at, altered_us=at - 30 * DAY_S * US))


@case
def stamp_truncated() -> Case:
    return lying("V16.token", lambda text, at: TSA.token(text, at)[:-9])


@case
def stamp_with_bytes_after_it() -> Case:
    return lying("V16.token", lambda text, at: TSA.token(text, at) + b"\0")


@case
def stamp_by_a_certificate_for_code() -> Case:
    return lying("V16.token", Authority("tsa.example", stamping=False).token)


@case
def stamp_by_a_certificate_that_had_expired() -> Case:
    return lying("V16.token", Authority("tsa.example", until=2026).token)


@case
def stamp_over_another_head() -> Case:
    return lying("V16.imprint", lambda text, at: TSA.token(text.replace(b"\n6\n", b"\n5\n"), at))


@case
def stamp_over_another_log() -> Case:
    return lying("V16.imprint", lambda text, at: TSA.token(text.replace(b"/acme/", b"/other/"), at))


@case
def stamp_replayed_on_a_later_head() -> Case:
    # An old token under a new head would date the records in between back.
    story = paid()
    first = stamp(story)
    token = story.log.records[first]["body"]["token"]
    story.wait(DAY_S)
    story.settle(pay(story, 2))
    return judged(story, "refuted", "V16.imprint", seq=stamp(story, lambda text, at: base64.b64decode(token)))


@case
def stamp_of_another_root() -> Case:
    return lying("V16.head", root="ab" * 32)


@case
def stamp_of_a_head_to_come() -> Case:
    story = paid()
    return judged(story, "refuted", "V16.head", seq=stamp(story, to_come=93))


@case
def stamp_answered_before_it_was_asked() -> Case:
    return lying("V16.head", answered=1)


@case
def stamp_answered_after_its_record() -> Case:
    return lying("V16.head", answered=2_000_000_000_000_000)


@case
def records_dated_after_their_stamp() -> Case:
    # The authority had seen them a day before the time that they say.
    story = paid()
    stamp(story, lambda text, at: TSA.token(text, at - DAY_S * US))
    return judged(story, "refuted", "V16.time", seq=len(story.log.leaves) - 2)


@case
def records_dated_back() -> Case:
    # Written today with times of last week: the token in them did not exist then.
    story = paid()
    return judged(story, "refuted", "V16.time", seq=stamp(story, lambda text, at: TSA.token(text, at + 7 * DAY_S * US)))
