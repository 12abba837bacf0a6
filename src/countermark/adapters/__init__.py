"""Floor 7: agent frameworks. Each module imports its framework only when it is used, and is an extra of its own."""

from countermark.adapters.governor import Answer, Gatekeeper, Governor

__all__ = ["Answer", "Gatekeeper", "Governor"]
