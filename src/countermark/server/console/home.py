"""The address itself leads to what waits."""

from __future__ import annotations

from countermark.server.console.visit import Page, Reply, Visit


async def home(visit: Visit) -> Reply:
    """``GET /``."""
    return visit.go("/waiting")


PAGES = (Page("/", home),)
