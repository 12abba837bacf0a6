"""V09: what makes a bundle well-formed is read from its texts, with and without Cedar."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from verify_builder import Maker, bundle_document
from verify_bytes import canon, digest

from countermark_verify import parse_trust, rules, verify
from countermark_verify.bundle import read_bundle
from countermark_verify.errors import Malformed
from countermark_verify.policy_text import read_policies
from countermark_verify.wellformed import problems

Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(canon(bundle_document()))
    change(document["compiled"])
    return document


def reasons(change: Change) -> list[str]:
    try:
        return problems(read_bundle(canon(changed(change))))
    except Malformed as error:
        return [str(error)]


def _entities(edit: Callable[[list[dict[str, Any]]], Any]) -> Change:
    def change(compiled: dict[str, Any]) -> None:
        entities = json.loads(compiled["entities"])
        edit(entities)
        compiled["entities"] = json.dumps(entities)

    return change


def _payee(place: int, account: str) -> Change:
    return lambda compiled: compiled["payees"][place].update(account=account)


def _reads(edit: Callable[[list[str]], Any]) -> Change:
    return lambda compiled: edit(compiled["tools"][0]["reads"])


def _policy(text: str) -> Change:
    return lambda compiled: compiled.update(cedar=compiled["cedar"] + text)


def _policies(old: str, new: str) -> Change:
    return lambda compiled: compiled.update(cedar=compiled["cedar"].replace(old, new))


ILL_FORMED: dict[str, Change] = {
    "reads lack a member": _reads(lambda reads: reads.remove("facts.day_sum")),
    "reads list a member that no policy names": _reads(lambda reads: reads.insert(1, "args.amount")),
    "reads list a member twice": _reads(lambda reads: reads.insert(0, "amount")),
    "reads not sorted": _reads(lambda reads: reads.reverse()),
    "reads list a sealed argument": _reads(lambda reads: reads.insert(2, "args.memo")),
    "a comment names one more fact": _policy('@id("c") forbid(principal, action, resource) // facts payees\n;'),
    "a string names one more fact": _policy(
        '@id("s") forbid(principal, action == Action::"bank.pay", resource) when { "facts last_pay" == "" };'
    ),
    "agent with another owner": _entities(lambda items: items[0]["attrs"].update(owner="author")),
    "agent of nobody": _entities(lambda items: items.append(items[0] | {"uid": {"type": "Agent", "id": "ghost"}})),
    "an author who is nobody": lambda compiled: compiled.update(author="ghost"),
    "an owner who is nobody": lambda compiled: (
        compiled["agents"][0].update(owner="ghost"),
        compiled.update(entities=compiled["entities"].replace('"owner": "owner"', '"owner": "ghost"')),
    ),
    "agent left out": _entities(lambda items: items.pop(0)),
    "payee left out": _entities(lambda items: items.pop(2)),
    "stand-in left out": _entities(lambda items: items.pop()),
    "entity twice": _entities(lambda items: items.append(items[0])),
    "entity with a parent": _entities(lambda items: items[0].update(parents=[items[2]["uid"]])),
    "another limit": _entities(lambda items: items[1]["attrs"].update(ask_over=60_000)),
    "a limit as truth": lambda compiled: (
        compiled["limits"].update(ask_over=1),
        compiled.update(entities=compiled["entities"].replace("50000", "true")),
    ),
    "entities twice the same key": lambda compiled: compiled.update(
        entities=compiled["entities"].replace('"owner": "owner"', '"owner": "author", "owner": "owner"')
    ),
    "two payees with one account": _payee(1, "iban 0"),
    "an account that is another payee's id": _payee(1, "payee0"),
    "an output twice": lambda compiled: compiled["tools"][0].update(outputs=[["a", "string"], ["a", "integer"]]),
    "a policy with a backslash": _policy('@id("b") permit(principal, action, resource) when { "\\n" == "" };'),
    "facts lack one that a policy names": lambda compiled: compiled["tools"][0]["facts"].remove("payees"),
    "facts list one that no policy names": _policies("payees", "others"),
    "facts not sorted": lambda compiled: compiled["tools"][0]["facts"].reverse(),
    "a fact twice": lambda compiled: compiled["tools"][0]["facts"].insert(0, "day_sum"),
    "a fact without its field": lambda compiled: compiled["tools"][1].update(facts=["payees"]),
    "a person with an empty key": lambda compiled: compiled["people"][0].update(keys=[""]),
    "no id": _policy("permit(principal, action, resource);"),
    "an id twice": _policy('@id("pay") permit(principal, action, resource);'),
    "a permit that escalates": _policy('@id("e") @escalate("finance") permit(principal, action, resource);'),
    "a ladder of nobody": _policy('@id("e") @escalate("board") forbid(principal, action, resource);'),
    "escalates to nowhere": _policy('@id("e") @escalate forbid(principal, action, resource);'),
    "text after the policies": _policy("trailing"),
    "scope that cannot be read": _policy('@id("e") forbid(principal, resource);'),
}


@pytest.mark.parametrize("case", ILL_FORMED)
def test_each_way_to_be_ill_formed_is_named(case: str) -> None:
    """One change to an honest bundle, and at least one reason."""
    assert reasons(lambda compiled: None) == []
    assert reasons(ILL_FORMED[case]) != []


def test_words_of_other_tools_policies_and_of_two_policies_do_not_count() -> None:
    """A member is read when all its names stand in one policy whose action scope covers the tool."""
    other = '@id("r") forbid(principal, action == Action::"erp.read", resource) when { context has nothing };'
    assert reasons(_policy(other)) == []
    apart = '@id("x") forbid(principal, action, resource) when { "facts" == "args" };'
    apart += '@id("y") forbid(principal, action, resource) when { "payees memo" == "" };// facts payees\n'
    assert reasons(_policy(apart)) == []


@pytest.mark.parametrize("name", ["of", "group", "where", "tool", "field", "over_us"])
def test_a_member_of_a_definition_that_does_not_apply_is_empty_never_null(name: str) -> None:
    """Only the minimum and the maximum of an argument may be null."""
    document = changed(lambda compiled: compiled["facts"][0].update({name: None}))
    with pytest.raises(Malformed):
        read_bundle(canon(document))


@pytest.mark.parametrize(
    "name", ["enum", "pattern", "chars_max", "once_per", "once_scope", "currency", "key_ttl_s", "timeout_ms"]
)
def test_a_member_of_a_tool_that_does_not_apply_is_empty_never_null(name: str) -> None:
    """The same for tools and their arguments."""

    def change(compiled: dict[str, Any]) -> None:
        tool = compiled["tools"][0]
        (tool if name in tool else tool["args"][0])[name] = None

    with pytest.raises(Malformed):
        read_bundle(canon(changed(change)))


@pytest.mark.parametrize("with_cedar", [True, False])
def test_an_ill_formed_bundle_is_refuted_at_its_activation(with_cedar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`V09.bundle` names the seq of the activation, also on a machine without Cedar."""
    if not with_cedar:
        monkeypatch.setattr(rules, "cedarpy", None)
    maker = Maker()
    maker.bundle = canon(changed(ILL_FORMED["reads not sorted"]))
    maker.bundle_digest = digest("bundle", maker.bundle)
    maker.open()
    report = verify(maker.pack(), parse_trust(json.dumps(maker.trust()).encode()))
    assert (report.verdict, report.codes(), report.first_bad_seq) == ("refuted", ["V09.bundle"], 1)


HEADS = [
    '@id("a") permit(principal, action, resource);',
    '// before\n@id("ab;")@flag forbid(principal is Agent,action in[Action::"x",Action::"y"],resource) // in\n;',
    '@escalate("f")@id("b")forbid(principal==Agent::"q;",action==Action :: "z" , resource in Payee::"p")when{true};',
    '@id("c") permit (principal, action in Action::"money", resource) unless { context has "a;)" };// after',
]


def test_heads_are_read_as_cedar_reads_them() -> None:
    """Effect, annotations and action scope of every form of head equal those of Cedar's own parser."""
    pytest.importorskip("cedarpy")
    document = changed(lambda compiled: compiled.update(cedar="\n".join(HEADS)))
    rules.Rules(read_bundle(canon(document)))
    found = read_policies("\n".join(HEADS))
    assert [policy.id for policy in found] == ["a", "ab;", "b", "c"]
    assert found[1].annotations["flag"] == ""
    assert found[1].actions == frozenset({("in", "Action", "x"), ("in", "Action", "y")})
    assert "before" not in found[1].words
    assert "in" in found[1].words
    assert "after" not in found[3].words


@pytest.mark.parametrize(
    "text",
    [
        "@id permit;",
        '@id("a") @id("b") permit(principal, action, resource);',
        '@id("\\u{62}") permit(principal, action, resource);',
        '@id("a") permit(principal, action in Action, resource);',
        '@id("a") permit(principal, action like "x", resource);',
        '@id("a") permit(principal',
        '@id("a") permit(principal, action in [[Action::"a"]], resource);',
        '@id("a") allow(principal, action, resource);',
    ],
)
def test_heads_that_cannot_be_read_are_malformed(text: str) -> None:
    """Nothing but `Malformed` leaves the reader."""
    with pytest.raises(Malformed):
        read_policies(text)


def test_a_bundle_is_read_once_and_its_faults_are_found_each_time() -> None:
    """The same bytes give the same object and the same reasons; others, however alike, their own."""
    raw = canon(bundle_document())
    crooked = canon(changed(_reads(lambda reads: reads.pop())))
    for _ in range(2):
        assert read_bundle(raw) is read_bundle(bytes(bytearray(raw)))
        assert problems(read_bundle(raw)) == []
        assert problems(read_bundle(crooked)) != []
        with pytest.raises(Malformed):
            read_bundle(raw[:-1])
