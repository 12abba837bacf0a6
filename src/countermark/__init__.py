"""Countermark: the second stamp for autonomous agents that move money.

``countermark.open(dir)`` opens a deployment, ``countermark.Client(url, token)`` speaks to one that is served; ``act``
asks for one governed action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from countermark.client import Client
    from countermark.model.errors import CountermarkError
    from countermark.model.values import Receipt, Result
    from countermark.wiring.deployment import Deployment
    from countermark.wiring.deployment import open_deployment as open

__version__ = "0.1.0"
__all__ = ["Client", "CountermarkError", "Deployment", "Receipt", "Result", "open"]


def __getattr__(name: str) -> Any:
    """Load rooms only when they are used: ``countermark --help`` must not wait for them."""
    if name in ("open", "Deployment"):
        from countermark.wiring import deployment

        return deployment.open_deployment if name == "open" else deployment.Deployment
    if name == "Client":
        from countermark.client import Client

        return Client
    if name in ("Receipt", "Result"):
        from countermark.model import values

        return getattr(values, name)
    if name == "CountermarkError":
        from countermark.model.errors import CountermarkError

        return CountermarkError
    raise AttributeError(name)
