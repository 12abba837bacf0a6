"""What would be decided now if everybody who is asked said yes: by the same function, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from countermark.model.values import EXECUTING
from countermark.policy.judgement import Ask, Judgement, ask_of, judge, payee_of
from countermark.policy.parked import Escalation
from countermark.policy.state import State


class Outlook(NamedTuple):
    """``against``: ids of the policies that stand against the action now, besides those that people are asked about."""

    judgement: Judgement
    against: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether an approval would have it done."""
        return self.judgement.disposition in EXECUTING


def preview(state: State, parked: Escalation, decided: Mapping[str, Any], at: int) -> Outlook:
    """The judgement of a parked action, as its last approval would bring it about at ``at`` (microseconds).

    ``decided`` is the body of its ``action.decided``. Without the run or the tool: deny, ``approval_void``, and the
    reasons ``run`` or ``tool``.
    """
    bundle = state.bundle
    tool = None if bundle is None else bundle.compiled.tools.get(decided["tool"])
    gone = [name for name, there in (("run", decided["run"] in state.runs), ("tool", tool is not None)) if not there]
    if gone or tool is None:
        return Outlook(Judgement("deny", "approval", "approval_void", tuple(gone)))
    ask = ask_of(decided, tool)
    judgement = judge(state, ask, at, parked)
    return Outlook(judgement, _against(state, ask, judgement, parked))


def _against(state: State, ask: Ask, judgement: Judgement, parked: Escalation) -> tuple[str, ...]:
    engine, facts = state.engine, judgement.facts
    if engine is None or facts is None or judgement.stage != "approval":
        return ()
    context = engine.context(ask.tool, ask.terms, ask.clear, facts)
    verdict = engine.decide(ask.tool.name, ask.agent, payee_of(state, ask), context)
    asked = {name for names in parked.body["ladders"].values() for name in names}
    return () if verdict.disposition in EXECUTING else tuple(sorted(set(verdict.reasons) - asked))
