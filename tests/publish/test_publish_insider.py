"""The demo's insider, who has the database and the log's key, meets a witness of another OS user."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from publish_support import MemoryLog
from served import WAIT_S, stop
from two_users import as_user, environment, python_for, unused_uids

from countermark.log import Cosignature, parse_cosigner, parse_entry_bundle
from countermark.policy import Bundle
from countermark.publish import WitnessClient
from countermark.wiring.demo_insider import rewrite

PACK = Path(__file__).parent.parent / "vectors" / "files" / "honest.zip"
INSIDER = Path(__file__).with_name("insider_program.py")


@pytest.fixture
def base() -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("needs root: two OS users")
    folder = Path(tempfile.mkdtemp(prefix="countermark-witness-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def a_days_log() -> tuple[MemoryLog, MemoryLog]:
    """A deployment's records, and the same with the amount of one payment changed and everything after it made anew."""
    with zipfile.ZipFile(PACK) as pack:
        names = pack.namelist()
        raws = [
            raw
            for name in sorted(names) if name.startswith("log/tile/entries/")
            for raw in parse_entry_bundle(pack.read(name))
        ]  # fmt: skip
        origin = pack.read("log/checkpoint").split(b"\n")[0].decode()
        policy = pack.read(next(name for name in names if name.startswith("policy/")))
    seq, amount = next(
        (seq, doc["body"]["terms"]["amount"])
        for seq, doc in enumerate(map(json.loads, raws))
        if doc["kind"] == "action.decided" and doc["body"]["disposition"] == "allow" and "amount" in doc["body"]["args"]
    )
    honest, forged = MemoryLog(0, origin=origin), MemoryLog(0, origin=origin)
    honest.raws = raws
    bundle = Bundle.from_document(json.loads(policy))
    forged.raws = rewrite(raws, seq, amount - 1, bundle, origin.split("/")[1])
    return honest, forged


@pytest.mark.slow
def test_the_insider_is_caught_by_a_witness_of_another_user(base: Path) -> None:
    """Rewritten and grown, rewritten, cut: 422, 422, 409, all kept where neither the insider nor the gate can reach.

    The insider's user opens none of the witness's files and cannot stop it; the honest log is still cosigned.
    """
    honest, forged = a_days_log()
    half, whole = len(honest.raws) // 2, len(honest.raws)
    uid, insider_uid = unused_uids()
    python, path = python_for(uid, base / "copies")
    home = base / "witness"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    folder = home / "w"

    def run(*words: str) -> str:
        done = subprocess.run([python, "-m", "countermark.cli", "witness", *words], capture_output=True, text=True,
                              timeout=120, cwd="/", env=environment(path), check=False, **as_user(uid))  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    key = parse_cosigner(run("init", str(folder), "--name", "regulator.example").strip())
    run("add", str(folder), honest.signer.vkey)
    child = subprocess.Popen(
        [python, "-m", "countermark.cli", "witness", "serve", str(folder), "--port", "0", "--json"],
        stdout=subprocess.PIPE, text=True, cwd="/", env=environment(path), **as_user(uid),
    )  # fmt: skip
    try:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        client = WitnessClient("regulator", key, url)
        assert isinstance(client.add(honest.submission(0, half)), Cosignature)
        shown = [forged.submission(half), forged.submission(half, half), honest.submission(5, 5)]
        given = {
            "url": url, "pid": child.pid, "folder": str(folder), "requests": [one.render().decode() for one in shown],
            "files": [str(one) for one in sorted(folder.rglob("*")) if one.is_file()],
        }  # fmt: skip
        assert len(given["files"]) >= 4
        done = subprocess.run(["/usr/bin/python3", "-c", INSIDER.read_text()], input=json.dumps(given), text=True,
                              capture_output=True, timeout=WAIT_S, env={}, cwd="/", check=False,
                              **as_user(insider_uid))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"uid": insider_uid, "said": [422, 422, 409], "reached": []}
        assert child.poll() is None
        assert isinstance(client.add(honest.submission(half, whole)), Cosignature)
        client.close()
    finally:
        assert stop(child) == 0
    (log,) = json.loads(run("show", str(folder), "--json"))["logs"]
    assert (log["size"], log["root"]) == (whole, base64.b64encode(honest.head().root).decode())
    assert [Path(one).name.partition("-")[0] for one in log["refused"]] == ["smaller", "split", "unproven"]
