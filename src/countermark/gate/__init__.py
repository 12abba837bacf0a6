"""Floor 4: the lane that decides and commits, the executor, the socket. Store and Connector only as ports."""

from countermark.gate.client import SocketClient
from countermark.gate.erasing import note_disclosure
from countermark.gate.gate import Gate
from countermark.gate.hindsight import IMPORTED_MAX, note_reading
from countermark.gate.parts import Parts
from countermark.gate.prepare import Caller, Pseudonyms
from countermark.gate.provided import Told, open_about, told
from countermark.gate.publishing import record_publication
from countermark.gate.socket import FRAME_BYTES_MAX, LENGTH, SocketServer, address_of
from countermark.gate.succession import MOVEMENTS_MAX, Activity, Movement, succeed, successor
from countermark.gate.telemetry import Telemetry, Watch
from countermark.gate.writer import Writer

__all__ = [
    "FRAME_BYTES_MAX",
    "IMPORTED_MAX",
    "LENGTH",
    "MOVEMENTS_MAX",
    "Activity",
    "Caller",
    "Gate",
    "Movement",
    "Parts",
    "Pseudonyms",
    "SocketClient",
    "SocketServer",
    "Telemetry",
    "Told",
    "Watch",
    "Writer",
    "address_of",
    "note_disclosure",
    "note_reading",
    "open_about",
    "record_publication",
    "succeed",
    "successor",
    "told",
]
