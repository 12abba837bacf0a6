"""A second gate: on the same directory, on a copy of it, or on an older one."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from siege import AGENT, TOOL, Siege, args_for, judge_books, make, paid_at, twin_for, unsound

import countermark
from countermark.audit import export_pack
from countermark.authority import load_private, public_of
from countermark.journal import SqliteStore
from countermark.log import LogSigner
from countermark.model.errors import CountermarkError
from countermark.wiring import load_config
from countermark.wiring.init import Made
from countermark_verify import load_trust, verify


def served_again(root: Path) -> dict[str, Any]:
    """What a second `countermark serve` on a directory says before it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "countermark.cli", "-C", str(root), "serve", "--port", "0", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def head_of(root: Path) -> dict[str, Any]:
    """The newest head of a log, as an auditor keeps it."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        found = store.head()
    finally:
        store.close()
    assert found is not None
    lines = found[1].split(b"\n")
    return {"size": int(lines[1]), "root": lines[2].decode(), "source": "kept"}


def verdict(root: Path, made: Made, folder: Path, *heads: dict[str, Any]) -> str:
    """What the independent verifier says of a directory's pack, for an auditor who kept these heads."""
    config = load_config(root)
    signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
    store = SqliteStore(config.journal, readonly=True)
    try:
        export_pack(folder / "pack.zip", store, signer, deployment=config.deployment)
    finally:
        store.close()
    people = {name: [str(public_of(load_private(path)))] for name, path in made.people.items()}
    trust = {"v": 1, "log": {"origin": config.origin, "keys": [signer.vkey]}, "people": people, "heads": list(heads)}
    (folder / "trust.json").write_text(json.dumps(trust))
    return str(verify(folder / "pack.zip", load_trust(folder / "trust.json")).verdict)


def test_a_second_server_on_the_directory(siege: Siege, tmp_path: Path) -> None:
    """Prevented: a second server on a directory that is served, by its own path or through a link to it."""
    assert served_again(siege.root)["error"]["code"] == "owner_lives"
    link = tmp_path / "link"
    link.symlink_to(siege.root)
    assert served_again(link)["error"]["code"] == "owner_lives"
    assert siege.act(args_for("COPY-1")).json["status"] == "confirmed"


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_second_gate_after_the_lock_was_taken_away(tmp_path: Path, how: str) -> None:
    """Prevented: the file of the lane's lock removed under a living gate, so that a second one opens the same journal:
    limits and obligations hold, and whichever of the two is behind reads the journal again.
    """
    with twin_for(tmp_path / "twin") as twin:
        made = make(tmp_path / "d", twin)
        with countermark.open(made.root, agent=AGENT) as first:
            run = first.start_run()
            assert first.act(TOOL, args_for("LOCK-0"), run=run, call_id="a-0").status == "confirmed"
            lock = made.root / "lane.lock"
            lock.unlink() if how == "removed" else lock.rename(tmp_path / "lock")
            with countermark.open(made.root, agent=AGENT) as second:
                assert (first.owner, second.owner) == (True, True)
                for number in range(6):
                    for name, handle in (("a", first), ("b", second)):
                        for _ in range(3):  # a halted lane says so, and is asked again
                            try:
                                handle.act(TOOL, args_for(f"LOCK-{number}"), run=run, call_id=f"{name}-{number}")
                                break
                            except CountermarkError:
                                continue
        assert [len(paid_at(twin, f"LOCK-{number}")) for number in range(6)] == [1] * 6
        assert judge_books(made.root, twin) == []
        assert unsound(made.root) == []


def test_a_second_gate_on_a_copy(tmp_path: Path) -> None:
    """Detected: a whole copy of the directory, keys and credential, served beside it: both pay, each within its own
    limits. Their logs part, and whoever keeps a head of the one finds the other's pack refuted.
    """
    with twin_for(tmp_path / "twin") as twin:
        made = make(tmp_path / "d", twin)
        copy = Path(shutil.copytree(made.root, tmp_path / "copy"))
        for number, root in enumerate((made.root, copy)):
            with countermark.open(root, agent=AGENT) as handle:
                assert handle.act(TOOL, args_for("COPY-2"), call_id=f"c-{number}").status == "confirmed"
        assert len(paid_at(twin, "COPY-2")) == 2
    first, second = head_of(made.root), head_of(copy)
    assert first["size"] == second["size"]
    assert first["root"] != second["root"]
    assert verdict(made.root, made, tmp_path, first) == "verified"
    assert verdict(copy, made, tmp_path, first) == "refuted"
    assert verdict(made.root, made, tmp_path, first, second) == "refuted"
    assert len(base64.b64decode(first["root"])) == 32
