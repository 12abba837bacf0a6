"""A deployment whose heads a witness sees that runs as a process of its own; then its journal is rolled back."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig import Provider, bodies, edited, hold, make, pay, transfers
from support import records

from countermark.audit import export_pack
from countermark.authority import load_private, public_of
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.clock import SystemClock
from countermark.model.errors import CountermarkError
from countermark.publish import Witness, make_witness
from countermark_verify import parse_trust, verify

pytestmark = pytest.mark.slow
WAIT_S = 60


@contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    child = subprocess.Popen(
        [sys.executable, "-m", "countermark.cli", "witness", "serve", str(folder), "--port", str(port), "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline(), "the witness did not start"
    try:
        yield
    finally:
        child.terminate()
        child.wait(WAIT_S)
        child.stdout.close()


def test_a_witness_sees_before_money_moves_and_a_journal_behind_it_does_not_open(tmp_path: Path) -> None:
    """Paid after the witness saw it; the pack at its head is verified by the auditor's witness key alone; a journal
    that was put back with its high-water file refuses to run.
    """
    provider, root = Provider(), tmp_path / "d"
    key = make_witness(tmp_path / "w", "bank.example/w")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    policy = f"witness bank/one {key} http://127.0.0.1:{port}\nquorum bank/one\n"
    tools = transfers(witness="before")
    limits = edited()["limits.toml"] + '\n[witness]\nstale_after = "60s"\n'
    made = make(root, provider, tools=tools, edit={"limits.toml": limits, "policies/witnesses.policy": policy})
    Witness(tmp_path / "w", SystemClock()).add_log(made.log_key)
    shutil.copytree(root, tmp_path / "earlier", ignore=shutil.ignore_patterns("gate.sock"))
    with served(tmp_path / "w", port):
        with hold(root, provider) as handle:
            for number in range(10, 110):  # a machine that is busy lets the witness answer late: until then, no
                if (paid := pay(handle, number)).status == "confirmed":
                    break
                threading.Event().wait(0.1)
            assert paid.status == "confirmed", paid
        seen = [body["size"] for body in bodies(root, "head.witnessed")]
        intent = next(record.seq for record in records(root) if record.kind == "action.decided")
        assert max(seen) > intent
        _verified(root, tmp_path / "pack.zip", key, seen[-1])
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "earlier", root)
        with pytest.raises(CountermarkError) as refused:
            hold(root, provider)
        assert refused.value.code == "behind_witness"
    handle = hold(root, provider)  # nobody can be asked: it opens, and no money moves
    try:
        stale = pay(handle, 2)
    finally:
        handle.close()
    assert (stale.status, stale.code) == ("denied", "witness_stale")
    assert len(provider.sent) == 1


def _verified(root: Path, pack: Path, key: str, size: int) -> None:
    """The pack at the newest witnessed head, with nothing retained but the witness's key and the people's."""
    signer = LogSigner("countermark/test/l0", load_private(root / "keys" / "log.pem"))
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        told = export_pack(pack, store, signer, deployment="test")
    finally:
        store.close()
    assert (told.size, told.witnessed) == (size, True)
    assert told.later > 0
    people = {path.stem: str(public_of(load_private(path))) for path in (root / "people").glob("*.pem")}
    trust = {
        "v": 1, "log": {"origin": "countermark/test/l0", "keys": [signer.vkey]}, "people": people,
        "witnesses": {"quorum": 1, "keys": [{"key": key, "operator": "bank"}]},
    }  # fmt: skip
    report = verify(pack, parse_trust(json.dumps(trust).encode()))
    lacking = [finding for step in report.steps for finding in step.findings if finding.code != "V11.open"]
    assert lacking == []
    assert report.axes["integrity"]["level"] == "witnessed"
