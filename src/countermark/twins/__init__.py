"""Floor 4: seeded simulators of providers. Each says what it is; none moves money."""

from countermark.twins.stripe import FAULTS, Books, Faults, Movement, StripeTwin, signature

__all__ = ["FAULTS", "Books", "Faults", "Movement", "StripeTwin", "signature"]
