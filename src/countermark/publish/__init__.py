"""Floor 4: where heads go, and who vouches for them: witnesses as they are asked and as they answer, authorities of
time, a contract on a chain, static files.
"""

from countermark.publish.anchor import (
    GWEI,
    Anchored,
    AnchorSettings,
    BehindAnchorError,
    ChainAnchor,
    Fees,
    PendingFile,
    anchor_call,
    deploy_anchor,
    final_by_default,
    plan,
    send,
    standing,
)
from countermark.publish.exchange import BODY_BYTES_MAX, Submission
from countermark.publish.stamps import Stamps, StampSettings
from countermark.publish.static import NewestHead, Published, note_to_publish, publish_static
from countermark.publish.tokens import Stamped, StampError, read_certificates, read_token
from countermark.publish.witness import Reply, Witness, make_witness
from countermark.publish.witness_client import WitnessClient, WitnessError
from countermark.publish.witnesses import Witnesses, WitnessRule

__all__ = [
    "BODY_BYTES_MAX",
    "GWEI",
    "AnchorSettings",
    "Anchored",
    "BehindAnchorError",
    "ChainAnchor",
    "Fees",
    "NewestHead",
    "PendingFile",
    "Published",
    "Reply",
    "StampError",
    "StampSettings",
    "Stamped",
    "Stamps",
    "Submission",
    "Witness",
    "WitnessClient",
    "WitnessError",
    "WitnessRule",
    "Witnesses",
    "anchor_call",
    "deploy_anchor",
    "final_by_default",
    "make_witness",
    "note_to_publish",
    "plan",
    "publish_static",
    "read_certificates",
    "read_token",
    "send",
    "standing",
]
