"""Each thing that a provider can do to a request ends as specified, by the simulator's books and by its own clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import ACME, Provider, Stand, bodies, hold, make, pay, transfers, unsound
from support import judge_books

import countermark
from countermark.connectors import StripeConnector
from countermark.model.clock import FakeClock

TIMEOUT_MS = 250
LAG_S = 120 + 3 * TIMEOUT_MS / 1000


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(tmp_path_factory.mktemp("provider"), tools=transfers(timeout_ms=TIMEOUT_MS)) as stand:
        yield stand


@pytest.mark.parametrize(
    ("faults", "status", "code", "moved"),
    [
        (["timeout_after_commit"], "confirmed", "ok", 1),
        (["timeout_after_commit"] * 2, "confirmed", "ok", 1),
        (["timeout_after_commit"] * 3, "confirmed", "found", 1),
        (["reset_after"], "confirmed", "ok", 1),
        (["reset_after"] * 3, "confirmed", "found", 1),
        (["reset_before"], "confirmed", "ok", 1),
        (["reset_before"] * 2, "confirmed", "ok", 1),
        (["reset_before"] * 3, "unknown", "provider_error", 0),
        (["http_500_after"], "confirmed", "found", 1),
        (["http_500_before"], "unknown", "provider_error", 0),
        (["http_409"], "confirmed", "ok", 1),
        (["http_409"] * 3, "unknown", "provider_error", 0),
        (["http_429"], "failed", "provider_rate_limited", 0),
        (["reset_after", "http_429"], "confirmed", "ok", 1),
        (["reset_after", "http_429", "http_429"], "confirmed", "found", 1),
        (["reset_before", "http_429", "http_429"], "unknown", "provider_error", 0),
    ],
)
def test_a_fault_ends_as_specified(
    stand: Stand, request: pytest.FixtureRequest, faults: list[str], status: str, code: str, moved: int
) -> None:
    """Confirmed is what the provider said or showed; failed is what is certain; everything else is unknown."""
    tag = f"f{abs(hash(request.node.name)) % 10**8}"
    with countermark.open(stand.root, agent="treasury") as handle:
        stand.twin.faults({"script": {"transfers.create": list(faults)}})
        result = pay(handle, f"{tag}-1", call_id=tag)
        stand.twin.faults({"script": {}})
        assert len(_moved(stand, tag)) == moved
        assert result.status == status
        assert not code or result.code == code
        assert (pay(handle, f"{tag}-1", call_id=tag + "b").code == "duplicate_obligation") == (status != "failed")
        again = pay(handle, f"{tag}-1", call_id=tag)
        assert again.status == status or (status == "unknown" and again.status == "confirmed")
    if status == "failed":
        assert len(_moved(stand, tag)) == 1  # freed for certain, so the second call paid it
    assert len(_moved(stand, tag)) <= 1
    assert unsound(stand.root) == []


def test_an_effect_still_on_its_way(stand: Stand) -> None:
    """A request that the provider holds is unknown and keeps its obligation; when it lands it is found, once."""
    with countermark.open(stand.root, agent="treasury") as handle:
        stand.twin.faults({"script": {"transfers.create": ["slow"]}})
        assert pay(handle, "late-1", call_id="late").status == "unknown"
        assert _moved(stand, "late") == []
        assert pay(handle, "late-1", call_id="late-b").code == "duplicate_obligation"
        stand.twin.release()
        while not _moved(stand, "late"):
            stand.twin.control("counters")
        handle.call("recover", {})
        assert pay(handle, "late-1", call_id="late").status == "confirmed"
    assert len(_moved(stand, "late")) == 1


def _moved(stand: Stand, tag: str) -> list[object]:
    return [m for m in stand.twin.books().movements() if m.metadata.get("invoice") == f"INV-{tag}-1"]


class Twinned:
    """A deployment and a simulator whose clocks go together."""

    def __init__(self, folder: Path, recovery: str = "idempotent") -> None:
        self.clock = FakeClock()
        self.stand = Stand(folder, tools=transfers(timeout_ms=TIMEOUT_MS, recovery=recovery), clock=self.clock)
        self.connector = StripeConnector(lambda tool: self.stand.twin.key, self.stand.twin.url)

    def open(self) -> countermark.Deployment:
        return countermark.open(
            self.stand.root, agent="treasury", connectors={"stripe": self.connector}, clock=self.clock
        )

    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.stand.twin.advance(seconds)

    def requests(self) -> int:
        return self.stand.twin.counters().get("transfers.create", 0)

    def close(self) -> None:
        self.connector.close()
        self.stand.twin.stop()


@pytest.fixture
def twinned(tmp_path: Path) -> Iterator[Twinned]:
    found = Twinned(tmp_path)
    yield found
    found.close()


def test_a_forgotten_key_is_never_sent_again(twinned: Twinned) -> None:
    """After a day the provider has forgotten the key and would pay again: the effect is looked up, and found."""
    twinned.stand.twin.faults(
        {"script": {"transfers.create": ["http_500_after"], "transfers.list": ["reset_before"] * 9}}
    )
    with twinned.open() as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
        sent = twinned.requests()
    twinned.stand.twin.faults({"script": {}})
    twinned.advance(25 * 3600)
    with twinned.open() as handle:
        assert pay(handle, 1, run=run).status == "confirmed"
    assert twinned.requests() == sent
    assert len(twinned.stand.twin.books().movements()) == 1
    assert bodies(twinned.stand.root, "action.settled")[-1]["via"] == "lookup"
    assert judge_books(twinned.stand.root, twinned.stand.twin) == []


def test_nothing_is_sent_after_not_after(twinned: Twinned) -> None:
    """Past its time an unknown intent is only looked up, also while the provider would still know the key."""
    twinned.stand.twin.faults({"script": {"transfers.create": ["reset_before"] * 3}})
    with twinned.open() as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
        sent = twinned.requests()
        twinned.advance(61)
        handle.call("recover", {})
        assert twinned.requests() == sent
        assert pay(handle, 1, run=run).status == "unknown"


def test_not_found_is_failed_only_after_the_quiet_time(twinned: Twinned) -> None:
    """Until lease, timeouts and the provider's lag have passed, "not found" stays unknown and keeps the obligation."""
    twinned.stand.twin.faults({"script": {"transfers.create": ["reset_before"] * 3}})
    with twinned.open() as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
        twinned.advance(60 + int(LAG_S))
        handle.call("recover", {})
        assert pay(handle, 1, run=run).status == "unknown"
        assert pay(handle, 1, run=run, call_id="b").code == "duplicate_obligation"
        twinned.advance(2)
        handle.call("recover", {})
        assert pay(handle, 1, run=run).status == "failed"
        assert pay(handle, 1, run=run, call_id="c").status == "confirmed"
    assert len(twinned.stand.twin.books().movements()) == 1
    assert judge_books(twinned.stand.root, twinned.stand.twin) == []
    assert unsound(twinned.stand.root) == []


def test_an_effect_that_shows_late_is_confirmed(twinned: Twinned) -> None:
    """Recovery within the quiet time finds an effect that the first lookups could not see."""
    faults = {"transfers.create": ["http_500_after"], "transfers.list": ["reset_before"] * 2}
    twinned.stand.twin.faults({"script": faults})
    with twinned.open() as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
        twinned.advance(90)
        handle.call("recover", {})
        handle.call("recover", {})
        assert pay(handle, 1, run=run).status == "confirmed"
    assert len(twinned.stand.twin.books().movements()) == 1


def test_a_restart_does_not_shorten_the_doubt(tmp_path: Path) -> None:
    """After a restart a rate limit says nothing about what was sent before: unknown, not failed; then it is found."""
    provider, clock = Provider(["lost_after"] * 3, lookup="provider_error"), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
    provider.script.extend(["limited"] * 3)
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1, run=run).status == "unknown"
        assert pay(handle, 1, run=run, call_id="b").code == "duplicate_obligation"
        provider.lookup_says = ""
        handle.call("recover", {})
        assert pay(handle, 1, run=run).status == "confirmed"
    assert len(provider.effects) == 1
    assert unsound(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("recovery", "fault", "status", "sent"),
    [
        ("idempotent", "lost_before", "confirmed", 2),
        ("idempotent", "lost_after", "confirmed", 2),
        ("lookup", "lost_before", "unknown", 1),
        ("lookup", "lost_after", "confirmed", 1),
        ("escalate", "lost_before", "unknown", 1),
        ("escalate", "lost_after", "unknown", 1),
        ("idempotent", "refused", "failed", 1),
        ("lookup", "refused", "failed", 1),
        ("escalate", "refused", "failed", 1),
        ("idempotent", "raise", "confirmed", 2),
        ("lookup", "raise", "unknown", 1),
        ("escalate", "raise", "unknown", 1),
    ],
)
def test_recovery_is_what_the_tool_declares(tmp_path: Path, recovery: str, fault: str, status: str, sent: int) -> None:
    """Idempotent tools are sent again under their key, lookup tools are asked about, the others wait for people."""
    provider, clock = Provider([fault]), FakeClock()
    make(tmp_path / "d", provider, clock=clock, tools=transfers(recovery=recovery))
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == status
        assert len(provider.sent) == sent
        assert len(set(provider.sent)) == 1
        handle.call("recover", {})
        assert recovery != "escalate" or provider.asked == []
        if status == "unknown":
            clock.advance(30 * 24 * 3600)
            handle.call("recover", {})
            final = "failed" if recovery == "lookup" else "unknown"
            clock_free = pay(handle, 1, run=run)
            assert clock_free.status == final
        assert len(provider.sent) == sent
    assert len(provider.effects) <= 1
    assert unsound(tmp_path / "d") == []


def test_the_key_is_the_actions(tmp_path: Path) -> None:
    """The provider's key depends on deployment, agent, run, call and action, never on the attempt."""
    provider = Provider(["lost_before", "lost_before"])
    make(tmp_path / "d", provider)
    with hold(tmp_path / "d", provider) as handle:
        run = handle.start_run()
        pay(handle, 1, run=run)
        pay(handle, 2, run=run)
        pay(handle, 3, run=handle.start_run())
    assert len(provider.sent) == 5
    assert len(set(provider.sent)) == 3
    decided = {body["key"] for body in bodies(tmp_path / "d", "action.decided")}
    assert decided == set(provider.sent)


def test_money_that_may_have_moved_keeps_its_budget(tmp_path: Path) -> None:
    """An unknown outcome stays in the window that limits the agent."""
    provider = Provider(["lost_before"] * 3, lookup="provider_error")
    make(tmp_path / "d", provider, changes={"max = 5000000\n": "max = 1000\n"})
    with hold(tmp_path / "d", provider) as handle:
        assert pay(handle, 1, 600).status == "unknown"
        assert pay(handle, 2, 401).code == "denied_by_policy"
        assert pay(handle, 3, 400).status == "confirmed"


def test_what_would_be_sent_must_be_what_was_decided(tmp_path: Path) -> None:
    """A connector that prepares other bytes after a restart is not let through: its request has another digest."""
    provider, clock = Provider(["lost_before"] * 3, lookup="provider_error"), FakeClock()
    make(tmp_path / "d", provider, clock=clock)
    with hold(tmp_path / "d", provider, clock) as handle:
        run = handle.start_run()
        assert pay(handle, 1, run=run).status == "unknown"
    sent = len(provider.sent)
    honest = provider.prepare

    def other(tool, args, key):  # type: ignore[no-untyped-def]
        return honest(tool, {**args, "destination": ACME + "X"}, key)

    provider.prepare = other  # type: ignore[method-assign]
    with hold(tmp_path / "d", provider, clock) as handle:
        assert pay(handle, 1, run=run).status in ("unknown", "pending")
    assert len(provider.sent) == sent
