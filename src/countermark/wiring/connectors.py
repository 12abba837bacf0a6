"""Which connectors a deployment has, and the drafts of their tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from countermark.connectors import IssuingConnector, NoopConnector, StripeConnector
from countermark.model.errors import ConfigError
from countermark.model.ports import Connector
from countermark.model.tool import CALLER, ToolSpec
from countermark.wiring.config import FILE, Config, resolve_secret
from countermark.wiring.http_settings import http_connector
from countermark.wiring.live import LiveUse
from countermark.wiring.mcp_settings import mcp_connector

STRIPE_ORIGIN = "https://api.stripe.com"
STRIPE_REFERENCE = "env:STRIPE_API_KEY"  # where the credential is looked for when countermark.toml does not say


def connectors_of(config: Config, live: LiveUse | None = None) -> Mapping[str, Connector]:
    """Connectors by name. A secret is read when it is used, so that people can work on a deployment without it.

    ``live`` says each time whether a live one may be used; without it, only to look, as a restore does.
    """

    def resolve(reference: str) -> str:
        secret = resolve_secret(reference, config.root)
        return secret if live is None else live.check(secret)

    origin = config.origins.get("stripe", STRIPE_ORIGIN)
    stripe = StripeConnector(lambda tool: resolve(stripe_reference(config, tool)), origin)
    servers = {name: mcp_connector(settings, resolve) for name, settings in config.mcp.items()}
    apis = {name: http_connector(name, settings, resolve) for name, settings in config.http.items()}
    issuing = IssuingConnector()
    return {"stripe": stripe, issuing.name: issuing, "noop": NoopConnector(), **servers, **apis}


def stripe_reference(config: Config, tool: str) -> str:
    """Where a Stripe tool's credential is: its own restricted key when it has one, else that of the connector."""
    common = config.secrets.get("stripe", STRIPE_REFERENCE)
    return config.tool_secrets.get("stripe", {}).get(tool, common)


def check_sending(config: Config, tool: ToolSpec) -> None:
    """Whether a gate opened here could send a tool's request: its credential resolves, and both files name one origin.

    Raises ``ConfigError``: ``missing_connector``, ``missing_secret`` or ``other_origin``.
    """
    if tool.connector in ("noop", CALLER, IssuingConnector.name):
        return
    if tool.connector in config.mcp:
        for reference in config.mcp[tool.connector].references:
            resolve_secret(reference, config.root)
        return
    api = config.http.get(tool.connector)
    if tool.connector != "stripe" and api is None:
        raise ConfigError(
            f"no connector {tool.connector} is configured here", code="missing_connector",
            hint="A program that brings it must own the deployment: countermark.open(dir, connectors=...).",
        )  # fmt: skip
    origin = config.origins.get("stripe", STRIPE_ORIGIN) if api is None else api.origin
    named = "/".join(tool.endpoint.partition(" ")[2].split("/")[:3])
    if named != origin:
        raise ConfigError(
            f"the policy sends {tool.name} to {named}, {FILE} allows only {origin}", code="other_origin",
            hint=f"Make tools.toml and connector.{tool.connector}.origin in {FILE} agree.",
        )  # fmt: skip
    reference = stripe_reference(config, tool.name) if api is None else api.secret
    if reference:
        resolve_secret(reference, config.root)


def drafts() -> Mapping[str, Sequence[ToolSpec]]:
    """Tool drafts by connector, for compiling a policy."""
    issuing = IssuingConnector()
    return {
        "stripe": StripeConnector(lambda tool: "").tools(), issuing.name: issuing.tools(),
        "noop": NoopConnector().tools(),
    }  # fmt: skip
