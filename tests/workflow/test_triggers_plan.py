"""What triggers of a definition may be, and what time and events make of them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import canon
from countermark.model.clock import US
from countermark.workflow.definition_triggers import read_triggers
from countermark.workflow.errors import DefinitionError
from countermark.workflow.triggers import (
    RUNS_MAX,
    Schedule,
    Start,
    Unstarted,
    key_of,
    read_schedule_event,
    schedule_event,
    schedules_of,
    starts_of,
)

HOUR, DAY = 3_600 * US, 86_400 * US
MONDAY = 1_790_553_600 * US  # 2026-09-28T00:00Z
INPUTS = {
    "day": {"type": "string", "required": True, "default": None, "choices": []},
    "amount": {"type": "int", "required": False, "default": None, "choices": []},
}
GIVES_DAY = [["day", {"$": "event.day"}]]


def schedule(cron: str = "0 9 * * *", zone: str = "UTC", missed: str = "skip", **more: Any) -> dict[str, Any]:
    return {"kind": "schedule", "cron": cron, "zone": zone, "missed": missed, "with": GIVES_DAY, **more}


def hook(source: str = "stripe", condition: str | None = None, **more: Any) -> dict[str, Any]:
    return {"kind": "webhook", "source": source, "if": condition, "with": GIVES_DAY, **more}


def document(*triggers: dict[str, Any], name: str = "sweep") -> dict[str, Any]:
    return {"name": name, "triggers": sorted(triggers, key=canon), "inputs": INPUTS}


def received(payload: Any, **more: Any) -> dict[str, Any]:
    body = {"source": "stripe", "event": "evt_1", "key": "o-1", "payload": payload, "scheme": "stripe"}
    return {**body, **more}


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (schedule(cron="0 9 * *"), "4 fields"),
        (schedule(zone="Berlin"), "time zone"),
        (schedule("60 * * * *"), "minute"),
    ],
)
def test_a_definition_with_a_wrong_schedule_is_none(trigger: dict[str, Any], said: str) -> None:
    """What no schedule can be is found when the definition is read."""
    read_triggers([schedule()], ("triggers",))
    with pytest.raises(DefinitionError, match=said):
        read_triggers([trigger], ("triggers",))


def test_a_nominal_time_is_started_with_its_inputs_once() -> None:
    """At nine there is one run, whose event names the nominal time; handled up to it, there is nothing more."""
    (daily,) = schedules_of(document(schedule(), hook()))
    planned = daily.plan(MONDAY, MONDAY + 9 * HOUR + 3 * US)
    event = f"{(MONDAY + 9 * HOUR) // US} UTC 0 9 * * *"
    assert planned.starts == (Start("sweep", "schedule", event, None, {"day": "2026-09-28"}),)
    assert daily.plan(MONDAY + 9 * HOUR, MONDAY + 10 * HOUR).starts == ()
    assert daily.next_us(MONDAY + 9 * HOUR) == MONDAY + 33 * HOUR
    assert daily.plan(MONDAY + 9 * HOUR, MONDAY + 9 * HOUR).upto is None


@pytest.mark.parametrize(("missed", "days"), [("skip", []), ("latest", [6]), ("all", [0, 1, 2, 3, 4, 5, 6])])
def test_what_was_missed_follows_the_policy(missed: str, days: list[int]) -> None:
    """After a week's absence nothing, the newest or every nominal time is made up, and what is left out is counted."""
    planned = Schedule("sweep", schedule(missed=missed)).plan(MONDAY, MONDAY + 7 * DAY - HOUR)
    found = [read_schedule_event(one.event) for one in planned.starts]
    assert found == [(MONDAY + day * DAY + 9 * HOUR, "0 9 * * *", "UTC") for day in days]
    assert planned.left == 7 - len(days)
    assert planned.upto == MONDAY + 6 * DAY + 9 * HOUR


def test_a_short_delay_misses_nothing_and_a_long_one_is_bounded() -> None:
    """With `skip`, a run begins up to a minute late; with `all`, years of minutes make a hundred runs."""
    quick = Schedule("sweep", schedule("* * * * *"))
    assert [one.event for one in quick.plan(MONDAY, MONDAY + 119 * US).starts] == [
        schedule_event(MONDAY + 60 * US, "* * * * *", "UTC")
    ]
    planned = Schedule("sweep", schedule("* * * * *", missed="all")).plan(MONDAY, MONDAY + 800 * DAY)
    assert len(planned.starts) == RUNS_MAX
    assert planned.upto == MONDAY + 800 * DAY


def test_two_schedules_at_one_time_are_two_runs() -> None:
    """Two triggers that fall on one minute start a run each, under events of their own."""
    both = schedules_of(document(schedule("0 9 * * *"), schedule("0 9 * * MON")))
    starts = [one.event for each in both for one in each.plan(MONDAY, MONDAY + 9 * HOUR).starts]
    assert len(set(starts)) == 2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["latest", "all"]))
def test_however_often_and_whenever_it_is_asked_each_time_is_started_once(seed: int, missed: str) -> None:
    """A planner that looks at any moments, stops between plan and start and forgets, whose clock steps back and on,
    starts no nominal time twice, and with `all` none is left out."""
    chance = random.Random(seed)
    whole = Schedule("sweep", schedule("*/20 1-3 * * *", "Europe/Berlin", missed))
    begun: list[int] = []
    now = begin = MONDAY + 26 * DAY + 20 * HOUR  # the night of 2026-10-25
    for _ in range(60):
        now += chance.randrange(-1_200, 2_400) * US
        for one in whole.plan(begun[-1] if begun else begin, now).starts:
            if chance.random() < 0.3:
                break  # the process ends here; what was started stands in the records
            found = read_schedule_event(one.event)
            assert found is not None
            begun.append(found[0])
    assert begun == sorted(set(begun))
    if missed == "all" and begun:
        model = Schedule("sweep", {**whole.trigger, "missed": "all"}).plan(begin, begun[-1]).starts
        assert [read_schedule_event(one.event)[0] for one in model] == begun  # type: ignore[index]


def test_an_event_starts_each_definition_that_asks_for_it() -> None:
    """Of the definitions in force, those with its source and a condition that holds; null inputs are not given."""
    paid = hook(condition="event.type == 'paid'", **{"with": [["amount", {"$": "event.amount"}], ["day", "d"]]})
    documents = [document(paid), document(hook("github"), name="other"), document(paid, name="second")]
    starts = starts_of(documents, 7, received({"type": "paid", "amount": None}))
    assert starts == [
        Start("sweep", "webhook", "stripe evt_1", 7, {"day": "d"}),
        Start("second", "webhook", "stripe evt_1", 7, {"day": "d"}),
    ]
    assert starts_of(documents, 7, received({"type": "failed"})) == []
    assert starts_of(documents, 7, received({"type": "paid"}, scheme="receipt")) == []
    on_chain = document({**hook("usdc"), "kind": "chain"})
    (one,) = starts_of([on_chain], 9, received({"day": "x"}, source="usdc", scheme="receipt", event="1:aa:0:0"))
    assert (one.kind, one.event) == ("chain", "usdc 1:aa:0:0")


def test_a_payload_that_does_not_fit_starts_nothing_and_says_so() -> None:
    """A condition or an input that fails on the data is no run, and no error of anybody else's."""
    (one,) = starts_of([document(hook(condition="event.n > 1"))], 3, received({"n": "text"}))
    assert isinstance(one, Unstarted)
    assert one.code == "expression_failed"
    (one,) = starts_of([document(hook(**{"with": [["day", {"$": "event.a.b[0]"}]]}))], 3, received({"a": {"b": 1}}))
    assert isinstance(one, Unstarted)


def test_data_is_never_evaluated() -> None:
    """What a payload holds becomes an input as it stands, however much it looks like an expression."""
    (one,) = starts_of([document(hook())], 3, received({"day": "${{ steps.x }}"}))
    assert isinstance(one, Start)
    assert one.given == {"day": "${{ steps.x }}"}


def test_an_event_without_a_key_wakes_nobody() -> None:
    """A wait is woken by source and key; the empty key is none."""
    assert key_of(received({})) == ("stripe", "o-1")
    assert key_of(received({}, key="")) is None


@pytest.mark.parametrize("text", ["", "x UTC 0 9 * * *", "017 UTC 0", "1 UTC", "1790586000"])
def test_other_events_are_none_of_a_schedule(text: str) -> None:
    """Only a time, a zone and a schedule are read as such."""
    assert read_schedule_event(text) is None
