"""Judges DSSE envelopes with securesystemslib: `[{"envelope", "keyid", "public": hex}]` in, verdicts out."""

from __future__ import annotations

import json
import sys

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

verdicts = []
for case in json.load(sys.stdin):
    key = SSlibKey(case["keyid"], "ed25519", "ed25519", {"public": case["public"]})
    try:
        Envelope.from_dict(case["envelope"]).verify([key], 1)
        verdicts.append("")
    except VerificationError as error:
        verdicts.append(str(error))
json.dump(verdicts, sys.stdout)
