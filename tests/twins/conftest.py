"""A simulator for a whole test file, and a client for it: unmodified stripe-python with its retries switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stripe

from countermark.twins import StripeTwin


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeTwin]:
    folder: Path = tmp_path_factory.mktemp("stripe-twin")
    accounts = ["acct_ada", "acct_bob", "ba_house"]
    with StripeTwin.start(folder, seed=7, accounts=accounts, balances={"usd": 10_000_000, "eur": 500}) as running:
        yield running
    assert "Traceback" not in (folder / "simulator.log").read_text()


@pytest.fixture(scope="module")
def client_of() -> Callable[[StripeTwin, str], stripe.StripeClient]:
    def make(twin: StripeTwin, key: str = "") -> stripe.StripeClient:
        return stripe.StripeClient(key or twin.key, base_addresses={"api": twin.url}, max_network_retries=0)

    return make


@pytest.fixture(scope="module")
def client(twin: StripeTwin, client_of: Callable[..., stripe.StripeClient]) -> stripe.StripeClient:
    return client_of(twin)
