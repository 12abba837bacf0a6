"""Routes of agents: runs and actions. The hot route, ``POST /v1/actions``, is answered without a router."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.types import Receive, Scope, Send

from countermark.audit import explain
from countermark.gate import Caller
from countermark.model.errors import ArgumentError, AuthorityError, CountermarkError, SignatureError
from countermark.server.bodies import read_body, whole_object
from countermark.server.logs import LogReader
from countermark.server.problems import HttpError, document, headers_of, status_of
from countermark.server.stripe_runs import Runs
from countermark.server.surroundings import Headers, Surroundings

WAITS = ("outcome", "decision")
UNKNOWN = {"www-authenticate": "Bearer", "connection": "close"}  # one guess for each connection
QUERY_FIELDS_MAX = 8
RUNS_FILE = "http_runs.json"
RUN = re.compile(r"run_[0-9a-f]{32}")

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_NO_STORE = (b"cache-control", b"no-store")
_HTTP_STATUS = {"confirmed": 200, "failed": 200, "denied": 403, "escalated": 202, "unknown": 202, "pending": 202}


async def answer(
    send: Send, status: int, value: Any, kind: tuple[bytes, bytes] = _JSON, more: Mapping[str, str] | None = None
) -> None:
    """Send a JSON document."""
    body = orjson.dumps(value)
    headers = [kind, (b"content-length", b"%d" % len(body)), _NO_STORE]
    if more:
        headers += [(name.encode("ascii"), text.encode("ascii")) for name, text in more.items()]
    await send_whole(send, status, headers, body)


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer that is all there; ``headers`` hold its length."""
    whole = getattr(send, "whole", None)
    if whole is None or not whole(status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, error: CountermarkError, **more: Any) -> None:
    """Send an error in its one shape."""
    await answer(send, status_of(error), document(error, **more), _PROBLEM, headers_of(error))


def target_of(scope: Scope) -> str:
    """Path and query as they were sent, which is what a signature covers."""
    raw, query = scope["raw_path"], scope["query_string"]
    whole: bytes = raw + b"?" + query if query else raw
    return whole.decode("latin-1")


def query_of(scope: Scope, names: tuple[str, ...]) -> dict[str, str]:
    """The query's fields, each known and each once. Raises ``ArgumentError``."""
    raw = scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=QUERY_FIELDS_MAX,
            errors="strict",
        )  # fmt: skip
    except ValueError:
        raise ArgumentError("the query cannot be read", code="bad_argument") from None
    found = dict(pairs)
    if len(found) != len(pairs) or not found.keys() <= set(names):
        raise ArgumentError(f"the query takes: {', '.join(names) or 'nothing'}", code="unknown_argument")
    return found


async def caller_of(surroundings: Surroundings, scope: Scope, body: bytes) -> Caller:
    """The agent behind a request. Whoever is not known leaves no record, only a number."""
    try:
        caller = await surroundings.authenticator.authenticate(
            scope["method"], target_of(scope), scope["headers"], body
        )
    except (AuthorityError, SignatureError) as error:
        surroundings.counters.add("unauthenticated", error.code)
        raise HttpError(401, error.message, code=error.code, hint=error.hint, headers=UNKNOWN) from None
    return caller


class Actions:
    """Handlers of the agents' routes. Each takes scope, receive and send, and raises ``CountermarkError``."""

    def __init__(self, surroundings: Surroundings, log: LogReader, told: LogReader) -> None:
        self._all = surroundings
        self._gate = surroundings.gate
        self._log, self._told = log, told  # a long story must not keep a proof waiting
        self._json_max = surroundings.settings.limits.body_bytes_max
        self._runs = Runs(self._gate, surroundings.config.journal.parent / RUNS_FILE, "actions that name no run")

    async def _asked(
        self, scope: Scope, receive: Receive, required: tuple[str, ...] = ()
    ) -> tuple[Caller, dict[str, Any]]:
        """The caller and the JSON object that it sent."""
        body, value = await whole_object(scope, receive, self._json_max)
        caller = await caller_of(self._all, scope, body)
        for name in required:
            if name not in value:
                raise ArgumentError(f"{name} is missing", field=name, code="missing_argument")
        return caller, value

    async def _looked(
        self, scope: Scope, receive: Receive, names: tuple[str, ...] = ()
    ) -> tuple[Caller, dict[str, str]]:
        """The caller of a GET, and its query."""
        body = await read_body(scope, receive, self._json_max)
        return await caller_of(self._all, scope, body), query_of(scope, names)

    async def act(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/actions``."""
        body, value = await whole_object(scope, receive, self._json_max)
        caller = await caller_of(self._all, scope, body)
        wait = query_of(scope, ("wait",)).get("wait", "outcome") if scope["query_string"] else "outcome"
        if wait not in WAITS:
            raise ArgumentError("wait is outcome or decision", field="wait")
        if value.get("run") is None:
            await self._put_run(caller, value)
        try:
            result = await self._gate.call("act", value, caller, wait=wait)
        except CountermarkError as error:
            if error.code == "unknown_run":
                self._runs.forget(caller, value["run"])
            raise
        await self._said(send, result)

    async def _said(self, send: Send, result: Mapping[str, Any]) -> None:
        self._all.counters.add("actions", result["status"], result["disposition"])
        status = _HTTP_STATUS[result["status"]]
        if status == 403:
            denial = HttpError(403, "the action was denied", code=result["code"], hint=result["next_step"])
            await answer_error(send, denial, result=result)
        else:
            await answer(send, status, result)

    async def _put_run(self, caller: Caller, value: dict[str, Any]) -> None:
        """An action that names no run gets the agent's, also after a restart. What is signed names its own."""
        if caller.signed is not None:
            raise ArgumentError("a signed request names its run", field="run", code="missing_argument")
        value["run"] = await self._runs.of(caller)

    async def start_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/runs``."""
        caller, value = await self._asked(scope, receive)
        run = await self._gate.call("run.start", value, caller)
        await answer(send, 201, {"run": run, "agent": caller.agent}, more={"location": f"/v1/runs/{run}"})

    async def end_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/runs/{run}/end``. Ended once, it is ended: whoever lost the answer may ask again."""
        caller, value = await self._asked(scope, receive)
        run = scope["path_params"]["run"]
        if "run" in value:
            raise ArgumentError("run stands in the address", field="run", code="unknown_argument")
        try:
            await self._gate.call("run.end", {**value, "run": run}, caller)
        except CountermarkError as error:
            if error.code != "unknown_run":
                raise
            await self._run_of(caller, run)
        await answer(send, 200, {"run": run, "agent": caller.agent, "open": False})

    async def show_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/runs/{run}``."""
        caller, _ = await self._looked(scope, receive)
        await answer(send, 200, await self._run_of(caller, scope["path_params"]["run"]))

    async def _run_of(self, caller: Caller, run: str) -> dict[str, Any]:
        """What there is to say about a run of this agent's. Raises ``ArgumentError`` (``unknown_run``)."""
        found = None if RUN.fullmatch(run) is None else await self._gate.call("run.show", {"run": run}, caller)
        if found is not None and found["agent"] is None:
            found.update(await self._told.run_start(run) or {})
        if found is None or found["agent"] != caller.agent:
            raise ArgumentError("no such run of this agent", field="run", code="unknown_run")
        return dict(found)

    async def show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/actions/{id}``: the present answer."""
        caller, _ = await self._looked(scope, receive)
        await answer(send, 200, await self._result(caller, scope))

    async def _result(self, caller: Caller, scope: Scope) -> dict[str, Any]:
        found: dict[str, Any] = await self._gate.call("result", {"id": scope["path_params"]["id"]}, caller)
        return found

    async def receipt(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/actions/{id}/receipt``: the receipt, the signed head over it, the paths between."""
        caller, _ = await self._looked(scope, receive)
        result = await self._result(caller, scope)
        receipt = result["receipt"]
        seqs = [receipt[name] for name in ("decided_seq", "settled_seq") if receipt[name] is not None]
        proof = await self._log.proof(seqs)
        await answer(send, 200, {"action": result["action"], "status": result["status"], "receipt": receipt, **proof})

    async def explanation(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/actions/{id}/explanation``: what an agent may know of its own action."""
        caller, _ = await self._looked(scope, receive)
        result = await self._result(caller, scope)
        told = await self._told.run(lambda store: explain(store, result["action"]).document)
        await answer(send, 200, for_agent(told, result))

    async def settle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/actions/{id}/outcome``: what the agent's own process did (tier observing)."""
        caller, value = await self._asked(scope, receive)
        if "id" in value:
            raise ArgumentError("id stands in the address", field="id", code="unknown_argument")
        await answer(send, 200, await self._gate.call("settle", {**value, "id": scope["path_params"]["id"]}, caller))

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/admissions``: decide and record, execute nothing."""
        caller, value = await self._asked(scope, receive)
        if value.get("run") is None:
            await self._put_run(caller, value)
        await self._said(send, await self._gate.call("admit", value, caller))


_FOR_AGENT = (
    "kind", "id", "status", "agent", "run", "call_id", "tool", "terms", "args", "withheld", "disposition", "stage",
    "code", "outcome", "records",
)  # fmt: skip


def for_agent(told: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation without what only people may see: thresholds, facts, rules, who answered."""
    return {**{name: told[name] for name in _FOR_AGENT}, "next_step": result["next_step"]}
