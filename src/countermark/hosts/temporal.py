"""Temporal: activities that are put to the gate before they run, and one that lets the gate act (extra ``temporal``).

    host = Host(deployment, run=RUN, tools={"refund": "desk.refund"}, free=["load_ticket"])
    Worker(client, task_queue="desk", activities=[refund, load_ticket, *host.activities()],
           interceptors=[host.interceptor()])

Temporal runs an activity at least once: its worker may die, and then another attempt begins. An activity's identity is
its namespace, workflow, workflow run and activity id, never the attempt, so every attempt asks about the same action
and hears what the first one was told. Whoever is told to go is told so once. A later attempt that finds an earlier one
without a report does not guess: it asks the activity's ``lookup``, runs again what is ``idempotent``, and otherwise
reports ``unknown``, for people.

Tested with the SDK's own ``ActivityEnvironment``. It was not run against a Temporal server.
"""

from __future__ import annotations

import inspect
import json
import logging
from asyncio import sleep, to_thread
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.tool import Value
from countermark.model.values import Result

ACT = "countermark.act"
RETRY_S = 30  # between two attempts while people, or the provider, are asked
POLL_S = 5  # between two questions of one attempt that holds on, each with a heartbeat

_MARK = "__countermark__"
_CLAIMS = frozenset(("tool", "args", "reason", "because"))

log = logging.getLogger("countermark.hosts")
Fn = TypeVar("Fn", bound=Callable[..., Any])
Outcome = tuple[str, object]  # confirmed, failed or unknown; and what the activity returned, or would have


class Gatekeeper(Protocol):
    """A ``Deployment``, or a ``Client`` of a gate that serves elsewhere."""

    def act(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = ..., run: str | None = ...,
        reason: str = ..., because: Sequence[str] = ...,
    ) -> Result: ...  # fmt: skip
    def admit(
        self, tool: str, args: Mapping[str, Value], *, call_id: str | None = ..., run: str | None = ...,
        once: bool = ...,
    ) -> Result: ...  # fmt: skip
    def settle(self, action: str, outcome: str, *, output: Mapping[str, Value] | None = ...) -> Result: ...


def _returned(value: object) -> Outcome:
    return "confirmed", value


def _recorded(result: Result) -> Any:
    return dict(result.output)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one activity is governed.

    ``tool`` is the policy's name for it (``connector = "caller"``), ``names`` its names for arguments that have others
    here. ``read`` makes the arguments from what the activity is called with; by default they are its parameters, or the
    members of the one dataclass or mapping that it takes. ``outcome`` reads what it returned. ``failed`` are exceptions
    with which it says that nothing was done (budget and obligation stay taken: a report frees nothing); any other
    leaves it unknown. When an earlier attempt may have run it: ``idempotent`` runs it again (it hands ``call_id()`` to
    its provider), ``lookup``, called with the activity's own arguments, says what became of it. ``recorded`` makes what
    the activity returns from the gate's record of it.
    """

    tool: str
    names: Mapping[str, str] = field(default_factory=dict)
    read: Callable[..., Mapping[str, Any]] | None = None
    outcome: Callable[[Any], Outcome] = _returned
    failed: tuple[type[Exception], ...] = ()
    idempotent: bool = False
    lookup: Callable[..., Outcome | Awaitable[Outcome]] | None = None
    recorded: Callable[[Result], Any] = _recorded


def governed(tool: str, **rule: Any) -> Callable[[Fn], Fn]:
    """Declare an activity governed where it is written, above or below ``@activity.defn``; members as of ``Rule``."""

    def mark(fn: Fn) -> Fn:
        setattr(fn, _MARK, Rule(tool, **rule))
        return fn

    return mark


def call_id(info: Any = None) -> str:
    """The action's call_id, the same in every attempt: in an activity, also the key to hand to its provider."""
    if info is None:
        from temporalio import activity

        info = activity.info()
    place = [info.namespace, info.workflow_id, info.workflow_run_id or info.activity_run_id, info.activity_id]
    return "temporal_" + sha256(json.dumps(place).encode()).hexdigest()[:40]


class Host:
    """One worker's way to the gate. All workers of a task queue name the same ``run``: it is part of the identity.

    ``tools``: activity name -> the policy's name for it, or a ``Rule``, beside those that are ``governed`` in the code.
    Only what stands in ``free`` is not asked about; any other activity is refused. While people are asked an attempt
    ends and Temporal makes another after ``retry_s``; with ``hold_s`` it first waits so long itself, with heartbeats.
    """

    def __init__(
        self, gate: Gatekeeper, *, run: str, tools: Mapping[str, str | Rule] | None = None,
        free: Collection[str] = (), retry_s: int = RETRY_S, hold_s: int = 0,
    ) -> None:  # fmt: skip
        self._gate, self._run = gate, run
        self._rules = {name: Rule(rule) if isinstance(rule, str) else rule for name, rule in (tools or {}).items()}
        self._free = frozenset((*free, ACT))
        self._retry, self._polls = timedelta(seconds=retry_s), hold_s // POLL_S

    def interceptor(self) -> Any:
        """For ``Worker(interceptors=[...])``; name it last, so that nothing stands between it and the activities."""
        from temporalio.worker import ActivityInboundInterceptor, Interceptor

        execute = self._execute

        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: Any) -> Any:  # the SDK's own name for it
                return await execute(input.fn, input.args, lambda: self.next.execute_activity(input))

        class Countermark(Interceptor):
            def intercept_activity(self, next: Any) -> Any:
                return Inbound(next)

        return Countermark()

    def activities(self) -> list[Callable[..., Any]]:
        """The activity ``countermark.act``: the gate executes, with a credential that no worker has.

        Takes ``{"tool", "args", "reason"?, "because"?}`` and returns the answer of a confirmed action, as
        ``Result.document``; everything else is an error as of a governed activity.
        """
        from temporalio import activity

        @activity.defn(name=ACT)
        async def act(request: dict[str, Any]) -> dict[str, Any]:
            if not {"tool", "args"} <= request.keys() <= _CLAIMS:
                raise self._error(ArgumentError("countermark.act takes tool, args, reason and because"))
            call = call_id()
            result = await self._held(lambda: self._gate.act(**request, call_id=call, run=self._run))
            if result.status != "confirmed":
                raise self._told(result)
            return result.document()

        return [act]

    async def _execute(self, fn: Callable[..., Any], args: Sequence[Any], go: Callable[[], Awaitable[Any]]) -> Any:
        from temporalio import activity

        name = activity.info().activity_type
        if name in self._free:
            return await go()
        rule: Rule | None = self._rules.get(name) or getattr(fn, _MARK, None)
        if rule is None:
            hint = "Declare its tool, or name it in `free` if it can do nothing that counts."
            raise self._error(ArgumentError(f"the activity {name} is not governed", code="unknown_tool", hint=hint))
        call = call_id()
        try:
            sent = _sent(rule, fn, args)
        except ArgumentError as error:
            raise self._error(error) from error

        def ask(*, once: bool) -> Result:
            return self._gate.admit(rule.tool, sent, call_id=call, run=self._run, once=once)

        try:
            result = await self._held(lambda: ask(once=not rule.idempotent), "admitted_before")
        except CountermarkError:
            result = await self._lost(rule, args, await self._held(lambda: ask(once=False)))
        else:
            if result.admitted:
                return await self._ran(rule, result.action, go)
            if result.status == "unknown":
                result = await self._lost(rule, args, result)
        if result.status != "confirmed":
            raise self._told(result)
        return rule.recorded(result)

    async def _held(self, ask: Callable[[], Result], passed: str = "") -> Result:
        """Ask, and while people are asked ask again, as long as one attempt may. The error ``passed`` is the caller's.

        What is no error of the gate's is raised as it is: then nothing has run, and Temporal tries again.
        """
        from temporalio import activity

        polls = self._polls
        while True:
            try:
                result = await to_thread(ask)
            except CountermarkError as error:
                if error.code == passed:
                    raise
                raise self._error(error) from error
            if result.status != "escalated" or not polls:
                return result
            polls -= 1
            activity.heartbeat(result.document())
            await sleep(POLL_S)

    async def _lost(self, rule: Rule, args: Sequence[Any], result: Result) -> Result:
        """An earlier attempt was told to go, and did not report; or it is unknown: what became of it?"""
        if not result.admitted and result.status != "unknown":
            return result
        outcome: Outcome = ("unknown", None)
        if rule.lookup is not None:
            found = await to_thread(rule.lookup, *args)
            outcome = await found if inspect.isawaitable(found) else found
        if outcome[0] == result.status:
            return result
        try:
            return await to_thread(self._gate.settle, result.action, outcome[0], output=_output(outcome))
        except CountermarkError as error:
            raise self._error(error) from error

    async def _ran(self, rule: Rule, action: str, go: Callable[[], Awaitable[Any]]) -> Any:
        """Run the activity, and report. What ran has run: that a report fails changes nothing more."""
        try:
            value = await go()
        except BaseException as error:
            if isinstance(error, rule.failed):
                self._report(action, ("failed", None))
            elif not rule.idempotent:  # which is run again, by the next attempt
                self._report(action, ("unknown", None))  # at once: a cancelled task may not get to await anything more
            raise
        await to_thread(self._report, action, rule.outcome(value))
        return value

    def _report(self, action: str, outcome: Outcome) -> None:
        try:
            self._gate.settle(action, outcome[0], output=_output(outcome))
        except (CountermarkError, OSError) as error:
            log.warning("the outcome of %s was not reported: %s", action, error)

    def _error(self, error: CountermarkError) -> Exception:
        """An error of the gate's for Temporal: it tries again exactly what may succeed unchanged."""
        from temporalio.exceptions import ApplicationError

        delay = self._retry if error.retryable else None
        return ApplicationError(
            str(error), type=error.code, non_retryable=not error.retryable, next_retry_delay=delay,
        )  # fmt: skip

    def _told(self, result: Result) -> Exception:
        """An answer that is no confirmation. Who waits for people or for a provider asks again; no ends the matter."""
        from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

        final = result.status in ("denied", "failed")
        return ApplicationError(
            result.next_step, result.document(), type=result.code, non_retryable=final,
            next_retry_delay=None if final else self._retry,
            category=ApplicationErrorCategory.UNSPECIFIED if final else ApplicationErrorCategory.BENIGN,
        )  # fmt: skip


def _sent(rule: Rule, fn: Callable[..., Any], args: Sequence[Any]) -> dict[str, Any]:
    """Arguments as the gate knows them: an object within is dotted, and one that is null is absent."""
    if rule.read is not None:
        given = rule.read(*args)
    elif len(args) == 1 and is_dataclass(args[0]) and not isinstance(args[0], type):
        given = asdict(args[0])
    elif len(args) == 1 and isinstance(args[0], Mapping):
        given = args[0]
    else:
        given = inspect.signature(fn).bind(*args).arguments
    sent: dict[str, Any] = {}
    for name, value in _flat(given):
        known = rule.names.get(name, name)
        if known in sent:
            raise ArgumentError("an argument is given twice, under two names", field=known)
        sent[known] = value
    return sent


def _flat(given: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        elif value is not None:
            found.append((f"{before}{name}", value))
    return found


def _output(outcome: Outcome) -> dict[str, Value]:
    """The plain members of what was returned; the gate keeps those that the policy declares."""
    status, value = outcome
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if status != "confirmed" or not isinstance(value, Mapping):
        return {}
    return {name: item for name, item in value.items() if type(name) is str and type(item) in (str, int, bool)}
