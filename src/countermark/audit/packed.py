"""The records of a pack, read as they stand: only ``countermark-verify`` says what they are worth."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from countermark.audit.rebuild import Sealed
from countermark.audit.zipped import MEMBER_BYTES_MAX, MEMBERS_MAX, PACK_BYTES_MAX, PackError, member_bytes_max
from countermark.model.canon import read_json
from countermark.model.records import Record, read

_WHOLE, _PART, _INDEX = "log/tile/entries/", "records/", "records/index.json"
_DISCLOSED = "disclosures.json"


class PackedRecords:
    """The records of a pack or an extract by seq, in memory."""

    def __init__(self, path: Path) -> None:
        """Raises ``PackError`` for what is no pack."""
        self._raws: dict[int, bytes] = {}
        self._fields: dict[int, list[tuple[str, str, Any]]] = {}
        try:
            if path.stat().st_size > PACK_BYTES_MAX:
                raise PackError(f"{path} is larger than a pack")
            with zipfile.ZipFile(path) as archive:
                self._read(archive)
        except (OSError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise PackError(f"{path} is no pack that can be read: {type(error).__name__}") from None
        if not self._raws:
            raise PackError(f"{path} holds no records")

    def _read(self, archive: zipfile.ZipFile) -> None:
        infos = archive.infolist()
        if len(infos) > MEMBERS_MAX or any(one.file_size > member_bytes_max(one.filename) for one in infos):
            raise PackError("the pack exceeds a bound of the format")
        names = {one.filename for one in infos}
        part = _INDEX in names
        seqs: Iterator[int] | range = range(PACK_BYTES_MAX)
        if part:
            ranges = read_json(archive.read(_INDEX), bytes_max=MEMBER_BYTES_MAX)["ranges"]
            seqs = (seq for low, high in ranges for seq in range(low, high))
        under = _PART if part else _WHOLE
        members = sorted((name for name in names if name.startswith(under) and name != _INDEX), key=_place)
        disclosed = read_json(archive.read(_DISCLOSED), bytes_max=MEMBER_BYTES_MAX) if _DISCLOSED in names else {}
        for row in disclosed.get("fields", ()):
            self._fields.setdefault(row["seq"], []).append((row["alias"], row["salt"], row["value"]))
        numbers = iter(seqs)
        for name in members:
            packed = archive.read(name)
            raw = _inflated(packed) if part else packed
            for entry in _entries(raw):
                self._raws[next(numbers)] = entry

    def size(self) -> int:
        """One more than the newest seq."""
        return max(self._raws) + 1

    def unseal(self, seq: int) -> Sealed | None:
        """What the pack discloses of a record."""
        found = self._fields.get(seq)
        return None if found is None else Sealed(tuple(found), None)

    def raw(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Seq and bytes of each record that is here."""
        for seq, raw in self._raws.items():
            if seq >= start and (stop is None or seq < stop):
                yield seq, raw

    def record(self, seq: int) -> Record:
        """The record. Raises ``PackError``: it is not in the pack."""
        if seq not in self._raws:
            raise PackError(f"record {seq} is not in this pack")
        return read(self._raws[seq])


def _place(name: str) -> int:
    """The number of a tile: ``x001/234.p/17`` is 1234."""
    number = name.partition(".p/")[0].removeprefix(_WHOLE).removeprefix(_PART)
    return int(number.replace("x", "").replace("/", ""))


def _inflated(raw: bytes) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    found = engine.decompress(raw, MEMBER_BYTES_MAX)
    if engine.unconsumed_tail or not engine.eof:
        raise PackError("the pack exceeds a bound of the format")
    return found


def _entries(raw: bytes) -> Iterator[bytes]:
    """A bundle: each entry after its length in two bytes."""
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 2], "big")
        if at + 2 + length > len(raw):
            raise PackError("a bundle of records is cut off")
        yield raw[at + 2 : at + 2 + length]
        at += 2 + length
