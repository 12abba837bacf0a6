"""A tree of mandates: whatever a leaf allows, every ancestor allows, in each dimension and in what they spend."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import check_narrower, mandate_digest, parse_mandate
from countermark.facts import BudgetMachine
from countermark.model.errors import AuthorityError
from countermark.model.records import GENESIS, Record

MORE = 3 if os.environ.get("COUNTERMARK_CASES") == "all" else 1

TOOLS, PAYEES, NAMED = ("t.one", "t.two", "t.three"), ("ada", "bob", "cleo"), ("aa" * 16, "bb" * 16, "cc" * 16)
COINS = ("eur", "usd", "*")
SPANS = (0, 64_000, None)
PURPOSES = ("", "pay", "pay: rent", "pay: rent: may", "payroll", "rent", "pay:rent")
END = 10_000
DEPLOYMENTS = ("here", "there")


class Case(NamedTuple):
    """What somebody wants to do."""

    tool: str
    payee: str
    named: str
    at: int
    purpose: str
    deployment: str


def some(names: tuple[str, ...], everything: bool = True) -> st.SearchStrategy[list[str]]:
    chosen = st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=len(names))
    return chosen | st.just(["*"]) if everything else chosen | st.just([])


LIMITS = st.lists(
    st.tuples(st.sampled_from(COINS), st.sampled_from(SPANS), st.integers(0, 60)).filter(lambda t: t[:2] != ("*", 0)),
    unique_by=lambda t: t[:2], max_size=4,
)  # fmt: skip


@st.composite
def mandates(draw: st.DrawFn) -> dict[str, Any]:
    """Any mandate at all; most of them are nobody's child."""
    begin = draw(st.sampled_from((0, 10, 500)))
    return {
        "v": 1, "deployment": draw(st.sampled_from((*DEPLOYMENTS, DEPLOYMENTS[0], DEPLOYMENTS[0]))), "parent": None,
        "principal": "anna", "agent": draw(st.sampled_from(("a", "b"))), "agent_key": None, "tools": draw(some(TOOLS)),
        "payees": draw(some(PAYEES)), "named": draw(some(NAMED, everything=False)),
        "limits": [{"currency": c, "over_us": o, "amount": n} for c, o, n in draw(LIMITS)],
        "purpose": draw(st.sampled_from(PURPOSES)), "not_before": begin,
        "not_after": draw(st.sampled_from((begin + 1, 700, END))),
        "nonce": f"{draw(st.integers(0, 2**32)):032x}",
    }  # fmt: skip


@st.composite
def narrowed(draw: st.DrawFn, parent: dict[str, Any]) -> dict[str, Any]:
    """Like its parent but for one or two members, which are any at all: often a child, often nearly one."""
    other = draw(mandates())
    names = ("tools", "payees", "named", "limits", "purpose", "not_before", "not_after", "deployment", "agent")
    chosen = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    return {**parent, **{name: other[name] for name in chosen}, "nonce": other["nonce"]}


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    """From the root to a leaf, as far as the check for narrowing let each one pass."""
    chain = [draw(mandates())]
    for _ in range(draw(st.integers(1, 5))):
        document = draw(narrowed(chain[-1])) | {"parent": mandate_digest(chain[-1])}
        try:
            check_narrower(parse_mandate(document), parse_mandate(chain[-1]))
        except AuthorityError:
            continue
        chain.append(document)
    return chain


CASES = st.builds(
    Case, st.sampled_from(TOOLS), st.sampled_from(PAYEES), st.sampled_from(NAMED), st.integers(0, END + 1),
    st.sampled_from(PURPOSES), st.sampled_from(DEPLOYMENTS),
)  # fmt: skip


def covered(doc: dict[str, Any], case: Case) -> dict[str, bool]:
    """The naive reading of one document, each dimension for itself."""
    words, asked = doc["purpose"].split(": "), case.purpose.split(": ")
    return {
        "tools": doc["tools"] == ["*"] or case.tool in doc["tools"],
        "payees": doc["payees"] == ["*"] or case.payee in doc["payees"],
        "named": case.named in doc["named"],
        "validity": case.at >= doc["not_before"] and case.at < doc["not_after"],
        "purpose": doc["purpose"] == "" or asked[: len(words)] == words,
        "deployment": doc["deployment"] == case.deployment,
    }


@settings(max_examples=80, derandomize=True, deadline=None)
@given(chains(), CASES)
def test_what_a_leaf_covers_every_ancestor_covers(chain: list[dict[str, Any]], case: Case) -> None:
    """In tools, payees, named values, validity, purpose and deployment, each for itself."""
    leaf = covered(chain[-1], case)
    for ancestor in chain[:-1]:
        wide = covered(ancestor, case)
        assert [name for name in leaf if leaf[name] and not wide[name]] == []


@pytest.mark.slow
@settings(max_examples=160 * MORE, derandomize=True, deadline=None)
@given(chains(), CASES)
def test_what_a_leaf_covers_every_ancestor_covers_at_length(chain: list[dict[str, Any]], case: Case) -> None:
    """The same in more examples."""
    test_what_a_leaf_covers_every_ancestor_covers.hypothesis.inner_test(chain, case)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(chains())
def test_no_leaf_names_a_larger_number_than_an_ancestor(chain: list[dict[str, Any]]) -> None:
    """Where two mandates of a chain both limit one currency over one span, the lower one's is no larger."""
    for index, child in enumerate(chain):
        for parent in chain[:index]:
            wide = {(row["currency"], row["over_us"]): row["amount"] for row in parent["limits"]}
            for row in child["limits"]:
                assert row["amount"] <= wide.get((row["currency"], row["over_us"]), row["amount"])


@pytest.mark.slow
@settings(max_examples=160 * MORE, derandomize=True, deadline=None)
@given(chains())
def test_no_leaf_names_a_larger_number_than_an_ancestor_at_length(chain: list[dict[str, Any]]) -> None:
    """The same in more examples."""
    test_no_leaf_names_a_larger_number_than_an_ancestor.hypothesis.inner_test(chain)


def record(seq: int, at: int, kind: str, body: dict[str, Any]) -> Record:
    return Record(seq, kind, at, "", body, GENESIS, {}, b"", "")


@st.composite
def trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A root, and mandates each below an earlier one."""
    found = [draw(mandates()) | {"limits": [{"currency": c, "over_us": o, "amount": n} for c, o, n in draw(LIMITS)]}]
    for _ in range(draw(st.integers(1, 6))):
        parent = draw(st.sampled_from(found))
        document = draw(narrowed(parent)) | {"parent": mandate_digest(parent)}
        try:
            check_narrower(parse_mandate(document), parse_mandate(parent))
        except AuthorityError:
            continue
        found.append(document)
    return found


PAYMENTS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from(("eur", "usd")), st.integers(0, 40), st.integers(0, 40_000),
        st.sampled_from(("open", "confirmed", "failed")),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=50, derandomize=True, deadline=None)
@given(trees(), PAYMENTS)
def test_no_mandate_of_a_tree_spends_more_than_it_grants(
    tree: list[dict[str, Any]], payments: list[tuple[int, str, int, int, str]]
) -> None:
    """Whoever pays under whichever leaf: in every mandate above it, each limit holds over every span of its length."""
    budgets, parents = BudgetMachine(), {mandate_digest(doc): doc["parent"] for doc in tree}
    docs = {mandate_digest(doc): doc for doc in tree}
    for digest, doc in docs.items():
        budgets.grant(digest, doc["limits"])
    done: list[tuple[int, list[str], str, int]] = []  # (when, chain, currency, amount) of what was not released
    at = 0
    for seq, (which, coin, amount, pause, outcome) in enumerate(payments):
        at += pause
        chain = [list(docs)[which % len(docs)]]
        while (parent := parents[chain[-1]]) is not None:
            chain.append(parent)
        used = budgets.used_after(chain, coin, amount, at)
        if any(total > budgets.limit(digest, index) for digest, index, total in used):
            continue
        terms = {"amount": amount, "currency": coin}
        budgets.apply(
            record(2 * seq, at, "action.decided", {"disposition": "allow", "terms": terms, "mandates": chain})
        )
        if outcome != "open":
            body = {"outcome": outcome, "intent": 2 * seq, "terms": terms, "tier": "enforcing", "settled": None}
            budgets.apply(record(2 * seq + 1, at, "action.settled", body))
        if outcome != "failed":
            done.append((at, chain, coin, amount))
        for digest, doc in docs.items():
            for row in doc["limits"]:
                if row["over_us"] != 0:
                    assert spent(done, digest, row, at) <= row["amount"]
    assert standing_agrees(budgets, at)


@pytest.mark.slow
@settings(max_examples=80 * MORE, derandomize=True, deadline=None)
@given(trees(), PAYMENTS)
def test_no_mandate_of_a_tree_spends_more_than_it_grants_at_length(
    tree: list[dict[str, Any]], payments: list[tuple[int, str, int, int, str]]
) -> None:
    """The same in more examples."""
    test_no_mandate_of_a_tree_spends_more_than_it_grants.hypothesis.inner_test(tree, payments)


def spent(done: list[tuple[int, list[str], str, int]], digest: str, row: dict[str, Any], now: int) -> int:
    """The naive sum: everything under a mandate in the span of a limit that ends now."""
    since = -1 if row["over_us"] is None else now - row["over_us"]
    mine = [one for one in done if digest in one[1] and one[0] > since]
    return len(mine) if row["currency"] == "*" else sum(one[3] for one in mine if one[2] == row["currency"])


def standing_agrees(budgets: BudgetMachine, now: int) -> bool:
    """What is used and what is held add up to what the next decision would count."""
    for digest, rows in budgets.standing(now).items():
        for coin in ("eur", "usd"):
            for _, index, total in budgets.used_after((digest,), coin, 0, now):
                limit = budgets._mandates[digest][index]
                own = 1 if limit.currency == "*" else 0
                if sum(rows[index]) != total - own or min(rows[index]) < 0:
                    return False
    return True
