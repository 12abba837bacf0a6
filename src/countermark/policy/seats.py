"""Whether enough different people stand behind a policy for real money to move under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from countermark.authority import Person
from countermark.policy.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Seats:
    """A policy in force, who put it in force, and everybody with the keys that sign for them now."""

    bundle: Bundle | None = None
    activator: str = ""
    people: Mapping[str, Person] | None = None

    def lacking(self) -> list[str]:
        """Who is missing, in words; nobody when author, activator and an approver of every ladder are different people.

        Each of them has a key, and no key is two people's.
        """
        bundle, people = self.bundle, self.people or {}
        if bundle is None:
            return ["no policy is in force"]
        compiled, found = bundle.compiled, []
        if compiled.test:
            found.append("the policy says that this deployment is a test")
        able = {name for name, one in people.items() if one.keys}
        if compiled.author not in able:
            found.append(f"the author {compiled.author} has no key")
        if self.activator not in able:
            found.append(f"{self.activator}, who activated the policy, has no key")
        if self.activator == compiled.author:
            found.append(f"{compiled.author} wrote the policy and is its activator: real money needs another")
        others = able - {compiled.author, self.activator}
        for ladder in compiled.ladders.values():
            if not any(people[name].roles & set(ladder.roles) for name in others):
                found.append(f"nobody else can answer on the ladder {ladder.id}")
        return found
