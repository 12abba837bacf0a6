"""Which addresses a request may go to: what connectors use of the room ``net``."""

from countermark.net import Network, address_of, may_reach, networks_of

__all__ = ["Network", "address_of", "may_reach", "networks_of"]
