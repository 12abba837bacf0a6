"""A question to people: on which rungs it is asked, until when, and who has answered (docs/spec/record.md)."""

from dataclasses import dataclass, field
from typing import Any

from countermark_verify.bundle import Bundle


@dataclass(slots=True)
class Escalation:
    """`state`: pending, approved, refused, expired, used. `seq` is that of its `escalation.raised`.

    `rung`, `due` and `answers` are by ladder: the present rung, when it ends, who approved on it and in whose place.
    `bundle` is the one that asked, if the pack has it.
    """

    body: dict[str, Any]
    decided: dict[str, Any] | None
    seq: int
    bundle: Bundle | None
    state: str = "pending"
    rung: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def people(self) -> set[str]:
        """Everybody whose approval counts now."""
        return {person for people in self.answers.values() for person in people}

    @property
    def places(self) -> set[str]:
        """Everybody in whose place an approval counts now."""
        return {place for people in self.answers.values() for place in people.values()}

    def _rungs(self, ladder: str) -> list[dict[str, Any]]:
        known = self.bundle.ladders.get(ladder) if self.bundle is not None else None
        return known["rungs"] if known is not None else []

    def last(self, ladder: str) -> bool:
        return self.rung[ladder] >= len(self._rungs(ladder))

    def satisfied(self, ladder: str) -> bool:
        """As many approved on the present rung as it needs: then its time does not run any more."""
        rungs, number = self._rungs(ladder), self.rung[ladder]
        return 1 <= number <= len(rungs) and len(self.answers.get(ladder, ())) >= rungs[number - 1]["quorum"]

    def until(self, ladder: str) -> int:
        """Before when this ladder is answered: while its rung is asked, and no other ladder has run out of rungs."""
        over = [at for name, at in self.due.items() if self.last(name) and not self.satisfied(name)]
        own = [] if self.satisfied(ladder) else [self.due[ladder]]
        return min([*over, *own, int(self.body["not_after"])])

    @property
    def next(self) -> tuple[str, int]:
        """The ladder whose present rung ends next, and when; "" and the last deadline when every one has its people."""
        ends = sorted((at, ladder) for ladder, at in self.due.items() if not self.satisfied(ladder))
        return (ends[0][1], ends[0][0]) if ends else ("", int(self.body["not_after"]))


def rung_of(bundle: Bundle, ladder: str, escalation: Escalation) -> dict[str, Any] | None:
    """The present rung of a ladder, as this bundle has it."""
    rungs, number = bundle.ladders.get(ladder, {"rungs": []})["rungs"], escalation.rung.get(ladder, 0)
    return rungs[number - 1] if 1 <= number <= len(rungs) else None
