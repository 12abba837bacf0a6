"""``[[serve.issuer]]`` of ``countermark.toml``: whose JWTs name an agent here, and which keys sign them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from countermark.model.errors import ConfigError
from countermark.model.values import NAME

ISSUERS_MAX = 16
NAMES_MAX = 4_096
TEXT_CHARS_MAX = 1_024
# Asymmetric ones only: with a shared secret, whoever can check a token can make one (RFC 8725 section 3.1).
ALGORITHMS = ("EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
ALGORITHMS_DEFAULT = ("EdDSA", "ES256", "PS256", "RS256")
SPIFFE = "spiffe://"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_TRUST_DOMAIN = re.compile(r"spiffe://[a-z0-9._-]{1,255}")
_CLAIM = re.compile(r"[A-Za-z0-9_:/.-]{1,128}")
_KEYS = frozenset(("issuer", "audience", "jwks", "algorithms", "claim", "agents", "principals", "once"))


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of JWTs; one whose name begins with ``spiffe://`` is a trust domain and issues JWT-SVIDs.

    ``jwks`` is an https URL or a file's path. ``claim`` names the agent; ``agents`` maps its values to agents (empty:
    the value is the agent's name), ``principals`` maps subjects of delegated tokens to people of the policy. With
    ``once``, each token (its ``jti``) is good for one request.
    """

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...] = ALGORITHMS_DEFAULT
    claim: str = "sub"
    agents: Mapping[str, str] = field(default_factory=dict)
    principals: Mapping[str, str] = field(default_factory=dict)
    once: bool = False

    @property
    def spiffe(self) -> bool:
        return self.issuer.startswith(SPIFFE)


def read_issuers(section: object, root: Path, file: str) -> tuple[Issuer, ...]:
    """The section as issuers, each once. Raises ``ConfigError`` naming the key that is wrong."""
    if not isinstance(section, list) or len(section) > ISSUERS_MAX or any(type(one) is not dict for one in section):
        raise ConfigError(f"{file}: serve.issuer is a list of at most {ISSUERS_MAX} tables, each [[serve.issuer]]")
    found = tuple(_issuer(table, root, file) for table in section)
    if len({one.issuer for one in found}) != len(found):
        raise ConfigError(f"{file}: two of serve.issuer have the same issuer")
    return found


def _issuer(table: Mapping[str, Any], root: Path, file: str) -> Issuer:
    where = f"{file}: serve.issuer"
    if unknown := table.keys() - _KEYS:
        raise ConfigError(f"{where}: unknown key {min(unknown)}", hint=f"Known: {', '.join(sorted(_KEYS))}.")
    issuer, audience, jwks = (_text(table, name, where) for name in ("issuer", "audience", "jwks"))
    if issuer.startswith(SPIFFE) and _TRUST_DOMAIN.fullmatch(issuer) is None:
        raise ConfigError(f"{where}.issuer: a trust domain is spiffe://NAME, without a path")
    algorithms = table.get("algorithms", list(ALGORITHMS_DEFAULT))
    if type(algorithms) is not list or not algorithms or any(one not in ALGORITHMS for one in algorithms):
        raise ConfigError(f"{where}.algorithms lists some of {', '.join(ALGORITHMS)}, never none or HS256")
    claim, once = table.get("claim", "sub"), table.get("once", False)
    if type(claim) is not str or _CLAIM.fullmatch(claim) is None or type(once) is not bool:
        raise ConfigError(f"{where}: claim is a claim's name, once is true or false")
    agents, principals = _names(table, "agents", where), _names(table, "principals", where)
    mapped = agents and all(name.startswith(issuer + "/") for name in agents)
    if issuer.startswith(SPIFFE) and (claim != "sub" or not mapped):
        raise ConfigError(f"{where}: a trust domain maps its SPIFFE IDs in [serve.issuer.agents], and has no claim")
    return Issuer(issuer, audience, _source(jwks, root, where), tuple(algorithms), claim, agents, principals, once)


def _text(table: Mapping[str, Any], name: str, where: str) -> str:
    value = table.get(name)
    if type(value) is not str or not 1 <= len(value) <= TEXT_CHARS_MAX:
        raise ConfigError(f"{where}.{name} must be a text")
    return value


def _names(table: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    value = table.get(name, {})
    if type(value) is not dict or len(value) > NAMES_MAX:
        raise ConfigError(f"{where}.{name} must be a table of at most {NAMES_MAX} names")
    if any(type(to) is not str or NAME.fullmatch(to) is None for to in value.values()):
        raise ConfigError(f"{where}.{name} maps to names of the policy")
    return value


def _source(jwks: str, root: Path, where: str) -> str:
    if "://" not in jwks:
        return str(root / jwks)
    parts = urlsplit(jwks)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not safe or not parts.hostname or parts.username is not None or parts.fragment:
        raise ConfigError(f"{where}.jwks is a file, or an https URL without a user and a fragment")
    return jwks
