"""The log's line by ML-DSA-44: asked for where the auditor has the key, and never believed without it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark.authority import generate
from countermark.log import Cosigner, LogSigner, cosigned
from countermark_verify import parse_trust
from countermark_verify.notes import parse_checkpoint
from countermark_verify.report import Ledger
from countermark_verify.rotation import second_line

ORIGIN = "countermark/acme/l0"
ROOT = bytes(32)


def found(note: bytes, *keys: str) -> list[str]:
    """The codes of the line's check by an auditor who has these keys besides the log's."""
    log = LogSigner(ORIGIN, generate())
    trust = parse_trust(json.dumps({"v": 1, "log": {"origin": ORIGIN, "keys": [log.vkey, *keys]}}).encode())
    ledger = Ledger()
    second_line(ledger, parse_checkpoint(note), trust)
    return [item.code for item in ledger.steps["V03"].findings]


def test_the_second_line_is_asked_for_and_checked_where_the_auditor_has_its_key() -> None:
    """Present and right: nothing. Absent: incomplete. Of another head, by another key, altered or twice: as it is."""
    key, other = Cosigner(ORIGIN, MLDSA44PrivateKey.generate()), Cosigner(ORIGIN, MLDSA44PrivateKey.generate())
    log = LogSigner(ORIGIN, generate())
    plain = log.sign_checkpoint(5, ROOT)
    note = cosigned(plain, key, 1_800_000_000)
    assert found(note) == []
    assert found(note, key.vkey) == []
    assert found(plain, key.vkey) == ["V03.second"]
    assert found(note, other.vkey) == ["V03.second"]
    foreign = cosigned(log.sign_checkpoint(6, ROOT), key, 1_800_000_000).split(b"\n")[-2]
    assert found(plain + foreign + b"\n", key.vkey) == ["V03.signature"]
    assert found(note + note.split(b"\n")[-2] + b"\n", key.vkey) == ["V03.signature"]
    raw = bytearray(base64.b64decode(note.split(b" ")[-1]))
    raw[-1] ^= 1
    altered = note[: note.rindex(b" ") + 1] + base64.b64encode(raw) + b"\n"
    assert found(altered, key.vkey) == ["V03.signature"]


def test_a_witness_key_is_no_key_of_the_log() -> None:
    """Type 4, another name, or a key ID that is not its own: the trust file is refused."""
    from countermark_verify.errors import TrustError

    ed25519 = Cosigner(ORIGIN, generate())
    named = Cosigner("elsewhere", MLDSA44PrivateKey.generate())
    for text in (ed25519.vkey, named.vkey, named.vkey.replace("elsewhere", ORIGIN)):
        with pytest.raises(TrustError):
            found(LogSigner(ORIGIN, generate()).sign_checkpoint(5, ROOT), text)
