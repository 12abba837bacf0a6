"""What cannot be established from this pack, and why: each line follows from what the pack holds or lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from countermark.audit.page.gather import Gathered
from countermark.audit.words import lasting


def cannot_be_established(found: Gathered, figures: Mapping[str, Any], cosigned: int) -> Iterator[str]:
    """Sentences, what is particular to this pack first."""
    yield from _of_this_pack(found, figures)
    if "scope" in figures:
        yield (
            "From the extract alone, that facts and budgets add up: they count records of others and of other times,"
            " which are not here. Whoever verified the whole log up to this head knows it."
        )
    confirmed = found.outcomes["confirmed"]
    if confirmed:
        yield (
            f"That the {confirmed:,} confirmed effects took place. The gate recorded what providers answered, and"
            " nothing here is signed by a provider."
        )
    if "observing" in found.tiers:
        yield (
            "What happened where the tier is observing: the agent's own program ran the tool, and reported the outcome."
        )
    if "enforcing" in found.tiers:
        yield "That the gate ran apart from the agents, as the tier enforcing says: that is the operator's statement."
    unsigned = len(found.population.lines) - found.signed
    if unsigned > 0:
        yield (
            f"That the agents themselves asked for {unsigned:,} of {len(found.population.lines):,} actions: these have"
            " no signature of an agent, and who asked is the operator's word."
        )
    if not cosigned:
        yield (
            "From the pack alone, that history was not rewritten: no witness signed this head. Only a head that you"
            " kept yourself shows it, up to that head."
        )
    if not found.kinds["head.stamped"] and not found.kinds["anchor.published"]:
        yield "When it happened, by anybody else's clock: no time stamp and no anchor stands in these records."
    yield f"Anything after record {figures['size'] - 1:,}, and any payment that was made without this gate."
    author = found.policies[-1].body["activation"]["author"] if found.policies else "the policy's author"
    yield (
        f"That what the policy says about the world is true: payees, roles and owners are as {author} wrote them. The"
        " records show that they were used as written."
    )
    yield "Why the agents asked: reasons, models and traces are recorded as claimed."


def _of_this_pack(found: Gathered, figures: Mapping[str, Any]) -> Iterator[str]:
    for count, one, words in (
        (figures["open"], "action", "begun, without an outcome: whether it took effect"),
        (figures["unknown"], "action", "with an unknown outcome: whether it took effect"),
        (figures["withheld"], "sensitive value", "withheld by whoever made this pack: what it says"),
        (figures["erased"], "sensitive value", "erased: what it said"),
    ):
        if count:
            yield f"{count:,} {one}{'' if count == 1 else 's'} {words}."
    for gap in found.lost:
        yield f"What {gap} said: they were lost before a restore."
    if found.pauses:
        lasted = sum(until - since for _, since, until, _ in found.pauses)
        count = f"{len(found.pauses):,} time" + ("" if len(found.pauses) == 1 else "s")
        yield f"What agents did while no gate ran: {count}, {lasting(lasted)} in all."
    refused = found.kinds["action.refused"]
    if refused:
        yield f"What {refused:,} refused requests asked for: they were no valid actions, and are no lines here."
    waived = sum(found.waived.values())
    if waived:
        what, them = ("1 action was", "it") if waived == 1 else (f"{waived:,} actions were", "them")
        yield f"That {what} within the policy: it would have stopped {them}, and only monitored."
