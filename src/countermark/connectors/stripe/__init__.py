"""Stripe: transfers, refunds, payouts and two reads."""

from countermark.connectors.stripe.connector import BOOK, ORIGIN, ProviderError, StripeConnector
from countermark.connectors.stripe.drafts import DRAFTS, KEY_TTL_S, STRIPE_VERSION

__all__ = ["BOOK", "DRAFTS", "KEY_TTL_S", "ORIGIN", "STRIPE_VERSION", "ProviderError", "StripeConnector"]
