"""The pages on which people look and answer. A session authorises looking and stopping; all else is signed."""

from countermark.server.console.console import Console
from countermark.server.console.pages import PAGES
from countermark.server.console.visit import Page, Reply, Visit
from countermark.server.surroundings import Surroundings

__all__ = ["PAGES", "Console", "Page", "Reply", "Visit", "console_of"]


def console_of(surroundings: Surroundings) -> Console:
    """The console with all its pages."""
    return Console(surroundings, PAGES)
