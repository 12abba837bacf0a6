"""Re-performance on histories that an independent encoder wrote from the specification, honest and not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from countermark.audit import Report, reperform
from countermark.log import parse_entry_bundle
from countermark.model.records import Record, read
from countermark.policy import Bundle

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text("utf-8"))
# The steps that re-performance repeats: order, authority, life, digests, facts, decisions. The others are about the
# pack, the tree, or what the auditor trusts.
REPEATED = ("V06", "V10", "V11", "V12", "V13", "V14")
# In these only what the pack discloses is wrong. Disclosures stand beside the records, which alone are made again.
OF_DISCLOSURES = {"disclosed-value-of-another-type.zip", "sealed-payee-of-another-account-disclosed.zip"}


def codes(name: str) -> list[str]:
    code = EXPECTED[name]["code"]
    return [] if code is None else [code] if isinstance(code, str) else list(code)


def load(name: str) -> tuple[list[Record], Callable[[str], Bundle]]:
    with zipfile.ZipFile(FILES / name) as pack:
        names = sorted(member for member in pack.namelist() if member.startswith("log/tile/entries/"))
        raws = [raw for member in names for raw in parse_entry_bundle(pack.read(member))]
        documents = {
            "sha256:" + member[7:-5]: json.loads(pack.read(member))
            for member in pack.namelist()
            if member.startswith("policy/")
        }
    bundles: dict[str, Bundle] = {}

    def bundle_of(digest: str) -> Bundle:
        if digest not in bundles:
            bundles[digest] = Bundle.from_document(documents[digest])
        return bundles[digest]

    return [read(raw) for raw in raws], bundle_of


def again(name: str) -> Report:
    return reperform(*load(name))


@pytest.mark.parametrize("name", sorted(name for name in EXPECTED if EXPECTED[name]["verdict"] == "verified"))
def test_an_honest_history_of_another_encoder_is_equal(name: str) -> None:
    """Two readings of the specification that never saw each other agree on every decision, fact and budget."""
    report = again(name)
    assert report.ok, [str(mismatch) for mismatch in report.mismatches[:5]]
    assert report.records > 0


def _lies() -> list[str]:
    """What is wrong with a disclosure is wrong with the pack, not with the records."""
    return sorted(
        name
        for name in EXPECTED
        if EXPECTED[name]["verdict"] == "refuted"
        and any(code.startswith(REPEATED) for code in codes(name))
        and "V12.disclosure" not in codes(name)
        and name not in OF_DISCLOSURES
    )


@pytest.mark.parametrize("name", _lies())
def test_a_lie_of_an_insider_is_found_here_too(name: str) -> None:
    """What the verifier refutes by recomputing, re-performance refutes as well."""
    assert not again(name).ok


# Lies that leave chain, digests and verdict in order: the first record that lies, and the member that does.
NAMED = {
    "amount-above-its-maximum": (4, "args.amount"),
    "amount-zero": (4, "args.amount"),
    "approval-kept-for-later": (7, "next"),
    "argument-longer-than-declared": (4, "args.invoice"),
    "argument-matches-its-pattern-in-part": (4, "args.invoice"),
    "argument-outside-its-list": (4, "args.currency"),
    "confirmed-without-an-attempt": (5, "attempts"),
    "currency-not-in-the-bundle": (4, "terms.currency"),
    "different-booking-without-its-kill": (6, "next"),
    "kill-id-used-again": (5, "kill"),
    "nothing-booked-under-an-ordinary-code": (5, "code"),
    "payment-after-the-gate-stopped": (5, "gate"),
    "required-invoice-absent": (4, "args.invoice"),
    "tier-of-a-decision-differs-from-the-start": (4, "tier"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_lie_that_leaves_the_rest_in_order_is_named(name: str) -> None:
    """The first difference is the lie itself, with its record and its member."""
    found = again(f"{name}.zip").mismatches
    assert (found[0].seq, found[0].what) == NAMED[name], [str(mismatch) for mismatch in found[:5]]
