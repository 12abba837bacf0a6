"""Check an evidence pack with no network and none of the product.

    report = verify("acme.pack", load_trust("trust.json"))
    report.verdict    # verified | refuted | incomplete | unreadable

Written from `docs/spec/` alone; imports nothing of `countermark`. `cedarpy` is optional: without it no decision of the
stage `policy` is recomputed, and the verdict is at most `incomplete`.
"""

from countermark_verify.errors import TrustError
from countermark_verify.report import Finding, Report, StepResult, as_json, as_text
from countermark_verify.trust import Trust, TrustedHead, Witness, load_trust, parse_trust
from countermark_verify.verifier import verify

__all__ = [
    "Finding",
    "Report",
    "StepResult",
    "Trust",
    "TrustError",
    "TrustedHead",
    "Witness",
    "as_json",
    "as_text",
    "load_trust",
    "parse_trust",
    "verify",
]
