"""Past actions held against a rule written later: what deviates, in which order it happened, and what is cleared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from countermark.audit import approved_and_executed, approved_lines, audit_paths, paths_lines, present_state, rule_ids
from countermark.audit.rules import rules_of
from countermark.model.errors import ArgumentError, PolicyError
from countermark.policy import compile_bundle, laid_over, load_rule
from countermark.wiring import incident_details, incident_screening
from countermark.wiring.connectors import drafts
from countermark.wiring.incident_world import ACCOUNTS, Step, World, at, hindsight, play, rule_texts, write_rule

SCREENING = {"LIST": incident_screening.digest_of_november()}
OPENING = [
    Step(at(9, "07:00"), "publish", amount=incident_screening.OCTOBER, reason="old-harbour-shipping"),
    Step(at(10, "07:00"), "publish", amount=incident_screening.NOVEMBER, reason="cold-harbour-shipping"),
]


def screening(folder: Path, steps: Iterable[Step], rule: Mapping[str, str] | None = None) -> World:
    write_rule(folder / "rule", rule_texts("screening", SCREENING))
    return play(folder / "d", [*OPENING, *steps], rule, ACCOUNTS)


def paths(world: World, folder: Path, *names: str, **more: Any) -> dict[str, Any]:
    """``audit_paths`` with the rule in ``folder`` laid over the policy in force."""
    store = world.store
    try:
        base = present_state(store).bundle
        assert base is not None
        sources = laid_over(map(tuple, base.document["source"]), load_rule(folder / "rule"))
        bundle = compile_bundle(sources, drafts())
        return audit_paths(store, bundle, lambda kind, value: value, names or rule_ids(store, bundle), **more)
    finally:
        store.close()


def invoices(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [row["references"]["invoice"] for row in rows]


def test_each_way_to_be_screened_wrongly_is_found_with_its_reason(tmp_path: Path) -> None:
    """Late, on an old list, too long before, never, and not clear: each event says why it does not count."""
    world = screening(tmp_path, [
        Step(at(10, "08:00"), "pay", "V-1001", "AA-1", 100),
        Step(at(10, "09:00"), "screen", "V-1001"),
        Step(at(11, "09:01"), "pay", "V-1001", "AA-2", 100),
        Step(at(9, "20:00"), "screen", "V-1002"),
        Step(at(10, "10:00"), "pay", "V-1002", "BB-1", 100),
        Step(at(10, "12:00"), "pay", "V-1003", "CC-1", 100),
        Step(at(12, "10:00"), "screen", "V-1004"),
        Step(at(12, "10:00"), "pay", "V-1004", "DD-1", 100),
    ])  # fmt: skip
    found = paths(world, tmp_path)
    assert invoices(found["deviations"]) == ["AA-1", "BB-1", "CC-1", "AA-2"]
    why = {invoices([row])[0]: [w for e in row["actual"] for w in e["why"] or ()] for row in found["deviations"]}
    assert why["AA-1"] == ["screened: came 1 hour after it", "screened_november: came 1 hour after it"]
    assert why["AA-2"][0] == "screened: was 1 day 1 minute before it, more than 1 day"
    assert why["BB-1"][0].startswith("screened_november: list_digest was sha256:")
    assert why["CC-1"] == []
    assert [row["rules"] for row in found["deviations"]][1] == ["screening.on_the_new_list"]
    assert invoices(found["cleared"]) == ["DD-1"]
    assert found["cleared"][0]["exceptions"] == [{"id": "screening.by_hand_delta_print", "ticket": "RISK-2291"}]
    assert all(row["in_force"]["had"] == [] for row in found["deviations"])
    assert found["rules"][0]["required"] == [
        "screened: screening.check confirmed within 1 day before, of the same payee, with result clear"
    ]


def test_the_true_order_is_that_of_the_records(tmp_path: Path) -> None:
    """The payment stands in the timeline where it was decided, marked as itself, with the outcome of each event."""
    world = screening(tmp_path, [
        Step(at(9, "09:00"), "screen", "V-1001"), Step(at(11, "09:00"), "pay", "V-1001", "AA-1", 100),
        Step(at(11, "10:00"), "screen", "V-1001"),
    ])  # fmt: skip
    (row,) = paths(world, tmp_path)["deviations"]
    assert [(event["tool"], event["why"] is None) for event in row["actual"]] == [
        ("screening.check", False), ("bank.pay", True), ("screening.check", False),
    ]  # fmt: skip
    assert sorted(event["seq"] for event in row["actual"]) == [event["seq"] for event in row["actual"]]
    text = "\n".join(paths_lines(paths(world, tmp_path)))
    assert "<- this action" in text
    assert "which did not have screening.before_payment" in text


def test_a_hit_does_not_count_as_screened(tmp_path: Path) -> None:
    """The check was confirmed, and what it put out is not what the rule asks for."""
    found = [Step(at(10, "08:00"), "publish", amount=incident_screening.NOVEMBER, reason="V-1001")]
    found += [Step(at(10, "09:00"), "screen", "V-1001"), Step(at(10, "10:00"), "pay", "V-1001", "AA-1", 100)]
    (row,) = paths(screening(tmp_path, found), tmp_path, "screening.before_payment")["deviations"]
    assert [w for event in row["actual"] for w in event["why"] or ()] == ["screened: result was hit"]


def test_what_was_screened_in_time_and_what_others_pay_deviates_from_nothing(tmp_path: Path) -> None:
    """An ordinary day has no deviation, and neither has one of which only a later day is looked at."""
    good = [Step(at(10, "09:00"), "screen", "V-1001"), Step(at(11, "09:00"), "pay", "V-1001", "AA-1", 100)]
    late = [Step(at(12, "09:00"), "pay", "V-1002", "BB-1", 100)]
    world = screening(tmp_path, [*good, *late])
    assert invoices(paths(world, tmp_path)["deviations"]) == ["BB-1"]
    later = paths(world, tmp_path, since=at(13, "00:00"))
    assert (later["checked"], later["deviations"]) == (0, [])


def test_a_payment_that_failed_moved_nothing_and_is_counted_apart(tmp_path: Path) -> None:
    """The bank's refusal is no deviation, since no money went; it is not left out of the count either."""
    steps = [*OPENING, Step(at(10, "09:00"), "pay", "V-1001", "AA-1", 100)]
    write_rule(tmp_path / "rule", rule_texts("screening", SCREENING))
    world = play(tmp_path / "d", steps, None, {"V-1002": "SE02200200202002"})  # the desk's file has no V-1001
    found = paths(world, tmp_path)
    assert (world.answers["AA-1"], found["deviating"], found["failed"]) == ("failed", 0, 1)


def test_with_the_rule_in_force_nothing_deviates(tmp_path: Path) -> None:
    """The same days: the payment is denied by the rule, so hindsight with the same rule finds nothing."""
    steps = [Step(at(10, "08:00"), "pay", "V-1001", "AA-1", 100), Step(at(10, "09:00"), "screen", "V-1001"),
             Step(at(10, "10:00"), "pay", "V-1001", "AA-2", 100)]  # fmt: skip
    world = screening(tmp_path, steps, rule_texts("screening", SCREENING))
    assert world.answers == {"AA-1": "denied", "AA-2": "confirmed"}
    found = hindsight(world, tmp_path / "rule")
    assert (found.by_paths, found.by_backtest, found.reperformed) == (set(), {"AA-1"}, True)
    with pytest.raises(PolicyError, match="nothing in it forbids"):
        paths(world, tmp_path)


def test_an_approval_between_two_accounts_is_found_and_told(tmp_path: Path) -> None:
    """The decision after the approval is the one that counts; question, change, answer and payment stand in order."""
    write_rule(tmp_path / "rule", rule_texts("details", {}))
    world = play(tmp_path / "d", incident_details.steps(), None, ACCOUNTS)
    found = hindsight(world, tmp_path / "rule")
    assert found.by_paths == found.by_backtest == incident_details.truth(world.desk) == {"HC-7012", "NM-3105"}
    row = next(r for r in found.paths["deviations"] if r["references"]["invoice"] == "HC-7012")
    assert [event["tool"] for event in row["actual"]][-4:] == ["people", "vendors.update", "people", "bank.pay"]
    assert row["required"] == ["details_changed: no vendors.update confirmed within 2 days before, of the same payee"]
    store = world.store
    try:
        told = approved_and_executed(store, world.actions["HC-7012"])
        plain = approved_and_executed(store, world.actions["HC-7001"])
        with pytest.raises(ArgumentError, match="no action"):
            approved_and_executed(store, "#0")
    finally:
        store.close()
    assert (told["same_bytes"], told["same_money"], [row["person"] for row in told["approved"]]) == (
        True, True, ["controller"],
    )  # fmt: skip
    assert told["other"] == [{"name": "account", "asked": ACCOUNTS["V-1001"], "booked": "DE02900900909009"}]
    (between,) = [row for row in told["changes"] if row["when"].startswith("between")]
    assert (between["agent"], between["granted_by"]) == ("masterdata", "treasurer")
    assert "it went elsewhere" in "\n".join(approved_lines(told))
    assert (plain["other"], plain["approved"]) == ([], [])
    assert "No person was asked" in "\n".join(approved_lines(plain))


def test_the_document_is_json_and_its_text_holds_nothing_that_cannot_be_seen(tmp_path: Path) -> None:
    """Pages render the document; a terminal gets one line for each row, whatever stands in a rule's annotations."""
    rule = rule_texts("screening", SCREENING)
    rule["screening.cedar"] = rule["screening.cedar"].replace("RISK-2291", "RISK\u202e-\x1b[31m2291")
    write_rule(tmp_path / "rule", rule)
    world = play(tmp_path / "d", [*OPENING, Step(at(12, "10:00"), "pay", "V-1004", "DD-1", 100)], None, ACCOUNTS)
    found = paths(world, tmp_path)
    assert json.loads(json.dumps(found)) == found
    assert all(line.isprintable() for line in paths_lines(found))


def test_a_rule_that_the_bundle_does_not_have_is_refused(tmp_path: Path) -> None:
    """A misspelt name would otherwise find nothing and look like good news."""
    world = screening(tmp_path, [Step(at(10, "08:00"), "screen", "V-1001")])
    with pytest.raises(PolicyError, match=r"no rule 'screening\.befor'"):
        paths(world, tmp_path, "screening.befor")


def test_a_rule_directory_needs_a_rule_and_is_laid_over_once(tmp_path: Path) -> None:
    """Facts alone forbid nothing; facts that stand in the policy already are not added again."""
    (tmp_path / "facts.toml").write_text("[facts.x]\n")
    with pytest.raises(PolicyError, match="holds no rule"):
        load_rule(tmp_path)
    (tmp_path / "r.cedar").write_text("forbid (principal, action, resource);")
    rule = load_rule(tmp_path)
    base = (("limits.toml", ""), ("tools.toml", ""), ("facts.toml", "[facts.y]\n"))
    once = laid_over(base, rule)
    assert dict(once)["facts.toml"] == "[facts.y]\n\n[facts.x]\n"
    assert laid_over(once, rule) == once


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ("when { context.facts.seen.known }", False), ("when { !context.facts.seen.known }", True),
        ("unless { context.facts.seen.known }", True), ("unless { ! context.facts.seen.known }", False),
        ('when { context.amount > 1 } unless { "when" == "x" || context.facts.seen.known }', True),
        ("when { context.amount > 1 }", False),
    ],
)  # fmt: skip
def test_whether_a_rule_wants_an_event_or_its_absence_is_read_off_its_text(text: str, wants: bool) -> None:
    """`unless` turns it round, a `!` once more; words in strings are no clauses."""
    rule = rules_of({"cedar": f'@id("r") forbid (principal, action, resource)\n{text};'})["r"]
    assert rule.wants("seen") is wants
    assert rule.forbids


def test_two_slashes_in_a_text_begin_no_comment() -> None:
    """A ticket may be an address; the rest of the line still belongs to the policy, and a comment does not."""
    cedar = '@id("r") @ticket("https://tracker.example/1") // forbid\npermit (principal, action, resource); // @id("x")'
    rules = rules_of({"cedar": cedar})
    assert [(name, rule.ticket, rule.forbids) for name, rule in rules.items()] == [
        ("r", "https://tracker.example/1", False)
    ]


def test_what_cannot_be_established_is_said(tmp_path: Path) -> None:
    """Where the rule's policy has not the tool any more, nothing is found, and nothing is called clean."""
    world = screening(tmp_path, [Step(at(10, "08:00"), "pay", "V-1001", "AA-1", 100)])
    store = world.store
    try:
        base = present_state(store).bundle
        assert base is not None
        files = dict(base.document["source"])
        files["tools.toml"] = files["tools.toml"].replace('"bank.pay"', '"bank.send"')
        files["policies/desk.cedar"] = files["policies/desk.cedar"].replace("bank.pay", "bank.send")
        bundle = compile_bundle(tuple(files.items()), drafts())
        found = audit_paths(store, bundle, lambda kind, value: value, ["desk.pays"])
    finally:
        store.close()
    assert (found["deviating"], found["undecided_count"]) == (0, 1)
    assert found["undecided"][0]["words"] == ["unknown_tool (bank.pay)"]
    assert "Cannot be established: 1" in "\n".join(paths_lines(found))
