"""The vectors as histories: records and bundles out of a pack, for code that makes decisions again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from countermark.log import parse_entry_bundle
from countermark.model.records import Record, read
from countermark.policy import Bundle

FILES = Path(__file__).resolve().parent.parent / "vectors" / "files"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text("utf-8"))


def _whole(name: str) -> bool:
    """Whether a pack holds its whole log: what was made of a part is not made again from it."""
    with zipfile.ZipFile(FILES / name) as pack:
        return "records/index.json" not in pack.namelist()


WHOLE = frozenset(name for name in EXPECTED if EXPECTED[name]["verdict"] != "unreadable" and _whole(name))
HONEST = sorted(name for name in WHOLE if EXPECTED[name]["verdict"] == "verified")


def load(name: str) -> tuple[list[Record], Callable[[str], Bundle]]:
    """A pack's records, and its bundles by digest."""
    with zipfile.ZipFile(FILES / name) as pack:
        names = sorted(member for member in pack.namelist() if member.startswith("log/tile/entries/"))
        raws = [raw for member in names for raw in parse_entry_bundle(pack.read(member))]
        documents = {
            "sha256:" + member[7:-5]: json.loads(pack.read(member))
            for member in pack.namelist()
            if member.startswith("policy/")
        }
    bundles: dict[str, Bundle] = {}

    def bundle_of(digest: str) -> Bundle:
        if digest not in bundles:
            bundles[digest] = Bundle.from_document(documents[digest])
        return bundles[digest]

    return [read(raw) for raw in raws], bundle_of


@cache
def honest_with(kind: str) -> str:
    """The smallest honest vector that has a record of this kind."""
    sized = sorted(HONEST, key=lambda name: (FILES / name).stat().st_size)
    return next(name for name in sized if any(record.kind == kind for record in load(name)[0]))
