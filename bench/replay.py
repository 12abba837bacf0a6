"""What the replays of recorded cases share: reading a file, the door to a deployment, and why it decided.

``open_door`` opens the deployment in this process. With ``http`` the same gate is served on a loopback port, and the
agent's calls are plain requests with a token of its own, so that no client's checks stand before the gate's; people's
signed orders stay beside it, as they would.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol
from urllib.parse import urlsplit

from countermark.authority import issue
from countermark.journal import SqliteStore
from countermark.model.clock import SystemClock
from countermark.model.errors import CountermarkError
from countermark.model.ports import Clock, Connector
from countermark.wiring import ServeSettings, TokenFile
from countermark.wiring.config import load_config
from countermark.wiring.deployment import Deployment, open_deployment

EXIT_UNREADABLE, EXIT_USAGE = 3, 64
FILE_BYTES_MAX = 256 * 1024 * 1024
TIMEOUT_S = 30
TOKEN_S = 86_400
REFUSED, BROKEN = 400, 500  # the least status of each kind


# The gate or this replay is at its bounds: no decision on what was asked.
NO_DECISION = ("too_many_waiting", "too_many_runs", "gate_busy", "gate_halted", "unknown_run")


class CasesError(ValueError):
    """A cases file that is not of the expected shape."""


def read_cases(path: Path, **options: Any) -> dict[str, Any]:
    """A JSON object from a file; ``options`` as of ``json.loads``. Raises ``CasesError`` when it is none."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise CasesError(f"the file is longer than {FILE_BYTES_MAX} bytes")
    try:
        doc = json.loads(path.read_bytes().decode("utf-8"), **options)
    except (ValueError, RecursionError) as error:
        raise CasesError(f"the file is not JSON: {error}"[:200]) from None
    if not isinstance(doc, dict):
        raise CasesError("the file holds no JSON object")
    return doc


_NUMBER = re.compile(r"(?<![\w.])[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?!\w)|(?<![\w.])[0-9]+(?:\.[0-9]+)?(?!\w)")


def stands_in(prompt: str, value: Any) -> bool:
    """Whether the user said a value: a text as whole words, a number by what it amounts to."""
    if type(value) is str:
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", prompt, re.IGNORECASE) is not None
    if type(value) not in (int, float, Decimal):
        return False
    return any(Decimal(text.replace(",", "")) == Decimal(str(value)) for text in _NUMBER.findall(prompt))


def guarded(program: str, cases: Path, work: Callable[[], int]) -> int:
    """Run; a missing file is wrong usage (64), a malformed one unreadable (3). Both are said on standard error."""
    if not cases.is_file():
        print(f"{program}: {cases} is no file; name a file of cases", file=sys.stderr)
        return EXIT_USAGE
    try:
        return work()
    except (CasesError, OSError) as error:
        print(f"{program}: {cases.name}: {error}", file=sys.stderr)
        return EXIT_UNREADABLE


class Door(Protocol):
    """The way to a gate: the agent's calls, and beside them the operator's."""

    def start_run(self, mandate: str) -> str: ...

    def act(self, run: str, call_id: str, tool: str, args: Any) -> tuple[str, str]:
        """Ask for one action. Returns disposition and code; what was refused before a decision is a denial."""
        ...

    def operator(self, op: str, body: Mapping[str, Any]) -> Any: ...

    def close(self) -> None: ...


def _refused(code: str) -> tuple[str, str]:
    if code in NO_DECISION:
        raise RuntimeError(f"the gate decided nothing: {code}")
    return "deny", code


class InProcess:
    """A deployment opened here."""

    def __init__(self, handle: Deployment) -> None:
        self.handle = handle

    def start_run(self, mandate: str) -> str:
        return self.handle.start_run(mandate=mandate)

    def act(self, run: str, call_id: str, tool: str, args: Any) -> tuple[str, str]:
        try:
            answer = self.handle.call("act", {"run": run, "call_id": call_id, "tool": tool, "args": args})
        except CountermarkError as error:
            return _refused(error.code)
        return answer["disposition"], answer["code"]

    def operator(self, op: str, body: Mapping[str, Any]) -> Any:
        return self.handle.call(op, body)

    def close(self) -> None:
        self.handle.close()


class Served(InProcess):
    """The same deployment behind its HTTP face; the agent knows a URL and a token, and nothing else."""

    def __init__(self, handle: Deployment, agent: str) -> None:
        from countermark.server import Listener  # the extra [server]; without HTTP nobody needs it

        super().__init__(handle)
        now = SystemClock().now_us()
        self._token = TokenFile(handle.config.root).change(
            lambda book: _issued(issue(book, agent, now, life_s=TOKEN_S))
        )
        self._listener = Listener(handle, settings=ServeSettings(port=0, tier="embedded"))
        parts = urlsplit(self._listener.start())
        self._http = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)

    def _post(self, target: str, body: Any) -> tuple[int, Any]:
        """One request. Raises ``RuntimeError`` when the server fails: that must not count as a denial."""
        sent = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        self._http.request("POST", target, _json(body), sent)
        answer = self._http.getresponse()
        raw = answer.read()
        if answer.status >= BROKEN or answer.status in (401, 429):
            raise RuntimeError(f"the server answered {answer.status}: {raw[:200]!r}")
        return answer.status, json.loads(raw)

    def start_run(self, mandate: str) -> str:
        status, found = self._post("/v1/runs", {"mandate": mandate})
        if status >= REFUSED:
            raise RuntimeError(f"no run was started: {found['code']}")
        run: str = found["run"]
        return run

    def act(self, run: str, call_id: str, tool: str, args: Any) -> tuple[str, str]:
        status, found = self._post("/v1/actions", {"run": run, "call_id": call_id, "tool": tool, "args": args})
        result = found.get("result") if status >= REFUSED else found
        return _refused(found["code"]) if result is None else (result["disposition"], result["code"])

    def close(self) -> None:
        self._http.close()
        self._listener.stop()
        super().close()


def _json(body: Any) -> bytes:
    """A body whose decimals stand in it digit for digit."""
    mark, numbers = token_hex(), []

    def digits(value: object) -> str:
        if type(value) is not Decimal:
            raise TypeError(f"{type(value).__name__} is no JSON")
        numbers.append(str(value))
        return f"{mark}-{len(numbers) - 1}"

    text = json.dumps(body, default=digits)
    return re.sub(rf'"{mark}-([0-9]+)"', lambda found: numbers[int(found[1])], text).encode()


def _issued(made: tuple[Any, Any, str]) -> tuple[Any, str]:
    """The book of tokens as it is now, and the token itself, which is shown once."""
    return made[0], made[2]


def open_door(
    root: Path, agent: str, connectors: Mapping[str, Connector], *, clock: Clock | None = None, http: bool = False
) -> Door:
    """Open a deployment, in this process or behind HTTP."""
    handle = open_deployment(root, agent=agent, connectors=connectors, clock=clock)
    return Served(handle, agent) if http else InProcess(handle)


def reasons_of(root: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Why every action was decided as it was, by run and call id, from the committed records: the agent is not told."""
    store = SqliteStore(load_config(root).journal, readonly=True)
    try:
        return {
            (record.body["run"], record.body["call_id"]): tuple(record.body["reasons"])
            for record in store.records(0)
            if record.kind == "action.decided"
        }
    finally:
        store.close()
