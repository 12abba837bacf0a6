"""Which connectors a deployment has, and the drafts of their tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from countermark.connectors import NoopConnector, StripeConnector
from countermark.model.ports import Connector
from countermark.model.tool import ToolSpec
from countermark.wiring.config import Config, resolve_secret

STRIPE_ORIGIN = "https://api.stripe.com"


def connectors_of(config: Config) -> Mapping[str, Connector]:
    """Connectors by name. A secret is read when it is used, so that people can work on a deployment without it."""
    reference = config.secrets.get("stripe", "env:STRIPE_API_KEY")
    origin = config.origins.get("stripe", STRIPE_ORIGIN)
    stripe = StripeConnector(lambda tool: resolve_secret(reference, config.root), origin)
    return {"stripe": stripe, "noop": NoopConnector()}


def drafts() -> Mapping[str, Sequence[ToolSpec]]:
    """Tool drafts by connector, for compiling a policy."""
    return {"stripe": StripeConnector(lambda tool: "").tools(), "noop": NoopConnector().tools()}
