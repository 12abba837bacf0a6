"""Backup and restore from end to end: a payment of the lost time is found at the provider and never made again."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from cli_support import document, ok, run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import AGENT, deploy, records

import countermark
from countermark.audit import bundles_of, reperform, whole_log
from countermark.authority import clear, grant, load_private
from countermark.connectors import NoopConnector
from countermark.journal import SqliteStore, read_high_water
from countermark.model.clock import US, FakeClock, SystemClock
from countermark.model.errors import ConfigError, StoreError
from countermark.model.tool import ToolSpec
from countermark.model.values import Outcome, Request
from countermark.twins.stripe import StripeTwin
from countermark.wiring.backup import make_backup, open_backup
from countermark.wiring.config import load_config
from countermark.wiring.connectors import drafts
from countermark.wiring.init import Made, mandate_document
from countermark.wiring.restore import restore_backup as restore

ACME, BOREALIS = "acct_1AcmePaper", "acct_1BorealisHosting"
TOOL = "stripe.transfers.create"


def args(invoice: str, amount: int = 48_000) -> dict[str, Any]:
    return {"amount": amount, "currency": "eur", "destination": ACME, "metadata[invoice]": invoice}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeTwin]:
    folder = tmp_path_factory.mktemp("twin")
    with StripeTwin.start(
        folder, seed=3, running=True, accounts=[ACME, BOREALIS], balances={"eur": 100_000_000}
    ) as running:
        yield running


def whole(root: Path) -> int:
    """Size of a journal whose chain, tree and signed head agree, and whose every decision is made again the same."""
    config = load_config(root)
    store = SqliteStore(config.journal, readonly=True)
    try:
        found = list(store.records())
        key = next(r.body["log_key"] for r in reversed(found) if r.kind in ("gate.started", "lane.succeeded"))
        head = whole_log(store, [key])
        assert head is not None
        report = reperform(found, bundles_of(store))
        assert [str(one) for one in report.mismatches] == []
        return head.size
    finally:
        store.close()


def lost(tmp_path: Path, twin: StripeTwin) -> tuple[Made, Path, Path]:
    """A deployment with one payment in its backup and one after it. Answers it, the backup, and the kept head."""
    made = deploy(tmp_path / "old", twin)
    with countermark.open(made.root, agent=AGENT) as gate:
        run_ = gate.start_run()
        assert gate.act(TOOL, args(f"INV-{tmp_path.name}-1"), run=run_, call_id="one").status == "confirmed"
        make_backup(load_config(made.root), tmp_path / "backup", with_keys=True)
        assert gate.act(TOOL, args(f"INV-{tmp_path.name}-2"), run=run_, call_id="two").status == "confirmed"
    return made, tmp_path / "backup", load_config(made.root).high_water


def grant_anew(root: Path, made: Made) -> None:
    now = SystemClock().now_us()
    doc = mandate_document(
        "test", "treasurer", AGENT, not_before=now - US, not_after=now + 86_400 * US,
        limits=[{"currency": "eur", "amount": 2_500_000, "over_us": 0}],
    )  # fmt: skip
    with countermark.open(root, agent=AGENT) as gate:
        gate.call("mandate.grant", grant(doc, load_private(made.people["treasurer"])))


def test_a_payment_of_the_lost_time_is_not_made_again(tmp_path: Path, twin: StripeTwin) -> None:
    """The provider's list takes the business key of what the backup does not know; two people open the lane."""
    made, backup, head = lost(tmp_path, twin)
    kept = read_high_water(head)
    root = tmp_path / "new"
    found = restore(backup, root, head=head)
    assert kept is not None
    assert (found.lane, found.imported, found.unasked) == ("l1", 1, ())
    assert found.lost == kept.size - found.size > 0
    with countermark.open(root, agent=AGENT) as gate:
        with pytest.raises(countermark.CountermarkError, match="no mandate in force"):
            gate.start_run()
        assert gate.call("status", {})["kills"][0]["kind"] == "deployment"
    people = {person: str(path) for person, path in made.people.items()}
    first = ("lane", "accept", "--person", "treasurer", "--key", people["treasurer"], "--yes", "--json")
    assert document(run("-C", str(root), *first)) == {"lane": "l1", "open": False}
    assert document(run("-C", str(root), *first), 1)["error"]["code"] == "not_authorised"
    shown = ok(run("-C", str(root), "lane", "show"))
    assert "Accepted by: treasurer." in shown
    assert "A key removed since the backup signs again" in " ".join(shown.split())
    assert f"inv-{tmp_path.name}-2" in shown
    stopped = document(run("-C", str(root), "status", "--json"))["kills"][0]
    assert (stopped["kind"], stopped["reason"]) == ("deployment", "restored")
    assert "until two people accept" in ok(run("-C", str(root), "status"))
    told = [ok(run("-C", str(root), "explain", str(r.seq))) for r in records(root) if r.kind.startswith("lane.")]
    assert [text.split(" ")[0] for text in told] == ["Lane", "The", "treasurer"]
    kill = stopped["kill"]
    clear = ("kill", "clear", kill, "--person", "controller", "--key", people["controller"], "--reason", "x")
    assert "opened by two people" in run("-C", str(root), *clear).stderr
    second = ("lane", "accept", "--person", "controller", "--key", people["controller"], "--yes", "--json")
    assert document(run("-C", str(root), *second)) == {"lane": "l1", "open": True}
    grant_anew(root, made)
    with countermark.open(root, agent=AGENT) as gate:
        again = [gate.act(TOOL, args(f"INV-{tmp_path.name}-{n}"), call_id=f"again-{n}") for n in (1, 2, 3)]
        assert [(r.disposition, r.code) for r in again] == [
            ("deny", "duplicate_obligation"), ("deny", "duplicate_obligation"), ("allow", "ok"),
        ]  # fmt: skip
    assert whole(root) == len(records(root))
    paid = [m.metadata["invoice"] for m in twin.books().movements() if tmp_path.name in m.metadata.get("invoice", "")]
    assert sorted(paid) == [f"INV-{tmp_path.name}-{n}" for n in (1, 2, 3)]


def test_a_deployment_whose_gate_runs_is_not_succeeded(tmp_path: Path, twin: StripeTwin) -> None:
    """Its own head or keys are refused while its lane is held, also by a link; stopped, it is restored."""
    made, backup, head = lost(tmp_path, twin)
    link = tmp_path / "link"
    link.symlink_to(made.root / "keys")
    with countermark.open(made.root, agent=AGENT):
        for words in (("--head", str(head)), ("--keys", str(made.root / "keys")), ("--keys", str(link))):
            error = document(run("restore", str(backup), str(tmp_path / "new"), *words, "--json"), 1)["error"]
            assert error["code"] == "owner_lives"
            assert str(made.root.name) in error["message"]
    assert not (tmp_path / "new").exists()
    assert restore(backup, tmp_path / "new", head=head, keys=link).lane == "l1"


def test_nothing_is_decided_while_the_lane_is_closed(tmp_path: Path, twin: StripeTwin) -> None:
    """With a mandate granted anew and one acceptance, an action is still denied by the stop of the restore."""
    made, backup, _ = lost(tmp_path, twin)
    root = tmp_path / "new"
    assert restore(backup, root).lost is None
    grant_anew(root, made)
    with countermark.open(root, agent=AGENT) as gate:
        denied = gate.act(TOOL, args(f"INV-{tmp_path.name}-9"), call_id="nine")
        assert (denied.disposition, denied.code) == ("deny", "killed")
    assert whole(root) == len(records(root))


def accept_all(root: Path, made: Made) -> None:
    for person in ("treasurer", "controller"):
        words = ("lane", "accept", "--person", person, "--key", str(made.people[person]), "--yes", "--json")
        document(run("-C", str(root), *words))


def trusted(root: Path, out: Path, head: dict[str, Any] | None = None) -> None:
    """An auditor's trust file as ``status`` shows it, with one more head."""
    status = document(run("-C", str(root), "status", "--json"))
    doc = {
        "v": 1, "log": {"origin": status["log"], "keys": [status["log_key"]]}, "people": status["people"],
        "heads": [{**status["head"], "source": "the end"}, *([] if head is None else [head])],
    }  # fmt: skip
    out.write_text(json.dumps(doc))


def verdict(root: Path, trust: Path, exit_code: int) -> set[str]:
    """Codes that the independent verifier finds in a fresh pack of the deployment."""
    pack = trust.with_suffix(".zip")
    ok(run("-C", str(root), "export", str(pack), "--force"))
    found = document(run("verify", str(pack), "--trust", str(trust), "--json"), exit_code)
    return {finding["code"] for step in found["steps"] for finding in step["findings"]}


def test_a_pack_of_the_successor_is_verified_up_to_what_was_lost(tmp_path: Path, twin: StripeTwin) -> None:
    """Without a lost record the pack verifies; a declared gap leaves it incomplete, an undeclared one refutes it."""
    made, backup, head = lost(tmp_path, twin)
    kept = read_high_water(head)
    assert kept is not None
    found = open_backup(backup)
    for name, given, exit_code, codes in (
        ("exact", None, 2, {"V15.gap"}),
        ("declared", head, 2, {"V15.gap"}),
        ("undeclared", None, 1, {"V15.gap", "V07.undeclared"}),
    ):
        root = tmp_path / name
        restore(backup, root, head=given)
        accept_all(root, made)
        size, root_hash = (kept.size, kept.root) if name != "exact" else (found.size, found.root)
        extra = {
            "size": size, "root": base64.b64encode(bytes.fromhex(root_hash)).decode(), "source": "kept",
            "origin": "countermark/test/l0",
        }  # fmt: skip
        trusted(root, tmp_path / f"{name}.json", extra)
        assert verdict(root, tmp_path / f"{name}.json", exit_code) == codes, name


def test_a_restore_that_loses_nothing_verifies(tmp_path: Path, twin: StripeTwin) -> None:
    """When the kept head is the backup's own, no record is known to be lost and the successor's pack is verified."""
    made = deploy(tmp_path / "old", twin)
    with countermark.open(made.root, agent=AGENT) as gate:
        assert gate.act(TOOL, args(f"INV-{tmp_path.name}"), call_id="one").status == "confirmed"
    backup = make_backup(load_config(made.root), tmp_path / "backup")
    found = restore(tmp_path / "backup", tmp_path / "new", keys=made.root / "keys",
                    head=load_config(made.root).high_water)  # fmt: skip
    assert (found.lost, found.size) == (0, backup.size)
    accept_all(tmp_path / "new", made)
    trusted(tmp_path / "new", tmp_path / "trust.json")
    assert verdict(tmp_path / "new", tmp_path / "trust.json", 0) == set()
    second = make_backup(load_config(tmp_path / "new"), tmp_path / "backup2", with_keys=True)
    again = restore(tmp_path / "backup2", tmp_path / "third")
    assert (second.lane, again.lane) == ("l1", "l2")
    accept_all(tmp_path / "third", made)
    assert whole(tmp_path / "third") == len(records(tmp_path / "third"))
    trusted(tmp_path / "third", tmp_path / "trust3.json")
    assert verdict(tmp_path / "third", tmp_path / "trust3.json", 2) == {"V15.gap"}


def test_a_backup_under_load_is_whole(tmp_path: Path, twin: StripeTwin) -> None:
    """Backups made while eight threads pay hold a log whose every record is the one that its signed head covers."""
    made = deploy(tmp_path / "gate", twin, {"max = 20\n": "max = 100000\n", "max = 3000000\n": "max = 900000000\n"})
    config, stop = load_config(made.root), threading.Event()
    with countermark.open(made.root, agent=AGENT) as gate:
        run_ = gate.start_run()

        def pay(worker: int) -> None:
            for count in range(10_000):
                if stop.is_set():
                    return
                gate.act(
                    TOOL, args(f"INV-{tmp_path.name}-{worker}-{count}", 100), run=run_, call_id=f"{worker}-{count}"
                )

        threads = [threading.Thread(target=pay, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        try:
            made_ = [make_backup(config, tmp_path / f"backup-{n}") for n in range(5)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    sizes = [backup.size for backup in made_]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    final = {record.seq: record.raw for record in records(made.root)}
    for backup in made_:
        store = SqliteStore(backup.folder / "data" / "journal.db", readonly=True)
        try:
            checked = whole_log(store, [backup.log_key])
            assert checked is not None
            assert (checked.size, checked.root.hex()) == (backup.size, backup.root)
            assert all(final[seq] == raw for seq, raw in store.raw())
        finally:
            store.close()
        assert not (backup.folder / "keys").exists()
        modes = {path.stat().st_mode & 0o077 for path in [backup.folder, *backup.folder.rglob("*")]}
        assert modes == {0}


def test_a_backup_replaces_nothing_and_a_damaged_one_restores_nothing(tmp_path: Path, twin: StripeTwin) -> None:
    """A taken name, a place inside the deployment, a changed byte, no keys, another log: refused, without a trace."""
    made = deploy(tmp_path / "gate", twin)
    config = load_config(made.root)
    make_backup(config, tmp_path / "one")
    for target in (tmp_path / "one", made.root / "inside", tmp_path / "unmounted" / "disk" / "two"):
        with pytest.raises(ConfigError):
            make_backup(config, target)
    assert not (tmp_path / "unmounted").exists()  # a backup on the wrong disk is none
    with pytest.raises(ConfigError) as missing:
        restore(tmp_path / "one", tmp_path / "new", offline=True)
    assert missing.value.code == "missing_key"
    other = deploy(tmp_path / "other", twin)
    with pytest.raises(StoreError) as foreign:
        restore(tmp_path / "one", tmp_path / "new", keys=config.keys, head=load_config(other.root).high_water)
    assert foreign.value.code == "bad_backup"
    with pytest.raises(ConfigError):
        restore(tmp_path / "one", made.root, keys=config.keys)
    journal = tmp_path / "one" / "data" / "journal.db"
    raw = bytearray(journal.read_bytes())
    raw[-1] ^= 1
    journal.write_bytes(raw)
    with pytest.raises(StoreError) as damaged:
        restore(tmp_path / "one", tmp_path / "new", keys=config.keys)
    assert damaged.value.code == "bad_backup"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate", "one", "other"]


def test_a_backup_that_breaks_off_leaves_nothing(
    tmp_path: Path, twin: StripeTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that ends in the middle has no name and no manifest; `doctor` still says that there is no backup."""
    made = deploy(tmp_path / "gate", twin)
    config = load_config(made.root)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StoreError):
        make_backup(config, tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["gate"]
    assert not (config.journal.parent / "backup.json").exists()


def test_the_open_intent_of_a_lost_success_never_frees_the_key(tmp_path: Path, twin: StripeTwin) -> None:
    """An obligation that was open in the backup and was paid under another key afterwards stays taken when it fails."""
    made = deploy(tmp_path / "gate", twin)
    config = load_config(made.root)
    invoice = f"INV-{tmp_path.name}"
    with countermark.open(made.root, agent=AGENT, connectors={"stripe": Silent()}) as gate:
        assert gate.act(TOOL, args(invoice), call_id="lost").status == "unknown"
        make_backup(config, tmp_path / "backup", with_keys=True)
    client = stripe.StripeClient(twin.key, base_addresses={"api": twin.url}, max_network_retries=0)
    params: Any = {"amount": 48_000, "currency": "eur", "destination": ACME, "metadata": {"invoice": invoice}}
    client.v1.transfers.create(params)
    root = tmp_path / "new"
    assert restore(tmp_path / "backup", root).imported >= 1
    accept_all(root, made)
    grant_anew(root, made)
    clock = FakeClock(SystemClock().now_us() + 3_600 * US)
    with countermark.open(root, agent=AGENT, clock=clock, connectors={"stripe": Silent("not_found")}) as gate:
        clock.advance(3_600)
        gate.call("recover", {})
        assert gate.call("status", {})["open"] == []
        for kill in gate.call("status", {})["kills"]:
            doc = {"deployment": "test", "kill": kill["kill"], "person": "treasurer", "reason": "the clock is a test's"}
            gate.call("kill.clear", clear(doc, load_private(made.people["treasurer"])))
        denied = gate.act(TOOL, args(invoice), call_id="again")
        assert (denied.disposition, denied.code) == ("deny", "duplicate_obligation")
    assert [r.body["outcome"] for r in records(root) if r.kind == "action.settled"] == ["unknown", "failed"]
    assert whole(root) == len(records(root))


class Silent(NoopConnector):
    """A provider that answers nothing to a request, and to a question what it is told to."""

    name = "stripe"

    def __init__(self, says: str = "timeout") -> None:
        super().__init__(drafts()["stripe"])
        self._says = says

    def execute(self, tool: ToolSpec, request: Request) -> Outcome:
        return Outcome("unknown", "timeout")

    def lookup(self, tool: ToolSpec, request: Request, key: str, since_us: int) -> Outcome:
        return Outcome("failed" if self._says == "not_found" else "unknown", self._says)
