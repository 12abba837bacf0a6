"""API tokens: form, custody, scope, life, rotation, revocation."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.authority import EMPTY, Scope, TokenBook, check_token, issue, revoke_token, rotate
from countermark.model.clock import US
from countermark.model.errors import AuthorityError, CountermarkError

NOW = 1_790_000_000 * US
DAY_S = 86_400


def code_of(error: pytest.ExceptionInfo[CountermarkError]) -> str:
    return error.value.code


def test_a_token_says_who_it_is_for_and_the_book_does_not_hold_it() -> None:
    """The plain token authenticates its agent; neither it nor its secret stands in what is stored."""
    book, made, plain = issue(EMPTY, "treasury", NOW, life_s=DAY_S)
    assert re.fullmatch(r"cmk_[0-9a-f]{16}_[0-9a-f]{48}", plain)
    assert check_token(book, plain, NOW) == made
    assert made.agent == "treasury"
    assert plain.rpartition("_")[2].encode() not in book.render()


def test_what_is_rendered_is_read_again_and_nothing_else_is() -> None:
    """The file's bytes have one form; another order, member or version is refused."""
    book, _, _ = issue(EMPTY, "treasury", NOW, life_s=DAY_S, tools=["stripe.transfers.create"], run="run_" + "0" * 32)
    raw = book.render()
    assert TokenBook.parse(raw).render() == raw
    for wrong in (b"{}", raw[:-1], raw.replace(b'"v":1', b'"v":2'), raw.replace(b'"agent"', b'"agents"'), raw + b" "):
        with pytest.raises(CountermarkError):
            TokenBook.parse(wrong)


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "cmk_",
        "cmk__",
        "cmk_" + "0" * 16 + "_" + "0" * 48,
        "cmk_" + "0" * 16,
        "sk_test_1",
        "cmk_" + "é" * 65,
        "x" * 9_000,
    ],
)
def test_what_is_no_token_is_refused_like_a_wrong_one(presented: str) -> None:
    """Malformed, unknown and wrong tokens get one and the same answer."""
    book, _, plain = issue(EMPTY, "treasury", NOW, life_s=DAY_S)
    wrong = plain[:-1] + ("0" if plain[-1] != "0" else "1")
    with pytest.raises(AuthorityError) as unknown:
        check_token(book, presented, NOW)
    with pytest.raises(AuthorityError) as near:
        check_token(book, wrong, NOW)
    assert str(unknown.value) == str(near.value)
    assert code_of(unknown) == "not_authenticated"


@settings(derandomize=True, max_examples=60)
@given(st.integers(0, 68), st.sampled_from("0123456789abcdefABCDEF_ "))
def test_one_changed_character_makes_another_token(place: int, char: str) -> None:
    """No character of a token is without meaning."""
    book, _, plain = issue(EMPTY, "treasury", NOW, life_s=DAY_S)
    changed = plain[:place] + char + plain[place + 1 :]
    if changed == plain:
        return
    with pytest.raises(AuthorityError):
        check_token(book, changed, NOW)


def test_a_token_is_valid_from_its_beginning_until_just_before_its_end() -> None:
    """``not_before`` is the first moment, ``not_after`` is no longer one."""
    book, _, plain = issue(EMPTY, "treasury", NOW, life_s=10, not_before=NOW + 5 * US)
    for at in (NOW, NOW + 5 * US - 1, NOW + 15 * US):
        with pytest.raises(AuthorityError):
            check_token(book, plain, at)
    for at in (NOW + 5 * US, NOW + 15 * US - 1):
        assert check_token(book, plain, at).agent == "treasury"


def test_a_revoked_token_ends_at_once_and_stays_in_the_list() -> None:
    """Revocation does not wait for anything, and is seen."""
    book, made, plain = issue(EMPTY, "treasury", NOW, life_s=DAY_S)
    book = revoke_token(book, made.id, NOW + US)
    with pytest.raises(AuthorityError):
        check_token(book, plain, NOW + US)
    assert book.tokens[made.id].state(NOW + US) == "revoked"
    with pytest.raises(AuthorityError) as again:
        revoke_token(book, made.id, NOW + 2 * US)
    assert code_of(again) == "unknown_token"


def test_a_rotated_token_overlaps_with_the_next_and_then_ends() -> None:
    """Old and new work together for the overlap; afterwards only the new one; agent and scope are the same."""
    book, old, first = issue(EMPTY, "treasury", NOW, life_s=30 * DAY_S, tools=["noop.pay"])
    book, new, second = rotate(book, old.id, NOW, life_s=DAY_S, overlap_s=3_600)
    assert (new.agent, new.scope) == (old.agent, old.scope)
    assert {check_token(book, plain, NOW + US).id for plain in (first, second)} == {old.id, new.id}
    with pytest.raises(AuthorityError):
        check_token(book, first, NOW + 3_600 * US)
    assert check_token(book, second, NOW + 3_600 * US).id == new.id


def test_rotation_without_overlap_revokes_and_never_prolongs() -> None:
    """An overlap of nothing is a revocation; a longer one than the old token's life does not make that longer."""
    book, old, first = issue(EMPTY, "treasury", NOW, life_s=60)
    without, _, _ = rotate(book, old.id, NOW, life_s=DAY_S, overlap_s=0)
    with pytest.raises(AuthorityError):
        check_token(without, first, NOW)
    long, _, _ = rotate(book, old.id, NOW, life_s=DAY_S, overlap_s=DAY_S)
    assert long.tokens[old.id].not_after == old.not_after
    with pytest.raises(AuthorityError):
        rotate(without, old.id, NOW, life_s=DAY_S, overlap_s=0)


@pytest.mark.parametrize(
    ("agent", "more"),
    [
        ("", {}), ("Not A Name", {}), ("treasury", {"tools": ["../x"]}), ("treasury", {"run": "run_1"}),
        ("treasury", {"life_s": 0}), ("treasury", {"life_s": 400 * DAY_S}), ("treasury", {"tools": ["t"] * 1 + [""]}),
        ("treasury", {"tools": [f"t{n}" for n in range(65)]}),
    ],
)  # fmt: skip
def test_what_cannot_be_a_token_is_not_issued(agent: str, more: dict[str, object]) -> None:
    """Names, scopes and lives have bounds."""
    with pytest.raises(AuthorityError) as wrong:
        issue(EMPTY, agent, NOW, **({"life_s": DAY_S} | more))  # type: ignore[arg-type]
    assert code_of(wrong) == "bad_token"


def test_ended_tokens_leave_the_list_after_a_month() -> None:
    """The list does not grow with every rotation for ever."""
    book, made, _ = issue(EMPTY, "treasury", NOW, life_s=10)
    later, _, _ = issue(book, "treasury", NOW + 29 * DAY_S * US, life_s=10)
    assert made.id in later.tokens
    latest, _, _ = issue(book, "treasury", NOW + 31 * DAY_S * US, life_s=10)
    assert made.id not in latest.tokens


def test_a_scope_allows_its_tools_in_its_run_only() -> None:
    """An empty member bounds nothing."""
    scope = Scope(("a", "b"), "run_1")
    assert scope.allows("a", "run_1")
    assert not scope.allows("c", "run_1")
    assert not scope.allows("a", "run_2")
    assert replace(scope, run="").allows("b", "anything")
    assert Scope().allows("anything", "anywhere")
