"""Floor 7: the gate over HTTP. Needs the extra ``[server]``; nothing else imports what it brings."""

from countermark.server.mcp_calls import Party
from countermark.server.mcp_face import PAGE, serve_stdio
from countermark.server.serve import Listener, serve
from countermark.server.surroundings import Authenticator, Counters, Surroundings
from countermark.server.witness import serve_witness, witness_settings

__all__ = [
    "PAGE",
    "Authenticator",
    "Counters",
    "Listener",
    "Party",
    "Surroundings",
    "serve",
    "serve_stdio",
    "serve_witness",
    "witness_settings",
]
