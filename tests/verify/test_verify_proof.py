"""One record and its tlog-proof: what the verifier accepts, and every way in which it must not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random

import pytest
from cli.cli_support import ok, run
from publish.authority import honest
from publish.evidence import Evidence, make
from vectors.stamps import Authority

from countermark.audit import prove
from countermark.journal import SqliteStore
from countermark.log import inclusion_proof, leaf_hash, root_of, tlog_proof
from countermark.model.clock import SystemClock
from countermark.model.errors import ArgumentError
from countermark_verify import Report, as_text, parse_trust, verify_proof
from countermark_verify.cli import main
from countermark_verify.proof import read_proof, root_from

TSA = Authority("tsa.example")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    answer = honest(TSA, SystemClock().now_us)
    return make(tmp_path_factory.mktemp("proof"), answer, TSA.pem.encode(), stamped=False)


def shown(evidence: Evidence, ref: str = "3") -> tuple[bytes, bytes]:
    store = SqliteStore(evidence.root / "data" / "journal.db", readonly=True)
    try:
        found = prove(store, ref)
    finally:
        store.close()
    return found.proof, found.record


def judged(evidence: Evidence, proof: bytes, record: bytes, **more: object) -> Report:
    return verify_proof(proof, record, parse_trust(json.dumps({**evidence.trust, **more}).encode()))


def test_every_record_of_a_deployment_can_be_shown(evidence: Evidence) -> None:
    """With the head that the auditor retained each record's proof is verified, and the report names its place."""
    for record in evidence.records:
        report = judged(evidence, *shown(evidence, f"#{record.seq}"))
        assert (report.verdict, report.codes()) == ("verified", [])
        assert report.pack["seq"] == record.seq
        assert f"#{record.seq} in" in as_text(report)
    assert report.axes["integrity"]["level"] == "retained"


def test_an_action_is_shown_by_its_decision(evidence: Evidence) -> None:
    """The ID that a receipt has leads to the record that decided."""
    decided = next(record for record in evidence.records if record.kind == "action.decided")
    assert shown(evidence, decided.body["id"])[1] == decided.raw
    with pytest.raises(ArgumentError):
        shown(evidence, "99999")


def test_a_head_that_the_auditor_did_not_retain_leaves_it_open(evidence: Evidence) -> None:
    """The deployment's own signature excludes no second history; another root at this size is a rewrite."""
    proof, record = shown(evidence)
    assert judged(evidence, proof, record, heads=[]).codes() == ["V07.no_trust"]
    (head,) = evidence.trust["heads"]
    other = {**head, "root": base64.b64encode(bytes(32)).decode()}
    assert judged(evidence, proof, record, heads=[other]).codes() == ["V07.rewritten"]
    assert verify_proof(proof, record).verdict == "incomplete"


def test_another_record_index_or_path_is_refuted(evidence: Evidence) -> None:
    """What is shown must be exactly what stands at that place."""
    proof, record = shown(evidence)
    (_, other) = shown(evidence, "4")
    assert judged(evidence, proof, other).codes() == ["V04.record", "V05.root"]
    assert judged(evidence, proof.replace(b"index 3", b"index 2"), record).codes() == ["V04.record", "V05.root"]
    assert judged(evidence, proof.replace(b"index 3", b"index 9999"), record).codes() == ["V04.record", "V05.root"]
    lines = proof.split(b"\n")
    assert "V05.root" in judged(evidence, b"\n".join([*lines[:2], *lines[3:]]), record).codes()
    assert "V05.root" in judged(evidence, b"\n".join([*lines[:3], *lines[2:]]), record).codes()
    assert "V04.record" in judged(evidence, proof, record[:-1]).codes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"tlog-proof@v1", b"tlog-proof@v2"), (b"index 3", b"index 03"), (b"index 3", b"index -3"),
        (b"index 3\n", b""), (b"=\n", b"\n"), (b"\n\n", b"\n"), (b"\n", b"\r\n"), (b"index 3", b"extra ?\nindex 3"),
        (b"index 3\n", b"index 3\n" + b"A" * 43 + b"=\n" + (b"A" * 43 + b"=\n") * 64),
    ],
)  # fmt: skip
def test_a_proof_in_another_form_is_unreadable(evidence: Evidence, old: bytes, new: bytes) -> None:
    """One value, one encoding; what is not in it is not read."""
    proof, record = shown(evidence)
    report = judged(evidence, proof.replace(old, new, 1), record)
    assert (report.verdict, report.exit, report.codes()) == ("unreadable", 3, ["V01.proof"])


def test_extra_data_is_read_and_not_used(evidence: Evidence) -> None:
    """C2SP: opaque, and authenticated by nobody."""
    proof, record = shown(evidence)
    assert judged(evidence, proof.replace(b"index 3", b"extra aGVsbG8=\nindex 3"), record).verdict == "verified"


def test_no_bent_proof_is_accepted(evidence: Evidence) -> None:
    """Whatever byte is changed, of the proof up to its signatures or of the record, it is not verified."""
    rng = Random(8)
    proof, record = shown(evidence)
    for _ in range(400):
        bent, which = [bytearray(proof), bytearray(record)], rng.randrange(2)
        bent[which][rng.randrange(len(bent[which]))] ^= 1 << rng.randrange(8)
        assert judged(evidence, bytes(bent[0]), bytes(bent[1])).verdict != "verified"


def test_paths_of_all_places_in_small_trees_lead_to_the_root() -> None:
    """The verifier's own walk agrees with the log's proofs, and with no other length or place."""
    leaves = [leaf_hash(bytes((n,))) for n in range(33)]
    for size in range(1, 34):
        root = root_of(leaves[:size])
        for index in range(size):
            path = tuple(inclusion_proof(leaves, index, size))
            assert root_from(leaves[index], index, size, path) == root
            assert root_from(leaves[index], index, size, (*path, bytes(32))) is None
            assert root_from(leaves[index], index, size, path[:-1]) != root or not path
            assert root_from(leaves[index], size, size, path) is None


def test_the_text_is_read_back() -> None:
    """The log's writer and the verifier's reader agree."""
    note = b"countermark/acme/l0\n1\n" + b"A" * 43 + b"=\n\n" + "— countermark/acme/l0 AAAAAAA=\n".encode()
    found = read_proof(tlog_proof(7, [bytes(32)], note))
    assert (found.index, found.path, found.head.size) == (7, (bytes(32),), 1)


def test_command_line_writes_and_checks(evidence: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`log proof` writes two files, and no others over them; both verifiers' command lines take them."""
    proof, record, trust = tmp_path / "r.tlog-proof", tmp_path / "r.json", tmp_path / "trust.json"
    trust.write_text(json.dumps({**evidence.trust, "heads": []}), "utf-8")
    words = ("-C", str(evidence.root), "log", "proof", "3", "--out", str(proof), "--record", str(record))
    assert "no witness cosigned it" in ok(run(*words))
    assert "exists" in run(*words).output
    ok(run("verify", str(proof), "--record", str(record), "--trust", str(trust)), 2)
    assert main([str(proof), "--record", str(record), "--trust", str(trust)]) == 2
    assert "V07.no_trust" in capsys.readouterr().out
