"""Re-performance on histories that an independent encoder wrote from the specification, honest and not."""

from __future__ import annotations

import pytest
from audit_packs import EXPECTED, HONEST, WHOLE, load

from countermark.audit import Report, reperform

# The steps that re-performance repeats: order, authority, life, digests, facts, decisions. The others are about the
# pack, the tree, or what the auditor trusts.
REPEATED = ("V06", "V09.chain", "V09.monitor", "V09.signature", "V10", "V11", "V12", "V13", "V14")
# In these only what the pack discloses is wrong. Disclosures stand beside the records, which alone are made again.
OF_DISCLOSURES = {"disclosed-value-of-another-type.zip", "sealed-payee-of-another-account-disclosed.zip"}


def codes(name: str) -> list[str]:
    code = EXPECTED[name]["code"]
    return [] if code is None else [code] if isinstance(code, str) else list(code)


def again(name: str) -> Report:
    return reperform(*load(name))


@pytest.mark.parametrize("name", HONEST)
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
        and name in WHOLE
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
    "different-booking-stopped-for-another-reason": (6, "next"),
    "different-booking-without-its-kill": (6, "next"),
    "import-of-a-day-that-is-none": (4, "import"),
    "kill-id-used-again": (5, "kill"),
    "monitored-by-the-author-of-what-is-new": (4, "activation"),
    "monitored-for-longer-than-a-fortnight": (1, "monitor"),
    "monitored-without-a-second-signature": (1, "activation"),
    "mandate-granted-again-after-a-restore": (13, "digest"),
    "movement-from-a-provider-that-nobody-asked": (7, "tool"),
    "movement-in-a-spelling-that-no-payment-has": (7, "pairs"),
    "movement-to-another-payee-than-it-takes-the-key-of": (7, "pairs.payee"),
    "nothing-booked-under-an-ordinary-code": (5, "code"),
    "payment-after-the-gate-stopped": (5, "gate"),
    "report-of-a-caller-under-an-ordinary-code": (5, "code"),
    "request-signed-and-expired-when-it-was-decided": (4, "request"),
    "request-signed-and-its-body-left-out": (4, "body"),
    "request-signed-for-another-amount": (4, "body.args"),
    "request-signed-that-names-no-run": (4, "body.run"),
    "request-signed-with-a-line-break-in-a-value": (4, "covered.@authority"),
    "required-invoice-absent": (4, "args.invoice"),
    "restored-and-a-provider-not-named": (6, "activity.connectors"),
    "restored-and-asked-since-too-late-a-time": (6, "activity.since"),
    "restored-and-opened-by-a-kill-of-its-id": (9, "kill"),
    "restored-on-an-older-head-of-another-log": (6, "known.size"),
    "restored-under-the-key-of-another-log": (6, "log_key"),
    "second-signature-where-nothing-is-monitored": (1, "second"),
    "silence-of-a-caller-claimed-before-its-time": (5, "at"),
    "tier-of-a-decision-differs-from-the-start": (4, "tier"),
    "waived-after-its-time": (4, "disposition"),
    "waived-over-a-hard-limit": (4, "disposition"),
    "waived-payment-dressed-as-allowed": (4, "stage"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_lie_that_leaves_the_rest_in_order_is_named(name: str) -> None:
    """The first difference is the lie itself, with its record and its member."""
    found = again(f"{name}.zip").mismatches
    assert (found[0].seq, found[0].what) == NAMED[name], [str(mismatch) for mismatch in found[:5]]


@pytest.mark.parametrize("name", sorted(name for name in EXPECTED if "restored" in name))
def test_a_restore_is_judged_the_same_with_history_at_hand(name: str) -> None:
    """The tree below a restore is the same, whether leaves were kept on the way or records are read once more."""
    records, bundle_of = load(name)
    kept = reperform(records, bundle_of)
    assert reperform(records, bundle_of, history=lambda seq: records[:seq]).document() == kept.document()
