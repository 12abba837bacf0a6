"""Evidence of a real deployment, for strangers to judge."""

from __future__ import annotations

import pytest
from publish.authority import honest
from publish.evidence import Evidence, make
from vectors.stamps import Authority

from countermark.model.clock import SystemClock

TSA = Authority("tsa.example")


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("evidence")
    return make(folder, honest(TSA, SystemClock().now_us), TSA.pem.encode(), payments=5)
