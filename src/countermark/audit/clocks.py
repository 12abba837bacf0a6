"""How far this deployment's clock was from those of authorities of time, as its records measured it.

The records' own times stand beside: ``asked`` and ``answered`` are the gate's word.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from countermark.journal import SqliteStore
from countermark.log import Offset, offset_of
from countermark.model.errors import ConfigError
from countermark.model.records import read
from countermark.publish import StampError, read_token

_MARK = b'"kind":"head.stamped"'


@dataclass(frozen=True, slots=True)
class Compared:
    """The newest comparison with one clock: whose, when by ours (microseconds), and what it bounds.

    ``offset`` is None for a time stamp that cannot be read here, since the extra ``stamp`` is missing.
    """

    clock: str
    at: int
    offset: Offset | None


def compared(store: SqliteStore) -> list[Compared]:
    """The newest comparison with each authority, sorted by name."""
    found: dict[str, Compared] = {}
    for _, raw in store.raw(0, store.size()):
        # The same text may stand in another record's body, so it only says which records to read.
        if _MARK not in raw or (record := read(raw)).kind != "head.stamped":
            continue
        body = record.body
        try:
            token = read_token(base64.b64decode(body["token"], validate=True))
        except ConfigError:
            offset = None
        except (StampError, binascii.Error):
            continue  # whoever verifies says so; it measures nothing
        else:
            offset = offset_of(body["asked"], body["answered"], token.earliest, token.latest)
        found[body["authority"]] = Compared(body["authority"], body["answered"], offset)
    return [found[name] for name in sorted(found)]
