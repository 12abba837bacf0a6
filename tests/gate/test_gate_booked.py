"""What the provider says it booked against what was asked (G5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import TOOL, Provider, hold, make, pay

from countermark.journal import SqliteStore
from countermark.model.values import Outcome


class Elsewise(Provider):
    """A provider that books another amount or currency than it was asked for."""

    def __init__(self, amount: int, currency: str) -> None:
        super().__init__()
        self.booked = (amount, currency)

    def _done(self, key: str, code: str) -> Outcome:
        amount, currency = self.booked
        return Outcome("confirmed", code, ref="tr_" + key[3:19], http_status=200, amount=amount, currency=currency)


@pytest.mark.parametrize(
    ("booked", "status", "moved"), [((900, "eur"), "confirmed", 900), ((1000, "gbp"), "unknown", None)]
)
def test_a_different_booking_is_named_and_stops_the_tool(
    tmp_path: Path, booked: tuple[int, str], status: str, moved: int | None
) -> None:
    """Another amount is recorded as what was moved, another currency is unknown; either way the tool stops."""
    provider = Elsewise(*booked)
    made = make(tmp_path / "d", provider)
    with hold(made.root, provider) as handle:
        first = pay(handle, 1)
        assert (first.status, first.code) == (status, "booked_differently")
        kills = handle.call("status", {})["kills"]
        assert [(kill["kind"], kill["value"]) for kill in kills] == [("tool", TOOL)]
        assert pay(handle, 2).code == "killed"
        assert len(provider.effects) == 1
    if moved is not None:
        store = SqliteStore(made.root / "data" / "journal.db", readonly=True)
        (settled,) = [r for r in store.records() if r.kind == "action.settled"]
        store.close()
        assert settled.body["settled"] == {"amount": moved, "currency": "eur"}


def test_the_same_booking_stops_nothing(tmp_path: Path) -> None:
    """A provider that books what was asked is the ordinary case."""
    provider = Elsewise(1000, "eur")
    made = make(tmp_path / "d", provider)
    with hold(made.root, provider) as handle:
        assert [pay(handle, n).code for n in (1, 2)] == ["ok", "ok"]
