"""Floor 6: the gate as an agent's program reaches it over HTTP. Needs no extra; the server's rooms stay unloaded."""

from countermark.client.client import Client

__all__ = ["Client"]
