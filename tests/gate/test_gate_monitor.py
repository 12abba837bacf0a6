"""Monitor mode: what the policy would have done is recorded and waived, for a while; hard limits are never waived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rig import TOOL, Provider, bodies, edited, hold, make, pay, transfers, unsound

from countermark import Deployment
from countermark.audit import explain, monitored
from countermark.authority import activate, countersign, load_private, public_of
from countermark.journal import SqliteStore
from countermark.model.clock import US, FakeClock, SystemClock
from countermark.model.errors import CountermarkError
from countermark.policy import compile_bundle, load_sources, run_cases, template_files, with_keys
from countermark.wiring.connectors import drafts
from countermark.wiring.init import Made

LARGE = 600_000  # above what the template asks people about
ABOVE_MAX = 800_001  # above what the policy of that test never allows
STRANGER = "acct_1Stranger"
DAY_US = 86_400 * US


def text_of(moment: int) -> str:
    return datetime.fromtimestamp(moment // US, UTC).strftime("%Y-%m-%dT%H:%MZ")


def watch(
    root: Path, made: Made, handle: Deployment, until: int, *, own: str = "", first: str = "treasurer",
    second: str | None = "controller", changes: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Put a policy in force that only monitors transfers, signed by two (or, with ``second`` None, by one)."""
    files = edited(changes, transfers(monitor_until=text_of(until)) if until else None)
    if own:
        files["policies/own.cedar"] = own
    for path, text in with_keys(files, {p: str(public_of(load_private(f))) for p, f in made.people.items()}).items():
        (root / "policy" / path).write_text(text, "utf-8")
    bundle = compile_bundle(load_sources(root / "policy"), drafts())
    order: dict[str, Any] = {
        "deployment": made.deployment, "bundle": bundle.digest, "author": bundle.compiled.author, "activator": first,
        "previous": handle.call("status", {})["activation"],
    }  # fmt: skip
    signed = activate(order, load_private(made.people[first]))
    if second is not None:
        signed["second"] = countersign(order, second, load_private(made.people[second]))
    return str(handle.call("activate", {**signed, "document": bundle.document}))


def soon() -> int:
    """A day from now, on a minute."""
    return (SystemClock().now_us() // DAY_US + 2) * DAY_US


def test_what_would_be_refused_or_asked_is_done_and_recorded(tmp_path: Path) -> None:
    """What asks or refuses becomes an effect; the record says what would have been, and by which rule."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    own = f'@id("no_odd") forbid(principal, action == Action::"{TOOL}", resource) when {{ context.amount == 333 }};'
    with hold(tmp_path / "d", provider) as handle:
        watch(tmp_path / "d", made, handle, soon(), own=own)
        ordinary, large = pay(handle, 1), pay(handle, 2, LARGE)
        odd, unknown = pay(handle, 3, 333), pay(handle, 4, destination=STRANGER)
        assert [r.status for r in (ordinary, large, odd, unknown)] == ["confirmed"] * 4
    found = bodies(tmp_path / "d", "action.decided")
    assert [(b["disposition"], b["stage"], b["code"], b["reasons"]) for b in found] == [
        ("allow", "policy", "allowed", ["limits.permit"]),
        ("allow", "monitor", "would_escalate", ["limits.payment.ask"]),
        ("allow", "monitor", "would_deny", ["no_odd"]),
        ("allow", "monitor", "would_escalate", ["limits.payee.unknown"]),
    ]
    assert len(provider.effects) == 4
    assert unsound(tmp_path / "d") == []
    store = SqliteStore(tmp_path / "d" / "data" / "journal.db", readonly=True)
    seen = monitored(store)
    assert seen["counts"] == {TOOL: {"would_escalate": 2, "would_deny": 1}}
    assert [row["id"] for row in seen["decisions"]] == [large.action, odd.action, unknown.action]
    story = explain(store, odd.action).text
    assert [rule for rule in explain(store, odd.action).document["rules"] if "no_odd" in str(rule)]
    store.close()
    assert "the policy forbids it, and only monitors this tool [would_deny]" in story
    assert "rule no_odd" in story


def test_hard_limits_business_keys_mandates_and_stops_hold(tmp_path: Path) -> None:
    """A monitored tool cannot exceed a hard limit, pay an obligation twice, leave its mandate or outrun a stop."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        watch(tmp_path / "d", made, handle, soon(), changes={"max = 2500000 ": "max = 800000 "})
        assert pay(handle, 1).status == "confirmed"
        twice = handle.act(TOOL, {"amount": 1000, "currency": "eur", "destination": "acct_1AcmePaper",
                                  "metadata[invoice]": "INV-1"}, call_id="again")  # fmt: skip
        above = pay(handle, 2, ABOVE_MAX)
        handle.call("kill.set", {"kind": "tool", "value": TOOL, "reason": "test"})
        stopped = pay(handle, 3)
    assert [r.code for r in (twice, above, stopped)] == ["duplicate_obligation", "denied_by_policy", "killed"]
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


def test_a_hard_window_holds_together_with_what_is_waived(tmp_path: Path) -> None:
    """A refusal by a hard limit stands although a rule that is waived is satisfied too."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        watch(
            tmp_path / "d",
            made,
            handle,
            soon(),
            changes={'max = 900000000\nabove = "refuse"': 'max = 1500\nabove = "refuse"'},
        )
        first, second = pay(handle, 1, destination=STRANGER), pay(handle, 2, destination=STRANGER)
    assert (first.status, second.status, second.code) == ("confirmed", "denied", "denied_by_policy")
    reasons = bodies(tmp_path / "d", "action.decided")[-1]["reasons"]
    assert reasons == ["limits.payee.unknown", "limits.window.day_total"]
    assert unsound(tmp_path / "d") == []


def test_when_its_time_is_over_everything_is_denied(tmp_path: Path) -> None:
    """After ``monitor_until`` even what the policy permits is refused, until people decide how to go on."""
    clock = FakeClock()
    provider = Provider()
    made = make(tmp_path / "d", provider, clock=clock)
    until = (clock.now_us() // (60 * US) + 2) * 60 * US
    with hold(tmp_path / "d", provider, clock) as handle:
        watch(tmp_path / "d", made, handle, until)
        assert pay(handle, 1).status == "confirmed"
        clock.advance((until - clock.now_us()) // US)
        late = pay(handle, 2)
        assert (late.status, late.code) == ("denied", "monitor_over")
        watch(tmp_path / "d", made, handle, 0, second=None)
        assert pay(handle, 3).status == "confirmed"
    assert bodies(tmp_path / "d", "action.decided")[1]["stage"] == "monitor"
    store = SqliteStore(tmp_path / "d" / "data" / "journal.db", readonly=True)
    assert monitored(store) == {"counts": {TOOL: {"monitor_over": 1}}, "decisions": []}  # refused is not waived
    store.close()
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("days", "first", "second", "code"),
    [
        (2, "treasurer", None, "four_eyes"),
        (2, "treasurer", "treasurer", "four_eyes"),
        (2, "controller", "controller", "four_eyes"),
        (15, "treasurer", "controller", "monitor_too_long"),
        (-1, "treasurer", "controller", "monitor_too_long"),
        (0, "treasurer", "controller", "bad_activation"),
    ],
)
def test_monitoring_takes_two_people_and_at_most_a_fortnight(
    tmp_path: Path, days: int, first: str, second: str | None, code: str
) -> None:
    """One person, one person twice, more than 14 days, a time that is past: refused, and the old policy stands."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        before = handle.call("status", {})["bundle"]
        until = SystemClock().now_us() + days * DAY_US if days else 0
        with pytest.raises(CountermarkError) as caught:
            watch(tmp_path / "d", made, handle, until, first=first, second=second)
        assert caught.value.code == code
        assert handle.call("status", {})["bundle"] == before
        assert pay(handle, 1, LARGE).status == "escalated"
    assert provider.effects == []


def test_whoever_wrote_the_policy_is_not_its_independent_signer(tmp_path: Path) -> None:
    """Of the policy in force somebody else is the author; what counts is who wrote the one that is signed."""
    provider = Provider()
    made = make(tmp_path / "d", provider)
    own = {'author = "treasurer"': 'author = "controller"'}
    with hold(tmp_path / "d", provider) as handle:
        with pytest.raises(CountermarkError) as caught:
            watch(tmp_path / "d", made, handle, soon(), changes=own)
        assert caught.value.code == "four_eyes"
        watch(tmp_path / "d", made, handle, soon())


def test_the_policys_own_tests_see_it_as_it_will_govern(tmp_path: Path) -> None:
    """``policy test`` judges a monitored tool as if it were governed: its cases stay what they were."""
    made = make(tmp_path / "d", Provider())
    files = dict(template_files("vendor-payments"))
    for old, new in transfers(monitor_until=text_of(soon())).items():
        files["tools.toml"] = files["tools.toml"].replace(old, new)
    for path, text in with_keys(files, {p: str(public_of(load_private(f))) for p, f in made.people.items()}).items():
        (tmp_path / "d" / "policy" / path).write_text(text, "utf-8")
    results = run_cases(compile_bundle(load_sources(tmp_path / "d" / "policy"), drafts()))
    assert results
    assert all(result.passed for result in results)
