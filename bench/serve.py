"""Governed actions over HTTP, beside a bare Starlette application that only validates the same request.

    python bench/serve.py [--rounds N] [--seconds S] [--connections N] [--dir DIR] [--json]
    python bench/serve.py --actions 1000000       # no comparison: the server's memory while so many are governed

Three processes: the gate behind `countermark serve`'s own listener with a no-op provider (every intent and every
outcome is committed), a bare Starlette POST under the same uvicorn, and a client that keeps connections open and sends
the next request on each as soon as it has its answer. Rounds alternate between the two servers, each with the raw fsync
rate measured just before it; medians are reported, and only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 32
ROUNDS = 5
SECONDS = 3.0
WARM_S = 0.5
FSYNC_S = 0.2
ACCOUNTS = ("acct_1AcmePaper", "acct_1BorealisHosting")
TOOL = "stripe.transfers.create"
DONE = 200


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The servers ------------------------------------------------------------------------------------------------------


def serve_governed(folder: Path) -> None:
    """A deployment of the shipped template with wide windows, served; speaks a line protocol on stdin."""
    from countermark.authority import issue
    from countermark.model.clock import SystemClock
    from countermark.server import Listener
    from countermark.wiring import ServeSettings, TokenFile, own_the_process
    from countermark.wiring.bench import AGENT, Rig

    own_the_process()  # as `countermark serve` does
    rig = Rig(folder)
    now = SystemClock().now_us()
    token = TokenFile(folder).change(lambda book: _issued(issue(book, AGENT, now, life_s=86_400)))
    with Listener(rig.handle, settings=ServeSettings(port=0, tier="embedded")) as listener:
        print(json.dumps({"url": listener.url, "token": token, "run": rig.run, "pid": os.getpid()}), flush=True)
        for line in sys.stdin:
            in_flight, seconds = json.loads(line)
            level = rig.level(in_flight, seconds)
            print(json.dumps({"requests": level.actions, "per_s": level.per_s, "p99_ms": level.p99_ms}), flush=True)
    rig.close()


def _issued(made: tuple[Any, Any, str]) -> tuple[Any, str]:
    return made[0], made[2]


def serve_bare() -> None:
    """Starlette under the same uvicorn: read the body, validate it with msgspec, answer with JSON."""
    import socket

    import msgspec
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    class Asked(msgspec.Struct, forbid_unknown_fields=True):
        run: str
        call_id: str
        tool: str
        args: dict[str, str | int | bool]

    decoder, encoder = msgspec.json.Decoder(Asked), msgspec.json.Encoder()

    async def act(request: Request) -> Response:
        asked = decoder.decode(await request.body())
        return Response(encoder.encode({"call_id": asked.call_id, "status": "ok"}), media_type="application/json")

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio asks for TCP by name
    listener.bind(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "token": "none", "run": "run_" + "0" * 32,
                      "pid": os.getpid()}), flush=True)  # fmt: skip
    app = Starlette(routes=[Route("/v1/actions", act, methods=["POST"])])
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


# The client -------------------------------------------------------------------------------------------------------


class Sender(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends the next."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.begun = time.perf_counter_ns()
        self.transport.write(self.load.request())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.buffer.index(b"content-length: ") + 16
        whole = head + 4 + int(self.buffer[at : self.buffer.index(b"\r\n", at)])
        if len(self.buffer) < whole:
            return
        status = int(self.buffer[9:12])
        now = time.perf_counter_ns()
        self.load.took.append(now - self.begun)
        if status != DONE:
            self.load.wrong[status] = self.load.wrong.get(status, 0) + 1
        self.buffer = b""
        if now < self.load.end:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.open -= 1
        if self.load.open == 0:
            self.load.done.set()


class Load:
    """A round: so many connections for so many seconds."""

    def __init__(self, url: str, token: str, run: str, numbers: Any) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)
        self.head = (
            f"POST /v1/actions HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nauthorization: Bearer {token}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self.run = run
        self.numbers = numbers

    def request(self) -> bytes:
        number = next(self.numbers)
        args = {
            "amount": 48_000 if number % 10 else 240_000, "currency": "eur", "destination": ACCOUNTS[number % 2],
            "metadata[invoice]": f"INV-h{number}",
        }  # fmt: skip
        body = json.dumps({"run": self.run, "call_id": f"h{number}", "tool": TOOL, "args": args}).encode()
        return self.head + b"%d\r\n\r\n" % len(body) + body

    async def go(self, connections: int, seconds: float) -> dict[str, Any]:
        self.took: list[int] = []
        self.wrong: dict[int, int] = {}
        self.open = connections
        self.done = asyncio.Event()
        loop = asyncio.get_running_loop()
        begun = time.perf_counter_ns()
        self.end = begun + int(seconds * 1e9)
        for _ in range(connections):
            await loop.create_connection(lambda: Sender(self), self.host, self.port)
        await self.done.wait()
        took = sorted(self.took)
        spent = (time.perf_counter_ns() - begun) / 1e9
        p50, p99 = (took[min(len(took) - 1, len(took) * p // 100)] / 1e6 for p in (50, 99))
        return {"requests": len(took), "per_s": len(took) / spent, "p50_ms": p50, "p99_ms": p99, "wrong": self.wrong}


def drive() -> None:
    """The client's process: a line in, a round, a line out."""
    numbers = count(1)
    for line in sys.stdin:
        ask = json.loads(line)
        load = Load(ask["url"], ask["token"], ask["run"], numbers)
        print(json.dumps(asyncio.run(load.go(ask["connections"], ask["seconds"]))), flush=True)


# The run ----------------------------------------------------------------------------------------------------------


class Child:
    """A process of this file in another part."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--part", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a part of the benchmark ended early")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, value: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu_us(pid: int) -> float:
    """Processor time that a process has used, in microseconds, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    from countermark.wiring.bench import fsync_rate

    governed, bare, client = Child("governed", str(folder / "d")), Child("bare"), Child("client")
    try:
        servers = {"governed": governed.read(), "bare": bare.read()}
        rows: dict[str, list[dict[str, Any]]] = {"governed": [], "bare": [], "embedded": []}
        wanted = {"connections": args.connections}
        for name, where in servers.items():
            client.ask({**where, **wanted, "seconds": WARM_S})
            say(f"{name} is warm")
        memory = [memory_kib(servers["governed"]["pid"])]
        for turn in range(args.rounds):
            for name, where in servers.items():
                raw, before = fsync_rate(folder, FSYNC_S), cpu_us(where["pid"])
                row = client.ask({**where, **wanted, "seconds": args.seconds})
                spent = (cpu_us(where["pid"]) - before) / row["requests"]
                rows[name].append({**row, "cpu_us": spent, "fsync_per_s": raw})
                say(f"round {turn + 1}, {name}: {rows[name][-1]}")
            raw, before = fsync_rate(folder, FSYNC_S), cpu_us(servers["governed"]["pid"])
            row = governed.ask([args.connections, args.seconds])
            spent = (cpu_us(servers["governed"]["pid"]) - before) / row["requests"]
            rows["embedded"].append({**row, "cpu_us": spent, "fsync_per_s": raw})
            say(f"round {turn + 1}, embedded: {rows['embedded'][-1]}")
        memory.append(memory_kib(servers["governed"]["pid"]))
    finally:
        for child in (client, bare, governed):
            child.stop()
    wrong = [row for found in rows.values() for row in found if row.get("wrong")]
    ratios = [one["per_s"] / other["per_s"] for one, other in zip(rows["governed"], rows["bare"], strict=True)]
    inside = [one["per_s"] / other["per_s"] for one, other in zip(rows["governed"], rows["embedded"], strict=True)]
    return {
        "connections": args.connections,
        **{name: {key: median(row[key] for row in found) for key in ("per_s", "p99_ms", "cpu_us", "fsync_per_s")}
           for name, found in rows.items()},
        "of_bare": median(ratios), "of_embedded": median(inside), "memory_kib": memory, "wrong": wrong,
    }  # fmt: skip


def remember(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of the server while it governs ``--actions`` actions, and what the later half added to it."""
    governed, client = Child("governed", str(folder / "d")), Child("client")
    wrong: dict[str, int] = {}
    try:
        where = governed.read()
        seen = [(0, memory_kib(where["pid"]))]
        while seen[-1][0] < args.actions:
            row = client.ask({**where, "connections": args.connections, "seconds": args.seconds})
            wrong |= row["wrong"]
            seen.append((seen[-1][0] + row["requests"], memory_kib(where["pid"])))
            say(f"{seen[-1][0]:,} actions: {seen[-1][1]:,} KiB")
    finally:
        for child in (client, governed):
            child.stop()
    half = min(row for row in seen if row[0] >= seen[-1][0] // 2)
    added = (seen[-1][1] - half[1]) * 1_000 / max(1, seen[-1][0] - half[0])
    return {"memory_kib": seen, "kib_per_1000_actions": added, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--actions", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=Path())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        {"governed": lambda: serve_governed(Path(args.part[1])), "bare": serve_bare, "client": drive}[args.part[0]]()
        return
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        found = (remember if args.actions else measure)(Path(folder), args)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    if args.actions:
        (first, begun), (last, ended) = found["memory_kib"][1], found["memory_kib"][-1]
        print(f"memory of the server, KiB: {begun:,} after {first:,} actions, {ended:,} after {last:,}")
        print(f"in the later half {found['kib_per_1000_actions']:.1f} KiB for each 1,000 actions")
        raise SystemExit(f"not every answer was 200: {found['wrong']}" if found["wrong"] else 0)
    for name in ("governed", "bare", "embedded"):
        row = found[name]
        print(
            f"{name:<10}{row['per_s']:>8,.0f}/s   p99 {row['p99_ms']:6.1f} ms   processor {row['cpu_us']:5.0f} us"
            f"   raw fsync {row['fsync_per_s']:,.0f}/s"
        )
    print(f"governed over bare: {found['of_bare']:.2f}; over the same gate without HTTP: {found['of_embedded']:.2f}")
    print(f"memory of the server, KiB: {found['memory_kib'][0]:,} -> {found['memory_kib'][1]:,}")
    if found["wrong"]:
        raise SystemExit(f"not every answer was 200: {found['wrong'][0]['wrong']}")


if __name__ == "__main__":
    main()
