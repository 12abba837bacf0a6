"""Payments on chains of the EVM family (extra ``evm``); importing this room needs none of the extra's libraries."""

from countermark.connectors.evm.connector import EvmConnector, check_addresses
from countermark.connectors.evm.drafts import DRAFTS
from countermark.connectors.evm.ledger import Attempt, Ledger, Slot
from countermark.connectors.evm.node import ACCEPTED, CONFIRMATIONS_MAX, FINALIZED, Node

__all__ = [
    "ACCEPTED",
    "CONFIRMATIONS_MAX",
    "DRAFTS",
    "FINALIZED",
    "Attempt",
    "EvmConnector",
    "Ledger",
    "Node",
    "Slot",
    "check_addresses",
]
