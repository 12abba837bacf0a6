"""Incident 1: vendors were paid correctly, but screened after the payment, on an old list, or too long before."""

from __future__ import annotations

import random

from countermark.model.clock import US
from countermark.twins.vendors import Paid, VendorDesk, list_digest
from countermark.wiring.incident_world import NAMES, Step, at

SEED = 4711
OCTOBER, NOVEMBER = 20261015, 20261110
FOCUS = "NV-2041"  # the payment that somebody asks about three weeks later
DAY_US = 86_400 * US
EXCEPTION_VENDOR, EXCEPTION_DAY = "V-1004", 12


def digest_of_november() -> str:
    """What the rule names: the list that holds from 10 November on."""
    return list_digest(NOVEMBER, ("blocked-trading", "cold-harbour-shipping"))


def steps() -> list[Step]:
    """Two weeks: a new list, three payments with a defect, one under an exception, and many as they should be."""
    found = [
        Step(at(9, "07:00"), "publish", amount=OCTOBER, reason="old-harbour-shipping"),
        Step(at(10, "07:00"), "publish", amount=NOVEMBER, reason="cold-harbour-shipping"),
        Step(at(9, "09:00"), "screen", "V-1001"),
        Step(at(9, "10:00"), "pay", "V-1001", "NV-2038", 420_000),
        # On the old list: the new one came out in between.
        Step(at(9, "15:00"), "screen", "V-1002"),
        Step(at(10, "09:30"), "pay", "V-1002", "NV-2040", 310_000),
        # Paid first, screened afterwards: in every list of the day both are there.
        Step(at(11, "10:00"), "pay", "V-1003", FOCUS, 1_240_000),
        Step(at(11, "14:00"), "screen", "V-1003"),
        Step(at(11, "09:00"), "screen", "V-1004"),
        Step(at(11, "11:00"), "pay", "V-1004", "NV-2042", 95_000),
        Step(at(11, "09:05"), "screen", "V-1001"),
        Step(at(12, "09:00"), "pay", "V-1001", "NV-2043", 880_000),
        # Two days after the last screening.
        Step(at(13, "10:00"), "pay", "V-1001", "NV-2044", 150_000),
        # Not screened, under a time-boxed exception: correct, if unusual.
        Step(at(EXCEPTION_DAY, "16:00"), "pay", EXCEPTION_VENDOR, "NV-2045", 60_000),
    ]
    chance = random.Random(SEED)  # noqa: S311  a seeded story, not a secret
    number = 2_050
    for day in (16, 17, 18, 19, 20):
        for vendor in sorted(NAMES):
            number += 1
            minute = chance.randrange(60)
            found.append(Step(at(day, f"08:{minute:02d}"), "screen", vendor))
            amount = chance.randrange(50_000, 1_500_000, 5)
            paid_at = at(day, f"{chance.randrange(10, 17)}:{minute:02d}")
            found.append(Step(paid_at, "pay", vendor, f"NV-{number}", amount))
    return found


def truth(desk: VendorDesk) -> set[str]:
    """The invoices with the defect, by the simulator's books alone: it knows nothing of rules or records."""
    return {paid.invoice for paid in desk.paid if not _screened(desk, paid) and not _excepted(paid)}


def _screened(desk: VendorDesk, paid: Paid) -> bool:
    holds = NOVEMBER if paid.at >= at(10, "00:00") else OCTOBER
    return any(
        seen.vendor == paid.vendor and seen.result == "clear" and seen.list_day >= holds
        and paid.at - DAY_US <= seen.at <= paid.at
        for seen in desk.screened
    )  # fmt: skip


def _excepted(paid: Paid) -> bool:
    start = at(EXCEPTION_DAY, "00:00")
    return paid.vendor == EXCEPTION_VENDOR and start <= paid.at < start + DAY_US
