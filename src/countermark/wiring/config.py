"""``countermark.toml``: where a deployment's parts are. Secrets stand there only by reference."""

from __future__ import annotations

import fcntl
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.model.errors import ConfigError
from countermark.model.values import TOOL
from countermark.wiring.custody import FORMS, is_reference
from countermark.wiring.custody import resolve_secret as resolve_secret
from countermark.wiring.settings import ServeSettings, WorkflowSettings, read_serve
from countermark.wiring.stripe_settings import StripeSettings, read_stripe

if TYPE_CHECKING:
    from countermark.wiring.anchor_settings import AnchorConfig
    from countermark.wiring.evm_settings import EvmSettings
    from countermark.wiring.http_settings import HttpSettings
    from countermark.wiring.mcp_settings import McpSettings
    from countermark.wiring.notify_settings import ChannelSettings
    from countermark.wiring.stamp_settings import StampAuthority

FILE = "countermark.toml"
LOCK = "lane.lock"
CONFIG_BYTES_MAX = 65_536
LANE = re.compile(r"l(?:0|[1-9][0-9]{0,3})")  # l0, then a successor with each restore
DEPLOYMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SECTION_KEYS = frozenset(("secret", "origin", "tools"))


@dataclass(frozen=True, slots=True)
class Config:
    """A deployment's configuration.

    ``secrets`` maps a connector to a reference (``env:NAME``, ``file:PATH``, ``keyring:SERVICE/NAME``), ``origins`` to
    the one origin that the credential may go to: the policy names origins too, and a request leaves only where both
    agree. ``tool_secrets`` maps a connector to the references of tools that have a credential of their own. ``live``:
    all secrets move real money, whatever they look like.
    """

    root: Path
    deployment: str
    lane: str
    secrets: Mapping[str, str]
    origins: Mapping[str, str]
    serve: ServeSettings = field(default_factory=ServeSettings)
    mcp: Mapping[str, McpSettings] = field(default_factory=dict)
    http: Mapping[str, HttpSettings] = field(default_factory=dict)
    stripe: StripeSettings = field(default_factory=StripeSettings)
    tool_secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notify: tuple[ChannelSettings, ...] = ()
    live: bool = False
    stamps: tuple[StampAuthority, ...] = ()
    anchor: AnchorConfig | None = None
    evm: EvmSettings | None = None
    workflows: WorkflowSettings = field(default_factory=WorkflowSettings)

    @property
    def origin(self) -> str:
        """Name of the log."""
        return f"countermark/{self.deployment}/{self.lane}"

    @property
    def policy(self) -> Path:
        return self.root / "policy"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def journal(self) -> Path:
        return self.root / "data" / "journal.db"

    @property
    def vault(self) -> Path:
        return self.root / "data" / "vault.db"

    @property
    def outbox(self) -> Path:
        return self.root / "data" / "notify.db"

    @property
    def nonces(self) -> Path:
        return self.root / "data" / "nonces.db"

    @property
    def anchor_file(self) -> Path:
        return self.root / "anchor" / "pending"

    @property
    def high_water(self) -> Path:
        return self.root / "highwater" / "head"

    @property
    def socket(self) -> Path:
        return self.root / "gate.sock"

    @property
    def lock(self) -> Path:
        return self.root / LOCK


def load_config(root: Path) -> Config:
    """Read ``countermark.toml`` in ``root``. Raises ``ConfigError`` naming the file and the wrong key."""
    path = root / FILE
    try:
        raw = path.read_bytes()
        if len(raw) > CONFIG_BYTES_MAX:
            raise ConfigError(f"{FILE} is longer than {CONFIG_BYTES_MAX} bytes")
        doc = tomllib.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no {FILE} in {root}", hint="Run `countermark init DIR`.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{FILE} cannot be read: {error}") from None
    unknown = doc.keys() - {
        "version", "deployment", "lane", "connector", "connectors", "serve", "stripe", "notify",
        "publish", "workflows",
    }  # fmt: skip
    if unknown:
        raise ConfigError(f"{FILE}: unknown key {min(unknown)}")
    if doc.get("version") != 1:
        raise ConfigError(f"{FILE}: version must be 1")
    name, lane = doc.get("deployment"), doc.get("lane", "l0")
    if type(name) is not str or DEPLOYMENT.fullmatch(name) is None:
        raise ConfigError(f"{FILE}: deployment must be 1 to 40 of a-z 0-9 -")
    if type(lane) is not str or LANE.fullmatch(lane) is None:
        raise ConfigError(f"{FILE}: lane must be l0, or after a restore l1, l2 and so on")
    found, others = _kinds(doc.get("connector", {}))
    secrets, origins, tools = _connectors(others)
    serve, stripe = read_serve(doc.get("serve", {}), root, FILE), read_stripe(doc.get("stripe", {}), FILE)
    return Config(
        root, name, lane, secrets, origins, serve, stripe=stripe, tool_secrets=tools, live=_live(doc),
        **found, **_sections(doc, root, found.get("evm")),
    )  # fmt: skip


def _kinds(section: Any) -> tuple[dict[str, Any], Any]:
    """Connectors with settings of their own, each kind's reader loaded where there is one; and all others."""
    found: dict[str, Any] = {}
    tables = section.values() if isinstance(section, dict) else ()
    kinds = {table["kind"] for table in tables if isinstance(table, dict) and type(table.get("kind")) is str}
    if "mcp" in kinds:
        from countermark.wiring.mcp_settings import split_mcp

        found["mcp"], section = split_mcp(section, FILE)
    if "http" in kinds:
        from countermark.wiring.http_settings import split_http

        found["http"], section = split_http(section, FILE)
    if isinstance(section, dict) and "evm" in section:
        from countermark.wiring.evm_settings import split_evm

        found["evm"], section = split_evm(section, FILE)
    return found, section


def _sections(doc: Mapping[str, Any], root: Path, evm: EvmSettings | None) -> dict[str, Any]:
    """The sections that most deployments lack, each one's reader loaded where it is there."""
    found: dict[str, Any] = {}
    if "notify" in doc:
        from countermark.wiring.notify_settings import read_notify

        found["notify"] = read_notify(doc["notify"], FILE)
    if "publish" in doc:
        from countermark.wiring.anchor_settings import read_anchor
        from countermark.wiring.stamp_settings import read_stamps

        found |= {"stamps": read_stamps(doc["publish"], root, FILE), "anchor": read_anchor(doc["publish"], FILE)}
    if "workflows" in doc:
        from countermark.wiring.workflow_settings import read_workflows

        found["workflows"] = read_workflows(doc["workflows"], _final_on(evm), FILE)
    return found


def _final_on(evm: EvmSettings | None) -> dict[int, str | int]:
    """What is final on each chain that there is a node for."""
    return {} if evm is None else {chain: one.final for chain, one in evm.chains.items()}


def _live(doc: Mapping[str, Any]) -> bool:
    table = doc.get("connectors", {})
    if not isinstance(table, dict) or table.keys() - {"live"} or type(table.get("live", False)) is not bool:
        raise ConfigError(f"{FILE}: connectors takes only: live, true or false")
    return bool(table.get("live", False))


def _connectors(section: object) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, Mapping[str, str]]]:
    secrets: dict[str, str] = {}
    tools: dict[str, Mapping[str, str]] = {}
    origins: dict[str, str] = {}
    if not isinstance(section, dict):
        raise ConfigError(f"{FILE}: connector must be a table")
    for name, table in section.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{FILE}: connector.{name} must be a table")
        if wrong := table.keys() - _SECTION_KEYS:
            raise ConfigError(
                f"{FILE}: connector.{name} has the key {min(wrong)!r}; it takes only: secret, origin, tools",
                hint='Of an MCP server, an HTTP API or a chain, kind = "mcp", "http" or "evm" says so.',
            )
        reference = table.get("secret", "")
        if not is_reference(reference):
            raise ConfigError(f"{FILE}: connector.{name}.secret must be {FORMS}, never the secret itself")
        own = table.get("tools", {})
        if not isinstance(own, dict) or any(TOOL.fullmatch(key) is None or not is_reference(own[key]) for key in own):
            raise ConfigError(f"{FILE}: connector.{name}.tools maps tools to {FORMS}, never to the secret itself")
        tools[name] = own
        secrets[name] = reference
        origin = table.get("origin")
        if isinstance(origin, str):
            origins[name] = origin
    return secrets, origins, tools


def find_root(given: str | None) -> Path:
    """The deployment: the given directory, else ``COUNTERMARK_DIR``, else the nearest ``countermark.toml`` upwards."""
    if given:
        return Path(given)
    from_environment = os.environ.get("COUNTERMARK_DIR")
    if from_environment:
        return Path(from_environment)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError("no deployment here", hint="Use -C DIR, set COUNTERMARK_DIR, or run `countermark init DIR`.")


def owner_lives(lock: Path) -> bool:
    """Whether a process holds the lane. A shared lock for an instant does not stop one that is about to."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
