"""Shipped templates and the cases of a policy's own tests."""

from __future__ import annotations

import pytest
from policy_support import KEYS, LIMITS, compiled, template

from countermark.connectors.evm import DRAFTS as EVM
from countermark.connectors.stripe.drafts import DRAFTS as STRIPE
from countermark.model.errors import PolicyError
from countermark.policy import Engine, run_cases, template_files, template_names, template_people, with_keys

CONNECTORS = {"evm": EVM, "stripe": STRIPE}
CASE = """
[[case]]
name = "one"
tool = "bank.pay"
args = { amount = 100, currency = "eur", to = "acct_acme", "metadata[invoice]" = "I-1" }
expect = "allow"
"""


@pytest.mark.parametrize("name", template_names())
def test_a_template_compiles_and_its_own_cases_hold(name: str) -> None:
    """Every shipped template becomes a bundle with the shipped connectors, and does what its tests say."""
    bundle = template(name, CONNECTORS)
    assert {finding.code for finding in bundle.warnings} <= {"window_not_binding", "mixed_currencies"}
    Engine(bundle)
    results = run_cases(bundle)
    assert len(results) >= 5
    assert [str(result) for result in results if not result.passed] == []
    seen = {result.verdict.disposition for result in results}
    assert {"allow", "escalate", "deny"} <= seen


@pytest.mark.parametrize("name", template_names())
def test_a_template_is_refused_while_a_key_is_a_placeholder(name: str) -> None:
    """A template names its people, and no bundle comes out of one whose keys were not filled in."""
    people = template_people(template_files(name))
    assert people
    with pytest.raises(PolicyError, match=people[0]):
        with_keys(template_files(name), {})
    with pytest.raises(PolicyError):
        compiled(limits=LIMITS.replace(KEYS["controller"], "{{KEY:controller}}"))


def test_an_unknown_template_names_the_nearest() -> None:
    """A misspelt template is refused with the right name."""
    with pytest.raises(PolicyError) as caught:
        template_files("vendor-payment")
    assert "vendor-payments" in caught.value.hint


def test_a_case_that_fails_says_what_was_expected_and_what_came() -> None:
    """A wrong expectation is reported with file, line, both dispositions and the policies behind them."""
    (good,) = run_cases(compiled(cases=CASE))
    assert good.passed
    (bad,) = run_cases(compiled(cases=CASE.replace('"allow"', '"deny"\nreasons = ["limits.payment.max"]')))
    assert not bad.passed
    assert str(bad) == (
        "tests/cases.toml:2: one: expected deny by limits.payment.max, got allow (allowed) by limits.permit"
    )


def test_history_counts_by_outcome_and_age() -> None:
    """Confirmed and unknown payments use up a window, failed and expired ones do not."""
    step = '[[case.history]]\ntool = "bank.pay"\nago = "%s"\noutcome = "%s"\n' + CASE.split("\n")[4] + "\n"
    step = step.replace("amount = 100", "amount = 4950")
    dispositions = {
        (ago, outcome): run_cases(compiled(cases=CASE + step % (ago, outcome)))[0].verdict.disposition
        for ago, outcome in (("1h", "confirmed"), ("1h", "unknown"), ("1h", "failed"), ("3d", "confirmed"))
    }
    assert dispositions == {
        ("1h", "confirmed"): "deny", ("1h", "unknown"): "deny", ("1h", "failed"): "allow", ("3d", "confirmed"): "allow",
    }  # fmt: skip


def test_time_of_a_case_is_local() -> None:
    """The case's time is in the bundle's zone, in summer as in winter."""
    limits = LIMITS + '[hours]\nfrom = "08:00"\nto = "18:00"\noutside = "refuse"\n'
    seen = {
        at: run_cases(compiled(limits=limits, cases=CASE + f'at = "{at}"\n'))[0].verdict.disposition
        for at in ("2026-01-13 08:00", "2026-07-14 08:00", "2026-07-14 07:59", "2026-07-12 12:00")
    }
    assert seen == {
        "2026-01-13 08:00": "allow",
        "2026-07-14 08:00": "allow",
        "2026-07-14 07:59": "deny",
        "2026-07-12 12:00": "deny",
    }


@pytest.mark.parametrize("amount", ['"100"', "100.0", "0", "-5", "true", "1000000000000001"])
def test_a_case_with_a_bad_amount_is_denied(amount: str) -> None:
    """Texts, floats, booleans, zero, negative and absurd amounts end in deny before any policy."""
    (result,) = run_cases(compiled(cases=CASE.replace("amount = 100", f"amount = {amount}")))
    assert (result.verdict.disposition, result.verdict.code, result.verdict.reasons) == (
        "deny", "bad_argument", ("amount",),
    )  # fmt: skip


def test_a_missing_fact_of_a_case_is_denied() -> None:
    """A fact that is grouped by an argument the action leaves out cannot be computed: deny, naming the fact."""
    facts = '[facts.notes]\nkind = "window"\nof = "count"\nover = "1d"\ngroup = ["args.note"]\nuse = "cap"\n'
    own = '@id("own") forbid(principal, action == Action::"bank.pay", resource) when { context.facts.notes > 3 };'
    (result,) = run_cases(compiled(facts=facts, own=own, cases=CASE))
    assert (result.verdict.code, result.verdict.reasons) == ("fact_missing", ("notes",))


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ("bank.pay", "bank.pya", "unknown_tool"),
        ('"allow"', '"alow"', "bad_value"),
        ("expect", "expct", "unknown_key"),
        ('name = "one"', 'name = "one"\nagent = "x"', "unknown_agent"),
        ('"allow"', '"allow"\nat = "noon"', "bad_value"),
        ('"allow"', '"allow"\nat = "2026-02-30 10:00"', "bad_value"),
    ],
)  # fmt: skip
def test_a_wrong_case_is_found(right: str, wrong: str, code: str) -> None:
    """A case that could never hold is a problem of the policy, not a test that is skipped."""
    with pytest.raises(PolicyError) as caught:
        compiled(cases=CASE.replace(right, wrong, 1))
    assert code in {finding.code for finding in caught.value.findings}  # type: ignore[attr-defined]


def test_grounded_facts_compile_and_type_check() -> None:
    """An amount can be required to equal the output of a cited action."""
    facts = '[facts.as_read]\nkind = "grounded"\nof = "amount"\ntool = "bank.balance"\nfield = "total"\n'
    own = (
        '@id("own") forbid(principal, action == Action::"bank.pay", resource)\n'
        "unless { context.facts.as_read.known && context.facts.as_read.equal };"
    )
    bundle = compiled(facts=facts, own=own, cases=CASE.replace('"allow"', '"deny"\nreasons = ["own"]'))
    assert bundle.compiled.tools["bank.pay"].facts == ("as_read", "day_total")
    assert run_cases(bundle)[0].passed
