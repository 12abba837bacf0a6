"""A destination that a test drives: it answers, fails or hangs as told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rig import WAIT_S_MAX, edited

from countermark.log import Cosigner, with_lines
from countermark.model.clock import US
from countermark.model.errors import CountermarkError
from countermark.model.ports import Clock, Destination, Head
from countermark.wiring import publishing as wired
from countermark.wiring.publishing import Surroundings

KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()) for name in ("alpha", "beta", "test")
}


def cosigner(name: str) -> Cosigner:
    """The key of a witness of the tests, under a name of its own."""
    return Cosigner(f"{name}.example/w", KEYS[name])


def witness_policy(*names: str, needed: str = "all") -> str:
    """A policy whose quorum is ``needed`` of the witnesses named."""
    lines = [f"witness {name} {cosigner(name).vkey} https://{name}.example/" for name in names]
    return "\n".join((*lines, f"group enough {needed} {' '.join(names)}", "quorum enough", ""))


def wanting(*names: str, stale: str = "60s", needed: str = "all") -> dict[str, str]:
    """The files that make a policy of the tests want witnesses (``edit`` of ``make``)."""
    limits = edited()["limits.toml"] + f'\n[witness]\nstale_after = "{stale}"\n'
    return {"limits.toml": limits, "policies/witnesses.policy": witness_policy(*names, needed=needed)}


class Newspaper:
    """A destination that cosigns heads as ``names`` would, or does what it is told to do instead."""

    name = "newspaper"
    effects_wait = True

    def __init__(self, *names: str, clock: Clock | None = None) -> None:
        self.names = names or ("alpha", "beta")
        self.clock = clock
        self.heads: list[Head] = []
        self.printed = threading.Semaphore(0)
        self.failures = 0
        self.refuses = ""
        self.hold: threading.Event | None = None
        self.held = threading.Semaphore(0)
        self.changes: Mapping[str, Any] = {}
        self.kind = "head.witnessed"
        self.late_s = 0  # how far the witnesses' clocks are ahead of ours
        self.script: list[dict[str, Any]] = []  # members to change before each head; the last stays
        self.closed = 0

    def check(self) -> None:
        if self.refuses:
            raise CountermarkError("somebody saw more", code=self.refuses)

    def due(self, head: Head, busy: bool, now_us: int) -> bool:
        return busy

    def publish(self, head: Head) -> tuple[str, Mapping[str, Any]] | None:
        if self.hold is not None:
            self.held.release()
            self.hold.wait(WAIT_S_MAX)
        if self.failures:
            self.failures -= 1
            self.held.release()
            raise CountermarkError("no answer", code="unreachable")
        if self.script:
            vars(self).update({"changes": {}, "late_s": 0, "names": ("alpha", "beta"), "kind": "head.witnessed"})
            vars(self).update(self.script[0])
            self.script = self.script[1:] or self.script
        self.heads.append(head)
        self.printed.release()
        now = self.clock.now_us() if self.clock is not None else 0
        return self.kind, {**body_of(head, now, self.names, self.late_s), **self.changes}

    def close(self) -> None:
        self.closed += 1

    def wait(self) -> None:
        """Until one more head was printed."""
        assert self.printed.acquire(timeout=WAIT_S_MAX), "no head was published"


def body_of(head: Head, now: int, names: Sequence[str], late_s: int = 0) -> dict[str, Any]:
    """What a quorum says of a head: the body of ``head.witnessed``."""
    text = head.note.decode().partition("\n\n")[0] + "\n"
    lines = [cosigner(name).cosign(text, now // US + late_s) for name in names]
    note = with_lines(head.note, lines).decode()
    return {"size": head.size, "root": head.root.hex(), "note": note, "asked": now, "answered": now}


@contextmanager
def published(patch: pytest.MonkeyPatch, *papers: Destination) -> Iterator[None]:
    """Deployments that are opened meanwhile publish there."""

    def maker(paper: Destination) -> wired.Maker:
        def make(surroundings: Surroundings) -> Destination:
            if isinstance(paper, Newspaper) and paper.clock is None:
                paper.clock = surroundings.clock
            return paper

        return make

    with patch.context() as inside:
        inside.setattr(wired, "MAKERS", tuple(maker(one) for one in papers))
        yield
