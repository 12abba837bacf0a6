"""An action that waited while the policy changed is made again as it was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_day import AGENT, START_US, STRANGER, Day, Player, Provider, resealed

from countermark.audit import bundles_of, reperform
from countermark.authority import activate, public_of
from countermark.model.clock import FakeClock
from countermark.model.records import Record
from countermark.policy import compile_bundle, template_files, with_keys
from countermark.wiring.connectors import drafts
from countermark.wiring.deployment import open_deployment
from countermark.wiring.init import init_deployment

PAYEE = f'\n[payees.somebody]\nname = "Somebody"\naccount = "{STRANGER}"\n'


def _changed(player: Player) -> None:
    """Put a policy in force that knows the stranger, and takes no invoice of the form that waits."""
    made = player.day.made
    files = template_files("vendor-payments")
    files["limits.toml"] += PAYEE
    files["tools.toml"] = files["tools.toml"].replace("[A-Za-z0-9][A-Za-z0-9 ./_-]{0,63}", "PO-[0-9]{1,8}")
    keys = {person: str(public_of(player.key(person))) for person in made.people}
    bundle = compile_bundle(tuple(sorted(with_keys(files, keys).items())), drafts())
    previous = player.handle.call("status", {})["activation"]
    order = {
        "deployment": made.deployment, "bundle": bundle.digest, "previous": previous,
        "author": bundle.compiled.author, "activator": "treasurer",
    }  # fmt: skip
    player.handle.call("activate", {**activate(order, player.key("treasurer")), "document": bundle.document})


@pytest.fixture
def day(tmp_path: Path) -> Day:
    """A payment to somebody unknown waits; the policy changes; then the payment is approved."""
    clock, provider = FakeClock(START_US), {"stripe": Provider()}
    made = init_deployment(tmp_path / "d", "vendor-payments", "acme", clock=clock, connectors=provider)
    day = Day(made)
    with open_deployment(tmp_path / "d", agent=AGENT, connectors=provider, clock=clock) as handle:
        day.run = handle.start_run(purpose="pay")
        player = Player(handle, day, clock)
        assert player.act("INV-1", 7_000, STRANGER) == "escalated"
        _changed(player)
        assert player.answer("INV-1", "approve")["result"]["code"] == "approval_void"
    return day


def test_a_decision_after_an_approval_is_judged_by_what_was_asked(day: Day) -> None:
    """Its payee is still the one that people were shown, and its arguments fit the policy that took them."""
    store = day.store
    found, bundle_of = list(store.records()), bundles_of(store)
    report = reperform(found, bundle_of)
    assert report.ok, [str(mismatch) for mismatch in report.mismatches]
    assert (report.bundles, report.decisions, report.requests) == (2, 2, 2)
    _other_terms(found, bundle_of)
    store.close()


def _other_terms(found: list[Record], bundle_of: Any) -> None:
    """A decision that claims the payee of the newer policy is named."""
    (seq,) = [r.seq for r in found if r.kind == "action.decided" and r.body["escalation"] is not None]

    def alter(body: dict[str, Any]) -> None:
        body["terms"]["payee"] = "somebody"

    again = reperform(resealed(found, seq, alter), bundle_of)
    assert "terms" in {mismatch.what for mismatch in again.mismatches if mismatch.seq == seq}
