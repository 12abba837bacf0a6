"""A desk for each test, whose tools an activity runs; a database for DBOS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "adapters"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))

from desk import Desk, desk_at
from pg_server import Server, binaries, server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, where there is one."""
    programs = binaries()
    if programs is None:
        pytest.skip("needs debian: postgresql")
    with server(programs) as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database for DBOS: its URL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dbos.sqlite'}"
    found: Server = request.getfixturevalue("postgres")
    return found.database("t" + token_hex(8))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(tmp_path / "d") as found:
        yield found
