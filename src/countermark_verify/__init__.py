"""Check an evidence pack with no network and none of the product.

    report = verify("acme.pack", load_trust("trust.json"))
    report.verdict    # verified | refuted | incomplete | unreadable

Written from `docs/spec/` alone; imports nothing of `countermark`. `cedarpy` is optional: without it no decision of the
stage `policy` is recomputed, and the verdict is at most `incomplete`.
"""

from countermark_verify.errors import TrustError, WorkerError
from countermark_verify.proof import verify_proof
from countermark_verify.recomputed import BUDGET_TICKS
from countermark_verify.report import EXIT_FAILED, Finding, Report, StepResult, as_json, as_text
from countermark_verify.trust import Chain, Trust, TrustedHead, Witness, load_trust, parse_trust
from countermark_verify.verifier import verify
from countermark_verify.vouching import Voucher, WarpQuorum, WarpSignature, parse_nodes
from countermark_verify.workers import Examiner, Workers, examiners

__all__ = [
    "BUDGET_TICKS",
    "EXIT_FAILED",
    "Chain",
    "Examiner",
    "Finding",
    "Report",
    "StepResult",
    "Trust",
    "TrustError",
    "TrustedHead",
    "Voucher",
    "WarpQuorum",
    "WarpSignature",
    "Witness",
    "WorkerError",
    "Workers",
    "as_json",
    "as_text",
    "examiners",
    "load_trust",
    "parse_nodes",
    "parse_trust",
    "verify",
    "verify_proof",
]
