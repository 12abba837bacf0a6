"""A loopback SIMULATOR of Stripe's HTTP contract, for tests and the demo. It is not Stripe; no money moves.

It is meant to be strict where a wrong client would lose money (idempotency keys and their 24 hours, stored errors,
over-refunds, insufficient funds, unknown parameters) and to fail on a seeded schedule. It has no fees, no currency
conversion, no Connect onboarding; of Issuing only the question by webhook; charges are available at once; nothing can
be expanded.
"""

from countermark.twins.stripe.books import Books, Movement
from countermark.twins.stripe.faults import FAULTS, Faults
from countermark.twins.stripe.process import StripeTwin
from countermark.twins.stripe.webhooks import signature

__all__ = ["FAULTS", "Books", "Faults", "Movement", "StripeTwin", "signature"]
