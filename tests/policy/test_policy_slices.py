"""What the engine asks (few policies, open scopes, no schema) against Cedar's answer to the whole bundle's text."""

from __future__ import annotations

import random
from typing import Any

import cedarpy
import pytest
from policy_support import template

from countermark.connectors.stripe.drafts import DRAFTS as STRIPE
from countermark.model.tool import ToolSpec
from countermark.policy import Bundle, Engine
from countermark.policy.bundle import BUILT_IN_FACTS, NO_PAYEE, UNKNOWN_PAYEE

REQUESTS = 1_500
SEED = 20_261_129


def number(rng: random.Random, limits: list[int]) -> int:
    """Around a limit, or anything."""
    return max(0, rng.choice((rng.choice(limits) + rng.randint(-1, 1), rng.randrange(10**9), rng.randrange(3))))


def context(rng: random.Random, bundle: Bundle, tool: ToolSpec) -> dict[str, Any]:
    """A context that fits the tool's schema: every member that its policies read, each near what they compare with."""
    limits = [*bundle.compiled.limits.values(), 250_000, 100_000]
    kinds = {definition.name: definition.kind for definition in bundle.compiled.facts}
    found: dict[str, Any] = {}
    for member in tool.reads:
        place, _, name = member.partition(".")
        if place == "args":
            spec = tool.by_alias[name]
            if not spec.required and rng.random() < 0.3:
                continue
            of = {
                "string": rng.choice((*spec.enum, "a", "iban", "")),
                "integer": number(rng, limits),
                "boolean": rng.random() < 0.5,
            }
            found.setdefault("args", {})[name] = of[spec.type]
        elif place != "facts":
            found[member] = number(rng, limits) if member == "amount" else rng.choice(bundle.compiled.currencies)
        else:
            type_ = BUILT_IN_FACTS.get(name)
            value: Any = number(rng, limits)
            if type_ == "Bool":
                value = rng.random() < 0.5
            elif type_ is not None and type_ != "Long":
                value = rng.sample(sorted(tool.by_alias), k=min(len(tool.by_alias), rng.randrange(4)))
            elif kinds.get(name) in ("slot", "details"):
                value = {"known": True, "age_s": number(rng, limits)} if rng.random() < 0.5 else {"known": False}
            elif kinds.get(name) == "grounded":
                value = {"known": rng.random() < 0.5, "equal": rng.random() < 0.5}
            found.setdefault("facts", {})[name] = value
    return found


@pytest.mark.parametrize("name", ["vendor-payments", "banking"])
def test_the_engine_answers_as_the_whole_bundle_does(name: str) -> None:
    """For requests at random, decision and satisfied ids are those of all policies with their scopes, schema given."""
    rng = random.Random(SEED)
    bundle = template(name, {"stripe": STRIPE})
    engine = Engine(bundle)
    compiled = bundle.compiled
    whole = cedarpy.PolicySet.from_str(compiled.cedar)
    schema = cedarpy.Schema.from_str(compiled.schema)
    entities = cedarpy.Entities.from_json_str(compiled.entities, schema)
    seen: set[tuple[bool, tuple[str, ...]]] = set()
    for turn in range(REQUESTS):
        tool, agent = rng.choice(list(compiled.tools.values())), rng.choice(list(compiled.agents))
        payee = rng.choice([*compiled.payees, None, "p:" + "0" * 32])
        asked = context(rng, bundle, tool)
        answer = engine._ask(tool.name, agent, payee, asked, frozenset())
        resource = NO_PAYEE if payee is None else payee if payee in compiled.payees else UNKNOWN_PAYEE
        full = cedarpy.is_authorized(
            {"principal": {"type": "Agent", "id": agent}, "action": {"type": "Action", "id": tool.name},
             "resource": {"type": "Payee", "id": resource}, "context": asked},
            whole, entities, schema,
        )  # fmt: skip
        said = f"seed {SEED}, turn {turn}: {tool.name} {payee} {asked}"
        assert not full.diagnostics.errors, said
        ids = tuple(sorted(full.diagnostics.id_annotations_by_reason.values()))
        assert answer == (full.decision.value == "Allow", ids), said
        seen.add((full.allowed, ids))
    assert len(seen) > 12  # many different answers, or the comparison says little
