"""Floor 5: what an auditor asks of a deployment. It never imports the gate."""

from countermark.audit.pack import PackError, write_pack

__all__ = ["PackError", "write_pack"]
