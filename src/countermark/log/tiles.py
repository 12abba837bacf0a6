"""C2SP tlog-tiles: the tree and its entries as files that never change once they are full.

A tile holds up to 256 hashes of every eighth level of the tree; an entry bundle holds up to 256 entries. The last one
of a level is partial and says its width in its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from countermark.log.tree import TILE_HEIGHT, pair_up
from countermark.model.errors import EncodingError

TILE_WIDTH = 1 << TILE_HEIGHT
LEVEL_MAX = 7  # 8 levels of 256 cover 2^64 leaves; C2SP allows names up to 63, which no log can reach
ENTRY_BYTES_MAX = 65_535  # an entry's length is a big-endian uint16


def tile_path(level: int | Literal["entries"], index: int, width: int = TILE_WIDTH) -> str:
    """Path of a hash tile, or of an entry bundle when ``level`` is ``"entries"``: ``tile/0/x001/x234/067.p/8``.

    ``width`` is how many hashes or entries it holds, 1 to 256; below 256 the path gets ``.p/WIDTH``.
    """
    if level != "entries" and not (type(level) is int and 0 <= level <= LEVEL_MAX):
        raise EncodingError("no such tile level")
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise EncodingError("no such tile")
    rest, last = divmod(index, 1000)
    path = f"{last:03d}"
    while rest:
        rest, part = divmod(rest, 1000)
        path = f"x{part:03d}/{path}"
    return f"tile/{level}/{path}" + (f".p/{width}" if width < TILE_WIDTH else "")


def tiles(hashes: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Every hash tile of the tree over these leaf hashes, as (path, bytes), level by level."""
    level = 0
    row = list(hashes)
    while row:
        above = []
        for start in range(0, len(row), TILE_WIDTH):
            tile = row[start : start + TILE_WIDTH]
            yield tile_path(level, start // TILE_WIDTH, len(tile)), b"".join(tile)
            if len(tile) == TILE_WIDTH:
                while len(tile) > 1:
                    tile = pair_up(tile)
                above.append(tile[0])
        row = above
        level += 1


def entry_bundles(records: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Every entry bundle of these records, as (path, bytes). Raises ``EncodingError`` for an entry over 65,535 B."""
    for start in range(0, len(records), TILE_WIDTH):
        chunk = records[start : start + TILE_WIDTH]
        yield tile_path("entries", start // TILE_WIDTH, len(chunk)), entry_bundle(chunk)


def entry_bundle(records: Sequence[bytes]) -> bytes:
    """The bytes of one entry bundle: each entry after its length, a big-endian uint16."""
    if len(records) > TILE_WIDTH:
        raise EncodingError(f"an entry bundle holds at most {TILE_WIDTH} entries")
    parts: list[bytes] = []
    for raw in records:
        if len(raw) > ENTRY_BYTES_MAX:
            raise EncodingError(f"an entry is longer than {ENTRY_BYTES_MAX} bytes")
        parts += (len(raw).to_bytes(2, "big"), raw)
    return b"".join(parts)


def parse_entry_bundle(raw: bytes) -> list[bytes]:
    """Inverse of ``entry_bundle``. Raises ``EncodingError`` when it is cut off, empty or holds more than 256."""
    found: list[bytes] = []
    at, end = 0, len(raw)
    while at < end:
        if len(found) == TILE_WIDTH:
            raise EncodingError(f"an entry bundle holds more than {TILE_WIDTH} entries")
        start = at + 2
        at = start + int.from_bytes(raw[at:start], "big")
        if start > end or at > end:
            raise EncodingError("an entry bundle ends within an entry")
        found.append(raw[start:at])
    if not found:
        raise EncodingError("an entry bundle is empty")
    return found
