"""The desk's path rules against tau2's labelled paths, against unseen ones, and without a label to lean on."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
CASES = ROOT.parent / "shared" / "cases" / "tau2_banking_dev.json"
LABELS = ("violates", "why", "op", "db_hash_equals_gold", "new_errors", "gold_violates", "reward_basis")
SEED = 20_262
EXCEPTED = 4 if os.environ.get("COUNTERMARK_CASES") == "all" else 8  # one mutant of so many, declared an exception
MUTANTS = 6

sys.path[:0] = [str(ROOT / "bench"), str(HERE.parent)]
tau2 = importlib.import_module("tau2")
desk = importlib.import_module("tau2_desk")
tickets = importlib.import_module("tau2_tickets")
oracle = importlib.import_module("tau2_oracle")
made_up = importlib.import_module("tau2_unseen")

needs_cases = pytest.mark.skipif(
    not CASES.is_file(), reason="NOT TESTED: ../shared/cases/tau2_banking_dev.json is absent, so no path was replayed"
)


@pytest.fixture
def where() -> Iterator[Path]:
    """A directory for deployments, in memory where there is such a place: durability is not what is tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def dev() -> dict[str, Any]:
    doc: dict[str, Any] = json.loads(CASES.read_text("utf-8"))
    return doc


def written(where: Path, doc: dict[str, Any]) -> Path:
    path = where / "cases.json"
    path.write_text(json.dumps(doc), "utf-8")
    return path


def only(doc: dict[str, Any], rule: str) -> dict[str, Any]:
    """A few mutants that break one rule and no other, and their tasks."""
    mutants = [m for m in doc["mutants"] if m["violates"] == [rule]][:MUTANTS]
    tasks = {m["task"]: doc["tasks"][m["task"]] for m in mutants}
    return {**doc, "tasks": tasks, "mutants": mutants}


def slim(found: dict[str, Any]) -> tuple[Any, Any]:
    return found["gold"], found["mutants"]


@needs_cases
def test_every_violation_is_found_and_no_reference_path_is_stopped(
    where: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a command: all labelled violations, each under its own rule; no harmless reordering, no reference path."""
    out = where / "out.json"
    assert tau2.main([str(CASES), "--json", str(out), "--dir", str(where)]) == 0
    found = json.loads(out.read_text("utf-8"))
    gold, mutants = found["gold"], found["mutants"]
    assert (gold["total"], gold["false_alarms"]) == (30, [])
    labels = [m["violates"] for m in dev()["mutants"]]
    assert mutants["total"] == len(labels) == 140
    assert mutants["found"] == [number for number, label in enumerate(labels) if label]
    assert all(rule in labels[int(number)] for number, rule in mutants["rules"].items())
    assert set(mutants["rules"].values()) >= {"R1", "R2", "R3", "R4", "R5"}
    assert set(mutants["dispositions"]) == {"deny", "escalate", "flag"}
    assert "missed 0" in capsys.readouterr().out


@pytest.mark.slow
@needs_cases
def test_no_label_decides(where: Path) -> None:
    """With every label taken out of the file, and the mutants' order and names changed, each decision is the same."""
    doc = dev()
    whole = slim(tau2.run(written(where, doc), where / "whole"))
    for path in (*doc["tasks"].values(), *doc["mutants"]):
        for label in LABELS:
            path.pop(label, None)
    last = len(doc["mutants"]) - 1
    doc["mutants"] = [{**m, "id": f"m{last - n}"} for n, m in enumerate(reversed(doc["mutants"]))]
    gold, mutants = slim(tau2.run(written(where, doc), where / "bare"))
    assert gold == whole[0]
    assert sorted(mutants["found"], key=lambda name: int(name[1:])) == [f"m{n}" for n in whole[1]["found"]]
    assert mutants["rules"] == {f"m{n}": rule for n, rule in whole[1]["rules"].items()}


@needs_cases
def test_the_labels_follow_from_the_words_of_the_rules() -> None:
    """A second reading of the rules gives every label of the file: so it can judge paths that have none."""
    doc = dev()
    for task in doc["tasks"].values():
        assert oracle.violations(task, task) == set()
    for mutant in doc["mutants"]:
        rows = oracle.violations(doc["tasks"][mutant["task"]], mutant)
        assert sorted({row.partition(".")[0] for row in rows}) == mutant["violates"], mutant["why"]
        assert rows == {text.partition("@")[0] for text in mutant["why"]}


@pytest.mark.parametrize("seed", [SEED, pytest.param(SEED + 1, marks=pytest.mark.slow)])
def test_unseen_paths_are_decided_by_the_rules_too(where: Path, seed: int) -> None:
    """Invented customers and procedures, spoilt at random: found exactly when a rule is broken."""
    doc = made_up.unseen(seed, 10, 8)
    assert doc == made_up.unseen(seed, 10, 8), "the seed decides everything"
    found = tau2.run(written(where, doc), where / "run")
    assert found["gold"] == {"total": 10, "false_alarms": [], "rules": {}}, f"seed {seed}"
    rules, seen = found["mutants"]["rules"], set()
    for number, mutant in enumerate(doc["mutants"]):
        rows = oracle.violations(doc["tasks"][mutant["task"]], mutant)
        seen |= rows
        assert (str(number) in rules) == bool(rows), f"seed {seed}, mutant {number}: {rows}"
        assert rules.get(str(number)) in {None, *(row.partition(".")[0] for row in rows)}, f"seed {seed}, {number}"
    assert {row.partition(".")[0] for row in seen} == {"R1", "R2", "R3", "R4", "R5", "R6"}


def contact(*steps: tuple[str, dict[str, Any]], **card: Any) -> dict[str, Any]:
    """A document with one verified contact that does these steps, unwrapped; ``card`` is what the books say of c1."""
    records = {
        "u1": {"kind": "user"}, "a1": {"kind": "bank_account", "status_at_start": "OPEN", "user": "u1"},
        "k1": {"kind": "credit_card_account", "status_at_start": "ACTIVE", "user": "u1"},
        "c1": {"kind": "debit_card", "account": "a1", "status_at_start": "ACTIVE", "user": "u1", **card},
    }  # fmt: skip
    actions = [made_up.action("log_verification", {"user_id": "u1"}, wrapped=False)]
    actions += [made_up.action(name, args, wrapped=False) for name, args in steps]
    facts = {"customer": {"name": "One", "user_id": "u1"}, "records": records}
    task = {"actions": actions, "ok": [True] * len(actions), "results": [None] * len(actions), "facts": facts}
    return {"tasks": {"t": task}, "mutants": []}


A, K, C = {"account_id": "a1"}, {"credit_card_account_id": "k1"}, {"card_id": "c1"}
ACCOUNTS, TXNS = ("get_all_user_accounts_by_user_id_3847", {"user_id": "u1"}), ("get_bank_account_transactions_9173", A)
FREEZE, UNFREEZE = ("freeze_debit_card_3892", C), ("unfreeze_debit_card_3893", C)
CLOSE, ORDER, ACTIVATE = ("close_debit_card_4721", C), ("order_debit_card_5739", A), ("activate_debit_card_8291", C)
SUBMIT, DENY = ("submit_credit_limit_increase_request_7392", {**K, "requested_increase_amount": 500}), (
    "deny_credit_limit_increase_5848", K)  # fmt: skip
FIRST, INCIDENT = ("initial_transfer_to_human_agent_0218", {}), ("initial_transfer_to_human_agent_1822", {})
HAND_OVER, BUREAU = ("transfer_to_human_agents", {}), ("emergency_credit_bureau_incident_transfer_1114", {})
DISPUTE = ("file_debit_card_transaction_dispute_6281", {**A, **C, "transaction_id": "b1"})
CHECKS = [(tool, {**K, "user_id": "u1"}) for tool in (
    "get_user_dispute_history_7291", "get_pending_replacement_orders_5765", "get_closure_reason_history_8293",
    "get_credit_limit_increase_history_4829", "get_payment_history_6183")]  # fmt: skip
CREDIT = ("apply_savings_account_credit_6831", {**A, "credit_type": "goodwill"})
REPORT = ("submit_interest_discrepancy_report_7294", A)
RETAIN = ("apply_statement_credit_8472", {**K, "reason": "retention_offer"})
REASON, END = ("log_credit_card_closure_reason_4521", K), ("close_credit_card_account_7834", K)


@pytest.mark.parametrize(
    ("row", "right", "wrong", "card"),
    [
        ("R3.1", [FREEZE, UNFREEZE, FREEZE, UNFREEZE], [FREEZE, UNFREEZE, FREEZE, FREEZE], {}),
        ("R3.1", [SUBMIT, *CHECKS, DENY, SUBMIT], [SUBMIT, *CHECKS, DENY, SUBMIT, SUBMIT], {}),
        ("R3.1", [FIRST] * 3, [FIRST] * 4, {}),
        ("R3.1", [INCIDENT, FIRST], [INCIDENT, FIRST, FIRST], {}),
        ("R5.2", [*CHECKS[:3], END], [*CHECKS[:2], END, CHECKS[2]], {}),
        ("R5.6", [ACCOUNTS, TXNS, (CREDIT[0], {**A, "credit_type": "interest_correction"})],
         [(CREDIT[0], {**A, "credit_type": "interest_correction"})], {}),
        ("R5.7", [ACCOUNTS, TXNS, CREDIT, REPORT], [ACCOUNTS, CREDIT, REPORT], {}),
        ("R5.13", [("reset_debit_card_pin_6284", C)], None, {"pin_locked": False}),
        ("R6.1", [ACCOUNTS, TXNS, CREDIT, REPORT], [ACCOUNTS, TXNS, REPORT, CREDIT], {}),
        ("R6.2", [SUBMIT, *CHECKS, DENY], [*CHECKS, DENY], {}),
        ("R6.3", [SUBMIT, CHECKS[4], (SUBMIT[0], {**K, "requested_increase_amount": 7})], [CHECKS[4], SUBMIT], {}),
        ("R6.4", [*CHECKS[:3], REASON, RETAIN], [*CHECKS[:3], RETAIN, REASON], {}),
        ("R6.5", [ACCOUNTS, TXNS, DISPUTE, CLOSE], [ACCOUNTS, TXNS, CLOSE, DISPUTE], {}),
        ("R6.6", [ACCOUNTS, TXNS, CLOSE, ORDER], [ACCOUNTS, TXNS, ORDER, CLOSE], {}),
        ("R6.7", [TXNS, FREEZE, UNFREEZE, CLOSE],
         [TXNS, FREEZE, UNFREEZE, CLOSE, ("change_debit_card_pin_6285", C)], {}),
        ("R6.8", [TXNS, UNFREEZE, CLOSE], [TXNS, CLOSE], {"status_at_start": "FROZEN"}),
        ("R6.8", [FREEZE, UNFREEZE], [UNFREEZE], {}),
        ("R6.8", [TXNS, FREEZE, UNFREEZE, CLOSE], [TXNS, FREEZE, UNFREEZE, FREEZE, CLOSE], {}),
        ("R6.9", [ACCOUNTS, ORDER, ACTIVATE], [ACCOUNTS, ACTIVATE, ORDER], {"status_at_start": None}),
        ("R6.10", [INCIDENT, FIRST, HAND_OVER], [FIRST, INCIDENT, HAND_OVER], {}),
        ("R6.10", [FIRST, FIRST, FIRST, HAND_OVER], [FIRST, FIRST, HAND_OVER], {}),
        ("R6.10", [BUREAU, HAND_OVER], [HAND_OVER, BUREAU], {}),
    ],
)  # fmt: skip
def test_rows_that_no_file_may_hold(
    where: Path, row: str, right: list[Any], wrong: list[Any] | None, card: Any
) -> None:
    """Each rare row, once as documented and once not: the first passes, the second is found under that rule."""
    doc = contact(*right, **card)
    if wrong is not None:
        doc["mutants"] = [{"task": "t", **contact(*wrong, **card)["tasks"]["t"]}]
        assert row in oracle.violations(doc["tasks"]["t"], doc["mutants"][0])
    assert oracle.violations(doc["tasks"]["t"], doc["tasks"]["t"]) == set()
    found = tau2.run(written(where, doc), where / "run")
    assert found["gold"]["false_alarms"] == []
    if wrong is not None:
        assert found["mutants"]["rules"] == {"0": row.partition(".")[0]}
        assert any(name == row or name.startswith(row + ".") for name in found["mutants"]["policies"]["0"])


@needs_cases
@pytest.mark.parametrize(
    ("rule", "file", "old", "new"),
    [
        ("R1", "policies/contact.cedar", r"!context\.facts\.recovered\.known", "false"),
        ("R2", "policies/contact.cedar", r'context\.args\.call_requestor == "assistant"', "false"),
        ("R3", "policies/once.cedar", r"context\.facts\.done_\w+\.known", "false"),
        ("R4", "policies/ownership.cedar", r'unless \{ context\.facts\.instructed',
         "unless { true || context.facts.instructed"),
        ("R5", "policies/checks.cedar", r"unless \{\n", "unless { true ||\n"),
    ],
)  # fmt: skip
def test_every_rule_is_needed(
    where: Path, monkeypatch: pytest.MonkeyPatch, rule: str, file: str, old: str, new: str
) -> None:
    """With one rule taken out the same paths pass: it is this rule that finds them, and the score says so."""
    rules = where / "rules"
    for path in desk.RULES.rglob("*.*"):
        (rules / path.relative_to(desk.RULES)).parent.mkdir(parents=True, exist_ok=True)
        (rules / path.relative_to(desk.RULES)).write_bytes(path.read_bytes())
    text = (rules / file).read_text("utf-8")
    weaker = re.sub(old, lambda _: new, text)
    assert weaker != text
    (rules / file).write_text(weaker, "utf-8")
    cases = written(where, only(dev(), rule))
    monkeypatch.setattr(tickets, "RULES", rules)
    out = where / "out.json"
    assert tau2.main([str(cases), "--json", str(out), "--dir", str(where)]) == 1
    assert json.loads(out.read_text("utf-8"))["score"]["missed"]


@needs_cases
def test_an_exception_is_a_ticket_and_lifts_no_more_than_its_keys(where: Path) -> None:
    """Undeclared, or declared for another record or another rule, the two legitimate deviations are stopped."""
    doc = {**dev(), "mutants": []}
    doc["tasks"] = {name: doc["tasks"][name] for name in ("task_053", "task_089")}
    assert tau2.run(written(where, doc), where / "whole")["gold"]["false_alarms"] == []
    for number, change in enumerate(
        (
            lambda task: task.update(exceptions={}),
            lambda task: [scope.update(keys=["another"]) for scope in task["exceptions_scope"].values()],
            lambda task: [scope.update(row=f"{rule}.2") for rule, scope in task["exceptions_scope"].items()],
        )
    ):
        other = json.loads(json.dumps(doc))
        for task in other["tasks"].values():
            change(task)
        found = tau2.run(written(where, other), where / f"run-{number}")["gold"]
        assert found["rules"] == {"task_053": "R6", "task_089": "R4"}


@needs_cases
def test_a_ticket_lifts_nothing_beside_it(where: Path) -> None:
    """Under the ticket for reading a child's account, its transactions are read; writing there stays forbidden."""
    doc = dev()
    task = doc["tasks"]["task_089"]
    child = task["exceptions_scope"]["R4"]["keys"][0]
    actions = [made_up.action(CREDIT[0], {"account_id": child, "credit_type": "goodwill"}, wrapped=False)]
    spoilt = {"task": "task_089", "actions": task["actions"] + actions, "ok": [*task["ok"], True]}
    found = tau2.run(written(where, {"tasks": {"task_089": task}, "mutants": [spoilt]}), where / "run")
    assert found["gold"]["false_alarms"] == []
    assert found["mutants"]["policies"] == {"0": ["R4.2.account_id"]}


@pytest.mark.slow
@needs_cases
def test_a_declared_exception_is_worth_exactly_its_row_and_keys(where: Path) -> None:
    """What the labels of a mutant say, declared as an exception by its own keys: lifted. By other keys: still found."""
    doc, wanted = {"tasks": {}, "mutants": []}, []
    whole = dev()
    for number, mutant in enumerate(whole["mutants"][::EXCEPTED]):
        whys = [text.partition("@")[::2] for text in mutant["why"]]
        keys = {row: [rest.partition(" ")[2] for other, rest in whys if other == row] for row, _ in whys}
        rules = {row.partition(".")[0] for row in keys}
        if not rules or len(rules) < len(keys) or rules & whole["tasks"][mutant["task"]]["exceptions"].keys():
            continue
        for right in (True, False):
            task = json.loads(json.dumps(whole["tasks"][mutant["task"]]))
            task |= {part: task[part][:1] for part in ("actions", "ok", "results")}
            for row, named in keys.items():
                rule = row.partition(".")[0]
                task["exceptions"][rule] = "as declared"
                task["exceptions_scope"][rule] = {"row": row, "keys": named if right else ["nobody's"]}
            name = f"{number}-{right}"
            doc["tasks"][name] = task
            doc["mutants"].append({**mutant, "task": name})
            wanted.append(not right)
    found = tau2.run(written(where, doc), where / "run")["mutants"]
    assert [number in found["found"] for number in range(len(wanted))] == wanted
    assert len(wanted) > 4 * tickets.TICKETS_MAX, "no single desk had all these tickets"


def test_an_exception_for_a_late_lookup_names_the_decision(where: Path) -> None:
    """A lookup after the dispute that the ticket names passes; after another dispute as well, it does not."""

    def filed(transaction: str) -> tuple[str, dict[str, Any]]:
        return "file_credit_card_transaction_dispute_4829", {"transaction_id": transaction, "user_id": "u1"}

    doc = contact(filed("x1"), CHECKS[0])
    doc["tasks"]["t"] |= {"exceptions": {"R5": "why"}, "exceptions_scope": {"R5": {"row": "R5.16", "keys": ["x1"]}}}
    doc["mutants"] = [
        {"task": "t", **contact(filed("x1"), filed("x2"), CHECKS[0])["tasks"]["t"]},
        {"task": "t", **contact(filed("x2"), CHECKS[0])["tasks"]["t"]},
    ]
    found = tau2.run(written(where, doc), where / "run")
    assert found["gold"]["false_alarms"] == []
    assert found["mutants"]["rules"] == {"0": "R5", "1": "R5"}


@pytest.mark.parametrize(
    ("key", "lifted", "not_lifted"),
    [
        ("apply_statement_credit_8472 k1 retention_offer", ["k1", "retention_offer"], ["k1", "goodwill"]),
        ("k1 retention_offer", ["k1", "retention_offer"], ["k2", "retention_offer"]),
        ("k1", ["k1", "retention_offer"], ["k2", "retention_offer"]),
    ],
)
def test_a_key_of_several_values_is_all_of_them(
    where: Path, key: str, lifted: list[str], not_lifted: list[str]
) -> None:
    """``TOOL RECORD REASON`` lifts that tool, for that record, with that reason; a record alone lifts it for any."""

    def credits(account: str, reason: str) -> list[Any]:
        checks = [(tool, {**args, "credit_card_account_id": account}) for tool, args in [*CHECKS[:3], REASON]]
        return [*checks, *[("apply_statement_credit_8472", {"credit_card_account_id": account, "reason": reason})] * 2]

    doc = contact(*credits(*lifted))
    doc["tasks"]["t"] |= {"exceptions": {"R3": "why"}, "exceptions_scope": {"R3": {"row": "R3.1", "keys": [key]}}}
    doc["mutants"] = [{"task": "t", **contact(*credits(*not_lifted))["tasks"]["t"]}]
    found = tau2.run(written(where, doc), where / "run")
    assert found["gold"]["false_alarms"] == []
    assert found["mutants"]["rules"] == {"0": "R3"}


@needs_cases
@pytest.mark.slow
def test_over_http_the_answers_are_the_same(where: Path) -> None:
    """What a client with a token is told gives the same figures as calling the gate in this process."""
    doc = dev()
    doc["mutants"] = doc["mutants"][::7]
    cases = written(where, doc)
    assert tau2.run(cases, where / "http", http=True) == tau2.run(cases, where / "inside")


def test_a_ticket_ends_by_itself(where: Path) -> None:
    """After eight hours an exception is none, whoever signed it."""
    doc = contact(CHECKS[4], SUBMIT)
    doc["tasks"]["t"] |= {"exceptions": {"R6": "why"}, "exceptions_scope": {"R6": {"row": "R6.3", "keys": ["k1"]}}}
    suite = tau2.load(written(where, doc))
    one = tau2.Desk(where / "run", suite, ["t"])
    try:
        assert one.replay(suite.gold[0])[1] is None
        asked = one.contact("t")
        one.clock.advance(tickets.TICKET_HOURS * 3_600 - 60)
        call = suite.gold[0].calls
        said = []
        for number in range(3):
            one.clock.advance(tau2.CALL_S if number < 2 else 3_600)
            args = desk.arguments(call[number], suite.books["t"], number, suite.tools[call[number].tool])
            said.append(one.door.act(asked, f"c{number}", call[number].tool, args)[0])
    finally:
        one.close()
    assert said == ["allow", "allow", "deny"], "the mandate of the contact has ended as well"


def test_wrong_files_are_told_apart(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file is wrong usage; what is no JSON, or of another shape, is unreadable. Neither is a traceback."""
    assert tau2.main([str(where / "absent.json")]) == 64
    good = contact(FREEZE)
    task = good["tasks"]["t"]
    bad = [
        "{", "[]", "{}", '{"tasks": {"t": {}}, "mutants": []}', '{"tasks": 1, "mutants": 1}', "[" * 100_000,
        *(json.dumps({"tasks": {"t": {**task, **change}}, "mutants": []}) for change in (
            {"ok": []}, {"actions": [1, 2]}, {"actions": [{"name": 1, "arguments": {}}] * 2}, {"facts": 1},
            {"exceptions": 1}, {"exceptions": {"R5": "why"}, "exceptions_scope": {"R5": {"row": "R4.1"}}},
            {"exceptions": {"R5": "why"}, "exceptions_scope": {"R5": {"keys": "k1"}}},
            {"facts": {"customer": {}, "records": {"c1": 5}}}, {"facts": {"customer": 5, "records": {}}},
        )),
        json.dumps({**good, "mutants": [{**task, "task": "another"}]}),
        json.dumps({**good, "mutants": [{**task, "task": "t", "id": 1}] * 2}),
        json.dumps({**good, "mutants": [{**task, "task": "t", "id": [1]}]}),
        json.dumps({"tasks": {"t": {**task, "exceptions": {"R3": "why"}, "exceptions_scope": {
            "R3": {"row": "R3.1", "keys": [f"a b c d e f g {n}" for n in range(64)]}}}}, "mutants": []}),
    ]  # fmt: skip
    for number, text in enumerate(bad):
        path = where / f"{number}.json"
        path.write_text(text, "utf-8")
        assert tau2.main([str(path), "--dir", str(where)]) == 3, text[:200]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(bad) + 1
    assert all(line.startswith("tau2.py: ") for line in told)


def test_equal_numbers_are_one_key() -> None:
    """75, 75.0 and 75.00 are the same amount in a business key; "75" is a text, true is no number."""
    decimals = [json.loads(text, parse_float=desk.Decimal) for text in ("75", "75.0", "75.00", "7.5e1")]
    assert {desk.text_of(value) for value in decimals} == {"75"}
    assert [desk.text_of(value) for value in (True, None, "x", {"b": 1, "a": 2})] == [
        "true",
        "",
        "x",
        '{"a": 2, "b": 1}',
    ]
