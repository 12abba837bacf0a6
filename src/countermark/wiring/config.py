"""``countermark.toml``: where a deployment's parts are. Secrets stand there only by reference."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from countermark.model.errors import ConfigError

FILE = "countermark.toml"
CONFIG_BYTES_MAX = 65_536
DEPLOYMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SECTION_KEYS = frozenset(("secret", "origin"))


@dataclass(frozen=True, slots=True)
class Config:
    """A deployment's configuration.

    ``secrets`` maps a connector to a reference (``env:NAME``, ``file:PATH``), ``origins`` to the one origin that the
    credential may go to: the policy names origins too, and a request leaves only where both agree.
    """

    root: Path
    deployment: str
    lane: str
    secrets: Mapping[str, str]
    origins: Mapping[str, str]

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
    def high_water(self) -> Path:
        return self.root / "highwater" / "head"

    @property
    def socket(self) -> Path:
        return self.root / "gate.sock"

    @property
    def lock(self) -> Path:
        return self.root / "lane.lock"


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
    unknown = doc.keys() - {"version", "deployment", "lane", "connector"}
    if unknown:
        raise ConfigError(f"{FILE}: unknown key {min(unknown)}")
    if doc.get("version") != 1:
        raise ConfigError(f"{FILE}: version must be 1")
    name, lane = doc.get("deployment"), doc.get("lane", "l0")
    if type(name) is not str or DEPLOYMENT.fullmatch(name) is None:
        raise ConfigError(f"{FILE}: deployment must be 1 to 40 of a-z 0-9 -")
    if lane != "l0":
        raise ConfigError(f"{FILE}: lane must be l0 in this version")
    secrets, origins = _connectors(doc.get("connector", {}))
    return Config(root, name, lane, secrets, origins)


def _connectors(section: object) -> tuple[Mapping[str, str], Mapping[str, str]]:
    secrets: dict[str, str] = {}
    origins: dict[str, str] = {}
    if not isinstance(section, dict):
        raise ConfigError(f"{FILE}: connector must be a table")
    for name, table in section.items():
        if not isinstance(table, dict) or table.keys() - _SECTION_KEYS:
            raise ConfigError(f"{FILE}: connector.{name} takes only: secret, origin")
        reference = table.get("secret", "")
        if not isinstance(reference, str) or not reference.startswith(("env:", "file:")):
            raise ConfigError(f"{FILE}: connector.{name}.secret must be env:NAME or file:PATH, never the secret itself")
        secrets[name] = reference
        origin = table.get("origin")
        if isinstance(origin, str):
            origins[name] = origin
    return secrets, origins


def resolve_secret(reference: str, root: Path) -> str:
    """The secret behind a reference. A file must be readable by its owner alone. Raises ``ConfigError``."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        value = os.environ.get(where, "")
        if not value:
            raise ConfigError(f"the environment variable {where} is not set", code="missing_secret")
        return value
    path = Path(where) if Path(where).is_absolute() else root / where
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"{path.name} can be read by others", hint=f"chmod 600 {path.name}")
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret file {path.name} cannot be read: {error}", code="missing_secret") from None


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
