"""Floor 3: the journal in SQLite, the vault and the high-water file; implements the ``Store`` port."""

from countermark.journal.copying import copy_database, copy_file, file_sha256, sync_folder
from countermark.journal.highwater import HighWater, read_high_water, write_high_water
from countermark.journal.sqlite import SCHEMA, SqliteStore, upgrade
from countermark.journal.vault import Vault
from countermark.journal.view import STEP_RECORDS, LogView

__all__ = [
    "SCHEMA",
    "STEP_RECORDS",
    "HighWater",
    "LogView",
    "SqliteStore",
    "Vault",
    "copy_database",
    "copy_file",
    "file_sha256",
    "read_high_water",
    "sync_folder",
    "upgrade",
    "write_high_water",
]
