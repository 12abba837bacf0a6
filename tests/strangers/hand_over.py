"""What a pack holds, in the form that the judges beside this read; made with the standard library alone.

``python hand_over.py PACK VKEY bundle|envelope|tree`` prints JSON for judge_bundle.mjs, judge_dsse.py, and for judge.go
and judge_tlog.py; ``python hand_over.py PACK VKEY stamps FOLDER`` writes the text and the token of every time stamp.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PLACES = 12  # at which a record is held against the tree
SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before an Ed25519 key in its DER


def public_of(vkey: str) -> bytes:
    return base64.b64decode(vkey.split("+", 2)[2])[1:]


def manifest(pack: zipfile.ZipFile) -> Any:
    return json.loads(pack.read("manifest.sigstore.json"))


def bundle(pack: zipfile.ZipFile, vkey: str) -> list[Any]:
    der = base64.b64encode(SPKI + public_of(vkey)).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"
    return [{"bundle": manifest(pack), "hint": vkey.split("+")[0], "pem": pem}]


def envelope(pack: zipfile.ZipFile, vkey: str) -> list[Any]:
    found = manifest(pack)["dsseEnvelope"]
    return [{"envelope": found, "keyid": vkey.split("+")[0], "public": public_of(vkey).hex()}]


def entries(pack: zipfile.ZipFile) -> Iterator[bytes]:
    """Every record of a whole pack, in order."""
    for name in sorted(name for name in pack.namelist() if name.startswith("log/tile/entries/")):
        data, position = pack.read(name), 0
        while position < len(data):
            end = position + 2 + int.from_bytes(data[position : position + 2], "big")
            yield data[position + 2 : end]
            position = end


def tree(pack: zipfile.ZipFile, vkey: str) -> list[Any]:
    """Head, hash tiles, and some records with their audit paths (RFC 6962, section 2.1.1)."""
    leaves = list(entries(pack))
    hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]

    def split(low: int, high: int) -> int:
        return low + (1 << (high - low - 1).bit_length() - 1)

    @cache
    def root(low: int, high: int) -> bytes:
        if high - low == 1:
            return hashes[low]
        middle = split(low, high)
        return hashlib.sha256(b"\x01" + root(low, middle) + root(middle, high)).digest()

    def path(place: int, low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = split(low, high)
        if place < middle:
            return [*path(place, low, middle), root(middle, high)]
        return [*path(place, middle, high), root(low, middle)]

    names = [name for name in pack.namelist() if name.startswith("log/tile/") and "/entries/" not in name]
    places = sorted({0, len(leaves) - 1, *range(0, len(leaves), len(leaves) // PLACES + 1)})
    return [
        {
            "Vkey": vkey,
            "Note": pack.read("log/checkpoint").decode(),
            "Tiles": {name.removeprefix("log/"): text(pack.read(name)) for name in names},
            "Leaves": {str(at): text(leaves[at]) for at in places},
            "Inclusion": {str(at): [text(one) for one in path(at, 0, len(leaves))] for at in places},
            "Consistency": {},
        }
    ]


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def stamps(pack: zipfile.ZipFile, vkey: str, folder: Path) -> list[str]:
    """``text-N`` and ``token-N`` for `openssl ts -verify`, N being the record's place."""
    found = []
    for record in map(json.loads, entries(pack)):
        if record["kind"] != "head.stamped":
            continue
        body, place = record["body"], record["seq"]
        said = f"{vkey.split('+')[0]}\n{body['size']}\n{text(bytes.fromhex(body['root']))}\n"
        (folder / f"text-{place}").write_text(said, "utf-8")
        (folder / f"token-{place}").write_bytes(base64.b64decode(body["token"]))
        found.append(str(place))
    return found


def main(path: str, vkey: str, what: str, folder: str = ".") -> None:
    with zipfile.ZipFile(path) as pack:
        made = {"bundle": bundle, "envelope": envelope, "tree": tree}
        print(json.dumps(stamps(pack, vkey, Path(folder)) if what == "stamps" else made[what](pack, vkey)))


if __name__ == "__main__":
    main(*sys.argv[1:])
