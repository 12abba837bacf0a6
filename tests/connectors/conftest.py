"""Raw peers, and a simulator for a whole test file."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest
from raw_peer import Peer, Script

from countermark.twins import StripeTwin


@pytest.fixture
def peer_of() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(answers: list[bytes | Script], tls: ssl.SSLContext | None = None) -> Peer:
        made.append(Peer(answers, tls))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeTwin]:
    folder = tmp_path_factory.mktemp("stripe-twin")
    accounts = ["acct_ada", "acct_bob", "ba_house"]
    with StripeTwin.start(folder, seed=11, accounts=accounts, balances={"usd": 10_000_000}) as running:
        yield running
    assert "Traceback" not in (folder / "simulator.log").read_text()
