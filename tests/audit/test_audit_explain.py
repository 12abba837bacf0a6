"""The story of an ID, in plain words, for every way in which an action can end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from audit_day import START_US, the_day
from hypothesis import given, settings
from hypothesis import strategies as st

from countermark.audit import Explanation, claim, explain, money, numbers, rules_of, safe, sentence, span, when
from countermark.audit.recorded import SENTENCES
from countermark.audit.sentences import BARRIER, CODES, DISPOSITIONS, OUTCOMES, STAGES, stopped
from countermark.audit.words import listed
from countermark.model.errors import ArgumentError
from countermark.model.records import KINDS
from countermark.model.values import Disposition

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def told(ref: str, *, reveal: bool = False) -> Explanation:
    day = the_day()
    store = day.store
    try:
        return explain(store, ref, unseal=day.unseal(store) if reveal else None)
    finally:
        store.close()


def first_line(call: str) -> str:
    return told(the_day().ids[call]).text.splitlines()[0]


HEADLINES = {
    "INV-1": r"Done: 480\.00 EUR to Acme Paper GmbH \(acme-paper\), invoice INV-1, confirmed as \S+ on 3 Nov 2026\.",
    "again": r"Refused: invoice inv - 1 was already paid on 3 Nov 2026 \(480\.00 EUR, by agent treasury, #6\)\. .*",
    "FAIL-1": r"Failed: 100\.00 EUR to .*: the provider refused it \(HTTP 402\)\. Nothing was moved\.",
    "LOST-1": r"Unknown: 110\.00 EUR to .*: the provider did not answer in time\. It may or may not have happened; .*",
    "lost-again": r"Refused: invoice LOST-1 may already be paid \(the provider could not say\), since a decision on .*",
    "INV-3": r"Done: 6,000\.00 EUR to Acme Paper GmbH .*",
    "INV-4": r"Refused: Controller \(controller\) said no to 70\.00 EUR to an account that the policy does not know "
    r"\(acct_1Somebody\), invoice INV-4\. Nothing was sent\.",
    "refused-again": r"Refused: invoice INV-4 was refused by Controller \(controller\) on .* that refusal stands .*",
    "INV-5": r"Not approved: nobody answered in time for 80\.00 EUR to .*, which means no\. Nothing was sent\.",
    "INV-6": r"Waiting: 24,000\.00 EUR to .* needs an answer by people before .*\. Nothing was sent\.",
    "INV-7": r"Refused: 26,000\.00 EUR to .*: a budget of the mandate would be exceeded .*25,000\.00 EUR for each .*",
    "INV-8": r"Refused: payee acme-paper was stopped \(looks wrong\) \[kill_[0-9a-f]{16}\]\. .* Nothing was sent\.",
    "INV-11": r"Refused: .*; Treasurer \(treasurer\) ended it: the work is done\. Nothing was sent\.",
}


@pytest.mark.parametrize("call", HEADLINES)
def test_every_end_of_an_action_has_its_sentence(call: str) -> None:
    """The first line says what became of the action, with amount, payee and the record it points to."""
    assert re.fullmatch(HEADLINES[call], first_line(call)), first_line(call)


def test_the_rules_are_shown_with_the_numbers_they_compared() -> None:
    """An escalation names each rule, the amount and the limit; an approval the person, the time and what it lifted."""
    text = told(the_day().ids["INV-3"]).text
    assert "rule limits.payment.ask: the amount 6,000.00 EUR is above payment_ask_above (5,000.00 EUR)" in text
    assert re.search(r"Controller \(controller\) approved on 3 Nov 2026, \d\d:\d\d:\d\d UTC \(ladder finance", text)
    assert "with limits.payment.ask lifted by people" in text
    assert "fact day_total" in text
    assert "sum over 1 day per agent" in text


def test_sensitive_values_stay_withheld_without_the_vault() -> None:
    """Without a function that opens them, neither the reason nor a sensitive argument is shown, and both are named."""
    ref = the_day().ids["INV-1"]
    withheld, revealed = told(ref), told(ref, reveal=True)
    assert "town hall" not in withheld.text
    assert "due" not in json.dumps(withheld.document)
    assert withheld.document["withheld"] == ["$reason", "description"]
    assert "not rebuilt here: values are withheld" in withheld.text
    assert "description = for the roof of the town hall" in revealed.text
    assert "the agent's reason, unverified: the invoice is due" in revealed.text
    assert "rebuilt here with the same digest" in revealed.text
    assert revealed.document["withheld"] == revealed.document["erased"] == []


def test_erased_values_are_called_erased() -> None:
    """A caller who may open values, and finds their key destroyed, is told that they are erased, not withheld."""
    day = the_day()
    store = day.store
    found = explain(store, day.ids["INV-1"], unseal=lambda seq: None)
    store.close()
    assert "erased: description, the reason" in found.text
    assert "not rebuilt here: values are erased" in found.text
    assert found.document["erased"] == ["$reason", "description"]
    assert found.document["withheld"] == []


def test_every_name_of_an_action_leads_to_the_same_story() -> None:
    """Action ID, escalation ID, seq with and without #, the provider's reference and its key tell one story."""
    day = the_day()
    story = told(day.ids["INV-3"])
    ref = story.document["outcome"]["ref"]
    seq = story.document["records"][0]["seq"]
    key = day.store.record(seq).body["key"]
    for name in (day.escalations["INV-3"], str(seq), f"#{seq + 1}", ref, key):
        assert told(name).text == story.text, name


def test_a_stop_by_the_gate_itself_is_told_as_such() -> None:
    """A stop for a jumped clock is the gate's own; any other is told as people's, with its reason."""
    assert stopped("deployment", "acme", "clock_jump") == "the gate stopped everything here, because the clock jumped"
    assert stopped("agent", "treasury", "looks wrong") == "agent treasury was stopped (looks wrong)"
    assert told(str(seq_of("kill.set"))).text.startswith("Payee acme-paper was stopped (looks wrong) [kill_")


def seq_of(kind: str) -> int:
    store = the_day().store
    found = next(record.seq for record in store.records() if record.kind == kind)
    store.close()
    return found


def test_a_run_lists_its_actions() -> None:
    """A run's story counts its actions by how they ended and gives a sentence for each."""
    day = the_day()
    found = told(day.run)
    assert found.document["counts"]["confirmed"] == 4
    assert {action["id"] for action in found.document["actions"]} == set(day.ids.values())
    assert "pay the invoices of the week" in found.text
    assert "ended on 3 Nov 2026" in found.text


def test_every_other_kind_of_record_has_a_sentence() -> None:
    """A record that is about no action is told in a sentence of its own."""
    day = the_day()
    seen = set()
    for record in day.store.records():
        if "id" in record.body:
            continue
        found = told(f"#{record.seq}")
        assert found.document["kind"] == "record"
        assert not found.document["summary"].startswith("A record of the kind"), record.kind
        seen.add(record.kind)
    assert {
        "gate.started",
        "policy.activated",
        "mandate.granted",
        "mandate.revoked",
        "run.started",
        "run.ended",
    } <= seen
    assert {"kill.set", "kill.cleared", "gate.stopped", "action.refused"} <= seen


@pytest.mark.parametrize("ref", ["act_" + "0" * 32, "esc_" + "0" * 32, "run_" + "0" * 32, "99999", "#99999", "", "no"])
def test_a_name_of_nothing_is_an_error(ref: str) -> None:
    """A name that nothing has raises with a stable code, whatever its form."""
    with pytest.raises(ArgumentError) as caught:
        told(ref)
    assert caught.value.code == "unknown_action"


def test_every_documented_code_has_a_sentence() -> None:
    """Dispositions, stages, decision codes, outcome codes and reasons of `not_sent` of the documents all have words."""
    text = (DOCS / "reference" / "errors.md").read_text("utf-8")
    _, decisions, outcomes = re.split(r"\n## (?:Decisions|Outcomes)\n", text)
    documented = set(re.findall(r"^\| `([a-z_]+)` \| (?:allow|flag|escalate|deny) ", decisions, re.MULTILINE))
    assert documented == set(CODES)
    rows = re.findall(r"^\| (`[^|]+`) \|", outcomes, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)} == set(OUTCOMES)
    (reasons,) = re.findall(r"The reasons of `not_sent`: (.*)\.", outcomes)
    assert set(re.findall(r"`([a-z_]+)`", reasons)) == set(BARRIER)
    assert set(DISPOSITIONS) == set(get_args(Disposition))
    stages = re.findall(r"^[1-9]\. `([a-z]+)`", (DOCS / "spec" / "decision.md").read_text("utf-8"), re.MULTILINE)
    assert set(STAGES) == {*stages, "approval", "monitor"}


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (990_000, "eur", "9,900.00 EUR"),
        (5, "usd", "0.05 USD"),
        (-12_345, "EUR", "-123.45 EUR"),
        (990_000, "jpy", "990,000 JPY"),
        (1_234_567, "kwd", "1,234.567 KWD"),
        (10**15, "eur", "10,000,000,000,000.00 EUR"),
        (0, "krw", "0 KRW"),
        (7, "usdc:43114", "7 smallest units of usdc:43114"),
        (7, None, "7 smallest units"),
    ],
)
def test_amounts_have_their_currencys_minor_unit(amount: int, currency: str | None, text: str) -> None:
    """Two, no or three digits stand after the point, by currency; what is no currency code is not guessed at."""
    assert money(amount, currency) == text


@settings(derandomize=True, max_examples=200)
@given(st.integers(-(10**16), 10**16), st.sampled_from(["eur", "jpy", "kwd"]))
def test_an_amount_reads_back_exactly(amount: int, currency: str) -> None:
    """Taking out separators and the point gives the integer again: no rounding anywhere."""
    digits = money(amount, currency).split(" ")[0].replace(",", "").replace(".", "")
    assert int(digits) == amount


@settings(derandomize=True, max_examples=200)
@given(st.text())
def test_what_others_wrote_cannot_steer_a_terminal(text: str) -> None:
    """A value from outside is shown in one line without control, escape or direction characters."""
    assert all(character.isprintable() for character in safe(text))


def test_times_and_lists_read_as_people_write_them() -> None:
    """Lengths of time use their largest whole unit, times say their zone, lists have their last `and`."""
    assert span(86_400_000_000) == "1 day"
    assert span(7_200_000_000) == "2 hours"
    assert span(90_000_000) == "90 seconds"
    assert when(START_US) == "3 Nov 2026, 10:00:00 UTC"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([]) == ""


def test_a_rule_is_read_whole_whatever_its_annotations() -> None:
    """Annotations before and after @id belong to their rule, comments are left out, limits of both spellings count."""
    compiled = {
        "cedar": '// first\n@escalate("board")\n@id("one") // a;b\nforbid(principal, action, resource)\n'
        'when { context.amount > Limits::"limits".most };\n@id("two")\n@flag("odd")\n'
        "permit(principal, action, resource) when { context.facts.spent <= context.limits.day };\n",
        "limits": {"most": 100, "day": 700},
        "facts": [{"name": "spent", "kind": "window", "of": "amount", "over_us": 1, "group": []}],
    }
    body = {"terms": {"amount": 250, "currency": "jpy", "payee": None}, "facts": {"spent": 600}, "args": {}}
    rules = rules_of(compiled)
    assert rules["one"].ladder == "board"
    assert rules["two"].flag == "odd"
    assert numbers(rules["one"], body, compiled) == ["the amount 250 JPY is above most (100 JPY)"]
    assert numbers(rules["two"], body, compiled) == ["spent 600 JPY is below day (700 JPY)"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("INV-7\ufe0f", "INV-7\\ufe0f"),
        ("INV\u200b-7", "INV\\u200b-7"),
        ("\u3164", "\\u3164"),
        ("cafe\u0301", "café"),
        ("pay" + " " * 60 + "amount   6.00 EUR", "pay amount 6.00 EUR"),
        ("a\x1b[2Jb\u202e", "a\\u001b[2Jb\\u202e"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    """Invisible characters, marks, escapes and padding in somebody else's text never look like nothing or like ours."""
    assert safe(text) == shown
    assert all(line.startswith("  > ") for line in claim(text))


def test_every_kind_of_record_has_a_sentence_of_its_own() -> None:
    """No record is told as "a record of some kind"."""
    assert set(KINDS) == set(SENTENCES)


BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "run.cancelled": (
        {"run": "run_1", "agent": "a", "reason": "wrong month", "person": "treasurer"},
        "The run run_1 was cancelled by treasurer (as said, not signed): wrong month.",
    ),
    "compute.executed": (
        {"place": "main.sum", "attempt": 2, "engine": "starlark", "status": "limit", "message": "ticks", "ticks": 5000},
        "Step main.sum, attempt 2 was stopped at a limit: ticks (starlark, 5,000 ticks).",
    ),
    "step.waiting": (
        {"place": "main.w", "for": {"kind": "event", "source": "bank", "key": "B-1"}, "until": None},
        "Step main.w waits for an event of bank with the key B-1.",
    ),
    "step.resumed": (
        {"place": "main.w", "status": "failure", "code": "timeout", "event": None},
        "Step main.w waits no more, failure: it waited too long.",
    ),
    "absence.set": (
        {"absence": {"person": "ann", "stands_in": "bob", "from": START_US, "until": START_US}, "signed": [
            {"person": "ann"}]},
        f"bob stands in for ann from {when(START_US)} until {when(START_US)}, signed by ann.",
    ),
    "review.cleared": (
        {"review": {"person": "controller", "note": "ok"}, "id": "act_1", "decided": 7},
        "controller looked at action act_1, flagged by #7: ok.",
    ),
    "run.ended": ({"reason": "", "workflow": {"status": "failure"}}, "The run ended with failure."),
    "obligation.reopened": (
        {"id": "act_1", "reopening": {"reason": "it is right"}, "signed": [
            {"person": "ann"}, {"person": "bob"}]},
        "ann and bob signed that people may be asked again about what was refused as action act_1: it is right.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_the_sentence_of_a_record_says_who_and_what(kind: str) -> None:
    """A record that is about no action names the person, the place and the reason that it has."""
    body, said = BODIES[kind]
    assert SENTENCES[kind](body) == said


def test_every_record_of_a_day_can_be_told() -> None:
    """The sentence of each record of a real day fits its body."""
    store = the_day().store
    try:
        assert all(sentence(record).endswith((".", "]")) for record in store.records())
    finally:
        store.close()


def test_a_stop_is_told_with_its_lifting_and_by_whom() -> None:
    """A stop's story has the clearance, the person and the reason; the document has them too."""
    found = told(the_day().kill)
    assert re.search(r"Since then  #\d+ .*: controller lifted the stop kill_[0-9a-f]{16}: checked\.", found.text)
    assert found.document["ended"]["kind"] == "kill.cleared"
