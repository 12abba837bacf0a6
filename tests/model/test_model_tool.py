"""Strict decoding of arguments: no coercion, no unknown name, no value out of its declared form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.model.canon import canon
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.tool import AMOUNT_MAX, ARGS_MAX, ArgSpec, ToolSpec, alias_of, tool_from_document

AMOUNT = ArgSpec("amount", "integer", "amount", "amount")
CURRENCY = ArgSpec("currency", "string", "currency", "currency", enum=("eur", "usd"))
PAYEE = ArgSpec("destination", "string", "payee", "destination", pattern="acct_[a-z0-9]{4,}")
INVOICE = ArgSpec("metadata[invoice]", "string", "reference", "invoice", required=False, chars_max=20)
EXPRESS = ArgSpec("express", "boolean", "inert", "express", required=False)
TOOL = ToolSpec(
    "stripe.transfers.create", "stripe", "money", (AMOUNT, CURRENCY, PAYEE, INVOICE, EXPRESS),
    recovery="idempotent", once_per=("payee", "invoice"), once_scope="invoice", encoding="form-v1",
    key_ttl_s=86_400, endpoint="POST https://api.example/v1/transfers", headers=(("Stripe-Version", "x"),),
    outputs=(("id", "string"),), facts=("paid_today",),
)  # fmt: skip
GOOD = {"amount": 100, "currency": "eur", "destination": "acct_1234"}


def refused(change: dict[Any, Any]) -> ArgumentError:
    """The error that the good arguments with ``change`` give."""
    with pytest.raises(ArgumentError) as caught:
        TOOL.decode({**GOOD, **change})
    return caught.value


def test_good_arguments_pass_unchanged() -> None:
    """What fits comes back equal, under the provider's own names."""
    args = {**GOOD, "metadata[invoice]": "INV-1 é", "express": False}
    assert TOOL.decode(args) == args
    assert TOOL.decode(GOOD) == GOOD


@pytest.mark.parametrize(
    "value",
    [True, False, "100", 100.0, None, [100], {"a": 1}, 0, -1, AMOUNT_MAX + 1, 2**63, 2**200, float("nan"), b"1"],
    ids=repr,
)
def test_an_amount_is_a_positive_integer_and_nothing_else(value: Any) -> None:
    """True is not 1, "100" is not 100, 100.0 is not 100; zero, negative and enormous amounts are refused."""
    error = refused({"amount": value})
    assert (error.field, error.code) == ("amount", "bad_argument")


def test_the_bounds_of_an_amount_are_exact() -> None:
    """One minor unit and the largest amount pass; declared bounds replace the default ones."""
    assert AMOUNT.check(1) == 1
    assert AMOUNT.check(AMOUNT_MAX) == AMOUNT_MAX
    bounded = ArgSpec("n", "integer", "inert", "n", minimum=-5, maximum=5)
    assert [bounded.check(value) for value in (-5, 0, 5)] == [-5, 0, 5]
    for value in (-6, 6):
        with pytest.raises(ArgumentError):
            bounded.check(value)
    with pytest.raises(ArgumentError):
        ArgSpec("n", "integer", "inert", "n").check(-AMOUNT_MAX - 1)


@pytest.mark.parametrize("value", [1, 0, "true", None, [], "x"], ids=repr)
def test_a_boolean_is_true_or_false_and_nothing_else(value: Any) -> None:
    """1 is not true."""
    assert refused({"express": value}).field == "express"


@pytest.mark.parametrize("value", [1, True, None, ["eur"], b"eur", "EUR", "eur ", "eur\n", "", "gbp"], ids=repr)
def test_an_enumerated_string_is_one_of_its_values(value: Any) -> None:
    """Case, white space and other types do not pass."""
    assert refused({"currency": value}).field == "currency"


@pytest.mark.parametrize("value", ["acct_123", "acct_1234\n", "x acct_1234", "acct_1234 x", "acct_１２３４"], ids=repr)
def test_a_pattern_covers_the_whole_value(value: str) -> None:
    """A prefix, a suffix or a trailing line feed around a matching part is refused."""
    assert refused({"destination": value}).field == "destination"


@pytest.mark.parametrize("value", ["x" * 21, "a\x00b", "a\x1bb", "a\x7f", "\ud800", "a\udfff"], ids=repr)
def test_a_string_is_short_clean_unicode(value: str) -> None:
    """Too long, control characters and lone surrogates are refused."""
    assert refused({"metadata[invoice]": value}).field == "metadata[invoice]"


@pytest.mark.parametrize("name", ["amount ", "Amount", "invoice", "metadata[other]", "", 1, None, ("a",)], ids=repr)
def test_an_unknown_argument_is_refused(name: Any) -> None:
    """A name that the tool does not declare denies; aliases are not names."""
    assert refused({name: "x"}).code == "unknown_argument"


@pytest.mark.parametrize("name", ["amount", "currency", "destination"])
def test_a_missing_argument_is_refused(name: str) -> None:
    """Every required argument must be there; the error names it."""
    with pytest.raises(ArgumentError) as caught:
        TOOL.decode({key: value for key, value in GOOD.items() if key != name})
    assert (caught.value.field, caught.value.code) == (name, "missing_argument")


@pytest.mark.parametrize(
    "args", [None, [], "x", 1, [("amount", 1)], {f"a{n}": 1 for n in range(ARGS_MAX + 1)}], ids=repr
)
def test_arguments_are_one_small_object(args: Any) -> None:
    """Anything but an object of at most 64 members is refused."""
    with pytest.raises(ArgumentError):
        TOOL.decode(args)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from([*TOOL.by_name, "other", "amount\n"]), VALUES, max_size=6))
def test_decoding_either_keeps_the_arguments_or_raises(args: dict[str, Any]) -> None:
    """Whatever comes in, it comes out equal and in the record profile, or ``ArgumentError`` leaves."""
    try:
        decoded = TOOL.decode(args)
    except ArgumentError:
        return
    assert decoded == args
    assert canon({TOOL.by_name[name].alias: value for name, value in decoded.items()})


def test_a_message_never_repeats_a_value() -> None:
    """Errors travel to agents and logs, so the offending value, which may be secret, is not in them."""
    for change in ({"destination": "sk_live_secret"}, {"metadata[invoice]": "sk_live_secret" * 9}):
        assert "sk_live" not in str(refused(change))


def test_a_tool_survives_its_document() -> None:
    """A tool written into a bundle reads back equal, through canonical bytes."""
    assert tool_from_document(json.loads(canon(TOOL.document()))) == TOOL


def test_an_argument_of_a_class_is_found_only_when_alone() -> None:
    """``one`` never guesses between two arguments of a class."""
    assert TOOL.one("amount") is AMOUNT
    assert TOOL.one("inert") is EXPRESS
    two = ToolSpec("t", "c", "money", (AMOUNT, ArgSpec("fee", "integer", "amount", "fee")))
    assert two.one("amount") is None
    assert two.one("payee") is None


def test_aliases_are_made_of_letters_digits_and_underscores() -> None:
    """A provider's name becomes an alias for policies; a name without a usable letter is refused."""
    assert alias_of("metadata[invoice]") == "metadata_invoice"
    assert alias_of("Transfer-Group") == "transfer_group"
    assert len(alias_of("a" * 90)) == 40
    for name in ("", "[]", "1st", "é"):
        with pytest.raises(CountermarkError):
            alias_of(name)
