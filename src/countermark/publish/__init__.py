"""Floor 4: where heads go, and who vouches for them: witnesses as they are asked and as they answer, authorities of
time, a contract on a chain, static files. Each part is loaded when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_WHERE = {
    "BODY_BYTES_MAX": "exchange",
    "GWEI": "anchor",
    "AnchorSettings": "anchor",
    "Anchored": "anchor",
    "BehindAnchorError": "anchor",
    "ChainAnchor": "anchor",
    "Fees": "anchor",
    "NewestHead": "static",
    "PendingFile": "anchor",
    "Published": "static",
    "Reply": "witness",
    "StampError": "tokens",
    "StampSettings": "stamps",
    "Stamped": "tokens",
    "Stamps": "stamps",
    "Submission": "exchange",
    "Witness": "witness",
    "WitnessClient": "witness_client",
    "WitnessError": "witness_client",
    "WitnessRule": "witnesses",
    "Witnesses": "witnesses",
    "anchor_call": "anchor",
    "deploy_anchor": "anchor",
    "final_by_default": "anchor",
    "make_witness": "witness",
    "note_to_publish": "static",
    "plan": "anchor",
    "publish_static": "static",
    "read_certificates": "tokens",
    "read_token": "tokens",
    "send": "anchor",
    "standing": "anchor",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"countermark.publish.{_WHERE[name]}"), name)
    raise AttributeError(name)
