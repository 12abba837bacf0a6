"""Which connectors a deployment has, and the drafts of their tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from countermark.connectors import NoopConnector, StripeConnector
from countermark.model.errors import ConfigError
from countermark.model.ports import Connector
from countermark.model.tool import ToolSpec
from countermark.wiring.config import FILE, Config, resolve_secret

STRIPE_ORIGIN = "https://api.stripe.com"
STRIPE_REFERENCE = "env:STRIPE_API_KEY"  # where the credential is looked for when countermark.toml does not say


def connectors_of(config: Config) -> Mapping[str, Connector]:
    """Connectors by name. A secret is read when it is used, so that people can work on a deployment without it."""
    reference = config.secrets.get("stripe", STRIPE_REFERENCE)
    origin = config.origins.get("stripe", STRIPE_ORIGIN)
    stripe = StripeConnector(lambda tool: resolve_secret(reference, config.root), origin)
    return {"stripe": stripe, "noop": NoopConnector()}


def check_sending(config: Config, tool: ToolSpec) -> None:
    """Whether a gate opened here could send a tool's request: its credential resolves, and both files name one origin.

    Raises ``ConfigError``: ``missing_connector``, ``missing_secret`` or ``other_origin``.
    """
    if tool.connector == "noop":
        return
    if tool.connector != "stripe":
        raise ConfigError(
            f"no connector {tool.connector} is configured here", code="missing_connector",
            hint="A program that brings it must own the deployment: countermark.open(dir, connectors=...).",
        )  # fmt: skip
    origin = config.origins.get("stripe", STRIPE_ORIGIN)
    named = "/".join(tool.endpoint.partition(" ")[2].split("/")[:3])
    if named != origin:
        raise ConfigError(
            f"the policy sends {tool.name} to {named}, {FILE} allows only {origin}", code="other_origin",
            hint=f"Make tools.toml and connector.stripe.origin in {FILE} agree.",
        )  # fmt: skip
    resolve_secret(config.secrets.get("stripe", STRIPE_REFERENCE), config.root)


def drafts() -> Mapping[str, Sequence[ToolSpec]]:
    """Tool drafts by connector, for compiling a policy."""
    return {"stripe": StripeConnector(lambda tool: "").tools(), "noop": NoopConnector().tools()}
