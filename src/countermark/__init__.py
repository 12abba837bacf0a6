"""Countermark: the second stamp for autonomous agents that move money."""

__version__ = "0.1.0"
