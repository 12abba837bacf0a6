"""The names of streams, and a record's streams read without the rest of it (docs/spec/record.md)."""

import json
from functools import lru_cache
from typing import Any

from countermark_verify import canon

GENERAL = "g"
NAMES_MAX = 16_384

_STREAMED = ("action.", "run.", "escalation.", "request.", "compute.", "step.")
_OF_A_NAME = ("run.started", "run.ended")  # of a definition: they stand in the stream of its name
_STREAMS = b',"streams":{'


@lru_cache(maxsize=NAMES_MAX)
def stream_of(letter: str, name: str) -> str:
    """The stream of an agent (`a`), a run (`r`) or a workflow's name (`w`); an account's (`p`) is a keyed pseudonym."""
    return f"{letter}.{canon.digest('stream', canon.render([letter, name]))[7:39]}"


def skim(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Time and streams of a record that was parsed before: its first member, and the last but the version."""
    start = raw.rindex(_STREAMS) + len(_STREAMS) - 1
    return int(raw[len(b'{"at":') : raw.index(b",")]), json.loads(raw[start : raw.rindex(b',"v":')])


def names(record: dict[str, Any]) -> dict[str, str]:
    """Stream class -> the name it stands for; a refused action may have names that are unknown ("")."""
    if not of_a_run(record["kind"]):
        return {GENERAL: GENERAL}
    body = record["body"]
    names = {"a": body["agent"], "r": body["run"]}
    payee = body.get("terms", {}).get("payee")
    if payee is not None:
        names["p"] = payee
    if record["kind"] in _OF_A_NAME and "workflow" in body:
        names["w"] = body["workflow"]["name"]
    return names


def of_a_run(kind: str) -> bool:
    """Is a record of this kind about an action or a run? The log itself depends on none of them."""
    return kind.startswith(_STREAMED)


def required(names: dict[str, str]) -> set[str]:
    return {letter for letter, name in names.items() if name}
