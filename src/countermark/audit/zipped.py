"""A zip file of stored members, in the one form that a pack has (``docs/spec/pack.md``).

The format ends where its 32-bit fields end, just below 4 GiB. `zipfile` goes over to zip64 at half of that, which a
pack never uses, so the three structures of the format are written here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import IO

from countermark.model.errors import CountermarkError

PACK_BYTES_MAX = 2**32 - 2  # 0xFFFFFFFF in a size or an offset announces zip64
MEMBERS_MAX = 65_534  # likewise: the count is a uint16
MEMBER_BYTES_MAX = 64 << 20
POPULATION_BYTES_MAX = 512 << 20  # a line of at most a few hundred bytes for each action
NAME_CHARS_MAX = 128

POPULATION = "population.csv"

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_UNIX = 3
_DATE_1980 = 0x21  # the earliest date that a zip can hold: 1 January 1980, 00:00
_MODE = 0o100644 << 16


class PackError(CountermarkError):
    """A pack cannot be made: its parts contradict each other or exceed a bound, or the file cannot be written."""

    code = "bad_pack"


def member_bytes_max(name: str) -> int:
    """How long a member of this name may be, in bytes."""
    return POPULATION_BYTES_MAX if name == POPULATION else MEMBER_BYTES_MAX


def write_zip(file: IO[bytes], members: Mapping[str, Callable[[], bytes]]) -> None:
    """Members in byte order of their names, each made when its turn comes. Raises ``PackError`` beyond a bound."""
    if len(members) > MEMBERS_MAX:
        raise PackError(f"a pack of these records needs more than {MEMBERS_MAX} members")
    directory: list[bytes] = []
    offset = listed = 0
    for name in sorted(members):
        raw, text = members[name](), name.encode("ascii")
        entry = _LOCAL.size + len(text) + len(raw)
        listed += _CENTRAL.size + len(text)
        if (
            len(raw) > member_bytes_max(name)
            or len(text) > NAME_CHARS_MAX
            or offset + entry + listed + _END.size > PACK_BYTES_MAX
        ):
            raise PackError("a pack of these records exceeds a bound of the format")
        # Flags, method (stored), time, date, checksum, both sizes, lengths of name and of extra fields.
        shared = (0, 0, 0, _DATE_1980, zlib.crc32(raw), len(raw), len(raw), len(text), 0)
        file.write(_LOCAL.pack(b"PK\x03\x04", _VERSION, *shared))
        file.write(text)
        file.write(raw)
        made = _UNIX << 8 | _VERSION
        directory.append(_CENTRAL.pack(b"PK\x01\x02", made, _VERSION, *shared, 0, 0, 0, _MODE, offset) + text)
        offset += entry
    file.write(b"".join(directory))
    file.write(_END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), listed, offset, 0))
