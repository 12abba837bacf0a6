"""``countermark.Client(url, token)``: one agent's way to a gate that serves over HTTP."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from countermark.client.answers import Said, acted, answered, bad_answer, explained, proof_of, result_of, run_of
from countermark.client.asker import TIMEOUT_MS, TRIES, Asker
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.tool import Value
from countermark.model.values import ACT_ID, RUN, Result, action_id

Wait = Literal["outcome", "decision"]


class Client:
    """Asks a gate over HTTP, as the agent whose token it holds. Thread-safe; answers as a ``Deployment`` does.

    An answer that does not come, is malformed, or is about something else is a ``CountermarkError``, never a yes. A
    question is asked again by itself while the gate is away or busy, always under the same run and call_id.
    """

    def __init__(
        self, url: str, token: str, *, timeout_ms: int = TIMEOUT_MS, tries: int = TRIES,
        ca_file: str | Path | None = None,
    ) -> None:  # fmt: skip
        """``url`` is ``https://HOST[:PORT]``, or ``http://`` to this machine; ``token`` an API token or a JWT.

        ``timeout_ms`` is for each call with all its tries. ``ca_file`` (PEM) replaces the system's roots.

        Raises:
            ConfigError: one of these is not in its form.
        """
        self._asker = Asker(url, token, timeout_ms=timeout_ms, tries=tries, ca_file=ca_file)
        self._lock = threading.Lock()
        self._run = ""
        self._agent = ""

    def __repr__(self) -> str:
        return f"Client({self._asker.url!r})"

    def act(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", model: str = "", trace: str = "", because: Sequence[str] = (), wait: Wait = "outcome",
    ) -> Result:  # fmt: skip
        """Ask for one action; returns when its outcome, its denial or its escalation is durable.

        ``wait="decision"`` does not wait for the provider. An absent ``run`` is minted once per client; an absent
        ``call_id`` is random, so give both to be able to ask again from another process.
        """
        if wait not in ("outcome", "decision"):
            raise ArgumentError("wait is outcome or decision", field="wait")
        target = "/v1/actions" if wait == "outcome" else "/v1/actions?wait=decision"
        return self._put(target, tool, args, call_id, run, _claim(reason, model, trace, because))

    def admit(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = None, run: str | None = None,
        reason: str = "", model: str = "", trace: str = "", because: Sequence[str] = (), once: bool = False,
    ) -> Result:  # fmt: skip
        """Ask whether the calling program may run a tool itself (``connector = "caller"`` in the policy).

        ``result.admitted`` means go; then ``settle`` reports what happened. With ``once`` it is an error, code
        ``admitted_before``, unless surely nobody was told to go before.
        """
        more = {**_claim(reason, model, trace, because), **({"once": True} if once else {})}
        result = self._put("/v1/admissions", tool, args, call_id, run, more)
        if result.admitted and (result.receipt is None or result.receipt.tier != "observing"):
            raise bad_answer("an admission of what the gate itself runs")
        return result

    def _put(
        self, target: str, tool: str, args: Mapping[str, Value], call_id: str | None, run: str | None,
        claim: dict[str, Any],
    ) -> Result:  # fmt: skip
        if not isinstance(args, Mapping):
            raise ArgumentError("args must be an object", field="args")
        sent = dict(args)  # read once: a mapping may answer differently the next time
        for name, value in sent.items():
            if type(value) is float:
                raise ArgumentError("a number is not an integer", field=str(name))
        run = self._own_run() if run is None else run
        agent = self._agent_of(run)  # known before anything is asked for: by it the answer is told from any other
        call = call_id or "c_" + secrets.token_hex(12)
        body = {"run": run, "call_id": call, "tool": tool, "args": sent, **claim}
        try:
            answer = self._asker.ask("POST", target, body)
            return acted(answer, self._asker.token, action_id(agent, run, call), run)
        except CountermarkError as error:
            if call_id is None and error.code in (
                "gate_halted",
                "bad_answer",
            ):  # nobody else knows the name of the call
                error.hint = f"{error.hint} run: {run}, call_id: {call}."
            raise

    def settle(self, action: str, outcome: str, *, ref: str = "", output: Mapping[str, Value] | None = None) -> Result:
        """Report the outcome of an admitted action: ``confirmed``, ``failed`` or ``unknown``, once.

        ``ref`` is the reference that the tool gave; of ``output`` only what the policy declares is kept.
        """
        if output is not None and not isinstance(output, Mapping):
            raise ArgumentError("output must be an object", field="output")
        body = {"outcome": outcome, "ref": ref, "output": dict(output or {})}
        return result_of(self._answered("POST", _path(action, "/outcome"), body), action)

    def start_run(self, *, mandate: str | None = None, purpose: str = "") -> str:
        """Mint a run. Returns its ID. Asked again only when surely none was minted."""
        found = self._asker.ask("POST", "/v1/runs", {"mandate": mandate, "purpose": purpose}, again=False)
        run, self._agent = run_of(answered(found, self._asker.token, 201))
        return run

    def show_run(self, run: str) -> dict[str, Any]:
        """A run of this agent's: ``open``, ``mandate``, ``records``.

        In one that a step of a workflow gave to the agent there is also ``boundary``: its ``goal``, what it ``sees``,
        and what it may do (``tools``, ``calls``, ``budget``, ``where``, ``until``).
        """
        found = self._answered("GET", _run_path(run))
        run_of(found, run)
        return found

    def end_run(self, run: str, *, reason: str = "", outputs: Mapping[str, Any] | None = None) -> None:
        """End a run: nothing more is decided in it. Ended once, it is ended; the first reason stands.

        ``outputs`` are what a step of a workflow declares, in the run that it gave to this agent.
        """
        more = {} if outputs is None else {"outputs": dict(outputs)}
        found = self._asker.ask("POST", _run_path(run) + "/end", {"reason": reason, **more})
        run_of(answered(found, self._asker.token, 200), run)
        with self._lock:
            self._run = "" if self._run == run else self._run

    def result(self, action: str) -> Result:
        """The present answer of an action."""
        return result_of(self._answered("GET", _path(action)), action)

    def receipt(self, action: str) -> dict[str, Any]:
        """``{action, status, receipt, checkpoint, proofs}``: the signed head over an action's records, and the paths.

        They are handed on as they came: keep them, and let ``countermark-verify`` or any tlog verifier judge them.
        """
        return proof_of(self._answered("GET", _path(action, "/receipt")), action)

    def explanation(self, action: str) -> dict[str, Any]:
        """What became of an action and why, as far as an agent may know; see ``Explanation`` in ``/openapi.json``."""
        return explained(self._answered("GET", _path(action, "/explanation")), action)

    def close(self) -> None:
        """Close the kept connections. The run stays open: another process may go on with it."""
        self._asker.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answered(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found: Said = self._asker.ask(method, target, body)
        return answered(found, self._asker.token, 200)

    def _own_run(self) -> str:
        with self._lock:
            self._run = self._run or self.start_run()
            return self._run

    def _agent_of(self, run: str) -> str:
        if not self._agent:
            _, self._agent = run_of(self._answered("GET", _run_path(run)), run)
        return self._agent


def _claim(reason: str, model: str, trace: str, because: Sequence[str]) -> dict[str, Any]:
    if not isinstance(because, (list, tuple)):
        raise ArgumentError("because must be a list of action IDs", field="because")
    return {"reason": reason, "model": model, "trace": trace, "because": list(because)}


def _path(action: str, rest: str = "") -> str:
    if type(action) is not str or ACT_ID.fullmatch(action) is None:
        raise ArgumentError("no such action", field="id", code="unknown_action")
    return f"/v1/actions/{action}{rest}"


def _run_path(run: str) -> str:
    if type(run) is not str or RUN.fullmatch(run) is None:
        raise ArgumentError("run must be a run id minted by the gate", field="run")
    return f"/v1/runs/{run}"
