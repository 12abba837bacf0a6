"""Incident 2: what a person approved for one account went to another, since the vendor file was changed in between."""

from __future__ import annotations

import random

from countermark.model.clock import US
from countermark.twins.vendors import Paid, VendorDesk
from countermark.wiring.incident_world import ACCOUNTS, NAMES, Step, at

SEED = 4712
FOCUS = "HC-7012"  # 48,000.00 EUR
BOX_US = 48 * 3_600 * US
EXCEPTION_VENDOR, EXCEPTION_DAY = "V-1003", 12


def steps() -> list[Step]:
    """A change between question and approval, one before a small payment, one long before, one that was called back."""
    found = [Step(at(2, f"08:{n:02d}"), "change", vendor, account=account, reason="taken over from the old file")
             for n, (vendor, account) in enumerate(sorted(ACCOUNTS.items()))]  # fmt: skip
    found += [
        Step(at(6, "10:00"), "pay", "V-1001", "HC-7001", 1_900_000, reason="monthly rate"),
        # Asked for at ten, changed at twenty to eleven, approved at five past.
        Step(at(10, "10:00"), "pay", "V-1001", FOCUS, 4_800_000, reason="the crane of berth 4"),
        Step(at(10, "10:40"), "change", "V-1001", account="DE02900900909009", reason="mail from the vendor"),
        Step(at(10, "11:05"), "approve", "V-1001", FOCUS),
        # Too small to ask about.
        Step(at(11, "08:00"), "change", "V-1002", account="SE02910910919119", reason="mail from the vendor"),
        Step(at(11, "13:00"), "pay", "V-1002", "NM-3105", 650_000, reason="paper"),
        # Changed on a Monday, paid on the Friday.
        Step(at(9, "09:00"), "change", "V-1004", account="FR02420420424224", reason="new bank, confirmed by contract"),
        Step(at(13, "09:30"), "pay", "V-1004", "DP-0210", 720_000, reason="brochures"),
        # Changed and paid on one day: the treasurer called back, and says so for that day.
        Step(at(EXCEPTION_DAY, "09:00"), "change", EXCEPTION_VENDOR, account="NL02330330333333", reason="called back"),
        Step(at(EXCEPTION_DAY, "15:00"), "pay", EXCEPTION_VENDOR, "QP-5501", 1_100_000, reason="hull paint"),
    ]
    chance = random.Random(SEED)  # noqa: S311  a seeded story, not a secret
    for day in (17, 18, 19, 20):
        for vendor, name in sorted(NAMES.items()):
            invoice = f"{name[0].upper()}X-{day}{chance.randrange(100, 1_000)}"
            amount = chance.randrange(40_000, 1_900_000, 5)
            clock = f"{chance.randrange(9, 17):02d}:{chance.randrange(60):02d}"
            found.append(Step(at(day, clock), "pay", vendor, invoice, amount, reason="the invoice is due"))
    return found


def truth(desk: VendorDesk) -> set[str]:
    """The invoices with the defect, by the simulator's books alone: paid within two days of a change."""
    return {paid.invoice for paid in desk.paid if _fresh(desk, paid) and not _excepted(paid)}


def _fresh(desk: VendorDesk, paid: Paid) -> bool:
    return any(one.vendor == paid.vendor and paid.at - BOX_US <= one.at <= paid.at for one in desk.changed)


def _excepted(paid: Paid) -> bool:
    start = at(EXCEPTION_DAY, "00:00")
    return paid.vendor == EXCEPTION_VENDOR and start <= paid.at < start + 86_400 * US
