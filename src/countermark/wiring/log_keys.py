"""The log's keys on disk: ``keys/log.pem`` signs; ``log.next.pem`` is what a rotation hands over to.

``log.retired`` lists the verifier keys of earlier ones, so that heads which they signed can still be read. Beside them
``log.mldsa.pem`` signs every published head, against the day on which Ed25519 no longer holds.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark.authority import generate, load_mldsa, load_private, save_private
from countermark.journal import sync_folder
from countermark.log import Cosigner, LogSigner, parse_vkey, vkey
from countermark.model.errors import ConfigError, CountermarkError
from countermark.wiring.config import Config

KEY = "log.pem"
NEXT = "log.next.pem"
RETIRED = "log.retired"
SECOND = "log.mldsa.pem"
RETIRED_BYTES_MAX = 65_536


def log_signer(config: Config) -> LogSigner:
    """The signer of a deployment's log, with the key that follows it, if one is prepared. Raises ``ConfigError``."""
    following = None
    if (config.keys / NEXT).exists():
        following = LogSigner(config.origin, load_private(config.keys / NEXT))
    return LogSigner(
        config.origin, load_private(config.keys / KEY), following=following, retired=_retired(config.keys / RETIRED)
    )


def second_signer(config: Config) -> Cosigner | None:
    """The log's ML-DSA-44 key, whose line every published head carries; None where the deployment has none."""
    path = config.keys / SECOND
    return Cosigner(config.origin, load_mldsa(path)) if path.exists() else None


def make_second(folder: Path) -> None:
    """Make the log's ML-DSA-44 key in a new deployment's folder of keys."""
    save_private(folder / SECOND, MLDSA44PrivateKey.generate())


def prepare_next(config: Config) -> LogSigner:
    """Make the key that will follow. Raises ``ConfigError`` when one is prepared already."""
    path = config.keys / NEXT
    if path.exists():
        raise ConfigError(f"{NEXT} exists: a rotation is prepared, or its overlap is not over", code="key_prepared",
                          hint="Rotate with it, or retire the old key first.")  # fmt: skip
    save_private(path, generate())
    return log_signer(config)


def retire(config: Config, log_key: str) -> str:
    """The old key is deleted and the new one takes its place; ``log_key`` is the key that the log now has.

    The old verifier key is kept first: a crash in between leaves both keys, and the same command finishes.

    Raises:
        ConfigError: the log's key is not the prepared one.
    """
    signer = log_signer(config)
    if signer.following is None or signer.following.vkey != log_key:
        raise ConfigError("no rotation to the prepared key stands in the records", code="nothing_to_retire",
                          hint="Rotate first: `countermark keys rotate`.")  # fmt: skip
    if signer.vkey not in signer.retired:
        text = "".join(f"{one}\n" for one in (*signer.retired, signer.vkey))
        whole = config.keys / f".{RETIRED}.new"  # half a line would keep the gate from starting
        with whole.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        whole.replace(config.keys / RETIRED)
        sync_folder(config.keys)
    (config.keys / NEXT).replace(config.keys / KEY)
    sync_folder(config.keys)
    return signer.vkey


def newest_private(config: Config) -> Path:
    """The key file that a successor lane goes on with: the one that a rotation prepared, where there is one."""
    path = config.keys / NEXT
    return path if path.exists() else config.keys / KEY


def _retired(path: Path) -> tuple[str, ...]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"{RETIRED} cannot be read: {error.strerror}") from None
    if len(raw) > RETIRED_BYTES_MAX:
        raise ConfigError(f"{RETIRED} is longer than {RETIRED_BYTES_MAX} bytes")
    found = []
    for line in raw.decode("utf-8", "replace").split("\n"):
        if line:
            try:
                key = parse_vkey(line)
            except CountermarkError as error:
                raise ConfigError(f"{RETIRED} has a line that is no verifier key: {error.message}") from None
            found.append(vkey(key.name, key.public))
    return tuple(dict.fromkeys(found))
