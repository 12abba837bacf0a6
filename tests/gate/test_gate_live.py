"""Live credentials: not used until author, activator and approvers are different people; test keys are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from rig import ACME, TOOL, args_for, edited, unsound
from test_gate_people import THREE

import countermark
from countermark.authority import activate, generate, load_private, public_of
from countermark.connectors.stripe import DRAFTS
from countermark.model.errors import ConfigError
from countermark.policy import Seats, compile_bundle, template_people, with_keys
from countermark.twins.stripe import StripeTwin
from countermark.wiring import check_seats, credentials, is_live, load_config
from countermark.wiring.connectors import STRIPE_ORIGIN
from countermark.wiring.init import Made, init_deployment

CLERK = {
    **THREE,
    'author = "treasurer"': 'author = "clerk"',
    "[people.auditor]": '[people.clerk]\nname = "Clerk"\nroles = []\nkey = "{{KEY:clerk}}"\n\n[people.auditor]',
}
TEST = {'author = "clerk"': 'author = "clerk"\ntest = true'}


def seats(changes: Mapping[str, str], activator: str) -> Seats:
    """Who stands behind a policy of the vendor template, changed, that ``activator`` put in force."""
    files = edited(changes)
    keys = {name: str(public_of(generate())) for name in template_people(files)}
    bundle = compile_bundle(with_keys(files, keys).items(), {"stripe": DRAFTS})
    return Seats(bundle, activator, bundle.compiled.people)


def paid(made: Made, number: int) -> str:
    """The code of a payment, or why it was not sent."""
    with countermark.open(made.root, agent="treasury") as handle:
        result = handle.act(TOOL, args_for(number, 1_000, ACME), call_id=f"pay-{number}")
    return "not_enough_people" if "too few people" in result.next_step else result.code


def test_what_says_that_it_is_live() -> None:
    """Stripe's keys say so themselves; everything else when the configuration does."""
    assert [is_live(key, False) for key in ("sk_live_1", "rk_live_1", "sk_test_1", "rk_test_1", "x")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert is_live("anything", True)


@pytest.mark.parametrize(
    ("changes", "activator", "missing"),
    [
        ({}, "treasurer", ["treasurer wrote the policy and is its activator: real money needs another"]),
        (THREE, "director", []),
        (THREE, "controller", ["nobody else can answer on the ladder finance"]),
        (THREE, "nobody", ["nobody, who activated the policy, has no key"]),
        (CLERK, "director", []),
        ({**CLERK, **TEST}, "director", ["the policy says that this deployment is a test"]),
        ({**CLERK, 'name = "Controller"\nroles = ["approver"]': 'name = "Controller"\nroles = ["reader"]'}, "director",
         ["nobody else can answer on the ladder finance"]),
        ({**CLERK, '\nkey = "{{KEY:clerk}}"': ""}, "director", ["the author clerk has no key"]),
    ],
)  # fmt: skip
def test_who_is_missing_is_said(changes: dict[str, str], activator: str, missing: list[str]) -> None:
    """Author, activator, an approver of every ladder: different people, each with a key, and no test."""
    found = seats(changes, activator)
    assert found.lacking() == missing
    if missing:
        with pytest.raises(ConfigError) as caught:
            check_seats(found)
        assert caught.value.code == "not_enough_people"
        assert missing[0] in caught.value.message
    else:
        check_seats(found)


def test_before_any_policy_nothing_live_is_sent() -> None:
    """Without a policy nobody stands behind anything."""
    assert Seats().lacking() == ["no policy is in force"]


def test_a_live_key_is_not_sent_until_enough_people_stand_behind_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One person alone may pay with a test key and not with a live one; after another activates, it is sent."""
    with StripeTwin.start(tmp_path / "twin", accounts=(ACME,), balances={"eur": 10**9}) as twin:
        made = init_deployment(
            tmp_path / "d", "vendor-payments", "test", stripe_origin=twin.url, edit=edited(THREE)
        )  # the director activates what the treasurer wrote
        config = load_config(made.root)
        monkeypatch.setenv("STRIPE_API_KEY", "rk_live_" + "x" * 24)
        assert credentials(config) == "live"
        assert paid(made, 1) not in ("ok", "not_enough_people")  # sent: the simulator knows no such key
        _activate_alone(made)
        assert paid(made, 2) == "not_enough_people"
        monkeypatch.setenv("STRIPE_API_KEY", twin.key)
        assert credentials(config) == "test"
        assert paid(made, 3) == "ok"
        settings = made.root / "countermark.toml"
        settings.write_text(settings.read_text() + "\n[connectors]\nlive = true\n")
        assert credentials(load_config(made.root)) == "live"
        assert paid(made, 4) == "not_enough_people"
        assert len(twin.books().movements()) == 1
    assert unsound(made.root) == []


def _activate_alone(made: Made) -> None:
    """A policy that the treasurer wrote, and that the treasurer puts in force."""
    keys = {name: str(public_of(load_private(path))) for name, path in made.people.items()}
    origin = load_config(made.root).origins["stripe"]
    changes = {**THREE, "flag_above = 200000": "flag_above = 200001"}
    files = {path: text.replace(STRIPE_ORIGIN, origin) for path, text in edited(changes).items()}
    bundle = compile_bundle(with_keys(files, keys).items(), {"stripe": DRAFTS})
    with countermark.open(made.root, agent="treasury") as handle:
        order = {"deployment": made.deployment, "bundle": bundle.digest, "author": "treasurer",
                 "activator": "treasurer", "previous": handle.call("status", {})["activation"]}  # fmt: skip
        signed = activate(order, load_private(made.people["treasurer"]))
        handle.call("activate", {**signed, "document": bundle.document})
