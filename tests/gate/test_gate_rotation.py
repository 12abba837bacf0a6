"""The log's key changes hands: who may order it, which keys sign which heads, what an auditor of either key sees."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rig import Provider, hold, make, pay, rebuilt_equally, unsound

from countermark.audit import export_pack
from countermark.authority import generate, load_private, prove_rotation, public_of, sign_rotation
from countermark.journal import SqliteStore
from countermark.log import open_checkpoint
from countermark.model.clock import US, FakeClock
from countermark.model.errors import CountermarkError
from countermark.wiring import log_signer, prepare_next, retire
from countermark.wiring.config import load_config
from countermark_verify import parse_trust, verify

NOW = 1_800_000_000 * US
DAY = 86_400 * US
TWO_MORE = {
    "[agents.treasury]": """[people.auditor]
name = "Auditor"
roles = ["operator"]
key = "{{KEY:auditor}}"

[agents.treasury]""",
}


class Stand:
    """A deployment whose log has a prepared key; its gate is open."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock, self.provider = root, FakeClock(NOW), Provider()
        self.made = make(root, self.provider, clock=self.clock, changes=TWO_MORE)
        self.config = load_config(root)
        prepare_next(self.config)
        self.signer = log_signer(self.config)
        self.handle = hold(root, self.provider, self.clock)

    def order(self, **changes: Any) -> dict[str, Any]:
        old, new = (load_private(self.config.keys / name) for name in ("log.pem", "log.next.pem"))
        return {"v": 1, "deployment": self.made.deployment, "lane": "l0", "old": str(public_of(old)),
                "new": str(public_of(new)), "until": NOW + 30 * DAY, "reason": "yearly", **changes}  # fmt: skip

    def body(self, order: Mapping[str, Any], by: tuple[str, ...] = ("treasurer", "auditor")) -> dict[str, Any]:
        old, new = (load_private(self.config.keys / name) for name in ("log.pem", "log.next.pem"))
        signed = [sign_rotation(order, one, load_private(self.made.people[one])) for one in by]
        return {"rotation": dict(order), "proofs": prove_rotation(order, old, new), "signed": signed}

    def again(self) -> None:
        self.handle.close()
        self.handle = hold(self.root, self.provider, self.clock)

    def head(self) -> tuple[int, bytes]:
        store = SqliteStore(self.config.journal, readonly=True)
        try:
            found = store.head()
        finally:
            store.close()
        if found is None:
            raise LookupError
        return found

    def verdict(self, key: str, pack: Path, **more: Any) -> Any:
        """What an auditor says who has this log key, the people's keys and the newest head."""
        store = SqliteStore(self.config.journal, readonly=True)
        try:
            made = export_pack(pack, store, log_signer(self.config), deployment=self.made.deployment)
            people = {name: str(public_of(load_private(path))) for name, path in self.made.people.items()}
        finally:
            store.close()
        head = {"size": made.size, "root": made.root, "source": "retained", **more.pop("head", {})}
        trust = {
            "v": 1,
            "log": {"origin": self.config.origin, "keys": [key]},
            "people": people,
            "heads": [head],
            **more,
        }
        return verify(pack.read_bytes(), parse_trust(json.dumps(trust).encode()))


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    found = Stand(tmp_path / "d")
    yield found
    found.handle.close()
    assert unsound(found.root) == []
    assert rebuilt_equally(found.root)


def codes(report: Any) -> list[str]:
    return [finding.code for step in report.steps for finding in step.findings]


def test_the_head_over_a_rotation_and_those_after_it_carry_both_keys_until_the_overlap_ends(stand: Stand) -> None:
    """Before: the old line alone. From the rotation's own head on: both. After the overlap: the new line alone."""
    old, new = stand.signer.vkeys
    assert stand.head()[1].count("— ".encode()) == 1
    answer = stand.handle.call("key.rotate", stand.body(stand.order()))
    assert (answer["old"], answer["new"]) == (old, new)
    for key in (old, new):
        assert open_checkpoint(stand.head()[1], [key]).size == answer["seq"] + 1
    pay(stand.handle, 1, 1_000)
    assert stand.head()[1].count("— ".encode()) == 2
    stand.again()
    assert stand.handle.call("status", {})["log_key"] == new
    stand.clock.advance(31 * 86_400)
    stand.again()
    pay(stand.handle, 2, 1_000)
    note = stand.head()[1]
    assert note.count("— ".encode()) == 1
    assert open_checkpoint(note, [new])
    stand.handle.close()
    assert retire(stand.config, new) == old
    assert log_signer(stand.config).vkeys == (new, old)
    stand.handle = hold(stand.root, stand.provider, stand.clock)
    assert pay(stand.handle, 3, 1_000).status == "confirmed"


def test_an_auditor_of_either_key_verifies_what_the_new_key_alone_signed(stand: Stand, tmp_path: Path) -> None:
    """Who knows the old key reaches the new one by the rotation; who knows the new one finds the old in the history."""
    old, new = stand.signer.vkeys
    stand.handle.call("key.rotate", stand.body(stand.order(until=NOW)))
    stand.again()
    pay(stand.handle, 1, 1_000)
    stand.handle.close()
    for key in (old, new):
        report = stand.verdict(key, tmp_path / "pack.zip")
        assert (report.verdict, codes(report)) == ("verified", [])
    stand.handle = hold(stand.root, stand.provider, stand.clock)


def test_a_pack_under_a_key_that_others_may_have_counts_as_far_as_it_was_seen_in_time(
    stand: Stand, tmp_path: Path
) -> None:
    """A compromised log key: a head that the auditor took before counts, one taken after leaves it incomplete."""
    old = stand.signer.vkey
    pay(stand.handle, 1, 1_000)
    stand.handle.close()
    since = {"compromised": [{"key": old, "since": NOW + DAY}]}
    assert stand.verdict(old, tmp_path / "a.zip", head={"at": NOW + 1}, **since).verdict == "verified"
    for late in ({}, {"at": NOW + 2 * DAY}):
        report = stand.verdict(old, tmp_path / "b.zip", head=late, **since)
        assert (report.verdict, codes(report)) == ("incomplete", ["V03.compromised"])
    stand.handle = hold(stand.root, stand.provider, stand.clock)


def test_nothing_is_reached_from_a_compromised_log_key(stand: Stand, tmp_path: Path) -> None:
    """A rotation that whoever stole the old key could have made leads nowhere, unless it was seen in time."""
    old = stand.signer.vkey
    stand.handle.call("key.rotate", stand.body(stand.order(until=NOW)))
    stand.again()
    stand.handle.close()
    since = {"compromised": [{"key": old, "since": NOW + DAY}]}
    report = stand.verdict(old, tmp_path / "a.zip", **since)
    assert report.verdict == "refuted"
    assert {"V02.signature", "V03.signature"} <= set(codes(report))
    assert stand.verdict(old, tmp_path / "b.zip", head={"at": NOW + 1}, **since).verdict == "verified"
    stand.handle = hold(stand.root, stand.provider, stand.clock)


def test_what_a_compromised_persons_key_signed_counts_only_when_it_was_seen_in_time(
    stand: Stand, tmp_path: Path
) -> None:
    """Each signature by such a key is named, unless a head that the auditor took before holds its record."""
    stand.handle.close()
    person = str(public_of(load_private(stand.made.people["treasurer"])))
    since = {"compromised": [{"key": person, "since": NOW + DAY}]}
    report = stand.verdict(stand.signer.vkey, tmp_path / "a.zip", **since)
    assert report.verdict == "incomplete"
    assert set(codes(report)) == {"V10.compromised"}
    assert len(codes(report)) == 2  # the activation and the mandate
    assert stand.verdict(stand.signer.vkey, tmp_path / "b.zip", head={"at": NOW + 1}, **since).verdict == "verified"
    stand.handle = hold(stand.root, stand.provider, stand.clock)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "one-person": ({}, ("treasurer",), "four_eyes"),
    "the-same-twice": ({}, ("treasurer", "treasurer"), "four_eyes"),
    "without-a-role": ({}, ("treasurer", "controller"), "four_eyes"),
    "other-deployment": ({"deployment": "elsewhere"}, ("treasurer", "auditor"), "not_authorised"),
    "other-lane": ({"lane": "l1"}, ("treasurer", "auditor"), "not_authorised"),
    "too-long": ({"until": NOW + 401 * DAY}, ("treasurer", "auditor"), "bad_rotation"),
}  # fmt: skip


def test_a_rotation_that_is_not_ordered_rightly_is_refused(stand: Stand) -> None:
    """Each fault has its code, and the log keeps its key."""
    for name, (changes, by, code) in WRONG.items():
        with pytest.raises(CountermarkError) as caught:
            stand.handle.call("key.rotate", stand.body(stand.order(**changes), by))
        assert (name, caught.value.code) == (name, code)
    assert stand.handle.call("status", {})["log_key"] == stand.signer.vkey


def test_a_rotation_needs_the_signatures_of_both_keys_and_a_key_that_the_gate_has(stand: Stand) -> None:
    """A foreign old key, a proof by another key, a new key that nobody prepared, a second rotation in the overlap."""
    order = stand.order()
    stranger = generate()
    body = stand.body(order)
    body["proofs"]["old"] = base64.b64encode(stranger.sign(b"x")).decode()
    foreign = stand.order(new=str(public_of(stranger)))
    unknown = stand.body(order)
    unknown |= {
        "rotation": foreign,
        "proofs": prove_rotation(foreign, load_private(stand.config.keys / "log.pem"), stranger),
        "signed": [
            sign_rotation(foreign, one, load_private(stand.made.people[one])) for one in ("treasurer", "auditor")
        ],
    }
    for given, code in ((body, "bad_signature"), (unknown, "no_log_key")):
        with pytest.raises(CountermarkError) as caught:
            stand.handle.call("key.rotate", given)
        assert caught.value.code == code
    stand.handle.call("key.rotate", stand.body(order))
    with pytest.raises(CountermarkError) as caught:
        stand.handle.call("key.rotate", stand.body(order))
    assert caught.value.code == "bad_rotation"


def test_a_gate_without_a_key_that_must_sign_does_not_open(stand: Stand) -> None:
    """In the overlap both private keys are needed: a gate that would sign with less refuses to run."""
    stand.handle.call("key.rotate", stand.body(stand.order()))
    stand.handle.close()
    path = stand.config.keys / "log.next.pem"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(CountermarkError):
        hold(stand.root, stand.provider, stand.clock)
    path.write_bytes(kept)
    path.chmod(0o600)
    old = stand.config.keys / "log.pem"
    signing = old.read_bytes()
    old.write_bytes(kept)  # the new key alone, before the overlap ends
    with pytest.raises(CountermarkError):
        hold(stand.root, stand.provider, stand.clock)
    old.write_bytes(signing)
    stand.handle = hold(stand.root, stand.provider, stand.clock)
