"""A third party's witness and log tools beside ours, both ways: `aics-witness` and `aics-tlog`, in their own Python."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from publish_support import ORIGIN, MemoryLog
from served import WAIT_S, serving

from countermark.log import consistency_proof, cosigned_by, leaf_hash, parse_cosigner, parse_policy
from countermark.model.clock import US, SystemClock
from countermark.publish import (
    Witness,
    WitnessClient,
    WitnessError,
    Witnesses,
    WitnessRule,
    make_witness,
    publish_static,
)

pytestmark = pytest.mark.slow

PACKAGES = ("aics-witness==0.1.0", "aics-tlog==0.2.1", "cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12")
NEWER = (3, 12)

FEED = """
import json, sys
from aics_witness.feeder import FeederError, WitnessClient, merge_cosignatures
given = json.load(sys.stdin)
client = WitnessClient(given["url"], given["vkey"], state_path=given["state"])
said = []
for ask in given["asks"]:
    proofs = {sizes: [bytes.fromhex(h) for h in proof] for sizes, proof in ask["proofs"].items()}
    try:
        line = client.submit(ask["note"], lambda old, new: proofs[f"{old} {new}"])
        said.append(merge_cosignatures(ask["note"], line).decode())
    except FeederError as error:
        said.append([type(error).__name__, getattr(error, "status", 0)])
print(json.dumps(said))
"""


def newer_python() -> str:
    """A Python that those packages run on, wherever this machine has one."""
    found = [os.environ.get("COUNTERMARK_PYTHON_312"), *(shutil.which(f"python3.{minor}") for minor in (12, 13, 14))]
    with contextlib.suppress(OSError):
        done = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
        found += map(str, sorted(Path(done.stdout.strip() or "/nonexistent").glob("versions/3.1[2-9].*/bin/python")))
    for python in filter(None, found):
        with contextlib.suppress(OSError):
            asked = [python, "-c", "import sys; print(*sys.version_info[:2])"]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=WAIT_S, check=False)
            if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= NEWER:
                return python
    pytest.skip("needs Python 3.12 or newer beside the one under test, which Debian 12 does not have")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their programs."""
    folder = tmp_path_factory.mktemp("strangers") / "venv"
    for words in (["venv", "--python", newer_python(), str(folder)],
                  ["pip", "install", "--python", str(folder / "bin" / "python"), *PACKAGES]):  # fmt: skip
        done = subprocess.run(["uv", *words], capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "bin"


@contextlib.contextmanager
def their_witness(theirs: Path, folder: Path, log: MemoryLog) -> Iterator[tuple[str, str]]:
    """Their witness, serving our log: its verifier key and URL."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(*words: str) -> str:
        done = subprocess.run([theirs / "aics-witness", *words], cwd=folder, capture_output=True, text=True,
                              timeout=WAIT_S, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("init", "--name", "stranger.example/w1")
    found = re.search(r"stranger\.example/w1\+[0-9a-f]{8}\+\S+", said)
    assert found is not None, said
    run("add-log", "--origin", ORIGIN, "--vkey", log.signer.vkey)
    child = subprocess.Popen([theirs / "aics-witness", "serve", "--listen", f"127.0.0.1:{port}"], cwd=folder,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if "listening" in line.lower() or str(port) in line:
                break
        yield found[0], f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.communicate(timeout=WAIT_S)


def test_our_client_and_a_strangers_witness(theirs: Path, tmp_path: Path) -> None:
    """It cosigns a growing log, and our client takes that; a rewrite, a cut log and a split view get our codes."""
    log = MemoryLog(1_000)
    with their_witness(theirs, tmp_path / "w", log) as (vkey, url):
        rule = WitnessRule(parse_policy(f"witness stranger {vkey} {url}\nquorum stranger\n"), 60 * US)
        for size in (1_000, 1_777, 1_777):
            log.grow(size - len(log.raws))
            to = Witnesses(lambda: rule, "acme", log.view, SystemClock())  # a new one: asks for the size each time
            to.check()
            found = to.publish(log.head())
            to.close()
            assert found is not None
            assert set(cosigned_by(rule.policy, str(found[1]["note"]).encode())) == {"stranger"}
        for there, code in (
            (MemoryLog(2_000, changed=5), "witness_other_log"), (MemoryLog(1_777, changed=5), "witness_other_log"),
            (MemoryLog(1_500), "behind_witness"),
        ):  # fmt: skip
            insider = Witnesses(lambda: rule, "acme", there.view, SystemClock())
            with pytest.raises(WitnessError) as refused:
                insider.check()
            insider.close()
            assert refused.value.code == code


def test_a_strangers_client_and_our_witness(theirs: Path, tmp_path: Path) -> None:
    """Their client submits, recovers from a size it did not know, takes our cosignature; attacks are refused as theirs.

    Their verifier then accepts the cosigned head, and the static files under it.
    """
    log, forged = MemoryLog(1_777), MemoryLog(2_000, changed=5)
    vkey = make_witness(tmp_path / "w", "bank.example/w1")
    Witness(tmp_path / "w", SystemClock()).add_log(log.signer.vkey)

    def ask(one: MemoryLog, old: int, size: int) -> dict[str, object]:
        proof = consistency_proof([leaf_hash(raw) for raw in one.raws], old, size)
        return {"note": one.head(size).note.decode(), "proofs": {f"{old} {size}": [h.hex() for h in proof]}}

    with serving(tmp_path / "w") as url:
        key = parse_cosigner(vkey)
        client = WitnessClient("w", key, url)
        client.add(log.submission(0, 1_000))  # so that theirs begins with a conflict
        client.close()
        asks = [ask(log, 1_000, 1_777), ask(log, 1_777, 1_777), ask(forged, 1_777, 2_000), ask(forged, 1_777, 1_777),
                ask(log, 1_500, 1_500)]  # fmt: skip
        given = {"url": url, "vkey": vkey, "state": str(tmp_path / "state.json"), "asks": asks}
        done = subprocess.run([theirs / "python", "-c", FEED], input=json.dumps(given), capture_output=True, text=True,
                              timeout=WAIT_S, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, again, *refused = json.loads(done.stdout)
    assert refused == [["WitnessRejected", 422], ["WitnessRejected", 422], ["WitnessAhead", 0]]
    kept = Witness(tmp_path / "w", SystemClock()).kept(ORIGIN)
    assert [path.name.partition("-")[0] for path in kept] == ["smaller", "split", "unproven"]
    assert first.startswith(log.head().note.decode())
    assert again.startswith(log.head().note.decode())
    publish_static(tmp_path / "static", log.store(), first.encode(), (log.signer.vkey,))
    (tmp_path / "log.vkey").write_text(log.signer.vkey + "\n")
    for more in (["--note", str(tmp_path / "static" / "checkpoint")], ["--tiles", str(tmp_path / "static")]):
        words = [theirs / "aics-tlog", "verify-checkpoint", "--vkey-file", str(tmp_path / "log.vkey"),
                 "--origin", ORIGIN, "--witness-key", vkey, "--quorum", "1", *more]  # fmt: skip
        checked = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
