"""Stripe: transfers, refunds, payouts, payment intents, reads; and card payments that wait for an answer."""

from countermark.connectors.stripe.connector import BOOK, ORIGIN, ProviderError, StripeConnector
from countermark.connectors.stripe.drafts import DRAFTS, KEY_TTL_S, STRIPE_VERSION
from countermark.connectors.stripe.issuing import APPROVE, IssuingConnector

__all__ = [
    "APPROVE",
    "BOOK",
    "DRAFTS",
    "KEY_TTL_S",
    "ORIGIN",
    "STRIPE_VERSION",
    "IssuingConnector",
    "ProviderError",
    "StripeConnector",
]
