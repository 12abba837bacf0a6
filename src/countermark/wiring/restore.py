"""``countermark restore``: a backup becomes a successor lane, closed until two people accept it (ADR 0006).

The records of the backup stay what they are; ``lane.succeeded`` follows them, says what is known to be lost, and every
movement that the providers list since, and the records do not, takes its business key before anybody can ask again.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.audit import whole_log
from countermark.authority import load_private
from countermark.gate import MOVEMENTS_MAX, Activity, Movement, Pseudonyms, Writer, succeed, successor
from countermark.journal import (
    HighWater,
    SqliteStore,
    Vault,
    copy_file,
    read_high_water,
    sync_folder,
    write_high_water,
)
from countermark.log import Frontier, LogSigner, leaf_hash, open_checkpoint
from countermark.model.clock import US, SystemClock
from countermark.model.errors import ArgumentError, ConfigError, StoreError
from countermark.model.ports import Clock, Connector
from countermark.model.tool import ToolSpec
from countermark.model.values import EXECUTING
from countermark.policy import Bundle, import_pairs, imported_obligation
from countermark.wiring.backup import Backup, open_backup
from countermark.wiring.config import FILE, LOCK, Config, load_config, owner_lives
from countermark.wiring.connectors import connectors_of
from countermark.wiring.deployment import read_key
from countermark.wiring.log_keys import KEY, NEXT, RETIRED, SECOND, log_signer, newest_private

KEY_FILES = (KEY, "pseudonym.key", "vault.key")
DEPTH = 2  # of keys/ and highwater/head below their deployment
MARGIN_US = 3_600 * US  # a provider's clock may differ from ours
_LANE_LINE = re.compile(r'(?m)^lane\s*=\s*"l[0-9]+"[ \t]*$')


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore made. ``lost`` counts records that are known to have been; None when nobody has a longer head."""

    root: Path
    lane: str
    log_key: str
    size: int
    lost: int | None
    succession: str
    imported: int
    asked: tuple[str, ...]
    unasked: tuple[str, ...]


def restore_backup(
    backup_dir: Path, root: Path, *, keys: Path | None = None, head: Path | None = None, offline: bool = False,
    connectors: Mapping[str, Connector] | None = None, clock: Clock | None = None,
) -> Restored:  # fmt: skip
    """Make a deployment in ``root`` (empty or absent) from a backup: a successor lane, closed.

    ``keys`` is the folder of the deployment's keys when the backup has none. ``head`` is the longest head that anybody
    kept: the lost deployment's high-water file, or a signed head. ``offline`` leaves the providers unasked, which the
    record then says.

    Raises:
        ConfigError: ``root`` is not empty, keys are missing, or a gate runs where ``keys`` or ``head`` lie
            (``owner_lives``).
        StoreError: the backup is damaged, or is not of the log that ``head`` is of.
        CountermarkError: a provider's list cannot be read to its end.
    """
    _check_stopped(path for path in (keys, head) if path is not None)
    backup = open_backup(backup_dir)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{root} is not empty", hint="Choose a new directory.")
    partial = root.with_name(f".{root.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(mode=0o700, parents=True)
        made = _made(backup, partial, keys, head, offline, connectors, clock or SystemClock())
        for folder, _, _ in os.walk(partial):
            sync_folder(Path(folder))
        if root.exists():
            root.rmdir()
        partial.rename(root)
        sync_folder(root.absolute().parent)
    except OSError as error:
        raise StoreError(f"the deployment could not be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Restored(root, *made)


def _check_stopped(given: Iterable[Path]) -> None:
    """The gate whose own files are handed in would go on paying what the successor knows nothing of."""
    for path in given:
        for folder in (path, *path.absolute().parents[:DEPTH], *path.resolve().parents[:DEPTH]):
            if owner_lives(folder / LOCK):
                raise ConfigError(
                    f"the gate of {folder} is running", code="owner_lives",
                    hint="Stop it for good first: two gates of one deployment pay the same obligation twice.",
                )  # fmt: skip


_Made = tuple[str, str, int, int | None, str, int, tuple[str, ...], tuple[str, ...]]


def _made(
    backup: Backup, root: Path, keys: Path | None, head: Path | None, offline: bool,
    connectors: Mapping[str, Connector] | None, clock: Clock,
) -> _Made:  # fmt: skip
    _unpack(backup, root, keys)
    before = load_config(root)
    if before.lane != backup.lane or before.deployment != backup.deployment:
        raise StoreError(f"{FILE} of the backup is of another log than its manifest", code="bad_backup")
    old, private = log_signer(before), load_private(newest_private(before))
    writer = _writer(before, old)
    try:
        with closing(SqliteStore(before.journal, readonly=True)) as store:
            checked = whole_log(store, old.vkeys)
        if checked is None or (checked.size, checked.root.hex()) != (backup.size, backup.root):
            raise StoreError("the backup's log is not the one of its manifest", code="bad_backup")
        writer.rebuild()
        known = None if head is None else _known(head, old, writer)
        if known is not None and known[0] < backup.size:
            known = None  # a head of the backup's past says nothing of what came after it
        activity = _activity(writer, before, offline, connectors, clock)
        _rename_lane(root, successor(backup.lane))
        after = load_config(root)
        signer = LogSigner(after.origin, private)
        writer.now = clock.now_us()
        succession = succeed(writer, signer, known, activity)
        newest_private(after).replace(after.keys / KEY)  # a successor begins with one key, under its own name
        write_high_water(after.high_water, HighWater(writer.state.size, writer.frontier.root().hex()))
    finally:
        writer.store.close()
        writer.vault.close()
    lost = None if known is None else known[0] - backup.size
    return (
        after.lane, signer.vkey, backup.size, lost, succession, len(activity.movements), tuple(activity.asked),
        tuple(activity.unasked),
    )  # fmt: skip


def _unpack(backup: Backup, root: Path, keys: Path | None) -> None:
    for name in backup.files:
        target = root / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy_file(backup.folder / name, target)
    for folder in ("keys", "highwater", "policy"):
        (root / folder).mkdir(mode=0o700, exist_ok=True)
    (root / "highwater" / "head").unlink(missing_ok=True)  # of the predecessor: the successor publishes its own
    for name in KEY_FILES:
        if (root / "keys" / name).exists():
            continue
        if keys is None or not (keys / name).is_file():
            raise ConfigError(
                f"the key {name} is missing", code="missing_key",
                hint="The backup was made without keys: give their folder with --keys.",
            )  # fmt: skip
        copy_file(keys / name, root / "keys" / name)
    for name in (NEXT, RETIRED, SECOND):  # where a rotation is under way, or was
        if keys is not None and (keys / name).is_file() and not (root / "keys" / name).exists():
            copy_file(keys / name, root / "keys" / name)
    vault = sqlite3.connect(root / "data" / "vault.db")
    try:
        vault.execute("pragma journal_mode=wal")
    finally:
        vault.close()


def _writer(config: Config, signer: LogSigner) -> Writer:
    vault = Vault(config.vault, read_key(config.keys / "vault.key"))
    store = SqliteStore(config.journal)
    return Writer(store, vault, signer, Pseudonyms(read_key(config.keys / "pseudonym.key")), config.lane)


def _rename_lane(root: Path, lane: str) -> None:
    path = root / FILE
    text = path.read_text("utf-8")
    named, count = _LANE_LINE.subn(f'lane = "{lane}"', text)
    path.write_text(named if count == 1 else f'lane = "{lane}"\n{text}', "utf-8")
    if load_config(root).lane != lane:
        raise ConfigError(f'{FILE} does not take lane = "{lane}"')


def _known(path: Path, signer: LogSigner, writer: Writer) -> tuple[int, str]:
    """Size and root of a kept head, in either form; one that the backup reaches must be a head of its log."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the head cannot be read: {error.strerror}") from None
    if raw.startswith(b"countermark high-water"):
        mark = read_high_water(path)
        size, root = (0, "") if mark is None else (mark.size, mark.root)
    else:
        checkpoint = open_checkpoint(raw, signer.vkeys)
        size, root = checkpoint.size, checkpoint.root.hex()
    if size <= writer.state.size:
        frontier = Frontier()
        for _, leaf in writer.store.raw(0, size):
            frontier.append(leaf_hash(leaf))
        if frontier.root().hex() != root:
            raise StoreError("the backup is not of the log that this head is of", code="bad_backup")
    return size, root


def _activity(
    writer: Writer, config: Config, offline: bool, connectors: Mapping[str, Connector] | None, clock: Clock
) -> Activity:
    """Ask every provider of the policy in force for what it did since the oldest thing that was still under way."""
    state, until = writer.state, clock.now_us()
    bundle = state.bundle
    if bundle is None:
        return Activity(state.at, until, (), (), ())
    since = min([state.at, *(intent.at for intent in state.open.values())]) - MARGIN_US
    given = connectors_of(config) if connectors is None else connectors
    tools = [tool for tool in bundle.compiled.tools.values() if tool.class_ == "money"]
    names = sorted({tool.connector for tool in tools})
    asked = [name for name in names if not offline and hasattr(given.get(name), "effects")]
    known = _provider_keys(writer)
    found: list[Movement] = []
    try:
        for tool in tools:
            if tool.connector in asked:
                found += _movements(given[tool.connector], tool, bundle, writer, known, (since, until))
            if len(found) > MOVEMENTS_MAX:
                raise StoreError(f"the providers list more than {MOVEMENTS_MAX} movements", hint="Use a newer backup.")
    finally:
        for name in asked:
            given[name].close()
    found.sort(key=lambda movement: (movement.at, movement.ref, movement.tool))
    return Activity(since, until, asked, [name for name in names if name not in asked], found)


def _provider_keys(writer: Writer) -> set[str]:
    """The provider keys of every intent in the restored records."""
    return {
        record.body["key"]
        for record in writer.store.records()
        if record.kind == "action.decided" and record.body["disposition"] in EXECUTING
    }


def _movements(
    connector: Any, tool: ToolSpec, bundle: Bundle, writer: Writer, known: set[str], between: tuple[int, int]
) -> Iterator[Movement]:
    """What a tool's provider lists and the restored records do not have."""
    payees = writer.state.register.known
    for effect in connector.effects(tool, *between):
        if effect["key"] in known:
            continue
        by_alias = {tool.by_name[name].alias: str(value) for name, value in effect["args"].items()}
        payee = tool.one("payee")
        account = None if payee is None else by_alias.get(payee.alias)
        terms = {"amount": effect["amount"], "currency": effect["currency"], "payee": None}
        if account is not None:
            terms["payee"] = payees.by_account.get(account) or "p:" + writer.pseudonym("payee", account)
        given = {alias: text for alias, text in by_alias.items() if alias in tool.once_per}
        if account is not None and "payee" in tool.once_per:
            given["payee"] = account
        seen = (effect["ref"], effect["key"], terms, effect["at"], tool.name)
        try:
            pairs = import_pairs(bundle, tool.name, given, writer.pseudonym, payees)
            obligation = imported_obligation(bundle, tool.name, pairs, payees.payees)
        except ArgumentError:  # it has no business key of this policy: people see it, and nothing is taken
            yield Movement(*seen)
        else:
            yield Movement(*seen, pairs, obligation)
