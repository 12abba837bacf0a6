"""Heads of the log on a chain of the EVM family, such as Avalanche's C-Chain (extra ``evm``)."""

from countermark.publish.anchor.contract import Anchored, Standing, anchor_call, check_code, owner, standing
from countermark.publish.anchor.deploying import Deployed, deploy_anchor
from countermark.publish.anchor.destination import (
    ACCEPTED,
    DEPTH_MAX,
    FINALIZED,
    KIND,
    AnchorSettings,
    BehindAnchorError,
    ChainAnchor,
    LogFacts,
    final_by_default,
)
from countermark.publish.anchor.pending import Pending, PendingFile
from countermark.publish.anchor.sending import GWEI, Fees, plan, send

__all__ = [
    "ACCEPTED",
    "DEPTH_MAX",
    "FINALIZED",
    "GWEI",
    "KIND",
    "AnchorSettings",
    "Anchored",
    "BehindAnchorError",
    "ChainAnchor",
    "Deployed",
    "Fees",
    "LogFacts",
    "Pending",
    "PendingFile",
    "Standing",
    "anchor_call",
    "check_code",
    "deploy_anchor",
    "final_by_default",
    "owner",
    "plan",
    "send",
    "standing",
]
