"""`[retention]`: how long sealed values are kept, as it is written and as the bundle has it."""

from __future__ import annotations

import pytest
from policy_support import LIMITS, compiled

from countermark.model.errors import PolicyError
from countermark.policy import Retention

YEAR_S = 366 * 86_400


def test_a_rule_for_all_and_rules_for_some() -> None:
    """A tool's own rule is its own, also a shorter one; a year is never shorter than a calendar's."""
    text = f'{LIMITS}\n[retention]\nkeep = "7y"\n[retention.tools]\n"bank.pay" = "90d"\n'
    bundle = compiled(limits=text)
    retention = bundle.compiled.retention
    assert retention is not None
    assert (retention.of("bank.sweep"), retention.of("bank.pay")) == (7 * YEAR_S, 90 * 86_400)
    assert bundle.document["compiled"]["retention"] == {"keep_s": 7 * YEAR_S, "tools": [["bank.pay", 90 * 86_400]]}
    assert compiled().compiled.retention is None
    assert "retention" not in compiled().document["compiled"]


@pytest.mark.parametrize(
    "text", ['keep = "7 years"', 'keep = "24h"', "keep = 7", 'keep = "201y"', "", 'kept = "7y"', "[retention.tools]"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    """Nothing said, another unit, more than two centuries: found before it is in force."""
    with pytest.raises(PolicyError) as caught:
        compiled(limits=f"{LIMITS}\n[retention]\n{text}\n")
    assert any("retention" in finding.message or "keep" in finding.message for finding in caught.value.findings)


@pytest.mark.parametrize(
    "document",
    [
        {"keep_s": None, "tools": []}, {"keep_s": -1, "tools": []}, {"keep_s": 1}, {"keep_s": True, "tools": []},
        {"keep_s": 1, "tools": [["b", 1], ["a", 1]]}, {"keep_s": 1, "tools": [["a", 1, 2]]}, [],
    ],
)  # fmt: skip
def test_a_bundle_with_another_form_is_refused(document: object) -> None:
    """Whoever writes a bundle by hand keeps the form."""
    with pytest.raises(PolicyError):
        Retention.from_document(document)
