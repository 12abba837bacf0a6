"""Packs for the page's tests: the day of the audit tests, and the same with a member changed and signed again."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "audit"))

from audit_day import the_day

from countermark.audit import export_pack, write_pack
from countermark.log import LogSigner, parse_entry_bundle
from countermark_verify import Report, verify
from countermark_verify.trust import Trust, parse_trust

FOR_PEOPLE = ("index.html", "population.csv")


@dataclass(frozen=True)
class Pack:
    """The day's pack, who signs it, and what an auditor would trust."""

    members: Mapping[str, bytes]
    raw: bytes
    signer: LogSigner
    trust_raw: bytes

    @property
    def relied_raw(self) -> bytes:
        """The trust file of an auditor who verified the whole log up to this head."""
        document = json.loads(self.trust_raw)
        document["heads"][0]["verified"] = True
        return json.dumps(document).encode()

    @property
    def trust(self) -> Trust:
        return parse_trust(self.trust_raw)

    def records(self) -> list[bytes]:
        names = sorted(name for name in self.members if name.startswith("log/tile/entries/"))
        return [raw for name in names for raw in parse_entry_bundle(self.members[name])]

    def write(self, path: Path, changes: Mapping[str, bytes]) -> Path:
        """The same pack with other members for people, signed as before."""
        bundles = {f"sha256:{n[7:-5]}": raw for n, raw in self.members.items() if n.startswith("policy/")}
        people = {name: self.members[name] for name in FOR_PEOPLE} | dict(changes)
        disclosed = json.loads(self.members["disclosures.json"])
        write_pack(
            path, deployment=self.signer.name.split("/")[1], lane="l0", records=self.records(),
            checkpoint=self.members["log/checkpoint"], signer=self.signer, bundles=bundles, disclosures=disclosed,
            withheld=4, erased=0, people=people,
        )  # fmt: skip
        return path

    def verify(self, path: Path, changes: Mapping[str, bytes]) -> Report:
        return verify(self.write(path, changes), self.trust)


@cache
def the_pack() -> Pack:
    """The day of the audit tests as a pack; nothing is disclosed."""
    day = the_day()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.zip"
        store = day.store
        try:
            made = export_pack(path, store, day.signer, deployment=day.made.deployment, unseal=day.unseal(store))
        finally:
            store.close()
        raw = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    return Pack(members, raw, day.signer, trust_of(members, day.signer, made.size, made.root))


def trust_of(members: Mapping[str, bytes], signer: LogSigner, size: int, root: str) -> bytes:
    """The trust file of an auditor who kept this head and knows everybody's key."""
    people: dict[str, Any] = {}
    for name, raw in members.items():
        if name.startswith("policy/"):
            people |= {one["id"]: one["keys"] for one in json.loads(raw)["compiled"]["people"]}
    head = {"size": size, "root": root, "source": "kept by the test"}
    document = {"v": 1, "log": {"origin": signer.name, "keys": [signer.vkey]}, "people": people, "heads": [head]}
    return json.dumps(document).encode()


def page_text(pack: Mapping[str, bytes]) -> str:
    return pack["index.html"].decode("utf-8")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
