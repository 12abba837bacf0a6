"""From a request to its recorded decision: decode and prepare by the policy in force, then ask the lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from countermark.gate.actions import Decided, StaleBundle, decide, refuse
from countermark.gate.callers import no_agent
from countermark.gate.catalogue import allowed
from countermark.gate.executor import Executor
from countermark.gate.lane import Lane
from countermark.gate.parts import Parts
from countermark.gate.prepare import CLAIMS, Caller, Prepared, claim_of, prepare
from countermark.gate.telemetry import Telemetry, durable, timed
from countermark.gate.writer import Writer
from countermark.model.errors import (
    ArgumentError,
    ConfigError,
    CountermarkError,
    EncodingError,
    GateHaltedError,
    no_member,
)
from countermark.model.ports import Preparer
from countermark.model.values import Action, Claim
from countermark.model.words import nearest
from countermark.policy import NOBODY, Bundle, Known

PREPARE_TRIES_MAX = 3


class Asking:
    """Used on the gate's loop. It remembers the policy in force; the lane says when that has changed."""

    def __init__(self, parts: Parts, lane: Lane, executor: Executor) -> None:
        self._parts = parts
        self._lane = lane
        self._executor = executor
        self._bundle: Bundle | None = None
        self.known = NOBODY
        self.telemetry: Telemetry | None = None

    def forget(self) -> None:
        """A new policy is active: what it knows must not be refused by the old one."""
        self._bundle = None

    async def bundle(self) -> Bundle:
        """The policy in force."""
        found, self.known = await self._lane.ask(lambda writer: (writer.state.bundle, writer.state.register.known))
        if found is None:
            raise ConfigError("no policy is active", hint="Run `countermark policy activate`.")
        self._bundle = found
        return self._bundle

    async def policy(self) -> Bundle:
        """The policy in force, as last read: the lane asks the same once more."""
        return self._bundle or await self.bundle()

    async def policy_now(self) -> tuple[Bundle, Known, Parts]:
        """What preparing an action takes."""
        return await self.policy(), self.known, self._parts

    @staticmethod
    def keys_of(prepared: Prepared) -> tuple[str, ...]:
        """The keys that deciding an action looks up."""
        ask = prepared.ask
        return ("id:" + ask.id,) if ask.obligation is None else ("id:" + ask.id, "ob:" + ask.obligation)

    async def ask(
        self, caller: Caller, body: Mapping[str, Any], connectors: Mapping[str, Preparer]
    ) -> tuple[Prepared, Decided]:
        """A decision, recorded before this returns; so is a request of a known agent that was no valid action."""
        bundle = await self.policy()
        if caller.agent not in bundle.compiled.agents:  # nobody we know: no record, or strangers could fill the disk
            raise no_agent(caller.agent)
        run, call_id, tool = body.get("run"), body.get("call_id"), body.get("tool")
        try:
            if not _MEMBERS.issuperset(body):
                raise no_member("the request", body, _MEMBERS)
            claim = claim_of(body)
            Action.check_names(run, call_id, tool)
            names = (str(run), str(call_id), str(tool))
            return await self._decide(caller, *names, body.get("args"), claim, connectors)
        except (ArgumentError, EncodingError) as error:
            why = error if isinstance(error, ArgumentError) else ArgumentError(error.message)
            said = {k: v if type(v) is str and len(v) <= 128 else "" for k, v in body.items() if k in _NAMES}
            full = {name: said.get(name, "") for name in _NAMES}
            await self._lane.ask(lambda writer: refuse(writer, caller.agent, full, why))
            if why.code == "unknown_tool":
                seen = await self._lane.ask(lambda writer: allowed(writer, caller.agent, caller.scope))
                why.hint = nearest(str(tool), [one.name for one in seen if one.connector in connectors])
            raise why from None

    async def _decide(
        self, caller: Caller, run: str, call_id: str, tool: str, args: object, claim: Claim,
        connectors: Mapping[str, Preparer],
    ) -> tuple[Prepared, Decided]:  # fmt: skip
        parts = self._parts
        bundle = await self.policy()
        for _ in range(PREPARE_TRIES_MAX):
            prepared = prepare(
                bundle, self.known, connectors, parts.pseudonym, parts.deployment, caller, run, call_id, tool, args,
                claim,
            )  # fmt: skip
            prepared = await self._executor.resolved(prepared)
            deciding = _deciding(prepared)
            if self.telemetry is not None:
                deciding = timed(parts.clock, tool, deciding)
            reply = await self._lane.ask(deciding, self.keys_of(prepared))
            if self.telemetry is not None:
                durable(parts.clock)
            if isinstance(reply, ArgumentError):
                raise _Recorded(reply)
            if not isinstance(reply, StaleBundle):
                return prepared, reply
            bundle = await self.bundle()
        raise GateHaltedError("the policy keeps changing", hint="Ask again.")


def _deciding(prepared: Prepared) -> Callable[[Writer], Any]:
    return lambda writer: decide(writer, prepared)


_NAMES = ("run", "call_id", "tool")
_MEMBERS = CLAIMS | {*_NAMES, "args"}


class _Recorded(CountermarkError):
    """An argument error that the lane has already recorded."""

    def __init__(self, error: ArgumentError) -> None:
        super().__init__(error.message, code=error.code, hint=error.hint)
