"""``[workflows]`` of ``countermark.toml``: where definitions are, and the sources of events that start or wake runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from countermark.model.errors import ConfigError
from countermark.model.keccak import ADDRESS
from countermark.model.values import NAME
from countermark.wiring.custody import FORMS, is_reference
from countermark.wiring.settings import FOLDER
from countermark.wiring.settings import WorkflowSettings as WorkflowSettings
from countermark.workflow import (
    ENCODINGS,
    GITHUB,
    HEX,
    HMAC,
    KEPT_MAX,
    SCHEMES,
    SOURCE,
    STANDARD,
    STRIPE,
    TOLERANCE_S,
    ChainSource,
    WebhookSource,
    check_kept,
    check_pointer,
    read_signature,
)

if TYPE_CHECKING:
    pass

SOURCES_MAX = 64
SECRETS_MAX = 4
TOLERANCE_S_MAX = 3_600
CONFIRMATIONS_MAX = 10_000
BLOCK_MAX = 2**53 - 1
FINAL = ("accepted", "safe", "finalized")

_SECTION = frozenset(("folder", "sources", "agent", "agents"))
_COMMON = frozenset(("kind", "scheme", "secret", "tolerance_s", "event", "type", "key", "keep"))
_OWN = frozenset(("header", "prefix", "encoding", "time_header"))
_CHAIN = frozenset(("kind", "chain", "contract", "signature", "final", "key", "start"))
_DEFINITION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_PREFIX = re.compile(r"[!-~]{0,32}")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEFAULTS: Mapping[str, tuple[str, str]] = {STRIPE: ("/id", "/type"), STANDARD: ("", "/type"), GITHUB: ("", "/action")}


def read_workflows(section: object, chains: Mapping[int, str | int], file: str) -> WorkflowSettings:
    """The section as settings; ``chains`` are the chains that ``[connector.evm]`` has a node for, and what is final
    there.

    Raises ``ConfigError`` naming the file and the wrong key.
    """
    if not isinstance(section, dict) or section.keys() - _SECTION:
        raise ConfigError(f"{file}: workflows takes only: {', '.join(sorted(_SECTION))}")
    folder, sources = section.get("folder", FOLDER), section.get("sources", {})
    if type(folder) is not str or _FOLDER.fullmatch(folder) is None:
        raise ConfigError(f"{file}: workflows.folder must be the name of a folder in the deployment")
    if not isinstance(sources, dict) or len(sources) > SOURCES_MAX:
        raise ConfigError(f"{file}: workflows.sources must be a table of at most {SOURCES_MAX} sources")
    webhooks: dict[str, WebhookSource] = {}
    watched: dict[str, ChainSource] = {}
    for name, table in sources.items():
        where = f"{file}: workflows.sources.{name}"
        if SOURCE.fullmatch(name) is None:
            raise ConfigError(f"{where}: a source's name is a-z, then up to 39 of a-z 0-9 -")
        kind = table.get("kind") if isinstance(table, dict) else None
        try:
            if kind == "webhook":
                webhooks[name] = _webhook(name, table)
            elif kind == "chain":
                watched[name] = _chain(name, table, chains)
            else:
                raise ConfigError('kind is "webhook" or "chain"')
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    _check_secrets(webhooks.values(), file)
    return WorkflowSettings(folder, *_agents(section, file), webhooks, watched)


def _agents(section: Mapping[str, Any], file: str) -> tuple[str, dict[str, str]]:
    agent, agents = section.get("agent", ""), section.get("agents", {})
    if agent != "" and (type(agent) is not str or NAME.fullmatch(agent) is None):
        raise ConfigError(f"{file}: workflows.agent must be an agent's name")
    if not isinstance(agents, dict) or any(
        _DEFINITION.fullmatch(name) is None or type(one) is not str or NAME.fullmatch(one) is None
        for name, one in agents.items()
    ):
        raise ConfigError(f"{file}: workflows.agents maps names of definitions to agents")
    return agent, agents


def _webhook(name: str, table: Mapping[str, Any]) -> WebhookSource:
    scheme = table.get("scheme")
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme is one of: {', '.join(SCHEMES)}")
    _only(table, _COMMON | _OWN if scheme == HMAC else _COMMON)
    event, kind = _DEFAULTS.get(scheme, ("", ""))
    tolerance = table.get("tolerance_s", TOLERANCE_S)
    if type(tolerance) is not int or not 1 <= tolerance <= TOLERANCE_S_MAX:
        raise ConfigError(f"tolerance_s must be an integer from 1 to {TOLERANCE_S_MAX}")
    keep = table.get("keep", {})
    if not isinstance(keep, dict) or len(keep) > KEPT_MAX or not all(map(check_kept, keep)):
        raise ConfigError(
            f"keep maps at most {KEPT_MAX} names (letters, digits, _; not id, type or key) to JSON pointers"
        )
    pointers = {one: check_pointer(table.get(one, other)) for one, other in
                (("event", event), ("type", kind), ("key", ""))}  # fmt: skip
    own = _own(table) if scheme == HMAC else {}
    return WebhookSource(
        name, scheme, _secrets(table.get("secret")), tolerance, **pointers,
        keep={key: check_pointer(pointer) for key, pointer in keep.items()}, **own,
    )  # fmt: skip


def _own(table: Mapping[str, Any]) -> dict[str, str]:
    """What the scheme ``hmac`` leaves to the source."""
    header, time_header = table.get("header"), table.get("time_header", "")
    prefix, encoding = table.get("prefix", ""), table.get("encoding", HEX)
    if type(header) is not str or _HEADER.fullmatch(header) is None:
        raise ConfigError("header must name the header that holds the signature")
    if type(time_header) is not str or (time_header and _HEADER.fullmatch(time_header) is None):
        raise ConfigError("time_header must name the header that holds the seconds of signing")
    if type(prefix) is not str or _PREFIX.fullmatch(prefix) is None:
        raise ConfigError("prefix is what stands before the signature in its header, such as sha256=")
    if encoding not in ENCODINGS:
        raise ConfigError(f"encoding is one of: {', '.join(ENCODINGS)}")
    return {"header": header, "time_header": time_header, "prefix": prefix, "encoding": encoding}


def _secrets(given: object) -> tuple[str, ...]:
    """One reference, or several while one secret replaces another."""
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list) or not 1 <= len(found) <= SECRETS_MAX or not all(map(is_reference, found)):
        raise ConfigError(f"secret must be {FORMS}, or a list of at most {SECRETS_MAX} of these; never a secret itself")
    return tuple(found)


def _check_secrets(sources: Iterable[WebhookSource], file: str) -> None:
    """Whoever sends to one source could send the same, as it is signed, to another with the same secret."""
    owners: dict[str, str] = {}
    for source in sources:
        for reference in source.secrets:
            if (other := owners.setdefault(reference, source.name)) != source.name:
                raise ConfigError(
                    f"{file}: workflows.sources.{other} and .{source.name} have one secret, {reference}: each would"
                    " take the other's deliveries",
                    hint="Let the sender sign with a secret for each address.",
                )  # fmt: skip


def _chain(name: str, table: Mapping[str, Any], chains: Mapping[int, str | int]) -> ChainSource:
    _only(table, _CHAIN)
    chain, contract, signature = table.get("chain"), table.get("contract"), table.get("signature")
    if type(chain) is not int or chain not in chains:
        raise ConfigError("chain must be the id of a chain that [connector.evm.chains] has a node for")
    if type(contract) is not str or ADDRESS.fullmatch(contract) is None:
        raise ConfigError("contract must be an address: 0x and 40 hex digits")
    if type(signature) is not str:
        raise ConfigError("signature must declare the event, with the names of its parameters")
    _, parameters = read_signature(signature)
    final = table.get("final", chains[chain])
    if final not in FINAL and (type(final) is not int or not 1 <= final <= CONFIRMATIONS_MAX):
        raise ConfigError(f'final is "accepted" (Avalanche), "safe", "finalized", or 1 to {CONFIRMATIONS_MAX} blocks')
    key, start = table.get("key", ""), table.get("start")
    if key not in ("", *(one.name for one in parameters)):
        raise ConfigError("key must be the name of a parameter of the event")
    if start is not None and (type(start) is not int or not 0 <= start <= BLOCK_MAX):
        raise ConfigError("start must be the number of a block")
    return ChainSource(name, chain, contract.lower(), signature, final, key, start)


def _only(table: Mapping[str, Any], known: Collection[str]) -> None:
    if unknown := table.keys() - set(known):
        raise ConfigError(f"unknown key {min(unknown)}", hint=f"Known: {', '.join(sorted(known))}.")


def secrets_of(source: WebhookSource, resolve: Callable[[str], str], skip: Callable[[str], None]) -> list[str]:
    """The secrets behind a source's references, read now; ``skip`` is told of one that cannot be read."""
    found = []
    for reference in source.secrets:
        try:
            found.append(resolve(reference))
        except ConfigError as error:
            skip(error.message)
    return found
