"""Live credentials: real money moves only under a policy behind which enough different people stand.

One person may use a test key (``sk_test_``, ``rk_test_``), a simulator's, or another that does not say it is live.
"""

from __future__ import annotations

from collections.abc import Callable

from countermark.model.errors import ConfigError
from countermark.policy import Seats
from countermark.wiring.config import Config, resolve_secret
from countermark.wiring.settings import TEST_CHAINS

LIVE_PREFIXES = ("sk_live_", "rk_live_")
HINT = "See docs/people.md. A test key may be used by one person."


def is_live(secret: str, declared: bool) -> bool:
    """Whether a secret moves real money: it says so itself, or ``[connectors] live = true`` does for all of them."""
    return declared or secret.startswith(LIVE_PREFIXES)


def check_seats(seats: Seats) -> None:
    """Raises ``ConfigError`` (``not_enough_people``), which says who is missing."""
    lacking = seats.lacking()
    if lacking:
        raise ConfigError("a live credential is not used: " + "; ".join(lacking), code="not_enough_people", hint=HINT)


def credentials(config: Config) -> str:
    """What the deployment's credentials are, as far as they can be read from here: ``live``, ``test`` or ``none``.

    ``test`` says only that none of them says it is live.
    """
    api = [http.secret for http in config.http.values() if http.secret]
    own = [where for tools in config.tool_secrets.values() for where in tools.values()]
    if config.evm is not None and config.evm.accounts and not config.evm.chains.keys() <= TEST_CHAINS:
        return "live"
    found = config.evm is not None and bool(config.evm.accounts)
    for reference in (*config.secrets.values(), *own, *api):
        try:
            secret = resolve_secret(reference, config.root)
        except ConfigError:
            continue
        if is_live(secret, config.live):
            return "live"
        found = True
    return "test" if found else "none"


class LiveUse:
    """Asked each time that a secret is used. ``seats`` is set by whoever owns the gate; without one nothing is sent."""

    def __init__(self, declared: bool) -> None:
        self._declared = declared
        self.seats: Callable[[], Seats] = Seats

    def check_chain(self, chain_id: int) -> None:
        """Whether money may move on a chain now; a key does not say of itself what it moves."""
        if self._declared or chain_id not in TEST_CHAINS:
            check_seats(self.seats())

    def check(self, secret: str) -> str:
        """The secret, if it may be used now. Raises ``ConfigError`` (``not_enough_people``)."""
        if is_live(secret, self._declared):
            check_seats(self.seats())
        return secret
