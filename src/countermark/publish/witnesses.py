"""All witnesses of a policy as one destination of heads.

They are asked side by side, each with the size that it said last. What comes back is kept when it verifies; the record
is written when the quorum is there, and those that take longer are not waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from countermark.journal import LogView
from countermark.log import (
    EMPTY_ROOT,
    Cosignature,
    Cosigner,
    LogSigner,
    PolicyWitness,
    WitnessPolicy,
    cosigned,
    own_witnesses,
    quorum,
    with_lines,
)
from countermark.model.clock import US
from countermark.model.errors import ConfigError, CountermarkError
from countermark.model.ports import Clock, Head
from countermark.publish.exchange import Submission
from countermark.publish.witness_client import TIMEOUT_MS, WitnessClient, WitnessError

BUSY_US = US  # while something happens, heads are shown at most this often
RETRY_US = 5 * US  # after a try without a quorum, when nothing happens
GRACE_MS = 250  # how long the others are waited for once the quorum is there
NOTE_BYTES_MAX = 32_768  # a record's note: an entry of the log has at most 65,535 bytes

log = logging.getLogger("countermark.witnesses")


@dataclass(frozen=True, slots=True)
class WitnessRule:
    """What the policy in force asks for: whose cosignatures make a quorum, and how old the last one may be."""

    policy: WitnessPolicy
    stale_after_us: int


def connect(witness: PolicyWitness) -> WitnessClient:
    """A client of a witness that the public internet, or this machine, reaches. Raises ``ConfigError``."""
    return WitnessClient(witness.name, witness.key, witness.url)


class Witnesses:
    """A ``Destination``. One thread asks at a time; what ``view`` opens is closed with it."""

    name = "witnesses"
    kind = "head.witnessed"
    effects_wait = True

    def __init__(
        self, rule: Callable[[], WitnessRule | None], deployment: str, view: Callable[[], LogView], clock: Clock, *,
        connect: Callable[[PolicyWitness], WitnessClient] = connect, timeout_ms: int = TIMEOUT_MS,
        signer: LogSigner | None = None, second: Cosigner | None = None,
    ) -> None:  # fmt: skip
        """``rule`` tells what is asked for now, None for nothing; it is asked again each time, for policies change.

        ``signer`` signs the head of an empty log, so that witnesses can be asked before the first record;
        ``second`` is a key of the log by another algorithm, whose line every published head carries too.
        """
        self._rule_now = rule
        self._deployment = deployment
        self._open = view
        self._clock = clock
        self._connect = connect
        self._timeout_ms = timeout_ms
        self._signer = signer
        self._second = second
        self._view: LogView | None = None
        self._rule: WitnessRule | None = None
        self._clients: dict[str, WitnessClient] = {}
        self._sizes: dict[str, int] = {}  # what each witness has, as far as it said
        self._late: dict[str, tuple[Future[Cosignature | int], Head]] = {}  # not answered yet, and about which head
        self._pool: ThreadPoolExecutor | None = None
        self._tried_us = self._reached_us = 0
        self.troubles: dict[str, CountermarkError] = {}  # by witness, of the last time that it was asked

    def check(self) -> None:
        """Ask every witness for what it has, and prove to it that ours goes on from there.

        One that cannot be asked stops nothing: what it would have said is asked again with the first head.

        Raises:
            WitnessError: ``behind_witness``, ``witness_other_log``.
        """
        if self._renew() is None:
            return
        head = self._newest()
        if head is None:
            return
        self._ask(head, all_of_them=True)
        for name, trouble in sorted(self.troubles.items()):
            if trouble.code in ("behind_witness", "witness_other_log"):
                raise trouble
            log.warning("at the start, %s: %s", name, trouble.message)

    def due(self, head: Head, busy: bool, now_us: int) -> bool:
        """While something happens at most once a second; otherwise often enough for the last quorum to stay fresh."""
        rule = self._renew()
        if rule is None:
            return False
        since = now_us - self._tried_us
        if since < 0:  # the clock went back: what it said before tells nothing
            return True
        if busy:
            return since >= BUSY_US
        if self._reached_us < self._tried_us:  # the last try had no quorum
            return since >= min(RETRY_US, rule.stale_after_us // 3)
        return since >= rule.stale_after_us // 3

    def publish(self, head: Head) -> tuple[str, Mapping[str, Any]] | None:
        """Show the head to all witnesses; the record of it when the policy's quorum cosigned.

        Raises:
            WitnessError: no quorum; the gravest of what the witnesses said, if any said more than that.
        """
        rule = self._renew()
        if rule is None:
            return None
        asked_us = self._tried_us = self._clock.now_us()
        if self._second is not None:
            head = replace(head, note=cosigned(head.note, self._second, asked_us // US))
        found = self._ask(head, all_of_them=False)
        answered_us = max(asked_us, self._clock.now_us())
        if not found or not self._enough(found):  # a policy that asks for nobody makes no evidence either
            raise self._gravest(rule, found)
        self._reached_us = self._tried_us
        return self.kind, {
            "size": head.size, "root": head.root.hex(), "note": self._note(rule, head, found).decode("utf-8"),
            "asked": asked_us, "answered": answered_us,
        }  # fmt: skip

    def close(self) -> None:
        """Ask nobody any more."""
        self._drop()
        if self._view is not None:
            self._view.store.close()
            self._view = None

    def _renew(self) -> WitnessRule | None:
        """What is asked for now; other witnesses than before are got to know anew."""
        rule = self._rule_now()
        if rule != self._rule:
            self._drop()
            self._rule = rule
            for one in rule.policy.witnesses if rule is not None else ():
                try:
                    if one.url:
                        self._clients[one.name] = self._connect(one)
                except ConfigError as error:  # its absence is the quorum's business: a gate must open to be mended
                    log.error("the witness %s cannot be asked: %s", one.name, error.message)
        return rule

    def _drop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)  # as long as one question may take
            self._pool = None
        for client in self._clients.values():
            client.close()
        self._rule, self._clients, self._sizes, self._late = None, {}, {}, {}
        self._tried_us = self._reached_us = 0

    def _seen(self) -> LogView:
        """The log as it is committed now."""
        if self._view is None:
            self._view = self._open()
        self._view.grow()
        return self._view

    def _newest(self) -> Head | None:
        view = self._seen()
        newest = view.store.head()
        if newest is not None:
            return Head(newest[0], view.root(newest[0]), newest[1])
        if self._signer is None:
            return None
        return Head(0, EMPTY_ROOT, self._signer.sign_checkpoint(0, EMPTY_ROOT))

    def _enough(self, found: Mapping[str, Cosignature]) -> bool:
        return self._rule is not None and quorum(self._rule.policy, found, self._deployment)

    def _ask(self, head: Head, *, all_of_them: bool) -> dict[str, Cosignature]:
        """Ask those that are not being asked still; once more those that have another size than was thought."""
        found: dict[str, Cosignature] = {}
        for name, (future, earlier) in list(self._late.items()):
            if future.done():
                self._take(name, future, earlier, {})  # of an older head only the size that it has now is of use
                del self._late[name]
        again = {name: self._sizes.get(name, 0) for name in self._clients if name not in self._late}
        self.troubles = {name: one for name, one in self.troubles.items() if name in self._late}
        for _ in range(2):
            again = self._round(head, again, found, all_of_them)
            if not again:
                break
        for name in again:
            self.troubles[name] = WitnessError(f"the witness {name} changes its mind about the log's size",
                                               code="witness_bad_answer")  # fmt: skip
        return found

    def _round(
        self, head: Head, olds: Mapping[str, int], found: dict[str, Cosignature], all_of_them: bool
    ) -> dict[str, int]:
        """One question to each; who is to be asked again, with the size that it has."""
        again: dict[str, int] = {}
        waiting = {}
        view = self._seen()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(1, len(self._clients)), "countermark-witness")
        for name, old in olds.items():
            old = min(old, head.size)
            submission = Submission(old, tuple(view.consistency(old, head.size)), head.note)
            waiting[self._pool.submit(self._clients[name].add, submission, self._timeout_ms)] = name
        grace_s = None
        while waiting:
            done, _ = wait(waiting, timeout=grace_s, return_when=FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                name = waiting.pop(future)
                size = self._take(name, future, head, found)
                if size is not None:
                    again[name] = size
            if not all_of_them and self._enough(found):
                grace_s = GRACE_MS / 1000
        for future, name in waiting.items():
            self._late[name] = (future, head)
        return again

    def _take(
        self, name: str, future: Future[Cosignature | int], head: Head, found: dict[str, Cosignature]
    ) -> int | None:
        """Note what a witness said about this head; the size it has, when that is another one."""
        try:
            said = future.result()
        except CountermarkError as error:
            self.troubles[name] = error
            if error.code not in ("witness_unreachable", "witness_refused"):
                log.error("%s", error.message)
            return None
        if isinstance(said, Cosignature):
            self._sizes[name] = head.size
            found[name] = said
            return None
        self._sizes[name] = said
        if said <= head.size:
            return said
        self.troubles[name] = WitnessError(
            f"the witness {name} has seen {said} records of this log; here are {head.size}", code="behind_witness",
            hint="Records are missing. Put the newest journal back, or restore it as a successor.",
        )  # fmt: skip
        return None

    def _note(self, rule: WitnessRule, head: Head, found: Mapping[str, Cosignature]) -> bytes:
        """The head with those lines that made the quorum first, as far as there is room; our own witnesses' last."""
        own = own_witnesses(rule.policy, self._deployment)
        lines: list[bytes] = []
        size = len(head.note)
        for name in sorted(found, key=lambda name: (name in own, len(found[name].line), name)):
            size += len(found[name].line)
            if size <= NOTE_BYTES_MAX:
                lines.append(found[name].line)
        return with_lines(head.note, lines)

    def _gravest(self, rule: WitnessRule, found: Mapping[str, Cosignature]) -> CountermarkError:
        for code in ("witness_other_log", "behind_witness"):
            for _, trouble in sorted(self.troubles.items()):
                if trouble.code == code:
                    return trouble
        few = f"{len(found)} of {len(rule.policy.witnesses)} witnesses cosigned, which is no quorum"
        reasons = "; ".join(trouble.message for _, trouble in sorted(self.troubles.items()))
        return WitnessError(few, code="no_quorum", hint=reasons[:500], retryable=True)
