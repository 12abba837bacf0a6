"""``[stripe]`` of ``countermark.toml``: what Stripe sends to us, and which card belongs to which agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from countermark.model.errors import ConfigError
from countermark.model.values import NAME
from countermark.wiring.custody import FORMS, is_reference

SECRETS_MAX = 8
CARDS_MAX = 10_000
TOLERANCE_S = 300  # Stripe's own default
TOLERANCE_S_MAX = 3_600
_KEYS = ("webhook_secrets", "tolerance_s", "cards")
_CARD = re.compile(r"(ic|ich)_[A-Za-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """``webhook_secrets`` are references (several while one replaces another); ``cards`` map a card's or cardholder's
    id to the agent whose mandate its payments need. ``tolerance_s``: how far a signature's time may be from ours.
    """

    webhook_secrets: tuple[str, ...] = ()
    tolerance_s: int = TOLERANCE_S
    cards: Mapping[str, str] = field(default_factory=dict)


def read_stripe(section: object, file: str) -> StripeSettings:
    """The section as settings. Raises ``ConfigError`` naming the file and the wrong key."""
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: stripe must be a table")
    if unknown := section.keys() - set(_KEYS):
        raise ConfigError(f"{file}: unknown key stripe.{min(unknown)}", hint=f"Known: {', '.join(_KEYS)}.")
    references = section.get("webhook_secrets", [])
    if type(references) is not list or len(references) > SECRETS_MAX:
        raise ConfigError(f"{file}: stripe.webhook_secrets must be a list of at most {SECRETS_MAX} references")
    if not all(map(is_reference, references)):
        raise ConfigError(f"{file}: stripe.webhook_secrets takes {FORMS}, never a secret itself")
    tolerance = section.get("tolerance_s", TOLERANCE_S)
    if type(tolerance) is not int or not 1 <= tolerance <= TOLERANCE_S_MAX:
        raise ConfigError(f"{file}: stripe.tolerance_s must be an integer from 1 to {TOLERANCE_S_MAX}")
    cards = section.get("cards", {})
    if not isinstance(cards, dict) or len(cards) > CARDS_MAX:
        raise ConfigError(f"{file}: stripe.cards must be a table of at most {CARDS_MAX} cards")
    for card, agent in cards.items():
        if _CARD.fullmatch(card) is None or type(agent) is not str or NAME.fullmatch(agent) is None:
            raise ConfigError(f'{file}: stripe.cards takes lines such as "ic_123" = "agent"')
    return StripeSettings(tuple(references), tolerance, dict(cards))
