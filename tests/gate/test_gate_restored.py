"""What a restored lane knows about people: what the backup knew, no more, and nothing of it moves money by itself."""

from __future__ import annotations

from pathlib import Path

from rig import AGENT, Provider, hold, make, rebuilt_equally, unsound, waiting
from scenario import LARGE
from scenario_people import LADDERED, Day

from countermark.audit import present_state
from countermark.authority import accept, load_private, public_of
from countermark.journal import SqliteStore
from countermark.policy import State
from countermark.wiring import load_config
from countermark.wiring.backup import make_backup
from countermark.wiring.restore import restore_backup


def state_of(root: Path) -> State:
    store = SqliteStore(load_config(root).journal, readonly=True)
    try:
        state = present_state(store)
        for parked in state.parked.values():
            parked.keep()
        return state
    finally:
        store.close()


def test_a_restored_lane_knows_people_as_the_backup_did(tmp_path: Path) -> None:
    """Keys, payees and questions of the backup are there, orders since are not, and can be repeated while it is closed.

    A question that waits keeps its rung and its answers; approved, it pays nothing: every mandate has ended.
    """
    provider = Provider()
    made = make(tmp_path / "old", provider, changes=LADDERED)
    with hold(made.root, provider) as handle:
        day = Day(handle, made.root, tmp_path / "acks", "r")
        key = day.enrolled()
        day.payee()
        day.pay(1, LARGE)
        day.answer(1, "anna")
        day.pay(2, LARGE)
        day.unreachable(2)
        make_backup(load_config(made.root), tmp_path / "backup", with_keys=True)
        before = state_of(made.root)
        day.removed(key)
        day.answer(1, "controller", "refuse")
        assert waiting(handle)[0]["rungs"]["finance"]["rung"] == 2
    text = str(public_of(load_private(key)))
    assert text in state_of(made.root).roll.removed
    root = tmp_path / "new"
    restored = restore_backup(tmp_path / "backup", root, offline=True, connectors={"stripe": provider})
    after = state_of(root)
    assert after.roll.dump() == before.roll.dump()
    assert after.register.dump() == before.register.dump()
    assert after.parked.dump() == before.parked.dump()
    assert text in after.roll.enrolled  # the removal is among what was lost
    sent = list(provider.sent)
    with hold(root, provider) as handle:
        day = Day.__new__(Day)
        day.handle, day.root, day.acks, day.tag, day.made = handle, made.root, tmp_path / "acks", "r", made
        day.removed(key)
        day.answer(1, "controller")
        bundle = after.bundle
        assert bundle is not None
        for person in ("treasurer", "controller"):
            order = {
                "deployment": made.deployment, "lane": restored.lane, "succession": restored.succession,
                "imported": restored.imported, "bundle": bundle.digest, "person": person,
            }  # fmt: skip
            handle.call("lane.accept", accept(order, load_private(made.people[person])))
        assert handle.call("status", {})["kills"] == []
        day.answer(2, "clara")
        assert waiting(handle) == []
    assert provider.sent == sent
    now = state_of(root)
    assert text in now.roll.removed
    assert now.runs.of_agent.get(AGENT) == after.runs.of_agent.get(AGENT)
    assert unsound(root) == []
    assert rebuilt_equally(root)
