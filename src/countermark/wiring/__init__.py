"""Floor 6: from ``countermark.toml`` to objects."""

from countermark.wiring.deployment import Deployment, open_deployment
from countermark.wiring.init import init_deployment

__all__ = ["Deployment", "init_deployment", "open_deployment"]
