"""The vault for whoever drives sealed runs: opened for each look and closed again, so that no key stays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from countermark.journal import SqliteStore, Vault
from countermark.model.digest import pseudonym
from countermark.model.records import Record
from countermark.model.sealing import is_sealed
from countermark.wiring.config import Config
from countermark.wiring.deployment import read_key


class VaultSeals:
    """Implements ``countermark.workflow.Seals``. An erasure finds no key here that it would have to destroy."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def opened(self, records: Sequence[Record]) -> list[Record]:
        if not any(is_sealed(record) for record in records):
            return list(records)
        from countermark.audit import open_run_record, unsealer  # most deployments never need it

        config = self._config
        with (
            closing(SqliteStore(config.journal, readonly=True)) as store,
            closing(Vault(config.vault, read_key(config.keys / "vault.key"))) as vault,
        ):
            unseal = unsealer(store, vault)
            return [open_run_record(record, unseal) if is_sealed(record) else record for record in records]

    def pseudonym(self, value: str) -> str:
        return pseudonym(read_key(self._config.keys / "pseudonym.key"), "group", value)
