"""``[connector.evm]`` of ``countermark.toml``: a node for each chain, and where the keys of paying accounts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countermark.chain import Rpc, Signer, split_url
from countermark.connectors import EvmConnector, networks_of, origin_of
from countermark.connectors.evm import ACCEPTED, CONFIRMATIONS_MAX, FINALIZED, Ledger, Node
from countermark.journal import SqliteStore
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ConfigError
from countermark.model.keccak import ADDRESS
from countermark.model.values import EXECUTING
from countermark.wiring.custody import FORMS, is_reference
from countermark.wiring.settings import TEST_CHAINS as TEST_CHAINS

NAME = "evm"
CHAINS_MAX = 16
ACCOUNTS_MAX = 64
REMEMBERED_US = 86_400 * US  # no intent may be dispatched later than that after its decision

_KEYS = frozenset(("kind", "chains", "accounts"))
_CHAIN_KEYS = frozenset(("rpc", "secret", "final", "allow_addresses"))


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """``final``: ``accepted``, ``finalized`` or a number of blocks. ``secret`` is a reference or ``""``."""

    rpc: str
    final: str | int
    secret: str = ""
    allow_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvmSettings:
    """Chains by id; ``accounts`` are the paying addresses and the references of their keys."""

    chains: Mapping[int, ChainSettings] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)


def split_evm(section: Any, file: str) -> tuple[EvmSettings | None, Any]:
    """The settings of the connector ``evm`` in the section ``connector``, and what is left of it.

    Raises ``ConfigError``.
    """
    if not isinstance(section, dict) or NAME not in section:
        return None, section
    table, where = section[NAME], f"{file}: connector.{NAME}"
    if not isinstance(table, dict) or table.keys() - _KEYS or table.get("kind") != NAME:
        raise ConfigError(f'{where} takes kind = "evm", chains and accounts')
    chains, accounts = table.get("chains", {}), table.get("accounts", {})
    if not isinstance(chains, dict) or not isinstance(accounts, dict) or not chains:
        raise ConfigError(f"{where} needs chains, and accounts, as tables")
    if len(chains) > CHAINS_MAX or len(accounts) > ACCOUNTS_MAX:
        raise ConfigError(f"{where}: at most {CHAINS_MAX} chains and {ACCOUNTS_MAX} accounts")
    for account, reference in accounts.items():
        if ADDRESS.fullmatch(account) is None or not is_reference(reference):
            raise ConfigError(f"{where}.accounts maps addresses to {FORMS}, never to a key itself")
    read = {_chain_id(name, where): _chain(chain, f"{where}.chains.{name}") for name, chain in chains.items()}
    return EvmSettings(read, dict(accounts)), {name: other for name, other in section.items() if name != NAME}


def _chain_id(name: str, where: str) -> int:
    if not name.isascii() or not name.isdecimal() or len(name) > 15 or name.startswith("0"):
        raise ConfigError(f"{where}.chains has chain ids as names, for instance 43114")
    return int(name)


def _chain(table: Any, where: str) -> ChainSettings:
    if not isinstance(table, dict) or table.keys() - _CHAIN_KEYS:
        raise ConfigError(f"{where} takes only: {', '.join(sorted(_CHAIN_KEYS))}")
    rpc, final, secret = table.get("rpc"), table.get("final"), table.get("secret", "")
    allowed = table.get("allow_addresses", [])
    if not isinstance(rpc, str):
        raise ConfigError(f"{where} needs rpc, the address of a node")
    if final not in (ACCEPTED, FINALIZED) and (type(final) is not int or not 1 <= final <= CONFIRMATIONS_MAX):
        raise ConfigError(
            f'{where}.final is "{ACCEPTED}" (Avalanche), "{FINALIZED}", or a number of blocks up to {CONFIRMATIONS_MAX}'
        )
    if secret != "" and not is_reference(secret):
        raise ConfigError(f"{where}.secret must be {FORMS}, never the secret itself")
    if not isinstance(allowed, list) or not all(isinstance(text, str) for text in allowed):
        raise ConfigError(f"{where}.allow_addresses is a list of networks")
    try:
        origin_of(split_url(rpc)[0])
        networks_of(allowed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    return ChainSettings(rpc, final if type(final) is int else str(final), secret, tuple(allowed))


def evm_connector(
    settings: EvmSettings, ledger: Path, journal: Path, resolve: Callable[[str], str],
    allow: Callable[[int], None] | None,
) -> EvmConnector:  # fmt: skip
    """The connector; keys are read when they are used, and only when ``allow`` lets a chain's money move.

    Without ``allow`` nothing may be sent: then no record of nonces is made either.
    """

    def key(chain_id: int, account: str) -> Signer:
        if allow is None:
            raise ConfigError("this only looks", code="missing_secret")
        allow(chain_id)
        reference = settings.accounts.get(account)
        if reference is None:
            raise ConfigError("no key is configured for the account", code="missing_secret")
        return Signer(resolve(reference))

    nodes = {chain_id: Node(rpc_of(chain_id, one, resolve), one.final) for chain_id, one in settings.chains.items()}
    numbers = Ledger(ledger, _new_at(ledger, journal))
    if allow is not None and journal.exists():
        numbers.make()
    return EvmConnector(nodes, key, numbers)


def rpc_of(chain_id: int, settings: ChainSettings, resolve: Callable[[str], str]) -> Rpc:
    """A chain's node."""
    reference = settings.secret
    secret = (lambda: resolve(reference)) if reference else None
    return Rpc(settings.rpc, chain_id, secret=secret, allowed=networks_of(settings.allow_addresses))


def _new_at(ledger: Path, journal: Path) -> Callable[[], int]:
    """What a record of nonces that has to be made remembers as its birth: 0 when no intent may still be dispatched.

    Read before anything is decided with this connector: the first decision would look like an older one.
    """
    now = SystemClock().now_us()
    older = not ledger.exists() and _decided_since(journal, now - REMEMBERED_US)
    return lambda: now if older else 0


def _decided_since(journal: Path, since_us: int) -> bool:
    if not journal.exists():
        return False
    store = SqliteStore(journal, readonly=True)
    try:
        for seq in range(store.size() - 1, -1, -1):
            record = store.record(seq)
            if record.at < since_us:
                return False
            if record.kind == "action.decided" and record.body["disposition"] in EXECUTING:
                return True
    finally:
        store.close()
    return False
