"""@sigstore/verify and securesystemslib judge a pack's manifest with the log's key, and openssl its time stamps."""

from __future__ import annotations

import base64
import copy
import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from publish.authority import REPLY
from publish.evidence import Evidence, make
from strangers.tools import HERE, NPM, ask, go_judge, node, openssl, venv

from countermark.log import open_checkpoint, parse_vkey
from countermark.publish.stamps import note_text
from countermark_verify import parse_trust, verify

pytestmark = pytest.mark.slow


def manifest(evidence: Evidence) -> Any:
    with zipfile.ZipFile(evidence.pack) as file:
        return json.loads(file.read("manifest.sigstore.json"))


def changed(bundle: Any) -> list[Any]:
    """The bundle with another payload, signature, payload type and key name."""
    found = []
    for _ in range(4):
        found.append(copy.deepcopy(bundle))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"withheld":', b'"withheld" :')
    found[0]["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature = bytearray(base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"]))
    signature[0] ^= 1
    found[1]["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    found[2]["dsseEnvelope"]["payloadType"] = "application/json"
    found[3]["verificationMaterial"]["publicKey"]["hint"] = "countermark/other/l0"
    found[3]["dsseEnvelope"]["signatures"][0]["keyid"] = "countermark/other/l0"
    return found


def test_sigstore_verify_accepts_the_manifest_under_the_managed_key(evidence: Evidence) -> None:
    """The bundle is one of Sigstore's, version 0.3; nothing of it can be changed under the key."""
    key = parse_vkey(evidence.signer.vkey)
    spki = Ed25519PublicKey.from_public_bytes(key.public)
    pem = spki.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    bundles = [manifest(evidence), *changed(manifest(evidence))]
    cases = [{"bundle": bundle, "hint": key.name, "pem": pem} for bundle in bundles]
    good, *bad = ask([node(), str(HERE / "judge_bundle.mjs"), str(NPM)], cases)
    assert good == ""
    assert all(bad), bad


def test_securesystemslib_accepts_the_envelope(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> None:
    """DSSE as the in-toto world reads it, by the library of TUF and in-toto."""
    python = venv(tmp_path_factory, "securesystemslib==1.6.0", 10)
    key = parse_vkey(evidence.signer.vkey)
    bundles = [manifest(evidence), *changed(manifest(evidence))]
    cases = [{"envelope": one["dsseEnvelope"], "keyid": key.name, "public": key.public.hex()} for one in bundles]
    good, *bad = ask([str(python), str(HERE / "judge_dsse.py")], cases)
    assert good == ""
    assert all(bad), bad


def _openssl_verifies(folder: Path, text: bytes, token: bytes, pem: bytes) -> bool:
    for name, data in (("text", text), ("token", token), ("root.pem", pem)):
        (folder / name).write_bytes(data)
    command = [openssl(), "ts", "-verify", "-data", "text", "-in", "token", "-token_in", "-CAfile", "root.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=30).returncode == 0


def head_text(evidence: Evidence, record: Any) -> bytes:
    """The note's text of the head that a stamp's record names, as `docs/spec/record.md` says it is made."""
    root = base64.b64encode(bytes.fromhex(record.body["root"])).decode()
    return f"{evidence.signer.name}\n{record.body['size']}\n{root}\n".encode()


def test_openssl_verifies_the_stamps_of_a_deployment(evidence: Evidence, tmp_path: Path) -> None:
    """The token of a `head.stamped` over the text that the specification names; another text is refused."""
    (record, *_) = evidence.stamped()
    token, pem = base64.b64decode(record.body["token"]), (evidence.root / "tsa.pem").read_bytes()
    text = head_text(evidence, record)
    assert _openssl_verifies(tmp_path, text, token, pem)
    assert not _openssl_verifies(tmp_path, text.replace(b"acme", b"acne"), token, pem)


def test_an_authority_made_of_openssl_stamps_a_deployment(tmp_path: Path) -> None:
    """The offline authority of docs/time.md: its tokens pass the gate and the verifier, and openssl agrees."""
    page = (HERE.parents[1] / "docs" / "time.md").read_text("utf-8")
    section = [line.strip() for line in page[page.index("    # tsa.cnf\n") :].splitlines() if line.startswith("    ")]
    commands = [line for line in section if line.startswith(("openssl req", "openssl x509"))]
    settings = section[: section.index(commands[0])]
    (tmp_path / "tsa.cnf").write_text("\n".join(settings) + "\n", "utf-8")
    (tmp_path / "serial").write_text("01\n", "ascii")
    for command in commands:
        words = [openssl(), *shlex.split(command)[1:]]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=30)

    def answer(raw: bytes) -> tuple[int, str, bytes]:
        (tmp_path / "request.tsq").write_bytes(raw)
        reply = "ts -reply -config tsa.cnf -section here -queryfile request.tsq -out answer.tsr"
        subprocess.run([openssl(), *reply.split()], cwd=tmp_path, check=True, capture_output=True, timeout=30)
        return 200, REPLY, (tmp_path / "answer.tsr").read_bytes()

    pem = (tmp_path / "root.pem").read_bytes()
    made = make(tmp_path, answer, pem, payments=1)
    stamps = [{"certificate": pem.decode(), "operator": "tsa.example"}]
    report = verify(made.pack, parse_trust(json.dumps({**made.trust, "stamps": stamps}).encode()))
    assert (report.verdict, report.codes()) == ("verified", [])
    (record, *_) = made.stamped()
    folder = tmp_path / "check"
    folder.mkdir()
    assert _openssl_verifies(folder, head_text(made, record), base64.b64decode(record.body["token"]), pem)


def test_the_texts_that_are_stamped_are_those_of_the_heads(evidence: Evidence) -> None:
    """What the gate asked about is the text of a signed note, which `openssl` saw again above."""
    with zipfile.ZipFile(evidence.pack) as file:
        note = file.read("log/checkpoint")
    head = open_checkpoint(note, [evidence.signer.vkey])
    assert note_text(note) == head.render()


def test_what_the_auditors_page_hands_over_is_accepted(
    evidence: Evidence, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`hand_over.py` of docs/auditing.md makes of a pack what each judge accepts."""
    folder, key = tmp_path_factory.mktemp("handed"), evidence.signer.vkey
    judges = {
        "bundle": [node(), str(HERE / "judge_bundle.mjs"), str(NPM)],
        "envelope": [str(venv(tmp_path_factory, "securesystemslib==1.6.0", 10)), str(HERE / "judge_dsse.py")],
        "tree": [str(go_judge(tmp_path_factory))],
    }
    for what, judge in judges.items():
        (verdict,) = ask(judge, _handed(evidence.pack, key, what))
        assert not verdict, verdict
    (place, *_) = _handed(evidence.pack, key, "stamps", folder)
    text, token = ((folder / f"{name}-{place}").read_bytes() for name in ("text", "token"))
    assert _openssl_verifies(folder, text, token, (evidence.root / "tsa.pem").read_bytes())
    (changed,) = _handed(evidence.pack, key, "tree")
    changed["Leaves"]["0"] = base64.b64encode(b"another record").decode()
    assert ask(judges["tree"], [changed]) != [[]]


def _handed(pack: Path, key: str, *words: str | Path) -> Any:
    command = [sys.executable, HERE / "hand_over.py", pack, key, *words]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
