"""What only people may do, asked for by an agent."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from siege import ASK, Siege, args_for, escalation_of, make, serving, signed_answer, twin_for

from countermark.authority import generate, load_private, make_pass, sign_approval
from countermark.model.clock import US, SystemClock

STOP = b'{"kind":"deployment","reason":"x"}'
NOBODY = "sha256:" + "0" * 64
ROUTES = [
    ("GET", "/v1/escalations"), ("GET", "/v1/escalations?limit=1"), ("POST", "/v1/escalations/{escalation}/answers"),
    ("POST", "/v1/people/keys"), ("POST", "/v1/people/keys/removals"), ("POST", "/v1/people/absences"),
    ("GET", "/v1/people"), ("GET", "/v1/people/offers/0000-0000"), ("POST", "/v1/people/drafts"),
    ("POST", "/v1/kills"), ("POST", "/v1/kills/kill_0/clearance"), ("POST", "/v1/mandates"),
    ("POST", f"/v1/mandates/{NOBODY}/revocation"), ("POST", "/v1//kills"), ("POST", "/v1/%6bills"),
    ("POST", "/v1/./kills"), ("POST", "/v1/actions/../kills"), ("POST", "/stripe/../v1/kills"), ("POST", "/V1/KILLS"),
    ("POST", "/v1/kills/"), ("PUT", "/v1/kills"), ("POST", "/v1/kills?agent=1"), ("POST", "/v1/kills;x=1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def parked(siege: Siege) -> str:
    """An escalation that waits."""
    return escalation_of(siege.act(args_for("PEOPLE-1", ASK)))


def untouched(siege: Siege, parked: str) -> bool:
    """Whether the escalation waits, nothing was stopped, and nothing was paid for it."""
    waits = siege.waiting(parked)["escalation"] == parked
    goes_on = siege.act(args_for("GOES-ON-" + os.urandom(6).hex(), 1)).status == 200
    return waits and goes_on and siege.paid("PEOPLE-1") == []


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=[f"{method} {route[:40]}" for method, route in ROUTES])
def test_an_agents_token_on_peoples_routes(siege: Siege, parked: str, method: str, route: str) -> None:
    """Prevented: an agent's token on every route of people, in every spelling of its address."""
    target = route.format(escalation=parked)
    body: Any = json.loads(STOP) if method != "GET" else None
    if target.endswith("/answers"):
        body = signed_answer(siege.made, siege.waiting(parked))
    answer = siege.ask(method, target, body)
    assert answer.status in (400, 403, 404, 405), answer.body
    if answer.status == 403:
        assert answer.code == "people_only"
    assert untouched(siege, parked)


def test_an_agents_token_beside_a_persons_signature(siege: Siege, parked: str) -> None:
    """Prevented: an agent that hands in what a person signed with its own token: people's routes take no token."""
    signed = signed_answer(siege.made, siege.waiting(parked))
    answer = siege.ask("POST", f"/v1/escalations/{parked}/answers", signed)
    assert (answer.status, answer.code) == (403, "people_only")
    assert untouched(siege, parked)


def test_an_agent_approves_with_a_key_of_its_own(siege: Siege, parked: str) -> None:
    """Prevented: an approval signed by the agent's own key, by somebody who may not answer, or under another's name."""
    document = signed_answer(siege.made, siege.waiting(parked))["approval"]
    for answer in (
        sign_approval(document, generate()), {**sign_approval(document, generate()), "key": None},
        signed_answer(siege.made, siege.waiting(parked), person="treasurer"), {"approval": document},
    ):  # fmt: skip
        assert siege.ask("POST", f"/v1/escalations/{parked}/answers", answer, token="").status in (400, 403)
    assert untouched(siege, parked)


def test_an_approval_of_something_smaller(siege: Siege, parked: str) -> None:
    """Prevented: a person's approval of one action, turned to another one, or changed after it was signed."""
    other = escalation_of(siege.act(args_for("PEOPLE-2", ASK)))
    signed = signed_answer(siege.made, siege.waiting(other))
    changed = json.loads(json.dumps(signed).replace(other, parked))
    for target, document in ((parked, signed), (parked, changed), (other, changed)):
        assert siege.ask("POST", f"/v1/escalations/{target}/answers", document, token="").status in (400, 403, 409)
    assert untouched(siege, parked)
    assert siege.answer(other, "refuse").status == 200


def test_an_approval_used_twice(siege: Siege) -> None:
    """Prevented: an approval handed in again: the escalation is over, and nothing moves a second time."""
    escalation = escalation_of(siege.act(args_for("PEOPLE-3", ASK)))
    signed = signed_answer(siege.made, siege.waiting(escalation))
    target = f"/v1/escalations/{escalation}/answers"
    assert siege.ask("POST", target, signed, token="").json["state"] == "approved"
    assert siege.ask("POST", target, signed, token="").status in (400, 403, 404, 409)
    assert len(siege.paid("PEOPLE-3")) == 1


def test_a_pass_that_nobody_signed(siege: Siege, parked: str) -> None:
    """Prevented: a pass signed by an unknown key in a person's name, or for another request, body or deployment, one
    that is over or lasts for ever.
    """
    target, now = "/v1/kills", SystemClock().now_us()
    plain: dict[str, Any] = {
        "deployment": siege.made.deployment, "person": "treasurer", "method": "POST", "target": target, "body": STOP,
        "not_after": now + 60 * US,
    }  # fmt: skip
    forged = [
        make_pass(generate(), **plain), siege.pass_for("GET", target, STOP), siege.pass_for("POST", target, b"{}"),
        siege.pass_for("POST", target + "?x=1", STOP), siege.pass_for("POST", target, STOP, not_after=now - US),
        siege.pass_for("POST", target, STOP, not_after=now + 3_600 * US),
        siege.pass_for("POST", target, STOP, person="controller"),
    ]  # fmt: skip
    for value in forged:
        answer = siege.ask("POST", target, STOP, {"authorization": value}, token="")
        assert answer.status in (400, 401, 403), answer.body
    assert untouched(siege, parked)


def test_a_pass_that_was_overheard(siege: Siege, parked: str) -> None:
    """Prevented: a person's pass sent a second time, even for the same request."""
    shown = {"authorization": siege.pass_for("GET", "/v1/escalations")}
    assert siege.ask("GET", "/v1/escalations", headers=shown, token="").status == 200
    assert siege.ask("GET", "/v1/escalations", headers=shown, token="").status == 403
    assert untouched(siege, parked)


def test_a_pass_written_in_another_way(siege: Siege) -> None:
    """Prevented: a used pass in another spelling of the same bytes, so that it does not look used."""
    good = siege.pass_for("GET", "/v1/escalations")
    scheme, _, coded = good.partition(" ")
    assert siege.ask("GET", "/v1/escalations", headers={"authorization": good}, token="").status == 200
    for other in (
        f"{scheme}  {coded}", f"{scheme} {coded} ", f"{scheme.lower()} {coded}", f"{scheme} {coded}=",
        f"{scheme} {coded.rstrip('=')}", f"{scheme}\t{coded}", f"{scheme} {coded[:8]} {coded[8:]}",
    ):  # fmt: skip
        answer = siege.ask("GET", "/v1/escalations", headers={"authorization": other}, token="")
        assert answer.status in (400, 401, 403), (other[:40], answer.body)


def test_a_pass_kept_for_after_a_restart(tmp_path: Path) -> None:
    """Not covered: a person's pass that was overheard, sent again to a gate that restarted meanwhile, within the five
    minutes that it may last: used passes are remembered in memory only. It stops a scope again, or shows what waits.
    """
    with twin_for(tmp_path / "twin") as twin:
        made = make(tmp_path / "d", twin)
        stop = b'{"kind":"tool","value":"stripe.payouts.create","reason":"seen"}'
        plain = {"method": "POST", "target": "/v1/kills", "body": stop, "not_after": SystemClock().now_us() + 300 * US}
        shown = make_pass(
            load_private(made.people["treasurer"]), deployment=made.deployment, person="treasurer", **plain
        )
        found = []
        for _ in range(2):
            with serving(made, twin) as running:
                for _ in range(2):
                    request = urllib.request.Request(running.url + "/v1/kills", stop, {"Authorization": shown})
                    request.add_header("Content-Type", "application/json")
                    try:
                        with urllib.request.urlopen(request) as answer:
                            found.append(answer.status)
                    except urllib.error.HTTPError as error:
                        found.append(error.code)
                        error.close()
        assert found == [201, 403, 201, 403]


def test_other_routes_at_the_stripe_faces_own_address(tmp_path: Path) -> None:
    """Prevented: routes of people, actions, the log or numbers asked for at the Stripe face's own address."""
    with twin_for(tmp_path / "twin") as twin, serving(make(tmp_path / "d", twin), twin) as running:
        for target in ("/v1/kills", "/v1/actions", "/v1/escalations", "/metrics", "/log/checkpoint", "/mcp",
                       "/stripe/v1/transfers", "/v1/../metrics", "//v1/transfers", "/v1/transfers/"):  # fmt: skip
            request = urllib.request.Request(running.stripe_url + target, b"", method="POST")
            request.add_header("Authorization", f"Bearer {running.token}")
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request)
            said = json.load(caught.value)
            caught.value.close()
            assert (caught.value.code, said["error"]["code"]) == (404, "countermark_no_tool"), target
        assert list(twin.books().movements()) == []
