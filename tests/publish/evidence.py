"""Evidence of a real deployment: payments, a head stamped by the test authority, a pack and what an auditor brings."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from cli.cli_support import TOOL, Provider
from publish.authority import Answer, serving
from support import records

from countermark.audit import export_pack
from countermark.authority import load_private
from countermark.journal import SqliteStore
from countermark.log import LogSigner, open_checkpoint
from countermark.policy import Bundle
from countermark.wiring.config import load_config
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

STAMP_S_MAX = 10


@dataclass(frozen=True)
class Evidence:
    """``trust`` is the auditor's, without ``stamps``: who counts is each test's affair."""

    root: Path
    pack: Path
    trust: dict[str, Any]
    signer: LogSigner
    records: list[Any]

    def stamped(self) -> list[Any]:
        return [record for record in self.records if record.kind == "head.stamped"]


def configure(root: Path, url: str, pem: bytes, authority: str = "tsa.example") -> None:
    """Name an authority of time in ``countermark.toml``."""
    (root / "tsa.pem").write_bytes(pem)
    with (root / "countermark.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n[[publish.stamp]]\nauthority = "{authority}"\nurl = "{url}"\ncertificate = "tsa.pem"\n')


def make(folder: Path, answer: Answer, pem: bytes, payments: int = 3, *, stamped: bool = True) -> Evidence:
    """Play a deployment under an authority that answers so; with ``stamped`` until it has answered once."""
    root, provider = folder / "deployment", {"stripe": Provider()}
    made = init_deployment(root, "vendor-payments", "acme", connectors=provider)
    answered = Event()

    def answering(raw: bytes) -> tuple[int, str, bytes]:
        answered.set()
        return answer(raw)

    with serving(answering) as url:
        configure(root, url, pem)
        with open_deployment(root, agent="treasury", connectors=provider) as handle:
            for number in range(payments):
                args = {
                    "amount": 20_000 + number, "currency": "eur", "destination": "acct_1AcmePaper",
                    "metadata[invoice]": f"INV-{number}",
                }  # fmt: skip
                handle.act(TOOL, args, call_id=f"c-{number}")
            assert not stamped or answered.wait(STAMP_S_MAX)
    return exported(root, folder / "evidence.zip", made.bundle)


def exported(root: Path, pack: Path, bundle: str) -> Evidence:
    config = load_config(root)
    signer = LogSigner(config.origin, load_private(config.keys / "log.pem"))
    store = SqliteStore(config.journal, readonly=True)
    try:
        export_pack(pack, store, signer, deployment=config.deployment, lane=config.lane)
        _, note = store.head()
        people = Bundle.from_document(json.loads(store.bundle(bundle))).compiled.people.values()
    finally:
        store.close()
    head = open_checkpoint(note, [signer.vkey])
    trust = {
        "v": 1, "log": {"origin": config.origin, "keys": [signer.vkey]},
        "people": {person.id: [str(key) for key in person.keys] for person in people if person.keys},
        "heads": [{"size": head.size, "root": base64.b64encode(head.root).decode(), "source": "kept by the auditor"}],
    }  # fmt: skip
    return Evidence(root, pack, trust, signer, records(root))
