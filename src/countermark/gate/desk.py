"""The gate as the driver of its runs sees it (``model.driving.Desk``)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from countermark.gate.actions import Decided
from countermark.gate.asking import Asking
from countermark.gate.background import Background
from countermark.gate.driving import advance
from countermark.gate.executor import Effect, Executor, Follow
from countermark.gate.lane import Lane
from countermark.gate.prepare import Caller, prepare
from countermark.gate.writer import Writer
from countermark.model.driving import Asked, Following, Part, Reply, Then
from countermark.model.errors import ArgumentError, EncodingError
from countermark.model.records import Record
from countermark.model.values import Action, Claim

Follower = Callable[[Sequence[Record]], None]


class GateDesk:
    """Everything here runs on the gate's loop."""

    def __init__(self, lane: Lane, background: Background, asking: Asking, executor: Executor) -> None:
        self._lane = lane
        self._background = background
        self._asking = asking
        self._executor = executor
        self.followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        """Tell ``follower`` of every durable batch, on the lane's thread."""
        self.followers.append(follower)

    def now_us(self) -> int:
        """The gate's own time, about that of the next record."""
        return self._lane.now_us()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something on the loop until it ends or the gate closes."""
        self._background.spawn(work)

    async def advance(self, run: str, parts: Sequence[Part], edge: int | None = None) -> list[Reply]:
        """Record parts in one commit, in order, up to the first that cannot be; nothing from the time ``edge`` on."""
        keys = [key for part in parts if isinstance(part, Asked) and part.prepared is not None
                for key in self._asking.keys_of(part.prepared)]  # fmt: skip
        replies: list[Reply] = await self._lane.ask(lambda writer: advance(writer, run, parts, edge), keys)
        return replies

    async def asked(
        self, agent: str, run: str, call_id: str, tool: str, args: Mapping[str, Any], because: Sequence[str]
    ) -> Asked:
        """Prepare an action of a run that a definition drives; what is none says so."""
        bundle, known, parts = await self._asking.policy_now()
        caller = Caller(agent, str(parts.started["tier"]), driver=True)
        try:
            Action.check_names(run, call_id, tool)
            prepared = prepare(
                bundle, known, parts.connectors, parts.pseudonym, parts.deployment, caller, run, call_id, tool,
                dict(args), Claim("", "", "", tuple(because)),
            )  # fmt: skip
            return Asked(call_id, tool, await self._executor.resolved(prepared))
        except (ArgumentError, EncodingError) as error:
            return Asked(call_id, tool, error=error, bundle=bundle.digest)

    async def perform(self, reply: Reply, then: Then) -> Record | None:
        """Execute what a reply's intent says; what ``then`` wants stands in the outcome's commit."""
        decided, prepared = reply.intent
        effect = Effect(decided.intent, prepared.ask.tool, prepared.request, prepared.salt, prepared.args)

        async def after(body: Mapping[str, Any]) -> Follow | None:
            following = await then(body)
            return None if following is None else _follow(following, body)

        settled = await self._executor.run(self._lane, effect, after)
        return settled.settled


def _follow(following: Following, body: Mapping[str, Any]) -> Follow:
    def follow(writer: Writer, decided: Decided) -> None:
        settled = decided.settled
        if settled is not None and settled.body == body:  # else people or a recovery were first: ask the records again
            following.replies = advance(writer, following.run, following.parts, following.edge)

    return follow
