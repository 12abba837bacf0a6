"""``[serve]`` and ``[workflows]`` of ``countermark.toml``, as what they are read into; light, for every command."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.model.errors import ConfigError
from countermark.wiring.issuers import Issuer, read_issuers

if TYPE_CHECKING:
    from countermark.policy import Bundle
    from countermark.workflow import ChainSource, Known, WebhookSource

# Chains on which nothing of value moves: a local Avalanche network, Fuji, anvil's own, Sepolia. All others are live.
TEST_CHAINS = frozenset((43_112, 43_113, 31_337, 11_155_111))
FOLDER = "workflows"  # of definitions

PORT_DEFAULT = 8521
PORT_MAX = 65_535
NAMES_MAX = 64
NAME_CHARS_MAX = 253
LIMIT_MAX = 1 << 30
TIERS = ("enforcing", "embedded")


@dataclass(frozen=True, slots=True)
class WorkflowSettings:
    """``folder`` holds the definitions, relative to the deployment; sources are known by name.

    Runs that are started by triggers are those of ``agent``, or of whom ``agents`` names for a definition's name.
    """

    folder: str = FOLDER
    agent: str = ""
    agents: Mapping[str, str] = field(default_factory=dict)
    webhooks: Mapping[str, WebhookSource] = field(default_factory=dict)
    chains: Mapping[str, ChainSource] = field(default_factory=dict)

    def path(self, root: Path) -> Path:
        """Where the definitions are."""
        return root / self.folder

    def known(self, bundle: Bundle | None) -> Known:
        """What definitions may name here: tools and agents of a policy, and the sources of this deployment."""
        from countermark.workflow import Known

        sources = self.webhooks.keys() | self.chains.keys()
        return Known(None, None, sources) if bundle is None else Known(
            bundle.compiled.tools, bundle.compiled.agents, sources
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Everything that a client could make large or slow has a bound; the unit stands in the name."""

    body_bytes_max: int = 65_536
    headers_max: int = 64
    header_bytes_max: int = 16_384  # request line and all headers together
    target_bytes_max: int = 2_048
    connections_max: int = 512
    requests_max: int = 1_024  # under way at once
    read_ms_max: int = 5_000  # from a request's first byte to its last
    idle_ms_max: int = 30_000  # between two requests of a connection
    answer_ms_max: int = 10_000  # for an answer to be taken
    drain_ms_max: int = 20_000  # for requests under way when the server is told to stop


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the server listens. ``names`` are Host names it answers to besides its own address and localhost."""

    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tier: str = "enforcing"
    names: tuple[str, ...] = ()
    issuer: tuple[Issuer, ...] = ()
    limits: ServeLimits = field(default_factory=ServeLimits)
    stripe_port: int | None = None  # a further one, where Stripe's API stands at the root: for SDKs that take no path

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Refuse to listen for others in clear. Raises ``ConfigError``."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS takes both a certificate and a key", hint="Set serve.tls_cert and serve.tls_key.")
        if not self.loopback and self.tls_cert is None:
            raise ConfigError(
                f"{self.host} can be reached by others, and tokens would cross the network in clear", code="needs_tls",
                hint="Set serve.tls_cert and serve.tls_key, or listen on 127.0.0.1 behind a proxy that does.",
            )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own loopback address, or its name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_serve(section: object, root: Path, file: str) -> ServeSettings:
    """The section as settings; file names are relative to the deployment. Raises ``ConfigError``."""
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: serve must be a table")
    known = {one.name for one in fields(ServeSettings)}
    unknown = section.keys() - known
    if unknown:
        raise ConfigError(f"{file}: unknown key serve.{min(unknown)}", hint=f"Known: {', '.join(sorted(known))}.")
    host, port, names = section.get("host", "127.0.0.1"), section.get("port", PORT_DEFAULT), section.get("names", [])
    if type(host) is not str or not 1 <= len(host) <= NAME_CHARS_MAX:
        raise ConfigError(f"{file}: serve.host must be an address or a name")
    if type(port) is not int or not 0 <= port <= PORT_MAX:
        raise ConfigError(f"{file}: serve.port must be an integer from 0 to {PORT_MAX}")
    if type(names) is not list or len(names) > NAMES_MAX or any(type(n) is not str or not n for n in names):
        raise ConfigError(f"{file}: serve.names must be a list of at most {NAMES_MAX} host names")
    beside = section.get("stripe_port")
    if beside is not None and (type(beside) is not int or not 0 <= beside <= PORT_MAX or 0 != beside == port):
        raise ConfigError(f"{file}: serve.stripe_port must be another port, from 0 to {PORT_MAX}")
    tier = section.get("tier", "enforcing")
    if tier not in TIERS:
        raise ConfigError(f"{file}: serve.tier must be one of: {', '.join(TIERS)}")
    return ServeSettings(
        host, port, _path(section, "tls_cert", root, file), _path(section, "tls_key", root, file), tier,
        tuple(name.lower() for name in names), read_issuers(section.get("issuer", []), root, file),
        _limits(section.get("limits", {}), file), beside,
    )  # fmt: skip


def _path(section: Mapping[str, Any], name: str, root: Path, file: str) -> Path | None:
    value = section.get(name)
    if value is None:
        return None
    if type(value) is not str or not value:
        raise ConfigError(f"{file}: serve.{name} must be a file's name")
    return root / value  # an absolute one stays as it is


def _limits(table: object, file: str) -> ServeLimits:
    known = [one.name for one in fields(ServeLimits)]
    if not isinstance(table, dict) or table.keys() - set(known):
        raise ConfigError(f"{file}: serve.limits takes only: {', '.join(known)}")
    for name, value in table.items():
        if type(value) is not int or not 1 <= value <= LIMIT_MAX:
            raise ConfigError(f"{file}: serve.limits.{name} must be a positive integer")
    return ServeLimits(**table)
