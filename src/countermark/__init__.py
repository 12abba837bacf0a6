"""Countermark: the second stamp for autonomous agents that move money.

``countermark.open(dir)`` opens a deployment; ``Deployment.act`` asks for one governed action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from countermark.model.errors import CountermarkError
from countermark.model.values import Receipt, Result

if TYPE_CHECKING:
    from countermark.wiring.deployment import Deployment
    from countermark.wiring.deployment import open_deployment as open

__version__ = "0.1.0"
__all__ = ["CountermarkError", "Deployment", "Receipt", "Result", "open"]


def __getattr__(name: str) -> Any:
    """Load the heavy rooms only when they are used."""
    if name in ("open", "Deployment"):
        from countermark.wiring import deployment

        return deployment.open_deployment if name == "open" else deployment.Deployment
    raise AttributeError(name)
