"""erase, hold, export --disclose, as people type them; and what the verifier says of the packs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import TOOL, Bench, Provider, document, ok

from countermark.journal import SqliteStore
from countermark.model.clock import FakeClock
from countermark.policy import template_files
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment
from countermark_verify import Report, parse_trust, verify

SECRET = "Mrs Example, born 1970-01-01"
SENSITIVE = f'[tool."{TOOL}".args."metadata[invoice]"]'


@pytest.fixture
def here(tmp_path: Path) -> Iterator[tuple[Bench, FakeClock]]:
    """A deployment with sensitive descriptions, kept for thirty days, and two payments."""
    clock, provider, files = FakeClock(), {"stripe": Provider()}, template_files("vendor-payments")
    sensitive = f'[tool."{TOOL}".args.description]\nclass = "inert"\nsensitive = true\n\n{SENSITIVE}'
    edit = {
        "tools.toml": files["tools.toml"].replace(SENSITIVE, sensitive),
        "limits.toml": files["limits.toml"].replace("[payment]", '[retention]\nkeep = "30d"\n\n[payment]'),
    }
    made = init_deployment(tmp_path / "d", "vendor-payments", "acme", connectors=provider, edit=edit, clock=clock)
    with open_deployment(made.root, agent="treasury", connectors=provider, clock=clock) as handle:
        here = Bench(made, handle)
        for call, account in (("INV-1", "acct_1AcmePaper"), ("INV-2", "acct_1BorealisHosting")):
            args = {"amount": 4_800, "currency": "eur", "destination": account, "metadata[invoice]": call,
                    "description": SECRET}  # fmt: skip
            action = {"call_id": call, "tool": TOOL, "args": args, "reason": "she called"}
            ok(here.run("act", "-", "--json", stdin=json.dumps(action)))
        yield here, clock


def signer(here: Bench, person: str) -> list[str]:
    return ["--person", person, "--key", here.key(person)]


def judged(here: Bench, pack: Path, made: dict[str, Any]) -> Report:
    """The verdict of an auditor who kept the pack's head."""
    store = SqliteStore(here.made.root / "data" / "journal.db", readonly=True)
    try:
        found = list(store.records(0, made["size"]))
    finally:
        store.close()
    compiled = json.loads(store_bundle(here))["compiled"]
    trust = {
        "v": 1, "log": {"origin": f"countermark/{here.made.deployment}/l0", "keys": [found[0].body["log_key"]]},
        "people": {one["id"]: one["keys"] for one in compiled["people"] if one["keys"]},
        "heads": [{"size": made["size"], "root": made["root"], "source": "kept"}],
    }  # fmt: skip
    return verify(pack, parse_trust(json.dumps(trust).encode()))


def store_bundle(here: Bench) -> bytes:
    store = SqliteStore(here.made.root / "data" / "journal.db", readonly=True)
    try:
        digest = next(r for r in store.records() if r.kind == "policy.activated").body["activation"]["bundle"]
        return store.bundle(digest) or b""
    finally:
        store.close()


def exported(here: Bench, pack: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = document(here.run("export", str(pack), *words, "--json"))
    return found


@pytest.mark.slow
def test_withheld_disclosed_and_erased_are_told_apart(here: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """Chosen fields for a named reader, recorded; then an erasure by two: pack, report and explain each say so."""
    bench, clock = here
    made = exported(bench, tmp_path / "a.zip", "--disclose", "description", "--to", "Auditors Ltd", "--reason", "audit")
    assert (made["disclosed"], made["withheld"], made["erased"]) == (2, 2, 0)
    assert SECRET.encode() in (tmp_path / "a.zip").read_bytes()
    assert b"she called" not in (tmp_path / "a.zip").read_bytes()
    report = judged(bench, tmp_path / "a.zip", made)
    assert (report.verdict, report.codes()) == ("verified", [])
    half, key = str(tmp_path / "half.json"), str(tmp_path / "hold.json")
    hold = document(bench.run("hold", "set", "payee", "acme-paper", "--reason", "case 7", *signer(bench, "controller"),
                              "--json"))["hold"]  # fmt: skip
    clock.advance(40 * 86_400)
    assert "legal hold" in ok(bench.run("erase", "--list"))
    ok(bench.run("erase", "acme-paper", "--reason", "asked", *signer(bench, "treasurer"), "--out", half))
    second = ["erase", "acme-paper", "--second", half, *signer(bench, "controller"), "--yes", "--json"]
    assert document(bench.run(*second), 1)["error"]["code"] == "legal_hold"
    ok(bench.run("hold", "clear", hold, "--reason", "over", *signer(bench, "treasurer"), "--out", key))
    ok(bench.run("hold", "clear", hold, "--second", key, *signer(bench, "controller"), "--yes"))
    assert "No hold" in ok(bench.run("hold", "list"))
    same = ["erase", "acme-paper", "--second", half, *signer(bench, "treasurer"), "--yes", "--json"]
    assert document(bench.run(*same), 1)["error"]["code"] == "bad_config"
    assert document(bench.run(*second))["values"] == 2
    told = ok(bench.run("explain", "INV-1"))
    assert "erased by treasurer and controller" in told
    assert "erased: description, the reason" in told
    assert "withheld here: description, the reason" in ok(bench.run("explain", "INV-2"))
    assert "Auditors Ltd" in ok(bench.run("explain", str(_seq(bench, "data.disclosed"))))
    later = exported(bench, tmp_path / "b.zip", "--disclose", "all")
    assert (later["disclosed"], later["withheld"], later["erased"]) == (2, 0, 2)
    report = judged(bench, tmp_path / "b.zip", later)
    assert (report.verdict, report.codes()) == ("verified", [])
    assert [(row["subject"], row["values"], row["by"]) for row in report.counts["erasures"]] == [
        ("acme-paper", 2, ["treasurer", "controller"])
    ]
    other = document(bench.run("explain", "INV-2", "--json"))["id"]
    case = exported(bench, tmp_path / "case.zip", "--case", other)
    report = judged(bench, tmp_path / "case.zip", case)  # neither what was erased nor all that was disclosed is in it
    assert (report.verdict, report.codes()) == ("incomplete", ["V13.extract", "V18.extract", "V19.extract"])
    early = document(bench.run("export", str(tmp_path / "c.zip"), "--at", str(made["size"]), "--json"), 1)
    assert early["error"]["code"] == "bad_pack"
    assert "erased: 2 values of acme-paper" in ok(bench.run("audit", "reperform"))


def _seq(bench: Bench, kind: str) -> int:
    store = SqliteStore(bench.made.root / "data" / "journal.db", readonly=True)
    try:
        return next(record.seq for record in store.records() if record.kind == kind)
    finally:
        store.close()


def test_wrong_ways_to_erase_and_disclose_are_usage_errors(here: tuple[Bench, FakeClock], tmp_path: Path) -> None:
    """Whoever chooses fields says for whom; an erasure has a subject, a signer and one of the two ways."""
    bench, _ = here
    pack = str(tmp_path / "x.zip")
    for words in (
        ["export", pack, "--disclose", "description"], ["export", pack, "--disclose", " , ", "--to", "x"],
        ["export", pack, "--to", "x"], ["erase"], ["erase", "acme-paper"], ["erase", "acme-paper", "--list"],
        ["hold", "set", "all", "x", "--reason", "r", *signer(bench, "controller")],
        ["hold", "set", "agent", "--reason", "r", *signer(bench, "controller")],
        ["erase", "acme-paper", *signer(bench, "treasurer"), "--out", str(tmp_path / "h.json")],
    ):  # fmt: skip
        assert bench.run(*words).exit_code == 64, words
    assert not Path(pack).exists()
