"""Small packs that try to use up a verifier's time, memory or stack. Too many for files: the tests write them.

A bundle's schema and policies are free text to whoever cannot compile its sources, so docs/spec refuses only some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from build import Key, Pack, head_of
from bundle import FACTS, asking_bundle, plain_bundle
from cases import trust
from enrolments import enrol, peopled
from fields import payment
from scribe import ALLOWED, Story
from story import TRANSFER, opened, pack_of, run_of


@dataclass(frozen=True)
class Strain:
    """A pack, its trust file, and whether docs/spec refuses what it holds."""

    data: bytes
    trust: dict[str, Any]
    refused: bool = True


Compiled = dict[str, Any]
STRAINS: dict[str, Callable[[], Strain]] = {}


def _story(bundle: dict[str, Any], invoice: str = "INV-1", count: int = 1) -> Story:
    story = opened("strain", bundle=bundle)
    for number in range(count):
        args = payment(1_000, "aurora", invoice if number == 0 else f"{invoice}-{number}")
        story.settle(story.decide(run_of(story), f"call-{number}", TRANSFER, args, ALLOWED))
    return story


def _strain(story: Story, pack: Pack | None = None, refused: bool = True) -> Strain:
    return Strain((pack or pack_of(story)).write(), trust([head_of(story.log.leaves)]), refused)


def strain(refused: bool) -> Callable[[Callable[[Compiled], None]], None]:
    """Register a change of the compiled part of a bundle under its function's name."""

    def register(change: Callable[[Compiled], None]) -> None:
        def make() -> Strain:
            bundle = asking_bundle()
            change(bundle["compiled"])
            return _strain(_story(bundle), refused=refused)

        STRAINS[change.__name__.replace("_", "-")] = make

    return register


# --- the schema ---


def _doubling(compiled: Compiled, before: str = "", keyword: str = "type", depth: int = 29) -> Iterator[str]:
    """Types of which each holds the one before twice, and the entity that has one of the last."""
    yield f"{before}{keyword} T0 = {{ a: Long, b: Long }};\n"
    for number in range(1, depth + 1):
        yield f"{before}{keyword} T{number} = {{ a: T{number - 1}, b: T{number - 1} }};\n"


def _with_types(compiled: Compiled, types: str, last: str = "T29") -> None:
    schema = compiled["schema"].replace("owner: String", f"owner: String, more?: {last}")
    compiled["schema"] = types + schema


@strain(refused=False)
def schema_types_double(compiled: Compiled) -> None:
    _with_types(compiled, "".join(_doubling(compiled)))


@strain(refused=False)
def schema_types_double_behind_annotations(compiled: Compiled) -> None:
    _with_types(compiled, "".join(_doubling(compiled, before='@doc("a type") ')))


@strain(refused=False)
def schema_types_double_behind_comments(compiled: Compiled) -> None:
    _with_types(compiled, "".join(_doubling(compiled, keyword="type // which one?\n")))


@strain(refused=False)
def schema_types_double_in_a_namespace(compiled: Compiled) -> None:
    types = "".join(_doubling(compiled))
    _with_types(compiled, f"namespace N {{ {types} }}\n", "N::T29")


@strain(refused=False)
def schema_actions_chained(compiled: Compiled) -> None:
    more = ['action "a0";\n', *(f'action "a{n}" in ["a{n - 1}"];\n' for n in range(1, 6_000))]
    compiled["schema"] += "".join(more)


@strain(refused=False)
def schema_actions_in_all_others(compiled: Compiled) -> None:
    more = [f'action "a{n}" in [{", ".join(f"{chr(34)}a{m}{chr(34)}" for m in range(n))}];\n' for n in range(1, 300)]
    compiled["schema"] += 'action "a0";\n' + "".join(more)


@strain(refused=False)
def schema_nested_deeply(compiled: Compiled) -> None:
    _with_types(compiled, "", "Set<" * 20_000 + "Long" + ">" * 20_000)


# --- policies and entities ---


@strain(refused=False)
def policy_nested_deeply(compiled: Compiled) -> None:
    compiled["cedar"] = compiled["cedar"].replace(
        "when { ", "when { " + "(" * 20_000 + "true" + ")" * 20_000 + " && ", 1
    )


@strain(refused=False)
def policy_of_many_terms(compiled: Compiled) -> None:
    compiled["cedar"] = compiled["cedar"].replace("when { ", "when { " + "true && " * 30_000, 1)


@strain(refused=True)
def entities_with_parents(compiled: Compiled) -> None:
    rows = json.loads(compiled["entities"])
    for number in range(3_000):
        uid = {"type": "Payee", "id": f"extra-{number}"}
        parents = [{"type": "Payee", "id": f"extra-{number - 1}"}] if number else []
        rows.append({"uid": uid, "attrs": {}, "parents": parents})
    compiled["entities"] = json.dumps(rows, separators=(",", ":"))


@strain(refused=True)
def entities_nested_deeply(compiled: Compiled) -> None:
    compiled["entities"] = "[" * 100_000 + "]" * 100_000


@strain(refused=True)
def entities_with_an_endless_number(compiled: Compiled) -> None:
    compiled["entities"] = compiled["entities"].replace('"ask_above":50000', '"ask_above":' + "5" * 100_000)


# --- tools and arguments ---


def _facts_listed_often() -> Strain:
    """Whether a fact may be listed twice is not said; computing it 30,000 times for each action is not needed."""
    bundle = plain_bundle()
    compiled = bundle["compiled"]
    compiled["facts"] = [fact for fact in FACTS if fact["name"] == "spent_day"]
    compiled["tools"][0]["facts"] = ["spent_day"] * 30_000
    return _strain(_story(bundle, count=20), refused=False)


def _pattern_that_backtracks() -> Strain:
    """The pattern is a regular expression of the insider's choice, and so is the value that almost matches it."""
    pattern = {"pattern": "([A-Z0-9]+-?)+!"}
    return _strain(_story(plain_bundle(invoice=pattern), "INV-" + "1" * 60))


def _pattern_that_is_none() -> Strain:
    return _strain(_story(plain_bundle(invoice={"pattern": "(" * 5_000})))


STRAINS["facts-listed-often"] = _facts_listed_often
STRAINS["pattern-that-backtracks"] = _pattern_that_backtracks
STRAINS["pattern-that-is-none"] = _pattern_that_is_none


# --- other members ---


def _disclosing(text: bytes) -> Strain:
    story = _story(plain_bundle())
    pack = pack_of(story)
    pack.members["disclosures.json"] = text
    return _strain(story, pack.sealed())


def _disclosures_empty() -> Strain:
    return _disclosing(b'{"fields":[' + b"{}," * 1_000_000 + b'{}],"requests":[],"v":1}')


def _disclosures_nested() -> Strain:
    return _disclosing(b'{"fields":' + b"[" * 500_000 + b"]" * 500_000 + b',"requests":[],"v":1}')


def _manifest_nested() -> Strain:
    story = _story(plain_bundle())
    pack = pack_of(story)
    pack.members["manifest.sigstore.json"] = b"[" * 500_000 + b"]" * 500_000
    return _strain(story, pack)


STRAINS["disclosures-of-empty-objects"] = _disclosures_empty
STRAINS["disclosures-nested-deeply"] = _disclosures_nested
STRAINS["manifest-nested-deeply"] = _manifest_nested


# --- people ---


def _enrolments_in_a_crowd() -> Strain:
    """Whose key it is costs no look at everybody, however many keys were enrolled before."""
    bundle = peopled("crowd")
    names = (f"somebody-{number}" for number in range(2_000))
    bundle["compiled"]["people"] += [{"id": name, "name": name, "roles": ["guest"], "keys": []} for name in names]
    story = opened("crowd", bundle=bundle)
    for number in range(600):
        enrol(story, Key(f"crowd/{number}"), "controller", by=("director", "activator"))
    return _strain(story)


STRAINS["enrolments-in-a-crowd"] = _enrolments_in_a_crowd
