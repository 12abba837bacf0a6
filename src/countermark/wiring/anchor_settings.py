"""``[publish.anchor]`` of ``countermark.toml``: which contract on which chain, how often, at what cost, whose key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countermark.model.errors import ConfigError
from countermark.net import Network, networks_of
from countermark.wiring.custody import FORMS, is_reference

EVERY_DEFAULT = "1h"
EVERY_S_MIN = 60
EVERY_S_MAX = 7 * 86_400
GWEI_MAX = 10**9
FINAL_BLOCKS_MAX = 10_000
CHAIN_ID_MAX = 2**53 - 1

_KEYS = frozenset(
    ("chain_id", "rpc", "key", "contract", "every", "final", "fee_max_gwei", "tip_max_gwei", "allow_addresses")
)
_EVERY = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class AnchorConfig:
    """``rpc`` and ``key`` are references: a node's address may hold a password, and the key pays.

    ``contract`` is ``""`` until one is deployed; ``final`` is ``""`` for what is usual on the chain.
    """

    chain_id: int
    rpc: str
    key: str
    contract: str
    every_s: int
    final: str | int
    fee_max_gwei: int
    tip_max_gwei: int
    allowed: tuple[Network, ...]


def read_anchor(publish: object, file: str) -> AnchorConfig | None:
    """The section as settings; None when there is none. Raises ``ConfigError`` naming the file and the wrong key."""
    if not isinstance(publish, dict) or publish.keys() - {"anchor", "stamp"}:
        raise ConfigError(f"{file}: publish takes only: anchor, stamp")
    section = publish.get("anchor")
    if section is None:
        return None
    where = f"{file}: publish.anchor"
    if not isinstance(section, dict) or section.keys() - _KEYS:
        raise ConfigError(f"{where} takes only: {', '.join(sorted(_KEYS))}")
    for name in ("rpc", "key"):
        if not is_reference(section.get(name)):
            raise ConfigError(f"{where}.{name} must be {FORMS}, never the value itself")
    contract = section.get("contract", "")
    if type(contract) is not str or (contract and _ADDRESS.fullmatch(contract) is None):
        raise ConfigError(f"{where}.contract is an address, 0x and 40 hex digits")
    allowed = section.get("allow_addresses", [])
    if not isinstance(allowed, list) or not all(isinstance(text, str) for text in allowed):
        raise ConfigError(f"{where}.allow_addresses is a list of networks")
    return AnchorConfig(
        _number(section, "chain_id", where, 1, CHAIN_ID_MAX), section["rpc"], section["key"], contract,
        _every(section, where), _final(section, where), _number(section, "fee_max_gwei", where, 1, GWEI_MAX, 200),
        _number(section, "tip_max_gwei", where, 0, GWEI_MAX, 2), networks_of(allowed),
    )  # fmt: skip


def _number(section: Mapping[str, Any], name: str, where: str, low: int, high: int, default: int | None = None) -> int:
    value = section.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{where}.{name} is an integer from {low} to {high}")
    return value


def _every(section: Mapping[str, Any], where: str) -> int:
    found = _EVERY.fullmatch(str(section.get("every", EVERY_DEFAULT)))
    seconds = 0 if found is None else int(found[1]) * _UNITS_S[found[2]]
    if not EVERY_S_MIN <= seconds <= EVERY_S_MAX:
        raise ConfigError(f"{where}.every is a time from 1m to 7d")
    return seconds


def _final(section: Mapping[str, Any], where: str) -> str | int:
    value = section.get("final", "")
    if value in ("", "accepted", "finalized") or (type(value) is int and 1 <= value <= FINAL_BLOCKS_MAX):
        return value  # type: ignore[no-any-return]
    raise ConfigError(f'{where}.final is "accepted", "finalized" or a number of blocks up to {FINAL_BLOCKS_MAX}')
