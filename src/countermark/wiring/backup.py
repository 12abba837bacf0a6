"""``countermark backup``: an online copy of a deployment, checked, durable, and there as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.audit import whole_log
from countermark.journal import SCHEMA, SqliteStore, copy_database, copy_file, file_sha256, sync_folder
from countermark.model.canon import canon, read_json
from countermark.model.clock import SystemClock
from countermark.model.errors import ConfigError, CountermarkError, StoreError
from countermark.model.ports import Clock
from countermark.wiring.config import DEPLOYMENT, FILE, Config
from countermark.wiring.log_keys import log_signer

MANIFEST = "manifest.json"
NOTICE = "backup.json"  # in data/: when the newest backup was made, for `doctor`
MANIFEST_BYTES_MAX = 1 << 20
FILES_MAX = 5_000
_MEMBERS = frozenset(
    ("v", "deployment", "lane", "made_at", "schema", "log_key", "size", "root", "head", "with_keys", "files")
)
_BESIDE = ("-wal", "-shm", "-journal")  # parts of a live database, which its copy holds already


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup on disk: its folder and its manifest. ``made_at`` is microseconds; ``root`` is hex."""

    folder: Path
    deployment: str
    lane: str
    made_at: int
    log_key: str
    size: int
    root: str
    with_keys: bool
    files: Mapping[str, str]


def make_backup(config: Config, target: Path, *, with_keys: bool = False, clock: Clock | None = None) -> Backup:
    """Copy a deployment to ``target``, which must not exist, while its owner goes on.

    The copied log is read from end to end and compared with its signed head before the copy gets its name. Keys
    stay out unless ``with_keys``: apart from them the vault's copy opens nothing.

    Raises:
        ConfigError: ``target`` exists, lies inside the deployment, or in no directory that there is.
        StoreError: something cannot be copied, or the journal is damaged.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists already", hint="A backup never replaces another: choose a new name.")
    if target.absolute().resolve().is_relative_to(config.root.resolve()):
        raise ConfigError("a backup inside the deployment is lost with it", hint="Choose another disk.")
    if not target.absolute().parent.is_dir():
        raise ConfigError(
            f"there is no directory {target.absolute().parent}", hint="Is its disk mounted? Or make it first."
        )
    made_at = (clock or SystemClock()).now_us()
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(mode=0o700)
        found = _copied(config, partial, made_at, with_keys=with_keys)
        for folder, _, _ in os.walk(partial):
            sync_folder(Path(folder))
        partial.rename(target)
        sync_folder(target.absolute().parent)
    except OSError as error:
        raise StoreError(f"the backup could not be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _leave_notice(config, found, target)
    return Backup(target, *found[1:])


_Found = tuple[Path, str, str, int, str, int, str, bool, Mapping[str, str]]


def _copied(config: Config, folder: Path, made_at: int, *, with_keys: bool) -> _Found:
    """Copy everything into ``folder`` and write the manifest.

    The high-water file goes first and the vault last: what was published before the snapshot is in it, and every
    key that a record of the snapshot needs was durable before that record.
    """
    files: dict[str, str] = {}
    for name, path in _sources(config, with_keys=with_keys):
        target = folder / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files[name] = copy_database(path, target) if path.suffix == ".db" else copy_file(path, target)
    signer = log_signer(config)
    store = SqliteStore(folder / "data" / "journal.db", readonly=True)
    try:
        head = whole_log(store, signer.vkeys)
        note = store.head()
    finally:
        store.close()
    if head is None or note is None:
        raise StoreError("the journal is empty", hint="There is nothing to back up yet.")
    signer = signer.of_head(note[1])
    manifest = {
        "v": 1, "deployment": config.deployment, "lane": config.lane, "made_at": made_at, "schema": SCHEMA,
        "log_key": signer.vkey, "size": head.size, "root": head.root.hex(), "head": note[1].decode("utf-8"),
        "with_keys": with_keys, "files": files,
    }  # fmt: skip
    _write(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return (
        folder, config.deployment, config.lane, made_at, signer.vkey, head.size, head.root.hex(), with_keys, files
    )  # fmt: skip


def _sources(config: Config, *, with_keys: bool) -> Iterator[tuple[str, Path]]:
    """Names and paths, in the order in which they must be copied."""
    yield FILE, config.root / FILE
    if config.high_water.is_file():
        yield config.high_water.relative_to(config.root).as_posix(), config.high_water
    yield "data/journal.db", config.journal
    data = [path for path in sorted(config.journal.parent.iterdir()) if path not in (config.journal, config.vault)]
    folders = [config.policy, *([config.keys] if with_keys else [])]
    plain = [path for path in data if not path.name.endswith(_BESIDE) and path.name != NOTICE]
    plain += [path for folder in folders for path in sorted(folder.rglob("*"))]
    if len(plain) > FILES_MAX:
        raise ConfigError(f"there are more than {FILES_MAX} files in the deployment", hint="Move strangers away.")
    for path in plain:
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(config.root).as_posix(), path
    yield "data/vault.db", config.vault


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _leave_notice(config: Config, found: _Found, target: Path) -> None:
    """Tell `doctor` when the newest backup was made. The backup itself is complete, whatever becomes of this."""
    notice = {"v": 1, "made_at": found[3], "size": found[5], "root": found[6], "target": str(target.absolute())}
    path = config.journal.parent / NOTICE
    try:
        fresh = path.with_name(NOTICE + ".new")
        _write(fresh, canon(notice).decode("utf-8") + "\n")
        fresh.replace(path)
    except OSError as error:
        raise StoreError(
            f"the backup is complete, but {NOTICE} could not be written: {error.strerror}", code="no_notice"
        ) from None


def newest_backup(config: Config) -> Mapping[str, Any] | None:
    """What the newest backup's notice says (``made_at``, ``size``, ``root``, ``target``); None when there is none.

    Raises ``ConfigError`` when the notice cannot be read.
    """
    path = config.journal.parent / NOTICE
    try:
        doc = read_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, CountermarkError):
        raise ConfigError(f"data/{NOTICE} cannot be read", hint="Make a backup: it is written anew.") from None
    if type(doc) is not dict or type(doc.get("made_at")) is not int or type(doc.get("size")) is not int:
        raise ConfigError(f"data/{NOTICE} does not say when", hint="Make a backup: it is written anew.")
    return doc


def open_backup(folder: Path) -> Backup:
    """Read a backup's manifest and compare every file with it. Raises ``StoreError``: ``bad_backup``."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        if len(raw) > MANIFEST_BYTES_MAX:
            raise StoreError("the backup's manifest is too long", code="bad_backup")
        doc = read_json(raw, bytes_max=MANIFEST_BYTES_MAX)
    except (OSError, CountermarkError):
        raise StoreError(
            f"{folder} is not a backup", code="bad_backup", hint=f"A backup has a {MANIFEST}, written last."
        ) from None
    _check_manifest(doc)
    files: dict[str, str] = doc["files"]
    for name, expected in files.items():
        try:
            same = file_sha256(folder / name) == expected
        except OSError:
            same = False
        if not same:
            raise StoreError(
                f"{name} of the backup is missing or was altered", code="bad_backup", hint="Use another one."
            )
    return Backup(
        folder, doc["deployment"], doc["lane"], doc["made_at"], doc["log_key"], doc["size"], doc["root"],
        doc["with_keys"], files,
    )  # fmt: skip


def _check_manifest(doc: Any) -> None:
    if type(doc) is not dict or doc.keys() != _MEMBERS or doc["v"] != 1:
        raise StoreError(
            "the backup's manifest is not one of this version", code="bad_backup", hint="Install a newer countermark?"
        )
    typed = (
        all(type(doc[name]) is str for name in ("deployment", "lane", "log_key", "root", "head"))
        and all(type(doc[name]) is int for name in ("made_at", "schema", "size"))
        and type(doc["with_keys"]) is bool and type(doc["files"]) is dict
        and all(type(value) is str and _plain(name) for name, value in doc["files"].items())
        and {FILE, "data/journal.db", "data/vault.db"} <= doc["files"].keys()
        and DEPLOYMENT.fullmatch(doc["deployment"]) is not None
    )  # fmt: skip
    if not typed:
        raise StoreError("the backup's manifest is damaged", code="bad_backup", hint="Use another one.")


def _plain(name: str) -> bool:
    """A file's name that stays inside the folder."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and "\\" not in name and "\0" not in name
