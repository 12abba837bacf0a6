"""Exporting a pack from a journal: heads, bundles, what is disclosed, withheld and erased."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import pytest
from audit_day import the_day

from countermark.audit import Exported, PackError, export_pack, present_state, try_action
from countermark.journal import SqliteStore
from countermark.log import open_checkpoint
from countermark.model.errors import ArgumentError, AuthorityError


def export(path: Path, **more: Any) -> Exported:
    day = the_day()
    store = day.store
    more.setdefault("unseal", day.unseal(store))
    try:
        return export_pack(path, store, day.signer, deployment=day.made.deployment, **more)
    finally:
        store.close()


def disclosures(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read("disclosures.json"))
    return found


def predicate(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        envelope = json.loads(archive.read("manifest.sigstore.json"))["dsseEnvelope"]
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return found


def test_nothing_is_disclosed_unless_asked(tmp_path: Path) -> None:
    """By default no sensitive value is in the pack, and each is counted as withheld."""
    made = export(tmp_path / "p.zip")
    assert disclosures(tmp_path / "p.zip") == {"v": 1, "fields": [], "requests": []}
    assert (made.disclosed, made.withheld, made.erased) == (0, 4, 0)
    assert predicate(tmp_path / "p.zip")["withheld"] == 4


def test_everything_is_disclosed_when_asked(tmp_path: Path) -> None:
    """With disclosure each value comes with its salt, and a request's salt where the record does not hold it."""
    made = export(tmp_path / "p.zip", disclose="all")
    shown = disclosures(tmp_path / "p.zip")
    assert {row["value"] for row in shown["fields"]} == {
        "the invoice is due", "for the roof of the town hall", "they wrote a mail", "urgent"
    }  # fmt: skip
    assert len(shown["requests"]) == 2
    assert (made.disclosed, made.withheld, made.erased) == (4, 0, 0)


def test_erased_values_are_counted_apart(tmp_path: Path) -> None:
    """A value whose key was destroyed is erased, not withheld."""
    day = the_day()
    copy = tmp_path / "vault.db"
    shutil.copy(day.made.root / "data" / "vault.db", copy)
    with sqlite3.connect(copy) as database:
        database.execute("delete from subject where id like 'p:%'")
    database.close()
    from countermark.audit import unsealer
    from countermark.journal import Vault
    from countermark.wiring.deployment import read_key

    vault = Vault(copy, read_key(day.made.root / "keys" / "vault.key"))
    store = day.store
    try:
        made = export(tmp_path / "p.zip", unseal=unsealer(store, vault), disclose="all")
    finally:
        vault.close()
        store.close()
    assert (made.disclosed, made.withheld, made.erased) == (2, 0, 2)


def test_without_a_way_to_open_values_all_count_as_withheld(tmp_path: Path) -> None:
    """Somebody without the vault can still export; nothing is called erased that may only be closed."""
    made = export(tmp_path / "p.zip", unseal=None)
    assert (made.disclosed, made.withheld, made.erased) == (0, 4, 0)


def test_an_earlier_head_exports_the_records_up_to_it(tmp_path: Path) -> None:
    """`at` names a signed head: the pack has exactly its records, and the summary its root."""
    day = the_day()
    store = day.store
    size = store.head_before(20)
    assert size is not None
    note = store.head_at(size)
    store.close()
    made = export(tmp_path / "p.zip", at=size)
    assert made.size == size
    assert note is not None
    assert made.root == base64.b64encode(open_checkpoint(note, [day.signer.vkey]).root).decode()
    assert predicate(tmp_path / "p.zip")["size"] == size


def test_a_size_that_is_no_head_names_the_nearest_smaller_one(tmp_path: Path) -> None:
    """Heads end where batches end; another size is refused with the one to use instead."""
    store = the_day().store
    sizes = [size for size in range(1, store.size()) if store.head_at(size) is None]
    nearest = store.head_before(sizes[-1])
    store.close()
    with pytest.raises(PackError) as caught:
        export(tmp_path / "p.zip", at=sizes[-1])
    assert f"--at {nearest}" in caught.value.hint
    assert not (tmp_path / "p.zip").exists()


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    """Log, size and disclosure determine the pack."""
    export(tmp_path / "a.zip", disclose="all")
    export(tmp_path / "b.zip", disclose="all")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def _pseudonym(kind: str, value: str) -> str:
    from countermark.model.digest import pseudonym
    from countermark.wiring.deployment import read_key

    return pseudonym(read_key(the_day().made.root / "keys" / "pseudonym.key"), kind, value)


def transfer(invoice: str, amount: int = 1_000) -> dict[str, Any]:
    args = {"amount": amount, "currency": "eur", "destination": "acct_1AcmePaper", "metadata[invoice]": invoice}
    return {"tool": "stripe.transfers.create", "args": args}


def test_a_trial_answers_as_the_gate_would_and_records_nothing() -> None:
    """Against the present state a paid invoice is a duplicate and a new one is allowed; the journal stays as it is."""
    day = the_day()
    store: SqliteStore = day.store
    size = store.size()
    at = store.record(size - 1).at
    state = present_state(store)
    state.revoked.clear()  # as if the mandate had not been ended in the evening
    same = try_action(state, transfer("inv - 1"), agent=None, at=at, pseudonymous=_pseudonym)
    assert (same.judgement.disposition, same.judgement.code) == ("deny", "duplicate_obligation")
    new = try_action(state, transfer("INV-99"), agent="treasury", at=at, pseudonymous=_pseudonym)
    assert (new.judgement.disposition, new.judgement.reasons) == ("allow", ("limits.permit",))
    assert new.body["facts"]["day_total"] > 1_000
    assert store.size() == size
    store.close()


def test_a_trial_without_authority_or_with_a_wrong_action_says_so() -> None:
    """No mandate in force, an unknown agent, tool or run, and wrong arguments are errors with their codes."""
    store = the_day().store
    state, at = present_state(store), store.record(store.size() - 1).at
    store.close()
    for agent, action, code in (
        (None, transfer("x"), "mandate_missing"),
        ("nobody", transfer("x"), "unknown_agent"),
        (None, {**transfer("x"), "run": "run_" + "9" * 32}, "unknown_run"),
    ):
        with pytest.raises((ArgumentError, AuthorityError)) as caught:
            try_action(state, action, agent=agent, at=at, pseudonymous=_pseudonym)
        assert caught.value.code == code
    state.revoked.clear()
    for action, code in (({"tool": "no.such", "args": {}}, "unknown_tool"), (transfer("x", -1), "bad_argument")):
        with pytest.raises(ArgumentError) as wrong:
            try_action(state, action, agent=None, at=at, pseudonymous=_pseudonym)
        assert wrong.value.code == code


def test_the_present_state_does_not_depend_on_the_snapshot() -> None:
    """Read through the snapshot or folded from the first record, the state is the same."""
    from countermark.audit import bundles_of
    from countermark.policy import DictKeys, State

    store = the_day().store
    folded = State(DictKeys(), bundles_of(store))
    for record in store.records():
        folded.apply(record, lambda stop=record.seq: store.records(0, stop))  # type: ignore[misc]
    assert present_state(store).dump() == folded.dump()
    store.close()
