"""V01: the zip file, read strictly (docs/spec/pack.md).

The directory is parsed here rather than by `zipfile`, whose tolerance (leading bytes, two directories, members that
overlap) is what a hostile pack would live on. Every byte of the file is either a member's data or a field checked here.
"""

import itertools
import mmap
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark_verify.errors import Unreadable

PACK_BYTES_MAX = 2**32 - 2
MEMBERS_MAX = 65_534
MANIFEST_BYTES_MAX = 24 * 1024**2
DISCLOSURES_BYTES_MAX = 16 * 1024**2
POLICY_BYTES_MAX = 16 * 1024**2
TEXT_BYTES_MAX = 1024**2
PAGE_BYTES_MAX = 2 * 1024**2
POPULATION_BYTES_MAX = 512 * 1024**2
PROOF_BYTES_MAX = 16 * 1024**2
MULTIPROOF_BYTES_MAX = 64 * 1024**2
HASH_TILE_BYTES_MAX = 256 * 32
ENTRIES_BYTES_MAX = 256 * (2 + 65_535)
NAME_CHARS_MAX = 128

MANIFEST = "manifest.sigstore.json"
CHECKPOINT = "log/checkpoint"
DISCLOSURES = "disclosures.json"
PAGE = "index.html"
POPULATION = "population.csv"
INDEX = "records/index.json"
MULTIPROOF = "log/multiproof"
_REQUIRED = (MANIFEST, CHECKPOINT, DISCLOSURES)
_NAMED = (*_REQUIRED, "README.txt", INDEX, MULTIPROOF, PAGE, POPULATION)

_NUMBER = r"((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
_TILE = re.compile(rf"log/tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/{_NUMBER}")
_POLICY = re.compile(r"policy/[0-9a-f]{64}\.json")
_RECORDS = re.compile(rf"records/{_NUMBER}")
_EPOCH = re.compile(r"epochs/(?:0|[1-9][0-9]{0,15})\.json")

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_DATE_1980 = 0x21  # 1980-01-01 in MS-DOS form; the time is 0
_TILE_WIDTH = 256
_TILE_INDEX_MAX = 2**40


@dataclass(frozen=True)
class _Entry:
    name: str
    shared: tuple[int, ...]  # version needed, flags, method, time, date, crc, both sizes: equal in the local header
    dressing: tuple[int, ...]  # version made by, version needed, flags, attributes: equal for all members
    offset: int
    size: int
    crc: int


def open_pack(pack: bytes | str | Path) -> "dict[str, memoryview]":
    """The members of a pack by name; raises `Unreadable` for anything that is not exactly such a file."""
    if isinstance(pack, bytes):
        return read_container(memoryview(pack))
    try:
        path = Path(pack)
        if not path.is_file():
            message = "it is a directory, not a pack" if path.is_dir() else "there is no such file"
            raise Unreadable("V01.file", message)
        if path.stat().st_size > PACK_BYTES_MAX:
            raise Unreadable("V01.bounds", f"the file is larger than {PACK_BYTES_MAX} bytes")
        with path.open("rb") as file:
            # Mapped, so that a whole population's pack is paged in as the records are read.
            return read_container(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise Unreadable("V01.file", f"the file cannot be read: {type(error).__name__}") from error


def read_container(data: memoryview) -> dict[str, memoryview]:
    """Members in file order. Errors: `Unreadable` with `V01.*`."""
    if len(data) > PACK_BYTES_MAX:
        raise Unreadable("V01.bounds", f"the file is larger than {PACK_BYTES_MAX} bytes")
    entries = _directory(data)
    members: dict[str, memoryview] = {}
    position = 0
    for entry in entries:
        if entry.offset != position:
            raise Unreadable("V01.zip", f"bytes outside members before {entry.name}")
        start = _local(data, entry)
        members[entry.name] = data[start : start + entry.size]
        position = start + entry.size
    if position != _end(data)[1]:
        raise Unreadable("V01.zip", "bytes outside members before the directory")
    for entry in entries:
        if zlib.crc32(members[entry.name]) != entry.crc:
            raise Unreadable("V01.crc", f"{entry.name} does not have the checksum of its header")
    for name in _REQUIRED:
        if name not in members:
            raise Unreadable("V01.missing", f"{name} is missing")
    return members


def _end(data: memoryview) -> tuple[int, int, int]:
    """(count, offset, size) of the central directory; the end record must be the file's last 22 bytes."""
    if len(data) < _END.size:
        raise Unreadable("V01.zip", "too short to be a zip file")
    signature, disk, disk_start, here, count, size, offset, comment = _END.unpack(data[-_END.size :])
    if signature != b"PK\x05\x06" or disk or disk_start or here != count or comment:
        raise Unreadable("V01.zip", "no end-of-directory record at the end of the file")
    if count > MEMBERS_MAX or count == 0xFFFF or offset == 0xFFFFFFFF or size == 0xFFFFFFFF:
        raise Unreadable("V01.bounds", "too many members, or zip64")
    if offset + size + _END.size != len(data):
        raise Unreadable("V01.zip", "the directory is not where the file says")
    return count, offset, size


def _directory(data: memoryview) -> list[_Entry]:
    count, position, size = _end(data)
    limit = position + size
    entries: list[_Entry] = []
    for _ in range(count):
        if position + _CENTRAL.size > limit:
            raise Unreadable("V01.zip", "the directory ends early")
        fields = _CENTRAL.unpack(data[position : position + _CENTRAL.size])
        position += _CENTRAL.size + fields[10]
        if position > limit:
            raise Unreadable("V01.zip", "the directory ends early")
        entries.append(_entry(fields, bytes(data[position - fields[10] : position])))
    if position != limit:
        raise Unreadable("V01.zip", "bytes after the directory's last entry")
    for before, after in itertools.pairwise(entries):
        if before.name >= after.name:
            raise Unreadable("V01.order", f"{after.name} is not in the order of names, or twice")
        # The specification leaves these fields open; equal everywhere, they carry nothing.
        if before.dressing != after.dressing:
            raise Unreadable("V01.member", f"{after.name} has attributes of its own")
    return entries


def _entry(fields: tuple[Any, ...], raw_name: bytes) -> _Entry:
    (
        signature,
        made,
        needed,
        flags,
        method,
        time,
        date,
        crc,
        packed,
        size,
        _,
        extra,
        comment,
        disk,
        inner,
        outer,
        at,
    ) = fields
    name = _name(raw_name)
    if signature != b"PK\x01\x02":
        raise Unreadable("V01.zip", "an entry of the directory is damaged")
    if method or packed != size or flags not in (0, 0x800):
        raise Unreadable("V01.member", f"{name} is compressed, encrypted or streamed")
    if extra or comment or disk or inner or time or date != _DATE_1980:
        raise Unreadable("V01.member", f"{name} has an extra field, a comment or another date")
    # Upper half: Unix mode; only a regular file (or none) is a member. Version 4.5 and above would mean zip64.
    if outer & 0xFFFF or (outer >> 16) & 0o170000 not in (0, 0o100000) or needed not in (10, 20) or made & 0xFF > 63:
        raise Unreadable("V01.member", f"{name} is not a plain stored file")
    if size > (most := bytes_max(name)):
        raise Unreadable("V01.bounds", f"{name} is larger than {most} bytes")
    shared = (needed, flags, method, time, date, crc, packed, size)
    return _Entry(name, shared, (made, needed, flags, outer), at, size, crc)


def bytes_max(name: str) -> int:
    """How large a member of this name may be: what its content can need, so that no other one has to be read."""
    if name.startswith("log/tile/"):
        return ENTRIES_BYTES_MAX if name.startswith("log/tile/entries/") else HASH_TILE_BYTES_MAX
    if name.startswith("policy/"):
        return POLICY_BYTES_MAX
    if name == POPULATION:
        return POPULATION_BYTES_MAX
    if name in (INDEX, MULTIPROOF) or name.startswith("epochs/"):
        return MULTIPROOF_BYTES_MAX if name == MULTIPROOF else PROOF_BYTES_MAX
    if name.startswith("records/"):
        return ENTRIES_BYTES_MAX
    return {MANIFEST: MANIFEST_BYTES_MAX, DISCLOSURES: DISCLOSURES_BYTES_MAX, PAGE: PAGE_BYTES_MAX}.get(
        name, TEXT_BYTES_MAX
    )


def _name(raw: bytes) -> str:
    if len(raw) > NAME_CHARS_MAX:
        raise Unreadable("V01.bounds", f"a name is longer than {NAME_CHARS_MAX} characters")
    try:
        name = raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise Unreadable("V01.name", "a name is not ASCII") from error
    if name in _NAMED or _POLICY.fullmatch(name) or _EPOCH.fullmatch(name) or tile_position(name):
        return name
    if _RECORDS.fullmatch(name) and tile_position(f"log/tile/entries/{name.removeprefix('records/')}"):
        return name
    raise Unreadable("V01.name", f"{name!a} is no member of a pack")


def _local(data: memoryview, entry: _Entry) -> int:
    """Where the member's data starts, once its local header says exactly what the directory says."""
    end = entry.offset + _LOCAL.size
    if end > len(data):
        raise Unreadable("V01.zip", f"{entry.name} lies outside the file")
    signature, *shared, name_size, extra = _LOCAL.unpack(data[entry.offset : end])
    start: int = end + name_size
    same_name = bytes(data[end:start]) == entry.name.encode()
    if signature != b"PK\x03\x04" or extra or not same_name or tuple(shared) != entry.shared:
        raise Unreadable("V01.member", f"{entry.name} has another local header than the directory says")
    if start + entry.size > len(data):
        raise Unreadable("V01.zip", f"{entry.name} lies outside the file")
    return start


def tile_position(name: str) -> tuple[str, int, int] | None:
    """(`entries` or level, index, width 1-256) of a tile's path, or None when it is not one (C2SP tlog-tiles)."""
    match = _TILE.fullmatch(name)
    if match is None:
        return None
    level, path, partial = match.groups()
    index = int(path.replace("x", "").replace("/", ""))
    width = int(partial) if partial else _TILE_WIDTH
    if index > _TILE_INDEX_MAX or tile_name(level, index, width) != name:
        return None
    return level, index, width


def tile_name(level: str, index: int, width: int) -> str:
    """The path of a tile; a width of 256 is a full one."""
    digits = f"{index:03d}"
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join(["x" + group for group in groups[:-1]] + groups[-1:])
    return f"log/tile/{level}/{path}" + (f".p/{width}" if width != _TILE_WIDTH else "")
