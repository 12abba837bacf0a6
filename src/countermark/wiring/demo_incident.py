"""``countermark demo incident 1|2``: each incident blocked, with its rule in force, and reconstructed without it.

Offline and seeded: a payables desk whose screening, vendor file and bank are a simulator. The simulator's own books say
which payments have the defect; hindsight is as told only when it finds these and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.audit import (
    approved_and_executed,
    approved_lines,
    backtest_lines,
    explain,
    paths_lines,
    when,
)
from countermark.model.errors import ConfigError
from countermark.twins.vendors import VendorDesk
from countermark.wiring import incident_details, incident_screening
from countermark.wiring.demo import clean
from countermark.wiring.incident_stripe import run_at_provider
from countermark.wiring.incident_world import ACCOUNTS, Found, Step, World, hindsight, play, rule_texts, write_rule

NUMBERS = (1, 2)


@dataclass(frozen=True, slots=True)
class Incident:
    """A story: its rule's directory, its steps, and what the simulator's books say."""

    number: int
    title: str
    rule: str
    values: Mapping[str, str]
    steps: Callable[[], list[Step]]
    truth: Callable[[VendorDesk], set[str]]
    focus: str  # the invoice that is told in full
    seed: int


def _incident(number: int) -> Incident:
    if number == 1:
        return Incident(
            1, "Stale screening: paid correctly, but screened afterwards, on an old list, or too long before.",
            "screening", {"LIST": incident_screening.digest_of_november()}, incident_screening.steps,
            incident_screening.truth, incident_screening.FOCUS, incident_screening.SEED,
        )  # fmt: skip
    if number == 2:
        return Incident(
            2, "Approval substitution: approved for one account, paid to another; ledger, vendor and total match.",
            "details", {}, incident_details.steps, incident_details.truth, incident_details.FOCUS,
            incident_details.SEED,
        )  # fmt: skip
    raise ConfigError(f"there is no incident {number}", hint=f"There are {', '.join(map(str, NUMBERS))}.")


def run_incident(number: int, root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Play an incident into ``root/incident-N``; returns its figures. Raises ``CountermarkError``."""
    story = _incident(number)
    try:
        clean(root, (f"incident-{number}",), ())
        folder = root / f"incident-{number}"
        rule = rule_texts(story.rule, story.values)
        write_rule(folder / "rule", rule)
        before = play(folder / "without-the-rule", story.steps(), None, ACCOUNTS)
        after = play(folder / "with-the-rule", story.steps(), rule, ACCOUNTS)
    except OSError as error:
        raise ConfigError(f"{root} cannot be written: {error.strerror}", code="read_only",
                          hint="Choose another directory.") from None  # fmt: skip
    say(f"Incident {number}. {story.title}")
    say("Screening, vendor file and bank are a simulator on this machine; nothing leaves it.")
    old, new = hindsight(before, folder / "rule"), hindsight(after, folder / "rule")
    _reconstructed(story, before, old, say)
    _blocked(story, after, say)
    provider = run_at_provider(folder, say) if number == 2 else None
    truth = story.truth(before.desk)
    stopped = {name for name, status in after.answers.items() if before.answers[name] != status}
    as_told = (
        story.focus in truth and old.by_backtest == truth and old.by_paths == truth and stopped == truth
        and not story.truth(after.desk) and not new.paths["deviating"] and old.reperformed and new.reperformed
        and (provider is None or provider["as_told"])
    )  # fmt: skip
    say("")
    say(f"The simulator's own books, which no rule reads, have {len(truth)} payments with the defect: "
        + ("those that were found, and no other." if as_told else "NOT those that were found or stopped."))  # fmt: skip
    return {
        "incident": number, "seed": story.seed, "defects": sorted(truth), "as_told": as_told,
        "reconstructed": {**_figures(before, old), "focus": _approved(story, before)},
        "blocked": {**_figures(after, new), "stopped": sorted(stopped)}, "rule": str(folder / "rule"),
        **({} if provider is None else {"provider": provider}),
    }  # fmt: skip


def _figures(world: World, found: Found) -> dict[str, Any]:
    return {
        "deployment": str(world.made.root), "paid": len(world.desk.paid), "by_backtest": sorted(found.by_backtest),
        "by_paths": sorted(found.by_paths), "cleared": [
            {"invoice": row["references"]["invoice"], "exceptions": row["exceptions"]}
            for row in found.paths["cleared"]
        ], "reperformed": found.reperformed,
    }  # fmt: skip


def _approved(story: Incident, world: World) -> dict[str, Any]:
    store = world.store
    try:
        return approved_and_executed(store, world.actions[story.focus])
    finally:
        store.close()


def _reconstructed(story: Incident, world: World, found: Found, say: Callable[[str], None]) -> None:
    paid = world.desk.paid
    asked = {(step.vendor, step.invoice, step.amount) for step in story.steps() if step.kind == "pay"}
    if any((one.vendor, one.invoice, one.amount) not in asked for one in paid):
        raise ConfigError("the simulator's books are not those that the demo tells about")
    say("")
    say(f"1. Without the rule: {len(paid)} payments between {when(paid[0].at)} and {when(paid[-1].at)}, each of the "
        "amount, for the invoice and to the vendor that was asked for. In every book they look right.")  # fmt: skip
    if story.number == 2:
        say(f"   Three weeks later somebody asks about {story.focus}. Approved against executed:")
        for line in approved_lines(_approved(story, world)):
            say(f"   {line}")
    say("")
    say("2. A rule is written afterwards. What it would have said then (policy backtest):")
    for line in backtest_lines(found.backtest):
        if not line.startswith("  escalate"):
            say(f"   {line}")
    say("")
    say("3. What deviates from it, in the true order (audit paths):")
    for line in paths_lines(found.paths):
        say(f"   {line}")


def _blocked(story: Incident, world: World, say: Callable[[str], None]) -> None:
    store = world.store
    try:
        text = explain(store, world.actions[story.focus]).text
    finally:
        store.close()
    say("")
    say(f"4. The same days with the rule in force: {len(world.desk.paid)} payments, none with the defect. "
        f"{story.focus}, explained:")  # fmt: skip
    for line in text.splitlines():
        say(f"   {line}")
