"""What `doctor` says about the machine below a deployment, and `upgrade` about the journal."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cli_support import document, fresh, ok, run

from countermark.cli import doctor_host
from countermark.journal import SCHEMA, SqliteStore
from countermark.model import clock as clocks
from countermark.model.clock import US, FakeClock, SystemClock
from countermark.wiring import host
from countermark.wiring.backup import make_backup
from countermark.wiring.config import Config, load_config

SECRET = "sk_test_canary_5f2d81"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load_config(fresh(tmp_path_factory.mktemp("doctor")).root)


def states(found: Any) -> set[str]:
    return {state for state, _ in found}


def said(found: Any) -> str:
    return "\n".join(text for _, text in found)


def test_durable_writes_are_measured_where_the_journal_lies(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are of the journal's own folder; memory, networks and writes too fast for a disk are named."""
    found = host.syncing(config.journal.parent)
    assert found.sync_us >= 0
    assert [path.name for path in config.journal.parent.iterdir() if path.name.startswith(".doctor-")] == []
    for measured, state in (
        (host.Syncing(5, 900, "ext4"), "ok"),
        (host.Syncing(5, 9, "ext4"), "warning"),
        (host.Syncing(5, 900, "tmpfs"), "warning"),
        (host.Syncing(5, 900, "nfs4"), "wrong"),
    ):
        monkeypatch.setattr(host, "syncing", lambda folder, measured=measured: measured)
        assert states(doctor_host.fsync(config)) == {state}


def test_the_file_system_of_a_path_is_the_innermost_mount() -> None:
    """/proc is its own file system, whatever lies below it."""
    assert host.filesystem_of(Path("/proc/self")) == "proc"


def at(monkeypatch: pytest.MonkeyPatch, now: int) -> None:
    """Another time for whoever asks for a clock from now on; gates that live in this process keep theirs."""
    monkeypatch.setattr(clocks, "SystemClock", lambda: FakeClock(now))


def test_an_undisciplined_clock_is_a_warning_and_one_behind_the_records_is_wrong(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's word on its time source, and the newest record, are compared with the clock."""
    for answer, state in ((True, "ok"), (None, "ok"), (False, "warning")):
        monkeypatch.setattr(host, "disciplined", lambda answer=answer: answer)
        assert states(doctor_host.clock(config)) == {state}
    at(monkeypatch, 1_000 * US)
    assert states(doctor_host.clock(config)) == {"wrong"}


def test_the_disk_forecast_is_that_of_the_last_day(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's bytes are the share of the records that are not older than a day before the newest."""
    with_store = SqliteStore(config.journal, readonly=True)
    try:
        found = host.growth(config, with_store)
    finally:
        with_store.close()
    assert found.bytes_per_day == found.bytes_now, "every record of a new deployment is of its last day"
    for days, state in ((10_000, "ok"), (29, "warning")):
        forecast = host.Growth(1 << 40, 1 << 30, days << 30)
        monkeypatch.setattr(host, "growth", lambda *_, forecast=forecast: forecast)
        assert states(doctor_host.disk(config)) == {state}
    assert "full in 29 days" in said(doctor_host.disk(config))


def test_a_full_key_is_a_warning_and_no_key_is_ever_printed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sk_` keys can do everything, `rk_` keys what they were made for; the value stays out of every line."""
    monkeypatch.setenv("STRIPE_API_KEY", SECRET)
    assert states(doctor_host.secrets(config)) == {"ok", "warning"}
    assert "one person may use it" in said(doctor_host.secrets(config))
    text = ok(run("-C", str(config.root), "doctor")) + ok(run("-C", str(config.root), "doctor", "--json"))
    assert SECRET not in text
    assert "canary" not in text
    monkeypatch.setenv("STRIPE_API_KEY", SECRET.replace("sk_", "rk_"))
    assert states(doctor_host.secrets(config)) == {"ok"}


def test_a_live_key_behind_which_too_few_people_stand_is_wrong(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The author activated it: a live key is not used, and doctor and status say who is missing."""
    monkeypatch.setenv("STRIPE_API_KEY", SECRET.replace("sk_test", "rk_live"))
    assert states(doctor_host.secrets(config)) == {"ok", "wrong"}
    assert "treasurer wrote the policy and is its activator" in said(doctor_host.secrets(config))
    text = ok(run("-C", str(config.root), "status"))
    assert "the live credentials are not used" in text
    assert "canary" not in text
    monkeypatch.setenv("STRIPE_API_KEY", SECRET)
    assert "allowed with test keys" in ok(run("-C", str(config.root), "status"))


def test_other_users_who_could_read_or_replace_are_named(tmp_path: Path) -> None:
    """A folder that others may enter, a policy that others may change, a file of somebody else: each is wrong."""
    made = load_config(fresh(tmp_path).root)
    assert host.exposed(made) == []
    made.journal.parent.chmod(0o755)
    assert "others can read data/journal.db" in host.exposed(made)
    made.journal.parent.chmod(0o700)
    (made.policy / "limits.toml").chmod(0o664)
    assert host.exposed(made) == ["others can change policy/limits.toml"]
    (made.policy / "limits.toml").chmod(0o644)
    made.root.chmod(0o777)
    assert any("others can rename" in phrase for phrase in host.exposed(made))
    made.root.chmod(0o755)
    if os.getuid() == 0:
        os.chown(made.keys / "log.pem", 12_345, 12_345)
        assert host.exposed(made) == [f"keys/log.pem belongs to uid 12345, not to you ({os.getuid()})"]


def test_the_age_of_the_newest_backup_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No backup and one that is too old are warnings; a fresh one is not, and newer records are counted."""
    made = load_config(fresh(tmp_path).root)
    assert states(doctor_host.backup(made)) == {"warning"}
    make_backup(made, tmp_path / "backup")
    assert states(doctor_host.backup(made)) == {"ok"}
    assert "0 records are newer" in said(doctor_host.backup(made))
    at(monkeypatch, SystemClock().now_us() + 27 * 3_600 * US)
    assert states(doctor_host.backup(made)) == {"warning"}
    (made.journal.parent / "backup.json").write_text("{}")
    result = run("-C", str(made.root), "doctor", "--json")
    wrong = {row["name"] for row in json.loads(result.stdout)["checks"] if row["state"] == "wrong"}
    assert (result.exit_code, wrong) == (1, {"backup"})


def test_upgrade_says_that_there_is_nothing_to_do_or_refuses(tmp_path: Path) -> None:
    """One schema exists: a journal of it is left as it is, a newer one is refused, and so is what is no journal."""
    made = fresh(tmp_path)
    here = ("-C", str(made.root), "upgrade", "--json")
    journal = made.root / "data" / "journal.db"
    before = journal.read_bytes()
    assert document(run(*here)) == {"found": SCHEMA, "schema": SCHEMA, "changed": False}
    assert "Nothing to do" in ok(run(*here[:-1]))
    assert journal.read_bytes() == before
    database = sqlite3.connect(journal)
    for pragma, code in ((f"user_version={SCHEMA + 1}", "newer_schema"), ("application_id=1", "store_failed")):
        database.execute(f"pragma {pragma}")
        assert document(run(*here), 1)["error"]["code"] == code
    database.close()
