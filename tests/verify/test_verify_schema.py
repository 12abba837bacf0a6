"""V09: the schema's text is the one that tools, facts and limits require, and Cedar is never given another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_builder import SCHEMA, bundle_document
from verify_bytes import canon

from countermark_verify.bundle import Bundle, read_bundle
from countermark_verify.errors import Malformed
from countermark_verify.schema_text import as_cedar_json, read_schema, required_schema, schema_problems

DOUBLING = "type T0 = {a: Long, b: Long};\n"
DOUBLING += "".join(f"type T{n} = {{a: T{n - 1}, b: T{n - 1}}};" for n in range(1, 40))


def bundle(**changes: Any) -> Bundle:
    return replace(read_bundle(canon(bundle_document())), **changes)


@pytest.mark.parametrize(
    "text",
    [
        DOUBLING + SCHEMA,
        DOUBLING.replace("type", '@doc("x") type') + SCHEMA,
        "namespace N {" + DOUBLING + "}" + SCHEMA,
        '@doc("x")\n' + SCHEMA.lstrip(),
        SCHEMA + "".join(f'action "a{n}" in ["a{n - 1}"];' for n in range(1, 6_000)),
        SCHEMA + 'action "more" in ["money"] appliesTo { principal: Payee, resource: Payee, context: {} };',
        SCHEMA.replace("entity Payee;", "entity Payee in [Agent];"),
        SCHEMA.replace("entity Payee;", "entity Payee tags String;"),
        SCHEMA.replace("Long", "T0"),
        SCHEMA.replace("Long", "Set<" * 20_000 + "Long" + ">" * 20_000),
        SCHEMA.replace("{}", "{ a: " * 20_000 + "Long" + "}" * 20_000),
        SCHEMA + "entity Payee;",
        SCHEMA.replace('"amount": Long', '"amount": Long, "amount": Long'),
        SCHEMA.replace('"owner"', '"ow\\u{6e}er"'),
        SCHEMA + '"',
        SCHEMA + " " * 2_000_000,
    ],
)
def test_whatever_a_compiler_does_not_write_is_refused_unread(text: str) -> None:
    """Types, namespaces, annotations, chains of actions, nesting, repetition, escapes, length."""
    with pytest.raises(Malformed):
        read_schema(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"amount": Long', '"amount"?: Long'),
        ('"amount": Long', '"amount": String'),
        ('"amount": Long, ', ""),
        ('"args"?', '"args"'),
        ('in [Action::"money"]', 'in [Action::"read"]'),
        ('in [Action::"money"]', ""),
        ('"ask_over": Long, ', ""),
        ('"owner": String', '"owner": String, "more": Long'),
        ("entity Payee;", "entity Payee; entity Other;"),
        ('"change";', '"change", "other";'),
        (', "change";', ";"),
        ('action "erp.read"', 'action "erp.other"'),
        ('action "money"', 'action "money" in ["read"]; action "mone"'),
    ],
)
def test_a_schema_that_says_something_else_is_not_the_required_one(old: str, new: str) -> None:
    """One change each to the honest text."""
    assert schema_problems(bundle()) == []
    assert old in SCHEMA
    assert schema_problems(bundle(schema=SCHEMA.replace(old, new))) != []


@pytest.mark.parametrize(
    "text",
    [
        SCHEMA.replace("[Agent]", "Agent").replace("[Payee]", "Payee"),
        SCHEMA.replace('Action::"', '"').replace('"owner"', "owner").replace("= {", "{"),
        SCHEMA.replace(";", " ; // a comment;\n").replace("},", "}, ").replace("}}}", "},},}"),
        SCHEMA.replace('"money", "read", "change"', 'change; action "money", read'),
    ],
)
def test_the_same_schema_in_other_words_is_the_same(text: str) -> None:
    """Quotes, lists of one, comments, the order and trailing commas mean nothing."""
    assert schema_problems(bundle(schema=text)) == []


def test_the_derived_schema_is_what_cedar_reads_in_the_text() -> None:
    """Cedar takes the derived form, and no request tells it from the text."""
    cedarpy = pytest.importorskip("cedarpy")
    import json

    derived = cedarpy.Schema.from_json_str(json.dumps(as_cedar_json(required_schema(bundle()))))
    written = cedarpy.Schema.from_str(SCHEMA)
    policies = cedarpy.PolicySet.from_str('@id("a") permit(principal, action in Action::"money", resource);')
    facts = {"payee_known": True, "day_sum": 1}
    contexts: list[dict[str, Any]] = [
        {},
        {"amount": 1, "facts": facts},
        {"amount": 1, "facts": facts, "args": {}},
        {"amount": 1, "facts": facts, "args": {"invoice": "I"}},
        {"amount": "1", "facts": facts},
        {"amount": 1, "facts": facts | {"more": 1}},
    ]
    entities = bundle_document()["compiled"]["entities"]
    for action in ("bank.pay", "erp.read", "money"):
        for context in contexts:
            answers = []
            for schema in (derived, written):
                request = {"principal": {"type": "Agent", "id": "payer"}, "resource": {"type": "Payee", "id": "$none"}}
                request |= {"action": {"type": "Action", "id": action}, "context": context}
                known = cedarpy.Entities.from_json_str(entities, schema)
                try:
                    answers.append(cedarpy.is_authorized(request, policies, known, schema).decision)
                except ValueError:
                    answers.append(None)
            assert answers[0] == answers[1], (action, context)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*"{}[]<>():;,=?", "::", "entity", "action", "in", "Set", "Long", '"a"', "appliesTo"])))
def test_any_tokens_give_a_schema_or_malformed(tokens: list[str]) -> None:
    """Nothing but `Malformed` leaves the reader."""
    try:
        read_schema(" ".join(tokens))
    except Malformed:
        pass
