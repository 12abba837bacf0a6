"""Seeded random requests against a real ``countermark serve`` child, and what must hold afterwards.

    uv run python -m tests.server.fuzz --count 1000000 --seed 1

Request number n depends on the seed and n alone: ``--only N`` shows one and sends it. Nothing may be answered with
500, nothing may hang, and what was acknowledged with 200, 202, 403 or a new run stands in the journal; every decision
is made again, and the provider's books are held against the intents. Each ``SLICE`` of requests has a server and a
deployment of its own, so that judging them takes bounded memory.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from face import Answer, is_problem, received
from fuzz_requests import Maker
from siege import Siege, judge_books, twin_for, unsound
from support import records

from countermark.journal import SqliteStore
from countermark.twins.stripe import StripeTwin

CALLERS = 8
SLICE = 50_000
READS = (".retrieve", ".list")  # tools that are confirmed without moving anything
WAIT_S = 30  # nothing takes that long: the server's own bounds end it
FOREIGN = ("/stripe", "/mcp", "/webhooks", "/escalations/")  # these answer in the shape of their own protocol


class Findings:
    """What was answered, what must be in the journal, and what was wrong. Shared by all callers."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.runs: set[str] = set()
        self.actions: dict[str, tuple[int, str]] = {}  # action -> seq and digest of its decision
        self.wrong: list[str] = []

    def add(self, other: Findings) -> None:
        """Take another slice's findings in."""
        self.statuses += other.statuses
        self.runs |= other.runs
        self.actions |= other.actions
        self.wrong += other.wrong

    def hear(self, number: int, answers: list[Answer], target: str) -> None:
        """Judge the answers to one request."""
        with self.lock:
            for answer in answers:
                self.statuses[answer.status] += 1
                fault = self._fault(answer, target)
                if fault:
                    self.wrong.append(f"request {number}: {fault}: {answer.status} {answer.body[:300]!r}")

    def _fault(self, answer: Answer, target: str) -> str:
        if answer.status == 500:
            return "500"
        foreign = any(part in target for part in FOREIGN)
        if foreign or not answer.body:
            return ""
        if answer.status >= 400 and not is_problem(answer) and "/healthz" not in target:
            return "not the one error shape"
        if answer.headers.get("content-type", "").endswith("json"):
            found = answer.json
            self._keep(answer.status, found.get("result", found))
        return ""

    def _keep(self, status: int, found: Any) -> None:
        if status == 201 and "run" in found:
            self.runs.add(found["run"])
        receipt = found.get("receipt") if type(found) is dict else None
        if receipt is not None and status in (200, 202, 403):
            self.actions[found["action"]] = (receipt["decided_seq"], receipt["decided"])


def exchange(address: tuple[str, int], raw: bytes) -> list[Answer]:
    """Send bytes, stop sending, and read to the end. Raises ``TimeoutError`` when the server does neither."""
    with socket.create_connection(address, timeout=WAIT_S) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
        data = received(connection)
    return list(_answers(data, raw[:5] == b"HEAD "))


def _answers(raw: bytes, bodiless: bool) -> Iterator[Answer]:
    """The answers in what came, by an HTTP client's own reading of them."""
    while raw:
        head, end, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        length = 0 if bodiless or status == 100 else int(headers.get("content-length", "-1"))
        if not end or length < 0 or len(rest) < length:
            raise http.client.IncompleteRead(raw)
        if status != 100:
            yield Answer(status, headers, rest[:length])
        raw = b"" if bodiless else rest[length:]  # what cannot be read is answered as if it were a POST


def lost(root: Path, found: Findings) -> list[str]:
    """What was acknowledged and does not stand in the journal."""
    store = SqliteStore(root / "data" / "journal.db", readonly=True)
    try:
        wrong = [
            f"{action}: its decision is not record {seq}"
            for action, (seq, digest) in found.actions.items()
            if seq >= store.size() or (store.record(seq).digest, store.record(seq).body["id"]) != (digest, action)
        ]
        begun = {record.body["run"] for record in store.records() if record.kind == "run.started"}
        return wrong + [f"{run} was never started" for run in found.runs - begun]
    finally:
        store.close()


def storm(siege: Siege, seed: int, numbers: range) -> Findings:
    """Send these requests on several threads, each on a connection of its own."""
    maker, found, turns = Maker(seed, siege.token, f"127.0.0.1:{siege.address[1]}"), Findings(), iter(numbers)

    def caller() -> None:
        for number in iter(lambda: next(turns, None), None):
            raw = maker.made(number)
            try:
                found.hear(number, exchange(siege.address, raw), raw.partition(b"\r\n")[0].decode("latin-1"))
            except (OSError, ValueError, IndexError, http.client.HTTPException) as error:
                with found.lock:
                    found.wrong.append(f"request {number}: {type(error).__name__}: {error} for {raw[:200]!r}")

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def judged(folder: Path, seed: int, numbers: range, say: Callable[[str], None] = lambda text: None) -> Findings:
    """A server, the requests, its end, and everything that does not hold then in ``wrong``."""
    with twin_for(folder / "twin") as twin:
        siege = Siege(folder, twin)
        try:
            found = storm(siege, seed, numbers)
            health = siege.ask("GET", "/healthz")
            if health.status != 200:
                found.wrong.append(f"afterwards the server is not ready: {health.body!r}")
        finally:
            code = siege.stop()
        found.wrong += [f"the server ended with {code}"] if code else []
        found.wrong += [*lost(siege.root, found), *booked(siege, twin), *unsound(siege.root)]
    return found


def booked(siege: Siege, twin: StripeTwin) -> list[str]:
    """What the provider's books say against the gate."""
    reads = {
        f"confirmed without effect: seq {record.seq}"
        for record in records(siege.root)
        if record.kind == "action.decided" and record.body["tool"].endswith(READS)
    }
    forbidden = [
        f"{movement.id} moved money for a request that was none"
        for movement in twin.books().movements()
        if movement.metadata.get("invoice", "").startswith(("HIDDEN", "STOLEN"))
    ]
    return [*(line for line in judge_books(siege.root, twin) if line not in reads), *forbidden, *twin.books().check()]


def run(seed: int, numbers: range, say: Callable[[str], None] = lambda text: None) -> Findings:
    """All slices of these requests, one after the other, in one finding."""
    whole = Findings()
    for first in range(numbers.start, numbers.stop, SLICE):
        part = range(first, min(first + SLICE, numbers.stop))
        with tempfile.TemporaryDirectory() as folder:
            whole.add(judged(Path(folder), seed, part, say))
        say(f"{part.stop - numbers.start} of {len(numbers)} judged, {len(whole.wrong)} findings")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="show this request alone, and send it")
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.count) if args.only is None else range(args.only, args.only + 1)
    if args.only is not None:
        print(Maker(args.seed, "TOKEN", "HOST").made(args.only))
    found = run(args.seed, numbers, lambda text: print(text, flush=True))
    print(f"{len(numbers)} requests, seed {args.seed}: {dict(sorted(found.statuses.items()))}")
    print(f"{len(found.actions)} actions and {len(found.runs)} runs were acknowledged")
    for line in found.wrong[:50]:
        print(line)
    raise SystemExit(f"{len(found.wrong)} findings" if found.wrong else 0)


if __name__ == "__main__":
    main()
