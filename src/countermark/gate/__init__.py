"""Floor 4: the lane that decides and commits, the executor, the socket. Store and Connector only as ports."""

from countermark.gate.client import SocketClient
from countermark.gate.gate import Gate, Parts
from countermark.gate.prepare import Caller, Pseudonyms
from countermark.gate.socket import FRAME_BYTES_MAX, LENGTH, SocketServer, address_of
from countermark.gate.writer import Writer

__all__ = [
    "FRAME_BYTES_MAX",
    "LENGTH",
    "Caller",
    "Gate",
    "Parts",
    "Pseudonyms",
    "SocketClient",
    "SocketServer",
    "Writer",
    "address_of",
]
