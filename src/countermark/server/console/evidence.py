"""The log as evidence: its heads and key, who outside has seen them, a pack to take away, and a pack to check."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from countermark.audit import Seen, newest_seen
from countermark.journal import SqliteStore, read_high_water
from countermark.log import open_checkpoint
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.server.console.jobs import CLI, VERIFIER, Bounds, Job, known
from countermark.server.console.roles import PROVE
from countermark.server.console.visit import Page, Reply, Visit
from countermark.server.wire import PACK_BYTES_MAX

HEADS = 10
PACK_RECORDS_MAX = 20_000
TRUST_BYTES_MAX = 65_536
LENGTH_BYTES = 4
LAST = 1 << 60
PACK, CHECK = "pack", "check"
FINDINGS_MAX = 20
EXPORTING = Bounds(time_s=300, cpu_s=300, file_bytes=PACK_BYTES_MAX)
CHECKING = Bounds(time_s=120, cpu_s=120, memory_bytes=2 << 30)
ZIP = b"application/zip"
_SIZE = re.compile(r"[1-9][0-9]{0,15}")


async def evidence(visit: Visit) -> Reply:
    """``GET /evidence``."""
    status = await visit.console.call("status")
    key, path = status["log_key"], visit.console.config.high_water

    def look(store: SqliteStore, unseal: Any) -> list[dict[str, Any]]:
        return [_head(size, note, key) for size, note in store.heads(LAST, HEADS)]

    bundle = await visit.console.gate.bundle()
    rule = bundle.compiled.witness

    def witnessed(store: SqliteStore, unseal: Any) -> Seen | None:
        return newest_seen(store, rule)

    heads, seen = await visit.console.read(look), await visit.console.read(witnessed)
    mark = read_high_water(path)
    return visit.html(
        "evidence.html", heads=heads, key=key, origin=visit.console.config.origin,
        mark=None if mark is None else {"size": mark.size, "root": _base64(mark.root)},
        seen=None if seen is None else [seen.said(), seen.offset()], wanted=rule is not None,
        records=status["records"], records_max=PACK_RECORDS_MAX, may_prove=PROVE in visit.may, **_jobs(visit),
    )  # fmt: skip


def _head(size: int, note: bytes, key: str) -> dict[str, Any]:
    """A signed head; ``signed`` says whether its signature is the log's, checked here."""
    try:
        root = base64.b64encode(open_checkpoint(note, [key]).root).decode()
    except CountermarkError:
        return {"size": size, "root": "", "signed": False}
    return {"size": size, "root": root, "signed": True}


def _base64(root: str) -> str:
    return base64.b64encode(bytes.fromhex(root)).decode()


def _jobs(visit: Visit) -> dict[str, Any]:
    pack = visit.console.jobs.get(PACK)
    made = pack is not None and not pack.running and pack.code == 0
    return {"pack": pack, "pack_made": pack.document() if pack is not None and made else None,
            "name": "" if pack is None or pack.path is None else pack.path.name}  # fmt: skip


async def progress(visit: Visit) -> Reply:
    """``GET /evidence/pack``: how far the pack is; polled while it is made."""
    return visit.html("evidence_pack.html", may_prove=PROVE in visit.may, records_max=PACK_RECORDS_MAX, **_jobs(visit))


async def make(visit: Visit) -> Reply:
    """``POST /evidence/pack``: begin a pack of exactly the records that a signed head of this size covers."""
    text = visit.form.get("size", "").strip().replace(",", "")
    if _SIZE.fullmatch(text) is None:
        raise ArgumentError("give the size of a signed head", field="size")
    size = int(text)
    near = await visit.console.read(lambda store, unseal: store.head_before(size))
    if near != size:
        hint = "" if near is None else f"The nearest smaller one has {near}."
        raise ArgumentError(f"there is no signed head of {size} records", field="size", hint=hint)
    if size > PACK_RECORDS_MAX:
        raise ArgumentError(
            f"a pack of more than {PACK_RECORDS_MAX:,} records is too large to make and fetch in a browser",
            field="size", hint=f"On the machine: countermark export PACK --at {size}",
        )  # fmt: skip
    await visit.console.call("log.read", {"reader": f"person:{visit.who.id}", "what": "export", "from": 0, "to": size})
    path = _folder(visit) / f"pack-{secrets.token_hex(8)}.zip"
    root = str(visit.console.config.root)
    arguments = ["-C", root, "export", str(path), "--at", str(size), "--json"]
    visit.console.jobs.start(PACK, visit.who.id, CLI, arguments, EXPORTING, path=path, told={"size": size})
    return visit.go("/evidence")


def _folder(visit: Visit) -> Path:
    path = visit.console.config.root / "cache"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


async def fetch(visit: Visit) -> Reply:
    """``GET /evidence/pack/{name}``: the pack that was made last."""
    job = known(visit.console.jobs.get(PACK))
    if job.running or job.code != 0 or job.path is None or job.path.name != visit.params["name"]:
        raise ArgumentError("there is no such pack any more", field="name", code="unknown_action",
                            hint="Make it again.")  # fmt: skip
    size = job.told["size"]
    if visit.who.id != job.person:  # whose reading is recorded already
        await visit.console.books.note(visit, f"pack:{job.path.name}", "export", 0, size)
    name = f"{visit.console.config.deployment}-{size}.zip"
    disposition = (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii"))
    return Reply(200, job.path.read_bytes(), (disposition, *visit.more), ZIP)


async def check(visit: Visit) -> Reply:
    """``POST /evidence/check``: verify a pack that somebody sends, in a process that can reach nothing of ours.

    The body is the length of the trust file in four bytes, the trust file, the pack.
    """
    raw = visit.raw
    length = int.from_bytes(raw[:LENGTH_BYTES], "big")
    trust, pack = raw[LENGTH_BYTES : LENGTH_BYTES + length], raw[LENGTH_BYTES + length :]
    if len(raw) < LENGTH_BYTES or length > TRUST_BYTES_MAX or not pack:
        raise ArgumentError("choose a pack; a trust file has at most 64 KiB", field="pack")
    name = secrets.token_hex(8)
    files = {_folder(visit) / f"check-{name}.zip": pack, _folder(visit) / f"trust-{name}.json": trust}
    job: Job | None = None
    try:
        for path, content in files.items():
            await asyncio.to_thread(_write, path, content)  # effects go on beside a slow disk
        paths = [str(path) for path in files]
        arguments = [paths[0], *(["--trust", paths[1]] if trust else []), "--json"]
        job = visit.console.jobs.start(CHECK, visit.who.id, VERIFIER, arguments, CHECKING, environment={"PATH": ""})
        await visit.console.jobs.finished(job, CHECKING.time_s + 1)
    finally:
        for path in files:
            path.unlink(missing_ok=True)
    return visit.html(
        "evidence_check.html", found=_verdict(job), job=job, trusted=bool(trust), findings_max=FINDINGS_MAX
    )


def _verdict(job: Job) -> Any:
    try:
        return json.loads(job.out) if job.out else None
    except ValueError:
        return None


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


PAGES = (
    Page("/evidence", evidence, nav="Evidence"),
    Page("/evidence/pack", progress, poll=True),
    Page("/evidence/pack", make, "POST", PROVE, form=("size",)),
    Page("/evidence/pack/{name}", fetch, needs=PROVE),
    Page("/evidence/check", check, "POST", raw=PACK_BYTES_MAX),
)
