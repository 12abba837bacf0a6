"""Streams: which gap-free sequences a record stands in (``docs/spec/record.md``).

Every record stands in at least one. What the names of agents and runs hide would stand in the same record in clear, so
their streams are named by a plain digest: whoever looks for an agent's records knows where they would be, and can be
shown that there are none. An account's name is a keyed pseudonym.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from countermark.model.digest import STREAM, digest_of

GENERAL = "g"  # of every record that is about no agent's action: orders, policies, mandates, stops, publications
AGENT, RUN, ACCOUNT, NAME = "a", "r", "p", "w"
NAMES_CACHED_MAX = 16_384

_OF_AN_AGENT = ("action.", "run.", "escalation.", "request.", "compute.", "step.")
_OF_A_NAME = ("run.started", "run.ended")  # of a definition: they stand in the stream of its name too


@lru_cache(maxsize=NAMES_CACHED_MAX)
def stream_of(letter: str, value: str) -> str:
    """The stream of an agent (``a``), a run (``r``) or a definition's name (``w``)."""
    return f"{letter}.{digest_of(STREAM, [letter, value])[7:39]}"


def subjects_of(kind: str, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Letter and value of each subject whose stream a record stands in; none when it stands in the general one."""
    if not kind.startswith(_OF_AN_AGENT):
        return []
    found = [(AGENT, str(body["agent"]))]
    if body.get("run"):
        found.append((RUN, str(body["run"])))
    payee = (body.get("terms") or {}).get("payee")
    if payee is not None:
        found.append((ACCOUNT, payee))
    if kind in _OF_A_NAME and "workflow" in body:
        found.append((NAME, str(body["workflow"]["name"])))
    return found


_STREAMS = b',"streams":{'
_KIND = b'"kind":"'
_SEQ = b'"seq":'


def streams_of(raw: bytes) -> dict[str, list[Any]]:
    """The streams of a record's canonical bytes, without parsing the rest: they are the last member but the version."""
    start = raw.rindex(_STREAMS) + len(_STREAMS) - 1
    streams: dict[str, list[Any]] = orjson.loads(raw[start : raw.rindex(b',"v":')])
    return streams


def kind_of(raw: bytes) -> str:
    """The kind of a record's canonical bytes: it stands after the body, so it is the last member of that name."""
    start = raw.rindex(_KIND) + len(_KIND)
    return raw[start : raw.index(b'"', start)].decode("ascii")


def seq_of(raw: bytes) -> int:
    """The number of a record's canonical bytes: only names of streams come after it."""
    start = raw.rindex(_SEQ) + len(_SEQ)
    return int(raw[start : raw.index(b",", start)])


def time_of(raw: bytes) -> int:
    """The time of a record's canonical bytes: their first member."""
    return int(raw[len(b'{"at":') : raw.index(b",")])
