"""Where this deployment's heads are published: destinations from the configuration and the policy in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from countermark.journal import LogView, SqliteStore
from countermark.log import TileRoots
from countermark.model.clock import US
from countermark.model.ports import Clock, Destination
from countermark.policy import Bundle, Seats
from countermark.publish import Witnesses, WitnessRule
from countermark.wiring.anchoring import anchor_of
from countermark.wiring.config import Config
from countermark.wiring.log_keys import second_signer
from countermark.wiring.stamp_settings import stamps_of


@dataclass(slots=True)
class Surroundings:
    """What a destination is made from. ``seats`` is set when the gate is there: the policy in force changes.

    ``tiles`` is where the gate's writer leaves the roots of full tiles.
    """

    config: Config
    clock: Clock
    seats: Callable[[], Seats] = Seats
    tiles: TileRoots = field(default_factory=TileRoots)

    def bundle(self) -> Bundle | None:
        """The policy in force now, asked from any thread; None before the gate has read its journal."""
        return self.seats().bundle


def _witnesses(surroundings: Surroundings) -> Destination:
    """The witnesses of the policy in force, whichever it is by then."""
    config = surroundings.config

    def rule() -> WitnessRule | None:
        bundle = surroundings.bundle()
        found = None if bundle is None else bundle.compiled.witness
        return None if found is None else WitnessRule(found.policy, found.stale_after_s * US)

    def view() -> LogView:
        return LogView(SqliteStore(config.journal, readonly=True), surroundings.tiles)

    return Witnesses(rule, config.deployment, view, surroundings.clock, second=second_signer(config))


Maker = Callable[[Surroundings], Destination | None]
MAKERS: tuple[Maker, ...] = (  # each makes one destination, or None where nothing asks for it
    _witnesses,
    lambda one: anchor_of(one.config, one.clock),
)


def destinations_of(surroundings: Surroundings) -> tuple[Destination, ...]:
    """Every destination that configuration or policy may ask for."""
    made = (maker(surroundings) for maker in MAKERS)
    stamps = (stamps_of(one, surroundings.clock) for one in surroundings.config.stamps)
    return (*(one for one in made if one is not None), *stamps)
