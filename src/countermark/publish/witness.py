"""A witness: what it says to a head that a log shows it, and what it remembers.

It cosigns a head only when that extends the newest one it cosigned for the same log; the newer one is durable in its
own directory before the answer leaves. What it refused, and what a log has to explain, is kept.

    DIR/witness.json      its name
    DIR/witness.pem       its key, mode 0600
    DIR/logs/ID.json      a log that it cosigns for: origin and verifier keys
    DIR/heads/ID.note     the newest head that it cosigned, with both signatures
    DIR/refused/ID/...    heads that contradict it

ID is the SHA-256 of the origin, in hex.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from countermark.authority import generate, load_private, save_private
from countermark.log import (
    EMPTY_ROOT,
    Checkpoint,
    Cosigner,
    check_name,
    open_checkpoint,
    parse_vkey,
    read_checkpoint,
    read_cosignatures,
    unb64,
    verify_consistency,
    with_lines,
)
from countermark.model.canon import read_json
from countermark.model.clock import US
from countermark.model.crash import crash_point
from countermark.model.errors import ConfigError, EncodingError, ProofError, SignatureError, StoreError
from countermark.model.ports import Clock
from countermark.publish.exchange import SIZE_TYPE, Submission, parse_submission, render_size, text_of
from countermark.publish.files import replace_file

LOGS_MAX = 256
LOG_KEYS_MAX = 16
KEPT_MAX = 32  # refused heads of one log and one kind: the first ones, which are those that convict
KEPT_BYTES_MAX = 400_000  # one of them: a request and the head it contradicts
FILE_BYTES_MAX = 65_536
PLAIN = "text/plain; charset=utf-8"

log = logging.getLogger("countermark.witness")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a witness answers: an HTTP status, a body and its media type."""

    status: int
    body: bytes
    media: str = PLAIN


@dataclass(frozen=True, slots=True)
class Held:
    """The newest head that was cosigned for a log; ``note`` is empty before the first; ``at_s`` is when."""

    size: int
    root: bytes
    note: bytes
    at_s: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A head that is not cosigned. ``kind`` names what the log has to explain; empty when that is nothing."""

    reply: Reply
    kind: str = ""


_HASH = re.compile(r"[0-9a-f]{64}")
NOTHING_HELD = Held(0, EMPTY_ROOT, b"")


def judge(asked: Submission, head: Checkpoint, held: Held) -> Refusal | None:
    """Whether a head that its log signed follows the one that was cosigned last: None when it does.

    The order of the checks and their status codes are those of C2SP tlog-witness.
    """
    if asked.old > head.size:
        return Refusal(_plain(400, "the old size is larger than the checkpoint's"))
    kind = _explain(head, held)
    if asked.old != held.size:
        return Refusal(Reply(409, render_size(held.size), SIZE_TYPE), kind)
    try:
        verify_consistency(asked.old, head.size, held.root, head.root, asked.proof)
    except ProofError as error:
        return Refusal(_plain(422, error.message), kind or ("unproven" if head.size > held.size > 0 else ""))
    return None


def _explain(head: Checkpoint, held: Held) -> str:
    """What a signed head says by itself, whatever came with it, and whoever brought it.

    Two heads of one size with different roots convict whoever holds the log's key. A smaller head may be an old one
    that somebody kept, and an unproven one somebody's bad proof for a good head: those the log has to explain.
    """
    if head.size < held.size:
        return "smaller"
    return "split" if head.size == held.size and head.root != held.root else ""


def _at_written() -> None:
    crash_point("witness.written")


def _plain(status: int, text: str) -> Reply:
    return Reply(status, f"{text}\n".encode())


class Witness:
    """A witness over its own directory. Safe to use from many threads; one process at a time may ``claim`` it."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises ``ConfigError`` or ``SignatureError`` when the directory is not a witness's."""
        self._folder = folder
        self._clock = clock
        self.name = _name_of(folder)
        self._cosigner = Cosigner(self.name, load_private(folder / "witness.pem"))
        self._lock = threading.Lock()
        self._claimed = -1

    @property
    def vkey(self) -> str:
        """Its verifier key, for the policies of those who rely on it."""
        return self._cosigner.vkey

    def claim(self) -> None:
        """Be the one process that answers from this directory, until ``close``. Raises ``ConfigError``."""
        handle = os.open(self._folder / "witness.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise ConfigError("another process serves this witness", code="owner_lives") from None
        self._claimed = handle

    def close(self) -> None:
        """Let others claim it."""
        if self._claimed >= 0:
            os.close(self._claimed)
            self._claimed = -1

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer a request. What it cosigns is durable before this returns.

        Raises:
            StoreError: the directory cannot be read or written; nothing was cosigned.
        """
        try:
            asked = parse_submission(body)
            origin = read_checkpoint(asked.note).origin
        except SignatureError as error:
            return _plain(400, error.message)
        with self._lock:
            keys = self.keys_of(origin)
            if not keys:
                return _plain(404, "this witness does not know that log")
            try:
                head = open_checkpoint(asked.note, keys)
            except SignatureError as error:
                return _plain(403, error.message)
            held = self.held(origin)
            refusal = judge(asked, head, held)
            if refusal is not None:
                if refusal.kind:
                    self._keep(origin, refusal, asked, head, held)
                return refusal.reply
            now_s = self._clock.now_us() // US
            if now_s < held.at_s:  # it would say that an older head was still the newest after this one
                return _plain(503, "the witness's clock is behind its last cosignature")
            return Reply(200, self._cosign(origin, asked.note, keys, now_s))

    def _cosign(self, origin: str, note: bytes, keys: Sequence[str], now_s: int) -> bytes:
        line = self._cosigner.cosign(text_of(note), now_s)
        # Of the note's signatures only the log's own are kept: others were not checked.
        kept = with_lines(_only_from(note, origin, keys), [line])
        replace_file(self._folder / "heads" / f"{_id(origin)}.note", kept, written=_at_written)
        crash_point("witness.persisted")
        return line

    def keys_of(self, origin: str) -> tuple[str, ...]:
        """The verifier keys of a log that this witness cosigns for; empty for others. Raises ``StoreError``."""
        raw = _read(self._folder / "logs" / f"{_id(origin)}.json")
        if raw is None:
            return ()
        found = _log_file(raw)
        return found.keys if found.origin == origin else ()

    def held(self, origin: str) -> Held:
        """The newest head that was cosigned for a log, with its signatures checked again. Raises ``StoreError``."""
        note = _read(self._folder / "heads" / f"{_id(origin)}.note")
        if note is None:
            return NOTHING_HELD
        try:
            head = open_checkpoint(note, self.keys_of(origin))
            mine = read_cosignatures(note, [self._cosigner.key])
        except SignatureError as error:
            raise StoreError(f"the head kept for {origin} is damaged: {error.message}") from None
        if len(mine) != 1 or head.origin != origin:
            raise StoreError(f"the head kept for {origin} was not cosigned by this witness")
        return Held(head.size, head.root, note, mine[0].at_s)

    def newest(self, origin_hash: str) -> bytes | None:
        """The newest cosigned head of the log whose origin has this hash, in hex; None when there is none.

        Raises:
            StoreError: it cannot be read.
        """
        return _read(self._folder / "heads" / f"{origin_hash}.note") if _HASH.fullmatch(origin_hash) else None

    def origins(self) -> tuple[str, ...]:
        """The logs that it cosigns for, sorted. Raises ``StoreError``."""
        return tuple(sorted(one.origin for one in self._logs()))

    def kept(self, origin: str) -> tuple[Path, ...]:
        """The files of what it refused to a log and kept."""
        folder = self._folder / "refused" / _id(origin)
        return tuple(sorted(folder.glob("*.json"))) if folder.is_dir() else ()

    def add_log(self, text: str) -> str:
        """Cosign for the log of a verifier key from now on; the log's origin. A further key of a log is added.

        Raises:
            SignatureError: it is no log's verifier key.
            ConfigError: there are too many logs or keys.
        """
        key = parse_vkey(text)
        origin, keys = key.name, self.keys_of(key.name)
        if text in keys:
            return origin
        if len(keys) >= LOG_KEYS_MAX or (not keys and len(self._logs()) >= LOGS_MAX):
            raise ConfigError(f"a witness has at most {LOGS_MAX} logs, and a log {LOG_KEYS_MAX} keys")
        document = {"v": 1, "origin": origin, "keys": [*keys, text]}
        replace_file(self._folder / "logs" / f"{_id(origin)}.json", _json(document))
        return origin

    def _logs(self) -> list[_Log]:
        found = []
        for path in sorted((self._folder / "logs").glob("*.json")):
            raw = _read(path)
            if raw is not None:
                found.append(_log_file(raw))
        return found

    def _keep(self, origin: str, refusal: Refusal, asked: Submission, head: Checkpoint, held: Held) -> None:
        """Keep what a log has to explain: its signed head, and the signed head that this contradicts.

        A refusal stands whether or not it can be kept.
        """
        log.error("%s shows a head of %d records that contradicts the one kept: %s", origin, head.size, refusal.kind)
        folder = self._folder / "refused" / _id(origin)
        digest = hashlib.sha256(head.render()).hexdigest()
        path = folder / f"{refusal.kind}-{digest[:32]}.json"
        document = {
            "v": 1, "kind": refusal.kind, "status": refusal.reply.status, "at": self._clock.now_us(),
            "held": held.note.decode("utf-8"), "request": asked.render().decode("utf-8"),
        }  # fmt: skip
        raw = _json(document)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            room = len(list(folder.glob(f"{refusal.kind}-*.json"))) < KEPT_MAX and len(raw) <= KEPT_BYTES_MAX
            if room and not path.exists():
                replace_file(path, raw)
        except (OSError, StoreError) as error:
            log.error("what was refused could not be kept: %s", error)


@dataclass(frozen=True, slots=True)
class _Log:
    origin: str
    keys: tuple[str, ...]


def make_witness(folder: Path, name: str) -> str:
    """Make a witness's directory with a key of its own; its verifier key.

    Raises:
        ConfigError: the directory is not empty, or cannot be made.
        SignatureError: the name cannot be a key's.
    """
    check_name(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", hint="A witness has a directory of its own.")
        for inside in ("logs", "heads", "refused"):
            (folder / inside).mkdir(mode=0o700)
        private = generate()
        save_private(folder / "witness.pem", private)
        replace_file(folder / "witness.json", _json({"v": 1, "name": name}))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from None
    return Cosigner(name, private).vkey


def _name_of(folder: Path) -> str:
    raw = _read(folder / "witness.json")
    if raw is None:
        raise ConfigError(f"{folder} is no witness's directory", hint="Make one: `countermark witness init`.")
    try:
        document = read_json(raw, bytes_max=FILE_BYTES_MAX)
    except EncodingError as error:
        raise ConfigError(f"witness.json: {error.message}") from None
    name = document.get("name") if type(document) is dict and document.keys() == {"v", "name"} else None
    if type(name) is not str or document.get("v") != 1:
        raise ConfigError("witness.json does not hold exactly v and name")
    return name


def _log_file(raw: bytes) -> _Log:
    try:
        document = read_json(raw, bytes_max=FILE_BYTES_MAX)
        if type(document) is not dict or document.keys() != {"v", "origin", "keys"} or document["v"] != 1:
            raise StoreError("a log's file does not hold exactly v, origin and keys")
        keys = document["keys"]
        if type(keys) is not list or not 1 <= len(keys) <= LOG_KEYS_MAX:
            raise StoreError("a log's file lists no keys, or too many")
        if any(parse_vkey(text).name != document["origin"] for text in keys):
            raise StoreError("a log's key is not named like its origin")
    except (EncodingError, SignatureError) as error:
        raise StoreError(f"a log's file is damaged: {error.message}") from None
    return _Log(document["origin"], tuple(keys))


def _only_from(note: bytes, origin: str, keys: Sequence[str]) -> bytes:
    """The note with the verified lines of the log alone."""
    ids = {parse_vkey(text).key_id for text in keys}
    text, _, lines = note.decode("utf-8").rpartition("\n\n")
    own = [line for line in lines[:-1].split("\n") if _is_from(line, origin, ids)]
    return "\n".join([text, "", *own, ""]).encode()


def _is_from(line: str, origin: str, ids: set[bytes]) -> bool:
    _, name, encoded = line.split(" ")
    return name == origin and unb64(encoded)[:4] in ids


def _id(origin: str) -> str:
    return hashlib.sha256(origin.encode("utf-8")).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX * 2 + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path.name} cannot be read: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX * 2:
        raise StoreError(f"{path.name} is too long")
    return raw
