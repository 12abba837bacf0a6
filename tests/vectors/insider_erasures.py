"""Insiders who erase what must be kept, or say that it was erased (V19, V15), and the honest history."""

from __future__ import annotations

from typing import Any

from build import head_of
from bundle import asking_bundle, bundle_doc, plain_bundle
from cases import UNSET, Case, case, trust
from erasures import DAY_S, KEEP_S, disclosed, erase, hold, kept, release
from lies import FOREIGN, OTHER, lie, put
from scribe import Story
from story import ask, opened, pack_of, pay

MONTH_S = KEEP_S + DAY_S


def erased() -> Story:
    """Two payees, one erased twice, a hold that stood and ended, a disclosure; the other payee keeps its values."""
    story = opened("erased", bundle=kept())
    for number, payee in enumerate(("aurora", "borealis", "aurora"), 1):
        story.settle(pay(story, number, payee=payee, reason="due today"))
    hold(story, "subject", "aurora")
    story.wait(MONTH_S)
    disclosed(story, ["$reason"], 3)
    release(story)
    erase(story)
    story.settle(pay(story, 4, reason="again"))
    hold(story, "payee", "borealis", "hold_" + "2" * 16)
    story.wait(MONTH_S)
    erase(story, people=("treasurer", "director"), generation=1)
    disclosed(story, ["$reason"], 1)
    return story


def paid(story: Story, seconds: int = MONTH_S, number: int = 1) -> None:
    """A payment with a sealed reason, some time ago."""
    story.settle(pay(story, number, reason="due today"))
    story.wait(seconds)


# --- erasures ---


@lie("V19.retention", bundle=kept())
def erased_within_the_duty(story: Story) -> int:
    paid(story, KEEP_S - DAY_S)
    return erase(story)


@lie("V19.retention", bundle=kept())
def erased_under_a_shorter_rule_made_since(story: Story) -> int:
    # Whoever wants it gone shortens the rule first; the longest one under which the record was decided counts.
    story.settle(pay(story, 1, reason="due today"))
    story.activate(kept(DAY_S, note="shorter"))
    story.wait(2 * DAY_S)
    return erase(story, keep_s=DAY_S)


@lie("V19.retention", bundle=kept(DAY_S))
def erased_before_a_longer_rule_is_over(story: Story) -> int:
    story.settle(pay(story, 1, reason="due today"))
    story.activate(kept(KEEP_S, note="longer"))
    story.wait(2 * DAY_S)
    return erase(story, keep_s=DAY_S)


@lie("V19.retention")
def erased_without_any_rule(story: Story) -> int:
    paid(story)
    return erase(story)


@lie("V19.retention", bundle=kept(None, {"another.tool": DAY_S}))
def erased_under_another_tools_rule(story: Story) -> int:
    paid(story)
    return erase(story, keep_s=DAY_S)


@lie("V19.hold", bundle=kept())
def erased_under_a_hold(story: Story) -> int:
    paid(story)
    hold(story, "agent", "payer")
    return erase(story)


@lie("V19.hold", bundle=kept())
def erased_under_a_hold_on_the_run(story: Story) -> int:
    paid(story)
    hold(story, "run", next(iter(story.runs)))
    return erase(story)


@lie("V19.separation", bundle=kept())
def erased_by_one_person_twice(story: Story) -> int:
    paid(story)
    return erase(story, people=("controller", "controller"))


@lie("V19.separation", bundle=kept())
def erased_by_two_without_independence(story: Story) -> int:
    paid(story)
    return erase(story, people=("activator", "steward"))


@lie("V19.signature", bundle=kept())
def erased_by_a_foreign_key(story: Story) -> int:
    paid(story)
    return erase(story, keys={"treasurer": FOREIGN})


@lie("V19.signature", bundle=kept())
def erased_for_another_deployment(story: Story) -> int:
    paid(story)
    return erase(story, sign=put("deployment", value="elsewhere"))


@lie("V19.count", bundle=kept())
def erased_more_than_was_signed(story: Story) -> int:
    # Two people agreed on one record; a second one went with it.
    paid(story)
    story.settle(pay(story, 2, reason="due tomorrow"))
    story.wait(MONTH_S)
    return erase(story, sign=put("records", value=1))


@lie("V19.count", bundle=kept())
def erased_other_records_than_were_signed(story: Story) -> int:
    paid(story)
    return erase(story, sign=put("digest", value=OTHER))


@lie("V19.count", bundle=kept())
def erasure_used_twice(story: Story) -> int:
    paid(story)
    seq = erase(story)
    paid(story, number=2)
    story.erased.update(row["seq"] for row in story.sealed)
    return story.replay(seq)


@lie("V19.count", bundle=kept())
def erased_where_nothing_was_sealed(story: Story) -> int:
    paid(story)
    return erase(story, "borealis", sign=lambda doc: doc.update(records=1, values=1))


@lie("V19.open", bundle=kept())
def erased_while_its_payment_was_unknown(story: Story) -> int:
    action = pay(story, 1, reason="due today")
    story.settle(action, "unknown")
    story.wait(MONTH_S)
    seq = erase(story)
    story.settle(action, via="lookup")
    return seq


def _asking() -> dict[str, Any]:
    bundle = asking_bundle("asking and keeping")
    bundle["compiled"]["retention"] = {"keep_s": 0, "tools": []}
    return bundle


@lie("V19.open", bundle=_asking())
def erased_while_people_were_asked(story: Story) -> int:
    paid(story, DAY_S)
    ask(story, 2, 60_000)
    return erase(story, keep_s=0)


# --- holds ---


@lie("V19.separation", bundle=kept())
def hold_ended_by_one(story: Story) -> int:
    hold(story)
    return release(story, people=("controller", "controller"))


@lie("V19.signature", bundle=kept())
def hold_ended_by_a_foreign_key(story: Story) -> int:
    hold(story)
    return release(story, keys={"controller": FOREIGN})


@lie("V19.hold", bundle=kept())
def hold_ended_that_never_stood(story: Story) -> int:
    return release(story)


@lie("V19.hold", bundle=kept())
def hold_ended_by_the_signatures_for_another(story: Story) -> int:
    hold(story)
    hold(story, name="hold_" + "2" * 16)
    return release(story, sign=put("hold", value="hold_" + "2" * 16))


@lie("V19.signature", bundle=kept())
def hold_by_a_foreign_key(story: Story) -> int:
    return hold(story, key=FOREIGN)


@lie("V19.hold", bundle=kept())
def hold_set_twice(story: Story) -> int:
    hold(story)
    release(story)
    return hold(story)


@lie("V04.record", bundle=kept())
def hold_of_everything_with_a_name(story: Story) -> int:
    return hold(story, value="aurora")


@lie("V04.record", bundle=kept())
def hold_of_a_run_that_cannot_be(story: Story) -> int:
    return hold(story, "run", "aurora")


# --- disclosures, and the bundle ---


@lie("V19.disclosure", bundle=kept())
def disclosed_by_somebody_unknown(story: Story) -> int:
    paid(story)
    return disclosed(story, ["$reason"], 1, reader="person:nobody")


@lie("V19.disclosure", bundle=kept())
def more_disclosed_than_there_was(story: Story) -> int:
    paid(story)
    return disclosed(story, ["$reason"], 2)


@lie("V19.disclosure", bundle=kept())
def disclosed_before_it_was_there(story: Story) -> int:
    paid(story)
    return disclosed(story, ["$reason"], 1, len(story.log.leaves) + 1)


def _empty() -> dict[str, Any]:
    bundle = plain_bundle("no rule")
    bundle["compiled"]["retention"] = {"keep_s": None, "tools": []}
    return bundle


@lie("V09.bundle", bundle=_empty())
def retention_that_says_nothing(story: Story) -> Any:
    return UNSET


@case
def erased_and_kept_all_the_same() -> Case:
    # The record says that two people erased it; the deployment counts it among what it withholds.
    story = opened("erased-and-kept", bundle=kept())
    paid(story)
    erase(story, really=False)
    pack = pack_of(story, ())
    return Case(pack.write(), "refuted", ["V15.erased"], None, trust=trust([head_of(story.log.leaves)]))


@case
def erased_without_a_record() -> Case:
    story = opened("erased-without-a-record", bundle=bundle_doc())
    story.settle(pay(story, 1, reason="due today"))
    story.erased.update(row["seq"] for row in story.sealed)
    return Case(pack_of(story, ()).write(), "refuted", ["V15.erased"], None, trust=trust([head_of(story.log.leaves)]))


@case
def disclosed_after_its_erasure() -> Case:
    story = opened("disclosed-after-its-erasure", bundle=kept())
    paid(story)
    seq = erase(story, really=False)
    pack = pack_of(story, ("$reason",))
    return Case(pack.write(), "refuted", ["V19.disclosure"], seq, trust=trust([head_of(story.log.leaves)]))
