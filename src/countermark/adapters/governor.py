"""What every framework's adapter does with a tool call: ask the gate, run the tool or not, report what happened.

A tool is asked about under its own name, or under the one that ``tools`` gives it, and the policy says who runs it:
the framework (``connector = "caller"``), or the gate (then it stands in ``acts``, and the framework's own function
never runs). A name that the policy does not know is refused; only what stands in ``free`` is not asked about at all.

Nothing here catches what it does not know: an adapter whose hook crashes must stop the tool, so it raises.
"""

from __future__ import annotations

import json
import logging
import threading
from asyncio import to_thread
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.tool import Value
from countermark.model.values import CALL_ID, Result

REMEMBERED_MAX = 10_000
OUTPUT_CHARS_MAX = 32_000

log = logging.getLogger("countermark.adapters")
Outcome = tuple[str, object]  # confirmed, failed or unknown; and what the tool returned


class Gatekeeper(Protocol):
    """A ``Deployment``, or a ``Client`` of a gate that serves elsewhere."""

    def act(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = ..., run: str | None = ...
    ) -> Result: ...
    def admit(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = ..., run: str | None = ...
    ) -> Result: ...
    def settle(self, action: str, outcome: str, *, output: Mapping[str, Value] | None = ...) -> Result: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """``go``: run the tool, then report. ``waiting``: people must answer first. Otherwise ``text`` is for the model."""

    go: bool
    waiting: bool = False
    ok: bool = False
    action: str = ""
    text: str = ""
    call: str | None = None  # the call_id that it was asked under
    what: str = ""  # digest of the tool's name and arguments

    def document(self) -> dict[str, Any]:
        """The text as the JSON object that it is."""
        found: dict[str, Any] = json.loads(self.text)
        return found


FREE = Answer(go=True, ok=True)


def returned(result: object) -> Outcome:
    """What is reported of a tool that did not raise."""
    return "confirmed", result


class Governor:
    """One agent's way to the gate. ``run`` is the run that its actions belong to, else one of this process.

    Pass the same ``run`` when an agent is resumed in another process: run and call id are an action's identity.
    """

    def __init__(
        self, gate: Gatekeeper, *, run: str | None = None, tools: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None, acts: Collection[str] = (), free: Collection[str] = (),
    ) -> None:  # fmt: skip
        """``tools`` and ``names``: what the policy calls a tool, or an argument, that has another name here."""
        self._gate = gate
        self._run = run
        self._tools, self._names = dict(tools or {}), dict(names or {})
        self._acts, self.free = frozenset(acts), frozenset(free)
        self._lock = threading.Lock()
        # call_ids that are asked about, or whose tool was told to go, until their outcome is reported. The gate cannot
        # tell a caller that never heard its answer from one that is running the tool, so who runs it is known here.
        self._running: OrderedDict[str, None] = OrderedDict()
        self._going: OrderedDict[str, Answer] = OrderedDict()  # told to go by a hook, until another hook reports
        self._waiting: OrderedDict[str, str] = OrderedDict()  # what waits for people -> the call_id it was asked under

    def ask(self, name: str, args: Mapping[str, Any], call_id: str | None, *, only: bool = False) -> Answer:
        """May this call run? Errors of the gate are refusals; anything unforeseen is raised.

        The same call again, or the same arguments while people are being asked, is the same action. Whoever is told to
        go says what became of it: ``report``, or ``release`` when the tool did not run; until then nobody else is told
        to go. With ``only`` the caller will not run it: it will ask again first.
        """
        if name in self.free:
            return FREE
        what = _digest(name, args)
        with self._lock:
            call = self._waiting.get(what) or _call_id(call_id)
            if call is not None and call in self._running:
                return Answer(False, text=_text("pending", "already_running", _UNDER_WAY), call=call, what=what)
            if call is not None and not only:
                _remember(self._running, call, None)
        answer = Answer(False, call=call, what=what)
        try:
            answer = self._answer(name, args, answer)
        finally:
            if not answer.go and not only:
                self.release(answer)
        with self._lock:
            if answer.waiting and call is not None:
                _remember(self._waiting, what, call)
            else:
                self._waiting.pop(what, None)
        return answer

    def _answer(self, name: str, args: Mapping[str, Any], asked: Answer) -> Answer:
        ask = self._gate.act if name in self._acts else self._gate.admit
        try:
            result = ask(self._tools.get(name, name), self._sent(args), call_id=asked.call, run=self._run)
        except CountermarkError as error:
            return Answer(False, text=_text("refused", error.code, error.message), call=asked.call, what=asked.what)
        if result.admitted and name not in self._acts:
            return Answer(True, ok=True, action=result.action, call=asked.call, what=asked.what)
        waiting, ok = result.status == "escalated", result.status == "confirmed"
        extra = {"ref": result.ref, "output": dict(result.output)} if ok else {}
        text = _text(result.status, result.code, result.next_step, extra)
        return Answer(False, waiting, ok, result.action, text, asked.call, asked.what)

    def _sent(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the gate knows them: an object within is dotted, and one that is null is absent."""
        sent: dict[str, Any] = {}
        for arg, value in _flat(args):
            given = self._names.get(arg, arg)
            if given in sent:  # which of the two the tool will take, nobody here knows
                raise ArgumentError("an argument is given twice, under two names", field=given)
            sent[given] = value
        return sent

    def report(self, answer: Answer, outcome: str, result: object = None) -> None:
        """Say what became of a call that was told to go. The tool has run: that a report fails changes nothing more.
        The action then becomes unknown in time, and this governor does not tell the call to go again.
        """
        if not answer.action:
            return
        try:
            self._gate.settle(answer.action, outcome, output=_output(result) if outcome == "confirmed" else {})
        except (CountermarkError, OSError) as error:
            log.warning("the outcome of %s was not reported: %s", answer.action, error)
        else:
            self.release(answer)

    def release(self, answer: Answer) -> None:
        """The call was not run, and may be asked about again."""
        with self._lock:
            self._running.pop(answer.call or "", None)

    def call(
        self, name: str, args: Mapping[str, Any], call_id: str | None, run: Callable[[], Any], *,
        outcome: Callable[[Any], Outcome] = returned, paused: tuple[type[Exception], ...] = (),
    ) -> Any:  # fmt: skip
        """Ask, run, report. Returns what the tool returned, or an ``Answer`` when it is not to be run.

        A tool that raises, or is cancelled, may have done something: its outcome is unknown; ``paused`` are the
        exceptions with which a tool says that it has not run yet. ``outcome`` reads the result.
        """
        answer = self.ask(name, args, call_id)
        if not answer.go:
            return answer
        try:
            result = run()
        except BaseException as error:
            self._raised(answer, error, paused)
            raise
        self.report(answer, *outcome(result))
        return result

    async def acall(
        self, name: str, args: Mapping[str, Any], call_id: str | None, run: Callable[[], Awaitable[Any]], *,
        outcome: Callable[[Any], Outcome] = returned, paused: tuple[type[Exception], ...] = (),
    ) -> Any:  # fmt: skip
        """``call`` for a coroutine: the gate is asked on a thread, so that the loop goes on."""
        answer = await to_thread(self.ask, name, args, call_id)
        if not answer.go:
            return answer
        try:
            result = await run()
        except BaseException as error:
            self._raised(answer, error, paused)  # at once: a task that is cancelled may not get to await anything more
            raise
        await to_thread(self.report, answer, *outcome(result))
        return result

    def _raised(self, answer: Answer, error: BaseException, paused: tuple[type[Exception], ...]) -> None:
        if isinstance(error, paused):
            self.release(answer)
        else:
            self.report(answer, "unknown")

    def before(self, name: str, args: Mapping[str, Any], call_id: str) -> Answer:
        """For frameworks whose hooks come before and after: ``ask``, remembered for ``after`` or ``pause``."""
        answer = self.ask(name, args, call_id)
        if answer.go:
            with self._lock:
                _remember(self._going, call_id, answer)
        return answer

    def after(self, name: str, args: Mapping[str, Any], call_id: str, outcome: str, result: object = None) -> None:
        """Report the call that ``before`` let go. Run with other arguments than were decided, it is unknown."""
        with self._lock:
            answer = self._going.pop(call_id, None)
        if answer is None:
            return
        if answer.what and answer.what != _digest(name, args):
            log.error("%s was run with other arguments than those decided", answer.action)
            outcome, result = "unknown", None
        self.report(answer, outcome, result)

    def pause(self, call_id: str) -> None:
        """The call that ``before`` let go was not run after all, and may be asked about again."""
        with self._lock:
            answer = self._going.pop(call_id, None)
        if answer is not None:
            self.release(answer)


_UNDER_WAY = "This very call is under way, or its outcome could not be reported: do not run it again."


def same_call(name: str, args: Mapping[str, Any]) -> str:
    """A call id for frameworks that give none: in one run, the same tool with the same arguments is the same call."""
    return "args_" + _digest(name, args)[:40]


def _digest(name: str, args: Mapping[str, Any]) -> str:
    return sha256(json.dumps([name, args], sort_keys=True, default=str).encode()).hexdigest()


def _remember(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)


def _call_id(given: str | None) -> str | None:
    """A framework's call id, or a digest of it when it is not in the gate's form."""
    if given is None or CALL_ID.fullmatch(given):
        return given
    return "h_" + sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _flat(args: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in args.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _output(result: object) -> dict[str, Value]:
    """The plain members of what a tool returned; the gate keeps those that the policy declares."""
    if type(result) is str and len(result) <= OUTPUT_CHARS_MAX and result.startswith("{"):
        try:
            result = json.loads(result)
        except ValueError:
            return {}
    members = result.items() if isinstance(result, Mapping) else ()
    return {name: value for name, value in members if type(name) is str and type(value) in (str, int, bool)}


def _text(status: str, code: str, step: str, extra: Mapping[str, Any] | None = None) -> str:
    return json.dumps({"status": status, "code": code, "next_step": step, **(extra or {})})
