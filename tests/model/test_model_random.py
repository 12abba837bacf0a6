"""The pool of random bytes: never the same bytes twice, in this process or in a child of it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

from countermark.model.random import NONCE_BYTES, POOL_BYTES, RandomPool

FORKING = """
import os, sys
from countermark.model.random import RandomPool

pool = RandomPool()
pool.hex16()
if sys.argv[1] == "held":
    pool._lock.acquire()  # as if another thread were drawing at the moment of the fork
out, into = os.pipe()
if os.fork() == 0:
    os.write(into, pool.hex16().encode())
    os._exit(0)
os.wait()
theirs = os.read(out, 64).decode()
if sys.argv[1] == "held":
    pool._lock.release()
print(theirs, pool.hex16())
"""


def test_nonces_have_128_bits_and_never_repeat() -> None:
    """Over several refills of the pool every nonce is 32 hex digits, and none comes twice."""
    pool = RandomPool()
    drawn = [pool.hex16() for _ in range(3 * POOL_BYTES // NONCE_BYTES)]
    assert {len(bytes.fromhex(nonce)) for nonce in drawn} == {16}
    assert len(set(drawn)) == len(drawn)


def _forked(how: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", FORKING, how], capture_output=True, text=True, check=True, timeout=30)
    theirs, ours = done.stdout.split()
    return theirs, ours


def test_a_forked_child_draws_other_bytes() -> None:
    """After a fork, parent and child do not hand out the same nonce from the pool that both inherited."""
    theirs, ours = _forked("free")
    assert len(theirs) == len(ours) == 2 * NONCE_BYTES
    assert theirs != ours


def test_a_fork_while_another_thread_draws_does_not_hang_the_child() -> None:
    """The child has a lock of its own, so that nobody who is not there holds it."""
    theirs, ours = _forked("held")
    assert theirs != ours


def test_a_pool_that_nobody_uses_is_forgotten() -> None:
    """What is registered for forks does not keep a pool alive."""
    pool = RandomPool()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
