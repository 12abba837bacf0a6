"""Which connectors a deployment has, and the drafts of their tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from countermark.connectors import ApproveConnector, EvmConnector, IssuingConnector, NoopConnector, StripeConnector
from countermark.connectors.evm import DRAFTS as EVM_DRAFTS
from countermark.model.errors import ConfigError
from countermark.model.ports import Connector
from countermark.model.tool import CALLER, ToolSpec
from countermark.wiring.config import FILE, Config, resolve_secret
from countermark.wiring.evm_settings import evm_connector
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
    found: dict[str, Connector] = {
        "stripe": stripe, issuing.name: issuing, "noop": NoopConnector(),
        ApproveConnector.name: ApproveConnector(), **servers, **apis
    }  # fmt: skip
    if config.evm is not None:
        allow = None if live is None else live.check_chain
        found[EvmConnector.name] = evm_connector(config.evm, config.nonces, config.journal, resolve, allow)
    return found


def stripe_reference(config: Config, tool: str) -> str:
    """Where a Stripe tool's credential is: its own restricted key when it has one, else that of the connector."""
    common = config.secrets.get("stripe", STRIPE_REFERENCE)
    return config.tool_secrets.get("stripe", {}).get(tool, common)


def check_sending(config: Config, tool: ToolSpec) -> None:
    """Whether a gate opened here could send a tool's request: its credential resolves, and both files name one origin.

    Raises ``ConfigError``: ``missing_connector``, ``missing_secret`` or ``other_origin``.
    """
    if tool.connector in ("noop", CALLER, IssuingConnector.name, ApproveConnector.name):
        return
    if tool.connector in config.mcp:
        for reference in config.mcp[tool.connector].references:
            resolve_secret(reference, config.root)
        return
    if tool.connector == EvmConnector.name and tool.evm is not None:
        _check_chain(config, tool)
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


def without_secret(config: Config, tools: Iterable[ToolSpec]) -> dict[str, str]:
    """By connector, which secret of its tools is not there: by its reference, never its value."""
    found: dict[str, str] = {}
    for tool in tools:
        try:
            check_sending(config, tool)
        except ConfigError as error:
            if error.code == "missing_secret":
                found.setdefault(tool.connector, error.message)
    return found


def _check_chain(config: Config, tool: ToolSpec) -> None:
    """Whether a node of the tool's chain and the key of its account are configured. Raises ``ConfigError``."""
    settings = config.evm
    if tool.evm is None or settings is None or tool.evm.chain_id not in settings.chains:
        raise ConfigError(
            f"no node of the chain of {tool.name} is configured here", code="missing_connector",
            hint=f"Add [connector.evm.chains.{tool.evm.chain_id if tool.evm else 0}] to {FILE}.",
        )  # fmt: skip
    reference = settings.accounts.get(tool.evm.sender)
    if reference is None:
        raise ConfigError(f"no key is configured for the account that {tool.name} pays from", code="missing_secret",
                          hint=f"Add it to [connector.evm.accounts] in {FILE}.")  # fmt: skip
    resolve_secret(reference, config.root)


def drafts() -> Mapping[str, Sequence[ToolSpec]]:
    """Tool drafts by connector, for compiling a policy."""
    issuing = IssuingConnector()
    return {
        "stripe": StripeConnector(lambda tool: "").tools(), issuing.name: issuing.tools(),
        "noop": NoopConnector().tools(), EvmConnector.name: EVM_DRAFTS,
        ApproveConnector.name: ApproveConnector().tools(),
    }  # fmt: skip
