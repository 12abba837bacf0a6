"""Every page there is, in the order of the navigation. A page's module has its own; they are put together here."""

from __future__ import annotations

from countermark.server.console import (
    agents,
    approval,
    enrol,
    evidence,
    health,
    home,
    limits,
    login,
    payments,
    policy,
    runs,
    waiting,
)
from countermark.server.console.visit import Page

PAGES: tuple[Page, ...] = (
    *home.PAGES,
    *login.PAGES,
    *enrol.PAGES,
    *waiting.PAGES,
    *approval.PAGES,
    *payments.PAGES,
    *runs.PAGES,
    *limits.PAGES,
    *agents.PAGES,
    *policy.PAGES,
    *evidence.PAGES,
    *health.PAGES,
)
