"""What wiring hands to a gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countermark.gate.epochs import OpenReader
from countermark.gate.prepare import Pseudonyms
from countermark.gate.writer import Writer
from countermark.log import TileRoots
from countermark.model.ports import Clock, Connector, Destination


@dataclass(frozen=True, slots=True)
class Parts:
    """``started`` is the body of ``gate.started``, without what the journal knows.

    ``tiles`` is what ``open_writer`` gives to its writers: others take from it what they would otherwise hash again.
    """

    deployment: str
    open_writer: Callable[[], Writer]
    connectors: Mapping[str, Connector]
    pseudonym: Pseudonyms
    clock: Clock
    high_water: Path
    started: Mapping[str, Any]
    open_reader: OpenReader
    destinations: tuple[Destination, ...] = ()
    tiles: TileRoots = field(default_factory=TileRoots)
