"""Who judges an order: the policy in force and its people, as the lane has them at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.authority import Eyes, Person
from countermark.gate.writer import Writer
from countermark.model.errors import AuthorityError
from countermark.policy import Bundle


@dataclass(frozen=True, slots=True)
class InForce:
    """The bundle in force, and everybody with the keys that sign for them now."""

    bundle: Bundle
    people: Mapping[str, Person]

    def still(self, writer: Writer) -> bool:
        """Whether the lane would judge by the same now."""
        bundle = writer.state.bundle
        return bundle is not None and bundle.digest == self.bundle.digest and writer.state.people == self.people


def in_force(writer: Writer) -> InForce | None:
    """Bundle and people of this moment, also for a judge beside the lane; None before the first activation."""
    bundle = writer.state.bundle
    return None if bundle is None else InForce(bundle, writer.state.people)


def people_of(writer: Writer) -> Mapping[str, Person]:
    """Everybody enrolled. Raises ``AuthorityError`` before the first activation."""
    if writer.state.bundle is None:
        raise AuthorityError("no policy is active, so nobody is enrolled")
    return writer.state.people


def eyes_of(judge: InForce | None, agent: str | None = None) -> Eyes:
    """Who may sign for two, about an action of ``agent`` if one is concerned. Raises ``AuthorityError``."""
    if judge is None:
        raise AuthorityError("no policy is active, so nobody is enrolled")
    compiled = judge.bundle.compiled
    found = None if agent is None else compiled.agents.get(agent)
    roles = {role for ladder in compiled.ladders.values() for role in ladder.roles}
    return Eyes(judge.people, roles, compiled.author, None if found is None else found.owner)
