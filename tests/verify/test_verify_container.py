"""V01: every way in which a zip file can be more than its members makes a pack unreadable."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from verify_builder import story
from verify_bytes import zipped

from countermark_verify import verify
from countermark_verify.container import read_container
from countermark_verify.errors import Unreadable


@cache
def honest() -> bytes:
    return story().pack()


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(honest())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(**changes: object) -> bytes:
    """Every member again through `zipfile`, with other header fields for the first one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, (name, data) in enumerate(sorted(members().items())):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            for field, value in changes.items() if index == 0 else ():
                setattr(info, field, value)
            archive.writestr(info, data)
    return buffer.getvalue()


def with_member(name: str, data: bytes = b"x") -> bytes:
    return zipped(members() | {name: data})


def twice() -> bytes:
    buffer = io.BytesIO(honest())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(zipfile.ZipInfo("README.txt", (1980, 1, 1, 0, 0, 0)), b"second")
    return buffer.getvalue()


def patched(offset: int, data: bytes) -> bytes:
    at = offset % len(honest())
    return honest()[:at] + data + honest()[at + len(data) :]


def hole() -> bytes:
    """A byte between the last member and the directory, with the end record adjusted."""
    data = honest()
    offset = struct.unpack("<I", data[-6:-2])[0]
    return data[:offset] + b"!" + data[offset:-6] + struct.pack("<IH", offset + 1, 0)


def renamed_locally() -> bytes:
    """The first local header carries another name than the directory."""
    at = honest().index(b"README.txt")
    return honest()[:at] + b"README.tx_" + honest()[at + 10 :]


def unsorted() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members(), reverse=True):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            archive.writestr(info, members()[name])
    return buffer.getvalue()


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty file": ("V01.zip", lambda: b""),
    "not a zip": ("V01.zip", lambda: b"%PDF-1.7" * 20),
    "empty archive": ("V01.missing", lambda: b"PK\x05\x06" + bytes(18)),
    "leading bytes": ("V01.zip", lambda: b"#!" + honest()),
    "trailing bytes": ("V01.zip", lambda: honest() + b"\n"),
    "archive comment": ("V01.zip", lambda: honest()[:-2] + b"\x01\x00!"),
    "hole before the directory": ("V01.zip", hole),
    "truncated": ("V01.zip", lambda: honest()[:-1]),
    "deflated": ("V01.member", lambda: rewritten(compress_type=zipfile.ZIP_DEFLATED)),
    "extra field": ("V01.member", lambda: rewritten(extra=b"\xfe\xca\x00\x00")),
    "member comment": ("V01.member", lambda: rewritten(comment=b"c")),
    "another date": ("V01.member", lambda: rewritten(date_time=(1981, 1, 1, 0, 0, 0))),
    "symbolic link": ("V01.member", lambda: rewritten(external_attr=0o120777 << 16)),
    "attributes of its own": ("V01.member", lambda: rewritten(external_attr=0o644 << 16)),
    "two names": ("V01.member", renamed_locally),
    "unsorted": ("V01.order", unsorted),
    "a name twice": ("V01", twice),
    "unknown name": ("V01.name", lambda: with_member("notes.txt")),
    "climbing name": ("V01.name", lambda: with_member("../escape")),
    "absolute name": ("V01.name", lambda: with_member("/etc/passwd")),
    "directory": ("V01.name", lambda: with_member("policy/")),
    "name not ASCII": ("V01", lambda: with_member("pölicy")),
    "name too long": ("V01.bounds", lambda: with_member("a" * 129)),
    "no manifest": (
        "V01.missing",
        lambda: zipped({k: v for k, v in members().items() if k != "manifest.sigstore.json"}),
    ),
    "wrong checksum": ("V01.crc", lambda: patched(honest().index(b"An evidence"), b"a")),
    "zip64 count": ("V01.bounds", lambda: patched(-14, b"\xff\xff\xff\xff")),
    "count too large": ("V01.zip", lambda: patched(-14, b"\xfe\xff\xfe\xff")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_container_is_refused(case: str) -> None:
    """The verdict is unreadable with the code of the reason, and no later step has run."""
    code, make = CASES[case]
    report = verify(make())
    assert report.verdict == "unreadable"
    assert report.exit == 3
    assert report.codes()[0].startswith(code)
    assert {step.status for step in report.steps[1:]} == {"skipped"}


def test_the_honest_container_has_its_members() -> None:
    """What was stored is what is read, byte for byte."""
    found = read_container(memoryview(honest()))
    assert {name: bytes(data) for name, data in found.items()} == members()


def test_every_single_byte_of_the_container_counts() -> None:
    """Flipping a bit in any header byte of a small archive makes it unreadable: no byte is outside the checks."""
    data = zipped(dict.fromkeys(("disclosures.json", "log/checkpoint", "manifest.sigstore.json"), b"x"))
    assert len(read_container(memoryview(data))) == 3
    accepted = []
    for at in range(len(data)):
        for bit in (1, 0x40):
            mutant = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                read_container(memoryview(mutant))
            except Unreadable:
                continue
            accepted.append((at, bit))
    assert accepted == []


def test_a_path_that_is_no_file_is_unreadable(tmp_path: Path) -> None:
    """A missing file, a directory and an empty file are reports, not exceptions."""
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "empty", "bad\0name"):
        assert verify(path).verdict == "unreadable"
