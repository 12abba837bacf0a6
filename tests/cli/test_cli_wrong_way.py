"""What somebody new gets wrong: the refusal names it, and says what next."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import Bench, bench, fresh, ok, run

from countermark.audit.rules import fact, numbers, rules_of

OFFER = ("--offer", "K7QM-3XHD")


def refused(*words: str, code: int = 1) -> str:
    """What a command that must not work says."""
    done = run(*words)
    assert done.exit_code == code, done.output
    return done.stderr


def test_a_wrong_person_or_key_file_is_named(tmp_path: Path) -> None:
    """A name that is nobody's, a file that is another's, a file that is nobody's: which, and who there is."""
    made = fresh(tmp_path)
    at = ("-C", str(made.root), "people", "enrol")
    treasurer, stranger = str(made.people["treasurer"]), str(tmp_path / "stranger.pem")
    ok(run("keys", "new", stranger))
    said = refused(*at, "contrller", *OFFER, "--key", treasurer)
    assert "there is no person contrller here" in said
    assert "controller, treasurer" in said
    said = refused(*at, "controller", *OFFER, "--key", treasurer)
    assert f"{treasurer} is no key of controller: it is a key of treasurer" in said
    assert "people list" in said
    said = refused(*at, "controller", *OFFER, "--key", stranger)
    assert f"{stranger} is no key of controller: it signs for nobody here" in said


def test_a_payee_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A slip in the id is shown; so is a new payee, which could be one."""
    made = fresh(tmp_path)
    signed = ("--reason", "ticket", "--person", "treasurer", "--key", str(made.people["treasurer"]))
    at = ("-C", str(made.root), "payee")
    assert "no payee has the ID acme-papr" in refused(*at, "close", "acme-papr", *signed)
    said = refused(*at, "set", "acme-papr", "--account", "acct_1New", *signed)
    assert "no payee has the ID acme-papr, and a new one needs a name" in said
    said = ok(run(*at, "set", "cirrus", "--name", "Cirrus Cables", "--account", "acct_1Cirrus", *signed))
    assert "Recorded cirrus: a new payee, paid to ...rrus." in said


def test_a_wrong_key_is_refused_before_anything_is_shown() -> None:
    """`approve` with another person's file says so at once, instead of showing a request to sign first."""
    desk: Bench = bench()
    desk.act("wrong-key-1", 600_000)
    (waits,) = [one for one in desk.handle.call("escalations", {}) if one["terms"]["amount"] == 600_000][:1]
    done = desk.run(
        "approvals", "approve", waits["escalation"], "--person", "controller", "--key", desk.key("treasurer")
    )
    assert done.exit_code == 1
    assert "it is a key of treasurer" in done.stderr
    assert "to be sent" not in done.stdout


def test_a_rule_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """`audit paths` and the draft name the directory that they looked for."""
    made = fresh(tmp_path)
    assert "no policy directory nowhere" in refused("-C", str(made.root), "audit", "paths", "nowhere")


@pytest.mark.parametrize(("day", "said"), [(20261110, "is before"), (20261111, "is"), (20261112, "is after")])
def test_days_are_before_and_after_one_another(day: int, said: str) -> None:
    """A day is not below another one."""
    compiled = {
        "cedar": '@id("one")\nforbid(principal, action, resource) when { context.facts.local_day > 20261111 };\n',
        "limits": {}, "facts": [],
    }  # fmt: skip
    body = {"terms": {"amount": 1, "currency": "eur", "payee": None}, "facts": {"local_day": day}, "args": {}}
    (line,) = numbers(rules_of(compiled)["one"], body, compiled)
    assert line.endswith(f" {said} 11 Nov 2026")


def test_an_account_of_unknown_age_was_not_changed() -> None:
    """The age of an account that no order was about is not "never"."""
    compiled = {"facts": [{"name": "payee_details", "kind": "details", "over_us": 0, "group": []}]}
    body = {"facts": {"payee_details": {"known": False, "age_s": 0}}, "terms": {"currency": "eur"}}
    assert fact("payee_details", body, compiled) == "not changed, as far as the records say"
