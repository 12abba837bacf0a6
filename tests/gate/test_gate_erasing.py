"""Erasure: what two people order is gone everywhere, whatever crashes; holds, duties and work under way refuse it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from erasing import DAY_S, deploy, document, held, order, pay, released
from rig import AGENT, BOREALIS, Provider, bodies, hold, signed_answer, unsound, waiting
from test_gate_sensitive import NOTE, WHY

from countermark.audit import export_pack, unsealer
from countermark.authority import load_private
from countermark.journal import SqliteStore, Vault
from countermark.log import LogSigner
from countermark.model.clock import FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring.config import load_config
from countermark.wiring.deployment import read_key


def refused(handle: Any, op: str, body: Any, code: str) -> None:
    with pytest.raises(CountermarkError) as caught:
        handle.call(op, body)
    assert caught.value.code == code


def keys_of(root: Path) -> dict[str, tuple[bytes, bytes]]:
    """Every subject's key in the vault: wrapped, and plain."""
    config = load_config(root)
    vault = Vault(config.vault, read_key(config.keys / "vault.key"))
    with sqlite3.connect(config.vault) as db:
        names = [(name, wrapped) for name, wrapped in db.execute("select id, wrapped from subject")]
    found = {name: (wrapped, vault._key(name, create=False)) for name, wrapped in names}
    vault.close()
    return found


def files(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def readable(root: Path) -> set[int]:
    """The records whose values somebody with the vault's key can still read."""
    config = load_config(root)
    store, vault = SqliteStore(config.journal, readonly=True), Vault(config.vault, read_key(config.keys / "vault.key"))
    try:
        unseal = unsealer(store, vault)
        return {record.seq for record in store.records() if unseal(record.seq) is not None}
    finally:
        store.close()
        vault.close()


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, FakeClock]:
    """A deployment with payments to two payees, a month and a day later; copied by each test."""
    root, clock = tmp_path_factory.mktemp("aged") / "d", FakeClock()
    made = deploy(root, Provider(), clock)
    with hold(root, Provider(), clock) as handle:
        for number in range(3):
            pay(handle, number)
        pay(handle, 9, destination=BOREALIS)
    clock.advance(31 * DAY_S)
    return root, made, clock


@pytest.fixture
def here(aged: tuple[Path, Any, FakeClock], tmp_path: Path) -> tuple[Path, Any, FakeClock]:
    root = tmp_path / "d"
    shutil.copytree(aged[0], root, ignore=shutil.ignore_patterns("gate.sock"))
    clock = FakeClock()
    clock.advance((aged[2].now_us() - clock.now_us()) // 1_000_000)
    return root, aged[1], clock


def test_what_was_erased_is_nowhere(here: tuple[Path, Any, FakeClock], caplog: pytest.LogCaptureFixture) -> None:
    """Neither value nor key is in any file, in a pack made afterwards, in a log line, or in the running gate."""
    root, made, clock = here
    caplog.set_level("DEBUG")
    wrapped, key = keys_of(root)["acme-paper"]
    assert wrapped in files(root)
    doc = document(root)
    assert (doc["records"], doc["values"], doc["generation"]) == (3, 6, 0)
    with hold(root, Provider(), clock) as handle:
        before = [body["id"] for body in bodies(root, "action.decided")]
        done = handle.call("erase", order(made, doc))
        assert (done["subject"], done["records"], done["values"]) == ("acme-paper", 3, 6)
        running = files(root)
        gate = handle._end.gate  # type: ignore[union-attr]
        opened = gate.wait(
            gate.lane.ask(lambda writer: [writer.unseal(writer.state.keys.get("id:" + one)) for one in before])
        )
        assert [value is None for value in opened] == [True, True, True, False]
        assert gate.wait(gate.lane.ask(lambda writer: dict(writer.vault._cache))).get("acme-paper") is None
        assert gate._parts.pseudonym._of.cache_info().currsize == 0
        config = load_config(root)
        store = SqliteStore(config.journal, readonly=True)
        vault = Vault(config.vault, read_key(config.keys / "vault.key"))
        signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
        pack = root / "pack.zip"
        made_pack = export_pack(
            pack, store, signer, deployment=config.deployment, disclose="all", unseal=unsealer(store, vault)
        )
        assert (made_pack.disclosed, made_pack.withheld, made_pack.erased) == (2, 0, 6)
        store.close()
        vault.close()
    shown = pack.read_bytes()
    pack.unlink()
    for found in (running, files(root), shown):
        for secret in (wrapped, key, f"{NOTE} acct_1AcmePaper".encode()):
            assert secret not in found
    assert NOTE not in caplog.text
    assert WHY not in caplog.text
    assert "borealis-hosting" in keys_of(root)
    assert unsound(root) == []


def test_a_new_value_gets_a_new_key(here: tuple[Path, Any, FakeClock]) -> None:
    """After an erasure the same payee is paid again: its new values are readable, and a second erasure takes them."""
    root, made, clock = here
    with hold(root, Provider(), clock) as handle:
        handle.call("erase", order(made, document(root)))
        pay(handle, 20)
        assert set(keys_of(root)) == {"acme-paper#1", "borealis-hosting"}
        again = document(root)
        assert (again["generation"], again["records"]) == (1, 1)
        refused(handle, "erase", order(made, again), "retention_duty")
        clock.advance(31 * DAY_S)
    with hold(root, Provider(), clock) as handle:
        handle.call("erase", order(made, again))
        refused(handle, "erase", order(made, again), "nothing_to_erase")
    assert set(keys_of(root)) == {"borealis-hosting"}
    assert unsound(root) == []


def test_an_old_vault_put_back_brings_nothing_back(here: tuple[Path, Any, FakeClock], tmp_path: Path) -> None:
    """The ciphertexts went with the record, and the next start destroys the key once more."""
    root, made, clock = here
    old = tmp_path / "vault.db"
    shutil.copy(root / "data" / "vault.db", old)
    with hold(root, Provider(), clock) as handle:
        handle.call("erase", order(made, document(root)))
    for left in ("-wal", "-shm"):
        (root / "data" / f"vault.db{left}").unlink(missing_ok=True)
    shutil.copy(old, root / "data" / "vault.db")
    assert "acme-paper" in keys_of(root)
    assert len(readable(root)) == 1
    with hold(root, Provider(), clock):
        assert "acme-paper" not in keys_of(root)


def test_erasure_takes_two_people_who_saw_the_same(here: tuple[Path, Any, FakeClock]) -> None:
    """One person twice, two without independence, or a subject that has changed since: refused, nothing recorded."""
    root, made, clock = here
    doc = document(root)
    with hold(root, Provider(), clock) as handle:
        refused(handle, "erase", order(made, doc, ("controller", "controller")), "four_eyes")
        refused(handle, "erase", order(made, doc, ("controller",)), "four_eyes")
        refused(handle, "erase", order(made, {**doc, "deployment": "elsewhere"}), "not_authorised")
        refused(handle, "erase", order(made, {**doc, "values": 5}), "erasure_stale")
        refused(handle, "erase", order(made, {**doc, "generation": 1}), "erasure_stale")
        changed = order(made, doc)
        changed["erasure"] = {**doc, "subject": "borealis-hosting"}
        refused(handle, "erase", changed, "bad_signature")
        refused(handle, "erase", {"erasure": None, "signed": []}, "bad_erasure")
        refused(handle, "erase", order(made, {**doc, "subject": "nobody"}), "nothing_to_erase")
        pay(handle, 30)
        refused(handle, "erase", order(made, doc), "erasure_stale")
    assert bodies(root, "data.erased") == []


def test_a_hold_refuses_until_two_end_it(here: tuple[Path, Any, FakeClock]) -> None:
    """A hold of any scope keeps what it covers, and nothing else; one person sets it, and cannot end it alone."""
    root, made, clock = here
    run = bodies(root, "action.decided")[0]["run"]
    scopes = [("subject", "acme-paper"), ("payee", "acme-paper"), ("agent", AGENT), ("run", run), ("all", "")]
    both, other = order(made, document(root)), order(made, document(root, "borealis-hosting"))
    with hold(root, Provider(), clock) as handle:
        for number, (kind, value) in enumerate(scopes):
            assert handle.call("hold.set", held(made, kind, value, number)) == f"hold_{number:016x}"
            refused(handle, "hold.set", held(made, kind, value, number), "bad_hold")
            refused(handle, "erase", both, "legal_hold")
            if number > 1:
                refused(handle, "erase", other, "legal_hold")
                handle.call("hold.clear", released(made, number))
        handle.call("erase", other)
    with hold(root, Provider(), clock) as handle:
        refused(handle, "hold.clear", released(made, 0, ("controller", "controller")), "four_eyes")
        refused(handle, "hold.clear", released(made, 4), "unknown_hold")
        refused(handle, "hold.set", held(made, "all", number=4), "bad_hold")
        handle.call("hold.clear", released(made, 0))
        refused(handle, "erase", both, "legal_hold")
        handle.call("hold.clear", released(made, 1))
        handle.call("erase", both)
    assert unsound(root) == []


def test_a_misspelt_hold_is_refused(here: tuple[Path, Any, FakeClock]) -> None:
    """A hold that would hold nothing is no hold; nor is one by somebody else's key."""
    root, made, clock = here
    with hold(root, Provider(), clock) as handle:
        refused(handle, "hold.set", held(made, "agent", "tresury"), "bad_argument")
        refused(handle, "hold.set", held(made, "payee", "acme-papr"), "bad_argument")
        wrong = held(made, "all")
        wrong["order"] = {**wrong["order"], "person": "treasurer"}
        refused(handle, "hold.set", wrong, "bad_signature")


def test_nothing_is_erased_while_something_is_under_way(tmp_path: Path) -> None:
    """An unknown outcome, and a question that waits for people, keep the values that they need."""
    root, clock = tmp_path / "d", FakeClock()
    made = deploy(root, Provider(), clock, '[retention]\nkeep = "0d"\n')
    with hold(root, Provider(["lost_before"] * 9, lookup="provider_error"), clock) as handle:
        assert pay(handle, 1).status == "unknown"
        pay(handle, 2, 600_000, BOREALIS)
        refused(handle, "erase", order(made, document(root)), "subject_busy")
        refused(handle, "erase", order(made, document(root, "borealis-hosting")), "subject_busy")
        (asked,) = waiting(handle)
        handle.call("answer", signed_answer(made, asked, "refuse"))
        handle.call("erase", order(made, document(root, "borealis-hosting")))
    assert unsound(root) == []


def test_without_a_rule_nothing_is_erased(tmp_path: Path) -> None:
    """Silence is no permission: no [retention], or none for the tool."""
    root, clock = tmp_path / "d", FakeClock()
    made = deploy(root, Provider(), clock, '[retention.tools]\n"other.tool" = "1d"\n')
    with hold(root, Provider(), clock) as handle:
        pay(handle, 1)
        clock.advance(400 * DAY_S)
    with hold(root, Provider(), clock) as handle:
        refused(handle, "erase", order(made, document(root)), "no_retention_rule")
