"""Rungs: a message that cannot be delivered climbs at once, and the next rung's people hear why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from notify_support import HMAC_SECRET, LARGE, SEED_SECRET, Desk, Receiver, webhook
from rig import Provider
from test_notify_outbox import NEVER, wait_for

import countermark
from countermark.model.records import KINDS
from countermark.server import Listener
from countermark.wiring import ServeSettings

pytestmark = pytest.mark.skipif("escalation.climbed" not in KINDS, reason="ladders with rungs are not merged yet")
LADDER = '[ladder.finance]\nroles = ["approver"]\nquorum = 1\ndeadline = "4h"\n'
RUNGS = """[[ladder.finance.rung]]
roles = ["approver"]
quorum = 1
deadline = "2h"

[[ladder.finance.rung]]
roles = ["principal", "approver"]
quorum = 1
deadline = "4h"
"""


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [got.json["data"] for got in receiver.got]


def test_a_failed_message_climbs_at_once_through_the_gate_itself(tmp_path: Path, monkeypatch: Any) -> None:
    """The channel of rung 1 is gone for good: within moments rung 2 is recorded and told, with the reason."""
    monkeypatch.setenv("NOTIFY_HMAC", HMAC_SECRET)
    monkeypatch.setenv("NOTIFY_KEY", SEED_SECRET)
    from rig import AGENT, bodies, make, pay

    with Receiver([NEVER]) as broken, Receiver() as whole:
        make(tmp_path / "d", Provider(), changes={LADDER: RUNGS})
        path = tmp_path / "d" / "countermark.toml"
        channels = webhook(broken.origin, "first") + webhook(whole.origin, "second", roles='["principal"]')
        path.write_text(path.read_text() + channels)
        with (
            countermark.open(tmp_path / "d", agent=AGENT, connectors={"stripe": Provider()}) as handle,
            Listener(handle, settings=ServeSettings(port=0)),
        ):
            escalation = pay(handle, 1, LARGE).escalation
            wait_for(lambda: len(whole.got) == 1 and len(broken.got) == 2)
        climbed = bodies(tmp_path / "d", "escalation.climbed")
    assert [(one["escalation"], one["ladder"], one["rung"], one["because"]) for one in climbed] == [
        (escalation, "finance", 2, "unreachable")
    ]
    (doc,) = told(whole)
    assert (doc["event"], doc["rungs"]) == ("climbed", {"finance": 2})
    assert "no message reached the people before them" in doc["text"]


def test_each_rung_has_its_own_deadline_and_its_own_channels(tmp_path: Path) -> None:
    """The question names the end of rung 1, the climb that of rung 2; a channel for a role hears when it is asked."""
    with Receiver() as receiver:
        channels = webhook(receiver.origin) + webhook(receiver.origin, "boss", roles='["principal"]')
        with Desk(tmp_path / "d", channels, changes={LADDER: RUNGS}) as desk:
            asked_at = desk.clock.now_us()
            desk.ask()
            desk.clock.advance(2 * 3_600 + 1)
            desk.handle.gate.wait(desk.handle.gate._expire())
            desk.tell("ops", "boss")
            assert desk.events() == [("ops", "asked"), ("ops", "climbed"), ("boss", "climbed")]
            asked, climbed, _ = told(receiver)
    assert asked["due"] - asked_at == 2 * 3_600 * 10**6
    assert climbed["due"] - asked_at == 6 * 3_600 * 10**6
    assert climbed["because"] == "deadline"
